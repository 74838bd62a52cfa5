//! Files that are not requests, that are untrusted, or that must not be executed.

mod not_begun;
mod untrusted;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fence_log::is_plain;
use serde_json::{Value, json};

use crate::common::{
    Site, Watcher, boot_id, boot_ms, instant, names, new_id, output_of, request, wait_for, with,
};

/// A watcher with a device for the targets `n1` to `n9` that records each execution.
fn serving() -> (Site, Watcher) {
    let site = Site::new();
    site.configure(&site.recorder("power", "n[1-9]", ""));
    let watcher = site.start();
    (site, watcher)
}

/// Checks that the watcher lives, serves a request, and has executed nothing else.
fn assert_only_a_good_request_is_executed(site: &Site) {
    let id = new_id();
    site.spool.submit(&id, &request(&id, "off", "n9"));
    site.spool.await_result(&id, "success");
    assert_eq!(site.executed(), [format!("off n9 {id}")]);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A request in which this member is replaced.
fn with_member(member: &str, value: Value) -> Vec<u8> {
    let mut members = request(&new_id(), "off", "n1");
    members[member] = value;
    members.to_string().into_bytes()
}

/// A request without one of its members.
fn without(member: &str) -> Vec<u8> {
    let mut members = request(&new_id(), "off", "n1");
    members.as_object_mut().unwrap().remove(member).unwrap();
    members.to_string().into_bytes()
}

fn good_text() -> String {
    request(&new_id(), "off", "n1").to_string()
}

/// Texts that do not even have the form of a request.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let good = good_text();
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let replaced = |from: &str, to: &[u8]| {
        let at = good.find(from).unwrap();
        [&good.as_bytes()[..at], to, &good.as_bytes()[at + from.len()..]].concat()
    };
    vec![
        ("empty", Vec::new()),
        ("blank", b" \n\n".to_vec()),
        ("truncated", good.as_bytes()[..good.len() - 9].to_vec()),
        ("not JSON", b"off n1\n".to_vec()),
        ("a number", b"7".to_vec()),
        ("null", b"null".to_vec()),
        ("a list of requests", format!("[{good}]").into_bytes()),
        ("two requests", format!("{good}{good}").into_bytes()),
        ("a byte order mark", format!("\u{feff}{good}").into_bytes()),
        ("invalid UTF-8", replaced("n1", b"n\xff\xfe")),
        ("a NUL", replaced("n1", b"n1\0")),
        ("nothing but NUL", vec![0; 512]),
        ("NUL behind it", [good.as_bytes(), &[0; 8]].concat()),
        ("nested", deep.clone().into_bytes()),
        ("nested and unfinished", "[{\"a\":".repeat(10_000).into_bytes()),
        ("nested in a member", replaced("[]", deep.as_bytes())),
        ("a member twice", replaced("\"n1\",", b"\"n1\",\"target_node\":\"n2\",")),
    ]
}

/// Texts in the form of a request, with members that no request has.
fn with_wrong_members() -> Vec<(&'static str, Vec<u8>)> {
    let mut cases: Vec<(&str, Vec<u8>)> = Vec::new();
    for member in ["request_id", "timestamp", "action", "target_node"] {
        cases.push((member, without(member)));
        cases.push((member, with_member(member, Value::Null)));
        cases.push((member, with_member(member, json!(7))));
        cases.push((member, with_member(member, json!(["n1"]))));
        cases.push((member, with_member(member, json!("x".repeat(100_000)))));
    }
    for (member, value) in [
        ("request_id", json!("")),
        ("request_id", json!("../../../escaped")),
        ("request_id", json!("67e5504410b1426f9247bb680e5fe0c8")),
        ("request_id", json!("67e55044-10b1-426f-9247-bb680e5fe0c8\n")),
        ("timestamp", json!("")),
        ("timestamp", json!("yesterday")),
        ("timestamp", json!("2026-01-31T12:00:00")),
        ("target_node", json!("")),
        ("target_node", json!("../n1")),
        ("target_node", json!("n1/../n2")),
        ("target_node", json!("/etc/passwd")),
        ("target_node", json!("..")),
        ("target_node", json!("-x")),
        ("target_node", json!("--force")),
        ("target_node", json!(".n1")),
        ("target_node", json!("n1\nn2")),
        ("target_node", json!("n1\u{0}")),
        ("target_node", json!("n1\u{1b}[2J")),
        ("target_node", json!("n1 n2")),
        ("target_node", json!("$(reboot)")),
        ("target_node", json!("n1;reboot")),
        ("target_node", json!("n".repeat(254))),
        ("gfs2_filesystems", json!("home")),
        ("gfs2_filesystems", json!([1])),
        ("gfs2_filesystems", json!({"a": 1})),
        ("recorder_node", json!(7)),
        ("deadline", json!(7)),
        ("deadline", json!("soon")),
        ("boot_id", json!(7)),
        ("deadline_boottime_ms", json!("60000")),
        ("deadline_boottime_ms", json!(-1)),
        ("deadline_boottime_ms", json!(1.5)),
        ("device", json!(["power"])),
        ("held", json!("yes")),
        ("held", json!(1)),
    ] {
        cases.push((member, with_member(member, value)));
    }
    cases
}

