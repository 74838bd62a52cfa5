//! Queries to the running watcher, through the spool.

use anyhow::anyhow;
use fence_client::{AskError, NewQuery, check_alive};
use fence_device::Limit;
use fence_protocol::{QueryAnswer, QueryKind};
use fence_spool::ClientSpool;

use super::table::span;
use crate::config::SpoolSettings;

/// The answer of the watcher that serves this spool to a question, perhaps about `device`. The
/// watcher must answer within `patience_ms`.
pub(super) fn ask(
    spool: &SpoolSettings,
    kind: QueryKind,
    device: Option<&str>,
    patience_ms: u64,
) -> anyhow::Result<QueryAnswer> {
    let spool = ClientSpool::open(&spool.places())?;
    if kind == QueryKind::State {
        check_alive(&spool)?;
        spool.check_served()?;
    }
    let deadline_boot_ms = Limit::in_ms(patience_ms).not_after_boot_ms;
    let question = NewQuery { kind, device, target: None, deadline_boot_ms };
    fence_client::ask(&spool, &question).map_err(|error| match error {
        AskError::NoAnswer { .. } => anyhow!("{error} within {}: {LOOK_AT_LOG}", span(patience_ms)),
        error @ (AskError::Malformed(_) | AskError::OtherQuestion) => {
            anyhow!("{error}: {LOOK_AT_LOG}")
        }
        other => other.into(),
    })
}

pub(super) const LOOK_AT_LOG: &str = "look at its log with `journalctl -u fence-watcher`";
