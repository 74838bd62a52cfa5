//! The power-on that follows the answer to a reboot.

use super::*;
use crate::execution::Off;
use crate::watcher::OnResult;
use fence_protocol::FenceAction;

fn asks_for(action: FenceAction, number: u32, target: &str) -> Request {
    Request { action: Requested::Fence(action), ..request(number, target) }
}

fn reboot(number: u32, target: &str) -> Request {
    asks_for(FenceAction::Reboot, number, target)
}

/// A target that is off at this instant, and awaits its power-on.
fn off_at(at_boot_ms: u64) -> Verdict {
    Verdict {
        off: Some(Off { at_boot_ms, verified: true, on_followed: false }),
        on_follows: true,
        ..verdict(FenceResult::Success)
    }
}

fn begin(watcher: &mut Watcher, request: &Request) {
    see(watcher, request, NOON);
    let effects = watcher.handle(Event::Claim(name(request), claimed(request)), NOON);
    assert!(executes(&effects), "{effects:?}");
}

fn finish(watcher: &mut Watcher, request: &Request) -> Vec<Effect> {
    watcher.handle(Event::Finished(name(request), off_at(101_000)), at(101_000))
}

fn answered(watcher: &mut Watcher, request: &Request) -> Vec<Effect> {
    watcher.handle(Event::Answered(name(request), Ok(())), at(101_001))
}

/// The watcher in which the power-on of `request` is under way.
fn ordered(request: &Request) -> Watcher {
    let mut watcher = watcher();
    begin(&mut watcher, request);
    finish(&mut watcher, request);
    assert!(powers_on(&answered(&mut watcher, request)));
    watcher
}

fn powers_on(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::PowerOn(_)))
}

/// The outcomes of power-ons, in the audit's words.
fn results(effects: &[Effect]) -> Vec<&'static str> {
    let result = |effect: &Effect| match effect {
        Effect::Returned(_, result) => Some(result.as_str()),
        _ => None,
    };
    effects.iter().filter_map(result).collect()
}

#[test]
fn the_power_on_is_ordered_when_the_answer_is_on_the_disk() {
    let mut watcher = watcher();
    let request = reboot(1, "n1");
    begin(&mut watcher, &request);

    let effects = finish(&mut watcher, &request);
    assert_eq!(answer_in(&effects).result, FenceResult::Success);
    assert!(!powers_on(&effects), "the answer is not on the disk");

    let failed = Event::Answered(name(&request), Err("full".to_owned()));
    assert!(!powers_on(&watcher.handle(failed, at(101_001))));
    watcher.handle(Event::Tick, at(105_000));

    let effects = answered(&mut watcher, &request);
    let steps: Vec<_> = effects.iter().map(std::mem::discriminant).collect();
    let keep = Effect::KeepReturning(name(&request), request.request_id.clone());
    assert_eq!(steps[0], std::mem::discriminant(&keep), "{effects:?}");
    assert!(matches!(effects[1], Effect::PowerOn(_)), "{effects:?}");
    assert!(!effects.contains(&Effect::RemoveClaimed(name(&request))), "{effects:?}");
    assert!(!watcher.is_idle());

    assert!(watcher.handle(Event::OnOrdered(request.request_id.clone()), NOON).is_empty());
    let over = Event::OnOver(request.request_id.clone(), verdict(FenceResult::Success));
    let effects = watcher.handle(over, NOON);
    assert_eq!(results(&effects), ["on"]);
    assert!(effects.contains(&Effect::ForgetReturning(request.request_id)), "{effects:?}");
    assert!(watcher.is_idle());
}

