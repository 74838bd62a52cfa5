//! The captures of a real cluster: the file systems that the dying node had mounted, by each source
//! alone and by all.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../../../tests/common/tree.rs"]
mod tree;

use gfs2_discovery::{Finding, Report, Source};
use tree::{Tree, blindness, report};

const BOTH: &[&str] = &["gfs2-storage", "scratch"];
const STORAGE: &[&str] = &["gfs2-storage"];
const NONE: &[&str] = &[];

/// Directory, target, what DLM shows there, what the CIB shows.
const CASES: &[(&str, &str, &[&str], &[&str])] = &[
    ("healthy-node1", "node1", BOTH, BOTH),
    ("healthy-node1", "node2", BOTH, BOTH),
    ("healthy-node1", "node3", STORAGE, STORAGE),
    ("healthy-node2", "node2", BOTH, BOTH),
    ("healthy-node3", "node1", STORAGE, BOTH),
    ("healthy-node3", "node3", STORAGE, STORAGE),
    ("at-fence-node1", "node2", BOTH, BOTH),
    ("at-fence-node1", "node3", STORAGE, STORAGE),
    ("at-fence-node3", "node2", STORAGE, BOTH),
    ("at-fence-retry-node1", "node2", BOTH, BOTH),
    ("fenced-node1", "node2", NONE, NONE),
    ("fenced-node1", "node1", BOTH, BOTH),
    ("fenced-node3", "node2", NONE, NONE),
    ("recovered-node1", "node2", BOTH, BOTH),
    ("recovered-node3", "node2", STORAGE, BOTH),
];

#[test]
fn each_source_alone_names_exactly_what_it_can_see_of_the_node() {
    for (capture, node, by_dlm, by_cib) in CASES {
        let without_cib = Tree::of_capture(capture);
        without_cib.remove("usr");
        let dlm = without_cib.discover(node);
        assert_eq!(dlm.names(), *by_dlm, "{capture} {node}: {dlm}");
        assert!(matches!(report(&dlm, Source::Dlm), Report::Answered { remark: None, .. }));
        assert!(matches!(report(&dlm, Source::Cib), Report::Absent(_)));

        let without_dlm = Tree::of_capture(capture);
        without_dlm.remove("sys");
        without_dlm.remove("etc");
        let cib = without_dlm.discover(node);
        assert_eq!(cib.names(), *by_cib, "{capture} {node}: {cib}");
        assert!(matches!(report(&cib, Source::Cib), Report::Answered { remark: None, .. }));
        assert!(matches!(report(&cib, Source::Dlm), Report::Absent(_)));
    }
}

#[test]
fn the_merged_answer_names_the_nodes_file_systems_and_their_sources() {
    for (capture, node, by_dlm, by_cib) in CASES {
        let found = Tree::of_capture(capture).discover(node);

        assert_eq!(found.names(), *by_cib, "{capture} {node}: {found}");
        let outcome = if by_cib.is_empty() { Finding::None } else { Finding::Found };
        assert_eq!(found.outcome(), outcome);
        for (name, by) in found.learned() {
            let by: Vec<Source> = by.iter().map(|(source, _)| *source).collect();
            let by_both = [Source::Dlm, Source::Cib];
            let expected = if by_dlm.contains(&name) { &by_both[..] } else { &by_both[1..] };
            assert_eq!(by, expected, "{capture} {node} {name}");
        }
    }
}

#[test]
fn a_dead_node_is_found_by_any_of_its_names() {
    let tree = Tree::of_capture("at-fence-node1");

    for name in ["node2", "NODE2", "node2.example.org", "10.77.0.12"] {
        assert_eq!(tree.discover(name).names(), BOTH, "{name}");
    }
    let stranger = tree.discover("node4");
    assert_eq!((stranger.names(), stranger.outcome()), (vec![], Finding::Unknown));
    assert!(blindness(&stranger, Source::Dlm).contains("there is no node 'node4'"));
}

#[test]
fn without_names_in_corosyncs_configuration_the_cib_has_the_number() {
    let tree = Tree::of_capture("at-fence-node1");
    let path = tree.path("etc/corosync/corosync.conf");
    let text = std::fs::read_to_string(path).unwrap();
    let nameless: Vec<&str> = text.lines().filter(|line| !line.contains("name: node")).collect();
    tree.write("etc/corosync/corosync.conf", &nameless.join("\n"));

    let found = tree.discover("node2");

    assert_eq!(found.learned()["scratch"].len(), 2, "{found}");
    tree.remove("usr");
    let found = tree.discover("node2");
    assert!(blindness(&found, Source::Dlm).contains("node id is not known"), "{found}");
}
