//! `fence-watcher reload`: has the running watcher read its configuration again, and tells what came
//! of it.
//!
//! The watcher is asked, not signalled: the number of a process that has just ended may be somebody
//! else's by now, and a signal brings no answer.

use fence_log::one_line;
use fence_protocol::QueryKind;

use super::ask::ask;
use crate::config::SpoolSettings;

/// The text of `reload`, or all that is wrong with the configuration.
pub(super) fn reload(spool: &SpoolSettings) -> anyhow::Result<Result<String, Vec<String>>> {
    let answer = ask(spool, QueryKind::Reload, ANSWER_MS_MAX)?;
    let message = one_line(&answer.message);
    if answer.code == 0 {
        return Ok(Ok(message + "\n"));
    }
    let problems = answer.problems.iter().map(|problem| one_line(problem));
    Ok(Err(problems.chain([message]).collect()))
}

/// How long a watcher may take to read its configuration: looking for the programs that it names can
/// be slow.
const ANSWER_MS_MAX: u64 = 30_000;
