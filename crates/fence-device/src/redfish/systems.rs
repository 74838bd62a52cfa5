//! The systems of one service, and the search for one by its name.

use super::path::ResourcePath;
use super::resource::System;

/// A system of the service's list.
pub(super) struct Member {
    /// Its path in the list.
    pub(super) path: ResourcePath,
    /// The path after redirections.
    pub(super) place: ResourcePath,
    pub(super) system: System,
}

/// The systems of a service that can be read.
pub(super) struct Systems {
    pub(super) members: Vec<Member>,
    /// Why each of the others cannot be read.
    pub(super) unreadable: Vec<String>,
    /// Whether one of the others may be readable soon.
    pub(super) may_pass: bool,
}

/// Why a name does not lead to one system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ambiguity {
    None,
    Several,
    /// One readable system has the name, and an unreadable system may have it as well.
    Unsure,
}

impl Systems {
    /// The one system with this `Id` or `Name`. A `Name` does not count while a system cannot be
    /// read: two systems may have the same `Name`.
    pub(super) fn named(&self, name: &str) -> Result<&Member, (Ambiguity, String)> {
        let is_certain =
            |at: usize| self.unreadable.is_empty() || self.members[at].system.has_id(name);
        match position_of(name, &self.members) {
            Ok(at) if is_certain(at) => Ok(&self.members[at]),
            Ok(_) => Err((Ambiguity::Unsure, self.without(name, Ambiguity::Unsure))),
            Err(why) => Err((why, self.without(name, why))),
        }
    }

    /// Whether each of these names is the `Id` of a system that was read: then the service need not
    /// show the others.
    pub(super) fn have_ids(&self, names: &[&str]) -> bool {
        let has = |name: &&str| self.members.iter().any(|member| member.system.has_id(name));
        !names.is_empty() && names.iter().all(has)
    }

    /// The message that no system, or more than one, has the name.
    fn without(&self, name: &str, why: Ambiguity) -> String {
        let count = self.members.len();
        match why {
            Ambiguity::Several => {
                format!("more than one of its systems is '{name}': configure a URI")
            }
            Ambiguity::None if self.unreadable.is_empty() => {
                format!("none of its {count} systems is '{name}'")
            }
            Ambiguity::None => format!(
                "none of the {count} systems that can be read is '{name}'; cannot be read: {}",
                self.unreadable.join("; ")
            ),
            Ambiguity::Unsure => format!(
                "'{name}' is the Name of a system, and a system that cannot be read may have the \
                 same Name: configure the Id or a URI; cannot be read: {}",
                self.unreadable.join("; ")
            ),
        }
    }
}

/// The index of the one system with this `Id` or `Name`.
pub(super) fn position_of(name: &str, systems: &[Member]) -> Result<usize, Ambiguity> {
    let mut found = systems.iter().enumerate().filter(|(_, member)| member.system.is_called(name));
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Ok(at),
        (None, _) => Err(Ambiguity::None),
        _ => Err(Ambiguity::Several),
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::parse_system;
    use super::*;

    #[test]
    fn a_system_is_found_by_a_name_that_no_other_has() {
        let system = |id: &str, name: &str| {
            let text = format!(r#"{{"Id": "{id}", "Name": "{name}"}}"#);
            let path: ResourcePath = format!("/S/{id}").parse().unwrap();
            let system = parse_system(text.as_bytes()).unwrap();
            Member { place: path.clone(), path, system }
        };
        let systems = [system("1", "node1"), system("2", "node2"), system("node2", "3")];

        assert_eq!(position_of("node1", &systems), Ok(0));
        assert_eq!(position_of("2", &systems), Ok(1));
        assert_eq!(position_of("3", &systems), Ok(2));
        assert_eq!(position_of("node2", &systems), Err(Ambiguity::Several));
        for name in ["node", ""] {
            assert_eq!(position_of(name, &systems), Err(Ambiguity::None));
        }
    }
}
