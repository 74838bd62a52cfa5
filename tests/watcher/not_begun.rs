//! Complete requests that must not be executed, and questions that arrive as requests.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{assert_only_a_good_request_is_executed, serving, set_mode};
use crate::common::{Site, boot_id, boot_ms, instant, new_id, our_request, request, with};

const DECADE: i64 = 10 * 365 * 86_400;

/// Valid requests that must not be executed, and the result of each.
fn not_to_be_executed() -> Vec<(&'static str, Value, &'static str)> {
    let base = |target: &str| request(&new_id(), "off", target);
    let of = |members: Value| with(base("n1"), members);
    let other_boot = "00000000-0000-4000-8000-000000000000";
    vec![
        ("an unknown device", of(json!({"device": "nowhere"})), "rejected"),
        ("a device of another node", of(json!({"device": "elsewhere"})), "rejected"),
        ("a device for other targets", of(json!({"device": "other"})), "rejected"),
        ("a target of nobody", base("n10"), "rejected"),
        ("a target of a device of another node", base("e1"), "rejected"),
        ("a device that cannot do it", with(base("o1"), json!({"action": "on"})), "rejected"),
        ("an unknown action", of(json!({"action": "cycle"})), "rejected"),
        ("an empty action", of(json!({"action": ""})), "rejected"),
        ("an action in capitals", of(json!({"action": "OFF"})), "rejected"),
        ("an action with a blank", of(json!({"action": "off "})), "rejected"),
        ("an option for an action", of(json!({"action": "--off"})), "rejected"),
        ("a past deadline", of(json!({"deadline": instant(-1)})), "expired"),
        ("written long ago", of(json!({"timestamp": instant(-600)})), "expired"),
        ("a timestamp of the next decade", of(json!({"timestamp": instant(DECADE)})), "expired"),
        ("a timestamp ahead by a minute", of(json!({"timestamp": instant(60)})), "expired"),
        (
            "a timestamp in the future and a good deadline",
            of(json!({"timestamp": instant(3600), "deadline": instant(60)})),
            "expired",
        ),
        (
            "a timestamp before this boot and a good deadline",
            of(json!({"timestamp": instant(-4 * DECADE), "deadline": instant(60)})),
            "expired",
        ),
        (
            "a past instant of this boot",
            of(json!({"boot_id": boot_id(), "deadline_boottime_ms": boot_ms() - 1})),
            "expired",
        ),
        (
            "a past instant of this boot and a good deadline",
            of(json!({
                "boot_id": boot_id(), "deadline_boottime_ms": boot_ms() - 1,
                "deadline": instant(60)
            })),
            "expired",
        ),
        (
            "another boot",
            of(json!({
                "boot_id": other_boot, "deadline_boottime_ms": boot_ms() + 60_000,
                "deadline": instant(60)
            })),
            "expired",
        ),
        ("a client that is gone", our_request(&new_id(), "off", "n1"), "withdrawn"),
    ]
}

#[test]
fn a_request_that_must_not_be_executed_has_its_own_result() {
    let site = Site::new();
    let only_off = site.recorder("other", "o[1-9]", "");
    let only_off: Vec<&str> = only_off.lines().filter(|line| !line.starts_with("on ")).collect();
    let devices = [
        site.recorder("power", "n[1-9]", ""),
        site.recorder("elsewhere", "e[1-9],n1", "") + "nodes = 'n2'\n",
        only_off.join("\n"),
    ];
    site.configure(&devices.concat());
    let watcher = site.start();

    for (what, request, result) in not_to_be_executed() {
        let id = request["request_id"].as_str().unwrap();
        site.spool.submit(id, &request);
        let answer = site.spool.await_result(id, result);
        assert_eq!(answer["request_id"], request["request_id"], "{what}");
        assert_eq!(answer["target_node"], request["target_node"], "{what}");
        assert_eq!(answer["action"], request["action"], "{what}");
        assert_eq!(answer["recorder_node"], request["recorder_node"], "{what}");
        watcher.await_log(id);
    }
    site.spool.await_quiet();
    assert_eq!(site.spool.rejected(), [""; 0], "these are requests");
    assert_only_a_good_request_is_executed(&site);
}

#[test]
fn a_file_with_an_impossible_time_is_not_executed() {
    let (site, _watcher) = serving();
    let hour = Duration::from_hours(1);
    let before_this_boot = SystemTime::UNIX_EPOCH + hour;
    for written in [before_this_boot, SystemTime::now() + hour] {
        let id = new_id();
        let made = site.spool.requests.join(".made");
        fs::write(&made, request(&id, "off", "n1").to_string()).unwrap();
        set_mode(&made, 0o600);
        File::options().write(true).open(&made).unwrap().set_modified(written).unwrap();
        fs::rename(made, site.spool.request(&id)).unwrap();

        site.spool.await_result(&id, "expired");
    }
    assert_only_a_good_request_is_executed(&site);
}

#[test]
fn a_question_that_came_as_a_request_is_answered_without_fencing() {
    let (site, _watcher) = serving();
    for action in ["status", "list", "monitor"] {
        let id = new_id();
        site.spool.submit(&id, &request(&id, action, "n1"));
        let answer = site.spool.await_answer(&id);
        assert_eq!(answer["success"], false, "it reads as a fence: {answer}");
        assert_eq!(answer["status"], "error", "it reads as a fence: {answer}");
        assert_eq!(answer["action_performed"], "none", "{answer}");

        let id = new_id();
        let mut question = request(&id, action, "");
        site.spool.submit(&id, &question);
        assert_eq!(site.spool.await_answer(&id)["action_performed"], "none");

        question["request_id"] = json!(new_id());
        question.as_object_mut().unwrap().remove("target_node");
        site.spool.submit("without a target", &question);
        site.spool.await_answer("without a target");
        fs::remove_file(site.spool.responses.join("without a target.json")).unwrap();
    }
    site.spool.await_quiet();
    assert_only_a_good_request_is_executed(&site);
}
