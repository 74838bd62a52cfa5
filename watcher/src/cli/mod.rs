//! The command line: the command, its settings, and the exit code.
//!
//! 0: the command succeeded and found no problem. 1: it failed, or found a problem. 2: the command
//! line or the configuration is wrong, and nothing was begun.
//!
//! Each command but `run` writes one text at its end. A reader that goes away (`| head`) is not an
//! error. A standard output that is full or closed is an error.

mod ask;
mod check;
mod history;
mod reload;
mod shown;
mod status;
mod table;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use clap::{CommandFactory, Parser, Subcommand};
use fence_client::AskError;
use fence_log::stdout_was_closed;
use fence_protocol::{FenceAction, NodeName};
use fence_spool::{PlaceError, SpoolError};

use crate::config::{self, ConfigError, Origin, Problem, SpoolSettings, WatcherConfig};
use crate::daemon;
use check::Wanted;

/// Carries out the command line.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    // Before everything else: the executor must start from a fresh process.
    if let [_, mode, lock_file] = &arguments[..]
        && mode == EXECUTOR_MODE
    {
        return done(fence_device::executor_main(Path::new(lock_file)).map_err(Into::into));
    }
    if arguments.get(1..).is_some_and(fence_audit::write_logs) {
        return ExitCode::SUCCESS;
    }
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => execute(arguments),
        Err(error) if error.use_stderr() => {
            // Without standard error, the error cannot be reported.
            let _ = error.print();
            WRONG_INPUT.into()
        }
        // The help or the version.
        Err(text) => done(written(|| text.print())),
    }
}

