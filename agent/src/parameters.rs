//! The table of all parameters: the only place that names, types and describes a parameter.
//!
//! The parsers of the command line and of standard input, `--help` and the metadata are made from
//! these rows. `invocation` gives the values their meaning.

/// The program's name, as Pacemaker and people know it.
pub const AGENT: &str = "fence_gfs2_recorder";

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The name on standard input and in the metadata; with hyphens, the long option.
    pub name: &'static str,
    /// An older name.
    pub alias: Alias,
    /// The letter of the short option.
    pub short: Option<char>,
    /// The form of its values.
    pub kind: Kind,
    /// The value that holds if none is given.
    pub default: Option<&'static str>,
    /// The environment variable that gives a value if no option does.
    pub environment: Option<&'static str>,
    /// Whether it is required, optional, deprecated or internal.
    pub standing: Standing,
    /// One sentence for people.
    pub help: &'static str,
}

/// An older name of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// There is none.
    None,
    /// It is accepted, and the metadata declares it as deprecated, so that tools accept it too.
    Deprecated(&'static str),
    /// It is accepted, and the metadata does not declare it.
    Silent(&'static str),
}

/// The form of a parameter's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// An absolute path.
    Path,
    /// A whole number.
    Integer,
    /// A time in seconds.
    Seconds,
    /// Yes or no.
    Boolean,
    /// Yes or no; as an option it needs no value.
    Flag,
    /// One of these words.
    Select(&'static [&'static str]),
}

/// Who gives a parameter, and whether it must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is required.
    Required,
    /// It is optional.
    Optional,
    /// It is accepted for old configurations.
    Deprecated,
    /// Pacemaker sends it; it is not for people.
    Internal,
}

impl Parameter {
    const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        let (alias, short, default) = (Alias::None, None, None);
        let (environment, standing) = (None, Standing::Optional);
        Parameter { name, alias, short, kind, default, environment, standing, help }
    }

    /// A parameter that all agents of the fence-agents library have and that has no effect here.
    const fn without_effect(name: &'static str, kind: Kind) -> Self {
        Parameter::new(name, kind, "Accepted for compatibility, without effect")
    }

    const fn standing(self, standing: Standing) -> Self {
        Parameter { standing, ..self }
    }

    const fn alias(self, alias: Alias) -> Self {
        Parameter { alias, ..self }
    }

    const fn short(self, letter: char) -> Self {
        Parameter { short: Some(letter), ..self }
    }

    const fn default(self, value: &'static str) -> Self {
        Parameter { default: Some(value), ..self }
    }

    const fn environment(self, variable: &'static str) -> Self {
        Parameter { environment: Some(variable), ..self }
    }

    /// The names under which it is accepted.
    pub fn spellings(&self) -> impl Iterator<Item = &'static str> + use<> {
        let alias = match self.alias {
            Alias::None => None,
            Alias::Deprecated(name) | Alias::Silent(name) => Some(name),
        };
        std::iter::once(self.name).chain(alias)
    }

    /// The option as `-n, --plug=[id]`, for the row's own name or its alias.
    pub fn usage(&self, spelling: &str) -> String {
        let short = match self.short {
            Some(letter) if spelling == self.name => format!("-{letter}, "),
            _ => String::new(),
        };
        let value = match self.kind {
            Kind::Flag => "",
            Kind::Text => "=[text]",
            Kind::Path => "=[path]",
            Kind::Integer => "=[number]",
            Kind::Seconds => "=[seconds]",
            Kind::Boolean => "=[yes|no]",
            Kind::Select(_) => "=[word]",
        };
        format!("{short}--{}{value}", spelling.replace('_', "-"))
    }
}

/// The row of `name`, which is in the table.
pub fn parameter(name: &str) -> &'static Parameter {
    PARAMETERS
        .iter()
        .find(|row| row.name == name)
        .unwrap_or_else(|| unreachable!("no parameter {name}"))
}

/// `spelling` as the table writes it, if a row accepts it.
pub fn find(spelling: &str) -> Option<&'static str> {
    PARAMETERS.iter().flat_map(Parameter::spellings).find(|known| *known == spelling)
}

