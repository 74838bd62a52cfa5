//! Pacemaker's CIB: the GFS2 file systems among the resources, and where they were active.
//!
//! Pacemaker deletes a node's operation history only when its fence has succeeded. Until then the history
//! of a dead node tells what it had running, also to nodes that never mounted the same.
//!
//! The CIB knows devices and directories, not lock tables. A file system that is mounted here has the
//! name of its lock table, any other the last part of its directory.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::{Document, Node, ParsingOptions};

use crate::attributes::{Named, Parameters, Where};
use crate::history::was_active;
use crate::names::{self, Known};
use crate::{Held, Mounts, Report, Target};

/// What is wanted of the CIB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cib {
    nodes: Vec<CibNode>,
    filesystems: Vec<Filesystem>,
}

/// A node, with the resources that were active on it.
///
/// One that came back with another number leaves its old entry. All entries of one name are one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CibNode {
    /// Its number as a text, or a remote node's name; several of one that came back.
    ids: Vec<String>,
    uname: String,
    /// `None` where the CIB has no status of it.
    active: Option<BTreeSet<String>>,
}

/// A resource that is a GFS2 file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filesystem {
    resource: String,
    parameters: Parameters,
}

/// A file system as it is on one node.
struct Place<'a> {
    resource: &'a str,
    directory: &'a str,
    device: &'a str,
}

impl CibNode {
    /// Its number in the cluster, if it has one and no other.
    pub(crate) fn number(&self) -> Option<u32> {
        match &self.ids[..] {
            [id] => id.parse().ok().filter(|number| *number != 0),
            _ => None,
        }
    }

    fn place(&self) -> Where<'_> {
        let id = self.ids.first().filter(|_| self.ids.len() == 1);
        Where { name: &self.uname, id: id.map(String::as_str) }
    }

    /// Takes what another entry of the same node says.
    fn merge(&mut self, other: CibNode) {
        self.ids.extend(other.ids);
        if let Some(active) = other.active {
            self.active.get_or_insert_default().extend(active);
        }
    }
}

impl Cib {
    /// Reads what `cibadmin --query` wrote.
    ///
    /// Lines before the XML are warnings: it begins with the first line that begins with `<`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.split_inclusive('\n');
        let before = lines.take_while(|line| !line.trim_start().starts_with('<'));
        let text = text[before.map(str::len).sum()..].trim_start();
        Cib::parse_in(text, RESULTS_MAX)
    }

    fn parse_in(text: &str, results_max: usize) -> Result<Self, String> {
        let options = ParsingOptions { nodes_limit: XML_NODES_MAX, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options)
            .map_err(|error| format!("the CIB is not valid XML: {error}"))?;
        let root = document.root_element();
        if root.has_tag_name("pacemaker-result") && results_max > 0 {
            // The CIB is a part of it, or its text.
            let output = root.children().find(|part| part.has_tag_name("output"));
            let cib = root.children().find(|part| part.has_tag_name("cib"));
            return match (cib, output) {
                (Some(cib), _) => Ok(Cib::of(cib)),
                (None, Some(output)) => {
                    let text: String = output.children().filter_map(|part| part.text()).collect();
                    Cib::parse_in(text.trim_start(), results_max - 1)
                }
                (None, None) => Err("Pacemaker's result has no CIB".to_owned()),
            };
        }
        if !root.has_tag_name("cib") {
            return Err(format!("the CIB begins with '{}'", root.tag_name().name()));
        }
        Ok(Cib::of(root))
    }

    fn of<'a>(root: Node<'a, 'a>) -> Self {
        let named =
            below(root, "configuration").filter_map(|node| Some((node.attribute("id")?, node)));
        let named: Named<'_> = named.collect();
        let primitives = below(root, "resources").filter(|node| node.has_tag_name("primitive"));
        Cib {
            nodes: nodes(root),
            filesystems: primitives.filter_map(|node| filesystem(node, &named)).collect(),
        }
    }

    /// The directories of all file systems, on whatever node.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &str> {
        self.filesystems.iter().flat_map(|system| system.parameters.values("directory"))
    }

    /// Number, or a remote node's name, and name of each node; a node that came back with another
    /// number is there with each.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.nodes
            .iter()
            .flat_map(|node| node.ids.iter().map(|id| (id.as_str(), node.uname.as_str())))
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
        let has_id = |node: &&CibNode| id.is_some_and(|id| node.ids.contains(&id.to_string()));
        let Some(node) = by_name.or_else(|| self.nodes.iter().find(has_id)) else {
            return Report::Blind("the CIB has no such node".to_owned());
        };
        let Some(active) = &node.active else {
            return Report::Blind(format!("the CIB has no status of node '{}'", node.uname));
        };
        let mut held = Vec::new();
        let mut doubtful = Vec::new();
        for system in self.filesystems.iter().filter(|system| active.contains(&system.resource)) {
            let choice = |name| system.parameters.choice(name, node.place());
            let [fstype, directory, device] = ["fstype", "directory", "device"].map(choice);
            if fstype.is_doubtful() || (fstype.may_be(is_gfs2) && directory.is_doubtful()) {
                doubtful.push(format!("'{}'", system.resource));
            }
            if fstype.may_be(is_gfs2) {
                let resource = &system.resource;
                held.push(Place { resource, directory: directory.value(), device: device.value() });
            }
        }
        let remark = (!doubtful.is_empty()).then(|| {
            let doubtful = doubtful.join(", ");
            format!("rules that depend on more than the node's name are not evaluated: {doubtful}")
        });
        Report::Answered { held: named(&held, node, mounts), remark }
    }
}

