//! The steps of one fence on one device, and what its outcome proves.
//!
//! Four facts about real devices shape this code:
//! - "Accepted" is not "done": the plan asks for the power state until the device shows it.
//! - "Failed" is not "not done": after an order with an unknown outcome, the plan also asks for the
//!   power state.
//! - A repeated order is executed again. An order is repeated only if the device was not reached at
//!   all, and only if `attempts` allows it.
//! - A client may have ended by the time a device is ready for its order. Each order of a fence
//!   follows a look for the client.

use std::fmt;

use fence_protocol::{FenceAction, FenceResult, PowerState};

/// What a device can be ordered to do or asked, besides its reachability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Abilities {
    /// It can switch a target off.
    pub off: bool,
    /// It can switch a target on.
    pub on: bool,
    /// It can reset a target in one order.
    pub cycle: bool,
    /// It can report a target's power state.
    pub power: bool,
}

/// How a reboot is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Off, verified, then on.
    OnOff,
    /// The device's own reset. Nothing shows afterwards whether the reset happened.
    Cycle,
}

/// One order to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// Switch the target off.
    Off,
    /// Switch it on.
    On,
    /// Reset it.
    Cycle,
}

impl Order {
    /// The fence action that a driver passes to its program for this order.
    pub fn as_action(self) -> FenceAction {
        match self {
            Order::Off => FenceAction::Off,
            Order::On => FenceAction::On,
            Order::Cycle => FenceAction::Reboot,
        }
    }
}

/// The result of an order. The texts are for people, and contain no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OrderReport {
    /// The device accepted the order. It may not have carried it out yet.
    Acknowledged(String),
    /// The device could not be reached: it certainly did not carry out the order.
    Unreachable(String),
    /// The device was reached and did not accept the order, or the order was cut short. The device
    /// may have carried it out.
    Unacknowledged(String),
    /// The driver or its configuration failed before anything was sent.
    Failed(String),
    /// The deadline had passed before the order could start; nothing was sent.
    TooLate,
    /// No client waited for the order any more; nothing was sent.
    Withdrawn,
}

/// The result of a question for the power state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PowerReport {
    /// The state that the device showed.
    pub state: PowerState,
    /// The device's words, or why the question failed.
    pub detail: String,
}

/// What the outcome of an execution proves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// The result for the answer.
    pub result: FenceResult,
    /// The device was asked afterwards and showed the state.
    pub verified: bool,
    /// What was done, as far as it is known: `off`, `on`, `reboot`, or `none`.
    pub performed: &'static str,
    /// For people: what happened, and what proves it.
    pub message: String,
    /// The last time the target was off, if this execution proved it.
    pub off: Option<Off>,
    /// A reboot whose target is off: the power-on follows the answer.
    pub on_follows: bool,
}

/// A target that was off, after an order that counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Off {
    /// When this became known, in milliseconds of `CLOCK_BOOTTIME`: the device showed it, or
    /// acknowledged the order if the device cannot be asked. A reset by the device itself does not
    /// leave the target off: then this is the instant at which the order was given.
    pub at_boot_ms: u64,
    /// The device showed it.
    pub verified: bool,
    /// The same order switches the target on again: a reset by the device itself.
    pub on_followed: bool,
}

impl Verdict {
    /// A verdict that nothing was achieved, as far as it is known.
    pub fn failure(result: FenceResult, message: String) -> Self {
        Verdict {
            result,
            verified: false,
            performed: "none",
            message,
            off: None,
            on_follows: false,
        }
    }

    /// Whether the device *showed* the target off, after an off or during a reboot.
    pub fn shows_off(&self) -> bool {
        self.off.is_some_and(|off| off.verified)
    }
}

impl Abilities {
    /// The method of a reboot: as configured, else the verified one if the device can be asked.
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

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Give this order once; it must end by this instant (milliseconds of `CLOCK_BOOTTIME`). If
    /// [`Plan::is_for_client`] holds, the driver checks once more, right before the call that acts,
    /// whether a client waits.
    Order(Order, u64),
    /// Ask for the target's power state; the question must end by this instant.
    AskPower(u64),
    /// Do nothing for this many milliseconds.
    Pause(u64),
    /// Check whether a client still waits for the fence.
    LookForClient,
    /// The execution is over.
    Done(Verdict),
}

/// The result of the last step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// No step yet: begin.
    Begin,
    /// The result of [`Step::Order`].
    Order(OrderReport),
    /// The result of [`Step::AskPower`].
    Power(PowerReport),
    /// The end of [`Step::Pause`].
    Paused,
    /// The result of [`Step::LookForClient`]: whether a client waits.
    Client(bool),
}

