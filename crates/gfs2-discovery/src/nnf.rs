//! Near Node Flash: the compute nodes with access to each allocation of GFS2 storage.
//!
//! An `NnfNodeBlockStorage` is in the namespace of its rabbit, and its status names the nodes that
//! were given access to its block devices. nnf-sos keeps the name when it fences a node: the status
//! shows the access that the node had, not the access that it still has. The name disappears with
//! the storage.
//!
//! The `NnfNodeStorage` of the same name describes the file systems on these devices, and gives
//! each the name of its lockspace. Usually each allocation has one file system. With `sharedVg`,
//! which is nnf-sos' default, the first allocation has all file systems, one for each compute node,
//! and each node with access reaches all of them. The node's `ClientMount` names its own file
//! system.
//!
//! `list` reads the output of kubectl.

use std::collections::{BTreeMap, BTreeSet};

use fence_protocol::bounded;
use serde_json::Value;

use crate::list::ListReader;
use crate::{Held, Reading, Report, Target};

/// The kinds of objects that are GFS2 storage, as kubectl takes them.
pub(crate) const STORAGE_KINDS: &str =
    "nnfnodeblockstorages.nnf.cray.hpe.com,nnfnodestorages.nnf.cray.hpe.com";

/// The label that marks GFS2 storage, with its value.
pub(crate) const LABEL: (&str, &str) = ("nnf.cray.hpe.com/allocationset", "gfs2");

/// The kind of object that tells a node what to mount. It is in the namespace of its node.
pub(crate) const MOUNT_KIND: &str = "clientmounts.dataworkflowservices.github.io";

/// The kind of object that names all nodes of a rabbit, with or without storage at this moment.
/// nnf-sos gives access only to nodes in such an object.
pub(crate) const NODE_KIND: &str = "storages.dataworkflowservices.github.io";

/// Namespace and name of an object.
type Place = (String, String);

/// The relevant members of the objects in kubectl's lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    blocks: BTreeMap<Place, Blocks>,
    systems: BTreeMap<Place, Systems>,
    /// The file systems that a node was told to mount: the node, the place and the number.
    mounts: BTreeSet<(String, Place, usize)>,
    nodes: BTreeSet<String>,
}

/// An `NnfNodeBlockStorage`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blocks {
    is_shared: bool,
    /// The nodes with access to each of its allocations.
    allocations: Vec<Vec<String>>,
}

/// An `NnfNodeStorage`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Systems {
    is_shared: bool,
    count: usize,
    uid: String,
}

impl Objects {
    /// Takes the relevant members of an object of any kind.
    pub(crate) fn add(&mut self, item: &Value) {
        match item["kind"].as_str() {
            Some("NnfNodeBlockStorage") => self.add_blocks(item),
            Some("NnfNodeStorage") if is_gfs2(item) => {
                let count = item["spec"]["count"].as_u64().unwrap_or(1);
                let systems = Systems {
                    is_shared: item["spec"]["sharedAllocation"] == true,
                    count: usize::try_from(count).unwrap_or(usize::MAX).min(SYSTEMS_MAX),
                    uid: text(&item["metadata"]["uid"]),
                };
                self.systems.insert(place(item), systems);
            }
            Some("ClientMount") => self.add_mounts(item),
            Some("Storage") => {
                let access = &item["status"]["access"];
                let nodes = elements(&access["computes"]).chain(elements(&access["servers"]));
                self.nodes.extend(nodes.map(|node| text(&node["name"])));
            }
            _ => {}
        }
    }

    fn add_blocks(&mut self, item: &Value) {
        let names = |status: &Value| -> Vec<String> {
            let nodes = status["accesses"].as_object().into_iter().flatten();
            nodes.map(|(node, _)| node.clone()).collect()
        };
        let allocations: Vec<_> = elements(&item["status"]["allocations"]).map(names).collect();
        self.nodes.extend(allocations.iter().flatten().cloned());
        if is_gfs2(item) {
            let is_shared = item["spec"]["sharedAllocation"] == true;
            self.blocks.insert(place(item), Blocks { is_shared, allocations });
        }
    }

    fn add_mounts(&mut self, item: &Value) {
        let node = item["spec"]["node"].as_str().or(item["metadata"]["namespace"].as_str());
        for mount in elements(&item["spec"]["mounts"]) {
            let reference = &mount["device"]["deviceReference"];
            let object = &reference["objectReference"];
            // kubectl leaves out a zero.
            let index = reference["data"].as_u64().unwrap_or(0);
            if let (Some(node), Ok(index)) = (node, usize::try_from(index))
                && object["kind"] == "NnfNodeStorage"
            {
                let place = (text(&object["namespace"]), text(&object["name"]));
                self.mounts.insert((node.to_owned(), place, index));
            }
        }
    }

