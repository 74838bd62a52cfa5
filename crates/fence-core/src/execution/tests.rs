//! The steps of a fence, for each report of the device.

use super::*;

const ASKABLE: Abilities = Abilities { off: true, on: true, cycle: true, power: true };
const MUTE: Abilities = Abilities { power: false, ..ASKABLE };

fn plan(action: FenceAction, abilities: Abilities, method: Method) -> Plan {
    Plan::new(action, abilities, method, 1, 45_000, 58_000)
}

/// Begins with a client that waits.
fn begin(plan: &mut Plan, now: u64) -> Step {
    assert_eq!(plan.next(Report::Begin, now), Step::LookForClient);
    plan.next(Report::Client(true), now)
}

fn acknowledged() -> Report {
    Report::Order(OrderReport::Acknowledged(String::new()))
}

fn unacknowledged() -> Report {
    Report::Order(OrderReport::Unacknowledged("exit 1".into()))
}

fn power(state: PowerState) -> Report {
    Report::Power(PowerReport { state, detail: String::new() })
}

/// Passes in the reports, one second apart, and returns the last step.
fn run(plan: &mut Plan, reports: impl IntoIterator<Item = Report>) -> Step {
    let mut now = 0;
    let mut step = begin(plan, now);
    for report in reports {
        now += 1_000;
        step = plan.next(report, now);
    }
    step
}

fn verdict(step: Step) -> Verdict {
    match step {
        Step::Done(verdict) => verdict,
        other => panic!("not done: {other:?}"),
    }
}

#[test]
fn off_is_success_only_when_the_device_shows_it() {
    let mut plan = plan(FenceAction::Off, ASKABLE, Method::OnOff);
    let step = run(&mut plan, [acknowledged(), power(PowerState::On), Report::Paused]);
    assert_eq!(step, Step::AskPower(45_000));

    let verdict = verdict(plan.next(power(PowerState::Off), 4_000));
    assert_eq!((verdict.result, verdict.verified), (FenceResult::Success, true));
    assert_eq!(verdict.performed, "off");
}

#[test]
fn a_target_was_shown_to_be_off_only_after_a_verified_off() {
    let end = |action, abilities, method, reports: &[Report]| {
        verdict(run(&mut plan(action, abilities, method), reports.to_vec())).shows_off()
    };
    let (off, on) = (power(PowerState::Off), power(PowerState::On));
    let unreachable = || Report::Order(OrderReport::Unreachable(String::new()));
    let reboot = [acknowledged(), off.clone()];
    let onoff = Method::OnOff;

    assert!(end(FenceAction::Off, ASKABLE, onoff, &[acknowledged(), off.clone()]));
    assert!(end(FenceAction::Off, ASKABLE, onoff, &[unacknowledged(), off.clone()]));
    assert!(end(FenceAction::Reboot, ASKABLE, onoff, &reboot));
    assert!(!end(FenceAction::On, ASKABLE, onoff, &[acknowledged(), on]));
    assert!(!end(FenceAction::Off, MUTE, onoff, &[acknowledged()]));
    assert!(!end(FenceAction::Reboot, MUTE, onoff, &[acknowledged()]));
    assert!(!end(FenceAction::Reboot, ASKABLE, Method::Cycle, &[acknowledged()]));
    assert!(!end(FenceAction::Off, ASKABLE, onoff, &[unreachable()]));
}

#[test]
fn a_verified_success_keeps_the_devices_words() {
    let mut plan = plan(FenceAction::Off, ASKABLE, Method::OnOff);
    let words = Report::Order(OrderReport::Acknowledged("simulated: done".into()));

    let verdict = verdict(run(&mut plan, [words, power(PowerState::Off)]));

    assert_eq!(verdict.message, "the device shows it (simulated: done)");
}

