//! Agents that are killed, stopped or give up: which program writes the end, and its content.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    await_end_by_the_watcher, await_requested, await_the_one_end, held, history, last_event,
    orders, queued_behind_a_busy_target, running, simulated,
};
use crate::common::{Site, is_alive, names, output_of, wait_for};

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
    // An end may have been on its way.
    assert!(orders(&site).len() <= before + 1, "{:?}", orders(&site));
}

#[test]
fn an_agent_that_is_asked_to_stop_withdraws_its_request() {
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
    // The watcher may have been slightly earlier: the deadline is before the agent's end.
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
fn an_agent_that_is_stopped_during_its_execution_reports_an_unknown_outcome() {
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
fn an_agent_that_finds_a_foreign_answer_leaves_the_end_to_the_running_watcher() {
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
fn a_waiting_or_running_fence_differs_from_one_whose_end_was_lost() {
    let (site, watcher) = held();
    let (first, second, _) = queued_behind_a_busy_target(&site, "");
    let rows = || {
        let output = output_of(&mut site.watcher_command(&["history", "--json"]));
        let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        rows.iter().map(|row| row["result"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    wait_for("both in the audit", || site.audit().len() == 2);
    assert_eq!(rows(), ["running", "waiting"]);

    // Both agents and the watcher are killed: no process can write an end, and nothing runs.
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
