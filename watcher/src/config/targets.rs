//! Which nodes a device can fence.

use std::collections::BTreeSet;
use std::fmt;

use fence_protocol::{NodeName, fold_hostlist};

/// Which nodes a device can fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Any (`"*"`): the device itself refuses what it does not know.
    Any,
    /// These.
    Nodes(BTreeSet<NodeName>),
    /// Those that the device lists (`"discover"`).
    Discover,
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
