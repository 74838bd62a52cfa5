//! Trees that no healthy cluster has.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../../../tests/common/tree.rs"]
mod tree;

use std::fs;
use std::os::unix::fs::symlink;

use gfs2_discovery::{Finding, Report, Source};
use tree::{Tree, blindness, report};

const CLUSTER: &str = "sys/kernel/config/dlm/cluster";
const CONF: &str = "totem {\n cluster_name: c\n}\nnodelist {\n node {\n  name: n1\n  nodeid: 1\n \
                    }\n node {\n  name: n2\n  nodeid: 2\n }\n}\n";

fn cluster(cluster_name: &str) -> Tree {
    let tree = Tree::new();
    tree.write("etc/corosync/corosync.conf", CONF);
    tree.write(&format!("{CLUSTER}/cluster_name"), &format!("{cluster_name}\n"));
    tree
}

fn lockspace(tree: &Tree, name: &str, nodes: &[u32]) {
    for node in nodes {
        tree.write(&format!("{CLUSTER}/spaces/{name}/nodes/{node}/nodeid"), &format!("{node}\n"));
    }
}

fn table(tree: &Tree, table: &str, id: &str) {
    tree.write(&format!("sys/fs/gfs2/{table}/id"), &format!("{id}\n"));
}

#[test]
fn other_lockspaces_and_file_systems_of_other_clusters_are_left_out() {
    let tree = cluster("c");
    for name in ["home", "lvm_global", "lvm_vg0", "clvmd", "4B2E9D07", "strange"] {
        lockspace(&tree, name, &[1, 2]);
    }
    lockspace(&tree, "mine", &[1]);
    for (name, id) in [("c:home", "8:0"), ("c:mine", "8:1"), ("d:strange", "8:2"), ("sdb1", "8:3")]
    {
        table(&tree, name, id);
    }

    assert_eq!(tree.discover("n2").names(), ["home"]);
    assert_eq!(tree.discover("n1").names(), ["home", "mine"]);
}

#[test]
fn hundreds_of_lockspaces_are_no_problem() {
    let tree = cluster("c");
    let mut expected = Vec::new();
    for number in 0..400 {
        let name = format!("fs{number:03}");
        let held = number % 3 == 0;
        lockspace(&tree, &name, if held { &[1, 2, 3] } else { &[1, 3, 22] });
        table(&tree, &format!("c:{name}"), &format!("8:{number}"));
        lockspace(&tree, &format!("lvm_{number}"), &[1, 2, 3]);
        if held {
            expected.push(name);
        }
    }

    assert_eq!(tree.discover("n2").names(), expected);
}

#[test]
fn an_unreadable_line_is_reported_and_spoils_no_other() {
    let tree = cluster("c");
    lockspace(&tree, "home", &[1, 2]);
    tree.write(&format!("{CLUSTER}/spaces/odd/nodes"), "no directory");
    tree.write(&format!("{CLUSTER}/spaces/foreign/nodes"), "nobody's business");
    tree.write(&format!("{CLUSTER}/spaces/home/nodes/x/nodeid"), "x");
    tree.write(&format!("{CLUSTER}/spaces/file"), "");
    table(&tree, "c:home", "8:0");
    table(&tree, "c:odd", "8:1");

    let found = tree.discover("n2");
    assert_eq!(found.names(), ["home"]);
    let Report::Answered { remark: Some(remark), .. } = report(&found, Source::Dlm) else {
        panic!("{found}");
    };
    assert!(remark.contains("'odd'") && !remark.contains("foreign"), "{remark}");

    fs::remove_dir_all(tree.path(&format!("{CLUSTER}/spaces"))).unwrap();
    symlink("spaces", tree.path(&format!("{CLUSTER}/spaces"))).unwrap();
    let found = tree.discover("n2");
    assert!(blindness(&found, Source::Dlm).contains("cannot be listed"), "{found}");
    assert_eq!(found.outcome(), Finding::Unknown);
}

#[test]
fn a_machine_without_a_cluster_knows_no_names() {
    let found = Tree::new().discover("n2");

    assert_eq!((found.outcome(), found.names()), (Finding::Unknown, vec![]));
    assert!(
        found.reports().iter().all(|(_, report)| matches!(report, Report::Absent(_))),
        "{found}"
    );
    assert_eq!(found.to_string(), "GFS2 file systems unknown");
}

#[test]
fn a_node_that_mounts_no_gfs2_itself_sees_none() {
    let tree = cluster("c");
    lockspace(&tree, "lvm_global", &[1, 2]);

    let found = tree.discover("n2");

    assert!(blindness(&found, Source::Dlm).contains("mounted"), "{found}");
}

