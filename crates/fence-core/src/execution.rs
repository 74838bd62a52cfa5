//! The steps of one fence on one device, and what its outcome proves.
//!
//! Four facts about real devices shape this code. "Accepted" is not "done": the power is asked until
//! it shows the state. "Failed" is not "not done": after an order whose outcome is unknown, the power
//! is asked as well. A retried order is executed again: an order is repeated only when the device
//! was not reached at all, and only where that is configured. And a client may be gone by the time
//! that a device is ready for its order: each order of a fence follows a look for the client.

use std::fmt;

use fence_protocol::{FenceAction, FenceResult, PowerState};

/// What a device can be told or asked, besides its reachability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Abilities {
    /// It can cut a target off.
    pub off: bool,
    /// It can bring a target back.
    pub on: bool,
    /// It can reset a target by itself, in one order.
    pub cycle: bool,
    /// It can be asked for a target's power state.
    pub power: bool,
}

/// How a reboot is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Off, verified, then on.
    OnOff,
    /// The device's own reset. Nothing shows afterwards whether it happened.
    Cycle,
}

/// One order to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// Cut the target off.
    Off,
    /// Bring it back.
    On,
    /// Reset it.
    Cycle,
}

impl Order {
    /// The order as the fence action that a driver's program is told.
    pub fn as_action(self) -> FenceAction {
        match self {
            Order::Off => FenceAction::Off,
            Order::On => FenceAction::On,
            Order::Cycle => FenceAction::Reboot,
        }
    }
}

/// What came of an order. The texts are for people, and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OrderReport {
    /// The device said yes. It may not have done it yet.
    Acknowledged(String),
    /// The device could not be reached: the order was certainly not carried out.
    Unreachable(String),
    /// The device was reached and did not say yes, or the order was cut short. It may have been
    /// carried out.
    Unacknowledged(String),
    /// The driver or its configuration failed before anything was sent.
    Failed(String),
    /// The deadline had passed before the order could start; nothing was sent.
    TooLate,
    /// Nobody waited for the order any more; nothing was sent.
    Withdrawn,
}

/// What came of asking for the power.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PowerReport {
    /// The state shown.
    pub state: PowerState,
    /// The device's words, or why it could not be asked.
    pub detail: String,
}

/// What the outcome of an execution proves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// The result for the answer.
    pub result: FenceResult,
    /// The device was asked afterwards and showed the state.
    pub verified: bool,
    /// What was done, as far as that is known: `off`, `on`, `reboot`, or `none`.
    pub performed: &'static str,
    /// For people: what happened, and how that is known.
    pub message: String,
    /// The target's last time off, as far as this execution made certain of it.
    pub off: Option<Off>,
}

/// A target that was off, by an order that counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Off {
    /// When that was known, in milliseconds of `CLOCK_BOOTTIME`: the device showed it, or has
    /// acknowledged the order where it cannot be asked. A reset by the device itself does not leave the
    /// target off: for that, the instant at which the order was given.
    pub at_boot_ms: u64,
    /// The device showed it.
    pub verified: bool,
    /// An order to bring the target back followed, and may have been carried out.
    pub on_followed: bool,
}

impl Verdict {
    /// That nothing was achieved, as far as anybody knows.
    pub fn failure(result: FenceResult, message: String) -> Self {
        Verdict { result, verified: false, performed: "none", message, off: None }
    }

    /// Whether the device *showed* that the target was off, after an off or in the midst of a reboot.
    pub fn shows_off(&self) -> bool {
        self.off.is_some_and(|off| off.verified)
    }
}

impl Abilities {
    /// The way to reboot: as configured, else verified where the device can be asked.
    pub fn method(self, configured: Option<Method>) -> Method {
        configured.unwrap_or(if self.cycle && !self.power { Method::Cycle } else { Method::OnOff })
    }

    /// Whether a device with these abilities can do `action` by `method`.
    pub fn serve(self, action: FenceAction, method: Method) -> bool {
        match (action, method) {
            (FenceAction::Off, _) => self.off,
            (FenceAction::On, _) => self.on,
            (FenceAction::Reboot, Method::OnOff) => self.off && self.on,
            (FenceAction::Reboot, Method::Cycle) => self.cycle,
        }
    }
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Give this order, once, ending by this instant (milliseconds of `CLOCK_BOOTTIME`). The driver
    /// asks once more whether somebody waits, right before the call that acts, where
    /// [`Plan::is_for_client`] says so.
    Order(Order, u64),
    /// Ask for the target's power state, ending by this instant.
    AskPower(u64),
    /// Do nothing for so many milliseconds.
    Pause(u64),
    /// Look whether somebody still waits for the fence.
    LookForClient,
    /// The execution is over.
    Done(Verdict),
}

