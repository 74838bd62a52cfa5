//! The keys of the configuration file: one row for each. The reader, the manual and the examples
//! share the rows.
//!
//! This module has the rows of `[spool]`, `[log]` and `[service]`, the module `device` those of
//! `[[device]]`, and the module of a device type those of the type. A key without a row cannot be
//! read.

use super::{DAY, HOUR, MINUTE, SECOND};

/// One key of a table of the file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The form of its value.
    pub form: Form,
    /// Whether it may be left out, and its value then.
    pub standing: Standing,
    /// Its purpose, in whole sentences, as Markdown.
    pub help: &'static str,
}

impl Key {
    pub(super) const fn new(name: &'static str, form: Form, standing: Standing) -> Self {
        Key { name, form, standing, help: "" }
    }

    pub(super) const fn help(self, help: &'static str) -> Self {
        Key { help, ..self }
    }
}

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`.
    Boolean,
    /// A duration from the first to the second, in milliseconds.
    Duration(u64, u64),
    /// A list of words.
    List,
    /// A name such as a node's.
    Name,
    /// A hostlist expression or a list of them.
    Nodes,
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// One of these numbers.
    Numbers(&'static [u8]),
    /// An absolute path.
    Path,
    /// A text with `{target}` for all targets, or a table with a text for each.
    PerTarget,
    /// A program and its arguments.
    Program,
    /// A table of names and values.
    Table,
    /// The targets: nodes, all, those that the device lists, or a table.
    Targets,
    /// A text.
    Text,
    /// The name of a device type.
    Type,
    /// One of these words.
    Words(&'static [&'static str]),
}

/// Whether a key may be left out. Each text is a value as TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is required; an example.
    Required(&'static str),
    /// It may be left out; an example.
    Optional(&'static str),
    /// The value if it is left out.
    Default(&'static str),
}

use Form::{Duration, Number, Path, Words};
use Standing::Default;

/// The tables besides the devices, each with its keys.
pub const TABLES: [(&str, &[Key]); 3] = [("spool", SPOOL), ("log", LOG), ("service", SERVICE)];

pub(super) const SPOOL: &[Key] = &[
    Key::new("request_dir", Path, Default("\"/var/run/gfs2-fencing/requests\"")).help(
        "The directory of the requests. `REQUEST_DIR` in the environment overrides it, also for \
         the agent.",
    ),
    Key::new("response_dir", Path, Default("\"/var/run/gfs2-fencing/responses\""))
        .help("The directory of the answers. `RESPONSE_DIR` in the environment overrides it."),
    Key::new("default_deadline", Duration(SECOND, DAY), Default("\"60s\"")).help(
        "How long a request without a deadline may be executed. The time begins at the earliest \
         of its timestamp, the last change of its file and the moment at which the watcher sees \
         it. Requests of older agents have no deadline.",
    ),
    Key::new("keep_answers", Duration(MINUTE, 3_650 * DAY), Default("\"30d\""))
        .help("How long answers are kept. They are the record of all fences."),
    Key::new("keep_answers_max", Number(1, 1_000_000), Default("10000"))
        .help("The most answers that are kept."),
];

pub(super) const LOG: &[Key] = &[
    Key::new("log_dir", Path, Default("\"/var/log/gfs2-fencing\""))
        .help("The directory of the audit. `LOG_DIR` in the environment overrides it."),
    Key::new("level", Words(&["error", "warn", "info", "debug", "trace"]), Default("\"info\""))
        .help(
            "The least important level that is logged. `\"debug\"` adds each step of a fence, each \
             command line, each HTTP call and each step of the spool. `\"trace\"` adds each look \
             at the spool, and each event and effect of the watcher's core. No level shows a \
             password; in command lines, arguments with the name of a secret are shown as `***`.",
        ),
    Key::new("target", Words(&["auto", "stderr", "syslog", "journal"]), Default("\"auto\"")).help(
        "The destination of the service's own log. `\"auto\"` takes the journal if systemd \
         connects standard error with it, syslog if standard error is `/dev/null`, and standard \
         error otherwise.",
    ),
];

