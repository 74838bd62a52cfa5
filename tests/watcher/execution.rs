//! Which request starts, when and how often, and what the programs of a device receive.

mod lanes;
mod programs;

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{
    Site, boot_id, boot_ms, instant, new_id, our_request, request, wait_for, with,
};

/// Submits a first-version request under its identity, and returns the identity.
fn submit(site: &Site, action: &str, target: &str) -> String {
    let id = new_id();
    site.spool.submit(&id, &request(&id, action, target));
    id
}

fn await_queued(site: &Site, count: usize) {
    wait_for(&format!("{count} queued requests"), || {
        site.state()["queued"].as_array().unwrap().len() == count
    });
}

#[test]
fn a_request_of_every_kind_of_client_is_executed_once_and_answered_under_its_own_name() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    let (id, held) = (new_id(), new_id());
    let file = site.spool.submit_held(&held, &our_request(&held, "off", "n2"));
    let plain = request(&id, "off", "n1");
    let all_of_ours = json!({
        "deadline": instant(60), "boot_id": boot_id(), "deadline_boottime_ms": boot_ms() + 60_000,
        "device": "power", "held": false, "a member of later": {"x": [1, null]}
    });
    let styles: [(&str, String, Value); 5] = [
        ("the first version's name", id.clone(), plain.clone()),
        ("target and identity", "n1-ID".into(), plain.clone()),
        ("a name of its own", "fence n1, please".into(), plain.clone()),
        ("all members", "ID".into(), with(plain.clone(), all_of_ours)),
        ("with a deadline", "ID".into(), with(plain, json!({"deadline": instant(30)}))),
    ];

    for (what, name, mut request) in styles {
        let id = if name == id { id.clone() } else { new_id() };
        let name = name.replace("ID", &id);
        request["request_id"] = json!(id);
        site.spool.submit(&name, &request);
        let answer = site.spool.await_result(&name, "success");
        assert_eq!(answer["request_id"], json!(id), "{what}");
        assert_eq!((&answer["target_node"], &answer["action"]), (&json!("n1"), &json!("off")));
        assert_eq!(answer["action_performed"], "off", "{what}");
        assert_eq!((&answer["device"], &answer["verified"]), (&json!("power"), &json!(false)));
        assert_eq!(site.executions_of(&id), 1, "{what}");
    }
    site.spool.await_result(&held, "success");
    drop(file);
    assert_eq!(site.executions_of(&held), 1);
    site.spool.await_quiet();
}

#[test]
fn one_death_is_fenced_once_however_many_clients_asked_meanwhile() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let (same, other) = (submit(&site, "reboot", "n1"), submit(&site, "off", "n2"));
    await_queued(&site, 2);
    let last = submit(&site, "off", "n1");
    await_queued(&site, 3);

    site.release();

    for id in [&same, &last] {
        let answer = site.spool.await_result(id, "success");
        assert_eq!(answer["action_performed"], "off");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(&format!("for request {first} ")), "{message}");
    }
    site.spool.await_result(&other, "success");
    let executed = site.executed();
    assert_eq!(executed, [format!("off n1 {first}"), format!("off n2 {other}")]);
    // A client that asks now asks about another death.
    let again = submit(&site, "off", "n1");
    site.spool.await_result(&again, "success");
    assert_eq!(site.executions_of(&again), 1);
    site.spool.await_quiet();
}

#[test]
fn a_cycle_deals_with_the_requests_that_were_seen_before_it_was_ordered() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let other = submit(&site, "off", "n2");
    site.await_execution(&other);
    let first = submit(&site, "reboot", "n1");
    await_queued(&site, 1);
    let (second, off) = (submit(&site, "reboot", "n1"), submit(&site, "off", "n1"));
    await_queued(&site, 3);

    site.release();

    let answer = site.spool.await_result(&second, "success");
    assert_eq!(
        (&answer["action_performed"], &answer["verified"]),
        (&json!("reboot"), &json!(false))
    );
    assert!(answer["message"].as_str().unwrap().contains(&format!("for request {first} ")));
    assert_eq!(site.executions_of(&second), 0);
    // The reset has switched the target on again: a later `off` needs its own execution.
    site.spool.await_result(&off, "success");
    assert_eq!(site.executions_of(&off), 1);
}

