//! How the file systems of a target were learned, as an event tells it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the file systems of a target were learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryRecord {
    /// What it came to.
    pub outcome: DiscoveryOutcome,
    /// For each file system, the sources that know of it and how.
    #[serde(default)]
    pub learned: BTreeMap<String, Vec<String>>,
    /// What each source did.
    #[serde(default)]
    pub sources: BTreeMap<String, SourceRecord>,
}

/// What looking for a target's file systems came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscoveryOutcome {
    /// It holds some.
    Found,
    /// A source answered, and none knows of any.
    None,
    /// No source could tell.
    Unknown,
    /// Nobody looked, because that is switched off.
    Disabled,
}

/// What one source did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Whether it answered.
    pub state: SourceState,
    /// Why not, or what it could not see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whether a source answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// It answered.
    Answered,
    /// It is there and could not tell.
    Blind,
    /// There is no such source on this node.
    Absent,
}

impl DiscoveryRecord {
    /// A record of this outcome and nothing else.
    pub fn of(outcome: DiscoveryOutcome) -> Self {
        DiscoveryRecord { outcome, learned: BTreeMap::new(), sources: BTreeMap::new() }
    }
}

impl DiscoveryOutcome {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            DiscoveryOutcome::Found => "found",
            DiscoveryOutcome::None => "none",
            DiscoveryOutcome::Unknown => "unknown",
            DiscoveryOutcome::Disabled => "disabled",
        }
    }
}

impl SourceState {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceState::Answered => "answered",
            SourceState::Blind => "blind",
            SourceState::Absent => "absent",
        }
    }
}
