//! Which node is meant, and a target whose name belongs to another node.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::executable::write_executable;
use crate::left_out::left_out;
use crate::rig::{Spool, assert_failure, assert_success};

/// A cluster of node1 and node2, which corosync knows, and remote1, which only the CIB contains.
fn put_cluster(spool: &Spool) {
    let corosync = spool.path("root/etc/corosync");
    let programs = spool.path("root/usr/sbin");
    fs::create_dir_all(&corosync).unwrap();
    fs::create_dir_all(&programs).unwrap();
    let node = |name, id| format!("node {{\n name: {name}\n nodeid: {id}\n}}\n");
    let text = format!("nodelist {{\n{}{}}}\n", node("node1", 1), node("node2.example.com", 2));
    fs::write(corosync.join("corosync.conf"), text).unwrap();
    let cib =
        r#"<cib><configuration/><status><node_state id="remote1" uname="remote1"/></status></cib>"#;
    let cibadmin = programs.join("cibadmin");
    write_executable(&cibadmin, format!("#!/bin/sh\necho '{cib}'\n"));
}

/// The cluster of `put_cluster` with only addresses in corosync.conf, and a `cibadmin` with this
/// script.
fn put_unnamed_cluster(spool: &Spool, cibadmin: &str) {
    put_cluster(spool);
    let node = |id| format!("node {{\n ring0_addr: 10.9.0.{id}\n nodeid: {id}\n}}\n");
    let text = format!("nodelist {{\n{}{}}}\n", node(1), node(2));
    fs::write(spool.path("root/etc/corosync/corosync.conf"), text).unwrap();
    let cib = r#"<cib><configuration><nodes><node id="1" uname="node1"/><node id="2" uname="node2"/>
        </nodes></configuration></cib>"#;
    let cib_file = spool.path("root/cib");
    fs::write(&cib_file, cib).unwrap();
    let script = cibadmin.replace("CIB", &cib_file.display().to_string());
    write_executable(&spool.path("root/usr/sbin/cibadmin"), format!("#!/bin/sh\n{script}\n"));
}

/// Files in the spool's root that describe a cluster.
type Put<'a> = &'a dyn Fn(&Spool);

/// The cluster would consider node1 fenced, although node2 is off.
#[test]
fn a_plug_that_is_another_nodes_name_is_refused_before_anything_is_requested() {
    let spool = Spool::new();
    put_cluster(&spool);
    for (plug, nodename) in [
        ("plug=node2", "node1"),
        ("port=node2", "node1"),
        ("plug=NODE2.Example.com\nport=node1", "node1"),
        ("port=node2\nplug=node1", "node1"),
        ("plug=remote1", "node1"),
        ("plug=node1", "remote1"),
        ("plug=node1", "node3"),
    ] {
        for action in ["off", "reboot", "on", "status"] {
            for more in
                ["", "no_gfs2_discovery=1\n", "gfs2_discovery_timeout=0\n", "responder=nnf\n"]
            {
                let lines = format!("action={action}\n{plug}\nnodename={nodename}\n{more}");
                let output = spool.run(&lines);
                let stderr = assert_failure(&output);
                assert!(stderr.contains(&format!("node '{nodename}'")), "{lines}: {stderr}");
                assert!(stderr.contains("is its node 'node") || stderr.contains("'remote1'"));
            }
        }
        let lines = format!("action=validate-all\n{plug}\nnodename={nodename}\n");
        assert_success(&spool.run(&lines), "");
    }
    assert_eq!(spool.files("requests"), [""; 0]);
    assert_eq!(spool.files("queries"), [""; 0]);
}

#[test]
fn a_plug_that_is_no_other_nodes_name_is_fenced() {
    for lines in [
        "plug=node2\nnodename=node2.example.com\n",
        "plug=NODE1\nnodename=node1\n",
        "plug=outlet-7\nnodename=node1\n",
        "plug=rabbit-1\nport=node1\nnodename=node1\n",
        "port=rabbit-1\nplug=node1\nnodename=node1\nno_gfs2_discovery=1\n",
        "plug=node2\n",
        "node=1\nport=node2\n",
        "node=2\nfail_time=1790000000\nport=node2\n",
        "node=1\nfail_time=1790000000\nport=outlet-7\n",
        "node=7\nfail_time=1790000000\nport=node2\n",
        "node=n1\nfail_time=1790000000\nport=node2\n",
    ] {
        let spool = Spool::new();
        put_cluster(&spool);
        let output = spool.run_answered(&format!("action=off\n{lines}"), |responder| {
            responder.answer(&responder.success());
        });
        assert_success(&output, "Success: Powered OFF\n");
    }
}