/// The whole command line, for the manual and the completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Answers fence requests: takes them from the spool, drives fence devices, writes the results
#[derive(Debug, Parser)]
#[command(name = "fence-watcher", version)]
struct Arguments {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    #[command(flatten)]
    run: RunArguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// The name of this node, if it differs from `uname -n`
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests until stopped (the default)
    Run(RunArguments),
    /// Check the configuration, whether the service can start, and whether each device can be
    /// reached now
    Check {
        #[command(flatten)]
        node: RunArguments,
        /// Check the file alone: for a file of another machine
        #[arg(long)]
        offline: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what the running watcher is doing
    Status {
        /// As JSON: an object with `"running": false` if no watcher runs
        #[arg(long)]
        json: bool,
    },
    /// Make the running watcher read its configuration again: a wrong one changes nothing
    Reload,
    /// Show past fences, from the audit log
    History {
        /// Only fences of this node
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Only this action
        #[arg(long, value_name = "ACTION", value_parser = shown::action_values())]
        action: Option<FenceAction>,
        /// Only fences with this result
        #[arg(long, value_name = "RESULT", value_parser = shown::result_values())]
        result: Option<shown::Shown>,
        /// Only fences since this time: 30m, 2h, 7d ago, or a date or time, such as 2026-01-31,
        /// '2026-01-31 12:00' or 12:00 (local) or 2026-01-31T12:00:00Z
        #[arg(long, value_name = "WHEN", value_parser = history::since)]
        since: Option<DateTime<Utc>>,
        /// As JSON: a list, or an object with a `message` if the audit cannot be read
        #[arg(long)]
        json: bool,
        /// The directory of the audit log, if it is not the configured one
        #[arg(long, value_name = "DIR")]
        log_dir: Option<PathBuf>,
    },
}

fn execute(arguments: Arguments) -> ExitCode {
    let Arguments { config, run, command } = arguments;
    let input = Input { config, node: run.node, environment: config::environment() };
    match command.unwrap_or(Command::Run(RunArguments { node: None })) {
        Command::Run(RunArguments { node }) => match input.settings_to_serve(node.clone()) {
            Ok(settings) => {
                let input = input.in_any_directory();
                let source: daemon::Source =
                    Arc::new(move || input.settings_to_serve(node.clone()));
                done(daemon::run(settings, &source))
            }
            Err(error) => refuse(&error),
        },
        Command::Check { node, offline, json } => {
            check(&input, node.node, Wanted { offline, json })
        }
        Command::Status { json } => match input.settings_to_look() {
            Ok(settings) => show(status::status(&settings.spool, json, table::width())),
            Err(error) => refuse_as(json, |text| status::silence(None, text), &error),
        },
        Command::Reload => reload_watcher(&input),
        Command::History { node, action, result, since, json, log_dir } => {
            let wanted = history::Wanted { node, action, result, since };
            show_history(&input, log_dir, wanted, json)
        }
    }
}

fn check(input: &Input, node: Option<NodeName>, wanted: Wanted) -> ExitCode {
    match input.settings_to_check(node.clone(), wanted.offline) {
        Ok(settings) => show(check::check(&settings, wanted)),
        Err(error) => {
            let node = input.origin(node, false).node;
            refuse_as(wanted.json, |_| check::refused(&node, &error.lines()), &error)
        }
    }
}

fn show_history(
    input: &Input,
    log_dir: Option<PathBuf>,
    wanted: history::Wanted,
    json: bool,
) -> ExitCode {
    let log_dir = match log_dir {
        Some(directory) => std::path::absolute(&directory).unwrap_or(directory),
        None => match input.settings_to_look() {
            Ok(settings) => settings.log.log_dir,
            Err(error) => return refuse_as(json, history::unread, &error),
        },
    };
    let text = history::history(&log_dir, &input.spool_at_best(), wanted, json, table::width());
    if let (Err(error), true) = (&text, json) {
        say(&history::unread(&error.to_string()));
    }
    show(text.map(|text| (text, true)).map_err(Into::into))
}

fn reload_watcher(input: &Input) -> ExitCode {
    let spool = input.spool_at_best();
    let error = match reload::reload(&spool) {
        Ok(Ok(text)) => {
            let shown = show(Ok((text, true)));
            let settings = input.settings_to_look();
            for warning in settings.iter().flat_map(check::warnings) {
                complain(&format!("warning: {warning}"));
            }
            return shown;
        }
        Ok(Err(problems)) => {
            for problem in problems {
                complain(&problem);
            }
            return ExitCode::FAILURE;
        }
        Err(error) => error,
    };
    let places = format!(
        "'{}' and '{}' (a change of these needs a restart)",
        spool.request_dir.display(),
        spool.response_dir.display()
    );
    let not_read = format!("no watcher on {places} has read the configuration again");
    // A watcher may run all the same: a wrong configuration does not lead to it.
    let Err(wrong) = input.settings_to_look() else { return done(Err(error.context(not_read))) };
    refuse(&wrong);
    let correct = "correct the configuration, then run `fence-watcher reload` again";
    let is_missing =
        matches!(error.downcast_ref(), Some(SpoolError::Place(PlaceError::Missing { .. })));
    done(Err(if is_missing || matches!(error.downcast_ref(), Some(AskError::NotRunning(_))) {
        anyhow!("nothing was read again: no watcher was found on {places}; {correct}")
    } else {
        // A watcher may run, and still read the file.
        error.context(format!("{not_read}; {correct}"))
    }))
}

/// The sources of the settings.
struct Input {
    config: PathBuf,
    node: Option<NodeName>,
    environment: [(&'static str, Option<String>); 3],
}

impl Input {
    /// For `check`: as the service on this machine reads it, unless the file is for another
    /// machine.
    fn settings_to_check(
        &self,
        node: Option<NodeName>,
        offline: bool,
    ) -> Result<WatcherConfig, ConfigError> {
        if !offline {
            return self.settings_to_serve(node);
        }
        let is_for_a_node = node.is_some() || self.node.is_some();
        let settings = config::load(&self.origin(node, false))?;
        // Without a name, the file may be for any node.
        if is_for_a_node { self.with_a_device_here(settings) } else { Ok(settings) }
    }

    /// For the service, which needs the clock and a device for its node.
    fn settings_to_serve(&self, node: Option<NodeName>) -> Result<WatcherConfig, ConfigError> {
        let settings = config::load(&self.origin(node, true))?;
        match fence_clock::problem() {
            Some(text) => Err(self.problem(text)),
            None => self.with_a_device_here(settings),
        }
    }

    fn with_a_device_here(&self, settings: WatcherConfig) -> Result<WatcherConfig, ConfigError> {
        if settings.devices.iter().any(|device| device.applies_to(&settings.node)) {
            return Ok(settings);
        }
        Err(self.problem(format!(
            "no [[device]] is for this node, '{}': add it to `nodes` of one, or give its name with \
             --node",
            settings.node
        )))
    }

    fn problem(&self, text: String) -> ConfigError {
        let problems = vec![Problem { line: None, text }];
        ConfigError::Problems { path: self.config.clone(), problems }
    }

    /// For the commands that only look. They also serve users of other responders: without the
    /// usual file, they take the defaults.
    fn settings_to_look(&self) -> Result<WatcherConfig, ConfigError> {
        let origin = self.origin(None, false);
        match config::load(&origin) {
            Err(ConfigError::Missing(path)) if path == Path::new(config::DEFAULT_FILE) => {
                config::without_file(&origin)
            }
            result => result,
        }
    }

    /// The place of the spool, as far as the file can be read: the watcher itself reports the
    /// problems.
    fn spool_at_best(&self) -> SpoolSettings {
        config::spool_at_best(&self.origin(None, false))
    }

    /// The same for a process that leaves this directory.
    fn in_any_directory(self) -> Self {
        let config = std::path::absolute(&self.config).unwrap_or(self.config);
        Input { config, ..self }
    }

    fn origin(&self, node: Option<NodeName>, programs_must_exist: bool) -> Origin<'_> {
        let node = node.or_else(|| self.node.clone());
        Origin {
            file: &self.config,
            node: node.map_or_else(config::local_node, |node| node.to_string()),
            environment: &self.environment,
            programs_must_exist,
        }
    }
}

/// Writes a command's text. The exit code shows whether the command found no problem.
fn show(result: anyhow::Result<(String, bool)>) -> ExitCode {
    let is_well = result.and_then(|(text, is_well)| {
        written(|| io::stdout().write_all(text.as_bytes())).map(|()| is_well)
    });
    match is_well {
        Ok(false) => ExitCode::FAILURE,
        other => done(other.map(drop)),
    }
}

/// Writes to standard output. A reader that goes away is not an error.
fn written(write: impl FnOnce() -> io::Result<()>) -> anyhow::Result<()> {
    let written = if stdout_was_closed() {
        Err(io::Error::other("it is closed"))
    } else {
        write().and_then(|()| io::stdout().flush())
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    error.lines().iter().for_each(|line| complain(line));
    WRONG_INPUT.into()
}

/// The same, with the error as an object on standard output if the caller reads JSON.
fn refuse_as(json: bool, object: impl FnOnce(&str) -> String, error: &ConfigError) -> ExitCode {
    if json {
        say(&object(&error.lines().join("\n")));
    }
    refuse(error)
}

/// Writes a text besides the exit code, which says more: a reader that has gone is not an error.
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    // Without standard error, the text cannot be reported.
    let _ = writeln!(io::stderr(), "fence-watcher: {text}");
}

const WRONG_INPUT: u8 = 2;

/// The hidden first argument that makes this program the executor; the lock's path follows it.
const EXECUTOR_MODE: &str = "--executor";
