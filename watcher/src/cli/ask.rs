//! Asking the running watcher, through the spool's queries.

use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail};
use fence_device::Limit;
use fence_protocol::{Query, QueryAnswer, QueryKind, RequestId};
use fence_spool::{Asked, ClientSpool, Liveness, Places};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::table::span;
use crate::config::SpoolSettings;
use crate::daemon::boot_id;

/// The answer of the watcher that serves this spool, if there is one within `patience_ms`.
pub(super) fn ask(
    spool: &SpoolSettings,
    query: QueryKind,
    patience_ms: u64,
) -> anyhow::Result<QueryAnswer> {
    ask_about(spool, query, None, patience_ms)
}

/// The same for a question about `device`.
pub(super) fn ask_about(
    spool: &SpoolSettings,
    query: QueryKind,
    device: Option<&str>,
    patience_ms: u64,
) -> anyhow::Result<QueryAnswer> {
    let spool = ClientSpool::open(&Places::new(&spool.request_dir, &spool.response_dir))?;
    let pid = match spool.watcher() {
        Liveness::Alive { pid } => pid,
        Liveness::Dead { pid: Some(pid) } => {
            bail!("no fence-watcher is running (the last one was process {pid}): {START_IT}")
        }
        Liveness::Dead { pid: None } | Liveness::Never => {
            bail!("no fence-watcher is running: {START_IT}")
        }
    };
    if query == QueryKind::State {
        spool.check_served()?;
    }
    let limit = Limit::in_ms(patience_ms);
    let query = Query {
        query_id: RequestId::random().to_string(),
        query,
        device: device.map(str::to_owned),
        target: None,
        deadline_boottime_ms: limit.not_after_boot_ms,
        boot_id: boot_id().ok(),
        asked_boottime_ms: Some(fence_device::boot_ms_now()),
    };
    let asked = spool.ask(&query)?;
    let bytes = wait(&spool, &asked, limit).ok_or_else(|| {
        let process = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
        anyhow!(
            "fence-watcher{process} is running but gave no answer within {}: {LOOK_AT_LOG}",
            span(patience_ms)
        )
    })?;
    QueryAnswer::parse(&bytes)
        .map_err(|error| anyhow!("the watcher's answer is not understood: {error}: {LOOK_AT_LOG}"))
}

fn wait(spool: &ClientSpool, asked: &Asked, limit: Limit) -> Option<Vec<u8>> {
    loop {
        // The time is read first: an answer that comes while it runs out is still taken.
        let left = limit.left_ms();
        if let Some(bytes) = spool.answer_of(asked) {
            return Some(bytes);
        }
        if left == 0 {
            return None;
        }
        match asked.wait_fd() {
            Some(events) => {
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                // Interrupted or not: the next turn looks.
                let _ = poll(&mut [PollFd::new(events, PollFlags::POLLIN)], timeout);
                asked.drain();
            }
            None => thread::sleep(Duration::from_millis(left.min(LOOK_EVERY_MS))),
        }
    }
}

/// How often to look where the system has no watch left to give.
const LOOK_EVERY_MS: u64 = 20;
pub(super) const LOOK_AT_LOG: &str = "look at its log with `journalctl -u fence-watcher`";
const START_IT: &str = "start it with `systemctl start fence-watcher`";
