//! The types can read the example files and the records in PROTOCOL.md.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;

use fence_protocol::{
    PowerState, Query, QueryAnswer, QueryCode, QueryKind, ReceivedAnswer, Request,
};
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

/// The members of a record, for a comparison with the members of a type.
fn members(text: &[u8]) -> Vec<String> {
    let value: Value = serde_json::from_slice(text).unwrap();
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_example_of_a_request_shows_each_member_but_the_device() {
    let text = read("examples/request.json");
    let mut request = Request::parse(text.as_bytes()).unwrap();
    assert_eq!(members(&request.to_json()), members(text.as_bytes()));
    assert!(request.held && request.boot_id.is_some() && request.deadline_boottime_ms.is_some());
    request.device = Some("power".into());
    assert_eq!(Request::parse(&request.to_json()), Ok(request));
}

#[test]
fn the_example_of_an_answer_is_a_success_with_each_member_that_we_write() {
    use fence_protocol::{Answer, FenceResult};
    let text = read("examples/response.json");
    let read = ReceivedAnswer::parse(text.as_bytes()).unwrap();
    assert_eq!((read.success, read.result_code), (Some(true), Some(0)));
    let ours = Answer {
        request_id: None,
        target_node: None,
        action: String::new(),
        recorder_node: String::new(),
        result: FenceResult::Success,
        action_performed: "off",
        verified: true,
        device: Some("power".into()),
        message: String::new(),
        duration_ms: 0,
    };
    let ours = ours.to_json(chrono::DateTime::UNIX_EPOCH);
    assert_eq!(members(text.as_bytes()), members(&ours));
}

#[test]
fn the_example_of_a_query_is_answered_by_the_example_of_an_answer() {
    let query = Query::parse(read("examples/query.json").as_bytes()).unwrap();
    assert_eq!(query.query, QueryKind::Power);
    assert!(query.target().unwrap().is_ok() && query.boot_id.is_some());
    assert!(query.asked_boottime_ms.unwrap() < query.deadline_boottime_ms);

    let answer = QueryAnswer::parse(read("examples/query-answer.json").as_bytes()).unwrap();
    assert_eq!(answer.query_id, query.query_id);
    assert_eq!((answer.code, answer.power), (QueryCode::Yes, Some(PowerState::Off)));
}

#[test]
fn each_record_that_the_protocol_shows_is_valid() {
    let document = read("PROTOCOL.md");
    let blocks: Vec<&str> =
        document.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [request, refusal] = blocks[..] else { panic!("{blocks:?}") };

    assert!(Request::parse(request.as_bytes()).unwrap().held);
    let refusal = ReceivedAnswer::parse(refusal.as_bytes()).unwrap();
    assert_eq!((refusal.success, refusal.result_code), (Some(false), Some(1)));
}

#[test]
fn each_member_and_each_word_of_a_record_is_in_the_protocol() {
    let document = read("PROTOCOL.md");
    let files = ["request.json", "response.json", "query.json", "query-answer.json"];
    let mut words: Vec<String> = files
        .iter()
        .flat_map(|file| members(read(&format!("examples/{file}")).as_bytes()))
        .collect();
    words.extend(["device", "targets", "state", "problems"].map(str::to_owned));
    words.extend(fence_protocol::FenceResult::ALL.map(|result| result.as_str().to_owned()));
    for kind in [
        QueryKind::Reachable,
        QueryKind::Targets,
        QueryKind::Power,
        QueryKind::State,
        QueryKind::Check,
        QueryKind::Reload,
    ] {
        words.push(serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned());
    }
    for word in words {
        assert!(document.contains(&format!("`{word}`")), "{word}");
    }
}
