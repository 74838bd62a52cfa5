use chrono::DateTime;
use fence_protocol::{RequestError, Requested};

use super::*;
use crate::PerTarget;

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

/// A request of ours, held, whose deadline lies 50 s ahead of noon.
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
    Verdict { result, verified: true, performed: "off", message: String::new(), off: None }
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

/// The request that stands beside the answer.
fn answered_request(effects: &[Effect]) -> Option<&Request> {
    let mut answers = effects.iter().filter_map(|effect| match effect {
        Effect::Answer(_, _, request) => Some(request.as_ref()),
        _ => None,
    });
    answers.next().unwrap_or_else(|| panic!("no answer in {effects:?}"))
}

#[test]
fn beside_each_answer_stands_the_request_that_it_is_for() {
    let wanted = request(1, "n3");
    let record = name(&wanted);
    let with = |claim: Claim, later: Now| {
        let mut watcher = watcher();
        see(&mut watcher, &wanted, NOON);
        let effects = watcher.handle(Event::Claim(record.clone(), claim), later);
        (watcher, effects)
    };
    // Executed, and written once more after a full disk.
    let (mut watcher, _) = with(claimed(&wanted), NOON);
    let done = Event::Finished(record.clone(), verdict(FenceResult::Success));
    assert_eq!(answered_request(&watcher.handle(done, NOON)), Some(&wanted));
    watcher.handle(Event::Answered(record.clone(), Err("full".into())), NOON);
    assert_eq!(answered_request(&watcher.handle(Event::Tick, at(102_000))), Some(&wanted));
    // Refused after the claim: as the claimed file has it, or as it was seen before.
    let other = Request { recorder_node: "other".into(), ..wanted.clone() };
    let unreadable = Err(Rejection::of(RequestError::Incomplete));
    for (parsed, expected) in [(Ok(other.clone()), &other), (unreadable, &wanted)] {
        let claim = Claim::Claimed { parsed, client_gone: true, begun_before: false };
        assert_eq!(answered_request(&with(claim, NOON).1), Some(expected));
    }
    // Refused while it was pending: at once, by time, by a new configuration.
    let pending = |request: &Request| see(&mut super::tests::watcher(), request, NOON);
    let unknown = Request { device: Some("nosuch".into()), ..wanted.clone() };
    assert_eq!(answered_request(&pending(&unknown)), Some(&unknown));
    // Left behind by another watcher, or no request at all.
    let left = |parsed| {
        let content = Sight::Content(Box::new(Content { parsed, changed: (1, 0) }));
        super::tests::watcher().handle(Event::Recovered(record.clone(), content), NOON)
    };
    assert_eq!(answered_request(&left(Ok(wanted.clone()))), Some(&wanted));
    assert_eq!(answered_request(&left(Err(Rejection::of(RequestError::Incomplete)))), None);
}

#[test]
fn a_request_is_claimed_executed_answered_and_removed_in_this_order() {
    let mut watcher = watcher();
    let request = request(1, "n3");
    let record = name(&request);

    let effects = see(&mut watcher, &request, NOON);
    assert_eq!(effects, [Effect::Claim { name: record.clone(), sync: false }]);

    let effects = watcher.handle(Event::Claim(record.clone(), claimed(&request)), NOON);
    assert!(matches!(&effects[..], [Effect::Execute(_, job)] if job.lane.device == "pdu"));

    let done = Event::Finished(record.clone(), verdict(FenceResult::Success));
    let effects = watcher.handle(done, at(100_700));
    assert_eq!(answer_in(&effects).result, FenceResult::Success);
    assert_eq!(answer_in(&effects).duration_ms, 700);
    assert_eq!(effects.len(), 1);

    let effects = watcher.handle(Event::Answered(record.clone(), Ok(())), at(100_701));
    assert_eq!(effects, [Effect::RemoveClaimed(record.clone()), Effect::Look(record)]);
    assert!(watcher.is_idle());
}

#[test]
fn what_must_not_start_is_answered_with_its_own_result() {
    let change = |change: fn(&mut Request)| {
        let mut request = request(1, "n3");
        change(&mut request);
        result_of(&mut watcher(), &request, NOON)
    };
    assert_eq!(change(|r| r.deadline_boottime_ms = Some(100_000)), FenceResult::Expired);
    assert_eq!(change(|r| r.boot_id = Some("other".into())), FenceResult::Expired);
    assert_eq!(change(|r| r.device = Some("nosuch".into())), FenceResult::Rejected);
    assert_eq!(change(|r| r.device = Some("bmc".into())), FenceResult::Rejected);
    assert_eq!(change(|r| r.target_node = Some("x1".parse().unwrap())), FenceResult::Rejected);
    assert_eq!(change(|r| r.action = Requested::Unknown("nuke".into())), FenceResult::Rejected);
}

