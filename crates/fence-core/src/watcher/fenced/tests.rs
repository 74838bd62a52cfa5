//! One death, one fence: which requests are settled, and which are executed.

use fence_protocol::Requested;

use super::super::tests::{
    NOON, answer_in, at, claimed, claims, device, executes, name, request, see, watcher,
};
use super::super::{Claim, Coverage, Device, Event, Sight};
use super::*;
use crate::PerTarget;

fn asks(action: FenceAction, number: u32, target: &str) -> Request {
    Request { action: Requested::Fence(action), ..request(number, target) }
}

/// The target was off at this instant, in an execution that succeeded.
fn off_at(at_boot_ms: u64, performed: &'static str) -> Verdict {
    Verdict {
        result: FenceResult::Success,
        verified: true,
        performed,
        message: String::new(),
        off: Some(Off { at_boot_ms, verified: true, on_followed: performed == "reboot" }),
        on_follows: false,
    }
}

/// Sees `first` and starts it.
fn begun(watcher: &mut Watcher, first: &Request) {
    see(watcher, first, NOON);
    let effects = watcher.handle(Event::Claim(name(first), claimed(first)), NOON);
    assert!(executes(&effects), "{effects:?}");
}

/// The answer to `second`, seen at 101 s, when an execution for `first` has switched the target off
/// at `off_ms`; `None` if `second` is executed.
fn second(first: &Request, second: &Request, off_ms: u64) -> Option<Answer> {
    let mut watcher = watcher();
    begun(&mut watcher, first);
    assert!(see(&mut watcher, second, at(101_000)).is_empty());
    let performed =
        if first.action == Requested::Fence(FenceAction::Off) { "off" } else { "reboot" };
    let finished = Event::Finished(name(first), off_at(off_ms, performed));
    let effects = watcher.handle(finished, at(105_000));
    assert_eq!(claims(&effects), [name(second)]);
    let claim = Event::Claim(name(second), claimed(second));
    let effects = watcher.handle(claim, at(105_000));
    (!executes(&effects)).then(|| answer_in(&effects).clone())
}

#[test]
fn a_request_that_was_seen_before_its_target_was_off_is_answered_and_not_executed() {
    use FenceAction::{Off, Reboot};
    for (first, asked, performed) in
        [(Off, Off, "off"), (Off, Reboot, "off"), (Reboot, Reboot, "reboot")]
    {
        let (first, asked) = (asks(first, 1, "n3"), asks(asked, 2, "n3"));
        let answer = second(&first, &asked, 101_000).unwrap();
        assert_eq!((answer.result, answer.verified), (FenceResult::Success, true));
        assert_eq!(answer.action_performed, performed);
        assert_eq!(answer.request_id, Some(asked.request_id));
        assert!(answer.message.contains(first.request_id.as_str()), "{}", answer.message);
    }
}

#[test]
fn a_request_that_came_after_its_target_was_off_is_executed() {
    let (first, asked) = (asks(FenceAction::Reboot, 1, "n3"), asks(FenceAction::Reboot, 2, "n3"));
    assert_eq!(second(&first, &asked, 100_999), None);
}

#[test]
fn an_off_is_not_settled_if_its_target_may_be_on_again() {
    let (first, asked) = (asks(FenceAction::Reboot, 1, "n3"), asks(FenceAction::Off, 2, "n3"));
    assert_eq!(second(&first, &asked, 104_000), None);
}

#[test]
fn an_off_is_settled_by_a_reboot_whose_target_stayed_off() {
    let (first, asked) = (asks(FenceAction::Reboot, 1, "n3"), asks(FenceAction::Off, 2, "n3"));
    let mut watcher = watcher();
    begun(&mut watcher, &first);
    see(&mut watcher, &asked, at(101_000));
    watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(103_000));
    let effects = watcher.handle(Event::Claim(name(&asked), claimed(&asked)), at(103_000));
    assert_eq!(answer_in(&effects).action_performed, "off");
}

