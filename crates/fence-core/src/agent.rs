//! What an answer means to the agent, and how long the agent waits for it.
//!
//! Only an answer to the agent's own request and target that says "success" is a success.
//! Everything else is a failure: a wrong answer at once, a missing answer at the end. An agent that
//! gives up withdraws its request, and the kernel decides whether the withdrawal or the claim came
//! first.

use fence_protocol::{
    AnswerError, FenceAction, FenceResult, NodeName, ReceivedAnswer, RequestId, bounded,
};

/// What an answer must match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// The request's identity.
    pub request_id: RequestId,
    /// Its target.
    pub target: NodeName,
    /// Its action.
    pub action: FenceAction,
}

/// What the content of an answer file means for the agent that waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Judgement {
    /// The fence is done.
    Success(ReceivedAnswer),
    /// The responder says that the fence failed.
    Failure(ReceivedAnswer),
    /// The answer contradicts the request or itself. It proves nothing, whatever it says.
    Wrong(String),
    /// The text does not parse; a simple responder may still be writing it.
    NotYet(String),
}

impl Expected {
    /// Judges an answer file's content.
    pub fn judge(&self, bytes: &[u8]) -> Judgement {
        let answer = match ReceivedAnswer::parse(bytes) {
            Ok(answer) => answer,
            Err(AnswerError::NotYet(why)) => return Judgement::NotYet(why),
            Err(AnswerError::Malformed(why)) => {
                return Judgement::Wrong(format!("the answer is malformed: {why}"));
            }
        };
        match self.contradiction(&answer) {
            Some(why) => Judgement::Wrong(why),
            None if answer.success == Some(true) => Judgement::Success(answer),
            None => Judgement::Failure(answer),
        }
    }

    fn contradiction(&self, answer: &ReceivedAnswer) -> Option<String> {
        match answer.request_id.as_deref() {
            Some(id) if self.request_id.is(id) => {}
            Some(id) => {
                return Some(format!("the answer is for another request, {:?}", bounded(id, 64)));
            }
            None => return Some("the answer names no request_id".to_owned()),
        }
        if let Some(target) = &answer.target_node
            && target != self.target.as_str()
        {
            return Some(format!("the answer is for another target, {:?}", bounded(target, 64)));
        }
        let Some(success) = answer.success else {
            return Some("the answer has no boolean \"success\"".to_owned());
        };
        if !success {
            return None;
        }
        if let Some(performed) = &answer.action_performed
            && !self.action.is_fulfilled_by(performed)
        {
            let performed = bounded(performed, 64);
            return Some(format!("the answer says {performed:?} was done, not {}", self.action));
        }
        let words = [answer.result.as_deref(), answer.status.as_deref()];
        let success = FenceResult::Success.as_str();
        let other = words.into_iter().flatten().find(|word| *word != success).map(str::to_owned);
        let code = answer.result_code.filter(|code| *code != 0).map(|code| code.to_string());
        let other = other.or(code)?;
        Some(format!("the answer says success and {:?} at once", bounded(&other, 64)))
    }
}

/// Who is expected to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponderKind {
    /// `fence-watcher`, which claims what it executes and can be asked whether it lives.
    FenceWatcher,
    /// Any other responder: even a withdrawn request may have been started.
    Other,
}

/// Whether a `fence-watcher` serves the spool at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Serving {
    /// The watcher holds its lock.
    Alive,
    /// A watcher has run on this spool, but none holds the lock.
    Dead,
    /// No watcher has run on this spool since it was created. One may still start, or never.
    Never,
}

/// What the agent finds when it looks at the spool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AnswerSight {
    /// The content of each answer file that exists, under any of the possible names.
    pub answers: Vec<Judgement>,
    /// Whether the watcher lives.
    pub watcher: Serving,
}

/// An event for a waiting agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The agent looked, after a change in the spool or at the planned time.
    Looked(AnswerSight),
    /// The agent received this signal, and looked.
    Signal(&'static str, AnswerSight),
    /// The agent tried to withdraw its request, and looked.
    Withdrawal(Withdrawal, AnswerSight),
}