/// What a node holds at these places, with the names of the file systems.
fn named(places: &[Place<'_>], node: &CibNode, mounts: &Mounts) -> Vec<Held> {
    let mut frequency: BTreeMap<&str, usize> = BTreeMap::new();
    for place in places {
        *frequency.entry(place.last_part()).or_default() += 1;
    }
    let named = places.iter().map(|place| {
        let last_part = place.last_part();
        let is_plain = !last_part.is_empty() && frequency[last_part] == 1;
        let table = mounts.table_at(place.directory);
        let name = match table.and_then(|table| table.split_once(':')) {
            Some((_, name)) => name,
            None if is_plain => last_part,
            // It would stand for several.
            None => place.resource,
        };
        let Place { resource, directory, device } = place;
        let node = &node.uname;
        let how = format!("resource '{resource}' ({device} on {directory}) was active on '{node}'");
        Held { name: name.to_owned(), how }
    });
    named.collect()
}

impl<'a> Place<'a> {
    /// The last part of its directory.
    fn last_part(&self) -> &'a str {
        self.directory.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default()
    }
}

fn nodes(root: Node<'_, '_>) -> Vec<CibNode> {
    let node = |element: Node<'_, '_>, active| CibNode {
        ids: vec![attribute(element, "id")],
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
        let active: Vec<String> = active.collect();
        // A remote node has no entry among the nodes.
        let entry = nodes.entry(attribute(state, "id")).or_insert_with(|| node(state, None));
        entry.active.get_or_insert_default().extend(active);
    }
    let mut by_name: Vec<CibNode> = Vec::new();
    for node in nodes.into_values() {
        let is_same = |known: &&mut CibNode| {
            !node.uname.is_empty() && known.uname.eq_ignore_ascii_case(&node.uname)
        };
        match by_name.iter_mut().find(is_same) {
            Some(known) => known.merge(node),
            None => by_name.push(node),
        }
    }
    by_name
}

fn filesystem<'a>(primitive: Node<'a, 'a>, named: &Named<'a>) -> Option<Filesystem> {
    let template = primitive.attribute("template").and_then(|id| named.get(id).copied());
    let template = template.filter(|element| element.has_tag_name("template"));
    let kind = primitive.attribute("type").or(template.and_then(|node| node.attribute("type")))?;
    let parameters = Parameters::of(primitive, template, named);
    let may_be_gfs2 = kind == "Filesystem" && parameters.values("fstype").any(is_gfs2);
    may_be_gfs2.then(|| Filesystem { resource: attribute(primitive, "id"), parameters })
}

