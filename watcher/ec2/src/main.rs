//! `fence-watcher-ec2`: one call to AWS EC2 for fence-watcher.
//!
//! The program reads one [`Ec2Call`] as JSON from standard input, writes one `Ec2Answer` as a
//! line of JSON to standard output, and exits with 0. If it cannot read the call, it does nothing,
//! writes the reason to standard error, and exits with 2. It takes no arguments and keeps no files.
//! The driver, `fence_device`'s module `ec2`, decides what an answer means for a fence.
//!
//! - `steps`: the steps of each call. `session`: the credentials, and one signed exchange.
//! - `permission`: the check right before an order is sent.
//! - `query`, `reply`: requests and answers; both do no I/O.

mod permission;
mod query;
mod reply;
mod session;
mod steps;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use fence_device::{Ec2Call, Limit};

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Without standard error, the exit code alone reports the problem.
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
    // The parser's words could contain a value, and so a secret.
    let call: Ec2Call = serde_json::from_str(&text)
        .map_err(|_| "standard input is no call; fence-watcher starts this program by itself")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let not_after_boot_ms = call.limit.not_after_boot_ms.saturating_sub(RESERVE_MS);
    let answer = runtime.block_on(steps::carry_out(&call, Limit { not_after_boot_ms }));
    // A look-up that still runs must not delay the answer.
    runtime.shutdown_background();
    // The call was carried out, also if nobody reads the answer.
    let line = serde_json::to_string(&answer).unwrap_or_default();
    let _ = writeln!(io::stdout(), "{line}");
    Ok(())
}

/// The program answers this long before the watcher would kill it.
const RESERVE_MS: u64 = 400;

const NOT_UNDERSTOOD: u8 = 2;
