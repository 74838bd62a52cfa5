//! `type = "ec2"`: instances of AWS EC2, through the program `fence-watcher-ec2`.
//!
//! The code for AWS is larger than the whole watcher and needs an async run-time. So it is a
//! separate program, started like the program of any other device. It reads one [`Ec2Call`] as JSON
//! from standard input, so no secret is on a command line. It carries the call out, writes one
//! [`Ec2Answer`] as a line of JSON, and exits with 0. If it cannot read the call, it does nothing
//! and exits with 2.
//!
//! The reports of an order, their result codes, and their causes:
//!
//! - `Acknowledged`, 0 once the state shows: EC2 lists the instance among those that it stops or
//!   starts.
//! - `Unreachable`, 1, nothing was carried out: during the search for the instance, the endpoint
//!   cannot be reached, does not answer, or answers only errors (5xx) or "too many requests" until
//!   the limit. Or the order has no connection, or its answers are "too many requests" until the
//!   limit. Or the service that gives credentials does not answer in time.
//! - `Failed`, 3: no credentials, no region; a key that cannot be read; no instance, or several,
//!   with the tag; the program is missing. Or a refusal: `AuthFailure`, `UnauthorizedOperation`,
//!   `InvalidInstanceID.…`, any other code of a 4xx answer.
//! - `Unacknowledged`, 2: EC2 refuses the order in the instance's present state until the limit
//!   (`IncorrectInstanceState`). Or the answer to the order is lost, late, an error of the service
//!   (5xx), or not readable. Or the program is killed at its limit, or crashes.
//! - `TooLate`, 3: the limit has passed before the order is sent.
//!
//! EC2 did not carry out a throttled order, so the program sends it again until the limit. It also
//! repeats an order that came while the instance was on its way to a state in which EC2 takes the
//! order: `off` while it is `pending`, `on` while it is `stopping`. It sends any other order once.
//!
//! A tag may move to another instance at any moment. So the answer to an order names the instance,
//! and the rest of the execution uses that instance. If the program ends without an answer, the
//! instance is not known: the state is unknown, unless the configuration has an id.
//!
//! There is no [`Order::Cycle`]: `RebootInstances` asks the guest to reboot, and does more only
//! after some minutes. Until then, a node that hangs, and so is fenced, goes on, and nothing shows
//! when it ends.

mod environment;

use std::collections::BTreeSet;
use std::path::PathBuf;

use fence_core::PerTarget;
use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, PowerState, bounded, json_problem};
use fence_spool::program_problem;
use log::debug;
use serde::{Deserialize, Serialize};

use crate::executor::Purpose;
use crate::pin::Machine;
use crate::program::{LIST_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::secret::{has_quotation, quoted};
use crate::{
    Client, Command, ExecutorClient, FenceDevice, Limit, OrderContext, Pin, Reach, RunOutcome,
    SecretSource, Secrets, Subject, TargetList,
};

use environment::{environment, shared_files_problem};

/// An EC2 device as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2Settings {
    /// The program that calls AWS.
    pub helper: PathBuf,
    /// Each target's instance: an id (`i-…`), or the value of the tag.
    pub instance: PerTarget,
    /// The tag whose value names the instance.
    pub tag: String,
    /// The region; `None` for the one of the environment, the profile or the instance's metadata.
    pub region: Option<String>,
    /// The endpoint's URL; `None` for AWS's own.
    pub endpoint: Option<String>,
    /// The profile in AWS's shared files; `None` for the default profile.
    pub profile: Option<String>,
    /// An access key and the source of its secret; `None` for AWS's chain of credentials.
    pub access_key: Option<(String, SecretSource)>,
    /// Whether `off` gives the guest no time to shut down.
    pub skip_os_shutdown: bool,
}

/// The input of `fence-watcher-ec2`.
#[derive(Serialize, Deserialize)]
pub struct Ec2Call {
    /// The task.
    pub ask: Ec2Ask,
    /// The instance: an id, or the value of the tag. Empty if the task is about no instance.
    pub instance: String,
    /// The tag whose value names the instance.
    pub tag: String,
    /// See [`Ec2Settings::region`].
    pub region: Option<String>,
    /// See [`Ec2Settings::endpoint`].
    pub endpoint: Option<String>,
    /// See [`Ec2Settings::profile`].
    pub profile: Option<String>,
    /// The access key and its secret, if they are configured.
    pub access_key: Option<(String, String)>,
    /// See [`Ec2Settings::skip_os_shutdown`].
    pub skip_os_shutdown: bool,
    /// When the watcher kills the program, which answers earlier.
    pub limit: Limit,
    /// The client that must still wait when an order is sent.
    pub client: Option<Client>,
}

/// The tasks of `fence-watcher-ec2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ec2Ask {
    /// Make contact, changing nothing.
    Reach,
    /// List the values of the tag.
    Targets,
    /// Show the instance's state.
    Power,
    /// Find the instance, and check whether EC2 would allow orders for it, changing nothing.
    Rehearse,
    /// Stop the instance, by force.
    Off,
    /// Start it.
    On,
}

