//! Pacemaker's CIB: the GFS2 file systems among the resources, and where they were active.
//!
//! Pacemaker deletes a node's operation history only when its fence has succeeded. Until then the history
//! of a dead node tells what it had running, also to nodes that never mounted the same.
//!
//! The CIB knows devices and directories, not lock tables. A file system that is mounted here has the
//! name of its lock table, any other the last part of its directory.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roxmltree::{Document, Node, ParsingOptions};

use crate::names::{self, Known};
use crate::{Held, Mounts, Report, Target};

/// What is wanted of the CIB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cib {
    nodes: Vec<CibNode>,
    filesystems: Vec<Filesystem>,
}

/// A node, with the resources that were active on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CibNode {
    /// Its number as a text, or a remote node's name.
    pub(crate) id: String,
    uname: String,
    /// `None` where the CIB has no status of it.
    active: Option<BTreeSet<String>>,
}

/// A resource that is a GFS2 file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filesystem {
    resource: String,
    directory: String,
    device: String,
}

impl Cib {
    /// Reads what `cibadmin --query` wrote.
    pub fn parse(text: &str) -> Result<Self, String> {
        let options = ParsingOptions { nodes_limit: XML_NODES_MAX, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options)
            .map_err(|error| format!("the CIB is not valid XML: {error}"))?;
        let root = document.root_element();
        if !root.has_tag_name("cib") {
            return Err(format!("the CIB begins with '{}'", root.tag_name().name()));
        }
        let named =
            below(root, "configuration").filter_map(|node| Some((node.attribute("id")?, node)));
        let named: HashMap<&str, Node<'_, '_>> = named.collect();
        let primitives = below(root, "resources").filter(|node| node.has_tag_name("primitive"));
        Ok(Cib {
            nodes: nodes(root),
            filesystems: primitives.filter_map(|node| filesystem(node, &named)).collect(),
        })
    }

    /// Number, or a remote node's name, and name of each node.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.nodes.iter().map(|node| (node.id.as_str(), node.uname.as_str()))
    }

    /// The node that `target` means.
    pub(crate) fn node(&self, target: Target<'_>) -> Option<&CibNode> {
        let known: Vec<Known<'_>> = self
            .nodes
            .iter()
            .map(|node| Known { name: Some(&node.uname), addresses: Vec::new() })
            .collect();
        names::find(target, &known).ok().map(|place| &self.nodes[place])
    }

    /// What a node holds: the one found by its name, else the one with this number.
    pub(crate) fn report(
        &self,
        by_name: Option<&CibNode>,
        id: Option<u32>,
        mounts: &Mounts,
    ) -> Report {
        if self.filesystems.is_empty() {
            return Report::Blind("no GFS2 file system is a resource of Pacemaker".to_owned());
        }
        let has_id = |node: &&CibNode| id.is_some_and(|id| node.id == id.to_string());
        let Some(node) = by_name.or_else(|| self.nodes.iter().find(has_id)) else {
            return Report::Blind("the CIB has no such node".to_owned());
        };
        let Some(active) = &node.active else {
            return Report::Blind(format!("the CIB has no status of node '{}'", node.uname));
        };
        let held = || self.filesystems.iter().filter(|system| active.contains(&system.resource));
        let mut frequency: BTreeMap<&str, usize> = BTreeMap::new();
        held().for_each(|system| *frequency.entry(system.last_part()).or_default() += 1);
        let named = held().map(|system| {
            let last_part = system.last_part();
            let is_plain = !last_part.is_empty() && frequency[last_part] == 1;
            let table = mounts.table_at(&system.directory);
            let name = match table.and_then(|table| table.split_once(':')) {
                Some((_, name)) => name,
                None if is_plain => last_part,
                // It would stand for several.
                None => &system.resource,
            };
            let how = format!(
                "resource '{}' ({} on {}) was active on '{}'",
                system.resource, system.device, system.directory, node.uname
            );
            Held { name: name.to_owned(), how }
        });
        Report::Answered { held: named.collect(), remark: None }
    }
}

