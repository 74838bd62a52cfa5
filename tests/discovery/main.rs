//! The file systems of a dead node: from a real cluster's files and CIB through the agent into the
//! request, the device's program and the audit; and back to DLM if the site wants it.
//!
//!
//! - `nnf`: a name that Kubernetes does not know is not fenced through nnf-sos.
//!
//! - `paths`: neither the programs nor their children touch a path on GFS2.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../common/mod.rs"]
mod common;
mod nnf;
mod paths;
#[path = "../common/tree.rs"]
mod tree;

use common::{Site, new_id, our_request, wait_for, with};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tree::{Tree, is_alive};

/// A quarter of the agent's time, enough for a `cibadmin` on a busy machine.
const PATIENT: &str = "gfs2_discovery_timeout=60\n";

/// A site whose agents and watchers find this capture at the usual paths.
fn site(capture: &str) -> (Site, Tree) {
    let site = Site::new();
    let tree = Tree::at(site.path("root")).with_capture(capture);
    (site, tree)
}

#[test]
fn request_program_and_audit_name_the_dead_nodes_file_systems_and_their_sources() {
    let (site, _tree) = site("at-fence-node3");
    let seen = site.path("seen");
    let script = format!("echo \"$FENCE_GFS2_FILESYSTEMS\" >'{0}'; cat >>'{0}'", seen.display());
    site.configure(&site.recorder("power", "*", &script));
    let _watcher = site.start();

    site.agent(&format!("action=off\nplug=node2\n{PATIENT}")).wait().assert_success();

    let seen = site.read("seen");
    let (list, request) = seen.split_once('\n').unwrap();
    assert_eq!(list, "gfs2-storage,scratch");
    let request: Value = serde_json::from_str(request).unwrap();
    assert_eq!(request["gfs2_filesystems"], json!(["gfs2-storage", "scratch"]));
    let audit = site.audit();
    assert_eq!(audit.len(), 2);
    for event in audit {
        assert_eq!(event["gfs2_filesystems"], json!(["gfs2-storage", "scratch"]));
        let discovery = &event["gfs2_discovery"];
        assert_eq!(discovery["outcome"], "found");
        assert_eq!(discovery["learned"]["gfs2-storage"].as_array().unwrap().len(), 2);
        let only = discovery["learned"]["scratch"].as_array().unwrap();
        assert!(
            only.len() == 1 && only[0].as_str().unwrap().starts_with("cib: resource 'scratch'")
        );
        assert_eq!(discovery["sources"]["dlm"], json!({"state": "answered"}));
        assert_eq!(discovery["sources"]["nnf"]["state"], "absent");
    }
}

#[test]
fn the_audit_distinguishes_none_unknown_and_disabled() {
    for (capture, options, outcome) in [
        ("fenced-node1", PATIENT, "none"),
        ("at-fence-node1", "gfs2_discovery_timeout=0\nnodename=node9\n", "unknown"),
        ("at-fence-node1", "no_gfs2_discovery=1\n", "disabled"),
        ("at-fence-node1", "gfs2_discovery_enabled=0\n", "disabled"),
    ] {
        let (site, _tree) = site(capture);
        site.configure(&site.recorder("power", "*", ""));
        let _watcher = site.start();
        let target = if outcome == "unknown" { "outlet-9" } else { "node2" };

        site.agent(&format!("action=off\nplug={target}\n{options}")).wait().assert_success();

        let event = &site.audit()[0];
        assert_eq!(event["gfs2_filesystems"], json!([]), "{options}");
        assert_eq!(event["gfs2_discovery"]["outcome"], outcome, "{options}");
    }
}

#[test]
fn a_cibadmin_that_hangs_neither_stops_nor_fails_a_fence_and_is_killed() {
    let (site, tree) = site("at-fence-node1");
    tree.program("cibadmin", &format!("{}\nexec sleep 1000", tree.notes_pid()));
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();

    let options = "action=off\nplug=node2\ngfs2_discovery_timeout=4\n";
    site.agent(options).wait().assert_success();

    let event = &site.audit()[0];
    assert_eq!(event["gfs2_filesystems"], json!(["gfs2-storage", "scratch"]));
    assert_eq!(event["gfs2_discovery"]["sources"]["cib"]["state"], "blind");
    for pid in tree.await_pids(1) {
        wait_for("the end of what was killed", || !is_alive(&pid));
    }
}

