//! Queries that cannot be understood, and queries that are still being written: each gets an
//! answer, so that no client waits in vain.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::common::{Site, Watcher, boot_ms, names, new_id, wait_for};

fn serving() -> (Site, Watcher) {
    let site = Site::new();
    site.configure(&site.recorder("power", "n[1-9]", ""));
    let watcher = site.start();
    (site, watcher)
}

fn path(site: &Site, name: &str) -> PathBuf {
    site.path("queries").join(name)
}

/// Writes a query, last changed this many seconds ago, directly under its final name.
fn ask(site: &Site, stem: &str, text: &[u8], age_s: u64) {
    let made = path(site, ".made");
    fs::write(&made, text).unwrap();
    let written = SystemTime::now() - Duration::from_secs(age_s);
    File::options().write(true).open(&made).unwrap().set_modified(written).unwrap();
    fs::rename(made, path(site, &format!("{stem}.json"))).unwrap();
}

fn await_answer(site: &Site, stem: &str) -> Value {
    wait_for("the end of the query", || {
        !names(&site.path("queries")).contains(&format!("{stem}.json"))
    });
    let answer = fs::read(path(site, &format!("{stem}.answer")));
    serde_json::from_slice(&answer.unwrap_or_else(|_| panic!("{stem} has no answer"))).unwrap()
}

fn query(id: &str) -> Value {
    json!({"query_id": id, "query": "state", "deadline_boottime_ms": boot_ms() + 60_000})
}

/// Texts that are not queries, each with a word of its answer.
fn no_queries(id: &str) -> Vec<(&'static str, Vec<u8>)> {
    let with = |member: &str, value: Value| {
        let mut query = query(id);
        query[member] = value;
        query.to_string().into_bytes()
    };
    let without = |member: &str| {
        let mut query = query(id);
        query.as_object_mut().unwrap().remove(member).unwrap();
        query.to_string().into_bytes()
    };
    let good = query(id).to_string();
    let mut large = good.clone().into_bytes();
    large.resize(1024 * 1024 + 1, b' ');
    vec![
        ("'temperature' is no known word", with("query", json!("temperature"))),
        ("'State' is no known word", with("query", json!("State"))),
        ("the member \"query\" is missing", without("query")),
        ("the member \"deadline_boottime_ms\" is missing", without("deadline_boottime_ms")),
        ("member \"deadline_boottime_ms\": ", with("deadline_boottime_ms", json!("60000"))),
        ("member \"deadline_boottime_ms\": ", with("deadline_boottime_ms", json!(-1))),
        ("member \"asked_boottime_ms\": ", with("asked_boottime_ms", json!([1]))),
        ("member \"boot_id\": ", with("boot_id", json!(1))),
        ("member \"target\": ", with("target", json!({"name": "n1"}))),
        ("member \"query\": ", with("query", json!(true))),
        ("member \"query\": ", with("query", json!({"state": null}))),
        ("is no known word; known: ", with("query", json!("x\n".repeat(300_000)))),
        ("stands where a whole number", with("deadline_boottime_ms", json!("x".repeat(900_000)))),
        ("member \"query_id\": ", with("query_id", json!(null))),
        ("the member \"query_id\" is missing", without("query_id")),
        ("query_id", with("query_id", json!("../requests/x"))),
        ("its query_id is not its file name", with("query_id", json!(new_id()))),
        ("its query_id is not its file name", with("query_id", json!(id.to_uppercase()))),
        (
            "member \"device\": integer `7` stands where a string is required",
            with("device", json!(7)),
        ),
        (
            "the member \"query\" stands there twice",
            good.replacen('{', "{\"query\":\"reload\",", 1).into_bytes(),
        ),
        ("it is not an object", format!("[\"{id}\",\"state\",null,null,99999999999]").into_bytes()),
        ("it is not an object", b"state\n".to_vec()),
        ("ends too early", Vec::new()),
        ("ends too early", good.as_bytes()[..good.len() - 9].to_vec()),
        ("bytes", large),
    ]
}

#[test]
fn a_query_that_cannot_be_understood_is_answered_with_code_3() {
    let (site, watcher) = serving();
    for nth in 0..no_queries("").len() {
        let id = format!("a{}", &new_id()[1..]);
        let (words, text) = no_queries(&id).swap_remove(nth);
        ask(&site, &id, &text, 10);

        let answer = await_answer(&site, &id);
        assert_eq!((&answer["query_id"], &answer["code"]), (&json!(id), &json!(3)), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(words), "{words}: {answer}");
        assert!(answer.to_string().len() < 1000, "{answer}");
        watcher.await_log(&id);
    }
}

#[test]
fn a_query_whose_file_name_is_no_identity_is_answered_beside_its_file() {
    let (site, _watcher) = serving();
    ask(&site, "job-1", query("job-1").to_string().as_bytes(), 0);
    let answer = await_answer(&site, "job-1");
    assert_eq!((&answer["query_id"], &answer["code"]), (&json!("job-1"), &json!(3)), "{answer}");
}

#[test]
fn a_query_that_is_written_in_place_is_answered_when_it_is_whole() {
    let (site, _watcher) = serving();
    let (slow, other) = (new_id(), new_id());
    let text = query(&slow).to_string();
    let (first, rest) = text.split_at(text.len() / 2);
    let mut file = File::create(path(&site, &format!("{slow}.json"))).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    // Later ones are handled later.
    ask(&site, &other, query(&other).to_string().as_bytes(), 0);
    assert_eq!(await_answer(&site, &other)["code"], 0);
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);

    assert_eq!(await_answer(&site, &slow)["code"], 0);
}

#[test]
fn a_power_query_that_no_device_serves_is_refused() {
    let site = Site::new();
    let elsewhere =
        site.recorder("elsewhere", "n[1-9]", "").replace("type =", "nodes = ['n2']\ntype =");
    site.configure(&(site.recorder("power", "n[1-9]", "") + &elsewhere));
    let _watcher = site.start();
    let long = "x".repeat(1_000_000);
    for (device, target, code, words) in [
        (Some("nobody"), "n1", 3, "there is no fence device \"nobody\""),
        (Some(long.as_str()), "n1", 3, "there is no fence device"),
        (Some("elsewhere"), "n1", 3, "not configured for use on this node"),
        (Some("power"), "m1", 3, "not configured for this target"),
        (None, "m1", 3, "no fence device of this node covers this target"),
        (None, "../n1", 3, "target: "),
        // The query is valid; the device has no way to answer it.
        (Some("power"), "n1", 1, "cannot be asked for the state"),
        (None, "n1", 1, "cannot be asked for the state"),
    ] {
        let id = new_id();
        let mut query = query(&id);
        query["query"] = "power".into();
        query["target"] = target.into();
        query["device"] = device.into();
        ask(&site, &id, query.to_string().as_bytes(), 0);
        let answer = await_answer(&site, &id);
        assert_eq!(answer["code"], code, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(words), "{words}: {answer}");
    }
}

/// A client does not read larger records.
#[test]
fn an_answer_to_a_query_that_names_a_long_device_can_be_read() {
    let (site, _watcher) = serving();
    for kind in ["reachable", "targets", "power", "check"] {
        let id = new_id();
        let mut query = query(&id);
        query["query"] = kind.into();
        query["target"] = "n1".into();
        query["device"] = "\"".repeat(500_000).into();
        ask(&site, &id, query.to_string().as_bytes(), 0);
        assert_eq!(await_answer(&site, &id)["code"], 3);
        let length = fs::metadata(path(&site, &format!("{id}.answer"))).unwrap().len();
        assert!(length < 1024 * 1024, "{kind}: {length}");
    }
}
