//! The kernel's lockspaces: their members, and which lockspaces belong to GFS2.
//!
//! `dlm_controld` writes a new list of members only after the fence was reported as done. So a dead
//! node is still in the lists of all lockspaces that it had joined. This node sees only the
//! lockspaces that it has joined itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Held, Report};

/// The contents of configfs and sysfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockspaces {
    /// The cluster's name, if DLM knows it.
    pub cluster_name: Option<String>,
    /// The members of each lockspace by their numbers, or why they could not be read.
    pub members: BTreeMap<String, Result<BTreeSet<u32>, String>>,
    /// The lock tables of the mounted GFS2 file systems: cluster's name, colon, lockspace.
    pub tables: BTreeSet<String>,
}

impl Lockspaces {
    /// The lock table of `lockspace`, if it belongs to a GFS2 file system. LVM and OCFS2 also have
    /// lockspaces, and a file system with another cluster's name in its table does not use this
    /// DLM.
    pub(crate) fn table(&self, lockspace: &str) -> Option<&str> {
        let table = match &self.cluster_name {
            Some(cluster) => self.tables.get(&format!("{cluster}:{lockspace}")),
            None => self
                .tables
                .iter()
                .find(|table| table.split_once(':').is_some_and(|(_, name)| name == lockspace)),
        };
        table.map(String::as_str)
    }

    /// The file systems of the node with the number `id`.
    pub(crate) fn report(&self, id: u32) -> Report {
        if !self.members.keys().any(|name| self.table(name).is_some()) {
            return Report::Blind("this node has no GFS2 file system mounted".to_owned());
        }
        let mut held = Vec::new();
        let mut unread = Vec::new();
        for (name, members) in &self.members {
            let Some(table) = self.table(name) else { continue };
            match members {
                Ok(members) if members.contains(&id) => {
                    let how = format!("node {id} is a member of lockspace {table}");
                    held.push(Held { name: name.clone(), how });
                }
                Ok(_) => {}
                Err(why) => unread.push(format!("lockspace '{name}' cannot be read ({why})")),
            }
        }
        let remark = (!unread.is_empty()).then(|| unread.join(", "));
        match remark {
            Some(remark) if held.is_empty() => Report::Blind(remark),
            remark => Report::Answered { held, remark },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lockspaces(members: &[(&str, &[u32])], tables: &[&str]) -> Lockspaces {
        let members = members.iter().map(|(name, nodes)| {
            let nodes: BTreeSet<u32> = nodes.iter().copied().collect();
            ((*name).to_owned(), Ok(nodes))
        });
        Lockspaces {
            cluster_name: Some("c".to_owned()),
            members: members.collect(),
            tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        }
    }

    fn names(report: Report) -> Vec<String> {
        match report {
            Report::Answered { held, .. } => held.into_iter().map(|held| held.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_lockspaces_of_this_clusters_gfs2_count() {
        let all: &[u32] = &[1, 2];
        let members =
            [("clvmd", all), ("home", all), ("lvm_global", all), ("mine", &[1]), ("x", all)];
        let found = lockspaces(&members, &["c:home", "c:mine", "other:x", "nolock"]);

        assert_eq!(names(found.report(2)), ["home"]);
        assert_eq!(names(found.report(1)), ["home", "mine"]);
        assert_eq!(names(found.report(3)), [""; 0]);
    }

    #[test]
    fn without_a_clusters_name_each_table_counts() {
        let mut found = lockspaces(&[("home", &[2])], &["c:home"]);
        found.cluster_name = None;

        assert_eq!(names(found.report(2)), ["home"]);
    }

    #[test]
    fn a_node_that_has_mounted_nothing_itself_cannot_tell() {
        for found in [lockspaces(&[], &["c:x"]), lockspaces(&[("lvm_global", &[2])], &["c:x"])] {
            assert!(matches!(found.report(2), Report::Blind(_)));
        }
    }

    #[test]
    fn a_lockspace_that_cannot_be_read_makes_blind_or_is_remarked() {
        let mut found = lockspaces(&[("home", &[2]), ("secret", &[])], &["c:home", "c:secret"]);
        found.members.insert("secret".to_owned(), Err("denied".to_owned()));

        let Report::Answered { remark: Some(remark), .. } = found.report(2) else { panic!() };
        assert!(remark.contains("'secret'") && remark.contains("denied"), "{remark}");
        assert!(matches!(found.report(3), Report::Blind(_)));
    }
}
