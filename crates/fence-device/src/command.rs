//! `type = "command"`: a device that programs of the administrator operate.
//!
//! Each action is an argument list, which never passes through a shell. `{target}`, `{action}`,
//! `{gfs2_filesystems}` and `{request_id}` are replaced inside single arguments, so that no value
//! can become a second argument or an option. The same values are in `FENCE_*` variables. An order
//! also gets the request on standard input, as the watcher writes it.
//!
//! Exit code 0 of an order means that the device acknowledged it. After any other end, the
//! outcome is not known.

use std::path::Path;

use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, TEXT_BYTES_MAX, bounded};
use fence_spool::program_problem;

use crate::program::{self, LIST_BYTES_MAX, Shown, acknowledged, unknown};
use crate::shown::{complaint, power_report};
use crate::{
    AgentAction, Command, ExecutorClient, FenceDevice, Limit, OUTPUT_BYTES_MAX, OrderContext, Pin,
    Reach, RunOutcome, Secrets, TargetList,
};

/// A command device as it is configured. Each list is a program's absolute path and its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandSettings {
    /// The device's name.
    pub name: String,
    /// Cuts the target off.
    pub off: Option<Vec<String>>,
    /// Brings it back.
    pub on: Option<Vec<String>>,
    /// Resets it by itself.
    pub reboot: Option<Vec<String>>,
    /// Shows its power state: exit code 0 for on, 2 for off.
    pub status: Option<Vec<String>>,
    /// Writes the targets, one `name` or `name,alias` a line.
    pub list: Option<Vec<String>>,
    /// Contacts the device: exit code 0 when it can be reached.
    pub monitor: Option<Vec<String>>,
    /// How long each of them may run.
    pub timeout_ms: u64,
}

/// A device that programs operate.
#[derive(Clone, Debug)]
pub struct CommandDevice {
    settings: CommandSettings,
    executor: ExecutorClient,
}

impl CommandDevice {
    /// The device of `settings`, whose programs `executor` runs.
    pub fn new(settings: CommandSettings, executor: ExecutorClient) -> Self {
        CommandDevice { settings, executor }
    }

    /// Runs `argv` for `action` on `target`: an order of `job`, else a question.
    fn run(
        &self,
        action: AgentAction,
        argv: &[String],
        target: Option<&NodeName>,
        job: Option<&OrderContext<'_>>,
        limit: Limit,
    ) -> RunOutcome {
        let gfs2_filesystems = job.map(|job| safe_list(job.gfs2_filesystems)).unwrap_or_default();
        let values = [
            ("target", target.map_or("", NodeName::as_str)),
            ("action", action.as_str()),
            ("gfs2_filesystems", gfs2_filesystems.as_str()),
            ("request_id", job.map_or("", |job| job.request_id.as_str())),
        ];
        let request = job.map(|job| String::from_utf8_lossy(job.request_json).into_owned());
        let command = Command {
            stdin: request.unwrap_or_default(),
            client: job.and_then(|job| job.client).cloned(),
            output_bytes_max: match action {
                AgentAction::List => LIST_BYTES_MAX,
                _ => OUTPUT_BYTES_MAX,
            },
            ..Command::new(substituted(argv, &values), limit)
        };
        let variable = |(name, value): (&str, _)| (format!("FENCE_{}", name.to_uppercase()), value);
        let device = ("device", self.settings.name.as_str());
        let command = command.plain().with_env(values.into_iter().chain([device]).map(variable));
        let limit = limit.min(Limit::in_ms(self.settings.timeout_ms));
        self.executor.run_for(action.purpose(), Command { limit, ..command })
    }

    /// The state that the status command shows, and its complaint beside the state.
    fn status(&self, target: &NodeName, limit: Limit) -> Result<Shown, String> {
        let argv = self.settings.status.as_ref().ok_or("the device has no status command")?;
        match self.run(AgentAction::Status, argv, Some(target), None, limit) {
            RunOutcome::Exited { code: code @ (0 | 2), stdout, stderr } => {
                let (names, none) = ([target.as_str()], Secrets::default());
                let report = power_report(code, &stdout, &stderr, &names, &none);
                Ok((report, complaint(&stderr, &none)))
            }
            outcome => Err(failure(argv, &outcome)),
        }
    }

    fn argv(&self, action: AgentAction) -> Option<&Vec<String>> {
        let CommandSettings { off, on, reboot, status, list, monitor, .. } = &self.settings;
        let argv = match action {
            AgentAction::Off => off,
            AgentAction::On => on,
            AgentAction::Reboot => reboot,
            AgentAction::Status => status,
            AgentAction::List => list,
            AgentAction::Monitor => monitor,
        };
        argv.as_ref()
    }

    /// All argument lists, by their action.
    fn commands(&self) -> impl Iterator<Item = (&'static str, &Vec<String>)> {
        let all = AgentAction::ALL.into_iter();
        all.filter_map(|action| Some((action.as_str(), self.argv(action)?)))
    }
}

/// The placeholders in the arguments for `action`: a list concerns no target, a question concerns
/// no request.
pub fn known_placeholders(action: &str) -> &'static [&'static str] {
    match action {
        "list" | "monitor" => &["action"],
        "status" => &["target", "action"],
        _ => &["target", "action", "gfs2_filesystems", "request_id"],
    }
}

impl FenceDevice for CommandDevice {
    fn abilities(&self) -> Abilities {
        let CommandSettings { off, on, reboot, status, .. } = &self.settings;
        Abilities {
            off: off.is_some(),
            on: on.is_some(),
            cycle: reboot.is_some(),
            power: status.is_some(),
        }
    }

