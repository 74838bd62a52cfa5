//! What a BMC sends: never an "off" that it did not show, never a way to another host.
#![no_main]

use fence_core::execution::Order;
use fence_device::redfish::{
    Address, ResourcePath, Task, error_words, is_passing, parse_action_info, parse_collection,
    parse_system, parse_task, refusal, reset_type, task_place,
};
use fence_protocol::PowerState;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(system) = parse_system(bytes) {
        // What is not read may be anything, even no text at all.
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
            match system.power {
                PowerState::On => assert_eq!(value["PowerState"], "On"),
                PowerState::Off => assert_eq!(value["PowerState"], "Off"),
                PowerState::Unknown => {}
            }
            // A state beside a critical error is none.
            if value["@Message.ExtendedInfo"]["Severity"] == "Critical" {
                assert_eq!(system.power, PowerState::Unknown);
            }
        }
        if let Ok(reset) = system.reset {
            assert_stays(&reset.target);
            reset.info.iter().for_each(assert_stays);
            assert_ordered(reset.allowed.as_deref());
        }
    }
    if let Ok(members) = parse_collection(bytes) {
        members.members.iter().for_each(assert_stays);
        members.next.iter().for_each(assert_stays);
    }
    if let Some(allowed) = parse_action_info(bytes) {
        assert_ordered(Some(&allowed));
    }
    task_place(bytes).iter().for_each(assert_stays);
    // A task that failed is never one that is done.
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes)
        && value["TaskState"] == "Exception"
    {
        assert!(matches!(parse_task(bytes), Some(Task::Failed(_))));
    }
    let _ = (refusal(bytes), is_passing(200, bytes), is_passing(400, bytes));
    if let Some(words) = error_words(bytes) {
        // What is no UTF-8 becomes a character of three bytes.
        assert!(words.len() <= 3 * bytes.len());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let base = "https://bmc";
        let own = ResourcePath::of_url(text);
        let from = own.clone().or_else(|| "/".parse().ok());
        let redirected = from.and_then(|from| ResourcePath::redirected(text, &from, base, None));
        for path in [redirected, own] {
            path.iter().for_each(assert_stays);
        }
        if let Ok(address) = Address::parse(text) {
            let base = address.base();
            assert_eq!(Address::parse(&base), Ok(address));
            assert_eq!(base.matches('/').count(), 2, "{base}");
            assert!(!base.contains('@'), "{base}");
        }
    }
});

fn assert_stays(path: &ResourcePath) {
    let text = path.to_string();
    assert!(text.starts_with('/') && !text.starts_with("//"), "{text:?}");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
}

/// An order is only ever one of what was allowed, and never a gentle one.
fn assert_ordered(allowed: Option<&[String]>) {
    for (order, types) in [
        (Order::Off, &["ForceOff"][..]),
        (Order::On, &["On", "ForceOn"]),
        (Order::Cycle, &["ForceRestart", "PowerCycle"]),
    ] {
        if let Ok(chosen) = reset_type(order, allowed) {
            assert!(types.contains(&chosen));
            let is_it = |one: &String| one.eq_ignore_ascii_case(chosen);
            assert!(allowed.is_none_or(|allowed| allowed.iter().any(is_it)));
        }
    }
}