#[test]
fn the_cibs_name_of_a_file_system_is_the_kernels_if_it_is_mounted_here() {
    let tree = cluster("c");
    lockspace(&tree, "vol1", &[1, 2]);
    table(&tree, "c:vol1", "253:7");
    tree.write(
        "proc/self/mountinfo",
        "40 25 253:7 / /srv/shared rw - gfs2 /dev/mapper/vg-lv rw\n41 25 8:1 / /srv rw - ext4 \
         /dev/sda rw\n",
    );
    let primitive = |id: &str, directory: &str| {
        format!(
            "<primitive id='{id}' class='ocf' provider='heartbeat' \
             type='Filesystem'><instance_attributes id='{id}-a'><nvpair id='{id}-d' \
             name='directory' value='{directory}'/><nvpair id='{id}-f' name='fstype' \
             value='gfs2'/></instance_attributes></primitive>"
        )
    };
    let history = |id: &str| {
        format!(
            "<lrm_resource id='{id}'><lrm_rsc_op operation='start' call-id='1' \
             rc-code='0'/></lrm_resource>"
        )
    };
    let cib = format!(
        "<cib><configuration><resources>{}{}</resources></configuration><status><node_state id='2' \
         uname='n2'><lrm><lrm_resources>{}{}</lrm_resources></lrm></node_state></status></cib>",
        primitive("a", "/srv/shared"),
        primitive("b", "/srv/archive"),
        history("a"),
        history("b")
    );
    tree.write("cib.xml", &cib);
    tree.program("cibadmin", &format!("cat '{}'", tree.path("cib.xml").display()));

    let found = tree.discover("n2");

    assert_eq!(found.names(), ["archive", "vol1"]);
    assert_eq!(found.learned()["vol1"].len(), 2);
}

/// A CIB with this resource, which was started on node n2.
fn started(resource: &str) -> String {
    format!(
        "<cib><configuration><resources>{resource}</resources></configuration><status><node_state \
         id='2' uname='n2'><lrm><lrm_resources><lrm_resource id='p'><lrm_rsc_op operation='start' \
         call-id='1' rc-code='0' \
         op-status='0'/></lrm_resource></lrm_resources></lrm></node_state></status></cib>"
    )
}

fn mounted_at(directory: &str) -> String {
    format!(
        "<primitive id='p' class='ocf' provider='heartbeat' type='Filesystem'><instance_attributes \
         id='a'><nvpair id='d' name='directory' value='{directory}'/><nvpair id='f' name='fstype' \
         value='gfs2'/></instance_attributes></primitive>"
    )
}

#[test]
fn a_directory_that_leads_to_a_mount_by_links_is_the_same_file_system() {
    let tree = cluster("c");
    lockspace(&tree, "vol1", &[1, 2]);
    table(&tree, "c:vol1", "253:7");
    tree.write(
        "proc/self/mountinfo",
        "20 1 8:1 / / rw - ext4 /dev/sda rw\n40 25 253:7 / /mnt/vol rw - gfs2 /dev/dm-7 rw\n\
         41 25 0:44 / /net rw - nfs4 server:/ rw\n",
    );
    for directory in ["mnt/vol/inside", "srv", "net"] {
        fs::create_dir_all(tree.path(directory)).unwrap();
    }
    for (link, target) in [
        ("srv/absolute", "/mnt/vol"),
        ("srv/relative", "../mnt/./vol/"),
        ("srv/parent", "/mnt"),
        ("srv/again", "absolute"),
        ("srv/loop", "loop"),
        ("srv/other", "/mnt/other"),
        // No link on GFS2 or on a network file system is read.
        ("mnt/vol/inside/link", "/mnt/vol"),
        ("net/link", "/mnt/vol"),
    ] {
        symlink(target, tree.path(link)).unwrap();
    }
    tree.program("cibadmin", &format!("cat '{}'", tree.path("cib.xml").display()));
    for (directory, name) in [
        ("/mnt/vol", "vol1"),
        ("/srv/absolute", "vol1"),
        ("/srv/absolute/", "vol1"),
        ("/srv/relative", "vol1"),
        ("/srv/parent/vol", "vol1"),
        ("/srv/again", "vol1"),
        ("/srv/../srv/again", "vol1"),
        ("/srv/other", "other"),
        ("/srv/loop", "loop"),
        ("/mnt/vol/inside/link", "link"),
        ("/net/link", "link"),
        ("relative", "relative"),
    ] {
        tree.write("cib.xml", &started(&mounted_at(directory)));
        let found = tree.discover("n2");
        let Report::Answered { held, .. } = report(&found, Source::Cib) else { panic!("{found}") };
        let names: Vec<&str> = held.iter().map(|held| held.name.as_str()).collect();
        assert_eq!(names, [name], "{directory}");
    }
}

#[test]
fn a_rule_that_is_not_evaluated_is_reported() {
    let tree = cluster("c");
    let rule = "<rule id='r'><date_expression id='x' operation='gt' \
                start='2020-01-01'/></rule><nvpair id='d'";
    let resource = mounted_at("/mnt/vol").replace("<nvpair id='d'", rule);
    tree.write("cib.xml", &started(&resource));
    tree.program("cibadmin", &format!("cat '{}'", tree.path("cib.xml").display()));

    let found = tree.discover("n2");

    assert_eq!(found.names(), ["vol"]);
    let Report::Answered { remark: Some(remark), .. } = report(&found, Source::Cib) else {
        panic!("{found}");
    };
    assert!(remark.contains("not evaluated") && remark.contains("'p'"), "{remark}");
}
