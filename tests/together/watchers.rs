//! Watchers that end, start late or start twice, and many agents at once.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{await_pending, held, orders, running, simulated};
use crate::common::{Agent, Ended, SERVICE, Site, output_of};

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
    ended.iter().for_each(Ended::assert_success);
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
