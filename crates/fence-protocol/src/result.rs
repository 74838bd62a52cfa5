//! The end of a fence in one word: in answers ([`FenceResult`]) and in the audit ([`AuditResult`]).
//!
//! Only this module reads and writes the words. `fence-core` decides what they mean for a fence.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The end of a request. The codes 0 to 3 are those of "The Executioner", section 3.2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FenceResult {
    /// The device acknowledged, and showed the state if it can be asked.
    Success,
    /// The device could not be reached: another node may still reach it.
    Unreachable,
    /// The device was reached and tried, but the state was not confirmed.
    Unacknowledged,
    /// The device, its driver or its configuration failed internally.
    DeviceFailure,
    /// Not executed: its deadline had passed, or it came from an earlier boot.
    Expired,
    /// Not executed: its client was gone.
    Withdrawn,
    /// The watcher ended during the execution: the outcome is unknown.
    Interrupted,
    /// Not executed: the request is invalid, or no device serves it.
    Rejected,
}

impl FenceResult {
    /// All results, for tables and tests.
    pub const ALL: [FenceResult; 8] = [
        FenceResult::Success,
        FenceResult::Unreachable,
        FenceResult::Unacknowledged,
        FenceResult::DeviceFailure,
        FenceResult::Expired,
        FenceResult::Withdrawn,
        FenceResult::Interrupted,
        FenceResult::Rejected,
    ];

    /// The word in the member `result`.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The number in the member `result_code`, 0 to 3.
    pub fn code(self) -> u8 {
        self.row().1
    }

    /// Its meaning in one sentence for people.
    pub fn meaning(self) -> &'static str {
        self.row().2
    }

    /// The word, the code and the meaning.
    fn row(self) -> (&'static str, u8, &'static str) {
        match self {
            FenceResult::Success => {
                ("success", 0, "The device acknowledged, and showed the state if it can be asked.")
            }
            FenceResult::Unreachable => {
                ("unreachable", 1, "The device was not reached: another node may still reach it.")
            }
            FenceResult::Unacknowledged => (
                "unacknowledged",
                2,
                "The device was reached and tried, but the state was not confirmed.",
            ),
            FenceResult::DeviceFailure => (
                "device-failure",
                3,
                "The device, its driver or its configuration failed internally.",
            ),
            FenceResult::Expired => (
                "expired",
                3,
                "The watcher did not begin the fence: the deadline had passed, or the request came from \
                 another boot.",
            ),
            FenceResult::Withdrawn => (
                "withdrawn",
                3,
                "The agent was gone, or took its request back, before the watcher began the fence.",
            ),
            FenceResult::Interrupted => {
                ("interrupted", 3, "The watcher ended during the fence: the outcome is unknown.")
            }
            FenceResult::Rejected => (
                "rejected",
                3,
                "Nothing was begun: the request is not valid, or no device serves it.",
            ),
        }
    }
}

impl fmt::Display for FenceResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The result of a fence in the audit: the answer's result, or the agent's end without an answer.
///
/// The agent also writes [`FenceResult::Withdrawn`] and [`FenceResult::Rejected`] for its own ends:
/// their meaning does not depend on the writer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AuditResult {
    /// A result that an answer can have.
    Fence(FenceResult),
    /// The agent's time was over without an answer, and it took the request back.
    TimedOut,
    /// The agent gave up while a responder had the request, or the answer proves nothing.
    Unknown,
    /// The word of another responder.
    Other(String),
}

impl AuditResult {
    /// All results but the words of other responders.
    pub fn known() -> impl Iterator<Item = Self> {
        let of_agent = [AuditResult::TimedOut, AuditResult::Unknown];
        FenceResult::ALL.map(AuditResult::Fence).into_iter().chain(of_agent)
    }

    /// The word in the audit.
    pub fn as_str(&self) -> &str {
        match self {
            AuditResult::Fence(result) => result.as_str(),
            AuditResult::TimedOut => "timed-out",
            AuditResult::Unknown => "unknown",
            AuditResult::Other(word) => word,
        }
    }

    /// Its meaning in one sentence for people.
    pub fn meaning(&self) -> &'static str {
        match self {
            AuditResult::Fence(result) => result.meaning(),
            AuditResult::TimedOut => {
                "No answer came within the agent's time, and the agent took the request back."
            }
            AuditResult::Unknown => {
                "The agent gave up while the request was under way, or the answer proves nothing."
            }
            AuditResult::Other(_) => "The word is that of another responder.",
        }
    }
}

impl From<FenceResult> for AuditResult {
    fn from(result: FenceResult) -> Self {
        AuditResult::Fence(result)
    }
}

impl From<String> for AuditResult {
    fn from(word: String) -> Self {
        AuditResult::known()
            .find(|known| known.as_str() == word)
            .unwrap_or(AuditResult::Other(word))
    }
}

impl From<AuditResult> for String {
    fn from(result: AuditResult) -> Self {
        result.as_str().to_owned()
    }
}

impl fmt::Display for AuditResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_word_is_read_as_what_was_written_and_stands_once() {
        let mut words = HashSet::new();
        for result in AuditResult::known() {
            assert!(words.insert(result.as_str().to_owned()), "{result}");
            assert_eq!(AuditResult::from(result.to_string()), result);
            let written = serde_json::to_string(&result).unwrap();
            assert_eq!(written, format!("\"{result}\""));
            assert_eq!(serde_json::from_str::<AuditResult>(&written).unwrap(), result);
        }
        for other in ["", "SUCCESS", "timed out", "no end recorded"] {
            assert_eq!(AuditResult::from(other.to_owned()), AuditResult::Other(other.to_owned()));
        }
    }

    #[test]
    fn each_result_has_one_sentence_of_its_own() {
        let mut sentences = HashSet::new();
        for result in AuditResult::known() {
            let sentence = result.meaning();
            assert!(sentence.ends_with('.') && sentence.matches(". ").count() == 0, "{sentence}");
            assert!(sentences.insert(sentence), "{sentence}");
        }
    }
}