#[test]
fn a_request_without_our_clock_lives_for_the_default_after_it_was_written() {
    let old = |timestamp_ms: i64, written_ms: i64, now: Now| {
        let mut request = request(1, "n3");
        request.boot_id = None;
        request.deadline_boottime_ms = None;
        request.timestamp = DateTime::from_timestamp_millis(timestamp_ms).unwrap();
        let sight = Content { parsed: Ok(request.clone()), changed: (1, written_ms) };
        let event = Event::Seen(name(&request), Sight::Content(Box::new(sight)));
        let effects = watcher().handle(event, now);
        !claims(&effects).is_empty()
    };
    assert!(old(WALL_MS, WALL_MS, at(159_999)));
    assert!(!old(WALL_MS, WALL_MS, at(160_000)));
    // The clock was set back since it was written, or is wrong: nobody knows how old it is.
    for ahead_ms in [1_001, 3_600_000, 300_000_000_000] {
        assert!(!old(WALL_MS, WALL_MS + ahead_ms, NOON));
        assert!(!old(WALL_MS + ahead_ms, WALL_MS, NOON));
    }
    // A client may round its timestamp up, and gains nothing by it.
    assert!(old(WALL_MS + 1_000, WALL_MS, at(159_999)));
    assert!(!old(WALL_MS + 1_000, WALL_MS, at(160_000)));
    // Written before this boot.
    assert!(!old(WALL_MS, WALL_MS - 100_001, NOON));
}

#[test]
fn a_deadline_by_the_wall_clock_needs_a_time_of_this_boot_that_is_not_in_the_future() {
    let begins = |timestamp_ms: i64| {
        let mut request = request(1, "n3");
        (request.boot_id, request.deadline_boottime_ms) = (None, None);
        request.deadline = DateTime::from_timestamp_millis(WALL_MS + 30_000);
        request.timestamp = DateTime::from_timestamp_millis(timestamp_ms).unwrap();
        !claims(&see(&mut watcher(), &request, NOON)).is_empty()
    };
    assert!(begins(WALL_MS - 100_000));
    assert!(!begins(WALL_MS - 100_001), "before this boot");
    assert!(begins(WALL_MS + 1_000));
    assert!(!begins(WALL_MS + 1_001), "in the future");
}

#[test]
fn the_timestamp_of_a_client_that_names_its_boot_and_its_clock_means_nothing() {
    for timestamp_ms in [0, WALL_MS - 3_600_000, WALL_MS + 300_000_000_000] {
        let mut request = request(1, "n3");
        request.timestamp = DateTime::from_timestamp_millis(timestamp_ms).unwrap();
        assert!(!claims(&see(&mut watcher(), &request, NOON)).is_empty());
    }
}

#[test]
fn the_answer_to_what_is_no_request_has_the_members_of_its_own_that_can_be_read() {
    let text = format!(
        r#"{{"request_id":"{ID}","action":"off","target_node":"n3","recorder_node":"n1"}}"#
    );
    let rejection = Request::parse(text.as_bytes()).unwrap_err();
    let record: RecordName = "some".parse().unwrap();
    for event in [
        Event::Seen(record.clone(), content(Err(rejection.clone()))),
        Event::Recovered(record.clone(), content(Err(rejection.clone()))),
    ] {
        let effects = watcher().handle(event, NOON);

        let answer = answer_in(&effects);
        assert_eq!(answer.request_id.as_ref().unwrap().as_str(), ID);
        assert_eq!(answer.target_node.as_ref().unwrap().as_str(), "n3");
        assert_eq!((answer.action.as_str(), answer.recorder_node.as_str()), ("off", "n1"));
    }
}

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

#[test]
fn a_claim_without_a_boot_identity_is_made_durable() {
    let mut request = request(1, "n3");
    request.boot_id = None;
    let effects = see(&mut watcher(), &request, NOON);
    assert!(matches!(&effects[..], [Effect::Claim { sync: true, .. }]));
}

#[test]
fn a_claim_is_checked_again_before_anything_is_executed() {
    let after = |claim: fn(Request) -> Claim, now: Now| {
        let mut watcher = watcher();
        let request = request(1, "n3");
        see(&mut watcher, &request, NOON);
        let effects = watcher.handle(Event::Claim(name(&request), claim(request.clone())), now);
        assert!(!executes(&effects));
        answer_in(&effects).result
    };
    let ok = |r: Request| claimed(&r);
    assert_eq!(after(ok, at(150_000)), FenceResult::Expired);
    let gone = |r| Claim::Claimed { parsed: Ok(r), client_gone: true, begun_before: false };
    assert_eq!(after(gone, NOON), FenceResult::Withdrawn);
    let twice = |r| Claim::Claimed { parsed: Ok(r), client_gone: false, begun_before: true };
    assert_eq!(after(twice, NOON), FenceResult::Rejected);
    let changed = |mut r: Request| {
        r.target_node = Some("n4".parse().unwrap());
        claimed(&r)
    };
    assert_eq!(after(changed, NOON), FenceResult::Rejected);
}

#[test]
fn an_older_client_that_holds_no_lock_is_not_taken_for_gone() {
    let mut watcher = watcher();
    let mut request = request(1, "n3");
    request.held = false;
    see(&mut watcher, &request, NOON);
    let claim =
        Claim::Claimed { parsed: Ok(request.clone()), client_gone: true, begun_before: false };
    assert!(executes(&watcher.handle(Event::Claim(name(&request), claim), NOON)));
}

#[test]
fn one_execution_per_target_and_so_many_per_device() {
    let mut watcher = watcher();
    let requests: Vec<_> =
        ["m1", "m1", "m2", "m3", "n1"].iter().zip(1..).map(|(t, n)| request(n, t)).collect();
    let mut begun = Vec::new();
    for request in &requests {
        begun.extend(claims(&see(&mut watcher, request, NOON)));
    }
    // m1's second waits for m1, m3 waits for the device; n1 is on a device of its own.
    assert_eq!(begun, [&requests[0], &requests[2], &requests[4]].map(name));

    watcher.handle(Event::Claim(name(&requests[0]), claimed(&requests[0])), NOON);
    let done = Event::Finished(name(&requests[0]), verdict(FenceResult::Success));
    assert_eq!(claims(&watcher.handle(done, NOON)), [name(&requests[1])]);
}

