//! The core's events and effects in words, for the log at its finest level.

use fence_core::watcher::{Claim, Effect, Event, Sight};
use fence_protocol::bounded;

/// `event` in words.
pub(super) fn of_event(event: &Event) -> String {
    let words = match event {
        Event::Recovered(name, sight) => {
            format!("found claimed request {name}: {}", of_sight(sight))
        }
        Event::Seen(name, sight) => format!("saw request {name}: {}", of_sight(sight)),
        Event::Claim(name, claim) => format!("claim of request {name}: {}", of_claim(claim)),
        Event::Finished(name, verdict) => {
            format!("finished request {name}: {}: {}", verdict.result, verdict.message)
        }
        Event::OnOrdered(id) => format!("the device reacted to the power-on of request {id}"),
        Event::OnOver(id, verdict) => {
            format!("the power-on of request {id} is over: {}: {}", verdict.result, verdict.message)
        }
        Event::LeftReturning(request) => {
            format!("found the record of a power-on: request {}", request.request_id)
        }
        Event::Inquired(name, true, words) => format!("asked for request {name}: {words}"),
        Event::Inquired(name, false, words) => format!("asked in vain for request {name}: {words}"),
        Event::Answered(name, Ok(())) => format!("answered request {name}"),
        Event::Answered(name, Err(why)) => format!("could not answer request {name}: {why}"),
        Event::Targets(device, Some(targets)) => {
            format!("device '{device}' listed {} targets", targets.len())
        }
        Event::Targets(device, None) => format!("device '{device}' listed no targets"),
        Event::Tick => "time passed".to_owned(),
        Event::Reconfigured(_, devices) => format!("reconfigured: {} devices", devices.len()),
        Event::Stop(Some(limit)) => {
            format!("to stop, and to begin nothing after {limit} ms of boot time")
        }
        Event::Stop(None) => "to stop, and to begin nothing more".to_owned(),
    };
    bounded(&words, BYTES_MAX)
}

/// `effect` in words.
pub(super) fn of_effect(effect: &Effect) -> String {
    let words = match effect {
        Effect::Look(name) => format!("look at request {name}"),
        Effect::Claim { name, sync: true } => format!("claim request {name} durably"),
        Effect::Claim { name, sync: false } => format!("claim request {name}"),
        Effect::Execute(name, job) => format!(
            "execute request {name}: target={} action={} device={}",
            job.target, job.action, job.lane.device
        ),
        Effect::Inquire(name, request) => {
            format!("ask for request {name}: action={}", request.action.as_str())
        }
        Effect::AskTargets(device) => format!("ask device '{device}' for its targets"),
        Effect::Answer(name, answer, _) => {
            format!("answer request {name}: {}: {}", answer.result, answer.message)
        }
        Effect::RemoveClaimed(name) => format!("remove claimed request {name}"),
        Effect::KeepReturning(name, _) => format!("keep claimed request {name} for its power-on"),
        Effect::PowerOn(job) => {
            format!("power on the target of request {}", job.request.request_id)
        }
        Effect::EndPowerOn(id) => format!("let go of the power-on of request {id}"),
        Effect::Returned(request, result) => {
            format!("note the power-on of request {}: {result}", request.request_id)
        }
        Effect::ForgetReturning(id) => format!("remove the record of the power-on of request {id}"),
        Effect::RemovePending(name) => format!("remove pending request {name}"),
        Effect::SetAside(name, why) => format!("set request {name} aside: {why}"),
        Effect::Note(name, text) => format!("note of request {name}: {text}"),
    };
    bounded(&words, BYTES_MAX)
}

/// The sight of a request in words.
pub(super) fn of_sight(sight: &Sight) -> String {
    match sight {
        Sight::Gone => "it is gone".to_owned(),
        Sight::Answered => "it is answered".to_owned(),
        Sight::OffAnswered(_) => "it is answered, and its target was to be brought back".to_owned(),
        Sight::Untrusted(why) => format!("it is not trusted: {why}"),
        Sight::Content(content) => match &content.parsed {
            Ok(_) => "a request".to_owned(),
            Err(rejection) => rejection.error.to_string(),
        },
    }
}

fn of_claim(claim: &Claim) -> String {
    match claim {
        Claim::Gone => "it was gone".to_owned(),
        Claim::Failed(why) => format!("it failed: {why}"),
        Claim::Claimed { parsed: Err(rejection), .. } => rejection.error.to_string(),
        Claim::Claimed { begun_before: true, .. } => "it was begun before".to_owned(),
        Claim::Claimed { client_gone: true, .. } => "its client does not hold it".to_owned(),
        Claim::Claimed { .. } => "it is ours".to_owned(),
    }
}

/// The longest event or effect in the log, in bytes.
const BYTES_MAX: usize = 1024;
