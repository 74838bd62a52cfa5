//! Why the input is refused. The words are those of the fence-agents library, if it has some.

use std::fmt;
use std::time::Duration;

use fence_protocol::NameError;

use crate::outcome::without_read_words;

/// Why the input is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputError {
    /// No action was given.
    NoAction,
    /// There is no such action.
    UnknownAction(String),
    /// The action needs a target, and none was given.
    NoTarget(&'static str),
    /// `plug` and `port` name two targets, and neither is the cluster's own name of the node.
    TwoTargets(String, String),
    /// The target names several nodes.
    SeveralTargets(String),
    /// The target is not a safe name.
    Target(String, NameError),
    /// The value of a parameter is wrong.
    Value {
        /// The option or the variable that gives the value.
        what: String,
        /// Its value.
        value: String,
        /// The valid values.
        should: &'static str,
    },
    /// The delay leaves no time to fence.
    Delay(Duration, Duration),
    /// `validate-all` found this error.
    Invalid(Box<InputError>),
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InputError::NoAction => {
                f.write_str("no action was given: set action=off, or see --help")
            }
            InputError::UnknownAction(word) => {
                write!(f, "Failed: Unrecognised action '{}'", without_read_words(word))
            }
            InputError::NoTarget(action) => write!(
                f,
                "Failed: You have to enter plug number or machine identification: '{action}' needs \
                 plug=, the node to fence"
            ),
            InputError::TwoTargets(plug, port) => write!(
                f,
                "plug names '{plug}' and port names '{port}', and neither is nodename, the cluster's own \
                 name: which node is meant? Give one of them"
            ),
            InputError::SeveralTargets(text) => {
                write!(f, "the target '{text}' names several nodes: fence them one by one")
            }
            InputError::Target(text, error) => {
                write!(f, "the target '{text}' is not a node name: {error}")
            }
            InputError::Value { what, value, should } => {
                write!(f, "{what} is '{value}', but must be {should}")
            }
            InputError::Delay(delay, time_max) => write!(
                f,
                "a delay of {} s leaves no time to fence within {} s: shorten the delay",
                delay.as_secs_f64(),
                time_max.as_secs_f64()
            ),
            InputError::Invalid(why) => {
                write!(f, "validate-all failed: {why}. Please use '-h' for usage")
            }
        }
    }
}

impl std::error::Error for InputError {}