#[test]
fn one_machine_is_acted_on_once_at_a_time_whatever_its_name() {
    let begun = |plugs: Option<PerTarget>, targets: [&str; 2]| {
        let mut bmcs = Device { coverage: Coverage::Any, ..device("bmcs", "n1", 4) };
        bmcs.plugs = plugs;
        let mut watcher = Watcher::new(watcher().settings, vec![bmcs]);
        let requests = [request(1, targets[0]), request(2, targets[1])];
        requests
            .iter()
            .map(|request| claims(&see(&mut watcher, request, NOON)).len())
            .sum::<usize>()
    };
    assert_eq!(begun(None, ["n3", "n4"]), 2);
    assert_eq!(begun(None, ["n3", "N3"]), 1);
    assert_eq!(begun(None, ["n3", "n3.example.com"]), 1);
    assert_eq!(begun(Some(PerTarget::Pattern("{target}".into())), ["n3", "n4"]), 2);
    assert_eq!(begun(Some(PerTarget::Pattern("7".into())), ["n3", "n4"]), 1);
}

#[test]
fn a_plug_that_got_another_target_is_busy_until_what_runs_there_is_over() {
    let plugs = |target: &str| {
        let map = PerTarget::Map([(target.parse().unwrap(), "7".to_owned())].into());
        Device { plugs: Some(map), ..device("pdu", "n[1-9]", 4) }
    };
    let mut watcher = Watcher::new(watcher().settings, vec![plugs("n3")]);
    let (old, new) = (request(1, "n3"), request(2, "n4"));
    see(&mut watcher, &old, NOON);
    watcher.handle(Event::Claim(name(&old), claimed(&old)), NOON);
    watcher.handle(Event::Reconfigured(watcher.settings.clone(), vec![plugs("n4")]), NOON);

    assert_eq!(claims(&see(&mut watcher, &new, NOON)), []);
    let done = Event::Finished(name(&old), verdict(FenceResult::Success));
    assert_eq!(claims(&watcher.handle(done, NOON)), [name(&new)]);
}

#[test]
fn what_steps_aside_for_one_name_lets_the_next_one_of_its_other_name_pass() {
    // n1 and n2 have one plug; n2 is known to another device as well.
    let map = [("n1", "7"), ("n2", "7")].map(|(n, p)| (n.parse().unwrap(), p.to_owned()));
    let pdu = Device { plugs: Some(PerTarget::Map(map.into())), ..device("pdu", "n[1-9]", 4) };
    let mut watcher = Watcher::new(watcher().settings, vec![pdu, device("bmc", "n[1-9]", 4)]);
    let on = |number, target, device: &str| Request {
        device: Some(device.into()),
        ..request(number, target)
    };
    let (first, second) = (on(1, "n1", "pdu"), on(2, "n2", "bmc"));
    let (third, fourth) = (on(3, "n2", "pdu"), on(4, "n2", "bmc"));
    for request in [&first, &second, &third, &fourth] {
        see(&mut watcher, request, NOON);
    }
    // The plug is still busy: the third steps aside once more, and must not keep the fourth waiting.
    let effects = watcher.handle(Event::Claim(name(&second), Claim::Gone), NOON);
    assert_eq!(claims(&effects), [name(&fourth)]);
    let effects = watcher.handle(Event::Claim(name(&fourth), Claim::Gone), NOON);
    assert_eq!(claims(&effects), []);
    let effects = watcher.handle(Event::Claim(name(&first), Claim::Gone), NOON);
    assert_eq!(claims(&effects), [name(&third)]);
}

#[test]
fn a_wall_clock_that_is_set_forward_brings_a_deadline_closer_and_backward_never_moves_it() {
    let began = |claimed_at: Now| {
        let mut watcher = watcher();
        let mut request = request(1, "n3");
        (request.boot_id, request.deadline_boottime_ms) = (None, None);
        see(&mut watcher, &request, NOON);
        executes(&watcher.handle(Event::Claim(name(&request), claimed(&request)), claimed_at))
    };
    assert!(began(at(159_999)));
    assert!(!began(at(160_000)));
    assert!(!began(Now { boot_ms: 100_001, wall_ms: WALL_MS + 60_000 }));
    assert!(began(Now { boot_ms: 159_999, wall_ms: WALL_MS - 3_600_000 }));
    assert!(!began(Now { boot_ms: 160_000, wall_ms: WALL_MS - 3_600_000 }));
}