    /// Runs `monitor`, else `list`. A device without either is not asked, and its programs must
    /// exist.
    fn reachable(&self, limit: Limit) -> Reach {
        let asked = [AgentAction::Monitor, AgentAction::List].into_iter();
        let mut asked = asked.filter_map(|action| Some((action, self.argv(action)?)));
        let Some((action, argv)) = asked.next() else {
            let mut programs = self.commands().map(|(_, argv)| program_of(argv));
            return match programs.find_map(|program| program_problem(Path::new(program))) {
                Some(problem) => Reach::Unreachable(problem),
                None => Reach::NotAsked(
                    "its programs exist; it has neither 'monitor' nor 'list'".to_owned(),
                ),
            };
        };
        match self.run(action, argv, None, None, limit) {
            // A list would be a long message.
            RunOutcome::Exited { code: 0, .. } => {
                Reach::Reachable(format!("its {} succeeded", action.as_str()))
            }
            outcome => Reach::Unreachable(failure(argv, &outcome)),
        }
    }

    fn targets(&self, limit: Limit) -> TargetList {
        let Some(argv) = &self.settings.list else {
            return TargetList::NoList("the device has no list command".to_owned());
        };
        match self.run(AgentAction::List, argv, None, None, limit) {
            RunOutcome::Exited { code: 0, stdout, .. } => match listed_nodes(&stdout) {
                Ok(nodes) => TargetList::Nodes(nodes),
                Err(problem) => TargetList::NoList(problem),
            },
            outcome => TargetList::Unreachable(failure(argv, &outcome)),
        }
    }

    /// The module `shown` decides which state exit codes and outputs show.
    fn power(&self, target: &NodeName, _pin: &Pin, limit: Limit) -> PowerReport {
        self.status(target, limit).map_or_else(unknown, |(report, _)| report)
    }

    /// Asks for the state, and checks whether an "off" would be trusted.
    fn lack(&self, target: &NodeName, limit: Limit) -> Option<String> {
        self.settings.status.as_ref()?;
        program::lack(self.status(target, limit))
    }

    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport {
        let action = AgentAction::from(order);
        let Some(argv) = self.argv(action) else {
            let action = action.as_str();
            return OrderReport::Failed(format!("the device has no \"{action}\" command"));
        };
        match self.run(action, argv, Some(job.target), Some(job), limit) {
            RunOutcome::Exited { code: 0, stdout, stderr } => acknowledged(&stdout, &stderr),
            outcome => outcome.order_report(failure(argv, &outcome)),
        }
    }

    fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (action, argv) in self.commands() {
            let known = known_placeholders(action);
            let Some((program, arguments)) = argv.split_first() else {
                problems.push(format!("\"{action}\" is empty; it needs a program"));
                continue;
            };
            problems.extend(
                program_problem(Path::new(program)).map(|problem| format!("{action}: {problem}")),
            );
            for name in arguments.iter().flat_map(|argument| placeholders(argument)) {
                if !known.contains(&name) {
                    problems.push(format!(
                        "{action}: \"{{{name}}}\" means nothing here; known are {{{}}}",
                        known.join("}, {")
                    ));
                }
            }
        }
        problems
    }
}

/// `argv` with the `values` of its placeholders. The program itself has no placeholder, and the
/// text of a value is not replaced again.
fn substituted(argv: &[String], values: &[(&str, &str)]) -> Vec<String> {
    let replaced = |argument: &String| {
        let mut text = String::with_capacity(argument.len());
        let mut rest = argument.as_str();
        while let Some((before, name, after)) = next_placeholder(rest) {
            text.push_str(before);
            match values.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => text.push_str(value),
                None => text.extend(["{", name, "}"]),
            }
            rest = after;
        }
        text + rest
    };
    let program = argv.iter().take(1).cloned();
    program.chain(argv.iter().skip(1).map(replaced)).collect()
}

/// The placeholders in `argument`, by their names.
pub fn placeholders(argument: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = argument;
    while let Some((_, name, after)) = next_placeholder(rest) {
        names.push(name);
        rest = after;
    }
    names
}

/// The first `{name}` in `text`: the text before it, the name, and the text after it. Other braces,
/// as in JSON, are text.
fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(allowed);
    text.match_indices('{').find_map(|(start, _)| {
        let (name, after) = text[start + 1..].split_once('}')?;
        is_name(name).then_some((&text[..start], name, after))
    })
}

/// The names joined by commas, as one harmless argument: the client may have written anything. The
/// request on standard input contains them unchanged.
fn safe_list(names: &[String]) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-:@+/".contains(c) { c } else { '_' };
    let names: Vec<String> = names.iter().map(|name| name.chars().map(safe).collect()).collect();
    let mut list = names.join(",");
    // An argument that starts with a dash would be an option.
    if list.starts_with('-') {
        list.replace_range(..1, "_");
    }
    list.truncate(TEXT_BYTES_MAX);
    list
}

/// The nodes that a `list` program wrote, one `name` or `name,alias` a line. After one bad name the
/// list is not used: it may be cut off, or no list at all.
pub fn listed_nodes(stdout: &str) -> Result<Vec<NodeName>, String> {
    let lines = stdout.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let name = line.split_once(',').map_or(line, |(name, _)| name.trim_end());
            let problem = |error| format!("the list holds {:?}: {error}", bounded(name, 64));
            name.parse().map_err(problem)
        })
        .collect()
}

fn program_of(argv: &[String]) -> &str {
    argv.first().map_or("", String::as_str)
}

/// Why the program of `argv` failed.
fn failure(argv: &[String], outcome: &RunOutcome) -> String {
    program::failure(program_of(argv), outcome)
}