impl Filesystem {
    /// The last part of its directory.
    fn last_part(&self) -> &str {
        self.directory.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default()
    }
}

fn nodes(root: Node<'_, '_>) -> Vec<CibNode> {
    let node = |element: Node<'_, '_>, active| CibNode {
        id: attribute(element, "id"),
        uname: attribute(element, "uname"),
        active,
    };
    let configured = below(root, "nodes").filter(|element| element.has_tag_name("node"));
    let mut nodes: BTreeMap<String, CibNode> =
        configured.map(|element| (attribute(element, "id"), node(element, None))).collect();
    for state in below(root, "status").filter(|element| element.has_tag_name("node_state")) {
        let resources = state.descendants().filter(|node| node.has_tag_name("lrm_resource"));
        let active = resources.filter(|resource| was_active(*resource)).map(|resource| {
            let id = attribute(resource, "id");
            // The instances of a clone that are told apart have a number.
            match id.rsplit_once(':') {
                Some((name, number)) if number.parse::<u32>().is_ok() => name.to_owned(),
                _ => id,
            }
        });
        let active = Some(active.collect());
        // A remote node has no entry among the nodes.
        let entry = nodes.entry(attribute(state, "id")).or_insert_with(|| node(state, None));
        entry.active = active;
    }
    nodes.into_values().collect()
}

/// Whether the resource whose history this is was active at its end.
///
/// When in doubt it was: a stop that failed, often the very reason for the fence, leaves the file
/// system mounted, and a start that was under way may have mounted it.
fn was_active(history: Node<'_, '_>) -> bool {
    let number = |operation: Node<'_, '_>, name| operation.attribute(name)?.parse::<i64>().ok();
    let mut operations: Vec<_> =
        history.children().filter(|node| node.has_tag_name("lrm_rsc_op")).collect();
    // One that is under way has the number -1, and comes after all others.
    operations.sort_by_key(|operation| {
        let call = number(*operation, "call-id").filter(|call| *call >= 0).unwrap_or(i64::MAX);
        (call, number(*operation, "last-rc-change").unwrap_or(0))
    });
    operations.into_iter().fold(false, |active, operation| {
        let is_pending = number(operation, "op-status") == Some(PENDING);
        match (operation.attribute("operation"), number(operation, "rc-code")) {
            (Some("start"), _) => true,
            (Some("stop" | "monitor"), _) if is_pending => active,
            (Some("stop"), code) => code != Some(OK),
            (Some("monitor"), code) => !matches!(code, Some(NOT_INSTALLED | NOT_RUNNING)),
            _ => active,
        }
    })
}

fn filesystem(primitive: Node<'_, '_>, named: &HashMap<&str, Node<'_, '_>>) -> Option<Filesystem> {
    let template = primitive.attribute("template").and_then(|id| named.get(id).copied());
    let sources = [Some(primitive), template];
    let kind = sources.iter().flatten().find_map(|node| node.attribute("type"))?;
    let value = |name: &str| {
        sources.iter().flatten().find_map(|node| parameter(*node, name, named)).unwrap_or_default()
    };
    let is_gfs2 = kind == "Filesystem" && value("fstype").eq_ignore_ascii_case("gfs2");
    is_gfs2.then(|| Filesystem {
        resource: attribute(primitive, "id"),
        directory: value("directory").to_owned(),
        device: value("device").to_owned(),
    })
}

/// A parameter of a resource or template. A set of them may be a reference to another's.
fn parameter<'a>(
    resource: Node<'a, '_>,
    name: &str,
    named: &HashMap<&str, Node<'a, '_>>,
) -> Option<&'a str> {
    let sets = resource.children().filter(|node| node.has_tag_name("instance_attributes"));
    let sets = sets.filter_map(|set| match set.attribute("id-ref") {
        None => Some(set),
        Some(id) => named.get(id).copied(),
    });
    sets.flat_map(|set| set.children())
        .find(|pair| pair.has_tag_name("nvpair") && pair.attribute("name") == Some(name))
        .and_then(|pair| pair.attribute("value"))
        .map(str::trim)
}