#[test]
fn a_device_with_addresses_counts_at_each_of_them_and_a_full_one_holds_up_no_other() {
    let mut bmcs = device("bmcs", "n[1-9]", 1);
    let chassis = |target: &str| (target.parse().unwrap(), "chassis".to_owned());
    let addresses: BTreeMap<NodeName, String> = [chassis("n1"), chassis("n2")].into();
    let of_its_own = |n: u32| (format!("n{n}").parse().unwrap(), format!("bmc-{n}"));
    bmcs.addresses =
        Some(PerTarget::Map(addresses.into_iter().chain((3..5).map(of_its_own)).collect()));
    let mut watcher = Watcher::new(watcher().settings, vec![bmcs]);

    let requests: Vec<_> =
        ["n1", "n2", "n3", "n2", "n4", "n1"].iter().zip(1..).map(|(t, n)| request(n, t)).collect();
    let mut begun = Vec::new();
    for request in &requests {
        begun.extend(claims(&see(&mut watcher, request, NOON)));
    }
    assert_eq!(begun, [&requests[0], &requests[2], &requests[4]].map(name));

    let over = watcher.handle(Event::Claim(name(&requests[2]), Claim::Gone), NOON);
    assert_eq!(claims(&over), [], "the chassis is busy all the same");
    let over = watcher.handle(Event::Claim(name(&requests[0]), Claim::Gone), NOON);
    assert_eq!(claims(&over), [name(&requests[1])]);
}

#[test]
fn a_request_whose_target_another_device_is_busy_with_lets_the_next_one_pass() {
    let devices = vec![device("one", "n[1-9]", 1), device("other", "n[1-9]", 1)];
    let mut watcher = Watcher::new(watcher().settings, devices);
    let on = |number, target, device: &str| Request {
        device: Some(device.into()),
        ..request(number, target)
    };
    let first = on(1, "n1", "one");
    for request in [&first, &on(2, "n2", "other"), &on(3, "n2", "one"), &on(4, "n3", "one")] {
        see(&mut watcher, request, NOON);
    }
    let effects = watcher.handle(Event::Claim(name(&first), Claim::Gone), NOON);
    assert_eq!(claims(&effects), [name(&on(4, "n3", "one"))]);
}

#[test]
fn what_stood_aside_for_a_busy_target_is_not_forgotten_when_its_forerunner_goes() {
    let mut watcher = watcher();
    let requests: Vec<_> = (1..=4).map(|n| request(n, "n1")).collect();
    for request in &requests {
        see(&mut watcher, request, NOON);
    }
    let second = name(&requests[1]);
    watcher.handle(Event::Seen(second, Sight::Gone), NOON);
    let effects = watcher.handle(Event::Claim(name(&requests[0]), Claim::Gone), NOON);
    assert_eq!(claims(&effects), [name(&requests[2])]);
    let effects = watcher.handle(Event::Claim(name(&requests[2]), Claim::Gone), NOON);
    assert_eq!(claims(&effects), [name(&requests[3])]);
}

#[test]
fn a_request_that_waits_too_long_for_its_turn_is_answered_expired() {
    let mut watcher = watcher();
    let (first, second) = (request(1, "n1"), request(2, "n2"));
    see(&mut watcher, &first, NOON);
    assert!(see(&mut watcher, &second, NOON).is_empty());

    assert_eq!(watcher.next_tick_boot_ms(), Some(150_000));
    let effects = watcher.handle(Event::Tick, at(150_000));
    assert_eq!(answer_in(&effects).result, FenceResult::Expired);
    assert_eq!(answer_in(&effects).request_id, Some(second.request_id));
}

#[test]
fn a_full_disk_delays_an_answer_and_loses_none() {
    let mut watcher = watcher();
    let request = request(1, "n3");
    let record = name(&request);
    see(&mut watcher, &request, NOON);
    watcher.handle(Event::Claim(record.clone(), claimed(&request)), NOON);
    watcher.handle(Event::Finished(record.clone(), verdict(FenceResult::Success)), NOON);

    let full = Event::Answered(record.clone(), Err("no space".into()));
    assert!(matches!(&watcher.handle(full, NOON)[..], [Effect::Note(..)]));
    assert!(watcher.handle(Event::Tick, at(100_999)).is_empty());
    let effects = watcher.handle(Event::Tick, at(101_000));
    assert_eq!(answer_in(&effects).result, FenceResult::Success);
    let effects = watcher.handle(Event::Answered(record.clone(), Ok(())), at(101_001));
    assert_eq!(effects[0], Effect::RemoveClaimed(record));
}

#[test]
fn what_was_claimed_before_a_crash_is_answered_interrupted_and_not_run() {
    let mut watcher = watcher();
    let request = request(1, "n3");
    let event = Event::Recovered(name(&request), content(Ok(request.clone())));
    let effects = watcher.handle(event, NOON);
    assert_eq!(answer_in(&effects).result, FenceResult::Interrupted);
    assert_eq!(effects.len(), 1);

    // Its identity under another file name is not run either, before the answer is written.
    let again = Event::Seen("again".parse().unwrap(), content(Ok(request.clone())));
    assert!(claims(&watcher.handle(again, NOON)).is_empty());

    let answered = Event::Recovered("b".parse().unwrap(), Sight::Answered);
    let effects = watcher.handle(answered, NOON);
    assert_eq!(effects, [Effect::RemoveClaimed("b".parse().unwrap())]);
}

#[test]
fn a_pending_request_whose_answer_exists_is_removed_and_not_run() {
    let record: RecordName = "a".parse().unwrap();
    let effects = watcher().handle(Event::Seen(record.clone(), Sight::Answered), NOON);
    assert_eq!(effects.last(), Some(&Effect::RemovePending(record)));
    assert!(claims(&effects).is_empty());
}

#[test]
fn an_identity_that_is_under_way_is_not_run_under_another_name() {
    let mut watcher = watcher();
    let request = request(1, "n3");
    see(&mut watcher, &request, NOON);
    let again = Event::Seen("again".parse().unwrap(), content(Ok(request)));
    let effects = watcher.handle(again, NOON);
    assert_eq!(effects.last(), Some(&Effect::RemovePending("again".parse().unwrap())));
}