/// How long the plan asks for the state after an order with an unknown outcome, in milliseconds.
/// Slow devices show the state about 12 s after they took an order; a longer time would keep the
/// cluster from trying another device.
///
/// A target that shows the opposite state does not end this time early. It shows that state also
/// while an order that seemed refused is still on its way (a controller carries out a reset long
/// after its sender was killed). After an immediate failure, the cluster would fence with its next
/// level, the target could come back, and the late order would then hit it.
const DOUBT_MS: u64 = 15_000;

/// The pause before an order is given again to a device that was not reached, in milliseconds.
const RETRY_PAUSE_MS: u64 = 1_000;

/// The first pause between two questions for the power state, in milliseconds. Each later pause is
/// twice as long.
const POLL_MS_MIN: u64 = 50;

/// The longest pause between two questions, in milliseconds: to a device whose last answer came
/// within this time, and to any other. Each question keeps a slow device busy.
const POLL_MS_MAX: (u64, u64) = (250, 1_000);

/// One execution: the caller passes in reports and carries out the steps until the plan is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    action: FenceAction,
    can_ask: bool,
    attempts_left: u32,
    timeout_ms: u64,
    deadline_boot_ms: u64,
    order: Order,
    phase: Phase,
    /// When the current order was given.
    ordered_boot_ms: u64,
    /// The instant by which the current order and its confirmation must end.
    limit_boot_ms: u64,
    /// The next pause between two questions for the power state.
    poll_ms: u64,
    /// When the power state was last asked for.
    asked_boot_ms: u64,
    /// Each order is given only while the client waits.
    is_for_client: bool,
}

/// Why an order counts as done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Confirmed {
    verified: bool,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// An order is due. `unreached` says why the previous order did not reach the device.
    Ordering { unreached: Option<String> },
    /// The order was given; the plan asks for the power state until it shows. `acknowledged` says
    /// whether the device accepted the order, `words` is the device's message.
    Confirming { acknowledged: bool, words: String, shown: Shown },
}

