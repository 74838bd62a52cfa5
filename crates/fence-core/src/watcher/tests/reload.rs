//! A new configuration.

use super::*;

#[test]
fn a_new_configuration_gives_waiting_requests_a_route_and_keeps_running_ones() {
    let waiting = [request(2, "n1"), request(3, "n2"), request(4, "n3")];
    let (mut watcher, first) = busy_with(&waiting);

    let effects = reconfigure(&mut watcher, vec![device("new", "n[1-2]", 1)]);

    // n1 is still busy, n2 may start at once, and n3 no longer has a device.
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
fn a_running_execution_counts_against_the_new_limits_of_its_device() {
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