/// The result of a withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Withdrawal {
    /// The agent removed its request.
    Withdrawn,
    /// Another process had already taken the request.
    Taken,
    /// The withdrawal failed: the request may still be pending.
    Failed(String),
}

/// Why the agent gave up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The time limit was reached.
    TimedOut {
        /// The unusable answer that was found, if any.
        unreadable: Option<String>,
    },
    /// This signal asked the agent to stop.
    Signal(&'static str),
    /// The watcher ended and was not restarted.
    WatcherDead,
}

/// How the wait ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The fence is done. This is the only success.
    Success(ReceivedAnswer),
    /// The responder answered that the fence failed.
    Failure(ReceivedAnswer),
    /// An answer exists that proves nothing.
    WrongAnswer(String),
    /// The agent gave up and withdrew its request. `fence-watcher` never starts such a request;
    /// another responder may.
    Withdrawn(Reason),
    /// The agent gave up after another process had taken the request: the fence may be done, now or
    /// later.
    Unknown(Reason),
    /// The agent gave up and could not withdraw its request; the last field says why.
    Stuck(Reason, String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Wait for an event, at most until this instant (milliseconds of `CLOCK_BOOTTIME`), then look.
    Wait(u64),
    /// Withdraw the request, then look.
    Withdraw,
    /// The wait is over.
    Done(Outcome),
}

/// How long the agent waits for a dead watcher, in milliseconds: a service manager restarts it
/// sooner.
pub const WATCHER_GRACE_MS: u64 = 5_000;

/// One agent, waiting for the answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    responder: ResponderKind,
    stop_boot_ms: u64,
    poll_ms: u64,
    dead_since_boot_ms: Option<u64>,
    giving_up: Option<Reason>,
}

impl Waiting {
    /// An agent that gives up at `stop_boot_ms` and looks at least every `poll_ms` milliseconds.
    pub fn new(responder: ResponderKind, stop_boot_ms: u64, poll_ms: u64) -> Self {
        Waiting {
            responder,
            stop_boot_ms,
            poll_ms: poll_ms.max(1),
            dead_since_boot_ms: None,
            giving_up: None,
        }
    }

    /// Takes an event that happened at `now_boot_ms` and returns the next step.
    pub fn next(&mut self, event: Event, now_boot_ms: u64) -> Step {
        match event {
            Event::Looked(sight) => self.looked(sight, now_boot_ms),
            Event::Signal(signal, sight) => match decided(&sight) {
                Some(outcome) => Step::Done(outcome),
                None => self.give_up(Reason::Signal(signal)),
            },
            Event::Withdrawal(withdrawal, sight) => Step::Done(self.ended(withdrawal, &sight)),
        }
    }

    fn looked(&mut self, sight: AnswerSight, now: u64) -> Step {
        if let Some(outcome) = decided(&sight) {
            return Step::Done(outcome);
        }
        if now >= self.stop_boot_ms {
            let unreadable = sight.answers.into_iter().find_map(|answer| match answer {
                Judgement::NotYet(why) => Some(why),
                _ => None,
            });
            return self.give_up(Reason::TimedOut { unreadable });
        }
        let mut until = self.stop_boot_ms.min(now.saturating_add(self.poll_ms));
        if self.responder == ResponderKind::FenceWatcher && sight.watcher == Serving::Dead {
            let since = *self.dead_since_boot_ms.get_or_insert(now);
            let patience = since.saturating_add(WATCHER_GRACE_MS);
            if now >= patience {
                return self.give_up(Reason::WatcherDead);
            }
            until = until.min(patience);
        } else {
            self.dead_since_boot_ms = None;
        }
        Step::Wait(until)
    }

    fn give_up(&mut self, reason: Reason) -> Step {
        self.giving_up = Some(reason);
        Step::Withdraw
    }

