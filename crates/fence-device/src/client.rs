//! Who waits for an order.
//!
//! Between a claim and the call that acts lie logins, questions and look-ups, in other processes, too.
//! All that may take until the limit, and the client may be killed meanwhile: Pacemaker gives up a second
//! try long before the agent's own deadline. So each driver asks once more, right before the call that
//! acts, and so do the processes that act for a driver.

use std::path::PathBuf;

use fence_core::watcher::is_awaited;
use serde::{Deserialize, Serialize};

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

    /// Whether it still waits, as far as anybody can know. In doubt it does not.
    pub fn is_waiting(&self) -> bool {
        is_awaited(self.is_holder, fence_spool::is_claim_held(&self.claim))
    }
}