#[test]
fn an_on_is_not_settled_by_a_fence() {
    let (first, asked) = (asks(FenceAction::Off, 1, "n3"), asks(FenceAction::On, 2, "n3"));
    assert_eq!(second(&first, &asked, 104_000), None);
}

#[test]
fn a_request_that_names_another_device_is_executed_there() {
    let devices = vec![device("one", "n[1-9]", 1), device("other", "n[1-9]", 1)];
    for (named, settled) in [("one", true), ("other", false)] {
        let mut watcher = Watcher::new(watcher().settings, devices.clone());
        let first = asks(FenceAction::Off, 1, "n3");
        begun(&mut watcher, &first);
        let asked = Request { device: Some(named.into()), ..asks(FenceAction::Off, 2, "n3") };
        see(&mut watcher, &asked, at(101_000));
        watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(102_000));
        let claim = Event::Claim(name(&asked), claimed(&asked));
        assert_eq!(executes(&watcher.handle(claim, at(102_000))), !settled, "{named}");
    }
}

#[test]
fn a_request_for_another_device_is_not_settled_by_a_named_device() {
    // Two switches, one for each power supply, and a BMC, which comes first.
    let devices = vec![device("bmc", "n[1-9]", 1), device("pdu-a", "n[1-9]", 1)];
    let mut watcher = Watcher::new(watcher().settings, devices);
    let first = Request { device: Some("pdu-a".into()), ..asks(FenceAction::Off, 1, "n3") };
    begun(&mut watcher, &first);
    let asked = asks(FenceAction::Off, 2, "n3");
    see(&mut watcher, &asked, at(101_000));
    watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(102_000));
    assert!(executes(&watcher.handle(Event::Claim(name(&asked), claimed(&asked)), at(102_000))));
}

#[test]
fn a_request_that_a_new_configuration_sends_to_the_device_that_did_it_is_settled() {
    let [bmc, pdu] = ["bmc", "pdu"].map(|name| device(name, "n[1-9]", 1));
    let mut watcher = Watcher::new(watcher().settings, vec![bmc, pdu.clone()]);
    let first = Request { device: Some("pdu".into()), ..asks(FenceAction::Off, 1, "n3") };
    begun(&mut watcher, &first);
    // The BMC is busy, so that the second request still waits when the first is done.
    see(&mut watcher, &asks(FenceAction::Off, 2, "n4"), NOON);
    let asked = asks(FenceAction::Off, 3, "n3");
    see(&mut watcher, &asked, at(101_000));
    watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(102_000));

    watcher.handle(Event::Reconfigured(watcher.settings.clone(), vec![pdu]), at(103_000));

    let effects = watcher.handle(Event::Claim(name(&asked), claimed(&asked)), at(103_000));
    assert_eq!(answer_in(&effects).result, FenceResult::Success);
}

#[test]
fn one_machine_under_two_names_dies_once() {
    let devices = vec![Device { coverage: Coverage::Any, ..device("pdu", "n1", 1) }];
    let mut watcher = Watcher::new(watcher().settings, devices);
    let first = asks(FenceAction::Reboot, 1, "n3");
    begun(&mut watcher, &first);
    let asked = asks(FenceAction::Reboot, 2, "N3.example.com");
    see(&mut watcher, &asked, at(101_000));
    watcher.handle(Event::Finished(name(&first), off_at(102_000, "reboot")), at(103_000));
    let effects = watcher.handle(Event::Claim(name(&asked), claimed(&asked)), at(103_000));
    assert_eq!(answer_in(&effects).target_node, asked.target_node);
    assert_eq!(answer_in(&effects).result, FenceResult::Success);
}

