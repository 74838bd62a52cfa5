//! The real agent and the real watcher: what becomes of a fence whose one half, or other half, is
//! slow, fails, is killed, or comes back.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::process::Command;

use common::{
    Agent, SERVICE, Site, agent_program, can_be_run_as_root, is_alive, names, output_of, wait_for,
    with,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A site with a simulated device for every target, and its running watcher.
fn simulated(more: &str) -> (Site, common::Watcher) {
    let site = Site::new();
    site.configure(&site.simulated("demo", more));
    let watcher = site.start();
    (site, watcher)
}

/// A site with a device that notes each execution and then waits to be released.
fn held() -> (Site, common::Watcher) {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let watcher = site.start();
    (site, watcher)
}

/// The orders that the simulated device got: `order target request_id`.
fn orders(site: &Site) -> Vec<String> {
    let lines = site.lines("state.orders");
    lines.iter().map(|line| line.split(' ').skip(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The name of the one request that is pending.
fn await_pending(site: &Site) -> String {
    let mut pending = Vec::new();
    wait_for("one pending request", || {
        pending = names(&site.spool.requests);
        pending.retain(|name| !name.starts_with('.'));
        pending.len() == 1
    });
    pending[0].trim_end_matches(".json").to_owned()
}

/// Has one agent's fence executed, and gives that agent and the request's identity.
fn running(site: &Site, target: &str) -> (Agent, String) {
    let agent = site.agent(&format!("action=off\nplug={target}"));
    wait_for("the execution", || !site.executed().is_empty());
    let id = site.executed()[0].rsplit(' ').next().unwrap().to_owned();
    (agent, id)
}

/// Has one agent's fence executed and another's queued behind it.
fn queued_behind_a_busy_target(site: &Site, options: &str) -> (Agent, Agent, String) {
    let (first, _) = running(site, "n1");
    let second = site.agent(&format!("action=off\nplug=n1\n{options}"));
    let id = await_pending(site);
    await_requested(site, &id);
    (first, second, id)
}

/// Waits until the agent has written down that it asked: the request comes first, and an agent that is killed
/// in between writes nothing.
fn await_requested(site: &Site, id: &str) {
    wait_for("the request in the audit", || {
        site.audit().iter().any(|event| event["request_id"] == id)
    });
}

/// Waits for the end of a request in the audit that its agent could not write.
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

/// Waits for the end of a request whose agent noted that it gave up, and gives it.
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

/// The one fence of `node`, as `fence-watcher history` has it.
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
        ("reboot", &["off", "on"], "Success: Rebooted\n"),
    ] {
        let before = orders(&site).len();

        let ended = site.agent(&format!("action={action}\nplug=n1")).wait();

        ended.assert_success();
        assert_eq!(ended.stdout, said);
        let events = site.audit();
        let [.., asked, done] = &events[..] else { panic!("{events:?}") };
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
            let lines = site.lines(log);
            assert_eq!(lines.len(), events.len(), "{log}");
            assert!(lines.iter().all(|line| line.contains("n1")), "{lines:?}");
        }
        let readable = site.lines("log/fence-events-readable.log").pop().unwrap();
        let words = format!("ACTION={action} TARGET=n1 GFS2=[] STATUS=completed DETAILS=");
        assert!(readable.contains(&words), "{readable}");
    }
    site.spool.await_quiet();
}

/// A device with a fixed plug would be green, and each fence refused.
#[test]
fn a_monitor_with_a_plug_that_no_device_covers_fails_and_names_it() {
    let site = Site::new();
    let mute = site.recorder("mute", "*", "").replace("'*'", "'m1'");
    let simulated = site.simulated("sim", "").replace("'*'", "'n[1-2]'");
    site.configure(&format!("{simulated}{mute}"));
    let _watcher = site.start();

    for (lines, target) in [
        ("plug=n9", "'n9'"),
        ("port=n9", "'n9'"),
        ("plug=n1\ndevice=mute", "'n1'"),
        ("plug=m1\ndevice=sim", "'m1'"),
        ("plug=n1\ndevice=nobody", "nobody"),
    ] {
        site.agent(&format!("action=monitor\n{lines}")).wait().assert_failure(&[target]);
        site.agent(&format!("action=off\nnodename=n1\n{lines}")).wait().assert_failure(&[]);
    }
    // One that cannot be asked for its state is fenced as well as any.
    for lines in ["", "plug=n2", "port=n1", "plug=m1", "plug=n1\ndevice=sim", "device=mute"] {
        site.agent(&format!("action=monitor\n{lines}")).wait().assert_success();
    }
}

/// The example of README and of the manual, as `dlm_controld` turns it into an agent's standard input:
/// the node, then the words of the device's line and of the node's.
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
fn a_request_that_nobody_covers_fails_at_once() {
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
fn nothing_starts_for_an_agent_that_was_killed_while_its_request_waited() {
    let (site, _watcher) = held();
    let (first, second, id) = queued_behind_a_busy_target(&site, "");

    second.signal(Signal::SIGKILL);
    assert_eq!(second.wait().code, None);
    assert!(site.spool.request(&id).exists(), "a killed agent withdraws nothing");
    site.release();

    first.wait().assert_success();
    site.spool.await_result(&id, "withdrawn");
    site.spool.await_quiet();
    assert_eq!(site.executions_of(&id), 0);
    assert_eq!(site.executed().len(), 1);
    await_end_by_the_watcher(&site, &id, "failed", "withdrawn");
}

#[test]
fn a_device_that_was_not_reached_is_tried_again_for_an_agent_that_waits() {
    let (site, _watcher) = simulated("attempts = 10");
    fs::write(site.path("state.behave"), "unreachable").unwrap();
    let agent = site.agent("action=off\nplug=n3");
    wait_for("the first order", || !orders(&site).is_empty());
    fs::write(site.path("state.behave"), "none").unwrap();

    agent.wait().assert_success();

    assert!(orders(&site).len() >= 2, "{:?}", orders(&site));
}

#[test]
fn a_device_that_was_not_reached_is_not_tried_again_for_an_agent_that_was_killed() {
    let (site, _watcher) = simulated("attempts = 10");
    fs::write(site.path("state.behave"), "unreachable").unwrap();
    let agent = site.agent("action=off\nplug=n3");
    wait_for("the first order", || !orders(&site).is_empty());
    let id = orders(&site)[0].rsplit(' ').next().unwrap().to_owned();

    drop(agent);
    let before = orders(&site).len();

    let answer = site.spool.await_result(&id, "withdrawn");
    assert!(answer["message"].as_str().unwrap().contains("not reached"), "{answer}");
    // One may have been on its way.
    assert!(orders(&site).len() <= before + 1, "{:?}", orders(&site));
}

#[test]
fn an_agent_that_is_told_to_stop_withdraws_its_request() {
    for (signal, name) in
        [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGINT, "SIGINT"), (Signal::SIGHUP, "SIGHUP")]
    {
        let (site, _watcher) = held();
        let (first, second, id) = queued_behind_a_busy_target(&site, "");

        second.signal(signal);

        second.wait().assert_failure(&["'n1'", name, "withdrawn"]);
        assert!(!site.spool.request(&id).exists());
        site.release();
        first.wait().assert_success();
        let results: Vec<Value> = site.audit().iter().map(|e| e["result"].clone()).collect();
        assert!(results.contains(&json!("withdrawn")), "{results:?}");
        assert_eq!((site.executions_of(&id), site.executed().len()), (0, 1));
        assert_eq!(site.spool.answer(&id), None);
    }
}

#[test]
fn an_agent_whose_time_is_over_withdraws_its_request() {
    let (site, _watcher) = held();
    let (first, second, id) = queued_behind_a_busy_target(&site, "fence_timeout=2");

    let ended = second.wait();

    site.release();
    first.wait().assert_success();
    // The watcher may have been a moment earlier: the deadline lies before the agent's end.
    match site.spool.answer(&id) {
        None => ended.assert_failure(&["'n1'", "timed out", "withdrawn"]),
        Some(answer) => {
            assert_eq!(answer["result"], "expired");
            ended.assert_failure(&["'n1'", "expired"]);
        }
    }
    assert!(!site.spool.request(&id).exists());
    assert_eq!((site.executions_of(&id), site.executed().len()), (0, 1));
}

#[test]
fn an_agent_without_a_watcher_times_out_and_leaves_nothing() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    for directory in [&site.spool.requests, &site.spool.responses] {
        fs::DirBuilder::new().mode(0o700).create(directory).unwrap();
    }

    let ended = site.agent("action=off\nplug=n1\nfence_timeout=1").wait();

    ended.assert_failure(&["'n1'", "timed out", "no fence-watcher is running"]);
    assert_eq!(names(&site.spool.requests), [""; 0]);
    let _watcher = site.start();
    site.spool.await_quiet();
    assert_eq!(site.executed(), [""; 0]);
}

