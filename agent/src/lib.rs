//! The fence agent `fence_gfs2_recorder`: it lets a watcher fence, through files.
//!
//! One run: `input` reads the options, `invocation` gives them their meaning or refuses them,
//! `fence` or `probe` carries out the action, `outcome` ends the run. The agent opens nothing
//! before it knows its action.
//!
//! The agent has no logger, touches no log, and removes no answer. Its child processes are the
//! programs that `gfs2_discovery` runs, and this program itself as the writer of the logs
//! (`fence_audit::LogProcess`), which a thread starts.

mod discovery;
pub mod ending;
mod fence;
pub mod help;
pub mod input;
pub mod invocation;
pub mod metadata;
pub mod outcome;
pub mod parameters;
mod prefix;
mod probe;
mod progress;
mod returning;
mod signals;
pub mod target;

pub use fence_clock as clock;

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::ExitCode;
use std::time::Duration;

use fence_log::Syslog;
use fence_protocol::shortened;
use log::Level;

use crate::input::{RawInput, STDIN_BYTES_MAX, SyntaxError};
use crate::invocation::{InputError, Invocation, understand};
use crate::outcome::Ending;
use crate::parameters::{AGENT, parameter};

/// Runs the agent that started at `start_boot_ms` with these arguments.
pub fn run(arguments: &[OsString], start_boot_ms: u64) -> ExitCode {
    if fence_audit::write_logs(arguments) {
        return ExitCode::SUCCESS;
    }
    let input = match read(arguments) {
        Ok(input) => input,
        Err(SyntaxError(text)) => return Ending::failure(&text).conclude(false),
    };
    // `quiet` also holds for a refusal.
    let quiet = input.flag(parameter("quiet"));
    let environment = |name: &str| std::env::var(name).ok();
    match understand(&input, &environment) {
        Ok(invocation) => {
            report_mistyped(&input, &invocation);
            perform(&invocation, start_boot_ms, &input).conclude(quiet)
        }
        Err(refusal @ InputError::UnknownAction(_)) => {
            Ending::failure_as_said(&refusal.to_string()).conclude(quiet)
        }
        Err(refusal) => Ending::failure(&refusal.to_string()).conclude(quiet),
    }
}

/// Pacemaker's default limit for a fence agent.
const PACEMAKER_LIMIT: Duration = Duration::from_mins(1);

fn read(arguments: &[OsString]) -> Result<RawInput, SyntaxError> {
    if !arguments.is_empty() {
        return RawInput::from_arguments(arguments);
    }
    let mut bytes = Vec::new();
    io::stdin()
        .take(STDIN_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| SyntaxError(format!("cannot read the options: {error}")))?;
    RawInput::from_stdin(&bytes)
}

fn perform(invocation: &Invocation, start_boot_ms: u64, input: &RawInput) -> Ending {
    match invocation {
        Invocation::Help => Ending::answer(help::help()),
        Invocation::Version => Ending::answer(help::version()),
        Invocation::Metadata => Ending::answer(metadata::metadata()),
        Invocation::Manpage => Ending::answer(metadata::manpage()),
        Invocation::ValidateAll(time_max) => {
            Ending::success("").with_problems(&advice(*time_max, input))
        }
        Invocation::Probe(probe) => probe::run(probe, start_boot_ms),
        Invocation::Fence(fence) => fence::run(fence, start_boot_ms),
    }
}

/// Advice about options that are right.
fn advice(time_max: Duration, input: &RawInput) -> Vec<String> {
    let mut advice: Vec<String> = mistyped(input).into_iter().collect();
    // pcs lets Pacemaker validate and shows all output as a warning, even if the device's own
    // limits are long enough: the agent does not know them.
    if input.is_typed && time_max > PACEMAKER_LIMIT {
        advice.push(format!(
            "the options are right, but Pacemaker ends an agent after {} s if the device sets no limits \
             for reboot and off: set these limits above {} s",
            PACEMAKER_LIMIT.as_secs(),
            time_max.as_secs()
        ));
    }
    advice
}

/// The unknown options, if any: they are ignored, as the fence agent API requires.
fn mistyped(input: &RawInput) -> Option<String> {
    let mistyped = input.mistyped();
    let text = || shortened(&format!("ignored: {}", mistyped.join("; ")), MISTYPED_BYTES_MAX);
    (!mistyped.is_empty()).then(text)
}

/// The longest text about mistyped options, in bytes.
const MISTYPED_BYTES_MAX: usize = 900;

/// Reports the unknown options of a fence to syslog.
fn report_mistyped(input: &RawInput, invocation: &Invocation) {
    if matches!(invocation, Invocation::Fence(_))
        && let Some(mistyped) = mistyped(input)
        && let Some(mut syslog) = Syslog::connect(AGENT)
    {
        syslog.send(Level::Warn, &mistyped);
    }
}