/// All elements below the CIB's section `name`.
fn below<'a>(root: Node<'a, 'a>, name: &str) -> impl Iterator<Item = Node<'a, 'a>> + use<'a> {
    let section = root
        .children()
        .flat_map(|part| std::iter::once(part).chain(part.children()))
        .find(|node| node.has_tag_name(name));
    section.into_iter().flat_map(|section| section.descendants())
}

fn attribute(element: Node<'_, '_>, name: &str) -> String {
    element.attribute(name).unwrap_or_default().to_owned()
}

/// `op-status` of an operation that is under way.
const PENDING: i64 = -1;
/// OCF return codes.
const OK: i64 = 0;
const NOT_INSTALLED: i64 = 5;
const NOT_RUNNING: i64 = 7;
/// More elements, attributes and texts than the CIB of a hundred nodes with a thousand resources.
const XML_NODES_MAX: u32 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCES: &str = r#"
      <template id="t" class="ocf" provider="heartbeat" type="Filesystem">
        <instance_attributes id="ti"><nvpair id="t1" name="fstype" value="gfs2"/></instance_attributes>
      </template>
      <primitive id="ext" class="ocf" provider="heartbeat" type="Filesystem">
        <instance_attributes id="e"><nvpair id="e1" name="fstype" value="ext4"/></instance_attributes>
      </primitive>
      <primitive id="plain" class="ocf" provider="heartbeat" type="Filesystem">
        <instance_attributes id="p">
          <nvpair id="p1" name="directory" value="/mnt/plain/"/>
          <nvpair id="p2" name="device" value="/dev/a"/>
          <nvpair id="p3" name="fstype" value=" GFS2 "/>
        </instance_attributes>
      </primitive>
      <group id="g">
        <primitive id="ip" class="ocf" provider="heartbeat" type="IPaddr2"/>
        <primitive id="grouped" template="t">
          <instance_attributes id="gi"><nvpair id="g1" name="directory" value="/a/data"/></instance_attributes>
        </primitive>
      </group>
      <clone id="c"><group id="cg">
        <primitive id="cloned" class="ocf" provider="heartbeat" type="Filesystem">
          <instance_attributes id-ref="p"/>
        </primitive>
        <primitive id="other" template="t">
          <instance_attributes id="oi"><nvpair id="o1" name="directory" value="/b/data"/></instance_attributes>
        </primitive>
      </group></clone>"#;

    fn cib(status: &str) -> Cib {
        let text = format!(
            "<cib><configuration><nodes><node id='1' uname='n1'/><node id='2' uname='n2.a.org'/>\
             <node id='3' uname='n3'/></nodes><resources>{RESOURCES}</resources></configuration>\
             <status>{status}</status></cib>"
        );
        Cib::parse(&text).unwrap()
    }

    fn report(cib: &Cib, plug: &str, id: Option<u32>, mounts: &Mounts) -> Report {
        cib.report(cib.node(Target { plug, nodename: None }), id, mounts)
    }

    fn names(report: Report) -> Vec<String> {
        match report {
            Report::Answered { held, .. } => held.into_iter().map(|held| held.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn state(id: &str, uname: &str, resources: &[(&str, &str)]) -> String {
        let history = resources.iter().map(|(resource, operations)| {
            format!("<lrm_resource id='{resource}' type='Filesystem'>{operations}</lrm_resource>")
        });
        let history: String = history.collect();
        format!(
            "<node_state id='{id}' uname='{uname}'><lrm id='{id}'><lrm_resources>{history}\
             </lrm_resources></lrm></node_state>"
        )
    }

    fn operation(operation: &str, interval: u32, call: i32, code: i32, status: i32) -> String {
        format!(
            "<lrm_rsc_op operation='{operation}' interval='{interval}' call-id='{call}' \
             rc-code='{code}' op-status='{status}'/>"
        )
    }

    fn started() -> String {
        operation("start", 0, 4, 0, 0)
    }

    #[test]
    fn gfs2_is_found_in_primitives_groups_clones_templates_and_references() {
        let all = ["ext", "plain", "ip", "grouped", "cloned", "other"];
        let started = started();
        let all: Vec<_> = all.iter().map(|id| (*id, started.as_str())).collect();
        let cib = cib(&state("2", "n2.a.org", &all));

        let found = names(report(&cib, "n2", None, &Mounts::default()));

        // 'plain' and 'cloned' have one directory, 'grouped' and 'other' one last part.
        assert_eq!(found, ["plain", "grouped", "cloned", "other"]);
    }

    #[test]
    fn what_is_mounted_here_has_its_lock_tables_name() {
        let cib = cib(&state("2", "n2.a.org", &[("grouped", &started()), ("plain", &started())]));
        let mounts =
            Mounts(vec![crate::Mount { directory: "/a/data".into(), table: "c:vol1".into() }]);

        assert_eq!(names(report(&cib, "n2.a.org", None, &mounts)), ["plain", "vol1"]);
    }

    #[test]
    fn the_last_operation_decides_and_doubt_means_active() {
        let pending = |name| operation(name, 0, -1, 193, PENDING.try_into().unwrap());
        for (history, active) in [
            (vec![], false),
            (vec![operation("monitor", 0, 1, 7, 0)], false),
            (vec![operation("monitor", 0, 1, 5, 0)], false),
            (vec![operation("monitor", 0, 1, 0, 0)], true),
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 0, 1, 7, 0)], true),
            (vec![operation("start", 0, 2, 1, 4)], true),
            (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 0, 0)], false),
            (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 1, 4)], true),
            (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 1, 2)], true),
            (vec![pending("stop"), operation("start", 0, 2, 0, 0)], true),
            (vec![pending("start"), operation("monitor", 0, 2, 7, 0)], true),
            (vec![pending("monitor"), operation("monitor", 0, 2, 7, 0)], false),
            (vec![operation("start", 0, 10, 0, 0), operation("stop", 0, 9, 0, 0)], true),
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 7, 0)], false),
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 1, 4)], true),
            (vec![operation("notify", 0, 5, 0, 0)], false),
        ] {
            let history = history.concat();
            let cib = cib(&state("1", "n1", &[("plain", &history)]));
            let found = names(report(&cib, "n1", None, &Mounts::default()));
            assert_eq!(!found.is_empty(), active, "{history}");
        }
    }

    #[test]
    fn an_instance_with_a_number_is_its_resource() {
        let cib = cib(&state("1", "n1", &[("plain:12", &started()), ("other:x", &started())]));

        assert_eq!(names(report(&cib, "n1", None, &Mounts::default())), ["plain"]);
    }

    #[test]
    fn a_node_is_found_by_its_number_too_and_a_remote_one_by_its_state() {
        let mut status = state("3", "n3", &[("plain", &started())]);
        status += &state("remote", "remote", &[("other", &started())]);
        let cib = cib(&status);

        assert_eq!(names(report(&cib, "outlet-7", Some(3), &Mounts::default())), ["plain"]);
        assert_eq!(names(report(&cib, "remote", None, &Mounts::default())), ["data"]);
        assert!(matches!(report(&cib, "outlet-7", None, &Mounts::default()), Report::Blind(_)));
    }

    #[test]
    fn without_status_or_gfs2_resources_the_cib_is_blind() {
        let unseen = cib("");
        assert!(matches!(report(&unseen, "n1", None, &Mounts::default()), Report::Blind(_)));
        let other = Cib::parse("<cib><configuration/><status/></cib>").unwrap();
        assert!(matches!(report(&other, "n1", None, &Mounts::default()), Report::Blind(_)));
        let fenced = cib("<node_state id='1' uname='n1'/>");
        assert_eq!(names(report(&fenced, "n1", None, &Mounts::default())), [""; 0]);
    }

    #[test]
    fn what_is_no_cib_is_refused() {
        for text in ["", "x", "<cib>", "<crm_mon/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><cib>&b;</cib>"]
        {
            assert!(Cib::parse(text).is_err(), "{text}");
        }
        let deep = format!("<cib>{}{}</cib>", "<a>".repeat(300_000), "</a>".repeat(300_000));
        assert_eq!(Cib::parse(&deep), Ok(Cib::default()));
    }
}
