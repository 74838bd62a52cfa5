//! `fence-watcher-ec2`: one call to AWS EC2 for fence-watcher.
//!
//! Reads one [`Ec2Call`] as JSON from standard input, writes one [`Ec2Answer`] as a line of JSON to
//! standard output, and exits with 0, whatever the answer; or with 2 and words on standard error,
//! when it did not understand the call and did nothing. It takes no arguments and keeps no files.
//! What an answer means for a fence is said in the driver, `fence_device`'s module `ec2`.
//!
//! - `steps`: what is done for each call. `session`: who we are, and one signed exchange.
//! - `query`, `reply`: what is sent and what comes back; both are free of I/O.

mod permission;
mod query;
mod reply;
mod session;
mod steps;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use fence_device::{Ec2Answer, Ec2Call, Limit};

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(io::stderr(), "fence-watcher-ec2: {problem}");
            NOT_UNDERSTOOD.into()
        }
    }
}

fn serve() -> Result<(), String> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read standard input: {error}"))?;
    // The words of the parser could hold a value, and so a secret.
    let call: Ec2Call = serde_json::from_str(&text)
        .map_err(|_| "standard input is no call; fence-watcher starts this program by itself")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let limit =
        Limit { not_after_boot_ms: call.limit.not_after_boot_ms.saturating_sub(RESERVE_MS) };
    let answer = runtime.block_on(steps::carry_out(&call, limit));
    // A name that is still being looked up must not keep the answer back.
    runtime.shutdown_background();
    write(&answer);
    Ok(())
}

/// Writes the answer. What was done is done: that nobody reads it is no reason to say otherwise.
fn write(answer: &Ec2Answer) {
    let line = serde_json::to_string(answer).unwrap_or_default();
    let _ = writeln!(io::stdout(), "{line}");
}

/// How long before it would be killed the answer is given.
const RESERVE_MS: u64 = 400;

const NOT_UNDERSTOOD: u8 = 2;
