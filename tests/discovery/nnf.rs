//! A name that Kubernetes does not know is not fenced through nnf-sos, which would report success
//! for it. Here our watcher plays nnf-sos: it fences every requested name.

use std::os::unix::fs::DirBuilderExt;

use serde_json::json;

use crate::common::{Site, names, wait_for};
use crate::tree::{Tree, is_alive};

/// A rabbit's object with its computes, and storage of another compute.
const LIST: &str = r#"{"items": [
    {"kind": "Storage", "metadata": {"name": "rabbit-1", "namespace": "default"}, "status": {"access":
        {"computes": [{"name": "rabbit-1-compute-1"}], "servers": [{"name": "rabbit-1"}]}}},
    {"kind": "NnfNodeBlockStorage", "metadata": {"name": "job-0", "namespace": "rabbit-1", "labels":
        {"nnf.cray.hpe.com/allocationset": "gfs2"}}, "status": {"allocations":
        [{"accesses": {"rabbit-1-compute-2": {"storageGroupId": "g"}}}]}}]}"#;

/// A site with a `kubectl` that runs this script; `LIST` is its file `list`.
fn site(kubectl: &str) -> (Site, Tree) {
    let site = Site::new();
    let tree = Tree::at(site.path("root"));
    tree.write("list", LIST);
    tree.program("kubectl", &kubectl.replace("LIST", &tree.path("list").display().to_string()));
    site.configure(&site.recorder("power", "*", ""));
    (site, tree)
}

/// Enough for a `kubectl` on a busy machine.
const OPTIONS: &str =
    "responder=nnf\nkubectl_cmd=kubectl\nfence_timeout=240\ngfs2_discovery_timeout=60\n";

#[test]
fn a_name_that_kubernetes_does_not_have_is_neither_fenced_nor_monitored() {
    let (site, _tree) = site("cat 'LIST'");
    let _watcher = site.start();

    for target in [
        "plug=compute-1",
        "port=rabbit-1-compute",
        "plug=Rabbit-1-Compute-1",
        "plug=rabbit-1-compute-1.site",
        "plug=job-0",
        "nodename=compute-1",
        // The request names the plug, however the cluster calls the node.
        "plug=compute-1\nnodename=rabbit-1-compute-1",
    ] {
        for action in ["off", "reboot", "monitor"] {
            let ended = site.agent(&format!("action={action}\n{target}\n{OPTIONS}")).wait();
            ended.assert_failure(&["Kubernetes has no compute node", "pcmk_host_map"]);
        }
    }
    // Disabled discovery does not allow a fence without effect either.
    for option in ["no_gfs2_discovery=1", "gfs2_discovery_enabled=no"] {
        let lines = format!("action=off\nplug=compute-1\n{OPTIONS}{option}\n");
        site.agent(&lines).wait().assert_failure(&["Kubernetes has no compute node"]);
    }

    assert_eq!(site.executed(), [""; 0]);
    let mut answers = names(&site.spool.responses);
    answers.retain(|name| !name.starts_with('.'));
    assert_eq!(answers, [""; 0], "nothing was requested");
    let event = site.audit().pop().unwrap();
    assert_eq!((&event["status"], &event["result"]), (&json!("failed"), &json!("rejected")));
}

#[test]
fn another_nodes_name_is_refused_as_such_whether_kubernetes_has_it_or_not() {
    let (site, tree) = site("cat 'LIST'");
    tree.write(
        "etc/corosync/corosync.conf",
        "nodelist {\n node {\n name: rabbit-1-compute-1\n nodeid: 1\n }\n\
         node {\n name: compute-2\n nodeid: 2\n }\n node {\n name: compute-3\n nodeid: 3\n }\n}\n",
    );
    let _watcher = site.start();

    for (plug, option) in [
        ("rabbit-1-compute-1", ""),
        ("compute-2", ""),
        ("rabbit-1-compute-1", "no_gfs2_discovery=1\n"),
        ("compute-2", "no_gfs2_discovery=1\n"),
    ] {
        let lines = format!("action=off\nplug={plug}\nnodename=compute-3\n{OPTIONS}{option}");
        let why = format!("the target '{plug}' is its node");
        site.agent(&lines).wait().assert_failure(&["its node 'compute-3'", &why]);
    }

    assert_eq!(site.executed(), [""; 0]);
}

#[test]
fn a_name_that_kubernetes_has_is_fenced_by_it_alone() {
    let (site, _tree) = site("cat 'LIST'");
    let _watcher = site.start();

    for plug in ["rabbit-1-compute-1", "rabbit-1-compute-2", "rabbit-1"] {
        site.agent(&format!("action=monitor\nplug={plug}\n{OPTIONS}")).wait().assert_success();
        let lines = format!("action=off\nplug={plug}\nnodename=compute-1\n{OPTIONS}");
        site.agent(&lines).wait().assert_success();
    }
    site.agent(&format!("action=monitor\n{OPTIONS}")).wait().assert_success();

    assert_eq!(site.executed().len(), 3);
    let details = site.audit()[0]["details"].to_string();
    assert!(!details.contains("not known"), "{details}");
}