/// The output of `fence-watcher-ec2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ec2Answer {
    /// The outcome.
    pub outcome: Ec2Outcome,
    /// The same for people, with the words of EC2 as quotations (`quoted`). It contains no secret
    /// of the program.
    pub text: String,
    /// The values of the tag, after [`Ec2Ask::Targets`].
    pub names: Vec<String>,
    /// The id of the instance, if the program found it.
    #[serde(default)]
    pub instance: Option<String>,
    /// The calls of EC2, one line each, for the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ec2Outcome {
    /// EC2 answered the question, or took the order.
    Done,
    /// The instance is running.
    On,
    /// The instance is stopped or terminated.
    Off,
    /// The instance is between two states; EC2 may have carried an order out.
    Unclear,
    /// EC2 was not reached, or was not able to answer. No order was sent.
    Unreachable,
    /// EC2 or the program refused the call, and nothing was done.
    Failed,
    /// There was no time left to send the order.
    TooLate,
    /// The client did not wait any more, and the order was not sent.
    Withdrawn,
}

/// Whether `instance` is an id, and not a value of the tag.
pub fn is_instance_id(instance: &str) -> bool {
    let Some(digits) = instance.strip_prefix("i-") else { return false };
    [8, 17].contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A device that is EC2.
#[derive(Clone, Debug)]
pub struct Ec2Device {
    settings: Ec2Settings,
    executor: ExecutorClient,
}

impl Ec2Device {
    /// The device of `settings`, whose program `executor` runs.
    pub fn new(settings: Ec2Settings, executor: ExecutorClient) -> Self {
        Ec2Device { settings, executor }
    }

    /// Runs the program to do `ask` with an instance, which [`Ec2Device::instance`] finds.
    fn ask(
        &self,
        ask: Ec2Ask,
        instance: Result<String, String>,
        client: Option<&Client>,
        limit: Limit,
    ) -> Ec2Answer {
        let env = environment();
        let key = self.settings.access_key.as_ref();
        let key = key.map(|(id, source)| source.read().map(|secret| (id.clone(), secret)));
        let files = shared_files_problem(&env).map_or(Ok(()), Err);
        let found =
            instance.and_then(|instance| files.and(key.transpose()).map(|key| (instance, key)));
        let (instance, key) = match found {
            Ok(found) => found,
            Err(problem) => return Ec2Answer::of(Ec2Outcome::Failed, problem),
        };
        let by_id = is_instance_id(&instance).then(|| instance.clone());
        let settings = self.settings.clone();
        let call = Ec2Call {
            ask,
            instance,
            tag: settings.tag,
            region: settings.region,
            endpoint: settings.endpoint,
            profile: settings.profile,
            access_key: key.clone().map(|(id, secret)| (id, secret.expose().to_owned())),
            skip_os_shutdown: settings.skip_os_shutdown,
            limit,
            client: client.cloned(),
        };
        let purpose = match ask {
            Ec2Ask::Reach | Ec2Ask::Targets | Ec2Ask::Power | Ec2Ask::Rehearse => Purpose::Question,
            Ec2Ask::Off | Ec2Ask::On => Purpose::Order,
        };
        let command = Command::new(vec![settings.helper.display().to_string()], limit);
        let command = Command {
            // Texts and numbers are always serializable; an empty input makes the program fail.
            stdin: serde_json::to_string(&call).unwrap_or_default(),
            client: client.cloned(),
            output_bytes_max: LIST_BYTES_MAX,
            ..command.with_env(env)
        };
        let outcome = self.executor.run_for(purpose, command);
        let answer = answer_of(&outcome);
        let secrets: Secrets = key.into_iter().map(|(_, secret)| secret).collect();
        for call in &answer.calls {
            let subject = Subject::of_this_thread();
            debug!("HTTP: {subject}{}", bounded(&secrets.shown(call), MESSAGE_BYTES_MAX));
        }
        // Without marks, the whole text may be EC2's.
        let text = if has_quotation(&answer.text) {
            secrets.shown(&answer.text)
        } else {
            secrets.hide(&answer.text)
        };
        let instance = answer.instance.or(by_id);
        Ec2Answer { text: bounded(&text, MESSAGE_BYTES_MAX), instance, ..answer }
    }

    /// The pinned instance, or the instance of `target`.
    fn instance(&self, target: &NodeName, pin: &Pin) -> Result<String, String> {
        match pin.machine() {
            Some(Machine::Ec2 { instance: Some(id) }) => Ok(id.clone()),
            Some(_) => Err("the instance of the order is not known".to_owned()),
            None => {
                let instance = self.settings.instance.of(target);
                instance.ok_or_else(|| format!("no instance is configured for '{target}'"))
            }
        }
    }
}

impl Ec2Answer {
    /// An answer without names.
    pub fn of(outcome: Ec2Outcome, text: impl Into<String>) -> Self {
        Ec2Answer { outcome, text: text.into(), names: vec![], instance: None, calls: vec![] }
    }
}

impl FenceDevice for Ec2Device {
    fn abilities(&self) -> Abilities {
        Abilities { off: true, on: true, cycle: false, power: true }
    }

    /// Asks EC2 whether it would allow to describe instances. That checks all that a fence needs,
    /// except the instance and the permission to stop it.
    fn reachable(&self, limit: Limit) -> Reach {
        let answer = self.ask(Ec2Ask::Reach, Ok(String::new()), None, limit);
        match answer.outcome {
            Ec2Outcome::Done => Reach::Reachable(answer.text),
            _ => Reach::Unreachable(answer.text),
        }
    }

    /// The nodes whose instances have the tag. Other instances may have the tag as well, with
    /// values that belong to no node.
    fn targets(&self, limit: Limit) -> TargetList {
        let answer = self.ask(Ec2Ask::Targets, Ok(String::new()), None, limit);
        match answer.outcome {
            Ec2Outcome::Done => {
                let node = |name: &String| self.settings.instance.target_of(name);
                let nodes: BTreeSet<NodeName> = answer.names.iter().filter_map(node).collect();
                TargetList::Nodes(nodes.into_iter().collect())
            }
            Ec2Outcome::Unreachable => TargetList::Unreachable(answer.text),
            _ => TargetList::NoList(answer.text),
        }
    }

    fn power(&self, target: &NodeName, pin: &Pin, limit: Limit) -> PowerReport {
        let answer = self.ask(Ec2Ask::Power, self.instance(target, pin), None, limit);
        let state = match answer.outcome {
            Ec2Outcome::On => PowerState::On,
            Ec2Outcome::Off => PowerState::Off,
            _ => PowerState::Unknown,
        };
        PowerReport { state, detail: answer.text }
    }

    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport {
        let ask = match order {
            Order::Off => Ec2Ask::Off,
            Order::On => Ec2Ask::On,
            Order::Cycle => return OrderReport::Failed("EC2 has no reset for a fence".to_owned()),
        };
        let Ec2Answer { outcome, text, instance, .. } =
            self.ask(ask, self.instance(job.target, job.pin), job.client, limit);
        let report = match outcome {
            Ec2Outcome::Done => OrderReport::Acknowledged(text),
            // No order was sent.
            Ec2Outcome::Unreachable => return OrderReport::Unreachable(text),
            Ec2Outcome::Failed => return OrderReport::Failed(text),
            Ec2Outcome::TooLate => return OrderReport::TooLate,
            Ec2Outcome::Withdrawn => return OrderReport::Withdrawn,
            Ec2Outcome::On | Ec2Outcome::Off | Ec2Outcome::Unclear => {
                OrderReport::Unacknowledged(text)
            }
        };
        job.pin.set(Machine::Ec2 { instance });
        report
    }

    /// Finds the instance, and rehearses its orders.
    fn lack(&self, target: &NodeName, limit: Limit) -> Option<String> {
        let instance = self.instance(target, &Pin::default());
        let answer = self.ask(Ec2Ask::Rehearse, instance, None, limit);
        (answer.outcome != Ec2Outcome::Done).then_some(answer.text)
    }

    fn check(&self) -> Vec<String> {
        let key = self.settings.access_key.as_ref();
        let mut problems = Vec::from_iter(program_problem(&self.settings.helper));
        problems.extend(shared_files_problem(&environment()));
        problems.extend(key.and_then(|(_, source)| source.read().err()));
        problems
    }
}

/// The answer of a program with this outcome.
fn answer_of(outcome: &RunOutcome) -> Ec2Answer {
    let mut words = outcome.end_of("its program");
    match outcome {
        RunOutcome::Exited { code: 0, stdout, .. } => {
            return serde_json::from_str(stdout).unwrap_or_else(|error| {
                // These words may contain a value.
                let words = quoted(&json_problem(stdout.as_bytes(), &error));
                let text = format!("its program's answer cannot be read: {words}");
                Ec2Answer::of(Ec2Outcome::Unclear, text)
            });
        }
        RunOutcome::Exited { code: NOT_UNDERSTOOD, stderr, .. } => {
            let text = format!("its program did nothing: {}", quoted(stderr.trim()));
            return Ec2Answer::of(Ec2Outcome::Failed, text);
        }
        RunOutcome::Exited { stderr, .. } | RunOutcome::Signaled { stderr, .. } => {
            words = format!("{words}: {}", quoted(stderr.trim()));
        }
        _ => {}
    }
    let what = match outcome.order_report(String::new()) {
        OrderReport::Failed(_) => Ec2Outcome::Failed,
        OrderReport::TooLate => Ec2Outcome::TooLate,
        OrderReport::Withdrawn => Ec2Outcome::Withdrawn,
        _ => Ec2Outcome::Unclear,
    };
    Ec2Answer::of(what, words)
}

/// The exit code of a program that could not read the call and did nothing.
const NOT_UNDERSTOOD: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_from_a_name() {
        for (text, expected) in [
            ("i-1234abcd", true),
            ("i-1234567890abcdef0", true),
            ("i-1234", false),
            ("i-1234567890ABCDEF0", false),
            ("i-node-01", false),
            ("node1", false),
        ] {
            assert_eq!(is_instance_id(text), expected, "{text}");
        }
    }
}
