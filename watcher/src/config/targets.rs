//! The nodes that a device can fence.

use std::collections::BTreeSet;
use std::fmt;

use fence_protocol::{NodeName, fold_hostlist};

/// The nodes that a device can fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Any (`"*"`): the device itself refuses a target that it does not know.
    Any,
    /// These.
    Nodes(BTreeSet<NodeName>),
    /// Those that the device lists (`"discover"`).
    Discover,
}

impl Targets {
    /// The nodes, if the file names them.
    pub fn nodes(&self) -> Option<&BTreeSet<NodeName>> {
        if let Targets::Nodes(nodes) = self { Some(nodes) } else { None }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Targets::Any => f.write_str("*"),
            Targets::Nodes(nodes) => f.write_str(&fold_hostlist(nodes)),
            Targets::Discover => f.write_str("discover"),
        }
    }
}