#[test]
fn an_agent_gives_up_on_a_dead_watcher_before_its_time_is_over() {
    let (site, watcher) = held();
    watcher.stop();

    let ended = site.agent("action=off\nplug=n1\nfence_timeout=86400").wait();

    ended.assert_failure(&["'n1'", "has ended", "systemctl start fence-watcher"]);
    assert!(names(&site.spool.requests).iter().all(|name| name.starts_with('.')));
}

#[test]
fn an_agent_that_is_stopped_while_its_request_is_executed_says_that_the_outcome_is_unknown() {
    let (site, _watcher) = held();
    let (agent, id) = running(&site, "n1");

    agent.signal(Signal::SIGTERM);

    agent.wait().assert_failure(&["'n1'", "SIGTERM", "unknown"]);
    let note = last_event(&site);
    assert_eq!((&note["status"], &note["result"]), (&json!("unknown"), &json!("unknown")));
    assert_eq!(history(&site, "n1")["result"], "running");
    site.release();
    site.spool.await_result(&id, "success");
    assert_eq!(site.executions_of(&id), 1);
    await_the_one_end(&site, &id, "completed", "success");
    assert_eq!(history(&site, "n1")["result"], "success");
}

#[test]
fn an_agent_that_finds_a_strangers_answer_leaves_the_end_to_the_watcher_that_is_at_work() {
    let (site, _watcher) = held();
    let (agent, id) = running(&site, "n1");
    let strange = json!({"request_id": "another", "success": true, "target_node": "n1"});
    let answer = site.spool.responses.join(format!("n1-{id}.json"));
    fs::write(&answer, strange.to_string()).unwrap();
    fs::set_permissions(answer, PermissionsExt::from_mode(0o600)).unwrap();

    agent.wait().assert_failure(&["'n1'", "another request"]);
    site.release();

    site.spool.await_result(&id, "success");
    await_the_one_end(&site, &id, "completed", "success");
}