/// All parameters, in the order in which they are shown.
pub const PARAMETERS: &[Parameter] = &[
    Parameter::new(
        "action",
        Kind::Text,
        "Fencing action: off, on, reboot, status, list, list-status, monitor, metadata, manpage or \
         validate-all; required, except from dlm_controld, which means reboot",
    )
    .alias(Alias::Silent("option"))
    .short('o')
    .standing(Standing::Required),
    Parameter::new(
        "plug",
        Kind::Text,
        "Name of the node to fence, as the responder knows it; off, on, reboot and status need it, \
         and Pacemaker adds it",
    )
    .alias(Alias::Deprecated("port"))
    .short('n')
    .standing(Standing::Required),
    Parameter::new(
        "nodename",
        Kind::Text,
        "The cluster's name of the node to fence; used when neither plug nor port is given",
    )
    .standing(Standing::Internal),
    Parameter::new("nodeid", Kind::Text, "The cluster's number of the node to fence; ignored")
        .standing(Standing::Internal),
    Parameter::new(
        "responder",
        Kind::Select(&["fence-watcher", "script", "nnf"]),
        "Who executes the requests: fence-watcher, a script of your own, or nnf-sos",
    )
    .default("fence-watcher"),
    Parameter::new(
        "device",
        Kind::Text,
        "Name of the fence device to use; without it the responder chooses by the target",
    ),
    Parameter::new(
        "fence_timeout",
        Kind::Seconds,
        "Seconds after which the agent exits, with or without an answer; keep it below \
         pcmk_reboot_timeout and pcmk_off_timeout",
    )
    .alias(Alias::Deprecated("recorder_timeout"))
    .default("60")
    .environment("FENCE_TIMEOUT"),
    Parameter::new(
        "poll_interval",
        Kind::Seconds,
        "Seconds between two looks for the answer if no event announces it",
    )
    .alias(Alias::Deprecated("recorder_poll_interval"))
    .default("0.5")
    .environment("POLL_INTERVAL"),
    Parameter::new(
        "delay",
        Kind::Seconds,
        "Seconds to wait before off and reboot; the delay is part of fence_timeout",
    )
    .default("0"),
    Parameter::new("request_dir", Kind::Path, "Directory into which the agent writes requests")
        .alias(Alias::Deprecated("request_path"))
        .default("/var/run/gfs2-fencing/requests")
        .environment("REQUEST_DIR"),
    Parameter::new("response_dir", Kind::Path, "Directory in which the agent looks for answers")
        .alias(Alias::Deprecated("response_path"))
        .default("/var/run/gfs2-fencing/responses")
        .environment("RESPONSE_DIR"),
    Parameter::new("log_dir", Kind::Path, "Directory of the audit logs")
        .alias(Alias::Deprecated("log_path"))
        .default("/var/log/gfs2-fencing")
        .environment("LOG_DIR"),
    Parameter::new(
        "gfs2_discovery_enabled",
        Kind::Boolean,
        "Find out which GFS2 file systems the target holds, and report them to the responder",
    )
    .default("true")
    .environment("GFS2_DISCOVERY_ENABLED"),
    Parameter::new("no_gfs2_discovery", Kind::Flag, "The same as gfs2_discovery_enabled=no")
        .standing(Standing::Deprecated),
    Parameter::new(
        "gfs2_discovery_timeout",
        Kind::Seconds,
        "Time limit in seconds for the programs that report the file systems; 0 runs no program and \
         reads files only",
    )
    .default("2")
    .environment("GFS2_DISCOVERY_TIMEOUT"),
    Parameter::new(
        "kubectl_cmd",
        Kind::Text,
        "Program that reports the file systems and nodes of Near Node Flash, by name or \
         absolute path; without it kubectl, if kubectl is configured",
    )
    .environment("KUBECTL_CMD"),
    Parameter::new("verbose", Kind::Flag, "Report each step on standard error; may be repeated")
        .short('v'),
    Parameter::new("verbose_level", Kind::Integer, "The same as verbose when it is 1 or more"),
    Parameter::new("quiet", Kind::Flag, "Write nothing to standard error, but still write the logs")
        .short('q'),
    Parameter::new("debug_file", Kind::Path, "File to which the verbose output is appended")
        .alias(Alias::Deprecated("debug"))
        .short('D'),
    Parameter::new("separator", Kind::Text, "Separator between the columns of list-status")
        .short('C')
        .default(","),
    Parameter::new(
        "plug_separator",
        Kind::Text,
        "Separator between several plugs; more than one plug is refused",
    )
    .default(","),
    Parameter::without_effect("disable_timeout", Kind::Text),
    Parameter::without_effect("power_timeout", Kind::Seconds),
    Parameter::without_effect("power_wait", Kind::Seconds),
    Parameter::without_effect("login_timeout", Kind::Seconds),
    Parameter::without_effect("shell_timeout", Kind::Seconds),
    Parameter::without_effect("stonith_status_sleep", Kind::Seconds),
    Parameter::without_effect("retry_on", Kind::Integer),
    Parameter::new("version", Kind::Flag, "Show the version and exit").short('V'),
    Parameter::new("help", Kind::Flag, "Show this help and exit").short('h'),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_name_each_letter_and_each_variable_stands_once() {
        let mut names = HashSet::new();
        let mut letters = HashSet::new();
        let mut variables = HashSet::new();
        for row in PARAMETERS {
            for name in row.spellings() {
                assert!(names.insert(name), "{name}");
                assert!(
                    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                    "{name}"
                );
            }
            assert!(row.short.is_none_or(|letter| letters.insert(letter)), "{}", row.name);
            assert!(row.environment.is_none_or(|name| variables.insert(name)), "{}", row.name);
        }
    }

    #[test]
    fn each_row_has_one_sentence_without_a_full_stop() {
        for row in PARAMETERS {
            assert!(!row.help.is_empty() && !row.help.ends_with('.'), "{}", row.name);
            assert!(row.help.starts_with(|c: char| c.is_ascii_uppercase()), "{}", row.name);
        }
    }

    #[test]
    fn a_default_is_a_value_of_its_kind() {
        for row in PARAMETERS {
            let Some(default) = row.default else { continue };
            match row.kind {
                Kind::Select(words) => assert!(words.contains(&default), "{}", row.name),
                Kind::Seconds => assert!(default.parse::<f64>().is_ok(), "{}", row.name),
                Kind::Path => assert!(default.starts_with('/'), "{}", row.name),
                _ => {}
            }
        }
    }

    #[test]
    fn an_option_is_shown_with_hyphens() {
        assert_eq!(parameter("plug").usage("plug"), "-n, --plug=[text]");
        assert_eq!(parameter("plug").usage("port"), "--port=[text]");
        assert_eq!(parameter("request_dir").usage("request_dir"), "--request-dir=[path]");
        assert_eq!(parameter("quiet").usage("quiet"), "-q, --quiet");
    }
}
