//! Which request is next.

use super::*;

#[test]
fn one_execution_per_target_and_a_bounded_number_per_device() {
    let mut watcher = watcher();
    let requests: Vec<_> =
        ["m1", "m1", "m2", "m3", "n1"].iter().zip(1..).map(|(t, n)| request(n, t)).collect();
    let mut begun = Vec::new();
    for request in &requests {
        begun.extend(claims(&see(&mut watcher, request, NOON)));
    }
    // m1's second request waits for m1, m3 waits for the device; n1 is on another device.
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
fn a_request_that_steps_aside_for_one_name_lets_the_next_of_its_other_name_pass() {
    // n1 and n2 have one plug; another device also knows n2.
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
    // The plug is still busy: the third request steps aside again, and must not delay the fourth.
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
fn a_device_with_addresses_counts_at_each_and_a_full_one_delays_no_other() {
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
fn a_request_that_stepped_aside_is_not_forgotten_when_its_forerunner_goes() {
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
