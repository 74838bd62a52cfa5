//! The syntax of the command line and of standard input.
//!
//! Both give the same [`RawInput`]: names of the table and their values. This module does not check
//! the values.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use fence_protocol::{bounded, nearest};

use crate::outcome::named;
use crate::parameters::{AGENT, Kind, PARAMETERS, Parameter, find};
use crate::prefix::completed;

/// The most bytes that are read from standard input. Pacemaker fills a pipe of 64 KiB and drops the
/// rest: a long input may be cut off, and half a name may be another node's.
pub const STDIN_BYTES_MAX: usize = 32 * 1024;

/// The options that were given, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawInput {
    given: Vec<(&'static str, String)>,
    /// Whether the options come from a command line.
    pub is_typed: bool,
    /// The names in lines of standard input that name no parameter.
    pub unknown: Vec<String>,
    /// The value of `node` among them, by which `dlm_controld` names the node to fence.
    pub dlm_node: Option<String>,
}

/// Why the command line or standard input is not a list of options: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError(pub String);

impl RawInput {
    /// The options of a command line without the program's name.
    pub fn from_arguments(arguments: &[OsString]) -> Result<Self, SyntaxError> {
        let parse_error = |text: &str| {
            let stop = if text.ends_with('?') { "" } else { "." };
            SyntaxError(format!("Parse error: {text}{stop} Please use '-h' for usage"))
        };
        let arguments = completed(arguments).map_err(|text| parse_error(&text))?;
        let matches = command().try_get_matches_from(arguments).map_err(|error| {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            let first = first.strip_prefix("error: ").unwrap_or(first);
            parse_error(&format!("{first}{}", suggestion(&error).unwrap_or_default()))
        })?;
        let mut input = RawInput { is_typed: true, ..RawInput::default() };
        for spelling in PARAMETERS.iter().flat_map(Parameter::spellings) {
            for value in matches.get_many::<String>(spelling).into_iter().flatten() {
                input.given.push((spelling, value.clone()));
            }
        }
        Ok(input)
    }

    /// The `name=value` lines of standard input.
    pub fn from_stdin(bytes: &[u8]) -> Result<Self, SyntaxError> {
        if bytes.len() > STDIN_BYTES_MAX {
            return Err(SyntaxError(format!(
                "the options on standard input have more than {STDIN_BYTES_MAX} bytes and may be \
                 cut off; shorten the device's configuration"
            )));
        }
        let mut input = RawInput::default();
        for line in String::from_utf8_lossy(bytes).lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            match find(&name.replace('-', "_")) {
                Some(spelling) if line.contains('=') => {
                    input.given.push((spelling, unquoted(value).to_owned()));
                }
                _ => {
                    if name == "node" {
                        input.dlm_node = Some(unquoted(value).to_owned());
                    }
                    input.unknown.push(name.to_owned());
                }
            }
        }
        Ok(input)
    }

    /// The options of standard input that neither this agent nor its callers know, each with the
    /// option that was probably meant.
    pub fn mistyped(&self) -> Vec<String> {
        let mistyped = self.unknown.iter().filter(|name| !is_of_caller(name));
        mistyped
            .map(|name| {
                let meant = meant(&name.replace('-', "_"));
                let meant = meant.map(|meant| named(", did you mean ", meant) + "?");
                format!("'{}' is not an option{}", bounded(name, 64), meant.unwrap_or_default())
            })
            .collect()
    }

    /// The last value given under exactly this name.
    pub fn last(&self, spelling: &str) -> Option<&str> {
        self.given.iter().rev().find(|(name, _)| *name == spelling).map(|(_, value)| value.as_str())
    }

    /// The last value given for a parameter: under its name, else under its alias.
    pub fn value(&self, row: &Parameter) -> Option<&str> {
        row.spellings().find_map(|spelling| self.last(spelling))
    }

    /// Whether the flag `row` is set, by the last value that means yes or no. Any other value is
    /// ignored, as in the fence-agents library.
    pub fn flag(&self, row: &Parameter) -> bool {
        let mut values = self.given.iter().rev().filter(|(name, _)| *name == row.name);
        values.find_map(|(_, value)| yes_or_no(value)).unwrap_or(false)
    }
}

