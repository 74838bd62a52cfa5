//! Pacemaker's CIB: the GFS2 file systems among the resources, and where they were active.
//!
//! Pacemaker deletes a node's operation history only when its fence has succeeded. Until then the
//! history shows the resources of a dead node, also those that this node never mounted.
//!
//! The CIB has devices and directories, but no lock tables. A file system that is mounted here gets
//! the name of its lock table, any other file system the last part of its directory.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::{Document, Node, ParsingOptions};

use crate::attributes::{Named, Parameters, Where};
use crate::history::was_active;
use crate::names;
use crate::{Held, Mounts, Report, Target};

/// The parts of the CIB that discovery needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cib {
    nodes: Vec<CibNode>,
    filesystems: Vec<Filesystem>,
}

/// A node, with the resources that were active on it.
///
/// A node that came back with another number leaves its old entry. All entries of one name are one
/// node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CibNode {
    /// Its numbers as texts, several if it came back with another one; or a remote node's name.
    ids: Vec<String>,
    uname: String,
    /// `None` if the CIB has no status of the node.
    active: Option<BTreeSet<String>>,
}

/// A resource that is a GFS2 file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filesystem {
    resource: String,
    parameters: Parameters,
}

/// A file system on one node.
struct Place<'a> {
    resource: &'a str,
    directory: &'a str,
    device: &'a str,
}

impl CibNode {
    /// Its number in the cluster, if it has exactly one.
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

    /// Adds another entry of the same node.
    fn merge(&mut self, other: CibNode) {
        self.ids.extend(other.ids);
        if let Some(active) = other.active {
            self.active.get_or_insert_default().extend(active);
        }
    }
}

impl Cib {
    /// Reads the output of `cibadmin --query`.
    ///
    /// Lines before the XML are warnings: the XML starts at the first line that starts with `<`.
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
            // The CIB is a part of the result, or a text in it.
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

    /// The directories of all file systems on all nodes.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &str> {
        self.filesystems.iter().flat_map(|system| system.parameters.values("directory"))
    }

    /// The number (or a remote node's name) and the name of each node; a node with several numbers
    /// appears with each.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.nodes
            .iter()
            .flat_map(|node| node.ids.iter().map(|id| (id.as_str(), node.uname.as_str())))
    }

    /// The node that `target` means.
    pub(crate) fn node(&self, target: Target<'_>) -> Option<&CibNode> {
        let known = self.nodes.iter().map(|node| names::known(Some(&node.uname), &[]));
        names::find(target, &known.collect::<Vec<_>>()).ok().map(|place| &self.nodes[place])
    }

    /// The file systems of the node that was found by its name, else of the node with this number.
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

/// The file systems of a node at these places, with their names.
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
            // The last part would name several file systems.
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
            // The instances of a globally unique clone have a number.
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

/// The most results around a CIB.
const RESULTS_MAX: usize = 1;
/// More elements, attributes and texts than the CIB of a hundred nodes with a thousand resources
/// has.
const XML_NODES_MAX: u32 = 2_000_000;

#[cfg(test)]
mod tests;