#[test]
fn two_nodes_whose_names_differ_by_their_domain_die_twice() {
    let devices = vec![Device { coverage: Coverage::Any, ..device("pdu", "n1", 1) }];
    for (one, other) in [("n3.dc1.example", "n3.dc2.example"), ("rack1.n3", "rack1.n4")] {
        let mut watcher = Watcher::new(watcher().settings, devices.clone());
        let first = asks(FenceAction::Off, 1, one);
        begun(&mut watcher, &first);
        let asked = asks(FenceAction::Off, 2, other);
        see(&mut watcher, &asked, at(101_000));
        watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(103_000));
        let claim = Event::Claim(name(&asked), claimed(&asked));
        assert!(executes(&watcher.handle(claim, at(103_000))), "{other}");
    }
}

#[test]
fn a_request_whose_plug_a_new_configuration_has_moved_is_executed_there() {
    let at_plug = |plug: &str| Device {
        plugs: Some(PerTarget::Pattern(plug.to_owned())),
        ..device("pdu", "n[1-9]", 1)
    };
    let at_address = |address: &str| Device {
        addresses: Some(PerTarget::Pattern(address.to_owned())),
        ..device("pdu", "n[1-9]", 1)
    };
    for (before, after, is_moved) in [
        (at_plug("1"), at_plug("2"), true),
        (at_plug("1"), at_plug("1"), false),
        (at_address("bmc-1"), at_address("bmc-2"), true),
        (device("pdu", "n[1-9]", 1), at_plug("1"), true),
    ] {
        let mut watcher = Watcher::new(watcher().settings, vec![before]);
        let (first, asked) = (asks(FenceAction::Off, 1, "n3"), asks(FenceAction::Off, 2, "n3"));
        begun(&mut watcher, &first);
        see(&mut watcher, &asked, at(101_000));
        let settings = watcher.settings.clone();
        watcher.handle(Event::Reconfigured(settings, vec![after]), at(101_500));
        let finished = Event::Finished(name(&first), off_at(102_000, "off"));
        let effects = watcher.handle(finished, at(102_000));
        assert_eq!(claims(&effects), [name(&asked)]);
        let claim = Event::Claim(name(&asked), claimed(&asked));
        assert_eq!(executes(&watcher.handle(claim, at(102_000))), is_moved);
    }
}

#[test]
fn an_off_after_an_on_is_not_settled_by_an_off_that_the_on_undoes() {
    let mut watcher = watcher();
    let (first, on) = (request(1, "n3"), asks(FenceAction::On, 2, "n3"));
    let off = request(3, "n3");
    begun(&mut watcher, &first);
    see(&mut watcher, &on, at(101_000));
    see(&mut watcher, &off, at(101_000));
    let finished = Event::Finished(name(&first), off_at(102_000, "off"));
    assert_eq!(claims(&watcher.handle(finished, at(102_000))), [name(&on)]);
    watcher.handle(Event::Claim(name(&on), claimed(&on)), at(102_000));
    let done = Verdict { off: None, ..off_at(0, "on") };
    let effects = watcher.handle(Event::Finished(name(&on), done), at(103_000));
    assert_eq!(claims(&effects), [name(&off)]);
    assert!(executes(&watcher.handle(Event::Claim(name(&off), claimed(&off)), at(103_000))));
}

#[test]
fn a_request_behind_another_target_is_answered_when_its_own_is_off() {
    let mut watcher = watcher();
    let (first, between, asked) = (request(1, "n1"), request(2, "n2"), request(3, "n1"));
    begun(&mut watcher, &first);
    see(&mut watcher, &between, NOON);
    see(&mut watcher, &asked, NOON);

    let finished = Event::Finished(name(&first), off_at(100_500, "off"));
    let effects = watcher.handle(finished, at(100_500));

    assert_eq!(claims(&effects), [name(&asked), name(&between)]);
    let effects = watcher.handle(Event::Claim(name(&asked), claimed(&asked)), at(100_500));
    assert_eq!(answer_in(&effects).result, FenceResult::Success);
    let effects = watcher.handle(Event::Claim(name(&between), claimed(&between)), at(100_500));
    assert!(executes(&effects));
}

