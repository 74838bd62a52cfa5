//! Answer files, from whatever responder: success only where one plain reading of the JSON says so.
#![no_main]

use fence_core::agent::{Expected, Judgement};
use fence_log::is_plain;
use fence_protocol::{FenceAction, ReceivedAnswer, TEXT_BYTES_MAX};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fuzz_target!(|bytes: &[u8]| {
    for action in [FenceAction::Off, FenceAction::On, FenceAction::Reboot] {
        let expected = Expected {
            request_id: ID.parse().expect("a UUID"),
            target: "n3".parse().expect("a name"),
            action,
        };
        match expected.judge(bytes) {
            Judgement::Success(answer) => {
                check_success(bytes, action);
                check_bounds(&answer);
            }
            Judgement::Failure(answer) => {
                assert_eq!(answer.success, Some(false));
                check_bounds(&answer);
            }
            Judgement::Wrong(why) | Judgement::NotYet(why) => {
                assert!(why.chars().all(is_plain) && why.len() <= 1_000, "{why:?}");
            }
        }
    }
});

fn check_success(bytes: &[u8], action: FenceAction) {
    let text = str::from_utf8(bytes).expect("a success that is no text");
    // Our reader skips unknown members; half of a surrogate pair in one is nothing to it.
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    // A UUID, whose letters may be written in either case.
    assert!(value["request_id"].as_str().is_some_and(|id| id.eq_ignore_ascii_case(ID)), "{value}");
    assert_eq!(value["success"], true);
    assert!(value["target_node"].is_null() || value["target_node"] == "n3", "{value}");
    assert!(value["result"].as_str().is_none_or(|result| result == "success"), "{value}");
    let performed = &value["action_performed"];
    let is_weaker = match action {
        FenceAction::Off | FenceAction::On => performed != action.as_str(),
        FenceAction::Reboot => performed != "off" && performed != "reboot",
    };
    assert!(performed.is_null() || !is_weaker, "{value}");
}

fn check_bounds(answer: &ReceivedAnswer) {
    let texts = [&answer.request_id, &answer.target_node, &answer.action_performed];
    for text in texts.into_iter().chain([&answer.result, &answer.device]).flatten() {
        assert!(text.len() <= TEXT_BYTES_MAX);
    }
    assert!(answer.message.len() <= TEXT_BYTES_MAX);
}
