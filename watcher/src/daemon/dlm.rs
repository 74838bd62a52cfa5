//! Reports to DLM that a target is fenced: `dlm_tool fence_ack`, if the site configures it.
//!
//! DLM trusts this report without a check, gives the target's locks to others and lets its journals
//! be replayed. So only a target that its device has *shown* to be off is reported, and at once or
//! not at all: the same target may come back and fail again. The report does not change the answer,
//! which was sent before.

use std::path::Path;

use fence_core::watcher::Job;
use fence_device::{Command, ExecutorClient, Limit, RunOutcome};
use gfs2_discovery::{ROOT_VARIABLE, Target, find_program, node_id};
use log::{info, warn};

/// Reports to DLM that the target of `job` is fenced.
pub(super) fn acknowledge(executor: &ExecutorClient, job: &Job) {
    let about = format!("request={} target={}", job.request.request_id, job.target);
    match tell(executor, job.target.as_str()) {
        // The tool does not show what DLM does with the report.
        Ok(node_id) => info!("told DLM that it is fenced: {about} node_id={node_id}"),
        Err(why) => warn!("DLM was not told that it is fenced: {about}: {why}"),
    }
}

fn tell(executor: &ExecutorClient, target: &str) -> Result<u32, String> {
    let root = std::env::var_os(ROOT_VARIABLE).unwrap_or_else(|| "/".into());
    let root = Path::new(&root);
    let target = Target { plug: target, nodename: None };
    let node_id = node_id(root, target)?;
    let tool = find_program(root, "dlm_tool")?;
    let limit = Limit::in_ms(TIME_MS_MAX);
    let argv = vec![tool.display().to_string(), "fence_ack".to_owned(), node_id.to_string()];
    let command = Command::new(argv, limit).plain();
    // It is killed at its limit; its result is for the log alone.
    let outcome = executor.ask(Command { output_bytes_max: OUTPUT_BYTES_MAX, ..command });
    match outcome {
        RunOutcome::Exited { code: 0, .. } => Ok(node_id),
        RunOutcome::Exited { code, stderr, .. } => {
            Err(format!("dlm_tool exited with {code}: {}", stderr.trim()))
        }
        RunOutcome::NotStarted(why) => Err(why),
        _ => Err("dlm_tool was ended before it was done".to_owned()),
    }
}

/// How long the report may take, in milliseconds: far less than a machine needs to start.
const TIME_MS_MAX: u64 = 5_000;
const OUTPUT_BYTES_MAX: usize = 1024;
