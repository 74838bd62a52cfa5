//! The agent's options on standard input: a fence is understood only where it was asked for.
#![no_main]

use std::time::Duration;

use fence_agent::input::RawInput;
use fence_agent::invocation::{FenceSettings, Invocation, Probe, ProbeKind, understand};
use fence_protocol::FenceAction;
use libfuzzer_sys::fuzz_target;

const DAY: Duration = Duration::from_secs(86_400);

fuzz_target!(|bytes: &[u8]| {
    let Ok(input) = RawInput::from_stdin(bytes) else { return };
    match understand(&input, &|_| None) {
        Ok(Invocation::Fence(fence)) => check_fence(&fence, &String::from_utf8_lossy(bytes)),
        Ok(Invocation::Probe(probe)) => check_probe(&probe, &String::from_utf8_lossy(bytes)),
        Ok(_) => {}
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
});

fn check_fence(fence: &FenceSettings, text: &str) {
    let word = last_value(text, "action").or_else(|| last_value(text, "option"));
    // An empty action is none.
    match word.filter(|word| !word.is_empty()) {
        Some(word) => assert_eq!(word.to_ascii_lowercase(), fence.action.as_str()),
        // DLM alone names no action, and means a reboot.
        None => assert!(fence.action == FenceAction::Reboot && text.contains("fail_time")),
    }
    assert_eq!(given_target(text), Some(fence.target.as_str()));

    assert!(fence.time_max <= DAY && fence.poll_interval >= Duration::from_millis(10));
    // A fence keeps at least 200 ms for its end.
    let patience = fence.time_max.saturating_sub(Duration::from_millis(200));
    assert!(fence.delay < patience || fence.action == FenceAction::On);
    assert!(fence.places.requests.is_absolute() && fence.places.responses.is_absolute());
    assert!(fence.log_dir.is_absolute());
}

/// The target that is named. Of two different names one is the cluster manager's own, and the other is
/// meant.
fn given_target(text: &str) -> Option<&str> {
    let node = last_value(text, "nodename");
    match (last_value(text, "plug"), last_value(text, "port")) {
        (Some(plug), Some(port)) if plug != port => {
            assert!(node == Some(plug) || node == Some(port), "{plug:?} or {port:?}?");
            Some(if node == Some(plug) { port } else { plug })
        }
        (plug, port) => plug.or(port).or(node),
    }
}

fn check_probe(probe: &Probe, text: &str) {
    if let ProbeKind::Status(target) = &probe.kind {
        assert!(text.contains(target.as_str()));
    }
    assert!(probe.places.requests.is_absolute() && probe.places.responses.is_absolute());
}

/// The value of the last line `name=value`, as the fence agents library reads it.
fn last_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.lines().rev().find_map(|line| {
        let (found, value) = line.trim().split_once('=')?;
        (found == name).then_some(value)
    })?;
    let is_quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    Some(if is_quoted { &value[1..value.len() - 1] } else { value })
}
