//! The client that waits for an order.
//!
//! Logins, questions and look-ups follow the claim and precede the call that acts, in other
//! processes too. They may take until the limit, and the client may be killed meanwhile: Pacemaker
//! gives up a second try long before the agent's own deadline. So each driver checks the client
//! again right before the call that acts, and so do the processes that act for a driver.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use fence_core::watcher::is_awaited;
use serde::{Deserialize, Serialize};

use crate::Limit;

/// Shows whether the client of an order still waits, in any process of the watcher's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    claim: PathBuf,
    is_holder: bool,
}

impl Client {
    /// The client of the claimed request at `claim`; `is_holder` if the request says that it is
    /// held.
    pub fn new(claim: PathBuf, is_holder: bool) -> Self {
        Client { claim, is_holder }
    }

    /// Whether the client still waits; false in doubt. After a passing lack of descriptors, the
    /// check is repeated until `limit`.
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

/// The pause before the check is repeated.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