    /// The nodes of all objects. nnf-sos compares their names letter by letter.
    pub(crate) fn into_nodes(self) -> BTreeSet<String> {
        self.nodes
    }
}

/// The accesses to GFS2 storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStorages {
    objects: Objects,
    /// Why the mounts of the nodes are not known.
    no_mounts: Option<String>,
}

impl NodeStorages {
    /// Reads a list of `kubectl get --output=json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = ListReader::default();
        reader.feed(bytes);
        Ok(NodeStorages { objects: reader.finish()?, no_mounts: None })
    }

    /// The storage of one list with the mounts of another list.
    pub(crate) fn new(mut objects: Objects, mounts: Reading<Objects>) -> Self {
        let no_mounts = match mounts {
            Reading::Got(mounts) => {
                objects.mounts.extend(mounts.mounts);
                None
            }
            Reading::Blind(why) | Reading::Absent(why) => Some(why),
        };
        NodeStorages { objects, no_mounts }
    }

    /// The storage to which `target` has access. Its name in Kubernetes is usually the device's
    /// name.
    pub(crate) fn report(&self, target: Target<'_>) -> Report {
        let is_target = |node: &String| target.names().any(|name| name == node);
        let mut held = Vec::new();
        let mut is_known = true;
        for (place, blocks) in &self.objects.blocks {
            let system = self.objects.systems.get(place);
            let is_shared = blocks.is_shared || system.is_some_and(|system| system.is_shared);
            let own: Vec<usize> = self
                .objects
                .mounts
                .iter()
                .filter(|(node, at, _)| at == place && is_target(node))
                .map(|(.., index)| *index)
                .collect();
            for (index, nodes) in blocks.allocations.iter().enumerate() {
                if !nodes.iter().any(is_target) {
                    continue;
                }
                let systems = match system {
                    Some(system) if is_shared && own.is_empty() => {
                        is_known &= system.count < 2;
                        (0..system.count).collect()
                    }
                    Some(_) if is_shared => own.clone(),
                    _ => vec![index],
                };
                held.extend(systems.into_iter().map(|number| {
                    Held {
                        name: system
                            .and_then(|system| lockspace(system, number))
                            .unwrap_or_else(|| place.1.clone()),
                        how: how(place, index, is_shared.then_some((number, own.is_empty()))),
                    }
                }));
            }
        }
        let remark = self.no_mounts.as_ref().filter(|_| !is_known).map(|why| {
            format!("which of the file systems in a shared allocation is the target's own: {why}")
        });
        Report::Answered { held, remark }
    }
}

/// How a file system in an allocation is known. For a shared allocation, `shared` has its number,
/// and whether several file systems could be the node's own.
fn how(place: &Place, allocation: usize, shared: Option<(usize, bool)>) -> String {
    let place = bounded(&format!("{}/{}", place.0, place.1), 256);
    let what = match shared {
        None => String::new(),
        Some((number, false)) => format!(", and was told to mount file system {number}"),
        Some((number, true)) => format!(", which carries file system {number}"),
    };
    format!("has access to block storage '{place}', allocation {allocation}{what}")
}

/// The lockspace of the file system number `index`: nnf-sos derives it from the first five
/// characters of the object's uid.
fn lockspace(system: &Systems, index: usize) -> Option<String> {
    let uid = system.uid.as_bytes().get(..5)?;
    let hex: Vec<String> = uid.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("fs-{index:02}-{}", hex.concat()))
}

fn is_gfs2(item: &Value) -> bool {
    item["metadata"]["labels"][LABEL.0] == LABEL.1
}

