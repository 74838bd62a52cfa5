//! The end of the wait, in words: for the audit and for the one line on standard error.
//!
//! `fence_core::agent` makes the decision.

use std::time::Duration;

use fence_core::agent::{Outcome, Reason, Serving};
use fence_core::watcher::NOT_FENCED_AGAIN;
use fence_protocol::{AuditResult, FenceAction, FenceResult, ReceivedAnswer, bounded};

use crate::invocation::{FenceSettings, Responder};
use crate::outcome::Ending;

/// The end of a fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceEnding {
    /// How it ended, for the audit.
    pub result: AuditResult,
    /// What happened, for the audit.
    pub details: String,
    /// How the agent ends.
    pub ending: Ending,
    /// A reboot whose target is off, and is brought back by our watcher after the answer.
    pub on_follows: bool,
}

/// The end for `outcome`, reached `waited` after the agent's start; `watcher` is the watcher's
/// state now.
pub fn fence_ending(
    settings: &FenceSettings,
    outcome: Outcome,
    waited: Duration,
    watcher: Serving,
) -> FenceEnding {
    match outcome {
        Outcome::Success(answer) => fenced(settings, &answer),
        Outcome::Failure(answer) => {
            let result = result_of(&answer);
            let advice = advice(&result, &answer.message, settings);
            let why = format!("{result}: {}; {advice}", in_words(&answer));
            failed(settings, result, &why)
        }
        Outcome::WrongAnswer(why) => {
            let place = settings.places.responses.display();
            let why = format!("{why}; find out who else answers in '{place}'");
            failed(settings, AuditResult::Unknown, &why)
        }
        Outcome::Withdrawn(reason) => {
            let rest = match (settings.responder, watcher, &reason) {
                (Responder::FenceWatcher, Serving::Alive, _) => {
                    "the request was withdrawn before anything was started; see 'fence-watcher status'"
                }
                (Responder::FenceWatcher, _, Reason::WatcherDead) => {
                    "the request was withdrawn before anything was started; start it: systemctl \
                     start fence-watcher"
                }
                (Responder::FenceWatcher, ..) => {
                    "the request was withdrawn: no fence-watcher is running on this node; start it: \
                     systemctl start fence-watcher"
                }
                _ => {
                    "the request was withdrawn, but the responder may have begun it: check the target"
                }
            };
            let result = match reason {
                Reason::TimedOut { .. } => AuditResult::TimedOut,
                Reason::Signal(_) | Reason::WatcherDead => FenceResult::Withdrawn.into(),
            };
            gave_up(settings, &reason, waited, result, rest)
        }
        Outcome::Unknown(reason) => {
            let place = match settings.responder {
                Responder::FenceWatcher => "'fence-watcher history'",
                Responder::Script | Responder::Nnf => &log_of(settings.responder),
            };
            let rest = format!(
                "the request had been taken, so the outcome is unknown: check the target, and see {place}"
            );
            gave_up(settings, &reason, waited, AuditResult::Unknown, &rest)
        }
        Outcome::Stuck(reason, why) => {
            let rest = format!("the request could not be withdrawn ({why}): check the target");
            gave_up(settings, &reason, waited, AuditResult::Unknown, &rest)
        }
    }
}

/// The end of a fence that was answered with success.
fn fenced(settings: &FenceSettings, answer: &ReceivedAnswer) -> FenceEnding {
    let performed = answer.action_performed.as_deref();
    let on_follows = settings.responder == Responder::FenceWatcher
        && settings.action == FenceAction::Reboot
        && performed == Some(FenceAction::Off.as_str())
        && !answer.message.starts_with(NOT_FENCED_AGAIN);
    let ending = if on_follows {
        Ending::success("Success: Powered OFF, the power-on follows\n")
    } else {
        done(settings.action, performed)
    };
    let result = FenceResult::Success.into();
    FenceEnding { result, details: in_words(answer), ending, on_follows }
}

/// The end of an `on` with nnf-sos, which would take the request for a fence. The administrator
/// gives the node its storage back.
pub fn nothing_to_do() -> FenceEnding {
    let details = "nothing requested: responder nnf takes every request for a fence".to_owned();
    let ending = Ending::success("Success: Nothing to do, nnf-sos does not switch nodes on\n");
    FenceEnding { result: FenceResult::Success.into(), details, ending, on_follows: false }
}