#[test]
fn a_device_that_acknowledges_and_does_nothing_is_unacknowledged() {
    let mut plan = plan(FenceAction::Off, ASKABLE, Method::OnOff);
    run(&mut plan, [acknowledged()]);
    assert!(matches!(plan.next(power(PowerState::On), 44_999), Step::Pause(1)));

    let verdict = verdict(plan.next(Report::Paused, 45_000));
    assert_eq!((verdict.result, verdict.performed), (FenceResult::Unacknowledged, "none"));
    assert_eq!(verdict.message, "acknowledged, but not confirmed: the device showed on");
}

#[test]
fn an_unknown_power_state_never_confirms() {
    for action in [FenceAction::Off, FenceAction::On, FenceAction::Reboot] {
        let mut plan = plan(action, ASKABLE, Method::OnOff);
        run(&mut plan, [acknowledged()]);
        assert!(matches!(plan.next(power(PowerState::Unknown), 2_000), Step::Pause(_)));
        let verdict = verdict(plan.next(power(PowerState::Unknown), 45_000));
        assert_eq!(verdict.result, FenceResult::Unacknowledged);
    }
}

#[test]
fn a_last_question_cut_short_by_the_limit_hides_no_earlier_reason_of_the_device() {
    let unknown = |detail: &str| {
        Report::Power(PowerReport { state: PowerState::Unknown, detail: detail.to_owned() })
    };
    let end_of = |questions: [(&str, u64); 2]| {
        let mut plan = plan(FenceAction::Off, ASKABLE, Method::OnOff);
        run(&mut plan, [acknowledged()]);
        for (detail, now) in questions {
            if let Step::Done(verdict) = plan.next(unknown(detail), now) {
                return verdict.message;
            }
            plan.next(Report::Paused, now);
        }
        panic!("not done");
    };
    let cut = "got no answer by the limit";
    let message = end_of([("Unspecified error", 3_000), (cut, 45_000)]);
    assert!(message.contains("Unspecified error") && !message.contains(cut), "{message}");

    // If there is no other reason, this reason is reported.
    let message = end_of([(cut, 45_000), ("", 45_000)]);
    assert!(message.contains(cut), "{message}");
}

#[test]
fn after_a_failed_order_the_state_is_asked_for_and_a_shown_off_is_a_success() {
    let mut plan = plan(FenceAction::Off, ASKABLE, Method::OnOff);
    let verdict = verdict(run(&mut plan, [unacknowledged(), power(PowerState::Off)]));

    assert_eq!((verdict.result, verdict.verified), (FenceResult::Success, true));
    assert!(verdict.message.contains("learned by asking"), "{}", verdict.message);
}

#[test]
fn the_state_after_a_failed_order_is_not_asked_for_without_end() {
    let mut plan = plan(FenceAction::Off, ASKABLE, Method::OnOff);
    let unknown = power(PowerState::Unknown);
    run(&mut plan, [unacknowledged(), power(PowerState::On), Report::Paused, unknown]);

    let verdict = verdict(plan.next(Report::Paused, 1_000 + DOUBT_MS));
    assert_eq!(verdict.result, FenceResult::Unacknowledged);
    assert_eq!(
        verdict.message,
        "not acknowledged, and not confirmed: the device showed on (exit 1)"
    );
}

#[test]
fn a_failed_order_of_a_device_that_cannot_be_asked_is_unacknowledged() {
    for (action, method) in
        [(FenceAction::Off, Method::OnOff), (FenceAction::Reboot, Method::Cycle)]
    {
        let verdict = verdict(run(&mut plan(action, MUTE, method), [unacknowledged()]));
        assert_eq!(verdict.result, FenceResult::Unacknowledged);
    }
}

#[test]
fn a_reboot_is_a_success_as_soon_as_its_off_is_confirmed() {
    let mut plan = plan(FenceAction::Reboot, ASKABLE, Method::OnOff);
    assert!(matches!(begin(&mut plan, 0), Step::Order(Order::Off, _)));
    assert!(plan.is_for_client());
    assert!(matches!(plan.next(acknowledged(), 1), Step::AskPower(_)));
    let verdict = verdict(plan.next(power(PowerState::Off), 2));
    assert_eq!((verdict.result, verdict.performed), (FenceResult::Success, "off"));
    assert!(verdict.verified && verdict.on_follows);
    assert_eq!(verdict.off, Some(Off { at_boot_ms: 2, verified: true, on_followed: false }));
    assert!(verdict.message.ends_with("; the power-on follows"), "{}", verdict.message);
}

