//! The power-on of a reboot, which follows the answer.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{Site, names, new_id, request, wait_for};

fn submit(site: &Site, action: &str, target: &str) -> String {
    let id = new_id();
    site.spool.submit(&id, &request(&id, action, target));
    id
}

/// A command device with power states in files; each program records its questions in `calls`. `on`
/// is the body of the program that switches a target on.
fn device(site: &Site, on: &str) -> String {
    let directory = site.path("");
    let directory = directory.display();
    let program = |action: &str, body: &str| {
        let script = format!("echo \"{action} $1\" >>'{directory}/calls'\n{body}");
        site.program(&format!("power-{action}"), &script)
    };
    let off = program("off", &format!("touch '{directory}/off-'$1"));
    let on = program("on", on);
    let status = program("status", &format!("[ ! -e '{directory}/off-'$1 ] || exit 2"));
    format!(
        "[[device]]\nname = 'power'\ntype = 'command'\ntargets = '*'\nmax_concurrent = 1\n\
         off = ['{off}', '{{target}}']\non = ['{on}', '{{target}}']\n\
         status = ['{status}', '{{target}}']\n"
    )
}

/// The body of a program that switches its target on.
fn brings_back(site: &Site) -> String {
    format!("rm -f '{}/off-'$1", site.path("").display())
}

fn await_call(site: &Site, call: &str) {
    wait_for(call, || site.lines("calls").iter().any(|made| made == call));
}

fn records(site: &Site) -> Vec<String> {
    names(&site.spool.requests.join(".returning"))
}

#[test]
fn a_reboot_is_answered_when_its_target_is_off_and_the_power_on_is_reported() {
    let site = Site::new();
    site.configure(&device(&site, &format!("{}\n{}", site.held(), brings_back(&site))));
    let _watcher = site.start();

    let id = submit(&site, "reboot", "n1");

    let answer = site.spool.await_result(&id, "success");
    assert_eq!((&answer["action"], &answer["action_performed"]), (&json!("reboot"), &json!("off")));
    assert_eq!(answer["verified"], true);
    assert!(answer["message"].as_str().unwrap().contains("the power-on follows"), "{answer}");
    await_call(&site, "on n1");
    assert!(site.path("off-n1").exists());
    let state = site.state();
    assert_eq!(state["returning"][0]["request_id"], json!(id), "{state}");
    assert_eq!(state["devices"][0]["last"]["on_result"], Value::Null);
    assert_eq!(records(&site), [format!("{id}.json")]);

    site.release();

    let (result, details) = site.await_on_result(&id);
    assert_eq!(result, "on");
    assert!(details.contains("the device shows it"), "{details}");
    wait_for("the end of the record", || records(&site).is_empty());
    let state = site.state();
    assert_eq!(state["returning"], json!([]));
    let last = state["devices"][0]["last"]["on_result"].as_str().unwrap().to_owned();
    assert!(last.starts_with("on: "), "{last}");
    assert_eq!(site.lines("calls"), ["off n1", "status n1", "on n1", "status n1"]);
}

#[test]
fn a_fence_waits_for_the_order_that_brings_its_target_back_and_for_no_confirmation() {
    for target in ["n1", "n2"] {
        let site = Site::new();
        // The order is acknowledged, but the target stays off: the confirmation uses its whole
        // time.
        site.configure(&(device(&site, &site.held()) + "timeout = '1h'\n"));
        let _watcher = site.start();
        let first = submit(&site, "reboot", "n1");
        site.spool.await_result(&first, "success");
        await_call(&site, "on n1");
        let second = submit(&site, "off", target);
        wait_for("the second to be queued", || site.state()["queued"][0]["request_id"] == *second);
        assert_eq!(site.lines("calls").len(), 3, "it is not begun beside the power-on");

        site.release();

        site.spool.await_result(&second, "success");
        let (result, details) = site.await_on_result(&first);
        assert_eq!(result, "not confirmed");
        assert!(details.contains(&format!("off of '{target}' waits")), "{details}");
        let calls = site.lines("calls");
        assert_eq!(calls.iter().filter(|call| *call == "on n1").count(), 1, "{calls:?}");
        wait_for("the end of the record", || records(&site).is_empty());
    }
}

#[test]
fn a_power_on_that_fails_is_reported_and_not_tried_again() {
    let site = Site::new();
    site.configure(&(device(&site, "exit 1") + "timeout = '1s'\n"));
    let watcher = site.start();

    let id = submit(&site, "reboot", "n1");

    site.spool.await_result(&id, "success");
    let (result, details) = site.await_on_result(&id);
    assert_eq!(result, "not confirmed");
    assert!(details.contains("exited with 1") && details.contains("showed off"), "{details}");
    watcher.await_log(&format!("returned: request={id} target=n1 not confirmed: "));
    let calls = site.lines("calls");
    assert_eq!(calls.iter().filter(|call| *call == "on n1").count(), 1, "{calls:?}");
}

