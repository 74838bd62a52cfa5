//! How the file systems of a target were found, as a part of an event.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How the file systems of a target were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryRecord {
    /// The result.
    pub outcome: DiscoveryOutcome,
    /// For each file system, the sources that know it and how.
    #[serde(default)]
    pub learned: BTreeMap<String, Vec<String>>,
    /// The state of each source.
    #[serde(default)]
    pub sources: BTreeMap<String, SourceRecord>,
}

/// The result of the search for a target's file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscoveryOutcome {
    /// The target holds some.
    Found,
    /// A source answered, and no source knows any.
    None,
    /// No source could answer.
    Unknown,
    /// The search is switched off.
    Disabled,
}

/// The state of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Whether it answered.
    pub state: SourceState,
    /// Why it did not answer, or which part it could not see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whether a source answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// It answered.
    Answered,
    /// It exists and could not answer.
    Blind,
    /// This node has no such source.
    Absent,
}

impl DiscoveryRecord {
    /// A record of this outcome alone.
    pub fn of(outcome: DiscoveryOutcome) -> Self {
        DiscoveryRecord { outcome, learned: BTreeMap::new(), sources: BTreeMap::new() }
    }
}

/// The word in the log.
impl fmt::Display for DiscoveryOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The word in the log.
impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