fn is_gfs2(fstype: &str) -> bool {
    fstype.eq_ignore_ascii_case("gfs2")
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

/// How deep a CIB may lie in results.
const RESULTS_MAX: usize = 1;
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
        let pending = |name| operation(name, 0, -1, 193, -1);
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
            (vec![pending("stop")], true),
            (vec![pending("start"), operation("monitor", 0, 2, 7, 0)], true),
            (vec![pending("monitor"), operation("monitor", 0, 2, 7, 0)], false),
            (vec![operation("start", 0, 10, 0, 0), operation("stop", 0, 9, 0, 0)], true),
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 7, 0)], false),
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 1, 4)], true),
            (vec![operation("notify", 0, 5, 0, 0)], false),
            // Only a probe finds nothing where nothing is installed.
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 5, 0)], true),
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 5, 6)], true),
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 2, 4)], true),
            (vec![operation("start", 0, 2, 5, 5)], true),
            (vec![operation("monitor", 0, 1, 2, 0)], false),
            (vec![operation("monitor", 0, 1, 1, 7)], false),
            (vec![operation("monitor", 0, 1, 1, 4)], true),
            // A stop counts when both of its results say so.
            (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 0, 2)], true),
            (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 0, 4)], true),
            (vec![operation("stop", 0, 9, 0, 8)], true),
            (vec![operation("stop", 0, 9, 7, 0)], true),
            (vec![operation("stop", 0, 9, 0, 0)], false),
            (vec!["<lrm_rsc_op operation='stop' call-id='9' rc-code='0'/>".to_owned()], true),
            (vec!["<lrm_rsc_op operation='stop' call-id='9' op-status='0'/>".to_owned()], true),
            // So does a monitor that finds nothing.
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 7, 2)], true),
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 7, 4)], false),
            (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 7, 1)], true),
            (vec![operation("migrate_from", 0, 2, 0, 0)], true),
        ] {
            let history = history.concat();
            let cib = cib(&state("1", "n1", &[("plain", &history)]));
            let found = names(report(&cib, "n1", None, &Mounts::default()));
            assert_eq!(!found.is_empty(), active, "{history}");
        }
    }

    #[test]
    fn all_entries_of_one_name_are_one_node() {
        let text = format!(
            "<cib><configuration><nodes><node id='1' uname='n1'/><node id='7' uname='N1'/></nodes>\
             <resources>{RESOURCES}</resources></configuration><status>{}{}{}</status></cib>",
            state("1", "n1", &[("plain", &started())]),
            state("7", "N1", &[("other", &started())]),
            state("7", "N1", &[("grouped", &operation("stop", 0, 9, 0, 0))]),
        );
        let cib = Cib::parse(&text).unwrap();

        let found = names(report(&cib, "n1", None, &Mounts::default()));
        assert_eq!(found, ["plain", "data"]);
        assert_eq!(names(report(&cib, "outlet", Some(7), &Mounts::default())), found);
        // Which of its numbers is the right one, nobody knows.
        let node = cib.node(Target { plug: "n1", nodename: None }).unwrap();
        assert_eq!(node.number(), None);
    }

    #[test]
    fn zero_is_no_nodes_number() {
        for (id, number) in [("0", None), ("5", Some(5)), ("remote", None)] {
            let cib = Cib::parse(&format!("<cib><status>{}</status></cib>", state(id, "n", &[])));
            let cib = cib.unwrap();
            let node = cib.node(Target { plug: "n", nodename: None }).unwrap();
            assert_eq!(node.number(), number, "{id}");
        }
    }

    #[test]
    fn a_cib_may_lie_in_a_result_of_pacemakers_tools() {
        let cib = format!(
            "<cib><configuration><resources>{RESOURCES}</resources></configuration><status>{}</status>\
             </cib>",
            state("1", "n1", &[("plain", &started())])
        );
        let start = "<pacemaker-result api-version='2.38' request='cibadmin --query'>";
        let end = "<status code='0' message='OK'/></pacemaker-result>";
        for inside in [cib.clone(), format!("<output><![CDATA[\n{cib}\n]]></output>")] {
            let text = format!("<?xml version='1.0'?>\n{start}{inside}{end}");
            let cib = Cib::parse(&text).unwrap();
            assert_eq!(names(report(&cib, "n1", None, &Mounts::default())), ["plain"]);
        }
        let result = |inside: &str| format!("{start}<output><![CDATA[{inside}]]></output>{end}");
        for text in [format!("{start}{end}"), result("x"), result(""), result(&result("x"))] {
            assert!(Cib::parse(&text).is_err(), "{text}");
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
    fn lines_before_the_cib_are_passed_over() {
        let plain = cib("");
        let text =
            "<cib><configuration><nodes><node id='1' uname='n1'/></nodes></configuration></cib>";
        for before in
            ["", "\n", "warning: <x> is deprecated\n", "a\n\nb\n  ", "<?xml version='1.0'?>\n"]
        {
            let found = Cib::parse(&format!("{before}{text}")).unwrap();
            assert_eq!(found.nodes().next(), plain.nodes().next(), "{before:?}");
        }
        for text in ["warning: <cib/>", "<warning>\n<cib/>"] {
            assert!(Cib::parse(text).is_err(), "{text}");
        }
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