/// The last known power state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shown {
    NotAsked,
    /// The device was asked and did not show a state, for this reason.
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
    /// `attempts` is the number of times that an order may be given while the device is unreachable
    /// (at least one); `timeout_ms` limits each order with its confirmation; the plan ends at
    /// `deadline_boot_ms`. The caller has checked with [`Abilities::serve`] that the device can do
    /// the action.
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
            poll_ms: POLL_MS_MIN,
            asked_boot_ms: 0,
            is_for_client: true,
        }
    }

    /// The plan for the power-on after the off of a reboot, beginning now. It is given once and
    /// without a client: the fence has been answered. After `fence_until_boot_ms`, the deadline of
    /// the reboot, the order is not given: the cluster may have fenced the target with another
    /// device by then, and this order would undo that fence.
    pub fn power_on(
        abilities: Abilities,
        timeout_ms: u64,
        fence_until_boot_ms: u64,
        now_boot_ms: u64,
    ) -> Self {
        let is_in_time = now_boot_ms < fence_until_boot_ms;
        let deadline_boot_ms = if is_in_time { now_boot_ms.saturating_add(timeout_ms) } else { 0 };
        let plan =
            Plan::new(FenceAction::On, abilities, Method::OnOff, 1, timeout_ms, deadline_boot_ms);
        Plan { is_for_client: false, ..plan }
    }

    /// Takes the result of the last step at `now_boot_ms` and returns the next step.
    pub fn next(&mut self, report: Report, now_boot_ms: u64) -> Step {
        match report {
            Report::Begin if self.is_for_client => Step::LookForClient,
            Report::Begin | Report::Client(true) => self.start_order(now_boot_ms),
            Report::Client(false) => self.abandoned(),
            Report::Order(report) => self.after_order(report, now_boot_ms),
            Report::Power(report) => self.after_power(&report, now_boot_ms),
            Report::Paused if matches!(self.phase, Phase::Ordering { .. }) => Step::LookForClient,
            Report::Paused => self.ask(now_boot_ms),
        }
    }

    /// Whether the plan's orders are given only while the client waits.
    pub fn is_for_client(&self) -> bool {
        self.is_for_client
    }

    fn start_order(&mut self, now: u64) -> Step {
        if now >= self.deadline_boot_ms {
            return self.after_order(OrderReport::TooLate, now);
        }
        self.ordered_boot_ms = now;
        self.limit_boot_ms = now.saturating_add(self.timeout_ms).min(self.deadline_boot_ms);
        self.attempts_left -= 1;
        Step::Order(self.order, self.limit_boot_ms)
    }

    fn after_order(&mut self, report: OrderReport, now: u64) -> Step {
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
            OrderReport::Unacknowledged(words) if self.can_ask && self.order != Order::Cycle => {
                self.limit_boot_ms =
                    now.saturating_add(DOUBT_MS.min(self.timeout_ms)).min(self.deadline_boot_ms);
                self.confirm(false, words, now)
            }
            OrderReport::Unacknowledged(words) => {
                Self::failed(FenceResult::Unacknowledged, with_words("not acknowledged", &words))
            }
            OrderReport::Unreachable(words) => {
                let has_time = now.saturating_add(RETRY_PAUSE_MS) < self.deadline_boot_ms;
                if self.attempts_left > 0 && has_time {
                    self.phase = Phase::Ordering { unreached: Some(words) };
                    return Step::Pause(RETRY_PAUSE_MS);
                }
                Self::failed(FenceResult::Unreachable, with_words("device not reached", &words))
            }
            OrderReport::Failed(words) => {
                Self::failed(FenceResult::DeviceFailure, with_words("nothing was sent", &words))
            }
            OrderReport::TooLate => Self::failed(
                FenceResult::Expired,
                "not started: the deadline had passed".to_owned(),
            ),
            OrderReport::Withdrawn => self.abandoned(),
        }
    }

    /// No client waits any more: an order now could hit a target that has come back since.
    fn abandoned(&self) -> Step {
        let text = match &self.phase {
            Phase::Ordering { unreached: Some(words) } => {
                with_words("not tried again, because its client is gone: device not reached", words)
            }
            _ => {
                "nothing was ordered: its client is gone, it no longer holds the request".to_owned()
            }
        };
        Self::failed(FenceResult::Withdrawn, text)
    }

    fn confirm(&mut self, acknowledged: bool, words: String, now: u64) -> Step {
        self.poll_ms = POLL_MS_MIN;
        self.phase = Phase::Confirming { acknowledged, words, shown: Shown::NotAsked };
        self.ask(now)
    }

    fn ask(&mut self, now: u64) -> Step {
        if now < self.limit_boot_ms {
            self.asked_boot_ms = now;
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
        Self::failed(FenceResult::Unacknowledged, text)
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
            PowerState::Unknown if matches!(shown, Shown::On | Shown::Off) => {}
            // The limit may have cut this question short: then the earlier reason says more.
            PowerState::Unknown if now >= self.limit_boot_ms && *shown != Shown::NotAsked => {}
            PowerState::Unknown => *shown = Shown::Nothing(report.detail.clone()),
        }
        let left = self.limit_boot_ms.saturating_sub(now);
        if left == 0 {
            return self.ask(now);
        }
        let took = now.saturating_sub(self.asked_boot_ms);
        let longest = if took <= POLL_MS_MAX.0 { POLL_MS_MAX.0 } else { POLL_MS_MAX.1 };
        let pause = self.poll_ms.min(longest).min(left);
        self.poll_ms = (self.poll_ms * 2).min(POLL_MS_MAX.1);
        Step::Pause(pause)
    }

    /// The current order counts as done. A reboot by off and on succeeds here: the cluster waits
    /// for nothing more.
    fn achieved(&self, how: Confirmed, now: u64) -> Step {
        let is_cycle = self.order == Order::Cycle;
        let on_follows = self.action == FenceAction::Reboot && !is_cycle;
        let off = Off {
            at_boot_ms: if is_cycle { self.ordered_boot_ms } else { now },
            verified: how.verified,
            on_followed: is_cycle,
        };
        let (performed, message) = if on_follows {
            ("off", format!("off: {}; the power-on follows", how.text))
        } else {
            (self.action.as_str(), how.text)
        };
        Step::Done(Verdict {
            result: FenceResult::Success,
            verified: how.verified,
            performed,
            message,
            off: (self.order != Order::On).then_some(off),
            on_follows,
        })
    }

    /// The current order failed or is in doubt.
    fn failed(result: FenceResult, text: String) -> Step {
        Step::Done(Verdict::failure(result, text))
    }
}

fn with_words(text: &str, words: &str) -> String {
    if words.is_empty() { text.to_owned() } else { format!("{text} ({words})") }
}

#[cfg(test)]
mod tests;