/// Whether `name` is an option that Pacemaker or `dlm_controld` adds, or uses itself.
fn is_of_caller(name: &str) -> bool {
    let names = ["crm_feature_set", "fail_time", "node", "priority", "provides", "stonith-timeout"];
    names.contains(&name) || name.starts_with("pcmk_") || name.contains("CRM_meta")
}

/// The parameter that was probably meant by `written`.
fn meant(written: &str) -> Option<&'static str> {
    let known: Vec<&str> = PARAMETERS.iter().flat_map(Parameter::spellings).collect();
    nearest(written, &known)
}

/// The long option that was probably meant by an unknown one.
fn suggestion(error: &clap::Error) -> Option<String> {
    let written = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(written)) if error.kind() == ErrorKind::UnknownArgument => {
            written
        }
        _ => return None,
    };
    let meant = meant(&written.strip_prefix("--")?.replace('-', "_"))?;
    Some(named(", did you mean --", &meant.replace('_', "-")) + "?")
}

/// The meaning of a boolean's text.
pub fn yes_or_no(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "on" | "true" => Some(true),
        "0" | "no" | "off" | "false" => Some(false),
        _ => None,
    }
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// The whole command line.
pub fn command() -> Command {
    let arguments =
        PARAMETERS.iter().flat_map(|row| row.spellings().map(|name| argument(row, name)));
    Command::new(AGENT)
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(arguments)
}