/// What came of the last step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// There was none: begin.
    Begin,
    /// Of [`Step::Order`].
    Order(OrderReport),
    /// Of [`Step::AskPower`].
    Power(PowerReport),
    /// Of [`Step::Pause`].
    Paused,
    /// Of [`Step::LookForClient`]: whether somebody waits.
    Client(bool),
}

/// How long an order whose outcome is unknown is looked into, in milliseconds. Slow devices show the
/// state a dozen seconds after they took an order; more would keep the cluster from trying elsewhere.
///
/// A target that shows the opposite meanwhile ends this no earlier. It shows that too while an order
/// that looked refused is still on its way (a controller carries out a reset whose sender was killed
/// long before). With a failure at once, the cluster would fence by its next level, the target could
/// come back, and the late order hit it then.
const DOUBT_MS: u64 = 15_000;

/// How long the `on` of a reboot may take with its confirmation, in milliseconds. The target is known
/// to be off by then, and until the answer is written the cluster does not recover its file systems.
const ON_AFTER_OFF_MS: u64 = 10_000;

/// How long before the deadline the `on` of a reboot ends, in milliseconds (a quarter of what is left
/// where that is less): the answer has to arrive.
const ANSWER_RESERVE_MS: u64 = 2_000;

/// The pause before an order is given again to a device that was not reached, in milliseconds.
const RETRY_PAUSE_MS: u64 = 1_000;

/// The first and the longest pause between two looks at the power, in milliseconds.
const POLL_MS: (u64, u64) = (50, 1_000);

/// One execution: feed it with reports, do what it says, until it is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    action: FenceAction,
    can_ask: bool,
    attempts_left: u32,
    timeout_ms: u64,
    deadline_boot_ms: u64,
    order: Order,
    phase: Phase,
    /// When the present order was given.
    ordered_boot_ms: u64,
    /// The instant by which the present order, with its confirmation, must be over.
    limit_boot_ms: u64,
    poll_ms: u64,
    /// Set once the target is known to be off in a reboot: from then on the fence has succeeded.
    off: Option<(Off, String)>,
}

/// How an order came to count as done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Confirmed {
    verified: bool,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// An order is to be given. `unreached` tells why the one before it did not reach the device.
    Ordering { unreached: Option<String> },
    /// The order was given; the power is asked until it shows. `acknowledged` tells whether the
    /// device said yes, `words` what it said.
    Confirming { acknowledged: bool, words: String, shown: Shown },
}

/// What the power looked like when it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shown {
    NotAsked,
    /// It was asked for and not shown, for this reason.
    Nothing(String),
    On,
    Off,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::NotAsked => f.write_str("no time was left to ask for the state"),
            Shown::Nothing(why) => f.write_str(&with_words("the device showed no state", why)),
            Shown::On => f.write_str("the device showed on"),
            Shown::Off => f.write_str("the device showed off"),
        }
    }
}

impl Plan {
    /// The plan for `action` on a device with `abilities`.
    ///
    /// `attempts` counts how often an order may be given while the device is unreachable (at least
    /// once); `timeout_ms` bounds each order with its confirmation; nothing goes on after
    /// `deadline_boot_ms`. The caller has made sure that the device can [`Abilities::serve`] it.
    pub fn new(
        action: FenceAction,
        abilities: Abilities,
        method: Method,
        attempts: u32,
        timeout_ms: u64,
        deadline_boot_ms: u64,
    ) -> Self {
        let order = match (action, method) {
            (FenceAction::Off, _) | (FenceAction::Reboot, Method::OnOff) => Order::Off,
            (FenceAction::On, _) => Order::On,
            (FenceAction::Reboot, Method::Cycle) => Order::Cycle,
        };
        Plan {
            action,
            can_ask: abilities.power,
            attempts_left: attempts.max(1),
            timeout_ms,
            deadline_boot_ms,
            order,
            phase: Phase::Ordering { unreached: None },
            ordered_boot_ms: 0,
            limit_boot_ms: 0,
            poll_ms: POLL_MS.0,
            off: None,
        }
    }