#[test]
fn an_agent_that_gives_up_on_a_dead_watcher_leaves_the_end_to_the_next_one() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let watcher = site.start();
    let (agent, id) = running(&site, "n1");

    watcher.crash();
    agent.wait().assert_failure(&["'n1'", "has ended", "unknown"]);
    assert_eq!(history(&site, "n1")["result"], "unknown", "nothing runs");
    let _next = site.start();

    site.spool.await_result(&id, "interrupted");
    let end = await_the_one_end(&site, &id, "failed", "interrupted");
    let (noted, whole) = (&site.audit()[1]["duration_ms"], &end["duration_ms"]);
    // The agent counts from its start, the watcher from the request.
    assert!(whole.as_u64().unwrap() + 2_000 > noted.as_u64().unwrap(), "{noted} {whole}");
    assert!(whole.as_u64().unwrap() >= 5_000, "the agent waited so long: {whole}");
    assert_eq!(history(&site, "n1")["result"], "interrupted");
}

#[test]
fn a_fence_that_waits_or_runs_is_told_apart_from_one_whose_end_was_lost() {
    let (site, watcher) = held();
    let (first, second, _) = queued_behind_a_busy_target(&site, "");
    let rows = || {
        let output = output_of(&mut site.watcher_command(&["history", "--json"]));
        let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        rows.iter().map(|row| row["result"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    wait_for("both in the audit", || site.audit().len() == 2);
    assert_eq!(rows(), ["running", "waiting"]);

    // Both agents and the watcher are killed: nobody can write an end, and nothing runs.
    watcher.crash();
    for agent in [first, second] {
        agent.signal(Signal::SIGKILL);
        agent.wait();
    }
    assert_eq!(rows(), ["no end recorded", "no end recorded"]);
}

#[test]
fn an_execution_goes_on_when_its_agent_is_killed() {
    let (site, _watcher) = held();
    let (agent, id) = running(&site, "n1");
    await_requested(&site, &id);

    agent.signal(Signal::SIGKILL);
    agent.wait();
    site.release();

    site.spool.await_result(&id, "success");
    assert_eq!(site.executions_of(&id), 1);
    await_end_by_the_watcher(&site, &id, "completed", "success");
}

#[test]
fn a_watcher_that_is_killed_in_mid_execution_and_started_again_fails_the_waiting_agent() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.endless("setsid")));
    let watcher = site.start();
    let (agent, id) = running(&site, "n1");
    wait_for("all of it to run", || site.lines("pids").len() == 3);

    watcher.crash();
    let pids = site.lines("pids");
    wait_for("the end of all that ran", || !pids.iter().any(|pid| is_alive(pid)));
    let _next = site.start();

    agent.wait().assert_failure(&["'n1'", "interrupted", "unknown"]);
    site.spool.await_result(&id, "interrupted");
    site.spool.await_quiet();
    assert_eq!(site.executed().len(), 1);
    assert_eq!(last_event(&site)["result"], "interrupted");
}

