//! The watcher's decisions, event by event: what the parts share.

mod disk;
mod lists;
mod queue;
mod reload;
mod requests;
mod returning;

use chrono::DateTime;
use fence_protocol::{FenceResult, Rejection, RequestError, Requested};

use super::*;
use crate::PerTarget;
use crate::execution::Verdict;

const WALL_MS: i64 = 1_800_000_000_000;
pub(super) const NOON: Now = Now { boot_ms: 100_000, wall_ms: WALL_MS };

pub(super) fn at(boot_ms: u64) -> Now {
    Now { boot_ms, wall_ms: WALL_MS + i64::try_from(boot_ms).unwrap() - 100_000 }
}

pub(super) fn device(name: &str, targets: &str, max_concurrent: usize) -> Device {
    Device {
        name: name.into(),
        here: true,
        coverage: Coverage::Nodes(nodes(targets)),
        addresses: None,
        plugs: None,
        max_concurrent,
        actions: [FenceAction::Off, FenceAction::On, FenceAction::Reboot].into(),
    }
}

pub(super) fn watcher() -> Watcher {
    let settings = Settings { boot_id: "this".into(), default_deadline_ms: 60_000, max_running: 4 };
    Watcher::new(settings, vec![device("pdu", "n[1-9]", 1), device("bmc", "m[1-9]", 2)])
}

/// One of our agent's requests, held, with a deadline 50 s after noon.
pub(super) fn request(number: u32, target: &str) -> Request {
    Request {
        request_id: format!("67e55044-10b1-426f-9247-{number:012}").parse().unwrap(),
        timestamp: DateTime::from_timestamp_millis(WALL_MS).unwrap(),
        action: Requested::Fence(FenceAction::Off),
        target_node: Some(target.parse().unwrap()),
        gfs2_filesystems: Vec::new(),
        recorder_node: "n1".into(),
        deadline: None,
        boot_id: Some("this".into()),
        deadline_boottime_ms: Some(150_000),
        device: None,
        held: true,
    }
}

pub(super) fn name(request: &Request) -> RecordName {
    RecordName::of_id(&request.request_id)
}

fn content(parsed: Result<Request, Rejection>) -> Sight {
    Sight::Content(Box::new(Content { parsed, changed: (200, WALL_MS) }))
}

pub(super) fn see(watcher: &mut Watcher, request: &Request, now: Now) -> Vec<Effect> {
    watcher.handle(Event::Seen(name(request), content(Ok(request.clone()))), now)
}

pub(super) fn claimed(request: &Request) -> Claim {
    Claim::Claimed { parsed: Ok(request.clone()), client_gone: false, begun_before: false }
}

fn verdict(result: FenceResult) -> Verdict {
    Verdict {
        result,
        verified: true,
        performed: "off",
        message: String::new(),
        off: None,
        on_follows: false,
    }
}

pub(super) fn answer_in(effects: &[Effect]) -> &Answer {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Answer(_, answer, _) => Some(answer),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no answer in {effects:?}"))
}

fn result_of(watcher: &mut Watcher, request: &Request, now: Now) -> FenceResult {
    let effects = see(watcher, request, now);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Claim { .. })), "{effects:?}");
    answer_in(&effects).result
}

pub(super) fn executes(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Execute(..)))
}

pub(super) fn claims(effects: &[Effect]) -> Vec<RecordName> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Claim { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect()
}

/// The request that is passed along with the answer.
fn answered_request(effects: &[Effect]) -> Option<&Request> {
    let mut answers = effects.iter().filter_map(|effect| match effect {
        Effect::Answer(_, _, request) => Some(request.as_ref()),
        _ => None,
    });
    answers.next().unwrap_or_else(|| panic!("no answer in {effects:?}"))
}

fn reconfigure(watcher: &mut Watcher, devices: Vec<Device>) -> Vec<Effect> {
    let settings = watcher.settings.clone();
    watcher.handle(Event::Reconfigured(settings, devices), NOON)
}

/// A watcher in which n1 runs on the device pdu, with these requests waiting behind it.
fn busy_with(waiting: &[Request]) -> (Watcher, Request) {
    let mut watcher = watcher();
    let first = request(1, "n1");
    see(&mut watcher, &first, NOON);
    watcher.handle(Event::Claim(name(&first), claimed(&first)), NOON);
    for request in waiting {
        assert_eq!(claims(&see(&mut watcher, request, NOON)), []);
    }
    (watcher, first)
}

fn nodes(list: &str) -> BTreeSet<NodeName> {
    fence_protocol::expand_hostlist(list).unwrap().into_iter().collect()
}