    /// Takes what came of the last step at `now_boot_ms` and says what is next.
    pub fn next(&mut self, report: Report, now_boot_ms: u64) -> Step {
        match report {
            Report::Begin => Step::LookForClient,
            Report::Client(true) => self.start_order(now_boot_ms),
            Report::Client(false) => self.abandoned(),
            Report::Order(report) => self.after_order(report, now_boot_ms),
            Report::Power(report) => self.after_power(&report, now_boot_ms),
            Report::Paused if matches!(self.phase, Phase::Ordering { .. }) => Step::LookForClient,
            Report::Paused => self.ask(now_boot_ms),
        }
    }

    /// Whether the present order is given only while its client waits: each but the `on` of a reboot.
    /// That one brings back a node that was fenced, which can hit nobody.
    pub fn is_for_client(&self) -> bool {
        self.off.is_none()
    }

    fn start_order(&mut self, now: u64) -> Step {
        if now >= self.deadline_boot_ms {
            return self.after_order(OrderReport::TooLate, now);
        }
        let (span, end) = if self.off.is_none() {
            (self.timeout_ms, self.deadline_boot_ms)
        } else {
            // The cluster is waiting for what is already certain.
            let reserve = ANSWER_RESERVE_MS.min((self.deadline_boot_ms - now) / 4);
            (self.timeout_ms.min(ON_AFTER_OFF_MS), self.deadline_boot_ms - reserve)
        };
        self.ordered_boot_ms = now;
        self.limit_boot_ms = now.saturating_add(span).min(end);
        self.attempts_left -= 1;
        self.note_on(true);
        Step::Order(self.order, self.limit_boot_ms)
    }

    /// Whether the order that follows the off of a reboot may have been carried out.
    fn note_on(&mut self, may_be_on: bool) {
        if let Some((off, _)) = &mut self.off {
            off.on_followed = may_be_on;
        }
    }

    fn after_order(&mut self, report: OrderReport, now: u64) -> Step {
        if matches!(
            report,
            OrderReport::Unreachable(_) | OrderReport::Failed(_) | OrderReport::TooLate
        ) {
            self.note_on(false);
        }
        match report {
            OrderReport::Acknowledged(words) if self.can_ask && self.order != Order::Cycle => {
                self.confirm(true, words, now)
            }
            OrderReport::Acknowledged(words) => {
                let text = match self.order {
                    Order::Cycle => "acknowledged; nothing shows whether a reset happened",
                    _ => "acknowledged; the device cannot be asked for the state",
                };
                self.achieved(Confirmed { verified: false, text: with_words(text, &words) }, now)
            }
            OrderReport::Unacknowledged(words)
                if self.can_ask && self.order != Order::Cycle && self.off.is_none() =>
            {
                self.limit_boot_ms =
                    now.saturating_add(DOUBT_MS.min(self.timeout_ms)).min(self.deadline_boot_ms);
                self.confirm(false, words, now)
            }
            OrderReport::Unacknowledged(words) => {
                self.failed(FenceResult::Unacknowledged, with_words("not acknowledged", &words))
            }
            OrderReport::Unreachable(words) => {
                let has_time = now + RETRY_PAUSE_MS < self.deadline_boot_ms;
                if self.attempts_left > 0 && has_time && self.off.is_none() {
                    self.phase = Phase::Ordering { unreached: Some(words) };
                    return Step::Pause(RETRY_PAUSE_MS);
                }
                self.failed(FenceResult::Unreachable, with_words("device not reached", &words))
            }
            OrderReport::Failed(words) => {
                self.failed(FenceResult::DeviceFailure, with_words("nothing was sent", &words))
            }
            OrderReport::TooLate => {
                self.failed(FenceResult::Expired, "not started: the deadline had passed".to_owned())
            }
            OrderReport::Withdrawn => self.abandoned(),
        }
    }

    /// Nobody waits any more: an order now could hit a target that has come back since.
    fn abandoned(&self) -> Step {
        let text = match &self.phase {
            Phase::Ordering { unreached: Some(words) } => {
                with_words("not tried again, because its client is gone: device not reached", words)
            }
            _ => "nothing was ordered: its client is gone, nobody holds the request any more"
                .to_owned(),
        };
        self.failed(FenceResult::Withdrawn, text)
    }

    fn confirm(&mut self, acknowledged: bool, words: String, now: u64) -> Step {
        self.poll_ms = POLL_MS.0;
        self.phase = Phase::Confirming { acknowledged, words, shown: Shown::NotAsked };
        self.ask(now)
    }