#[test]
fn a_fence_waits_while_a_power_on_without_an_acknowledgement_may_still_be_carried_out() {
    let site = Site::new();
    let fails = format!("{}\nexit 1", site.held());
    site.configure(&(device(&site, &fails) + "timeout = '2s'\n"));
    let _watcher = site.start();
    let first = submit(&site, "reboot", "n1");
    site.spool.await_result(&first, "success");
    await_call(&site, "on n1");
    let second = submit(&site, "off", "n1");
    wait_for("the second to be queued", || site.state()["queued"][0]["request_id"] == *second);

    site.release();

    site.spool.await_result(&second, "success");
    // Not because of the fence: the device was asked until the doubt was over.
    let (result, details) = site.await_on_result(&first);
    assert_eq!(result, "not confirmed");
    assert!(details.contains("not acknowledged, and not confirmed"), "{details}");
}

#[test]
fn a_stopping_watcher_orders_no_power_on() {
    let site = Site::new();
    let off = format!("{}\ntouch '{}/off-'$1", site.held(), site.path("").display());
    let configuration = device(&site, &brings_back(&site));
    let script = format!("echo \"off $1\" >>'{}/calls'\n{off}", site.path("").display());
    site.program("power-off", &script);
    site.configure(&configuration);
    let mut watcher = site.start();
    let id = submit(&site, "reboot", "n1");
    await_call(&site, "off n1");
    watcher.signal(Signal::SIGTERM);
    watcher.await_log("what runs is finished");

    site.release();

    assert_eq!(watcher.wait().code(), Some(0), "{}", watcher.log());
    site.spool.await_result(&id, "success");
    let (result, details) = site.await_on_result(&id);
    assert_eq!(result, "not ordered");
    assert!(details.contains("the watcher stops"), "{details}");
    assert_eq!(site.lines("calls"), ["off n1", "status n1"]);
    assert_eq!((records(&site), site.spool.all_claimed()), (vec![], vec![]));
}

#[test]
fn a_stopping_watcher_finishes_an_order_and_waits_for_no_confirmation() {
    let site = Site::new();
    site.configure(&(device(&site, &site.held()) + "timeout = '1h'\n"));
    let mut watcher = site.start();
    let id = submit(&site, "reboot", "n1");
    site.spool.await_result(&id, "success");
    await_call(&site, "on n1");
    watcher.signal(Signal::SIGTERM);
    watcher.await_log("what runs is finished");
    assert!(site.path("power-on").exists());

    site.release();

    assert_eq!(watcher.wait().code(), Some(0), "{}", watcher.log());
    site.assert_on_result(&id, "not confirmed");
    assert_eq!(records(&site), [""; 0]);
}

#[test]
fn the_next_watcher_reports_the_unknown_outcome_of_a_power_on() {
    let site = Site::new();
    site.configure(&device(&site, &site.held()));
    let watcher = site.start();
    let id = submit(&site, "reboot", "n1");
    site.spool.await_result(&id, "success");
    await_call(&site, "on n1");

    watcher.crash();
    assert_eq!(records(&site), [format!("{id}.json")]);
    let next = site.start();

    site.assert_on_result(&id, "unknown");
    next.await_log(&format!("returned: request={id} target=n1 unknown: the watcher ended"));
    wait_for("the end of the record", || records(&site).is_empty());
    let calls = site.lines("calls");
    assert_eq!(calls.iter().filter(|call| *call == "on n1").count(), 1, "{calls:?}");
}

/// As a watcher leaves it that ends between the answer and the record of the power-on.
#[test]
fn an_answered_reboot_that_is_still_claimed_has_an_unknown_power_on() {
    for (performed, message, expected) in [
        ("off", "off: the device shows it; the power-on follows", 1),
        ("off", "not fenced again: for request x the device showed off", 0),
        ("reboot", "acknowledged; nothing shows whether a reset happened", 0),
    ] {
        let site = Site::new();
        site.configure(&device(&site, &brings_back(&site)));
        site.start().stop();
        let id = new_id();
        fs::write(site.spool.claimed(&id), request(&id, "reboot", "n1").to_string()).unwrap();
        let answer = json!({
            "request_id": id, "success": true, "action_performed": performed, "target_node": "n1",
            "message": message, "action": "reboot", "result": "success", "result_code": 0,
        });
        fs::write(site.spool.responses.join(format!("{id}.json")), answer.to_string()).unwrap();

        site.start().stop();

        assert_eq!(site.spool.all_claimed(), [""; 0]);
        assert_eq!(site.audit().len(), expected, "{message}: {:?}", site.audit());
        if expected == 1 {
            site.assert_on_result(&id, "unknown");
        }
        assert_eq!(site.lines("calls"), [""; 0]);
    }
}
