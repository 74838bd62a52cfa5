//! The command line: which command, with which settings, and the exit code.
//!
//! 0: done, and all is well. 1: it failed, or something is not well. 2: the command line or the
//! configuration is wrong, and nothing was begun.
//!
//! Each command but `run` makes a text, which is written at once at the end: a reader that goes
//! away (`| head`) is no error. A text that cannot be written is one: standard output is full, or
//! closed.

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

use crate::config::{self, ConfigError, Origin, Problem, Settings, SpoolSettings};
use crate::daemon;
use check::Wanted;

/// Does what the command line says.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    // The executor must start from a fresh process, so it comes before everything else.
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
            // Nobody is left to tell when standard error is gone.
            let _ = error.print();
            WRONG_INPUT.into()
        }
        // The help or the version.
        Err(text) => match written(|| text.print()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => done(Err(error)),
        },
    }
}

/// The whole command line, for what is made from it: the manual and the completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Answers fence requests: takes them from the spool, drives fence devices, writes what came of it.
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
    /// The name of this node, where it differs from `uname -n`
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests until told to stop (what is done without a command)
    Run(RunArguments),
    /// Check the configuration, whether the service can start, and whether each device can be
    /// reached now
    Check {
        #[command(flatten)]
        node: RunArguments,
        /// Look at nothing but the file: for a file that is meant for another machine
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
    /// Have the running watcher read its configuration again: all of it, or nothing if it is wrong
    Reload,
    /// Show what was fenced, from the audit log
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
        /// Only fences since then: 30m, 2h, 7d ago, or a date or time, such as 2026-01-31,
        /// '2026-01-31 12:00' or 12:00 (local) or 2026-01-31T12:00:00Z
        #[arg(long, value_name = "WHEN", value_parser = history::since)]
        since: Option<DateTime<Utc>>,
        /// As JSON: a list, or an object with a `message` if the audit cannot be read
        #[arg(long)]
        json: bool,
        /// The directory of the audit log, where it is not the configured one
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
            Err(error) => {
                refuse_as(json.then(|| status::unknown(&error.lines().join("\n"))), &error)
            }
        },
        Command::Reload => reload_watcher(&input),
        Command::History { node, action, result, since, json, log_dir } => {
            let log_dir = log_dir.map_or_else(
                || input.settings_to_look().map(|settings| settings.log.log_dir),
                |directory| Ok(std::path::absolute(&directory).unwrap_or(directory)),
            );
            let wanted = history::Wanted { node, action, result, since };
            let spool = input.spool_at_best();
            match log_dir {
                Ok(log_dir) => {
                    match history::history(&log_dir, &spool, wanted, json, table::width()) {
                        Ok(text) => show(Ok((text, true))),
                        Err(error) => {
                            if json {
                                say(&history::unread(&error.to_string()));
                            }
                            done(Err(error.into()))
                        }
                    }
                }
                Err(error) => {
                    refuse_as(json.then(|| history::unread(&error.lines().join("\n"))), &error)
                }
            }
        }
    }
}

fn check(input: &Input, node: Option<NodeName>, wanted: Wanted) -> ExitCode {
    let error = match input.settings_to_check(node.clone(), wanted.offline) {
        Ok(settings) => return show(check::check(&settings, wanted)),
        Err(error) => error,
    };
    let node = input.origin(node, false).node;
    refuse_as(wanted.json.then(|| check::refused(&node, &error.lines())), &error)
}