#[test]
fn an_invalid_file_is_answered_rejected_set_aside_and_never_executed() {
    let (site, watcher) = serving();
    let before = names(&site.path(""));
    let cases = [malformed(), with_wrong_members()].concat();
    assert!(cases.len() < 100, "more than are kept aside");
    let submitted: Vec<_> = cases.iter().map(|(what, bytes)| (what, new_id(), bytes)).collect();
    for (_, name, bytes) in &submitted {
        site.spool.submit_bytes(name, bytes);
    }

    for (what, name, _) in &submitted {
        let answer = site.spool.await_result(name, "rejected");
        assert!(!answer["message"].as_str().unwrap().is_empty(), "{what}: {answer}");
        watcher.await_log(name);
    }
    site.spool.await_quiet();
    assert_eq!(site.spool.rejected().len(), cases.len());
    assert_only_a_good_request_is_executed(&site);
    fs::remove_file(site.path("executed")).unwrap();
    assert_eq!(names(&site.path("")), before, "something was written elsewhere");
}

#[test]
fn the_answer_to_an_invalid_file_names_its_readable_members() {
    let (site, _watcher) = serving();
    let (id, name) = (new_id(), new_id());
    let mut bad = request(&id, "off", "n1");
    bad["timestamp"] = json!(7);
    site.spool.submit("by its content", &bad);
    site.spool.submit_bytes(&name, b"}");
    site.spool.submit_bytes(&format!("n1-{name}"), b"}");

    let answer = site.spool.await_result("by its content", "rejected");
    assert_eq!(answer["request_id"], json!(id));
    for member in ["target_node", "action", "recorder_node"] {
        assert_eq!(answer[member], bad[member], "{answer}");
    }
    assert_eq!(site.spool.await_result(&name, "rejected")["request_id"], json!(name));
    let by_both = site.spool.await_result(&format!("n1-{name}"), "rejected");
    assert_eq!(by_both["request_id"], json!(name));
}

#[test]
fn a_list_of_values_in_the_order_of_the_members_is_not_a_request() {
    let (site, _watcher) = serving();
    let id = new_id();
    let list = json!([
        id,
        instant(0),
        "off",
        "n1",
        [],
        "n1",
        instant(60),
        boot_id(),
        boot_ms() + 60_000,
        "power",
        false
    ]);

    site.spool.submit(&id, &list);

    site.spool.await_result(&id, "rejected");
    assert_only_a_good_request_is_executed(&site);
}

#[test]
fn deep_nesting_in_an_unknown_member_is_harmless() {
    let (site, _watcher) = serving();
    let id = new_id();
    let deep = "[".repeat(400_000) + &"]".repeat(400_000);
    let text = request(&id, "off", "n1").to_string().replacen('{', &format!("{{\"x\":{deep},"), 1);

    site.spool.submit_bytes(&id, text.as_bytes());

    site.spool.await_result(&id, "rejected");
    let other = new_id();
    site.spool.submit(&other, &request(&other, "off", "n2"));
    site.spool.await_result(&other, "success");
    assert_eq!(site.executions_of(&id), 0);
}

#[test]
fn files_of_100_mb_are_refused_unread() {
    let (site, watcher) = serving();
    let (sparse, real, valid) = (new_id(), new_id(), new_id());
    let hundred_mb: usize = 100 * 1024 * 1024;
    let file = File::create(site.spool.request(&format!(".{sparse}"))).unwrap();
    file.set_len(hundred_mb as u64).unwrap();
    fs::rename(site.spool.request(&format!(".{sparse}")), site.spool.request(&sparse)).unwrap();
    site.spool.submit_bytes(&real, &b"{\"request_id\":".repeat(hundred_mb / 14));
    // Complete and correct, except for its size.
    let padded = format!("{}{}", request(&valid, "off", "n1"), " ".repeat(1024 * 1024));
    site.spool.submit_bytes(&valid, padded.as_bytes());

    for name in [&sparse, &real, &valid] {
        let answer = site.spool.await_result(name, "rejected");
        assert!(answer["message"].as_str().unwrap().contains("bytes"), "{answer}");
    }
    site.spool.await_quiet();
    // Files that are set aside are checked for their size afterwards.
    wait_for("so much is not kept", || site.spool.rejected().is_empty());
    assert_only_a_good_request_is_executed(&site);
    let status = fs::read_to_string(format!("/proc/{}/status", watcher.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kb < 64 * 1024, "{peak_kb} kB of memory were used");
}

#[test]
fn at_most_100_files_are_kept_aside() {
    let (site, _watcher) = serving();
    let ids: Vec<String> = (0..130).map(|_| new_id()).collect();
    for id in &ids {
        site.spool.submit_bytes(id, b"}");
    }

    for id in &ids {
        site.spool.await_result(id, "rejected");
    }
    site.spool.await_quiet();
    // The oldest file is removed after the newest has arrived.
    wait_for("what is too much to go", || site.spool.rejected().len() == 100);
    assert_only_a_good_request_is_executed(&site);
}

#[test]
fn a_request_that_is_written_in_place_is_executed_once_when_it_is_whole() {
    let (site, _watcher) = serving();
    let (id, marker) = (new_id(), new_id());
    let text = request(&id, "off", "n1").to_string();
    let (half, rest) = text.split_at(text.len() / 2);
    let mut file = File::create(site.spool.request(&id)).unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
    file.write_all(half.as_bytes()).unwrap();
    drop(file);
    // A later request is answered, so the watcher has seen the half-written one.
    site.spool.submit(&marker, &request(&marker, "off", "n2"));
    site.spool.await_result(&marker, "success");
    assert_eq!(site.spool.answer(&id), None, "it was not waited for");

    let mut file = OpenOptions::new().append(true).open(site.spool.request(&id)).unwrap();
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);

    site.spool.await_result(&id, "success");
    site.spool.await_quiet();
    assert_eq!(site.executions_of(&id), 1);
}