    fn ask(&mut self, now: u64) -> Step {
        if now < self.limit_boot_ms {
            return Step::AskPower(self.limit_boot_ms);
        }
        let Phase::Confirming { acknowledged, words, shown } = &self.phase else {
            unreachable!("the power is asked only to confirm an order")
        };
        let text = match acknowledged {
            true => format!("acknowledged, but not confirmed: {shown}"),
            false => format!("not acknowledged, and not confirmed: {shown}"),
        };
        let text = with_words(&text, words);
        self.failed(FenceResult::Unacknowledged, text)
    }

    fn after_power(&mut self, report: &PowerReport, now: u64) -> Step {
        let wanted = if self.order == Order::Off { PowerState::Off } else { PowerState::On };
        let Phase::Confirming { acknowledged, words, shown } = &mut self.phase else {
            unreachable!("the power is asked only to confirm an order")
        };
        if report.state == wanted {
            let text = match acknowledged {
                true => with_words("the device shows it", words),
                false => with_words("learned by asking for the state: the order failed", words),
            };
            return self.achieved(Confirmed { verified: true, text }, now);
        }
        match report.state {
            PowerState::On => *shown = Shown::On,
            PowerState::Off => *shown = Shown::Off,
            // The last question may have been cut short: what was shown before says more.
            PowerState::Unknown if matches!(shown, Shown::On | Shown::Off) => {}
            PowerState::Unknown => *shown = Shown::Nothing(report.detail.clone()),
        }
        let left = self.limit_boot_ms.saturating_sub(now);
        if left == 0 {
            return self.ask(now);
        }
        let pause = self.poll_ms.min(left);
        self.poll_ms = (self.poll_ms * 2).min(POLL_MS.1);
        Step::Pause(pause)
    }

    /// The present order counts as done.
    fn achieved(&mut self, how: Confirmed, now: u64) -> Step {
        let is_cycle = self.order == Order::Cycle;
        let off = Off {
            at_boot_ms: if is_cycle { self.ordered_boot_ms } else { now },
            verified: how.verified,
            on_followed: is_cycle,
        };
        match (self.action, self.order, &self.off) {
            (FenceAction::Reboot, Order::Off, _) => {
                self.off = Some((off, how.text));
                self.order = Order::On;
                self.phase = Phase::Ordering { unreached: None };
                self.attempts_left = self.attempts_left.max(1);
                self.start_order(now)
            }
            (FenceAction::Reboot, Order::On, Some((off, text))) => Step::Done(Verdict {
                result: FenceResult::Success,
                verified: off.verified,
                performed: "reboot",
                message: format!("off: {text}; on: {}", how.text),
                off: Some(*off),
            }),
            (action, order, _) => Step::Done(Verdict {
                result: FenceResult::Success,
                verified: how.verified,
                performed: action.as_str(),
                message: how.text,
                off: (order != Order::On).then_some(off),
            }),
        }
    }

    /// The present order did not come to its end.
    fn failed(&self, result: FenceResult, text: String) -> Step {
        match &self.off {
            // The target is cut off, and that is what the cluster waits for.
            Some((off, how)) => Step::Done(Verdict {
                result: FenceResult::Success,
                verified: off.verified,
                performed: "off",
                message: format!("off: {how}; on failed, the target stays off: {text}"),
                off: Some(*off),
            }),
            None => Step::Done(Verdict::failure(result, text)),
        }
    }
}