#[test]
fn a_watcher_that_is_killed_while_a_request_waits_serves_it_after_its_return() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let (site, mut watcher) = held();
        let (first, _) = running(&site, "n1");
        let second = site.agent("action=off\nplug=n2");
        let id = await_pending(&site);

        watcher.signal(signal);
        if signal == Signal::SIGTERM {
            watcher.await_log("what runs is finished");
            site.release();
        }
        watcher.wait();
        site.release();
        let _next = site.start();

        second.wait().assert_success();
        let first = first.wait();
        if signal == Signal::SIGTERM {
            first.assert_success();
        } else {
            first.assert_failure(&["'n1'", "interrupted"]);
        }
        assert_eq!(site.executions_of(&id), 1);
        assert_eq!(site.executed().len(), 2);
    }
}

#[test]
fn a_watcher_that_comes_after_the_request_serves_it() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    for directory in [&site.spool.requests, &site.spool.responses] {
        fs::DirBuilder::new().mode(0o700).create(directory).unwrap();
    }
    let agent = site.agent("action=off\nplug=n1");
    let id = await_pending(&site);

    let _watcher = site.start();

    agent.wait().assert_success();
    assert_eq!(site.executed(), [format!("off n1 {id}")]);
}

#[test]
fn of_two_watchers_on_one_spool_one_serves_and_the_other_can_take_over() {
    let (site, first) = held();
    let (agent, id) = running(&site, "n1");
    for _ in 0..3 {
        let second = output_of(&mut site.watcher_command(SERVICE));
        assert_eq!(second.status.code(), Some(1), "{second:?}");
    }
    site.release();
    agent.wait().assert_success();
    assert_eq!(site.executions_of(&id), 1);

    first.crash();
    let _second = site.start();

    site.agent("action=off\nplug=n1").wait().assert_success();
    assert_eq!(site.executed().len(), 2);
}