#[test]
fn a_request_of_a_client_that_was_killed_is_not_settled_by_another_fence() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let id = new_id();
    let held = site.spool.submit_held(&id, &our_request(&id, "off", "n1"));
    await_queued(&site, 1);
    drop(held);

    site.release();

    site.spool.await_result(&id, "withdrawn");
    assert_eq!(site.executed().len(), 1);
}

#[test]
fn one_machine_is_acted_on_once_at_a_time_whatever_its_name() {
    let site = Site::new();
    let device = site.recorder("power", "*", &site.held());
    site.configure(&format!("{device}max_concurrent = 4\n"));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let (same, other) = (submit(&site, "off", "N1.example.com"), submit(&site, "off", "n2"));

    site.await_execution(&other);
    await_queued(&site, 1);
    assert_eq!(site.executions_of(&same), 0);
    site.release();

    // It is the same death.
    let answer = site.spool.await_result(&same, "success");
    assert_eq!(answer["target_node"], "N1.example.com");
    assert!(answer["message"].as_str().unwrap().contains(&first), "{answer}");
    assert_eq!(site.executions_of(&same), 0);
}

#[test]
fn each_action_is_passed_to_the_device() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();

    for action in ["on", "off", "reboot"] {
        let id = submit(&site, action, "n1");
        let answer = site.spool.await_result(&id, "success");
        assert_eq!(answer["action_performed"], action);
        assert_eq!(site.executed().last(), Some(&format!("{action} n1 {id}")));
    }
}

#[test]
fn a_request_id_under_two_names_is_executed_once() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let watcher = site.start();
    let id = new_id();
    let fence = request(&id, "off", "n1");
    // Queued behind its twin, while the twin runs, and under all names that a client can choose.
    site.spool.submit("mine", &fence);
    site.await_execution(&id);
    for name in [id.as_str(), &format!("n1-{id}"), "another"] {
        site.spool.submit(name, &fence);
        wait_for("the twin to be removed", || !site.spool.request(name).exists());
    }
    site.release();
    site.spool.await_result("mine", "success");

    for _ in 0..2 {
        for name in [id.as_str(), &format!("n1-{id}"), "mine", "a third"] {
            site.spool.submit(name, &fence);
            wait_for("the twin to be removed", || !site.spool.request(name).exists());
        }
    }
    watcher.stop();
    site.spool.submit(&id, &fence);
    let _watcher = site.start();
    site.spool.submit("a fourth", &fence);

    site.spool.await_quiet();
    assert_eq!(site.executions_of(&id), 1);
}

#[test]
fn the_case_of_an_id_makes_no_other_request_and_the_answer_has_the_clients_spelling() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    for (first, second) in
        [("low", "UP"), ("UP", "low"), ("n1-low", "n1-UP"), ("n1-UP", "low"), ("mine", "UP")]
    {
        let lower = new_id();
        let upper = lower.to_ascii_uppercase();
        let named = |name: &str| name.replace("low", &lower).replace("UP", &upper);
        let spelled = |name: &str| if name.contains("UP") { &upper } else { &lower };
        site.spool.submit(&named(first), &request(spelled(first), "off", "n1"));
        let answer = site.spool.await_result(&named(first), "success");
        assert_eq!(answer["request_id"], **spelled(first), "{first}");

        for target in ["n1", "n2"] {
            site.spool.submit(&named(second), &request(spelled(second), "off", target));
            wait_for("the twin to be removed", || !site.spool.request(&named(second)).exists());
        }
        site.spool.await_quiet();
        let both = site.executions_of(&lower) + site.executions_of(&upper);
        assert_eq!(both, 1, "{first}, then {second}");
    }
}

#[test]
fn a_boot_is_the_same_whatever_the_case_of_its_letters() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    let id = new_id();
    let ours = with(our_request(&id, "off", "n1"), json!({"held": false}));
    let upper = json!({"boot_id": boot_id().to_ascii_uppercase()});

    site.spool.submit(&id, &with(ours, upper));

    site.spool.await_result(&id, "success");
}