#[test]
fn a_look_that_failed_for_the_moment_is_repeated_soon() {
    let mut watcher = watcher();
    let record = name(&request(1, "n3"));
    let half = content(Err(Rejection::of(RequestError::Incomplete)));
    watcher.handle(Event::Seen(record.clone(), half), NOON);
    let look = watcher.next_tick_boot_ms().unwrap();

    // The disk reports nothing of the first look.
    assert_eq!(watcher.handle(Event::Tick, at(look)), [Effect::Look(record.clone())]);

    let again = watcher.next_tick_boot_ms().unwrap();
    assert_eq!(again, look + DISK_RETRY_MS);
    assert_eq!(watcher.handle(Event::Tick, at(again)), [Effect::Look(record)]);
}

#[test]
fn a_half_written_request_is_looked_at_again_and_then_refused() {
    let half = || content(Err(Rejection::of(RequestError::Incomplete)));
    let record: RecordName = "67e55044-10b1-426f-9247-000000000001".parse().unwrap();
    let mut watcher = watcher();
    assert!(watcher.handle(Event::Seen(record.clone(), half()), NOON).is_empty());
    let look = watcher.next_tick_boot_ms().unwrap();
    assert_eq!(watcher.handle(Event::Tick, at(look)), [Effect::Look(record.clone())]);
    assert!(watcher.handle(Event::Seen(record.clone(), half()), at(look)).is_empty());

    let end = at(100_000 + WRITE_GRACE_MS);
    let effects = watcher.handle(Event::Seen(record.clone(), half()), end);
    assert_eq!(answer_in(&effects).result, FenceResult::Rejected);
    assert_eq!(answer_in(&effects).request_id.as_ref().unwrap().as_str(), record.as_str());
    let effects = watcher.handle(Event::Answered(record.clone(), Ok(())), end);
    assert!(matches!(&effects[0], Effect::SetAside(..)));
}

#[test]
fn a_request_that_becomes_whole_while_it_is_watched_is_executed_once() {
    let mut watcher = watcher();
    let request = request(1, "n3");
    let half = content(Err(Rejection::of(RequestError::Incomplete)));
    watcher.handle(Event::Seen(name(&request), half), NOON);
    assert_eq!(claims(&see(&mut watcher, &request, at(100_100))), [name(&request)]);
    // The timer of the half-written state must not touch the state that came after it.
    assert!(watcher.handle(Event::Tick, at(149_999)).is_empty());
}

#[test]
fn text_that_can_never_become_a_request_is_refused_at_once() {
    let wrong = content(Err(Rejection::of(RequestError::NotJson("x".into()))));
    let effects = watcher().handle(Event::Seen("a".parse().unwrap(), wrong), NOON);
    assert_eq!(answer_in(&effects).result, FenceResult::Rejected);
}

#[test]
fn questions_are_asked_and_never_claimed() {
    let mut watcher = watcher();
    let mut request = request(1, "n3");
    request.action = Requested::Inquiry("status");
    let effects = see(&mut watcher, &request, NOON);
    assert!(matches!(&effects[..], [Effect::Inquire(..)]));
    let said = Event::Inquired(name(&request), true, "n3 is on".into());
    let effects = watcher.handle(said, NOON);
    assert_ne!(answer_in(&effects).result, FenceResult::Success);
}

#[test]
fn a_stopping_watcher_claims_nothing_and_leaves_pending_what_is_pending() {
    let mut watcher = watcher();
    watcher.handle(Event::Stop(None), NOON);
    assert!(see(&mut watcher, &request(1, "n3"), NOON).is_empty());
    assert!(watcher.is_idle());
}

#[test]
fn a_watcher_that_is_to_end_serves_free_lanes_until_what_ran_then_is_over() {
    let mut watcher = watcher();
    let (slow, quick) = (request(1, "n1"), request(2, "m1"));
    see(&mut watcher, &slow, NOON);
    watcher.handle(Event::Claim(name(&slow), claimed(&slow)), NOON);
    assert!(watcher.handle(Event::Stop(Some(130_000)), NOON).is_empty());

    assert_eq!(claims(&see(&mut watcher, &quick, NOON)), [name(&quick)]);
    watcher.handle(Event::Claim(name(&quick), claimed(&quick)), NOON);
    let done = Event::Finished(name(&slow), verdict(FenceResult::Success));
    watcher.handle(done, at(101_000));
    // What was begun meanwhile is finished, and does not keep the watcher for still others.
    assert!(claims(&see(&mut watcher, &request(3, "m2"), at(101_000))).is_empty());
    assert!(!watcher.is_idle());
}

#[test]
fn a_watcher_that_is_to_end_serves_nothing_when_its_time_is_over_and_nothing_when_nothing_ran() {
    let mut watcher = watcher();
    let slow = request(1, "n1");
    see(&mut watcher, &slow, NOON);
    watcher.handle(Event::Claim(name(&slow), claimed(&slow)), NOON);
    watcher.handle(Event::Stop(Some(130_000)), NOON);
    assert!(claims(&see(&mut watcher, &request(2, "m1"), at(130_000))).is_empty());

    let mut idle = super::tests::watcher();
    idle.handle(Event::Stop(Some(130_000)), NOON);
    assert!(claims(&see(&mut idle, &request(2, "m1"), NOON)).is_empty());
}