/// Whether nnf-sos says that the target had nothing to lose. nnf-sos says so of a node that it does
/// not know, and if Kubernetes did not list the storage to it.
pub fn found_nothing(answer: &ReceivedAnswer) -> bool {
    let message = answer.message.to_ascii_lowercase();
    let words: Vec<&str> = message
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let says = |phrase: &[&str]| words.windows(phrase.len()).any(|found| found == phrase);
    says(&["nothing", "to", "fence"])
        || says(&["found", "to", "fence"]) && (says(&["no"]) || says(&["0"]) || says(&["none"]))
        || says(&["deleting", "0"])
}

/// The end of a fence for which nnf-sos found nothing, if it is not known whether Kubernetes has
/// the target.
pub fn nothing_was_fenced(
    settings: &FenceSettings,
    answer: &ReceivedAnswer,
    why: &str,
) -> FenceEnding {
    let why = format!(
        "nnf-sos found nothing to fence ({}), which it reports as success for an unknown name too, and \
         {why}; have kubectl answer, and check the target",
        in_words(answer)
    );
    failed(settings, FenceResult::Unacknowledged, &why)
}

/// The end of a fence that was done. `performed` is the action that the responder reports: the
/// agent claims no more.
fn done(action: FenceAction, performed: Option<&str>) -> Ending {
    Ending::success(match (action, performed) {
        (FenceAction::Off, _) | (FenceAction::Reboot, Some("off")) => "Success: Powered OFF\n",
        (FenceAction::On, _) => "Success: Powered ON\n",
        (FenceAction::Reboot, _) => return rebooted(),
    })
}

/// The end of a reboot whose target is on again.
pub fn rebooted() -> Ending {
    Ending::success("Success: Rebooted\n")
}

/// The end of a fence that failed because of `why`.
pub fn failed(settings: &FenceSettings, result: impl Into<AuditResult>, why: &str) -> FenceEnding {
    let text = format!("{} of '{}' failed: {why}", settings.action, settings.target);
    FenceEnding {
        result: result.into(),
        ending: Ending::failure(&text),
        details: why.to_owned(),
        on_follows: false,
    }
}

fn gave_up(
    settings: &FenceSettings,
    reason: &Reason,
    waited: Duration,
    result: AuditResult,
    rest: &str,
) -> FenceEnding {
    let why = match reason {
        Reason::Signal(signal) => format!("stopped by {signal}; {rest}"),
        Reason::WatcherDead => format!("fence-watcher has ended on this node; {rest}"),
        Reason::TimedOut { unreadable } => {
            let seconds = waited.as_secs_f64();
            let seen = unreadable
                .as_ref()
                .map(|why| format!("the file with the answer's name cannot be read ({why}); "))
                .unwrap_or_default();
            let why = format!("no answer within {seconds:.1} s; {seen}{rest}");
            let text = format!("{} of '{}' timed out: {why}", settings.action, settings.target);
            let ending = Ending::failure_as_said(&text);
            let details = format!("timed out: {why}");
            return FenceEnding { result, details, ending, on_follows: false };
        }
    };
    failed(settings, result, &why)
}

/// The result of an answer without success. If its `result` is `success`, the answer contradicts
/// itself.
fn result_of(answer: &ReceivedAnswer) -> AuditResult {
    let result = answer.result.as_ref().map(|word| AuditResult::from(bounded(word, 64)));
    result.filter(|result| *result != FenceResult::Success.into()).unwrap_or(AuditResult::Unknown)
}

/// The responder's message, with the device and whether it showed the state.
fn in_words(answer: &ReceivedAnswer) -> String {
    let message = match answer.message.trim() {
        "" => "the responder gave no message",
        message => message,
    };
    let device = answer.device.as_ref().map(|device| format!(" (device '{device}')"));
    let verified = if answer.verified == Some(true) { ", verified" } else { "" };
    format!("{message}{}{verified}", device.unwrap_or_default())
}

fn log_of(responder: Responder) -> String {
    format!("the log of {responder}")
}

fn advice(result: &AuditResult, message: &str, settings: &FenceSettings) -> String {
    let is_short = SHORTAGES.iter().any(|words| message.contains(words));
    let (Responder::FenceWatcher, AuditResult::Fence(result)) = (settings.responder, result) else {
        return format!("see {}", log_of(settings.responder));
    };
    match result {
        FenceResult::Unreachable => "check the way to the device: fence-watcher check",
        FenceResult::DeviceFailure if is_short => {
            "this node lacks threads, processes or memory: see the log of fence-watcher"
        }
        FenceResult::DeviceFailure | FenceResult::Rejected => {
            "check the devices' configuration: fence-watcher check"
        }
        FenceResult::Expired | FenceResult::Withdrawn => "nothing was started: fence again",
        FenceResult::Success | FenceResult::Unacknowledged | FenceResult::Interrupted => {
            "check the target"
        }
    }
    .to_owned()
}