/// Submits a request under one name and, when it is done, the same identity for another target
/// under another name; returns how often the second was executed. `ID` in a name is replaced by the
/// identity.
fn executions_of_two_targets(first: &str, second: &str) -> usize {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    let id = new_id();
    let (first, second) = (first.replace("ID", &id), second.replace("ID", &id));
    site.spool.submit(&first, &request(&id, "off", "n1"));
    site.spool.await_result(&first, "success");
    site.spool.submit(&second, &request(&id, "off", "n2"));
    wait_for("the second to be removed", || !site.spool.request(&second).exists());
    site.spool.await_quiet();
    site.executions_of(&id)
}

#[test]
fn a_request_id_is_executed_once_even_if_it_comes_again_with_another_target() {
    for first in ["ID", "mine"] {
        for second in ["ID", "n2-ID", "another"].iter().filter(|second| **second != first) {
            assert_eq!(executions_of_two_targets(first, second), 1, "{first}, then {second}");
        }
    }
}

#[test]
fn a_request_id_that_was_named_after_its_target_is_executed_once_whatever_target_comes_next() {
    for second in ["ID", "n2-ID", "another"] {
        assert_eq!(executions_of_two_targets("n1-ID", second), 1, "then {second}");
    }
}

#[test]
fn a_request_that_its_client_takes_back_while_it_waits_is_never_executed() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let second = submit(&site, "off", "n2");
    let third = submit(&site, "off", "n3");
    await_queued(&site, 2);

    fs::remove_file(site.spool.request(&second)).unwrap();
    site.release();

    site.spool.await_result(&third, "success");
    assert_eq!(site.executions_of(&second), 0);
    assert_eq!(site.spool.answer(&second), None, "no client waits for an answer");
}

#[test]
fn a_request_whose_client_dies_while_it_waits_is_answered_withdrawn() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let (dies, lives) = (new_id(), new_id());
    let client = site.spool.submit_held(&dies, &our_request(&dies, "off", "n2"));
    let other = site.spool.submit_held(&lives, &our_request(&lives, "off", "n3"));
    await_queued(&site, 2);

    drop(client);
    site.release();

    site.spool.await_result(&dies, "withdrawn");
    site.spool.await_result(&lives, "success");
    drop(other);
    assert_eq!((site.executions_of(&dies), site.executions_of(&lives)), (0, 1));
}

#[test]
fn a_device_is_used_for_the_targets_that_it_lists() {
    let site = Site::new();
    let calls = site.path("calls");
    let list =
        site.program("list", &format!("echo x >>'{}'; echo d1; echo d2,alias", calls.display()));
    let discovered = site
        .recorder("first", "discover", "")
        .replace("type = ", &format!("list = ['{list}']\ntype = "));
    site.configure(&(discovered + &site.recorder("second", "n[1-9]", "")));
    let watcher = site.start();
    let targets = || site.state()["devices"][0]["targets"].clone();

    for (target, device, list) in [
        ("n1", "second", "discover"),
        ("d1", "first", "discover: d[1-2]"),
        ("d2", "first", "discover: d[1-2]"),
    ] {
        let id = submit(&site, "off", target);
        assert_eq!(site.spool.await_result(&id, "success")["device"], device, "{target}");
        assert_eq!(targets(), list);
    }
    assert_eq!(site.lines("calls").len(), 1, "it is asked once, when a request needs it");
    let id = submit(&site, "off", "unknown");
    site.spool.await_result(&id, "rejected");
    assert_eq!(site.lines("calls").len(), 2, "and once more for a target that its list lacks");

    // The command would make the watcher look at its devices as well.
    watcher.signal(Signal::SIGHUP);
    wait_for("the new configuration", || targets() == "discover");
    let id = submit(&site, "off", "d1");
    site.spool.await_result(&id, "success");
    assert_eq!(site.lines("calls").len(), 3, "and anew after a reload");
}

#[test]
fn of_devices_that_list_their_targets_the_one_that_lists_the_target_is_used() {
    let site = Site::new();
    let listing = |name: &str, script: &str| {
        let list = site.program(&format!("{name}-list"), script);
        let device = site.recorder(name, "discover", "");
        device.replace("type = ", &format!("list = ['{list}']\ntype = "))
    };
    let silent = listing("silent", &site.held());
    site.configure(&(silent + &listing("other", "echo n1")));
    let _watcher = site.start();

    let id = submit(&site, "off", "n1");

    assert_eq!(site.spool.await_result(&id, "success")["device"], "other");
    site.release();
}