#[test]
fn nothing_but_a_reboot_by_off_and_on_has_a_power_on_that_follows() {
    for (action, abilities, method) in [
        (FenceAction::Off, MUTE, Method::OnOff),
        (FenceAction::On, MUTE, Method::OnOff),
        (FenceAction::Reboot, MUTE, Method::Cycle),
    ] {
        let verdict = verdict(run(&mut plan(action, abilities, method), [acknowledged()]));
        assert!(!verdict.on_follows, "{action} {method:?}");
    }
    let mut failed = plan(FenceAction::Reboot, MUTE, Method::OnOff);
    assert!(!verdict(run(&mut failed, [unacknowledged()])).on_follows);
}

#[test]
fn a_power_on_is_ordered_once_without_a_client_and_has_the_devices_own_time() {
    let mut late = Plan::power_on(ASKABLE, 45_000, 5_000, 5_000);
    assert_eq!(verdict(late.next(Report::Begin, 5_000)).result, FenceResult::Expired);

    let mut plan = Plan::power_on(ASKABLE, 45_000, 9_000, 5_000);
    assert!(!plan.is_for_client());
    assert_eq!(plan.next(Report::Begin, 5_000), Step::Order(Order::On, 50_000));
    assert!(matches!(plan.next(acknowledged(), 5_001), Step::AskPower(50_000)));
    let verdict = verdict(plan.next(power(PowerState::On), 5_002));
    assert_eq!((verdict.result, verdict.performed), (FenceResult::Success, "on"));

    let mut unreached = Plan::power_on(ASKABLE, 45_000, 9_000, 5_000);
    unreached.next(Report::Begin, 5_000);
    let report = Report::Order(OrderReport::Unreachable(String::new()));
    assert!(matches!(unreached.next(report, 5_001), Step::Done(_)), "it is not repeated");
}

#[test]
fn a_device_that_answers_fast_is_asked_again_soon_and_a_slow_one_seldom() {
    let pauses = |takes_ms: u64| {
        let mut plan = plan(FenceAction::Off, ASKABLE, Method::OnOff);
        let mut now = 1_000;
        let mut step = run(&mut plan, [acknowledged()]);
        let mut pauses = Vec::new();
        while pauses.len() < 8 {
            step = match step {
                Step::AskPower(_) => {
                    now += takes_ms;
                    plan.next(power(PowerState::On), now)
                }
                Step::Pause(ms) => {
                    pauses.push(ms);
                    now += ms;
                    plan.next(Report::Paused, now)
                }
                other => panic!("{other:?}"),
            };
        }
        pauses
    };
    assert_eq!(pauses(20), [50, 100, 200, 250, 250, 250, 250, 250]);
    assert_eq!(pauses(400), [50, 100, 200, 400, 800, 1_000, 1_000, 1_000]);
}

#[test]
fn a_reboot_never_orders_on_before_off_is_confirmed() {
    let mut plan = plan(FenceAction::Reboot, ASKABLE, Method::OnOff);
    run(&mut plan, [acknowledged(), power(PowerState::On)]);
    assert!(matches!(plan.next(Report::Paused, 3_000), Step::AskPower(_)));
    let verdict = verdict(plan.next(power(PowerState::On), 58_000));
    assert_eq!(verdict.result, FenceResult::Unacknowledged);
}

#[test]
fn a_cycle_is_never_called_verified() {
    let mut plan = plan(FenceAction::Reboot, ASKABLE, Method::Cycle);
    let verdict = verdict(run(&mut plan, [acknowledged()]));
    assert_eq!((verdict.result, verdict.verified), (FenceResult::Success, false));
}