#[test]
fn a_request_that_grows_slowly_is_followed() {
    let (site, watcher) = serving();
    let id = new_id();
    let text = request(&id, "off", "n1").to_string();
    let mut file = File::create(site.spool.request(&id)).unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();

    // For longer than the watcher waits for a file that does not grow.
    for part in text.as_bytes().chunks(text.len() / 9) {
        thread::sleep(Duration::from_millis(500));
        file.write_all(part).unwrap();
    }
    drop(file);

    site.spool.await_result(&id, "success");
    assert_eq!(site.executions_of(&id), 1, "{}", watcher.log());
}

#[test]
fn a_file_with_an_invalid_name_is_set_aside_and_hidden_files_are_ignored() {
    let (site, watcher) = serving();
    let requests = &site.spool.requests;
    let long = format!("{}.json", "x".repeat(246));
    let bad = ["a\nb.json", "a\u{1b}[2J.json", "a..b.json", "a\\b.json", "\u{85}.json", &long];
    for name in bad {
        fs::write(requests.join(name), good_text()).unwrap();
    }
    let kept = [".hidden.json", ".n.json.tmp", "note.txt", "n.JSON", "json", ".json"];
    for name in kept {
        fs::write(requests.join(name), good_text()).unwrap();
    }
    fs::write(requests.join(OsStr::from_bytes(b"n\xff.json")), good_text()).unwrap();

    for name in bad {
        wait_for(&format!("{name:?} to be put aside"), || !requests.join(name).exists());
    }
    assert_only_a_good_request_is_executed(&site);
    for name in kept {
        assert!(requests.join(name).exists(), "{name} is gone");
    }
    assert_eq!(site.spool.rejected().len(), bad.len());
    watcher.await_log("nb.json");
    assert!(!watcher.log().contains('\u{1b}'), "an escape sequence reached the log");
}

#[test]
fn no_text_of_a_client_or_a_device_forges_a_line_of_the_log_or_of_the_status() {
    let site = Site::new();
    let program = "printf 'no\\nforged: \\033[2J\\342\\200\\250forged: \\r\\n' >&2\nexit 1";
    site.configure(&site.recorder("power", "n[1-9]", program));
    let watcher = site.start();
    let forged = "x\nforged: \u{1b}[2J\u{2028}forged: \r\u{85}";
    for (members, result) in [
        (json!({"recorder_node": forged, "gfs2_filesystems": [forged]}), "unacknowledged"),
        (json!({"device": forged}), "rejected"),
        (json!({"action": forged}), "rejected"),
        (json!({"boot_id": forged, "deadline_boottime_ms": 1}), "expired"),
    ] {
        let id = new_id();
        site.spool.submit(&id, &with(request(&id, "off", "n1"), members));
        site.spool.await_result(&id, result);
    }

    let status = output_of(&mut site.watcher_command(&["status"]));
    let status = String::from_utf8(status.stdout).unwrap();
    watcher.await_log("forged");
    for text in [watcher.log(), status] {
        let line_begins = text.split(|c| c == '\n' || !is_plain(c));
        for line in line_begins {
            assert!(!line.starts_with("forged"), "{text}");
        }
        assert!(text.chars().all(|c| c == '\n' || is_plain(c)), "{text:?}");
    }
}

#[test]
fn a_pending_request_is_only_read_and_keeps_its_content() {
    let site = Site::new();
    site.configure(&site.recorder("power", "n[1-9]", &site.held()));
    let watcher = site.start();
    let (first, second) = (new_id(), new_id());
    site.spool.submit(&first, &request(&first, "off", "n1"));
    site.await_execution(&first);
    let text = request(&second, "off", "n1").to_string();
    site.spool.submit_bytes(&second, text.as_bytes());
    wait_for("the second to be queued", || {
        site.state()["queued"].as_array().is_some_and(|queued| queued.len() == 1)
    });

    let mut pending = File::open(site.spool.request(&second)).unwrap();
    let mut found = String::new();
    pending.rewind().unwrap();
    pending.read_to_string(&mut found).unwrap();

    assert_eq!(found, text, "{}", watcher.log());
    site.release();
    site.spool.await_result(&second, "success");
}
