//! On a terminal: what becomes of a target that is off by a reboot, and comes back after the answer.
//!
//! The fence is over, whatever is shown here. Whoever does not want to wait presses Ctrl-C.

use fence_client::{NewQuery, ask};
use fence_protocol::{PowerOn, QueryKind, RequestId};
use fence_spool::ClientSpool;

use crate::clock::boot_ms;
use crate::invocation::FenceSettings;
use crate::progress::Progress;
use crate::signals::Signals;

/// Shows the power-on that follows the answer to the request `id` until it is over, a signal comes, or
/// nothing can be learned about it. Gives whether the target is on again.
pub(crate) fn show(
    settings: &FenceSettings,
    id: &RequestId,
    signals: &Signals,
    progress: &mut Progress,
) -> bool {
    let Ok(spool) = settings.responder.open(&settings.places) else { return false };
    let target = &settings.target;
    let mut is_known = false;
    loop {
        match look(&spool, id) {
            Some(PowerOn::UnderWay) => {
                if !is_known {
                    progress.say(&format!("'{target}' is off; its power-on follows"));
                }
                is_known = true;
                progress
                    .waiting(&format!("waiting for the power-on of '{target}' (Ctrl-C ends this)"));
            }
            Some(PowerOn::Over(result)) => {
                let is_on = result.starts_with("on:");
                progress.say(&if is_on {
                    format!("'{target}' is on")
                } else {
                    format!("'{target}' is off; its power-on: {result}")
                });
                return is_on;
            }
            None => {
                if is_known {
                    let where_to_look = "see 'fence-watcher history'";
                    progress
                        .say(&format!("what became of '{target}' is not known; {where_to_look}"));
                }
                return false;
            }
        }
        if signals.wait(None, boot_ms().saturating_add(LOOK_EVERY_MS)).is_some() {
            return false;
        }
    }
}

fn look(spool: &ClientSpool, id: &RequestId) -> Option<PowerOn> {
    let query = NewQuery {
        kind: QueryKind::State,
        device: None,
        target: None,
        deadline_boot_ms: boot_ms().saturating_add(ANSWER_MS_MAX),
    };
    ask(spool, &query).ok()?.power_on(id)
}

/// The pause between two questions, in milliseconds.
const LOOK_EVERY_MS: u64 = 500;

/// How long a watcher that lives may take to answer, in milliseconds.
const ANSWER_MS_MAX: u64 = 5_000;
