//! Who waits for an order.
//!
//! Between a claim and the call that acts lie logins, questions and look-ups, in other processes,
//! too. All that may take until the limit, and the client may be killed meanwhile: Pacemaker gives
//! up a second try long before the agent's own deadline. So each driver asks once more, right
//! before the call that acts, and so do the processes that act for a driver.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use fence_core::watcher::is_awaited;
use serde::{Deserialize, Serialize};

use crate::Limit;

/// Tells whether somebody still waits for an order, in any process of the watcher's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    claim: PathBuf,
    is_holder: bool,
}

impl Client {
    /// The client whose claimed request lies at `claim`; `is_holder` if it says that it holds it.
    pub fn new(claim: PathBuf, is_holder: bool) -> Self {
        Client { claim, is_holder }
    }

    /// Whether it still waits, as far as anybody can know: in doubt it does not. What a passing
    /// lack of descriptors hides is looked at again, until `limit`.
    pub fn is_waiting(&self, limit: Limit) -> bool {
        loop {
            match fence_spool::is_claim_held(&self.claim) {
                Ok(held) => return is_awaited(self.is_holder, held),
                Err(problem) if problem.is_passing() && !limit.has_passed() => {
                    thread::sleep(LOOK_AGAIN);
                }
                Err(_) => return false,
            }
        }
    }
}

/// The pause before the client is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
