//! Near Node Flash: which compute node has access to which allocation of GFS2 storage.
//!
//! An `NnfNodeBlockStorage` lies in the namespace of its rabbit and lists the nodes that can reach its
//! block devices; nnf-sos takes a node off that list when it fences it. The `NnfNodeStorage` of the same
//! name is the file system on it, and gives it the name of its lockspace.

use std::collections::HashMap;

use fence_protocol::bounded;
use serde_json::Value;

use crate::{Held, Report, Target};

/// The accesses to GFS2 storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStorages(Vec<Allocation>);

/// One allocation of one block storage.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allocation {
    /// The lockspace's name, where the file system's object tells it, else the storage's.
    name: String,
    /// `namespace/name` of the storage and the allocation's number.
    place: String,
    nodes: Vec<String>,
}

/// The kinds of objects, as kubectl takes them.
pub(crate) const KINDS: &str =
    "nnfnodeblockstorages.nnf.cray.hpe.com,nnfnodestorages.nnf.cray.hpe.com";

/// The label that tells GFS2 from other storage, with its value.
pub(crate) const LABEL: (&str, &str) = ("nnf.cray.hpe.com/allocationset", "gfs2");

impl NodeStorages {
    /// Reads the list that `kubectl get --output=json` wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let list: Value = serde_json::from_slice(bytes)
            .map_err(|error| format!("kubectl's list is not valid JSON: {error}"))?;
        let items = list["items"].as_array().ok_or("kubectl wrote no list")?;
        let of_kind = |kind: &'static str| {
            items.iter().filter(move |item| {
                item["kind"] == kind && item["metadata"]["labels"][LABEL.0] == LABEL.1
            })
        };
        let systems: HashMap<String, &Value> =
            of_kind("NnfNodeStorage").map(|system| (place(system), system)).collect();
        let mut allocations = Vec::new();
        for storage in of_kind("NnfNodeBlockStorage") {
            let place = place(storage);
            let system = systems.get(&place);
            let statuses = storage["status"]["allocations"].as_array();
            for (index, status) in statuses.into_iter().flatten().enumerate() {
                let nodes = status["accesses"].as_object().into_iter().flatten();
                allocations.push(Allocation {
                    name: system
                        .and_then(|system| lockspace(system, index))
                        .unwrap_or_else(|| text(&storage["metadata"]["name"])),
                    place: format!("'{}', allocation {index}", bounded(&place, 256)),
                    nodes: nodes.map(|(node, _)| node.clone()).collect(),
                });
            }
        }
        Ok(NodeStorages(allocations))
    }

    /// What `target` has access to. Its name in Kubernetes is usually the device's name for it.
    pub(crate) fn report(&self, target: Target<'_>) -> Report {
        let is_target = |node: &String| target.names().any(|name| name == node);
        let reached = self.0.iter().filter(|allocation| allocation.nodes.iter().any(is_target));
        let held = reached.map(|allocation| Held {
            name: allocation.name.clone(),
            how: format!("has access to block storage {}", allocation.place),
        });
        Report::Answered { held: held.collect(), remark: None }
    }
}

/// The lockspace of the file system number `index`: nnf-sos makes it of the first five characters of
/// the object's uid.
fn lockspace(system: &Value, index: usize) -> Option<String> {
    let uid = system["metadata"]["uid"].as_str()?.as_bytes().get(..5)?;
    let hex: Vec<String> = uid.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("fs-{index:02}-{}", hex.concat()))
}

fn place(item: &Value) -> String {
    format!("{}/{}", text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(kind: &str, name: &str, allocation_set: &str, status: &Value) -> Value {
        json!({
            "apiVersion": "nnf.cray.hpe.com/v1alpha10", "kind": kind,
            "metadata": {
                "name": name, "namespace": "rabbit-node-1",
                "uid": "3f2a1b9c-0000-4000-8000-000000000000",
                "labels": {"nnf.cray.hpe.com/allocationset": allocation_set},
            },
            "status": status,
        })
    }

    fn accesses(nodes: &[&str]) -> Value {
        let access = |node: &&str| ((*node).to_owned(), json!({"storageGroupId": "g"}));
        json!({"accesses": nodes.iter().map(access).collect::<serde_json::Map<_, _>>()})
    }

    fn names(items: &[Value], plug: &str, nodename: Option<&str>) -> Vec<String> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        let storages = NodeStorages::parse(list.as_bytes()).unwrap();
        match storages.report(Target { plug, nodename }) {
            Report::Answered { held, .. } => held.into_iter().map(|held| held.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_holds_the_gfs2_allocations_that_it_can_reach() {
        let items = [
            item(
                "NnfNodeBlockStorage",
                "job-1-0",
                "gfs2",
                &json!({"allocations": [
                    accesses(&["compute-1", "rabbit-node-1"]), accesses(&["compute-2"]), {},
                ]}),
            ),
            item("NnfNodeStorage", "job-1-0", "gfs2", &json!({})),
            item(
                "NnfNodeBlockStorage",
                "job-2-0",
                "gfs2",
                &json!({"allocations": [accesses(&["compute-2"])]}),
            ),
            item(
                "NnfNodeBlockStorage",
                "job-3-0",
                "xfs",
                &json!({"allocations": [accesses(&["compute-2"])]}),
            ),
            item("NnfNodeBlockStorage", "job-4-0", "gfs2", &json!({})),
        ];

        assert_eq!(names(&items, "compute-1", None), ["fs-00-3366326131"]);
        assert_eq!(names(&items, "compute-2", None), ["fs-01-3366326131", "job-2-0"]);
        assert_eq!(names(&items, "compute-3", None), [""; 0]);
        assert_eq!(names(&items, "outlet-1", Some("compute-1")), ["fs-00-3366326131"]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "null", "{}", "[]", r#"{"items": {}}"#, r#"{"items": ["#] {
            assert!(NodeStorages::parse(text.as_bytes()).is_err(), "{text}");
        }
        let nothing = br#"{"items": [null, 1, {}, {"kind": "NnfNodeBlockStorage"}]}"#;
        assert_eq!(NodeStorages::parse(nothing), Ok(NodeStorages::default()));
    }
}