fn reload_watcher(input: &Input) -> ExitCode {
    let spool = input.spool_at_best();
    match reload::reload(&spool) {
        Ok(Ok(text)) => {
            let shown = show(Ok((text, true)));
            if let Ok(settings) = input.settings_to_look() {
                for warning in check::warnings(&settings) {
                    complain(&format!("warning: {warning}"));
                }
            }
            shown
        }
        Ok(Err(problems)) => {
            for problem in problems {
                complain(&problem);
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            let places = format!(
                "'{}' and '{}' (a change of these needs a restart)",
                spool.request_dir.display(),
                spool.response_dir.display()
            );
            // A watcher may run all the same: a wrong configuration does not lead to it.
            done(Err(match input.settings_to_look() {
                Ok(_) => {
                    error.context(format!("no watcher that serves {places} has read it again"))
                }
                Err(wrong) => {
                    refuse(&wrong);
                    let correct =
                        "correct the configuration, then run `fence-watcher reload` again";
                    let is_missing = matches!(
                        error.downcast_ref(),
                        Some(SpoolError::Place(PlaceError::Missing { .. }))
                    );
                    if is_missing || matches!(error.downcast_ref(), Some(AskError::NotRunning(_))) {
                        anyhow!(
                            "nothing was read again: no watcher was found that serves {places}; {correct}"
                        )
                    } else {
                        // It may run, and read the file yet.
                        error.context(format!(
                            "no watcher that serves {places} has read it again; {correct}"
                        ))
                    }
                }
            }))
        }
    }
}

/// From where settings come.
struct Input {
    config: PathBuf,
    node: Option<NodeName>,
    environment: [(&'static str, Option<String>); 3],
}

impl Input {
    fn settings(
        &self,
        node: Option<NodeName>,
        programs_must_exist: bool,
    ) -> Result<Settings, ConfigError> {
        config::load(&self.origin(node, programs_must_exist))
    }

    /// For a look at the configuration: as the service would take it on this machine, unless it is
    /// meant for another one.
    fn settings_to_check(
        &self,
        node: Option<NodeName>,
        offline: bool,
    ) -> Result<Settings, ConfigError> {
        if !offline {
            return self.settings_to_serve(node);
        }
        let is_for_a_node = node.is_some() || self.node.is_some();
        let settings = self.settings(node, false)?;
        // Without a name, it may be meant for any node.
        if is_for_a_node { self.with_a_device_here(settings) } else { Ok(settings) }
    }

    fn on_this_clock(&self, settings: Settings) -> Result<Settings, ConfigError> {
        match fence_clock::problem() {
            None => Ok(settings),
            Some(text) => {
                let problems = vec![Problem { line: None, text }];
                Err(ConfigError::Problems { path: self.config.clone(), problems })
            }
        }
    }

    /// For the service, which is of no use on a node that no device is for.
    fn settings_to_serve(&self, node: Option<NodeName>) -> Result<Settings, ConfigError> {
        self.with_a_device_here(self.on_this_clock(self.settings(node, true)?)?)
    }

    fn with_a_device_here(&self, settings: Settings) -> Result<Settings, ConfigError> {
        if settings.devices.iter().any(|device| device.applies_to(&settings.node)) {
            return Ok(settings);
        }
        let text = format!(
            "no [[device]] is for this node, '{}': add it to `nodes` of one, or give its name with \
             --node",
            settings.node
        );
        let problems = vec![Problem { line: None, text }];
        Err(ConfigError::Problems { path: self.config.clone(), problems })
    }

    /// For the commands that only look, which serve other responders' users too: without the usual
    /// file, the usual places.
    fn settings_to_look(&self) -> Result<Settings, ConfigError> {
        let origin = self.origin(None, false);
        match config::load(&origin) {
            Err(ConfigError::Missing(path)) if path == Path::new(config::DEFAULT_FILE) => {
                config::without_file(&origin)
            }
            result => result,
        }
    }

    /// Where the spool lies, as far as the file can be read: the watcher is to tell what is wrong.
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

/// Writes a command's text; the exit code says whether all is well.
fn show(result: anyhow::Result<(String, bool)>) -> ExitCode {
    let (text, is_well) = match result {
        Ok(result) => result,
        Err(error) => return done(Err(error)),
    };
    match written(|| io::stdout().write_all(text.as_bytes())) {
        Err(error) => done(Err(error)),
        Ok(()) if is_well => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
    }
}

/// What came of writing to standard output. A reader that goes away is no error.
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
    for line in error.lines() {
        complain(&line);
    }
    WRONG_INPUT.into()
}

/// The same with `json` on standard output, for a program that reads there.
fn refuse_as(json: Option<String>, error: &ConfigError) -> ExitCode {
    if let Some(json) = json {
        say(&json);
    }
    refuse(error)
}

/// Writes what goes with an exit code that says more: a reader that has gone is no other failure.
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(io::stderr(), "fence-watcher: {text}");
}

const WRONG_INPUT: u8 = 2;

/// The hidden first argument that makes this program the executor; the lock's path follows it.
const EXECUTOR_MODE: &str = "--executor";
