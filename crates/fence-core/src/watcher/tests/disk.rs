//! Refusals of the disk, half-written requests, crashes, and the end of the watcher.

use super::*;

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
fn a_request_claimed_before_a_crash_is_answered_interrupted_and_not_run() {
    let mut watcher = watcher();
    let request = request(1, "n3");
    let event = Event::Recovered(name(&request), content(Ok(request.clone())));
    let effects = watcher.handle(event, NOON);
    assert_eq!(answer_in(&effects).result, FenceResult::Interrupted);
    assert_eq!(effects.len(), 1);

    // The same identity under another file name is not run either, until the answer is written.
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

    // The disk reports nothing for the first look.
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
fn a_request_that_becomes_complete_while_it_is_watched_is_executed_once() {
    let mut watcher = watcher();
    let request = request(1, "n3");
    let half = content(Err(Rejection::of(RequestError::Incomplete)));
    watcher.handle(Event::Seen(name(&request), half), NOON);
    assert_eq!(claims(&see(&mut watcher, &request, at(100_100))), [name(&request)]);
    // The timer of the half-written state must not touch the later state.
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
fn a_stopping_watcher_claims_nothing_and_leaves_pending_requests() {
    let mut watcher = watcher();
    watcher.handle(Event::Stop(None), NOON);
    assert!(see(&mut watcher, &request(1, "n3"), NOON).is_empty());
    assert!(watcher.is_idle());
}

#[test]
fn a_stopping_watcher_serves_free_lanes_until_the_running_executions_have_ended() {
    let mut watcher = watcher();
    let (slow, quick) = (request(1, "n1"), request(2, "m1"));
    see(&mut watcher, &slow, NOON);
    watcher.handle(Event::Claim(name(&slow), claimed(&slow)), NOON);
    assert!(watcher.handle(Event::Stop(Some(130_000)), NOON).is_empty());

    assert_eq!(claims(&see(&mut watcher, &quick, NOON)), [name(&quick)]);
    watcher.handle(Event::Claim(name(&quick), claimed(&quick)), NOON);
    let done = Event::Finished(name(&slow), verdict(FenceResult::Success));
    watcher.handle(done, at(101_000));
    // Requests that were started meanwhile are finished, but do not keep the watcher running for
    // others.
    assert!(claims(&see(&mut watcher, &request(3, "m2"), at(101_000))).is_empty());
    assert!(!watcher.is_idle());
}

#[test]
fn a_stopping_watcher_serves_nothing_after_its_limit_or_if_nothing_ran() {
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
fn a_claim_that_the_disk_refused_is_tried_again_after_a_new_look() {
    let mut watcher = watcher();
    let request = request(1, "n3");
    let record = name(&request);
    see(&mut watcher, &request, NOON);
    watcher.handle(Event::Claim(record.clone(), Claim::Failed("read-only".into())), NOON);
    assert_eq!(watcher.handle(Event::Tick, at(101_000)), [Effect::Look(record.clone())]);
    assert_eq!(claims(&see(&mut watcher, &request, at(101_000))), [record]);
}