#[test]
fn a_claim_that_the_disk_refused_is_tried_again_by_looking_afresh() {
    let mut watcher = watcher();
    let request = request(1, "n3");
    let record = name(&request);
    see(&mut watcher, &request, NOON);
    watcher.handle(Event::Claim(record.clone(), Claim::Failed("read-only".into())), NOON);
    assert_eq!(watcher.handle(Event::Tick, at(101_000)), [Effect::Look(record.clone())]);
    assert_eq!(claims(&see(&mut watcher, &request, at(101_000))), [record]);
}

fn reconfigure(watcher: &mut Watcher, devices: Vec<Device>) -> Vec<Effect> {
    let settings = watcher.settings.clone();
    watcher.handle(Event::Reconfigured(settings, devices), NOON)
}

/// A watcher with n1 running on the device pdu, and these requests waiting behind it.
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

#[test]
fn what_waits_is_routed_anew_by_a_new_configuration_and_what_runs_goes_on() {
    let waiting = [request(2, "n1"), request(3, "n2"), request(4, "n3")];
    let (mut watcher, first) = busy_with(&waiting);

    let effects = reconfigure(&mut watcher, vec![device("new", "n[1-2]", 1)]);

    // n1 is still busy, n2 may begin at once, and n3 has no device any more.
    assert_eq!(claims(&effects), [name(&waiting[1])]);
    let answer = answer_in(&effects);
    assert_eq!(answer.request_id, Some(waiting[2].request_id.clone()));
    assert_eq!(answer.result, FenceResult::Rejected);
    assert!(answer.message.contains("the configuration changed"), "{}", answer.message);
    let effects = watcher.handle(Event::Claim(name(&waiting[1]), Claim::Gone), NOON);
    assert_eq!(claims(&effects), []);

    let done = Event::Finished(name(&first), verdict(FenceResult::Success));
    let effects = watcher.handle(done, NOON);
    assert_eq!(answer_in(&effects).device.as_deref(), Some("pdu"));
    assert_eq!(claims(&effects), [name(&waiting[0])]);
    let claim = Event::Claim(name(&waiting[0]), claimed(&waiting[0]));
    let effects = watcher.handle(claim, NOON);
    assert!(matches!(&effects[..], [Effect::Execute(_, job)] if job.lane.device == "new"));
}

#[test]
fn a_request_that_names_a_device_is_not_given_to_another_one() {
    let named = Request { device: Some("pdu".into()), ..request(2, "n2") };
    let (mut watcher, _) = busy_with(std::slice::from_ref(&named));

    let effects = reconfigure(&mut watcher, vec![device("new", "n[1-9]", 9)]);

    assert_eq!(claims(&effects), []);
    assert_eq!(answer_in(&effects).result, FenceResult::Rejected);
}

#[test]
fn what_runs_counts_against_the_new_bounds_of_its_device() {
    let waiting: Vec<_> = (2..6).map(|n| request(n, &format!("n{n}"))).collect();
    let (mut watcher, first) = busy_with(&waiting);

    let effects = reconfigure(&mut watcher, vec![device("pdu", "n[1-9]", 3)]);
    assert_eq!(claims(&effects), [name(&waiting[0]), name(&waiting[1])]);

    assert_eq!(claims(&reconfigure(&mut watcher, vec![device("pdu", "n[1-9]", 2)])), []);
    let gone = |request| Event::Claim(name(request), Claim::Gone);
    assert_eq!(claims(&watcher.handle(gone(&waiting[0]), NOON)), [], "two are still under way");
    let done = Event::Finished(name(&first), verdict(FenceResult::Success));
    assert_eq!(claims(&watcher.handle(done, NOON)), [name(&waiting[2])]);
}

#[test]
fn a_request_keeps_its_deadline_and_its_place_when_the_configuration_changes() {
    let waiting = [request(2, "n3"), request(3, "n2")];
    let (mut watcher, first) = busy_with(&waiting);

    reconfigure(&mut watcher, vec![device("pdu", "n[1-9]", 1)]);

    assert_eq!(watcher.next_tick_boot_ms(), Some(150_000));
    let done = Event::Finished(name(&first), verdict(FenceResult::Success));
    assert_eq!(claims(&watcher.handle(done, NOON)), [name(&waiting[0])]);
}

/// A watcher with two devices that list their targets, and one for m1 to m9.
fn discovering() -> Watcher {
    let listing = |name| Device { coverage: Coverage::Discovered(None), ..device(name, "x", 1) };
    Watcher::new(watcher().settings, vec![listing("a"), device("bmc", "m[1-9]", 2), listing("b")])
}

fn nodes(list: &str) -> BTreeSet<NodeName> {
    fence_protocol::expand_hostlist(list).unwrap().into_iter().collect()
}

fn asks(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::AskTargets(device) => Some(device.as_str()),
            _ => None,
        })
        .collect()
}

/// Has everything looked at that the watcher wants to look at, and gives the claims that follow.
fn look(watcher: &mut Watcher, effects: &[Effect], requests: &[&Request]) -> Vec<RecordName> {
    let mut begun = claims(effects);
    for effect in effects {
        let Effect::Look(name_) = effect else { continue };
        let request = requests.iter().find(|request| name(request) == *name_).unwrap();
        begun.extend(claims(&see(watcher, request, NOON)));
    }
    begun
}

