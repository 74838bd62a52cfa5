//! The real agent and the real watcher: the outcome of a fence if one of them is slow, fails, is
//! killed, or comes back.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;
#[path = "together/ends.rs"]
mod ends;
#[path = "together/questions.rs"]
mod questions;
#[path = "together/terminal.rs"]
mod terminal;
#[path = "together/watchers.rs"]
mod watchers;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::process::Command;

use common::{Agent, Site, agent_program, can_be_run_as_root, names, output_of, wait_for, with};
use serde_json::{Value, json};

/// A site with a simulated device for every target, and its running watcher.
fn simulated(more: &str) -> (Site, common::Watcher) {
    let site = Site::new();
    site.configure(&site.simulated("demo", more));
    let watcher = site.start();
    (site, watcher)
}

/// A site with a device that records each execution and then waits to be released.
fn held() -> (Site, common::Watcher) {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let watcher = site.start();
    (site, watcher)
}

/// The orders that the simulated device received: `order target request_id`.
fn orders(site: &Site) -> Vec<String> {
    let lines = site.lines("state.orders");
    lines.iter().map(|line| line.split(' ').skip(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The name of the only pending request.
fn await_pending(site: &Site) -> String {
    let mut pending = Vec::new();
    wait_for("one pending request", || {
        pending = names(&site.spool.requests);
        pending.retain(|name| !name.starts_with('.'));
        pending.len() == 1
    });
    pending[0].trim_end_matches(".json").to_owned()
}

/// Starts one agent's fence; returns that agent and the request's identity.
fn running(site: &Site, target: &str) -> (Agent, String) {
    let agent = site.agent(&format!("action=off\nplug={target}"));
    wait_for("the execution", || !site.executed().is_empty());
    let id = site.executed()[0].rsplit(' ').next().unwrap().to_owned();
    (agent, id)
}

/// Starts one agent's fence and queues another agent's behind it.
fn queued_behind_a_busy_target(site: &Site, options: &str) -> (Agent, Agent, String) {
    let (first, _) = running(site, "n1");
    let second = site.agent(&format!("action=off\nplug=n1\n{options}"));
    let id = await_pending(site);
    await_requested(site, &id);
    (first, second, id)
}

/// Waits until the agent has written its request into the audit: the request file comes first, and
/// an agent that is killed in between writes nothing.
fn await_requested(site: &Site, id: &str) {
    wait_for("the request in the audit", || {
        site.audit().iter().any(|event| event["request_id"] == id)
    });
}

/// Waits for the end of a request in the audit whose agent could not write it.
fn await_end_by_the_watcher(site: &Site, id: &str, status: &str, result: &str) {
    let mut events = Vec::new();
    wait_for("an end in the audit", || {
        events = site.audit();
        events.retain(|event| event["request_id"] == id);
        events.len() == 2
    });
    assert_eq!(events[0]["status"], "requested");
    assert_eq!((&events[1]["status"], &events[1]["result"]), (&json!(status), &json!(result)));
    assert!(events[1]["details"].as_str().unwrap().contains("told by fence-watcher"), "{events:?}");
    for member in ["target_node", "action", "pacemaker_action", "recorder_node"] {
        assert_eq!(events[0][member], events[1][member], "{member}");
    }
}

/// Waits for the end of a request whose agent recorded that it gave up, and returns the end.
fn await_the_one_end(site: &Site, id: &str, status: &str, result: &str) -> Value {
    let mut events = Vec::new();
    wait_for("an end in the audit", || {
        events = site.audit();
        events.retain(|event| event["request_id"] == id);
        events.len() == 3
    });
    let statuses: Vec<_> = events.iter().map(|event| event["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["requested", "unknown", status]);
    assert_eq!(events[2]["result"], result);
    events.remove(2)
}

/// The only fence of `node`, as `fence-watcher history` shows it.
fn history(site: &Site, node: &str) -> Value {
    let output = output_of(&mut site.watcher_command(&["history", "--json", "--node", node]));
    let mut fences: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(fences.len(), 1, "{fences:?}");
    fences.remove(0)
}

/// The audit's last event.
fn last_event(site: &Site) -> Value {
    site.audit().pop().unwrap()
}

#[test]
fn each_action_succeeds_in_silence_and_leaves_its_trace_in_all_three_logs() {
    let (site, _watcher) = simulated("");
    for (action, orders_of_it, said) in [
        ("off", &["off"][..], "Success: Powered OFF\n"),
        ("on", &["on"], "Success: Powered ON\n"),
        ("reboot", &["off", "on"], "Success: Powered OFF, the power-on follows\n"),
    ] {
        let before = orders(&site).len();

        let ended = site.agent(&format!("action={action}\nplug=n1")).wait();

        ended.assert_success();
        assert_eq!(ended.stdout, said);
        if action == "reboot" {
            wait_for("what became of the power-on", || last_event(&site)["on_result"] == "on");
        }
        let events = site.audit();
        let of_agent: Vec<&Value> =
            events.iter().filter(|event| event["on_result"].is_null()).collect();
        let [.., asked, done] = of_agent[..] else { panic!("{events:?}") };
        let id = asked["request_id"].as_str().unwrap();
        for (event, status) in [(asked, "requested"), (done, "completed")] {
            assert_eq!((&event["status"], &event["action"]), (&json!(status), &json!(action)));
            assert_eq!((&event["target_node"], &event["request_id"]), (&json!("n1"), &json!(id)));
            assert_eq!(event["pacemaker_action"], action);
        }
        assert_eq!(done["result"], "success");
        let expected: Vec<String> =
            orders_of_it.iter().map(|order| format!("{order} n1 {id}")).collect();
        assert_eq!(orders(&site)[before..], expected);
        let answer = site.spool.await_result(id, "success");
        assert_eq!((&answer["verified"], &answer["action"]), (&json!(true), &json!(action)));
        for log in ["log/fence-events.log", "log/fence-events-readable.log"] {
            wait_for(log, || site.lines(log).len() == events.len());
            let lines = site.lines(log);
            assert!(lines.iter().all(|line| line.contains("n1")), "{lines:?}");
        }
        let readable = site.lines("log/fence-events-readable.log");
        let words = format!("ACTION={action} TARGET=n1 GFS2=[] STATUS=completed DETAILS=");
        assert!(readable.iter().rev().take(2).any(|line| line.contains(&words)), "{readable:?}");
    }
    site.spool.await_quiet();
}

/// The example of the README and of the manual, as `dlm_controld` turns it into an agent's standard
/// input: the node, then the words of the device's line and of the node's.
#[test]
fn dlm_fences_with_the_configuration_that_the_documents_show() {
    for (document, fence) in
        [("README.md", "<!-- tested: dlm -->"), ("man/fence_gfs2_recorder.8.md", "dlm.conf")]
    {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = fs::read_to_string(root.join(document)).unwrap();
        let (_, text) = text.split_once(fence).unwrap();
        let block = text.split("```").nth(1).unwrap();
        let words = |keyword: &str| {
            let lines = block.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.filter(|words| words.first() == Some(&keyword)).collect::<Vec<_>>()
        };
        let [device] = &words("device")[..] else { panic!("{block}") };
        assert_eq!(device[2], "/usr/sbin/fence_gfs2_recorder");
        let nodes = words("connect");
        assert!(!nodes.is_empty() && nodes.iter().all(|words| words[1] == device[1]), "{block}");

        let (site, _watcher) = simulated("");
        for words in nodes {
            let (node, port) = (words[2], words[3].strip_prefix("port=").unwrap());
            let options: Vec<_> = [node, "fail_time=1790000000"]
                .into_iter()
                .chain(device[3..].iter().copied())
                .chain(words[3..].iter().copied())
                .collect();
            site.agent(&options.join("\n")).wait().assert_success();
            let orders = orders(&site);
            assert!(orders.iter().any(|order| order.starts_with(&format!("off {port} "))));
        }
    }
}

#[test]
fn each_failure_of_a_device_fails_the_agent_with_one_line() {
    let (site, _watcher) = simulated("timeout = '1s'");
    for (behaviour, result) in [
        ("unreachable", "unreachable"),
        ("unacknowledged", "unacknowledged"),
        ("device-failure", "device-failure"),
        ("lie", "unacknowledged"),
        ("hang", "unacknowledged"),
    ] {
        fs::write(site.path("state.behave"), behaviour).unwrap();
        for action in ["off", "reboot"] {
            let before = orders(&site).len();

            let ended = site.agent(&format!("action={action}\nplug=n1")).wait();

            ended.assert_failure(&["'n1'", action, result]);
            assert_eq!(orders(&site).len(), before + 1, "{behaviour}");
            let event = last_event(&site);
            assert_eq!((&event["status"], &event["result"]), (&json!("failed"), &json!(result)));
            let id = event["request_id"].as_str().unwrap();
            site.spool.await_result(id, result);
        }
    }
    fs::remove_file(site.path("state.behave")).unwrap();
    site.agent("action=off\nplug=n1").wait().assert_success();
}

#[test]
fn a_reboot_succeeds_when_the_target_is_off_and_cannot_be_switched_on() {
    let site = Site::new();
    let off = site.path("off");
    let program = |name: &str, script: String| site.program(name, &script);
    let device = format!(
        "[[device]]\nname = 'power'\ntype = 'command'\ntargets = '*'\ntimeout = '1s'\n\
         off = ['{}']\non = ['{}']\nstatus = ['{}']\n",
        program("o", format!("touch '{}'", off.display())),
        program("i", "exit 1".to_owned()),
        program("s", format!("[ ! -e '{}' ] || exit 2", off.display())),
    );
    site.configure(&device);
    let _watcher = site.start();

    site.agent("action=reboot\nplug=n1").wait().assert_success();

    assert!(off.exists());
}

#[test]
fn a_request_that_no_device_covers_fails_at_once() {
    let site = Site::new();
    site.configure(&site.recorder("power", "n[1-9]", ""));
    let _watcher = site.start();

    site.agent("action=off\nplug=stranger").wait().assert_failure(&["'stranger'", "rejected"]);
    site.agent("action=off\nplug=n1\ndevice=nowhere").wait().assert_failure(&["'n1'", "rejected"]);

    assert_eq!(site.executed(), [""; 0]);
}

#[test]
fn the_device_that_the_cluster_names_is_used() {
    let site = Site::new();
    site.configure(&(site.recorder("first", "*", "") + &site.recorder("second", "*", "")));
    let _watcher = site.start();

    for (options, device) in [("", "first"), ("device=second", "second"), ("device=first", "first")]
    {
        site.agent(&format!("action=off\nplug=n1\n{options}")).wait().assert_success();
        let id = last_event(&site)["request_id"].as_str().unwrap().to_owned();
        assert_eq!(site.spool.await_answer(&id)["device"], device);
    }
}

#[test]
fn an_answer_by_another_of_its_names_counts_and_one_for_another_request_does_not() {
    let site = Site::new();
    for directory in [&site.spool.requests, &site.spool.responses] {
        fs::DirBuilder::new().mode(0o700).create(directory).unwrap();
    }
    for (other, is_success) in [(json!({}), true), (json!({"request_id": common::new_id()}), false)]
    {
        let agent = site.agent("action=off\nplug=n1\nresponder=script");
        let id = await_pending(&site);
        let answer = json!({
            "request_id": id, "success": true, "action_performed": "off", "target_node": "n1"
        });
        let answer = with(answer, other).to_string();
        let name = site.spool.responses.join(format!("n1-{id}.json"));
        fs::write(site.spool.responses.join(".new"), answer).unwrap();
        fs::rename(site.spool.responses.join(".new"), &name).unwrap();
        fs::remove_file(site.spool.request(&id)).unwrap();

        let ended = agent.wait();

        if is_success {
            ended.assert_success();
        } else {
            ended.assert_failure(&["'n1'", "for another request"]);
        }
        assert!(name.exists(), "the agent removed an answer");
    }
}

#[test]
fn this_watcher_works_with_the_options_for_other_responders() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();

    site.agent("action=off\nplug=n1\nresponder=script").wait().assert_success();
    site.agent("action=off\nplug=n2\nresponder=nnf").wait().assert_success();
    let id = last_event(&site)["request_id"].as_str().unwrap().to_owned();
    site.spool.await_result(&format!("n2-{id}"), "success");
    site.agent("action=on\nplug=n2\nresponder=nnf").wait().assert_success();

    assert_eq!(site.executed().len(), 2, "that responder fences on every file");
}

/// Each fence would happen, and be reported as failed.
#[test]
fn different_directories_of_answers_are_reported_before_anything_is_requested() {
    let (site, _watcher) = simulated("");
    let private = |name: &str| {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().mode(0o700).create(site.path(name)).unwrap();
        site.path(name).display().to_string()
    };
    let other = private("elsewhere");
    for responder in ["fence-watcher", "script", "nnf"] {
        for action in ["monitor", "off", "reboot", "on"] {
            if (responder, action) == ("nnf", "on") {
                continue;
            }
            let options =
                format!("action={action}\nplug=n1\nresponder={responder}\nresponse_dir={other}");
            let ended = site.agent(&options).wait();
            assert_eq!(ended.code, Some(1), "{options}: {ended:?}");
            let (served, ours) = (site.spool.responses.display().to_string(), &other);
            assert!(ended.stderr.contains(&served) && ended.stderr.contains(ours), "{ended:?}");
        }
    }
    assert_eq!(orders(&site), [""; 0]);
    assert!(names(&site.spool.requests).iter().all(|name| name.starts_with('.')));

    std::os::unix::fs::symlink(&site.spool.responses, site.path("link")).unwrap();
    let link = site.path("link").display().to_string();
    site.agent(&format!("action=monitor\nresponse_dir={link}")).wait().assert_success();
    site.agent(&format!("action=off\nplug=n1\nresponse_dir={link}")).wait().assert_success();

    let text = fs::read_to_string(site.path("w.toml")).unwrap();
    let status = |response_dir: &str| {
        let setting = format!("response_dir = '{}'", site.spool.responses.display());
        let changed = text.replace(&setting, &format!("response_dir = '{response_dir}'"));
        assert_ne!(changed, text);
        fs::write(site.path("w.toml"), changed).unwrap();
        common::output_of(&mut site.watcher_command(&["status"]))
    };
    let refused = status(&other);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains(&other));
    assert_eq!(status(&link).status.code(), Some(0));
}

#[test]
fn an_agent_that_cannot_write_its_request_fails() {
    if !can_be_run_as_root("an_agent_that_cannot_write_its_request_fails") {
        return;
    }
    let site = Site::new();
    for directory in [&site.spool.requests, &site.spool.responses] {
        fs::DirBuilder::new().mode(0o700).create(directory).unwrap();
    }
    let fill = "dd if=/dev/zero of=\"$1/.ballast\" bs=4k 2>/dev/null";
    for (options, spoil, why) in
        [("size=64k", fill, "No space left"), ("ro", "true", "Read-only file system")]
    {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs -o mode=0700,{options} tmpfs \"$1\" || exit 9; {spoil}; exec \"$0\""
            ))
            .arg(agent_program())
            .arg(&site.spool.requests);

        let ended = site.agent_as(command, "action=off\nplug=n1").wait();

        ended.assert_failure(&["'n1'", why, site.spool.requests.to_str().unwrap()]);
        assert_eq!(last_event(&site)["status"], "failed");
    }
}