#[test]
fn a_power_on_that_is_not_ordered_is_dropped_for_a_fence_that_waits() {
    for (second, target) in [(2, "n1"), (3, "n2")] {
        let mut watcher = watcher();
        let (first, second) = (reboot(1, "n1"), reboot(second, target));
        begin(&mut watcher, &first);
        finish(&mut watcher, &first);
        // Seen after the target was off: a new death, or another target of the device's only lane.
        let effects = see(&mut watcher, &second, at(102_000));
        assert_eq!(claims(&effects), [name(&second)]);

        let effects = answered(&mut watcher, &first);
        assert_eq!((results(&effects), powers_on(&effects)), (vec!["not ordered"], false));
        // The record is removed after the outcome is durable, so that a crash does not lose the
        // outcome.
        let id = first.request_id.clone();
        let kept = Effect::KeepReturning(name(&first), id.clone());
        assert_eq!(effects.first(), Some(&kept));
        assert!(effects.contains(&Effect::ForgetReturning(id)), "{effects:?}");
    }
}

#[test]
fn a_fence_waits_for_an_ordered_power_on_until_the_device_has_reacted() {
    let first = reboot(1, "n1");
    let mut watcher = ordered(&first);
    let second = reboot(2, "n1");
    let called_back = Effect::EndPowerOn(first.request_id.clone());
    assert_eq!(see(&mut watcher, &second, at(102_000)), [called_back]);
    let waits = watcher.handle(Event::Tick, at(102_500));
    assert!(waits.is_empty(), "the order is under way");

    let effects = watcher.handle(Event::OnOrdered(first.request_id.clone()), at(103_000));
    assert_eq!((results(&effects), claims(&effects)), (vec!["not confirmed"], vec![name(&second)]));
    assert!(effects.contains(&Effect::EndPowerOn(first.request_id.clone())), "{effects:?}");
    // No request waits for a later report of its worker.
    let late = Event::OnOver(first.request_id, verdict(FenceResult::Success));
    assert!(watcher.handle(late, at(104_000)).is_empty());
}

#[test]
fn a_fence_elsewhere_leaves_a_power_on_alone() {
    let mut watcher =
        Watcher::new(watcher().settings, vec![device("one", "n1", 1), device("other", "n2", 1)]);
    let (first, second) = (reboot(1, "n1"), reboot(2, "n2"));
    begin(&mut watcher, &first);
    finish(&mut watcher, &first);
    let effects = see(&mut watcher, &second, at(102_000));
    assert_eq!((results(&effects), claims(&effects)), (vec![], vec![name(&second)]));
    assert!(powers_on(&answered(&mut watcher, &first)));
}

#[test]
fn an_off_that_waits_is_settled_and_keeps_its_target_off() {
    let mut watcher = watcher();
    let (first, off) = (reboot(1, "n1"), asks_for(FenceAction::Off, 2, "n1"));
    begin(&mut watcher, &first);
    see(&mut watcher, &off, at(100_500));

    let effects = finish(&mut watcher, &first);
    assert_eq!(claims(&effects), [name(&off)]);
    let effects = watcher.handle(Event::Claim(name(&off), claimed(&off)), at(101_000));
    assert_eq!(answer_in(&effects).action_performed, "off");
    assert_eq!(results(&answered(&mut watcher, &first)), ["not ordered"]);
}

#[test]
fn a_reboot_that_waits_is_settled_and_its_target_comes_back() {
    let mut watcher = watcher();
    let (first, second) = (reboot(1, "n1"), reboot(2, "n1"));
    begin(&mut watcher, &first);
    see(&mut watcher, &second, at(100_500));

    let effects = finish(&mut watcher, &first);
    assert_eq!((results(&effects), claims(&effects)), (vec![], vec![name(&second)]));
    assert!(powers_on(&answered(&mut watcher, &first)));
    let effects = watcher.handle(Event::Claim(name(&second), claimed(&second)), at(101_002));
    assert_eq!(answer_in(&effects).result, FenceResult::Success);
}