#[test]
fn a_request_that_waits_for_another_look_keeps_the_instant_of_its_first() {
    let mut watcher = watcher();
    let (first, asked) = (request(1, "n3"), request(2, "n3"));
    begun(&mut watcher, &first);
    see(&mut watcher, &asked, at(101_000));
    watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(102_000));
    // The disk refuses the claim; the watcher looks at the request again a second later.
    let full = Event::Claim(name(&asked), Claim::Failed("no space".into()));
    watcher.handle(full, at(102_000));
    watcher.handle(Event::Tick, at(103_000));
    assert_eq!(claims(&see(&mut watcher, &asked, at(103_000))), [name(&asked)]);
    let effects = watcher.handle(Event::Claim(name(&asked), claimed(&asked)), at(103_000));
    assert_eq!(answer_in(&effects).result, FenceResult::Success);
}

#[test]
fn a_request_that_came_back_or_was_changed_is_a_new_one() {
    let comes_back = |between: &dyn Fn(&mut Watcher, &Request), second: &Request| {
        let mut watcher = watcher();
        let (first, asked) = (request(1, "n3"), request(2, "n3"));
        begun(&mut watcher, &first);
        see(&mut watcher, &asked, at(101_000));
        between(&mut watcher, &asked);
        see(&mut watcher, second, at(103_000));
        watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(104_000));
        executes(&watcher.handle(Event::Claim(name(second), claimed(second)), at(104_000)))
    };
    let nothing = |_: &mut Watcher, _: &Request| {};
    let gone = |watcher: &mut Watcher, asked: &Request| {
        watcher.handle(Event::Seen(name(asked), Sight::Gone), at(102_500));
    };
    assert!(!comes_back(&nothing, &request(2, "n3")));
    assert!(comes_back(&gone, &request(2, "n3")));
    let changed = Request { recorder_node: "other".into(), ..request(2, "n3") };
    assert!(comes_back(&nothing, &changed));
}

#[test]
fn a_settled_request_of_a_dead_client_is_not_answered_success() {
    let mut watcher = watcher();
    let (first, asked) = (request(1, "n3"), request(2, "n3"));
    begun(&mut watcher, &first);
    see(&mut watcher, &asked, NOON);
    watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(102_000));
    let parsed = Ok(asked.clone());
    let gone = Claim::Claimed { parsed, client_gone: true, begun_before: false };
    let effects = watcher.handle(Event::Claim(name(&asked), gone), at(102_000));
    assert_eq!(answer_in(&effects).result, FenceResult::Withdrawn);
}

#[test]
fn an_on_under_another_name_of_the_machine_counts() {
    let mut watcher = watcher();
    let first = request(1, "n3");
    begun(&mut watcher, &first);
    // A request waits, so that the watcher remembers what was done.
    see(&mut watcher, &request(2, "n5"), NOON);
    watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(102_000));
    let mut plugs = device("pdu", "n[1-9]", 1);
    plugs.plugs = Some(PerTarget::Pattern("1".into()));
    let on = Job {
        seq: 9,
        request: asks(FenceAction::On, 3, "N3"),
        action: FenceAction::On,
        machines: plugs.machines(&"N3.example".parse().unwrap()),
        lane: plugs.lane(&"N3".parse().unwrap()),
        target: "N3.example".parse().unwrap(),
        seen_boot_ms: 103_000,
        deadline_boot_ms: 150_000,
        deadline_wall_ms: None,
    };
    watcher.note_begin(&on);
    assert!(watcher.fenced["n3"].on_since);
}

#[test]
fn nothing_is_remembered_when_nothing_waits() {
    let mut watcher = watcher();
    let first = request(1, "n3");
    begun(&mut watcher, &first);
    watcher.handle(Event::Finished(name(&first), off_at(102_000, "off")), at(102_000));
    assert_eq!(watcher.fenced.len(), 1);
    watcher.handle(Event::Answered(name(&first), Ok(())), at(102_000));
    assert!(watcher.fenced.is_empty());
}