fn with_words(text: &str, words: &str) -> String {
    if words.is_empty() { text.to_owned() } else { format!("{text} ({words})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKABLE: Abilities = Abilities { off: true, on: true, cycle: true, power: true };
    const MUTE: Abilities = Abilities { power: false, ..ASKABLE };

    fn plan(action: FenceAction, abilities: Abilities, method: Method) -> Plan {
        Plan::new(action, abilities, method, 1, 45_000, 58_000)
    }

    /// Begins, with a client that waits.
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

    /// Feeds the reports, each a second later, and gives the last step.
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
        let reboot = [acknowledged(), off.clone(), acknowledged(), on.clone()];
        let onoff = Method::OnOff;

        assert!(end(FenceAction::Off, ASKABLE, onoff, &[acknowledged(), off.clone()]));
        assert!(end(FenceAction::Off, ASKABLE, onoff, &[unacknowledged(), off.clone()]));
        assert!(end(FenceAction::Reboot, ASKABLE, onoff, &reboot));
        assert!(end(FenceAction::Reboot, ASKABLE, onoff, &[acknowledged(), off, unreachable()]));
        assert!(!end(FenceAction::On, ASKABLE, onoff, &[acknowledged(), on]));
        assert!(!end(FenceAction::Off, MUTE, onoff, &[acknowledged()]));
        assert!(!end(FenceAction::Reboot, MUTE, onoff, &[acknowledged(), acknowledged()]));
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
    fn a_failed_order_is_looked_into_and_off_shown_counts_as_success() {
        let mut plan = plan(FenceAction::Off, ASKABLE, Method::OnOff);
        let verdict = verdict(run(&mut plan, [unacknowledged(), power(PowerState::Off)]));

        assert_eq!((verdict.result, verdict.verified), (FenceResult::Success, true));
        assert!(verdict.message.contains("learned by asking"), "{}", verdict.message);
    }

    #[test]
    fn a_failed_order_is_not_looked_into_for_ever() {
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
    fn a_reboot_is_off_confirmed_and_then_on() {
        let mut plan = plan(FenceAction::Reboot, ASKABLE, Method::OnOff);
        assert!(matches!(begin(&mut plan, 0), Step::Order(Order::Off, _)));
        assert!(plan.is_for_client());
        assert!(matches!(plan.next(acknowledged(), 1), Step::AskPower(_)));
        assert!(matches!(plan.next(power(PowerState::Off), 2), Step::Order(Order::On, _)));
        assert!(!plan.is_for_client());
        assert!(matches!(plan.next(acknowledged(), 3), Step::AskPower(_)));
        let verdict = verdict(plan.next(power(PowerState::On), 4));
        assert_eq!((verdict.result, verdict.performed), (FenceResult::Success, "reboot"));
        assert!(verdict.verified);
        assert_eq!(verdict.off, Some(Off { at_boot_ms: 2, verified: true, on_followed: true }));
    }

    #[test]
    fn a_reboot_whose_on_fails_has_still_cut_the_target_off() {
        for report in [
            OrderReport::Unreachable(String::new()),
            OrderReport::Failed(String::new()),
            OrderReport::TooLate,
        ] {
            let mut plan = plan(FenceAction::Reboot, ASKABLE, Method::OnOff);
            let steps = [acknowledged(), power(PowerState::Off), Report::Order(report)];
            let verdict = verdict(run(&mut plan, steps));
            assert_eq!((verdict.result, verdict.performed), (FenceResult::Success, "off"));
            assert!(verdict.off.is_some_and(|off| !off.on_followed));
        }
    }

    #[test]
    fn an_on_that_hangs_does_not_hold_back_a_confirmed_off() {
        let mut plan = plan(FenceAction::Reboot, ASKABLE, Method::OnOff);
        let step = run(&mut plan, [acknowledged(), power(PowerState::Off)]);
        assert_eq!(step, Step::Order(Order::On, 2_000 + ON_AFTER_OFF_MS));
        let verdict = verdict(plan.next(unacknowledged(), 2_000 + ON_AFTER_OFF_MS));
        assert_eq!((verdict.result, verdict.performed), (FenceResult::Success, "off"));
        assert!(verdict.off.is_some_and(|off| off.on_followed));

        for (deadline, end) in
            [(11_000, 11_000 - ANSWER_RESERVE_MS), (3_000, 2_750), (2_001, 2_001)]
        {
            let mut late =
                Plan::new(FenceAction::Reboot, ASKABLE, Method::OnOff, 1, 45_000, deadline);
            let step = run(&mut late, [acknowledged(), power(PowerState::Off)]);
            assert_eq!(step, Step::Order(Order::On, end));
        }

        let mut twice = Plan::new(FenceAction::Reboot, ASKABLE, Method::OnOff, 3, 45_000, 58_000);
        run(&mut twice, [acknowledged(), power(PowerState::Off)]);
        let unreachable = Report::Order(OrderReport::Unreachable(String::new()));
        assert!(matches!(twice.next(unreachable, 3_000), Step::Done(_)));
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
    fn an_order_is_not_repeated_for_a_client_that_is_gone() {
        let mut plan = Plan::new(FenceAction::Off, ASKABLE, Method::OnOff, 3, 9_000, 58_000);
        let unreachable = Report::Order(OrderReport::Unreachable("no route".into()));
        run(&mut plan, [unreachable, Report::Paused]);

        let verdict = verdict(plan.next(Report::Client(false), 3_000));

        assert_eq!((verdict.result, verdict.performed), (FenceResult::Withdrawn, "none"));
        assert!(verdict.message.contains("no route"), "{}", verdict.message);
    }

    #[test]
    fn no_order_of_a_fence_is_given_for_a_client_that_is_gone() {
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
    fn a_driver_that_finds_nobody_waiting_has_ordered_nothing() {
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
}