#[test]
fn watchers_that_race_for_one_spool_execute_each_request_once() {
    let site = Site::new();
    site.configure(&(site.recorder("power", "*", "") + "max_concurrent = 8\n"));
    site.start().stop();
    let agents: Vec<Agent> =
        (0..20).map(|number| site.agent(&format!("action=off\nplug=n{number}"))).collect();

    let mut watchers: Vec<_> = (0..4)
        .map(|_| {
            let mut command = site.watcher_command(SERVICE);
            command.stderr(File::create("/dev/null").unwrap()).spawn().unwrap()
        })
        .collect();

    let ended: Vec<_> = agents.into_iter().map(Agent::wait).collect();
    let losers: Vec<_> =
        watchers.iter_mut().filter_map(|watcher| watcher.try_wait().unwrap()).collect();
    for watcher in &mut watchers {
        let _ = watcher.kill();
        let _ = watcher.wait();
    }
    ended.iter().for_each(common::Ended::assert_success);
    assert!(losers.iter().all(|status| status.code() == Some(1)), "{losers:?}");
    assert_eq!(site.executed().len(), 20);
}

#[test]
fn two_hundred_agents_at_once_all_succeed_and_each_is_executed_once() {
    let (site, _watcher) = simulated("max_concurrent = 200\ndelay = '1s'");

    let agents: Vec<Agent> =
        (0..200).map(|number| site.agent(&format!("action=off\nplug=n{number}"))).collect();

    for agent in agents {
        agent.wait().assert_success();
    }
    let mut targets = orders(&site);
    assert_eq!(targets.len(), 200);
    for order in &mut targets {
        order.truncate(order.rfind(' ').unwrap());
    }
    targets.sort();
    targets.dedup();
    assert_eq!(targets.len(), 200, "a target was fenced twice");
    let events = site.audit();
    assert_eq!(events.len(), 400, "a line of the audit was lost");
    assert_eq!(events.iter().filter(|event| event["status"] == "completed").count(), 200);
    site.spool.await_quiet();
}