#[test]
fn a_name_that_kubernetes_cannot_confirm_stops_no_fence_and_is_reported() {
    for (kubectl, why) in [
        ("echo 'Error: storages is forbidden' >&2; exit 1", "storages is forbidden"),
        ("echo '{\"items\": ['", "not valid JSON"),
        ("echo 'Warning: no list'", "not valid JSON"),
        ("NOTE; exec sleep 1000", "kubectl was killed"),
    ] {
        let (site, tree) = site("");
        tree.program("kubectl", &kubectl.replace("NOTE", &tree.notes_pid()));
        let _watcher = site.start();
        let options =
            "responder=nnf\nkubectl_cmd=kubectl\ngfs2_discovery_timeout=0\nfence_timeout=20\n";

        site.agent(&format!("action=off\nplug=compute-1\n{options}")).wait().assert_success();
        // Also without a target: every fence would be for an unverified name.
        for plug in ["plug=compute-1", ""] {
            let monitor = site.agent(&format!("action=monitor\n{plug}\n{options}")).wait();
            monitor.assert_failure(&["it is not known", why]);
        }

        assert_eq!(site.executed().len(), 1, "{kubectl}");
        let details = site.audit()[0]["details"].to_string();
        let unknown = "it is not known whether Kubernetes has a node 'compute-1'";
        assert!(details.contains(unknown) && details.contains(why), "{details}");
        // A program that had no time to start has recorded nothing.
        let pids = std::fs::read_to_string(tree.path("pids")).unwrap_or_default();
        for pid in pids.lines() {
            wait_for("the end of what was killed", || !is_alive(pid));
        }
    }
}

/// nnf-sos answers this for a node that it does not know.
const NOTHING: &str = "No block storage resources found to fence";

/// nnf-sos, with this message in its answer.
fn answer_as_nnf(site: &Site, message: &str) {
    let mut request = None;
    wait_for("a request", || {
        let found = names(&site.spool.requests);
        request = found.into_iter().find(|name| !name.starts_with('.'));
        request.is_some()
    });
    let name = request.unwrap();
    let bytes = std::fs::read(site.spool.requests.join(&name)).unwrap();
    let request: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let answer = json!({
        "request_id": request["request_id"], "status": "success", "success": true, "message": message,
        "target_node": request["target_node"], "action_performed": "off",
    });
    std::fs::write(site.spool.responses.join(&name), answer.to_string()).unwrap();
    std::fs::remove_file(site.spool.requests.join(&name)).unwrap();
}

#[test]
fn a_name_that_kubernetes_could_not_confirm_is_not_fenced_by_an_answer_that_found_nothing() {
    let nnf = "responder=nnf\ngfs2_discovery_timeout=0\nfence_timeout=60\n";
    let kubectl = format!("{nnf}kubectl_cmd=kubectl\n");
    let missing = format!("{nnf}kubectl_cmd=oc\n");
    let fails = "echo 'Error from server (ServiceUnavailable)' >&2; exit 1";
    let fenced = "Successfully fenced node by deleting 1 GFS2 storage groups";
    for (script, options, message, why) in [
        (fails, kubectl.as_str(), NOTHING, Some("ServiceUnavailable")),
        (fails, &missing, NOTHING, Some("there is no oc")),
        // A site that configures no place for Kubernetes vouches for its names.
        (fails, nnf, NOTHING, None),
        (fails, &kubectl, fenced, None),
        // Kubernetes is asked once more, and a node without storage has nothing to lose.
        ("if mkdir LIST.once; then exit 1; fi; cat 'LIST'", &kubectl, NOTHING, None),
        ("echo 'Warning: {v1beta1} is deprecated'; cat 'LIST'", &kubectl, NOTHING, None),
    ] {
        let (site, _tree) = site(script);
        for directory in [&site.spool.requests, &site.spool.responses] {
            std::fs::DirBuilder::new().mode(0o700).create(directory).unwrap();
        }
        for action in ["off", "reboot"] {
            let lines = format!("action={action}\nplug=rabbit-1-compute-1\n{options}");
            let agent = site.agent(&lines);
            answer_as_nnf(&site, message);
            let ended = agent.wait();
            match why {
                None => {
                    ended.assert_success();
                    assert_eq!(ended.stdout, "Success: Powered OFF\n");
                }
                Some(why) => ended.assert_failure(&["found nothing to fence", NOTHING, why]),
            }
        }
    }
}

#[test]
fn only_nnf_compares_names_and_only_where_kubectl_is_configured() {
    let (site, tree) = site("");
    tree.program(
        "kubectl",
        &format!("{}\ncat '{}'", tree.notes_pid(), tree.path("list").display()),
    );
    let _watcher = site.start();

    for options in ["responder=nnf", "responder=script\nkubectl_cmd=kubectl", "kubectl_cmd=kubectl"]
    {
        let options = format!("{options}\nno_gfs2_discovery=1\n");
        site.agent(&format!("action=off\nplug=compute-1\n{options}")).wait().assert_success();
        site.agent(&format!("action=monitor\nplug=compute-1\n{options}")).wait().assert_success();
    }

    assert_eq!(site.executed().len(), 3);
    assert!(!tree.path("pids").exists(), "kubectl was run");
}

#[test]
fn nnf_is_not_said_to_have_switched_a_node_on() {
    let (site, _tree) = site("cat 'LIST'");
    let _watcher = site.start();

    for plug in ["compute-1", "rabbit-1-compute-1"] {
        let ended = site.agent(&format!("action=on\nplug={plug}\n{OPTIONS}")).wait();
        ended.assert_success();
        assert!(!ended.stdout.contains("Powered"), "{ended:?}");
        assert!(ended.stdout.contains("Nothing to do"), "{ended:?}");
    }
    assert_eq!(site.executed(), [""; 0]);
}