#[test]
fn an_acknowledged_cycle_counts_from_the_instant_of_its_order_and_brings_the_target_back() {
    let off_after = |report| {
        let mut plan = plan(FenceAction::Reboot, ASKABLE, Method::Cycle);
        begin(&mut plan, 1_000);
        verdict(plan.next(report, 9_000)).off
    };
    let ordered = Off { at_boot_ms: 1_000, verified: false, on_followed: true };
    assert_eq!(off_after(acknowledged()), Some(ordered));
    assert_eq!(off_after(unacknowledged()), None);
}

#[test]
fn an_order_is_repeated_only_when_the_device_was_not_reached_and_only_as_configured() {
    let unreachable = || Report::Order(OrderReport::Unreachable(String::new()));
    let new = |attempts| Plan::new(FenceAction::Off, MUTE, Method::OnOff, attempts, 9, 58_000);

    let once = verdict(run(&mut new(1), [unreachable()]));
    assert_eq!(once.result, FenceResult::Unreachable);

    let mut twice = new(2);
    assert_eq!(run(&mut twice, [unreachable()]), Step::Pause(RETRY_PAUSE_MS));
    assert_eq!(twice.next(Report::Paused, 2_000), Step::LookForClient);
    assert!(matches!(twice.next(Report::Client(true), 2_000), Step::Order(Order::Off, _)));
    assert_eq!(verdict(twice.next(unreachable(), 3_000)).result, FenceResult::Unreachable);

    let doubtful = verdict(run(&mut new(2), [unacknowledged()]));
    assert_eq!(doubtful.result, FenceResult::Unacknowledged);
}

#[test]
fn an_order_is_not_repeated_for_a_dead_client() {
    let mut plan = Plan::new(FenceAction::Off, ASKABLE, Method::OnOff, 3, 9_000, 58_000);
    let unreachable = Report::Order(OrderReport::Unreachable("no route".into()));
    run(&mut plan, [unreachable, Report::Paused]);

    let verdict = verdict(plan.next(Report::Client(false), 3_000));

    assert_eq!((verdict.result, verdict.performed), (FenceResult::Withdrawn, "none"));
    assert!(verdict.message.contains("no route"), "{}", verdict.message);
}

#[test]
fn no_order_of_a_fence_is_given_for_a_dead_client() {
    for action in [FenceAction::Off, FenceAction::On, FenceAction::Reboot] {
        for method in [Method::OnOff, Method::Cycle] {
            let mut plan = plan(action, ASKABLE, method);
            assert_eq!(plan.next(Report::Begin, 0), Step::LookForClient);
            let verdict = verdict(plan.next(Report::Client(false), 1));
            assert_eq!((verdict.result, verdict.performed), (FenceResult::Withdrawn, "none"));
        }
    }
}

#[test]
fn a_driver_that_finds_no_waiting_client_has_ordered_nothing() {
    let withdrawn = Report::Order(OrderReport::Withdrawn);
    let mut plan = plan(FenceAction::Off, ASKABLE, Method::OnOff);
    let verdict = verdict(run(&mut plan, [withdrawn]));
    assert_eq!((verdict.result, verdict.performed), (FenceResult::Withdrawn, "none"));
    assert_eq!(verdict.off, None);
}

#[test]
fn nothing_is_ordered_at_the_deadline() {
    let verdict = verdict(begin(&mut plan(FenceAction::Off, ASKABLE, Method::OnOff), 58_000));
    assert_eq!(verdict.result, FenceResult::Expired);
}

#[test]
fn the_default_method_verifies_where_the_device_can_be_asked() {
    assert_eq!(ASKABLE.method(None), Method::OnOff);
    assert_eq!(MUTE.method(None), Method::Cycle);
    assert_eq!(Abilities { cycle: false, ..MUTE }.method(None), Method::OnOff);
    assert_eq!(ASKABLE.method(Some(Method::Cycle)), Method::Cycle);
}
