//! `type = "command"`: a device that programs of the administrator operate.
//!
//! Each action is an argument list, run as it is and never through a shell. `{target}`, `{action}`,
//! `{gfs2_filesystems}` and `{request_id}` are replaced inside single arguments, so that no value can
//! become a second argument or an option. The same values are in `FENCE_*` variables. An order also
//! gets the request on standard input, as the watcher writes it.
//!
//! Exit code 0 of an order means that the device said yes; everything else means that nobody knows.

use std::borrow::Cow;
use std::path::Path;

use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, PowerState, TEXT_BYTES_MAX, bounded};
use fence_spool::program_problem;

use crate::executor::Purpose;
use crate::program::{self, LIST_BYTES_MAX, acknowledged};
use crate::shown::{complaint, power_report};
use crate::{
    Client, Command, ExecutorClient, FenceDevice, Limit, OUTPUT_BYTES_MAX, OrderContext, Pin,
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

    fn run(
        &self,
        argv: &[String],
        values: &Values<'_>,
        client: Option<&Client>,
        limit: Limit,
        output_max: usize,
    ) -> RunOutcome {
        let command = Command {
            stdin: values.request_json.to_string(),
            client: client.cloned(),
            output_bytes_max: output_max,
            ..Command::new(substituted(argv, values), limit)
        };
        let limit = limit.min(Limit::in_ms(self.settings.timeout_ms));
        let command = command.plain().with_env(values.variables(&self.settings.name));
        self.executor.run_for(values.purpose(), Command { limit, ..command })
    }

    /// The state that the status command shows, and its complaint beside that.
    fn status(&self, target: &NodeName, limit: Limit) -> (PowerReport, Option<String>) {
        let unknown = |detail| (PowerReport { state: PowerState::Unknown, detail }, None);
        let Some(argv) = &self.settings.status else {
            return unknown("the device has no status command".to_owned());
        };
        let values = Values { target: Some(target), ..Values::question("status") };
        match self.run(argv, &values, None, limit, OUTPUT_BYTES_MAX) {
            RunOutcome::Exited { code: code @ (0 | 2), stdout, stderr } => {
                let report =
                    power_report(code, &stdout, &stderr, &[target.as_str()], &Secrets::default());
                (report, complaint(&stderr, &Secrets::default()))
            }
            outcome => unknown(failure(argv, &outcome)),
        }
    }

    /// All argument lists, by their action.
    fn commands(&self) -> [(&'static str, Option<&[String]>); 6] {
        let CommandSettings { off, on, reboot, status, list, monitor, .. } = &self.settings;
        [
            ("off", off.as_deref()),
            ("on", on.as_deref()),
            ("reboot", reboot.as_deref()),
            ("status", status.as_deref()),
            ("list", list.as_deref()),
            ("monitor", monitor.as_deref()),
        ]
    }
}

/// The placeholders that mean something in the arguments for `action`: a list concerns no target, a
/// question no request.
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

    /// Runs `monitor`, else `list`; a device without either is not asked. Its programs must be
    /// there.
    fn reachable(&self, limit: Limit) -> Reach {
        let CommandSettings { monitor, list, .. } = &self.settings;
        let (argv, action) = match (monitor, list) {
            (Some(argv), _) => (argv, "monitor"),
            (None, Some(argv)) => (argv, "list"),
            (None, None) => {
                let argvs = self.commands().into_iter().filter_map(|(_, argv)| argv);
                let mut programs =
                    argvs.map(|argv| Path::new(argv.first().map_or("", String::as_str)));
                return match programs.find_map(program_problem) {
                    Some(problem) => Reach::Unreachable(problem),
                    None => Reach::NotAsked(
                        "its programs are there; it has neither 'monitor' nor 'list'".to_owned(),
                    ),
                };
            }
        };
        match self.run(argv, &Values::question(action), None, limit, OUTPUT_BYTES_MAX) {
            // A list would be a long message.
            RunOutcome::Exited { code: 0, .. } => {
                Reach::Reachable(format!("its {action} succeeded"))
            }
            outcome => Reach::Unreachable(failure(argv, &outcome)),
        }
    }

    fn targets(&self, limit: Limit) -> TargetList {
        let Some(argv) = &self.settings.list else {
            return TargetList::NoList("the device has no list command".to_owned());
        };
        match self.run(argv, &Values::question("list"), None, limit, LIST_BYTES_MAX) {
            RunOutcome::Exited { code: 0, stdout, .. } => match listed_nodes(&stdout) {
                Ok(nodes) => TargetList::Nodes(nodes),
                Err(problem) => TargetList::NoList(problem),
            },
            outcome => TargetList::Unreachable(failure(argv, &outcome)),
        }
    }

    /// What exit codes and outputs show is the module `shown`'s to say.
    fn power(&self, target: &NodeName, _pin: &Pin, limit: Limit) -> PowerReport {
        self.status(target, limit).0
    }

    /// Asks for the state, and looks at what an "off" would be worth then.
    fn lack(&self, target: &NodeName, limit: Limit) -> Option<String> {
        self.settings.status.as_ref()?;
        let (report, complaint) = self.status(target, limit);
        if report.state == PowerState::Unknown { Some(report.detail) } else { complaint }
    }

    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport {
        let argv = match order {
            Order::Off => &self.settings.off,
            Order::On => &self.settings.on,
            Order::Cycle => &self.settings.reboot,
        };
        let action = order.as_action().as_str();
        let Some(argv) = argv else {
            return OrderReport::Failed(format!("the device has no \"{action}\" command"));
        };
        let values = Values {
            action,
            target: Some(job.target),
            gfs2_filesystems: safe_list(job.gfs2_filesystems),
            request_id: job.request_id.as_str(),
            request_json: String::from_utf8_lossy(job.request_json),
        };
        match self.run(argv, &values, job.client, limit, OUTPUT_BYTES_MAX) {
            RunOutcome::Exited { code: 0, stdout, stderr } => acknowledged(&stdout, &stderr),
            outcome => outcome.order_report(failure(argv, &outcome)),
        }
    }

    fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (action, argv) in self.commands() {
            let known = known_placeholders(action);
            let Some(argv) = argv else { continue };
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

/// What one call of a program is told.
#[derive(Debug)]
struct Values<'a> {
    action: &'a str,
    target: Option<&'a NodeName>,
    gfs2_filesystems: String,
    request_id: &'a str,
    request_json: Cow<'a, str>,
}

impl<'a> Values<'a> {
    fn question(action: &'a str) -> Self {
        Values {
            action,
            target: None,
            gfs2_filesystems: String::new(),
            request_id: "",
            request_json: Cow::Borrowed(""),
        }
    }

    fn purpose(&self) -> Purpose {
        match self.action {
            "status" | "list" | "monitor" => Purpose::Question,
            _ => Purpose::Order,
        }
    }

    fn target(&self) -> &str {
        self.target.map_or("", NodeName::as_str)
    }

    fn of(&self, placeholder: &str) -> Option<&str> {
        match placeholder {
            "target" => Some(self.target()),
            "action" => Some(self.action),
            "gfs2_filesystems" => Some(&self.gfs2_filesystems),
            "request_id" => Some(self.request_id),
            _ => None,
        }
    }

    fn variables<'v>(&'v self, device: &'v str) -> [(&'static str, &'v str); 5] {
        [
            ("FENCE_DEVICE", device),
            ("FENCE_ACTION", self.action),
            ("FENCE_TARGET", self.target()),
            ("FENCE_GFS2_FILESYSTEMS", &self.gfs2_filesystems),
            ("FENCE_REQUEST_ID", self.request_id),
        ]
    }
}

/// `argv` with its placeholders replaced. The program itself is never one, and what a value holds
/// is not looked at again.
fn substituted(argv: &[String], values: &Values<'_>) -> Vec<String> {
    let replaced = |argument: &String| {
        let mut text = String::with_capacity(argument.len());
        let mut rest = argument.as_str();
        while let Some((before, name, after)) = next_placeholder(rest) {
            text.push_str(before);
            match values.of(name) {
                Some(value) => text.push_str(value),
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

/// The first `{name}` in `text`: what stands before it, the name, and what stands after it. Other
/// braces are text; there is much of that in JSON.
fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(allowed);
    text.match_indices('{').find_map(|(start, _)| {
        let (name, after) = text[start + 1..].split_once('}')?;
        is_name(name).then_some((&text[..start], name, after))
    })
}

/// The names joined by commas, as one argument that is harmless in any place: the client may have
/// written anything. The request on standard input holds them as they are.
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

/// The nodes that a `list` program wrote, one `name` or `name,alias` a line. One bad name spoils
/// the list: it may be cut off, or none at all.
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

/// Why the program of `argv` did not do what it was run for.
fn failure(argv: &[String], outcome: &RunOutcome) -> String {
    program::failure(argv.first().map_or("", String::as_str), outcome)
}
