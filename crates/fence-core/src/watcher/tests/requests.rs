//! The answer to each request, and when it is executed.

use super::*;

#[test]
fn each_answer_carries_its_request() {
    let wanted = request(1, "n3");
    let record = name(&wanted);
    let with = |claim: Claim, later: Now| {
        let mut watcher = watcher();
        see(&mut watcher, &wanted, NOON);
        let effects = watcher.handle(Event::Claim(record.clone(), claim), later);
        (watcher, effects)
    };
    // Executed, and written a second time after a full disk.
    let (mut watcher, _) = with(claimed(&wanted), NOON);
    let done = Event::Finished(record.clone(), verdict(FenceResult::Success));
    assert_eq!(answered_request(&watcher.handle(done, NOON)), Some(&wanted));
    watcher.handle(Event::Answered(record.clone(), Err("full".into())), NOON);
    assert_eq!(answered_request(&watcher.handle(Event::Tick, at(102_000))), Some(&wanted));
    // Refused after the claim, by the content of the claimed file or by what was seen before.
    let other = Request { recorder_node: "other".into(), ..wanted.clone() };
    let unreadable = Err(Rejection::of(RequestError::Incomplete));
    for (parsed, expected) in [(Ok(other.clone()), &other), (unreadable, &wanted)] {
        let claim = Claim::Claimed { parsed, client_gone: true, begun_before: false };
        assert_eq!(answered_request(&with(claim, NOON).1), Some(expected));
    }
    // Refused while pending: at once, after some time, or after a new configuration.
    let pending = |request: &Request| see(&mut super::tests::watcher(), request, NOON);
    let unknown = Request { device: Some("nosuch".into()), ..wanted.clone() };
    assert_eq!(answered_request(&pending(&unknown)), Some(&unknown));
    // Left by another watcher, or not a request at all.
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
fn a_request_that_must_not_start_is_answered_with_its_own_result() {
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
    // The clock was set back since the request was written, or is wrong: its age is unknown.
    for ahead_ms in [1_001, 3_600_000, 300_000_000_000] {
        assert!(!old(WALL_MS, WALL_MS + ahead_ms, NOON));
        assert!(!old(WALL_MS + ahead_ms, WALL_MS, NOON));
    }
    // A client may round its timestamp up, but gains nothing by it.
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
fn the_answer_to_an_invalid_file_has_its_readable_members() {
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