fn argument(row: &Parameter, spelling: &'static str) -> Arg {
    let hyphens = spelling.replace('_', "-");
    let mut argument = Arg::new(spelling).action(ArgAction::Append).long(hyphens.clone());
    if hyphens != spelling {
        argument = argument.alias(spelling);
    }
    if let Some(letter) = row.short.filter(|_| spelling == row.name) {
        argument = argument.short(letter);
    }
    if row.kind == Kind::Flag {
        argument.num_args(0..=1).require_equals(true).default_missing_value("1")
    } else {
        argument.num_args(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::parameter;

    fn arguments(words: &[&str]) -> Result<RawInput, SyntaxError> {
        RawInput::from_arguments(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn stdin(text: &str) -> RawInput {
        RawInput::from_stdin(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_forms_of_an_option_mean_the_same() {
        for words in [
            &["--request-dir", "/a=b c"][..],
            &["--request-dir=/a=b c"],
            &["--request_dir", "/a=b c"],
            &["--request_dir=/a=b c"],
            &["--request-dir=/x", "--request-dir=/a=b c"],
        ] {
            let input = arguments(words).unwrap();
            assert_eq!(input.last("request_dir"), Some("/a=b c"), "{words:?}");
        }
        for words in [&["-n", "n3"][..], &["-nn3"], &["--plug=n3"], &["--plug", "n3"]] {
            assert_eq!(arguments(words).unwrap().last("plug"), Some("n3"), "{words:?}");
        }
    }

    #[test]
    fn a_flag_needs_no_value_and_may_be_repeated() {
        let flag = |words: &[&str]| {
            let input = arguments(words).unwrap();
            (input.last("verbose").map(str::to_owned), input.last("quiet").map(str::to_owned))
        };
        assert_eq!(flag(&["-v"]), (Some("1".into()), None));
        assert_eq!(flag(&["-vvv", "-q"]), (Some("1".into()), Some("1".into())));
        assert_eq!(flag(&["-vq"]), (Some("1".into()), Some("1".into())));
        assert_eq!(flag(&["--verbose=0", "--quiet"]), (Some("0".into()), Some("1".into())));
        assert_eq!(arguments(&["-vo", "off"]).unwrap().last("action"), Some("off"));
        assert_eq!(arguments(&["-v", "-o", "off"]).unwrap().last("action"), Some("off"));
    }

    #[test]
    fn a_flags_value_that_is_neither_yes_nor_no_is_ignored() {
        let verbose = |text: &str| stdin(text).flag(parameter("verbose"));
        for (text, expected) in [
            ("verbose=1\n", true),
            ("verbose=YES\n", true),
            ("verbose=2\n", false),
            ("verbose=\n", false),
            ("verbose=debug\n", false),
            ("verbose=1\nverbose=\n", true),
            ("verbose=1\nverbose=0\nverbose=7\n", false),
            ("quiet=1\n", false),
        ] {
            assert_eq!(verbose(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_option_is_a_parse_error_of_one_line() {
        for words in [
            &["--nonsense"][..],
            &["-o"],
            &["off"],
            &["--plug", "n3", "extra"],
            &["-z"],
            &["--\nx"],
            &["--verbose", "1"],
        ] {
            let SyntaxError(text) = arguments(words).expect_err(words[0]);
            assert!(text.starts_with("Parse error: "), "{words:?}: {text}");
            assert!(!text.contains('\n'), "{words:?}: {text}");
        }
    }

    #[test]
    fn an_unknown_long_option_is_told_with_the_one_that_was_meant() {
        for (word, meant) in [
            (
                "--fence-timeot",
                Some("--fence-time-out (written without the hyphen in 'time-out')?"),
            ),
            ("--fence_timeot=5", Some("--fence-time-out (written")),
            ("--pulg=n3", Some("--plug?")),
            ("--actoin", Some("--action?")),
            ("--request-dri=/x", Some("--request-dir?")),
            ("--verbos3", Some("--verbose?")),
            ("--recorder-timeot=3", Some("--recorder-time-out (written")),
            ("--nonsense", None),
            ("-z", None),
            ("plug", None),
        ] {
            let SyntaxError(text) = arguments(&[word]).expect_err(word);
            let told = text.split_once("did you mean ").map(|(_, told)| told);
            assert_eq!(told.is_some(), meant.is_some(), "{text}");
            assert!(meant.is_none_or(|meant| told.unwrap().starts_with(meant)), "{text}");
            assert!(text.ends_with(" Please use '-h' for usage") && !text.contains("?."), "{text}");
        }
    }

    #[test]
    fn what_callers_send_is_not_mistyped() {
        let callers = "pcmk_host_list=n1\npcmk_reboot_timeout=75s\nstonith-timeout=5\nnodeid=3\n\
                       provides=unfencing\npriority=1\ncrm_feature_set=3.19\nCRM_meta_timeout=1\n\
                       node=1\nfail_time=17\nnodename=n1\nport=n1\nlogin_timeout=3\ndebug=/x\n";
        assert_eq!(stdin(callers).mistyped(), [""; 0]);
        let mistyped = stdin("fence_timeot=5\nlog-dri=/x\nlorem ipsum=1\nPLUG=n3\n").mistyped();
        assert_eq!(
            mistyped,
            [
                "'fence_timeot' is not an option, did you mean fence_time-out (written without the hyphen \
                 in 'time-out')?",
                "'log-dri' is not an option, did you mean log_dir?",
                "'lorem ipsum' is not an option",
                "'PLUG' is not an option",
            ]
        );
    }

    #[test]
    fn standard_input_follows_the_rules_of_the_fence_agents_library() {
        let input = stdin(
            "# comment\n\n  action=off  \r\nplug=n1\nplug=n3\nrequest-dir=\"/a b=c\"\n\
             debug=/x\nPLUG=n9\nnonsense=1\nno equals sign\nplug\n",
        );

        assert_eq!(input.last("action"), Some("off"));
        assert_eq!(input.last("plug"), Some("n3"));
        assert_eq!(input.last("request_dir"), Some("/a b=c"));
        assert_eq!(input.value(parameter("debug_file")), Some("/x"));
        assert_eq!(input.unknown, ["PLUG", "nonsense", "no equals sign", "plug"]);
    }

    #[test]
    fn an_option_under_its_own_name_outranks_its_old_name() {
        let input = stdin("fence_timeout=10\nrecorder_timeout=20\n");
        assert_eq!(input.value(parameter("fence_timeout")), Some("10"));
        let input = stdin("recorder_timeout=20\n");
        assert_eq!(input.value(parameter("fence_timeout")), Some("20"));
    }

    #[test]
    fn an_input_that_may_be_cut_off_is_refused() {
        let mut text = format!("action=off\ndevice={}\nplug=n12", "x".repeat(STDIN_BYTES_MAX));
        assert!(RawInput::from_stdin(text.as_bytes()).is_err());
        text.truncate(STDIN_BYTES_MAX);
        assert!(RawInput::from_stdin(text.as_bytes()).is_ok());
    }

    #[test]
    fn bytes_that_are_no_text_spoil_only_their_value() {
        let input = RawInput::from_stdin(b"action=off\nplug=n\xff3\n").unwrap();
        assert_eq!(input.last("action"), Some("off"));
        assert_eq!(input.last("plug"), Some("n\u{fffd}3"));
    }
}