    fn ended(&self, withdrawal: Withdrawal, sight: &AnswerSight) -> Outcome {
        // An answer at the last moment counts: its writer had the request.
        let reason = self.giving_up.clone().unwrap_or(Reason::TimedOut { unreadable: None });
        match (withdrawal, decided(sight)) {
            (_, Some(outcome)) => outcome,
            (Withdrawal::Withdrawn, None) => Outcome::Withdrawn(reason),
            (Withdrawal::Taken, None) => Outcome::Unknown(reason),
            (Withdrawal::Failed(why), None) => Outcome::Stuck(reason, why),
        }
    }
}

/// The outcome that the answers decide, if any. A wrong answer outweighs a good one, because it
/// shows that something is amiss.
pub fn decided(sight: &AnswerSight) -> Option<Outcome> {
    let rank = |judgement: &&Judgement| match judgement {
        Judgement::Wrong(_) => 3,
        Judgement::Failure(_) => 2,
        Judgement::Success(_) => 1,
        Judgement::NotYet(_) => 0,
    };
    match sight.answers.iter().max_by_key(rank)? {
        Judgement::Wrong(why) => Some(Outcome::WrongAnswer(why.clone())),
        Judgement::Failure(answer) => Some(Outcome::Failure(answer.clone())),
        Judgement::Success(answer) => Some(Outcome::Success(answer.clone())),
        Judgement::NotYet(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    fn expected(action: FenceAction) -> Expected {
        Expected { request_id: ID.parse().unwrap(), target: "n3".parse().unwrap(), action }
    }

    fn judge(action: FenceAction, text: &str) -> Judgement {
        let text = text.replace("ID", ID).replace("UPPER", &ID.to_ascii_uppercase());
        expected(action).judge(text.as_bytes())
    }

    fn success() -> Judgement {
        judge(FenceAction::Off, r#"{"request_id":"ID","target_node":"n3","success":true}"#)
    }

    fn sight(answers: Vec<Judgement>) -> AnswerSight {
        AnswerSight { answers, watcher: Serving::Alive }
    }

    fn nothing() -> AnswerSight {
        sight(Vec::new())
    }

    fn waiting() -> Waiting {
        Waiting::new(ResponderKind::FenceWatcher, 10_000, 500)
    }

    #[test]
    fn only_a_complete_matching_positive_answer_is_success() {
        for (action, text, is_success) in [
            (FenceAction::Off, r#"{"request_id":"ID","success":true}"#, true),
            (
                FenceAction::Off,
                r#"{"request_id":"ID","success":true,"action_performed":"off"}"#,
                true,
            ),
            (
                FenceAction::Reboot,
                r#"{"request_id":"ID","success":true,"action_performed":"off"}"#,
                true,
            ),
            (
                FenceAction::Off,
                r#"{"request_id":"ID","success":true,"action_performed":"reboot"}"#,
                false,
            ),
            (
                FenceAction::Off,
                r#"{"request_id":"ID","success":true,"action_performed":"fenced"}"#,
                false,
            ),
            (FenceAction::Off, r#"{"request_id":"ID","success":true,"result":"expired"}"#, false),
            (FenceAction::Off, r#"{"request_id":"ID","success":true,"result":2}"#, false),
            (FenceAction::Off, r#"{"request_id":"ID","success":true,"result_code":1}"#, false),
            (FenceAction::Off, r#"{"request_id":"ID","success":true,"status":"error"}"#, false),
            (
                FenceAction::Off,
                r#"{"request_id":"ID","success":true,"status":"success","result_code":0}"#,
                true,
            ),
            (FenceAction::Off, r#"{"request_id":"ID","success":false,"success":true}"#, false),
            (FenceAction::Off, r#"{"request_id":"ID","success":true,"target_node":"n4"}"#, false),
            (FenceAction::Off, r#"{"request_id":"ID","success":true,"target_node":7}"#, false),
            (FenceAction::Off, r#"{"request_id":"other","success":true}"#, false),
            (FenceAction::Off, r#"{"request_id":"UPPER","success":true}"#, true),
            (FenceAction::Off, r#"{"request_id":"{ID}","success":true}"#, false),
            (FenceAction::Off, r#"{"request_id":"urn:uuid:ID","success":true}"#, false),
            (FenceAction::Off, r#"{"request_id":" ID","success":true}"#, false),
            (FenceAction::Off, r#"{"success":true}"#, false),
            (FenceAction::Off, r#"{"request_id":"ID","success":"true"}"#, false),
            (FenceAction::Off, r#"{"request_id":"ID"}"#, false),
            (FenceAction::Off, r#"{"request_id":"ID","success":false}"#, false),
            (FenceAction::Off, r#"{"request_id":"ID","success":true"#, false),
            (FenceAction::Off, "[true]", false),
            (FenceAction::Off, "", false),
        ] {
            let judgement = judge(action, text);
            assert_eq!(matches!(judgement, Judgement::Success(_)), is_success, "{text}");
        }
    }

    #[test]
    fn the_agent_waits_for_a_half_written_answer_and_reports_it_at_the_end() {
        let half = || judge(FenceAction::Off, r#"{"request_id":"ID","succ"#);
        let mut agent = waiting();
        assert_eq!(agent.next(Event::Looked(sight(vec![half()])), 0), Step::Wait(500));
        assert_eq!(agent.next(Event::Looked(sight(vec![half()])), 10_000), Step::Withdraw);
        let step = agent.next(Event::Withdrawal(Withdrawal::Taken, nothing()), 10_000);
        let Step::Done(Outcome::Unknown(Reason::TimedOut { unreadable: Some(_) })) = step else {
            panic!("{step:?}");
        };
    }

    #[test]
    fn silence_ends_in_a_withdrawal_and_never_in_success() {
        let mut agent = waiting();
        assert_eq!(agent.next(Event::Looked(nothing()), 9_800), Step::Wait(10_000));
        assert_eq!(agent.next(Event::Looked(nothing()), 10_000), Step::Withdraw);
        let step = agent.next(Event::Withdrawal(Withdrawal::Withdrawn, nothing()), 10_001);
        let reason = Reason::TimedOut { unreadable: None };
        assert_eq!(step, Step::Done(Outcome::Withdrawn(reason)));
    }

    #[test]
    fn an_answer_that_arrives_during_the_withdrawal_counts() {
        let mut agent = waiting();
        assert_eq!(agent.next(Event::Signal("SIGTERM", nothing()), 5), Step::Withdraw);
        let step = agent.next(Event::Withdrawal(Withdrawal::Taken, sight(vec![success()])), 6);
        assert!(matches!(step, Step::Done(Outcome::Success(_))));
    }

    #[test]
    fn a_request_that_another_process_took_has_an_unknown_outcome() {
        let mut agent = waiting();
        agent.next(Event::Signal("SIGTERM", nothing()), 5);
        let step = agent.next(Event::Withdrawal(Withdrawal::Taken, nothing()), 6);
        assert_eq!(step, Step::Done(Outcome::Unknown(Reason::Signal("SIGTERM"))));
    }

    #[test]
    fn a_wrong_answer_beside_a_good_one_is_not_success() {
        let wrong = judge(FenceAction::Off, r#"{"request_id":"other","success":true}"#);
        let step = waiting().next(Event::Looked(sight(vec![success(), wrong])), 0);
        assert!(matches!(step, Step::Done(Outcome::WrongAnswer(_))));
    }

    #[test]
    fn the_agent_waits_for_a_dead_watcher_no_longer_than_a_restart_takes() {
        let dead = || AnswerSight { answers: Vec::new(), watcher: Serving::Dead };
        let mut agent = Waiting::new(ResponderKind::FenceWatcher, 60_000, 500);
        assert_eq!(agent.next(Event::Looked(dead()), 0), Step::Wait(500));
        assert_eq!(agent.next(Event::Looked(nothing()), 4_000), Step::Wait(4_500));
        assert_eq!(agent.next(Event::Looked(dead()), 5_000), Step::Wait(5_500));
        assert_eq!(agent.next(Event::Looked(dead()), 10_000), Step::Withdraw);

        let mut other = Waiting::new(ResponderKind::Other, 60_000, 500);
        other.next(Event::Looked(dead()), 0);
        assert_eq!(other.next(Event::Looked(dead()), 59_000), Step::Wait(59_500));
    }
}