/// The system's messages about a lack of threads, processes or memory.
const SHORTAGES: [&str; 2] = ["Resource temporarily unavailable", "Cannot allocate memory"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::RawInput;
    use crate::invocation::{Invocation, understand};

    fn settings(responder: &str) -> FenceSettings {
        let text = format!("action=reboot\nplug=n3\nresponder={responder}\n");
        let input = RawInput::from_stdin(text.as_bytes()).unwrap();
        match understand(&input, &|_| None).unwrap() {
            Invocation::Fence(fence) => *fence,
            other => panic!("{other:?}"),
        }
    }

    fn answer(message: &str, result: Option<&str>) -> ReceivedAnswer {
        ReceivedAnswer {
            request_id: None,
            target_node: None,
            success: None,
            action_performed: None,
            message: message.into(),
            result_code: None,
            status: None,
            result: result.map(str::to_owned),
            verified: Some(true),
            device: Some("pdu".into()),
        }
    }

    fn all_reasons() -> Vec<Reason> {
        vec![
            Reason::TimedOut { unreadable: None },
            Reason::TimedOut { unreadable: Some("EOF".into()) },
            Reason::Signal("SIGTERM"),
            Reason::WatcherDead,
        ]
    }

    fn stderr(end: &FenceEnding) -> String {
        format!("{:?}", end.ending)
    }

    #[test]
    fn only_the_outcome_success_ends_in_success() {
        let mut outcomes = vec![
            Outcome::Failure(answer("x", Some("success"))),
            Outcome::Failure(answer("x", None)),
            Outcome::WrongAnswer("x".into()),
        ];
        for reason in all_reasons() {
            outcomes.push(Outcome::Withdrawn(reason.clone()));
            outcomes.push(Outcome::Unknown(reason.clone()));
            outcomes.push(Outcome::Stuck(reason, "x".into()));
        }
        for responder in ["fence-watcher", "script", "nnf"] {
            let end = |outcome, watcher| {
                fence_ending(&settings(responder), outcome, Duration::from_secs(9), watcher)
            };
            for outcome in &outcomes {
                for watcher in [Serving::Alive, Serving::Dead, Serving::Never] {
                    let end = end(outcome.clone(), watcher);
                    assert!(!end.ending.is_success(), "{outcome:?}");
                    assert_ne!(end.result, FenceResult::Success.into(), "{outcome:?}");
                    assert!(stderr(&end).contains("'n3'"), "{end:?}");
                }
            }
            let end = end(Outcome::Success(answer("x", None)), Serving::Alive);
            assert!(end.ending.is_success());
            assert_eq!(
                (end.result.as_str(), end.details.as_str()),
                ("success", "x (device 'pdu'), verified")
            );
        }
    }

    #[test]
    fn only_an_expired_time_is_told_in_the_words_for_it() {
        for reason in all_reasons() {
            let is_timeout = matches!(reason, Reason::TimedOut { .. });
            let outcome = Outcome::Unknown(reason);
            let end =
                fence_ending(&settings("script"), outcome, Duration::from_secs(9), Serving::Never);
            assert_eq!(stderr(&end).contains("timed out"), is_timeout, "{end:?}");
        }
        let outcome = Outcome::Failure(answer("connection timed out", Some("unreachable")));
        let end = fence_ending(&settings("script"), outcome, Duration::ZERO, Serving::Never);
        assert!(!stderr(&end).contains("timed out"));
        assert!(end.details.contains("connection timed out"), "the audit keeps the words");
    }

    #[test]
    fn a_request_taken_back_from_a_responder_that_does_not_claim_may_have_been_begun() {
        let reason = || Reason::TimedOut { unreadable: None };
        let end = |responder, watcher| {
            let outcome = Outcome::Withdrawn(reason());
            stderr(&fence_ending(&settings(responder), outcome, Duration::from_secs(9), watcher))
        };
        assert!(end("script", Serving::Never).contains("may have begun it"));
        assert!(end("fence-watcher", Serving::Alive).contains("before anything was started"));
        assert!(end("fence-watcher", Serving::Never).contains("systemctl start fence-watcher"));
    }

    #[test]
    fn the_advice_is_for_the_responder_that_is_used() {
        let end = |responder: &str, outcome| {
            stderr(&fence_ending(
                &settings(responder),
                outcome,
                Duration::from_secs(9),
                Serving::Never,
            ))
        };
        let unknown = || Outcome::Unknown(Reason::TimedOut { unreadable: None });
        let failed = || Outcome::Failure(answer("no", Some("device-failure")));
        for (responder, log) in
            [("script", "the log of the responder"), ("nnf", "the log of nnf-sos")]
        {
            for text in [end(responder, unknown()), end(responder, failed())] {
                assert!(text.contains(log) && !text.contains("fence-watcher"), "{text}");
            }
        }
        assert!(end("fence-watcher", unknown()).contains("'fence-watcher history'"));
    }

    #[test]
    fn a_reboot_that_was_answered_with_off_is_not_called_one() {
        let not_again = format!("{NOT_FENCED_AGAIN}: for another");
        for (performed, message, words, may_follow) in [
            (Some("off"), "x", "Success: Powered OFF", true),
            (Some("off"), &not_again, "Success: Powered OFF\\n", false),
            (Some("reboot"), "x", "Success: Rebooted", false),
            (None, "x", "Success: Rebooted", false),
        ] {
            for responder in ["fence-watcher", "script", "nnf"] {
                let performed = performed.map(str::to_owned);
                let answer =
                    ReceivedAnswer { action_performed: performed, ..answer(message, None) };
                let outcome = Outcome::Success(answer);
                let end = fence_ending(
                    &settings(responder),
                    outcome,
                    Duration::from_secs(9),
                    Serving::Alive,
                );
                let follows = may_follow && responder == "fence-watcher";
                assert!(stderr(&end).contains(words), "{end:?}");
                assert_eq!(end.on_follows, follows, "{end:?}");
                assert_eq!(stderr(&end).contains("the power-on follows"), follows, "{end:?}");
            }
        }
    }

    #[test]
    fn what_nnf_sos_says_where_it_has_nothing_to_fence_is_understood() {
        for (message, expected) in [
            ("No block storage resources found to fence", true),
            ("no GFS2 storage groups found to fence.", true),
            ("nothing to fence", true),
            ("Successfully fenced node by deleting 0 GFS2 storage groups", true),
            ("Successfully fenced node by deleting 1 GFS2 storage groups", false),
            ("Successfully fenced node by deleting 10 GFS2 storage groups", false),
            ("done", false),
            ("", false),
        ] {
            assert_eq!(found_nothing(&answer(message, None)), expected, "{message}");
        }
    }

    #[test]
    fn a_watcher_that_died_is_told_once() {
        let outcome = Outcome::Withdrawn(Reason::WatcherDead);
        let end = fence_ending(
            &settings("fence-watcher"),
            outcome,
            Duration::from_secs(9),
            Serving::Dead,
        );

        assert_eq!(
            end.details,
            "fence-watcher has ended on this node; the request was withdrawn before anything was started; \
             start it: systemctl start fence-watcher"
        );
    }

    #[test]
    fn a_lack_of_threads_is_not_blamed_on_the_configuration() {
        let end = |message: &str| {
            let outcome = Outcome::Failure(answer(message, Some("device-failure")));
            fence_ending(&settings("fence-watcher"), outcome, Duration::ZERO, Serving::Alive)
                .details
        };
        for cause in ["Resource temporarily unavailable (os error 11)", "Cannot allocate memory"] {
            let details = end(&format!("not started: cannot start a thread: {cause}"));
            assert!(details.ends_with("see the log of fence-watcher"), "{details}");
            assert!(!details.contains("configuration"), "{details}");
        }
        assert!(end("the login was refused").contains("check the devices' configuration"));
    }

    #[test]
    fn what_the_device_shows_is_not_called_unknown() {
        let shown = answer(
            "not acknowledged, and not confirmed: the device showed on",
            Some("unacknowledged"),
        );
        let outcome = Outcome::Failure(ReceivedAnswer { verified: None, ..shown });
        let end = fence_ending(
            &settings("fence-watcher"),
            outcome,
            Duration::from_secs(9),
            Serving::Alive,
        );

        assert_eq!(
            end.details,
            "unacknowledged: not acknowledged, and not confirmed: the device showed on (device 'pdu'); \
             check the target"
        );
    }
}