pub(super) const SERVICE: &[Key] = &[
    Key::new("max_running", Number(1, 10_000), Default("256"))
        .help("The most executions at the same time, over all devices."),
    Key::new("stop_limit", Duration(SECOND, HOUR), Default("\"60s\""))
        .help("How long a stopping service waits for the fences that still run."),
    Key::new("rescan", Duration(SECOND, HOUR), Default("\"30s\"")).help(
        "How often the service looks for requests without an event. inotify reports new \
         requests at once.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::values::in_words;
    use super::super::{DEVICE, Origin, TYPES, Type, WatcherConfig, parse};
    use super::*;

    fn read(text: &str) -> Result<WatcherConfig, String> {
        let file = std::path::Path::new("w.toml");
        let origin =
            Origin { file, node: "n1".into(), environment: &[], programs_must_exist: false };
        parse(text, &origin).map_err(|error| error.to_string())
    }

    /// The types that are built in, each with its example.
    fn examples() -> Vec<(&'static Type, String)> {
        let is_built_in = |of_type: &&Type| cfg!(feature = "ec2") || of_type.name != "ec2";
        let with_text = |of_type: &'static Type| {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
            let path = format!("{root}/fence-watcher-{}.toml", of_type.name);
            (of_type, std::fs::read_to_string(path).unwrap())
        };
        TYPES.iter().filter(is_built_in).map(with_text).collect()
    }

    /// All keys that a file with a device of this type can have.
    fn rows(of_type: &Type) -> Vec<&'static Key> {
        let tables = TABLES.iter().flat_map(|(_, rows)| rows.iter());
        tables.chain(DEVICE).chain(of_type.keys).collect()
    }

    /// The example with this value for `key`, whether the example has it commented out or not.
    fn with(example: &str, key: &str, value: &str) -> String {
        let is_it = |line: &&str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
        let line = example.lines().find(is_it).unwrap_or_else(|| panic!("{key} is not there"));
        example.replacen(&format!("\n{line}\n"), &format!("\n{key} = {value}\n"), 1)
    }

    #[test]
    fn each_key_has_one_row_with_a_legal_name_and_help_in_sentences() {
        for of_type in TYPES {
            let mut names = BTreeSet::new();
            for row in rows(of_type) {
                assert!(names.insert(row.name), "{}: two rows '{}'", of_type.name, row.name);
                let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
                assert!(row.name.bytes().all(is_legal), "{}", row.name);
                assert!(row.help.ends_with('.') && !row.help.contains("  "), "{}", row.name);
            }
            let has = |key: &str| names.contains(key);
            assert!(of_type.written.iter().all(|(key, _)| has(key)), "{}", of_type.name);
        }
    }

    #[test]
    fn each_key_is_read_in_the_form_of_its_row() {
        for (of_type, example) in examples() {
            for row in rows(of_type) {
                let problem = |value: &str| read(&with(&example, row.name, value)).unwrap_err();
                let says = |value: &str, is_meant: &dyn Fn(&str) -> bool| {
                    let found = problem(value);
                    let about = format!(": '{}': ", row.name);
                    let mut texts = found.lines().filter_map(|line| line.split_once(&about));
                    assert!(texts.any(|(_, text)| is_meant(text)), "{}: {found}", of_type.name);
                };
                says("1979-05-27", &|text| text.starts_with("expected "));
                match row.form {
                    Form::Words(words) => {
                        let words: Vec<_> =
                            words.iter().map(|word| format!("\"{word}\"")).collect();
                        let expected = format!("\"x\" is none of {}", words.join(", "));
                        says("'x'", &|text| text == expected);
                    }
                    Duration(least, most) => {
                        let bounds = format!("must be {} to {}", in_words(least), in_words(most));
                        says("'99999d'", &|text| text == bounds);
                    }
                    Number(..) => says("99999999", &|text| text.starts_with("must be ")),
                    Path => says("'x'", &|text| text == "'x' is not an absolute path"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn what_the_examples_show_as_commented_out_is_the_default_and_would_be_right() {
        for (of_type, example) in examples() {
            let meant = read(&example).unwrap();
            for row in rows(of_type) {
                let is_written = example.contains(&format!("\n{} = ", row.name));
                if let (Default(value), false) = (row.standing, is_written) {
                    let shown = with(&example, row.name, value);
                    assert_eq!(read(&shown), Ok(meant.clone()), "{}: {}", of_type.name, row.name);
                }
                if let Standing::Optional(value) | Standing::Required(value) = row.standing {
                    let found = read(&with(&example, row.name, value)).err().unwrap_or_default();
                    let about_value = format!("'{}': ", row.name);
                    assert!(!found.contains(&about_value), "{}: {found}", of_type.name);
                }
            }
        }
    }
}