#[test]
fn a_watcher_that_stops_orders_no_power_on_and_waits_for_one_that_is_under_way() {
    let first = reboot(1, "n1");
    let mut early = watcher();
    begin(&mut early, &first);
    early.handle(Event::Stop(None), NOON);
    finish(&mut early, &first);
    let effects = answered(&mut early, &first);
    assert_eq!((results(&effects), powers_on(&effects)), (vec!["not ordered"], false));
    assert!(early.is_idle());

    let mut late = ordered(&first);
    assert!(results(&late.handle(Event::Stop(None), at(102_000))).is_empty());
    assert!(!late.is_idle(), "the order is under way");
    let effects = late.handle(Event::OnOrdered(first.request_id), at(103_000));
    assert_eq!(results(&effects), ["not confirmed"]);
    assert!(late.is_idle());
}

#[test]
fn a_power_on_that_the_previous_watcher_left_is_reported_and_not_ordered() {
    let request = reboot(1, "n1");
    let effects = watcher().handle(Event::LeftReturning(request.clone()), NOON);
    assert_eq!(
        effects,
        [
            Effect::Returned(request.clone(), OnResult::Unknown),
            Effect::ForgetReturning(request.request_id)
        ]
    );
}

#[test]
fn a_power_on_that_is_called_back_before_the_device_got_it_was_not_ordered() {
    let first = reboot(1, "n1");
    let mut watcher = ordered(&first);
    let second = reboot(2, "n1");
    see(&mut watcher, &second, at(102_000));

    let withdrawn = Verdict::failure(FenceResult::Withdrawn, "it was called back".to_owned());
    let effects = watcher.handle(Event::OnOver(first.request_id, withdrawn), at(102_100));

    assert_eq!((results(&effects), claims(&effects)), (vec!["not ordered"], vec![name(&second)]));
}

#[test]
fn no_target_is_brought_back_after_the_deadline_of_its_reboot() {
    let mut watcher = watcher();
    let request = reboot(1, "n1");
    begin(&mut watcher, &request);
    finish(&mut watcher, &request);
    let failed = Event::Answered(name(&request), Err("full".to_owned()));
    watcher.handle(failed, at(101_001));
    let late = at(request.deadline_boottime_ms.unwrap());
    watcher.handle(Event::Tick, late);

    let effects = watcher.handle(Event::Answered(name(&request), Ok(())), late);

    assert_eq!((results(&effects), powers_on(&effects)), (vec!["not ordered"], false));
    assert!(watcher.is_idle());
}

#[test]
fn the_answer_under_another_name_for_the_same_identity_brings_no_target_back() {
    let mut watcher = watcher();
    let request = reboot(1, "n1");
    begin(&mut watcher, &request);
    finish(&mut watcher, &request);
    let failed = Event::Answered(name(&request), Err("full".to_owned()));
    watcher.handle(failed, at(101_001));
    let other: RecordName = format!("x-{}", request.request_id).parse().unwrap();
    let cut = Sight::Content(Box::new(Content {
        parsed: Err(Rejection::of(RequestError::NotJson("x".to_owned()))),
        changed: (1, 0),
    }));
    let effects = watcher.handle(Event::Seen(other.clone(), cut), at(101_002));
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Answer(name, ..) if *name == other))
    );

    let effects = watcher.handle(Event::Answered(other, Ok(())), at(101_003));

    assert!(!powers_on(&effects), "{effects:?}");
    assert!(!watcher.is_idle());
}

#[test]
fn a_watcher_that_waits_for_a_power_on_serves_free_lanes_meanwhile() {
    let mut watcher =
        Watcher::new(watcher().settings, vec![device("one", "n1", 1), device("other", "n2", 1)]);
    let request = reboot(1, "n1");
    begin(&mut watcher, &request);
    finish(&mut watcher, &request);
    assert!(powers_on(&answered(&mut watcher, &request)));
    watcher.handle(Event::Stop(Some(140_000)), at(102_000));

    let second = reboot(2, "n2");
    let effects = see(&mut watcher, &second, at(102_500));

    assert!(claims(&effects).contains(&name(&second)), "{effects:?}");
}