/// DLM would consider node 1 fenced, although node2 is off.
#[test]
fn a_plug_that_is_another_node_than_the_one_that_dlm_means_is_refused() {
    for lines in [
        "port=node2",
        "plug=node2\naction=off",
        "port=NODE2\naction=reboot\nno_gfs2_discovery=1",
        "port=remote1\ngfs2_discovery_timeout=0",
        "nodename=node2",
        "port=node2\nnodename=node2",
        "port=node1\nnode=2",
    ] {
        let spool = Spool::new();
        put_cluster(&spool);
        let output = spool.run(&format!("node=1\nfail_time=1790000000\n{lines}\n"));
        let stderr = assert_failure(&output);
        assert!(stderr.contains("DLM means its node") && stderr.contains("dlm.conf"), "{stderr}");
        assert_eq!(spool.files("requests"), [""; 0]);
    }
}

/// The first `cibadmin`, which discovery starts, hangs; a later one does not.
#[test]
fn a_cib_that_discovery_did_not_wait_for_is_asked_once_more_for_the_names() {
    let spool = Spool::new();
    let first = spool.path("first");
    let hangs = format!("if mkdir '{}' 2>&-; then exec sleep 1000; fi", first.display());
    put_unnamed_cluster(&spool, &format!("{hangs}\ncat 'CIB'"));

    let output = spool.run(
        "action=off\nplug=node2\nnodename=node1\ngfs2_discovery_timeout=0.1\nfence_timeout=120\n",
    );
    assert!(assert_failure(&output).contains("is its node 'node2'"));

    fs::remove_dir(&first).unwrap();
    let lines = "action=off\nplug=outlet-7\nnodename=node1\ngfs2_discovery_timeout=0.1\nfence_timeout=120\n";
    let output = spool.run_answered(lines, |responder| responder.answer(&responder.success()));
    assert_success(&output, "Success: Powered OFF\n");
}

#[test]
fn where_the_clusters_names_cannot_be_read_another_name_is_refused() {
    let unnamed =
        |cibadmin: &'static str| move |spool: &Spool| put_unnamed_cluster(spool, cibadmin);
    let open_to = |mode, group: Option<u32>| {
        move |spool: &Spool| {
            put_cluster(spool);
            let path = spool.path("root/etc/corosync/corosync.conf");
            std::os::unix::fs::chown(&path, None, group).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            fs::remove_file(spool.path("root/usr/sbin/cibadmin")).unwrap();
        }
    };
    let is_root = nix::unistd::geteuid().is_root();
    let group = open_to(0o664, Some(65_534));
    let (fails, hangs) =
        (unnamed("echo 'no connection' >&2; exit 102"), unnamed("exec sleep 1000"));
    let others = open_to(0o666, None);
    let mut sites: Vec<(Put<'_>, &str)> =
        vec![(&fails, "no connection"), (&hangs, "cibadmin was killed"), (&others, "chmod go-w")];
    if is_root {
        sites.push((&group, "chmod go-w"));
    }
    for (put, why) in sites {
        let spool = Spool::new();
        put(&spool);
        for action in ["off", "reboot", "on", "status", "monitor"] {
            for plug in ["node2", "outlet-7"] {
                let lines =
                    format!("action={action}\nplug={plug}\nnodename=node1\nfence_timeout=4\n");
                let output = spool.run(&lines);
                let stderr = assert_failure(&output);
                let parts = ["'node1'", &format!("'{plug}'"), why, "cannot be checked"];
                assert!(parts.iter().all(|part| stderr.contains(part)), "{lines}: {stderr}");
            }
        }
        assert_eq!(spool.files("requests"), [""; 0]);
        // These names certainly belong to one node.
        for lines in ["plug=node1\nnodename=node1", "plug=NODE1\nnodename=node1", "plug=node2"] {
            let lines = format!("action=off\n{lines}\nno_gfs2_discovery=1\n");
            let output =
                spool.run_answered(&lines, |responder| responder.answer(&responder.success()));
            assert_success(&output, "Success: Powered OFF\n");
        }
    }
}

/// A umask of 002 creates such a file, and only root is in root's group.
#[test]
fn a_corosync_conf_that_roots_group_can_write_is_read() {
    if !nix::unistd::geteuid().is_root() {
        left_out("a corosync.conf of another group", "it needs root");
        return;
    }
    let spool = Spool::new();
    put_cluster(&spool);
    let path = spool.path("root/etc/corosync/corosync.conf");
    fs::set_permissions(path, Permissions::from_mode(0o664)).unwrap();
    fs::remove_file(spool.path("root/usr/sbin/cibadmin")).unwrap();

    let output = spool.run("action=off\nplug=node2\nnodename=node1\n");
    assert!(assert_failure(&output).contains("is its node 'node2.example.com'"));
    let lines = "action=off\nplug=outlet-7\nnodename=node1\n";
    let output = spool.run_answered(lines, |responder| responder.answer(&responder.success()));
    assert_success(&output, "Success: Powered OFF\n");
}

#[test]
fn a_cluster_that_names_no_nodes_here_keeps_no_fence_from_being_done() {
    let spool = Spool::new();
    let lines = "action=off\nplug=outlet-7\nnodename=node1\n";
    let output = spool.run_answered(lines, |responder| responder.answer(&responder.success()));
    assert_success(&output, "Success: Powered OFF\n");
}