#[test]
fn a_signal_during_discovery_leaves_no_request() {
    let (site, tree) = site("at-fence-node1");
    tree.program("cibadmin", &format!("{}\nexec sleep 1000", tree.notes_pid()));
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();

    let agent = site.agent("action=off\nplug=node2\ngfs2_discovery_timeout=4\n");
    tree.await_pids(1);
    agent.signal(Signal::SIGTERM);

    agent.wait().assert_failure(&["stopped by SIGTERM", "nothing was requested"]);
    assert_eq!(site.executed(), [""; 0]);
    assert_eq!(site.audit().len(), 1);
}

#[test]
fn a_verbose_status_shows_what_a_fence_would_find_beside_its_answer() {
    let (site, _tree) = site("at-fence-node3");
    site.configure(&site.simulated("power", ""));
    let _watcher = site.start();

    let ended = site.agent(&format!("action=status\nplug=node2\nverbose=1\n{PATIENT}")).wait();

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "Status: ON\n"), "{ended:?}");
    for line in [
        "discovery: found",
        "discovery: 'scratch' by cib: resource 'scratch' (/dev/disk/by-id/virtio-gfs2b on /mnt/scratch) \
         was active on 'node2'",
        "discovery: 'gfs2-storage' by dlm: node 2 is a member of lockspace mycluster:gfs2-storage",
        "discovery: dlm answered",
        "discovery: nnf absent: kubectl has no configuration here",
    ] {
        let line = format!("fence_gfs2_recorder: {line}\n");
        assert!(ended.stderr.contains(&line), "no {line:?}: {}", ended.stderr);
    }
    let quiet = site.agent("action=status\nplug=node2\n").wait();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("Status: ON\n", ""));
}

fn fence(site: &Site, action: &str, target: &str, device: &str) -> String {
    let id = new_id();
    let request = with(our_request(&id, action, target), json!({"device": device, "held": false}));
    site.spool.submit(&id, &request);
    id
}

#[test]
fn dlm_gets_a_report_only_for_a_target_shown_off_and_only_if_configured() {
    let (site, tree) = site("at-fence-node1");
    tree.program("dlm_tool", &format!("echo \"$@\" >>'{}'", site.path("dlm").display()));
    let state = |name: &str| {
        let path = site.path(&format!("state-{name}"));
        format!(
            "[[device]]\nname = '{name}'\ntype = 'simulated'\ntargets = '*'\nstate_file = '{}'\n",
            path.display()
        )
    };
    let tell = "acknowledge_dlm = true\n";
    site.configure(
        &[
            format!("{}{tell}", state("told")),
            state("silent"),
            format!("{}{tell}fail = 'lie'\ntimeout = '1s'\n", state("liar")),
            format!("{}{tell}", site.recorder("mute", "*", "")),
        ]
        .concat(),
    );
    let watcher = site.start();

    for (action, device, result) in [
        ("off", "silent", "success"),
        ("off", "mute", "success"),
        ("reboot", "mute", "success"),
        ("off", "liar", "unacknowledged"),
        ("on", "told", "success"),
    ] {
        site.spool.await_result(&fence(&site, action, "node1", device), result);
    }
    site.spool.await_result(&fence(&site, "off", "node2", "told"), "success");
    wait_for("the report to DLM", || site.lines("dlm") == ["fence_ack 2"]);
    let reboot = fence(&site, "reboot", "node3", "told");
    site.spool.await_result(&reboot, "success");
    wait_for("the report to DLM", || site.lines("dlm") == ["fence_ack 2", "fence_ack 3"]);
    watcher
        .await_log(&format!("told DLM that it is fenced: request={reboot} target=node3 node_id=3"));
}

#[test]
fn the_answer_does_not_depend_on_the_report_to_dlm() {
    let (site, tree) = site("at-fence-node1");
    let note = tree.notes_pid();
    let script = format!("[ \"$2\" != 1 ] || {{ echo no >&2; exit 3; }}\n{note}\nexec sleep 1000");
    tree.program("dlm_tool", &script);
    site.configure(&site.simulated("power", "acknowledge_dlm = true"));
    let watcher = site.start();

    for (target, why) in [
        ("node1", "dlm_tool exited with 3: no"),
        ("node2", "dlm_tool was ended before it was done"),
        ("outlet-7", "there is no node 'outlet-7' in corosync.conf"),
    ] {
        let id = fence(&site, "off", target, "power");
        let answer = site.spool.await_result(&id, "success");
        assert_eq!(answer["verified"], true);
        watcher.await_log(&format!(
            "DLM was not told that it is fenced: request={id} target={target}: {why}"
        ));
    }
    for pid in tree.await_pids(1) {
        wait_for("the end of what was killed", || !is_alive(&pid));
    }
}
