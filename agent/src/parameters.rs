//! The table of all parameters: the only place where one is named, typed and described.
//!
//! The parsers of the command line and of standard input, `--help` and the metadata are made from
//! these rows. What the values mean is the `invocation` module's.

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
    /// What its values look like.
    pub kind: Kind,
    /// The value that holds when none is given.
    pub default: Option<&'static str>,
    /// The environment variable that gives a value when no option does.
    pub environment: Option<&'static str>,
    /// Whether it must, may, should no longer or need not be given.
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
    /// It is accepted, and nobody is told.
    Silent(&'static str),
}

/// What the values of a parameter look like.
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

/// How a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It must be given.
    Required,
    /// It may be given.
    Optional,
    /// It is accepted for old configurations.
    Deprecated,
    /// Pacemaker sends it; it is not for people.
    Internal,
}

impl Parameter {
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

/// The row of `name`, which stands in the table.
pub fn parameter(name: &str) -> &'static Parameter {
    PARAMETERS
        .iter()
        .find(|row| row.name == name)
        .unwrap_or_else(|| unreachable!("no parameter {name}"))
}

/// The row that accepts `spelling`, and that spelling as the table writes it.
pub fn find(spelling: &str) -> Option<&'static str> {
    PARAMETERS.iter().flat_map(Parameter::spellings).find(|known| *known == spelling)
}

const ROW: Parameter = Parameter {
    name: "",
    alias: Alias::None,
    short: None,
    kind: Kind::Text,
    default: None,
    environment: None,
    standing: Standing::Optional,
    help: "",
};

/// A parameter that all agents of the fence-agents library have and that means nothing here.
const fn without_effect(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, help: "Accepted for compatibility, without effect", ..ROW }
}

/// All parameters, in the order in which they are shown.
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "action",
        alias: Alias::Silent("option"),
        short: Some('o'),
        standing: Standing::Required,
        help: "Fencing action: off, on, reboot, status, list, list-status, monitor, metadata, \
               manpage or validate-all; required, except from dlm_controld, which means reboot",
        ..ROW
    },
    Parameter {
        name: "plug",
        alias: Alias::Deprecated("port"),
        short: Some('n'),
        standing: Standing::Required,
        help: "Name of the node to fence, as the responder knows it; off, on, reboot and status need \
               it, and Pacemaker adds it by itself",
        ..ROW
    },
    Parameter {
        name: "nodename",
        standing: Standing::Internal,
        help: "The cluster's name of the node to fence; used when neither plug nor port is given",
        ..ROW
    },
    Parameter {
        name: "nodeid",
        standing: Standing::Internal,
        help: "The cluster's number of the node to fence; ignored",
        ..ROW
    },
    Parameter {
        name: "responder",
        kind: Kind::Select(&["fence-watcher", "script", "nnf"]),
        default: Some("fence-watcher"),
        help: "Who executes the requests: fence-watcher, a script of your own, or nnf-sos",
        ..ROW
    },
    Parameter {
        name: "device",
        help: "Name of the fence device to use; without it the responder chooses by the target",
        ..ROW
    },
    Parameter {
        name: "fence_timeout",
        alias: Alias::Deprecated("recorder_timeout"),
        kind: Kind::Seconds,
        default: Some("60"),
        environment: Some("FENCE_TIMEOUT"),
        help: "Seconds after which the agent is gone, with or without an answer; keep it below \
               pcmk_reboot_timeout and pcmk_off_timeout",
        ..ROW
    },
    Parameter {
        name: "poll_interval",
        alias: Alias::Deprecated("recorder_poll_interval"),
        kind: Kind::Seconds,
        default: Some("0.5"),
        environment: Some("POLL_INTERVAL"),
        help: "Seconds between two looks for the answer where no event announces it",
        ..ROW
    },
    Parameter {
        name: "delay",
        kind: Kind::Seconds,
        default: Some("0"),
        help: "Seconds to wait before off and reboot; they count against the agent's time",
        ..ROW
    },
    Parameter {
        name: "request_dir",
        alias: Alias::Deprecated("request_path"),
        kind: Kind::Path,
        default: Some("/var/run/gfs2-fencing/requests"),
        environment: Some("REQUEST_DIR"),
        help: "Directory into which requests are written",
        ..ROW
    },
    Parameter {
        name: "response_dir",
        alias: Alias::Deprecated("response_path"),
        kind: Kind::Path,
        default: Some("/var/run/gfs2-fencing/responses"),
        environment: Some("RESPONSE_DIR"),
        help: "Directory in which answers are looked for",
        ..ROW
    },
    Parameter {
        name: "log_dir",
        alias: Alias::Deprecated("log_path"),
        kind: Kind::Path,
        default: Some("/var/log/gfs2-fencing"),
        environment: Some("LOG_DIR"),
        help: "Directory of the audit logs",
        ..ROW
    },
    Parameter {
        name: "gfs2_discovery_enabled",
        kind: Kind::Boolean,
        default: Some("true"),
        environment: Some("GFS2_DISCOVERY_ENABLED"),
        help: "Find out which GFS2 file systems the target holds and tell the responder",
        ..ROW
    },
    Parameter {
        name: "no_gfs2_discovery",
        kind: Kind::Flag,
        standing: Standing::Deprecated,
        help: "The same as gfs2_discovery_enabled=no",
        ..ROW
    },
    Parameter {
        name: "gfs2_discovery_timeout",
        kind: Kind::Seconds,
        default: Some("2"),
        environment: Some("GFS2_DISCOVERY_TIMEOUT"),
        help: "Seconds that the programs which are asked for the file systems may take; 0 asks none, \
               only files are read",
        ..ROW
    },
    Parameter {
        name: "kubectl_cmd",
        environment: Some("KUBECTL_CMD"),
        help: "Program that is asked for the file systems and nodes of Near Node Flash, by name or \
               absolute path; without it kubectl, where that is configured",
        ..ROW
    },
    Parameter {
        name: "verbose",
        short: Some('v'),
        kind: Kind::Flag,
        help: "Say on standard error what happens; may be repeated",
        ..ROW
    },
    Parameter {
        name: "verbose_level",
        kind: Kind::Integer,
        help: "The same as verbose when it is 1 or more",
        ..ROW
    },
    Parameter {
        name: "quiet",
        short: Some('q'),
        kind: Kind::Flag,
        help: "Write nothing to standard error; the logs still tell",
        ..ROW
    },
    Parameter {
        name: "debug_file",
        alias: Alias::Deprecated("debug"),
        short: Some('D'),
        kind: Kind::Path,
        help: "File to which a copy of what verbose says is appended",
        ..ROW
    },
    Parameter {
        name: "separator",
        short: Some('C'),
        default: Some(","),
        help: "Separator between the columns of list-status",
        ..ROW
    },
    Parameter {
        name: "plug_separator",
        default: Some(","),
        help: "Separator between several plugs; more than one plug is refused",
        ..ROW
    },
    without_effect("disable_timeout", Kind::Text),
    without_effect("power_timeout", Kind::Seconds),
    without_effect("power_wait", Kind::Seconds),
    without_effect("login_timeout", Kind::Seconds),
    without_effect("shell_timeout", Kind::Seconds),
    without_effect("stonith_status_sleep", Kind::Seconds),
    without_effect("retry_on", Kind::Integer),
    Parameter {
        name: "version",
        short: Some('V'),
        kind: Kind::Flag,
        help: "Show the version and exit",
        ..ROW
    },
    Parameter {
        name: "help",
        short: Some('h'),
        kind: Kind::Flag,
        help: "Show this help and exit",
        ..ROW
    },
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
