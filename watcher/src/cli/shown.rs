//! The action and the result of a fence in `history`, as words on the command line and in a row.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use fence_audit::Status;
use fence_protocol::{AuditResult, FenceAction};
use serde::{Serialize, Serializer};

/// The values of `--action`.
pub(super) fn action_values() -> impl TypedValueParser<Value = FenceAction> {
    let actions = [FenceAction::Off, FenceAction::On, FenceAction::Reboot];
    PossibleValuesParser::new(actions.map(FenceAction::as_str))
        .try_map(|word| word.parse().map_err(|()| UNKNOWN))
}

/// The values of `--result`.
pub(super) fn result_values() -> impl TypedValueParser<Value = Shown> {
    let value = |shown: Shown| match shown {
        // The word in the table and in JSON has blanks, which are inconvenient on a command line.
        Shown::Open => PossibleValue::new(NO_END).alias(OPEN),
        _ => PossibleValue::new(shown.as_str().to_owned()),
    };
    PossibleValuesParser::new(Shown::known().map(value)).try_map(|word| {
        let word = if word == NO_END { OPEN } else { &word };
        Shown::known().find(|shown| shown.as_str() == word).ok_or(UNKNOWN)
    })
}

/// Why a word is no value. The parser refuses such a word before, and lists the values.
const UNKNOWN: &str = "it is none of the known words";

/// The result of a fence as a row shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The result in the audit.
    Ended(AuditResult),
    /// The status: logs of the first version have no result.
    Status(Status),
    /// The fence waits for its turn.
    Waiting,
    /// A watcher carries the fence out.
    Running,
    /// There is no end in the audit, and the fence neither waits nor runs: the end was lost.
    Open,
}

impl Shown {
    /// All results but the words of other responders.
    fn known() -> impl Iterator<Item = Self> {
        let others = [Status::Completed, Status::Failed].map(Shown::Status);
        let without_end = [Shown::Waiting, Shown::Running, Shown::Open];
        AuditResult::known().map(Shown::Ended).chain(others).chain(without_end)
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Shown::Ended(result) => result.as_str(),
            Shown::Status(status) => status.as_str(),
            Shown::Waiting => "waiting",
            Shown::Running => "running",
            Shown::Open => OPEN,
        }
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// [`Shown::Open`] in a table and in JSON.
pub(super) const OPEN: &str = "no end recorded";

/// [`Shown::Open`] as a value of `--result`.
const NO_END: &str = "no-end";
