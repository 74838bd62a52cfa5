//! Devices that list their targets.

use super::*;

/// A watcher with two devices that list their targets, and one for m1 to m9.
fn discovering() -> Watcher {
    let listing = |name| Device { coverage: Coverage::Discovered(None), ..device(name, "x", 1) };
    Watcher::new(watcher().settings, vec![listing("a"), device("bmc", "m[1-9]", 2), listing("b")])
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

/// Takes every look that the watcher asks for, and returns the resulting claims.
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

    // The route depends on which device lists n3, not on which device comes first.
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
fn a_device_without_a_list_is_tried_and_not_asked_again_before_the_next_configuration() {
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
fn a_request_waits_for_a_list_only_for_a_limited_time() {
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

/// The instant at which the lists of [`NOON`] are old.
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
fn a_list_that_is_newer_than_the_request_is_trusted() {
    let mut watcher = having_listed();
    let (first, second) = (request(1, "n3"), request(2, "n4"));
    let named = Request { device: Some("b".into()), ..request(3, "n3") };
    assert_eq!(asks(&see(&mut watcher, &first, at(LATER))), ["a", "b"]);
    assert_eq!(asks(&see(&mut watcher, &named, at(LATER))), [""; 0], "b is being asked");

    // One device returns its list, the other returns none.
    watcher.handle(Event::Targets("a".into(), Some(nodes("n1"))), at(LATER + 1));
    watcher.handle(Event::Targets("b".into(), None), at(LATER + 1));

    for request in [&first, &named] {
        assert_eq!(result_of(&mut watcher, request, at(LATER + 1)), FenceResult::Rejected);
    }
    assert_eq!(asks(&see(&mut watcher, &second, at(LATER + 5_001))), ["a", "b"]);
}

#[test]
fn a_device_is_asked_for_missing_targets_only_from_time_to_time() {
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

    // A device that does not respond is not asked again, and no request waits for it, until its
    // answer is hopeless.
    let late = request(3, "n5");
    assert_eq!(result_of(&mut watcher, &late, at(LATER + 6_000)), FenceResult::Rejected);
    let later = Request { deadline_boottime_ms: Some(LATER + 90_000), ..request(4, "n5") };
    assert_eq!(asks(&see(&mut watcher, &later, at(LATER + 30_000))), ["a", "b"]);
}

#[test]
fn the_wait_for_a_missing_target_is_bounded_and_ends_at_its_deadline() {
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
    // b has not listed its targets yet; the request still depends on whether a has received the
    // target since.
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
fn requests_wait_for_the_lists_of_a_new_configuration() {
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
    // A device that has not listed its targets yet is not asked if another device is certain.
    first.here = true;
    first.coverage = Coverage::Discovered(None);
    assert_eq!(chosen(&first, &second).as_deref(), Some("second"));
}