#[test]
fn a_list_is_asked_for_once_and_only_when_it_decides_where_a_request_goes() {
    let mut watcher = discovering();
    let covered = request(1, "m1");
    let named = Request { device: Some("b".into()), ..request(2, "n9") };
    for request in [&covered, &named] {
        let effects = see(&mut watcher, request, NOON);
        assert_eq!((claims(&effects), asks(&effects)), (vec![name(request)], vec![]));
    }

    let (first, second) = (request(3, "n3"), request(4, "n4"));
    let effects = see(&mut watcher, &first, NOON);
    assert_eq!((claims(&effects), asks(&effects)), (vec![], vec!["a", "b"]));
    let effects = see(&mut watcher, &second, NOON);
    assert_eq!((claims(&effects), asks(&effects)), (vec![], vec![]), "they are being asked");

    // Which device lists n3 decides, not which comes first.
    let effects = watcher.handle(Event::Targets("b".into(), Some(nodes("n[3,9]"))), NOON);
    assert_eq!(look(&mut watcher, &effects, &[&first, &second]), [], "b is busy with n9");
    let effects = watcher.handle(Event::Claim(name(&named), Claim::Gone), NOON);
    assert_eq!(claims(&effects), [name(&first)]);
    let effects = watcher.handle(Event::Targets("a".into(), Some(nodes("n5"))), NOON);
    let Some(Effect::Look(looked_at)) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(*looked_at, name(&second));
    assert_eq!(result_of(&mut watcher, &second, NOON), FenceResult::Rejected);
}

#[test]
fn a_device_that_gives_no_list_is_tried_and_not_asked_again_before_the_next_configuration() {
    let mut watcher = discovering();
    let (first, second, third) = (request(1, "n1"), request(2, "n2"), request(3, "n3"));
    see(&mut watcher, &first, NOON);
    watcher.handle(Event::Targets("a".into(), None), NOON);
    see(&mut watcher, &first, NOON);
    let effects = watcher.handle(Event::Targets("b".into(), None), NOON);
    assert_eq!(look(&mut watcher, &effects, &[&first]), [name(&first)]);

    let effects = see(&mut watcher, &second, NOON);
    assert_eq!(asks(&effects), [""; 0]);
    assert_eq!(
        claims(&watcher.handle(Event::Claim(name(&first), Claim::Gone), NOON)),
        [name(&second)]
    );

    let devices = discovering().devices;
    reconfigure(&mut watcher, devices);
    assert_eq!(asks(&see(&mut watcher, &third, NOON)), ["a", "b"]);
}

#[test]
fn a_request_waits_for_a_list_only_for_so_long() {
    let mut watcher = discovering();
    let request = request(1, "n1");
    see(&mut watcher, &request, NOON);

    let until = watcher.next_tick_boot_ms().unwrap();
    assert!(until < 150_000);
    assert_eq!(watcher.handle(Event::Tick, at(until)), [Effect::Look(name(&request))]);
    assert_eq!(claims(&see(&mut watcher, &request, at(until))), [name(&request)]);
}

/// A watcher whose devices a and b listed n1 and n2 at [`NOON`].
fn having_listed() -> Watcher {
    let mut watcher = discovering();
    watcher.handle(Event::Targets("a".into(), Some(nodes("n1"))), NOON);
    watcher.handle(Event::Targets("b".into(), Some(nodes("n2"))), NOON);
    watcher
}

/// When the lists of [`NOON`] are old.
const LATER: u64 = 105_000;

#[test]
fn a_target_that_is_missing_from_old_lists_is_asked_for_again_before_it_is_refused() {
    for named in [None, Some("b")] {
        let mut watcher = having_listed();
        let listed = Request { device: named.map(Into::into), ..request(1, "n2") };
        assert_eq!(asks(&see(&mut watcher, &listed, at(LATER))), [""; 0], "it is in a list");
        let new = Request { device: named.map(Into::into), ..request(2, "n3") };
        let effects = see(&mut watcher, &new, at(LATER));
        let asked = named.map_or(vec!["a", "b"], |name| vec![name]);
        assert_eq!((claims(&effects), asks(&effects)), (vec![], asked), "{named:?}");

        watcher.handle(Event::Claim(name(&listed), Claim::Gone), at(LATER));
        let targets = Event::Targets("b".into(), Some(nodes("n[2-3]")));
        let effects = watcher.handle(targets, at(LATER + 1));
        assert_eq!(effects, [Effect::Look(name(&new))]);
        assert_eq!(claims(&see(&mut watcher, &new, at(LATER + 1))), [name(&new)]);
    }
}

#[test]
fn a_list_that_is_younger_than_the_request_is_taken_at_its_word() {
    let mut watcher = having_listed();
    let (first, second) = (request(1, "n3"), request(2, "n4"));
    let named = Request { device: Some("b".into()), ..request(3, "n3") };
    assert_eq!(asks(&see(&mut watcher, &first, at(LATER))), ["a", "b"]);
    assert_eq!(asks(&see(&mut watcher, &named, at(LATER))), [""; 0], "b is being asked");

    // One gives its list, the other gives none.
    watcher.handle(Event::Targets("a".into(), Some(nodes("n1"))), at(LATER + 1));
    watcher.handle(Event::Targets("b".into(), None), at(LATER + 1));

    for request in [&first, &named] {
        assert_eq!(result_of(&mut watcher, request, at(LATER + 1)), FenceResult::Rejected);
    }
    assert_eq!(asks(&see(&mut watcher, &second, at(LATER + 5_001))), ["a", "b"]);
}