fn place(item: &Value) -> Place {
    (text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"]))
}

fn elements(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The most file systems in one storage: a request names no more.
const SYSTEMS_MAX: usize = 1000;

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

    /// Storage of which the first allocation carries three file systems, and what a node is told to
    /// mount.
    fn shared(is_shared_by: &str, mounts: &[Value]) -> Vec<Value> {
        let nodes = ["rabbit-node-1", "compute-1", "compute-2", "compute-3"];
        let status = json!({"allocations": [accesses(&nodes)]});
        let mut blocks = item("NnfNodeBlockStorage", "job-1-0", "gfs2", &status);
        let mut system = item("NnfNodeStorage", "job-1-0", "gfs2", &json!({}));
        system["spec"] = json!({"count": 3});
        let sharing = if is_shared_by == "blocks" { &mut blocks } else { &mut system };
        sharing["spec"]["sharedAllocation"] = json!(true);
        [&[blocks, system], mounts].concat()
    }

    fn client_mount(node: &str, references: &[(&str, Option<u32>)]) -> Value {
        let mounts = references.iter().map(|(name, data)| {
            let mut reference = json!({"objectReference": {
                "kind": "NnfNodeStorage", "name": name, "namespace": "rabbit-node-1",
            }});
            if let Some(data) = data {
                reference["data"] = json!(data);
            }
            json!({"type": "gfs2", "device": {"type": "lvm", "deviceReference": reference}})
        });
        json!({
            "kind": "ClientMount", "metadata": {"name": "m", "namespace": node},
            "spec": {"node": node, "mounts": mounts.collect::<Vec<_>>()},
        })
    }

    #[test]
    fn a_shared_allocation_carries_a_file_system_for_each_node() {
        let mounts = [
            client_mount("compute-1", &[("job-9-0", Some(2)), ("job-1-0", None)]),
            client_mount("compute-2", &[("job-1-0", Some(1))]),
            client_mount("compute-3", &[("job-9-0", Some(1))]),
        ];
        for by in ["blocks", "system"] {
            let items = shared(by, &mounts);
            assert_eq!(names(&items, "compute-1", None), ["fs-00-3366326131"], "{by}");
            assert_eq!(names(&items, "compute-2", None), ["fs-01-3366326131"], "{by}");
            assert_eq!(names(&items, "outlet", Some("compute-2")), ["fs-01-3366326131"], "{by}");
            // Nobody knows which one it has.
            let all = ["fs-00-3366326131", "fs-01-3366326131", "fs-02-3366326131"];
            assert_eq!(names(&items, "compute-3", None), all, "{by}");
            assert_eq!(names(&items, "compute-4", None), [""; 0], "{by}");
        }
    }

    #[test]
    fn what_hides_a_nodes_own_file_system_is_told_where_it_matters() {
        let mut objects = Objects::default();
        for item in shared("blocks", &[]) {
            objects.add(&item);
        }
        let storages = NodeStorages::new(objects, Reading::Blind("forbidden".to_owned()));
        let remark = |plug| match storages.report(Target { plug, nodename: None }) {
            Report::Answered { remark, .. } => remark,
            other => panic!("{other:?}"),
        };

        assert!(remark("compute-1").unwrap().contains("forbidden"));
        assert_eq!(remark("compute-4"), None);
    }

    #[test]
    fn a_count_beyond_all_measure_is_bounded() {
        let mut items = shared("system", &[]);
        items[1]["spec"]["count"] = json!(u64::MAX);

        assert_eq!(names(&items, "compute-1", None).len(), SYSTEMS_MAX);
    }

    #[test]
    fn a_node_is_known_by_its_rabbits_object_or_by_any_access() {
        let mut objects = Objects::default();
        let xfs = json!({"allocations": [accesses(&["compute-2"])]});
        objects.add(&item("NnfNodeBlockStorage", "job-1-0", "xfs", &xfs));
        objects.add(
            &json!({"kind": "Storage", "metadata": {"name": "rabbit-node-1"}, "status": {"access": {
                "computes": [{"name": "compute-1", "status": "Ready"}, {"status": "Offline"}],
                "servers": [{"name": "rabbit-node-1"}],
            }}}),
        );

        for name in ["compute-1", "compute-2", "rabbit-node-1"] {
            assert!(objects.nodes.contains(name), "{name}");
        }
        for name in ["compute-3", "Compute-1", "compute-1.site", "compute", "job-1-0"] {
            assert!(!objects.nodes.contains(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "null", "{}", "[]", r#"{"items": {}}"#, r#"{"items": ["#] {
            assert!(NodeStorages::parse(text.as_bytes()).is_err(), "{text}");
        }
        let nothing = br#"{"items": [null, 1, {}, {"kind": "NnfNodeBlockStorage"},
            {"kind": "ClientMount", "spec": {"mounts": [{}, 1]}},
            {"kind": "Storage", "status": []}]}"#;
        let nothing = NodeStorages::parse(nothing).unwrap();
        let report = nothing.report(Target { plug: "", nodename: None });
        assert_eq!(report, Report::Answered { held: Vec::new(), remark: None });
    }
}