#[test]
fn answers_are_found_among_thousands_of_other_files() {
    let (site, _watcher) = simulated("");
    for number in 0..5_000 {
        let answer = json!({"request_id": number.to_string(), "success": true});
        fs::write(site.spool.responses.join(format!("old-{number}.json")), answer.to_string())
            .unwrap();
        fs::write(site.spool.requests.join(format!(".other-{number}")), "").unwrap();
    }

    for action in ["off", "on", "reboot"] {
        site.agent(&format!("action={action}\nplug=n1")).wait().assert_success();
    }

    assert_eq!(orders(&site).len(), 4);
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
fn the_other_responders_ways_work_with_this_watcher() {
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

#[test]
fn questions_are_answered_while_a_fence_runs_and_start_nothing() {
    let site = Site::new();
    let slow = site.recorder("slow", "s[1-2]", &site.held());
    site.configure(&(slow + &site.simulated("demo", "").replace("'*'", "'n[1-2]'")));
    let _watcher = site.start();
    let (agent, _) = running(&site, "s1");

    let ask = |options: &str| site.agent(options).wait();
    ask("action=monitor").assert_success();
    let list = ask("action=list");
    list.assert_success();
    assert_eq!(list.stdout.split_whitespace().count(), 4, "{list:?}");
    assert_eq!(ask("action=status\nplug=n1").code, Some(0));
    assert_eq!(ask("action=status\nplug=s1").code, Some(1), "it cannot be asked");
    ask("action=off\nplug=n1").assert_success();
    assert_eq!(ask("action=status\nplug=n1").code, Some(2));
    fs::write(site.path("state.behave"), "unreachable").unwrap();
    assert_eq!(ask("action=monitor").code, Some(1));
    assert_eq!(ask("action=monitor\ndevice=slow").code, Some(0));

    assert_eq!((site.executed().len(), orders(&site).len()), (1, 1));
    assert_eq!(names(&site.path("queries")), [""; 0]);
    site.release();
    agent.wait().assert_success();
    assert_eq!(site.agent("action=monitor").wait().code, Some(1));
}

#[test]
fn a_monitor_contacts_a_device_whose_order_is_running() {
    let site = Site::new();
    let calls = site.path("calls");
    let monitor = site.program("monitor", &format!("echo x >>'{}'", calls.display()));
    let busy = site.recorder("busy", "*", &site.held());
    site.configure(&busy.replace("type = ", &format!("monitor = ['{monitor}']\ntype = ")));
    let _watcher = site.start();
    let (agent, _) = running(&site, "n1");
    let waiting = site.agent("action=off\nplug=n2");
    await_pending(&site);

    for count in 1..5 {
        site.agent("action=monitor\ndevice=busy").wait().assert_success();
        assert_eq!(site.lines("calls").len(), count, "the device was not asked");
    }

    assert_eq!(site.executed().len(), 1, "the order did not run all the time");
    site.release();
    agent.wait().assert_success();
    waiting.wait().assert_success();
}

#[test]
fn a_list_is_told_apart_from_a_device_that_gives_none_and_from_one_that_is_not_reached() {
    let site = Site::new();
    let device = |name: &str, script: &str| {
        let list = site.program(&format!("list-{name}"), script);
        let device = site.recorder(name, "discover", "");
        device.replace("type = ", &format!("list = ['{list}']\ntype = "))
    };
    let elsewhere = site.recorder("elsewhere", "n9", "") + "nodes = 'n7'\n";
    let devices = device("good", "echo n1; echo n2") + &device("garbled", "echo '../x'");
    site.configure(&(devices + &device("lost", "exit 1") + &elsewhere));
    let _watcher = site.start();
    let code = |query: &str, device: &str| {
        let id = common::new_id();
        let query = json!({
            "query_id": id, "query": query, "device": device,
            "deadline_boottime_ms": common::boot_ms() + 60_000,
        });
        let queries = site.path("queries");
        fs::write(queries.join(".new.tmp"), query.to_string()).unwrap();
        fs::set_permissions(queries.join(".new.tmp"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(queries.join(".new.tmp"), queries.join(format!("{id}.json"))).unwrap();
        let answer = queries.join(format!("{id}.answer"));
        wait_for("an answer", || answer.exists());
        let answer: Value = serde_json::from_slice(&fs::read(answer).unwrap()).unwrap();
        (answer["code"].as_u64().unwrap(), answer["targets"].clone())
    };

    assert_eq!(code("targets", "good"), (0, json!(["n1", "n2"])));
    assert_eq!(code("targets", "lost"), (1, Value::Null));
    assert_eq!(code("targets", "garbled"), (2, Value::Null));
    for name in ["elsewhere", "nosuch"] {
        assert_eq!(code("targets", name).0, 3);
        assert_eq!(code("reachable", name).0, 3);
    }
    assert_eq!(code("reachable", "lost").0, 1);
    assert_eq!(code("reachable", "good").0, 0);
}

#[test]
fn a_device_that_gives_no_list_takes_nothing_away_from_the_list_of_the_others() {
    let site = Site::new();
    let listing = |name: &str, targets: &str, script: &str| {
        let list = site.program(&format!("list-{name}"), script);
        let device = site.recorder(name, targets, "");
        device.replace("type = ", &format!("list = ['{list}']\ntype = "))
    };
    let lost = listing("lost", "discover", "echo no route >&2; exit 1");
    let garbled = listing("garbled", "discover", "echo '../x'");
    let demo = site.simulated("demo", "").replace("'*'", "'n[1-2]'");
    site.configure(&[&*lost, &garbled, &demo, &listing("good", "discover", "echo n3")].concat());
    let watcher = site.start();
    let ask = |options: &str| site.agent(&format!("action={options}")).wait();

    for (options, listed) in [
        ("list", "n1\nn2\nn3\n"),
        ("list\nplug=n1", "n1\n"),
        ("list-status", "n1,,ON\nn2,,ON\nn3,,UNKNOWN\n"),
        ("list\ndevice=good", "n3\n"),
    ] {
        let ended = ask(options);
        ended.assert_success();
        assert_eq!(ended.stdout, listed, "{options}");
    }
    for name in ["lost", "garbled"] {
        watcher.await_log(&format!("fence device '{name}' gave no list of its targets"));
        let ended = ask(&format!("list\ndevice={name}"));
        ended.assert_failure(&[&format!("fence device '{name}'")]);
    }
    // Asked by an older client.
    let id = common::new_id();
    let mut question = common::request(&id, "list", "n1");
    question.as_object_mut().unwrap().remove("target_node");
    site.spool.submit(&id, &question);
    assert_eq!(site.spool.await_result(&id, "success")["message"], "n1\nn2\nn3");
    watcher.stop();

    site.configure(&(lost.clone() + &garbled));
    let watcher = site.start();
    ask("list").assert_failure(&["fence device 'lost'"]);
    watcher.stop();

    // What can fence any target without a list of them makes no list one of all: Pacemaker is to ask
    // for each target.
    site.configure(&(demo + &site.recorder("any", "*", "")));
    let _watcher = site.start();
    ask("list").assert_failure(&["fence device 'any'"]);
}

#[test]
fn a_target_that_a_device_got_after_its_list_is_fenced_and_asked_for_its_state() {
    let site = Site::new();
    let list = site.program("list", "cat \"$(dirname \"$0\")/list.txt\"");
    fs::write(site.path("list.txt"), "n1\n").unwrap();
    let status = site.program("status", "exit 2");
    let device = site.recorder("chassis", "discover", "");
    let keys = format!("list = ['{list}']\nstatus = ['{status}']\ntype = ");
    site.configure(&device.replace("type = ", &keys));
    let _watcher = site.start();
    site.agent("action=off\nplug=n1").wait().assert_success();

    fs::write(site.path("list.txt"), "n1\nn2\nn3\n").unwrap();

    assert_eq!(site.agent("action=status\nplug=n3").wait().code, Some(2));
    site.agent("action=off\nplug=n2").wait().assert_success();
    site.agent("action=off\nplug=n2\ndevice=chassis").wait().assert_success();
    site.agent("action=off\nplug=n4").wait().assert_failure(&["covers this target"]);
}

#[test]
fn the_state_is_asked_of_the_device_that_a_fence_would_use() {
    let site = Site::new();
    let device = |name: &str, target: &str, state: &str| {
        let list = site.program(&format!("list-{name}"), &format!("echo {target}"));
        let status = site.program(&format!("status-{name}"), state);
        site.recorder(name, "discover", "")
            .replace("type = ", &format!("list = ['{list}']\nstatus = ['{status}']\ntype = "))
    };
    site.configure(&(device("first", "n1", "exit 0") + &device("second", "n2", "exit 2")));
    let _watcher = site.start();

    // Their lists are asked for when they are needed.
    let status = |target: &str| site.agent(&format!("action=status\nplug={target}")).wait().code;
    assert_eq!(status("n2"), Some(2));
    assert_eq!(status("n1"), Some(0));
    assert_eq!(status("n3"), Some(1), "no device covers it");
}

#[test]
fn a_monitor_fails_when_the_watcher_is_gone() {
    let (site, watcher) = simulated("");
    site.agent("action=monitor").wait().assert_success();

    watcher.crash();

    site.agent("action=monitor").wait().assert_failure(&["fence-watcher"]);
}

/// Each fence would happen, and be reported as failed.
#[test]
fn halves_with_different_directories_of_answers_are_told_so_before_anything_is_requested() {
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