#[test]
fn a_device_is_asked_for_missing_targets_only_now_and_then() {
    let mut watcher = having_listed();
    let waiting = [request(1, "n3"), request(2, "n4")];
    for request in &waiting {
        let effects = see(&mut watcher, request, at(LATER - 1_000));
        assert_eq!(effects, [], "the lists are of NOON, and fresh");
    }
    assert_eq!(watcher.next_tick_boot_ms(), Some(LATER));

    let effects = watcher.handle(Event::Tick, at(LATER));
    assert_eq!(effects, waiting.each_ref().map(|request| Effect::Look(name(request))));
    assert_eq!(asks(&see(&mut watcher, &waiting[0], at(LATER))), ["a", "b"]);
    assert_eq!(see(&mut watcher, &waiting[1], at(LATER)), []);

    // One that says nothing is not asked again, and not waited for, until its answer is hopeless.
    let late = request(3, "n5");
    assert_eq!(result_of(&mut watcher, &late, at(LATER + 6_000)), FenceResult::Rejected);
    let later = Request { deadline_boottime_ms: Some(LATER + 90_000), ..request(4, "n5") };
    assert_eq!(asks(&see(&mut watcher, &later, at(LATER + 30_000))), ["a", "b"]);
}

#[test]
fn a_missing_target_is_waited_for_only_for_so_long_and_never_beyond_its_deadline() {
    let mut watcher = having_listed();
    let patient = request(1, "n3");
    let hasty = Request { deadline_boottime_ms: Some(LATER + 1_000), ..request(2, "n4") };
    see(&mut watcher, &patient, at(LATER));
    see(&mut watcher, &hasty, at(LATER));

    assert_eq!(watcher.next_tick_boot_ms(), Some(LATER + 1_000));
    let effects = watcher.handle(Event::Tick, at(LATER + 1_000));
    assert_eq!(effects, [Effect::Look(name(&hasty))]);
    assert_eq!(result_of(&mut watcher, &hasty, at(LATER + 1_000)), FenceResult::Expired);
    let until = watcher.next_tick_boot_ms().unwrap();
    assert_eq!(watcher.handle(Event::Tick, at(until)), [Effect::Look(name(&patient))]);
    assert_eq!(result_of(&mut watcher, &patient, at(until)), FenceResult::Rejected);
}

#[test]
fn no_device_is_asked_again_for_a_target_that_another_one_has() {
    let mut devices = discovering().devices;
    devices[0].coverage = Coverage::Discovered(Some(nodes("n1")));
    let (known, unknown): (NodeName, NodeName) = ("m1".parse().unwrap(), "n9".parse().unwrap());
    // b has not listed its targets yet: whether a has got the target since decides all the same.
    assert_eq!(outdated(&devices, None, &unknown), ["a"]);
    assert_eq!(unlisted(&devices, None, &unknown), ["b"]);
    assert_eq!(outdated(&devices, Some("a"), &unknown), ["a"]);
    assert_eq!(outdated(&devices, Some("bmc"), &unknown), [""; 0]);
    devices[2].here = false;
    assert_eq!(outdated(&devices, None, &unknown), ["a"]);
    assert_eq!(outdated(&devices, None, &known), [""; 0]);
    assert_eq!(outdated(&devices, Some("b"), &unknown), [""; 0], "it is not for this node");
}

#[test]
fn a_new_configuration_whose_devices_list_their_targets_is_waited_for() {
    let waiting = [request(2, "n2")];
    let (mut watcher, _) = busy_with(&waiting);

    let effects = reconfigure(&mut watcher, discovering().devices);

    assert_eq!(effects, [Effect::Look(name(&waiting[0]))]);
    assert_eq!(asks(&see(&mut watcher, &waiting[0], NOON)), ["a", "b"]);
    let effects = watcher.handle(Event::Targets("b".into(), Some(nodes("n2"))), NOON);
    assert_eq!(look(&mut watcher, &effects, &[&waiting[0]]), [name(&waiting[0])]);
}

#[test]
fn the_first_device_that_covers_a_target_serves_it() {
    let second = device("second", "n[1-9]", 1);
    let settings = Settings { boot_id: "this".into(), default_deadline_ms: 1, max_running: 1 };
    let mut first = device("first", "n[1-9]", 1);
    let chosen = |first: &Device, second: &Device| {
        let mut watcher = Watcher::new(settings.clone(), vec![first.clone(), second.clone()]);
        see(&mut watcher, &request(1, "n3"), NOON);
        let effects =
            watcher.handle(Event::Claim(name(&request(1, "n3")), claimed(&request(1, "n3"))), NOON);
        effects.into_iter().find_map(|effect| match effect {
            Effect::Execute(_, job) => Some(job.lane.device),
            _ => None,
        })
    };
    assert_eq!(chosen(&first, &second).as_deref(), Some("first"));
    first.here = false;
    assert_eq!(chosen(&first, &second).as_deref(), Some("second"));
    // A device that has not listed its targets yet is not asked when another one is sure.
    first.here = true;
    first.coverage = Coverage::Discovered(None);
    assert_eq!(chosen(&first, &second).as_deref(), Some("second"));
}
