//! `type = "ec2"`: instances of AWS EC2, through the program `fence-watcher-ec2`.
//!
//! What speaks to AWS is larger than the whole watcher and needs an async run-time, so it is a
//! program of its own, started like any other device's. It gets one [`Ec2Call`] as JSON on its
//! standard input, so that no secret stands on a command line, carries it out, writes one
//! [`Ec2Answer`] as a line of JSON, and exits with 0; or with 2, when it could not read the call
//! and did nothing.
//!
//! Each report of an order, its result code, and what comes to it:
//!
//! - `Acknowledged`, 0 once the state shows: EC2 names the instance among those that it stops or
//!   starts.
//! - `Unreachable`, 1, nothing was carried out: the endpoint cannot be reached or does not answer
//!   while the instance is looked up, or answers only errors (5xx) or "too many requests" until the
//!   limit; the order has no connection, or is answered "too many requests" until the limit; the
//!   service that gives credentials does not answer in time.
//! - `Failed`, 3: no credentials, no region; a key that cannot be read; no instance, or several,
//!   with the tag; the program is not there. Or a refusal: `AuthFailure`, `UnauthorizedOperation`,
//!   `InvalidInstanceID.…`, any other code of a 4xx answer.
//! - `Unacknowledged`, 2: the order is refused in the instance's present state, and that does not
//!   pass by the limit (`IncorrectInstanceState`); the answer to the order is lost, late, an error
//!   of the service (5xx), or not readable; the program is killed at its limit, or breaks down.
//! - `TooLate`, 3: the limit has passed before the order is sent.
//!
//! An order that EC2 has throttled was not carried out, so it is sent again while the limit allows.
//! So is one that came while the instance was on its way to a state in which EC2 takes it: `off`
//! while it is `pending`, `on` while it is `stopping`. Any other is sent once.
//!
//! A tag may move to another instance at any moment. So the answer to an order names the instance,
//! and everything that follows in the execution concerns that instance. If the program ended
//! without an answer, nobody knows which instance it was: the state is unknown, unless the
//! configuration has an id.
//!
//! There is no [`Order::Cycle`]: `RebootInstances` asks the guest to reboot and waits for some
//! minutes before it does more. A node that hangs, the one that is fenced, goes on until then, and
//! nothing shows when it ends.

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
    /// The program that speaks to AWS.
    pub helper: PathBuf,
    /// Each target's instance: an id (`i-…`), or the value of the tag.
    pub instance: PerTarget,
    /// The tag whose value names the instance.
    pub tag: String,
    /// The region; `None` leaves it to the environment, the profile or the instance's metadata.
    pub region: Option<String>,
    /// The endpoint's URL, where it is not AWS's own.
    pub endpoint: Option<String>,
    /// The profile in AWS's shared files, where it is not the default one.
    pub profile: Option<String>,
    /// An access key and where its secret is; `None` for the official chain of credentials.
    pub access_key: Option<(String, SecretSource)>,
    /// Whether `off` leaves the guest no time to shut down.
    pub skip_os_shutdown: bool,
}

/// What `fence-watcher-ec2` is told.
#[derive(Serialize, Deserialize)]
pub struct Ec2Call {
    /// What it shall do.
    pub ask: Ec2Ask,
    /// The instance: an id, or the value of the tag. Empty where none is meant.
    pub instance: String,
    /// The tag whose value names the instance.
    pub tag: String,
    /// See [`Ec2Settings::region`].
    pub region: Option<String>,
    /// See [`Ec2Settings::endpoint`].
    pub endpoint: Option<String>,
    /// See [`Ec2Settings::profile`].
    pub profile: Option<String>,
    /// The access key and its secret, where they are given.
    pub access_key: Option<(String, String)>,
    /// See [`Ec2Settings::skip_os_shutdown`].
    pub skip_os_shutdown: bool,
    /// When it is killed. It answers before that.
    pub limit: Limit,
    /// Who must still wait when an order is sent.
    pub client: Option<Client>,
}

/// What `fence-watcher-ec2` can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ec2Ask {
    /// Make contact, changing nothing.
    Reach,
    /// List the values of the tag.
    Targets,
    /// Show the instance's state.
    Power,
    /// Find the instance, and find out whether orders for it would be allowed, changing nothing.
    Rehearse,
    /// Stop the instance, by force.
    Off,
    /// Start it.
    On,
}

/// What `fence-watcher-ec2` says came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ec2Answer {
    /// What came of it.
    pub outcome: Ec2Outcome,
    /// The same for people, with the words of EC2 as quotations (`quoted`). It holds no secret of
    /// the program's.
    pub text: String,
    /// The values of the tag, where the call was [`Ec2Ask::Targets`].
    pub names: Vec<String>,
    /// The id of the instance that was found, where one was meant.
    #[serde(default)]
    pub instance: Option<String>,
    /// The calls that were made, one line each, for a log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ec2Outcome {
    /// EC2 did what it was asked, or has taken the order.
    Done,
    /// The instance is running.
    On,
    /// The instance is stopped, or terminated for good.
    Off,
    /// The instance is in between; an order may or may not have been carried out.
    Unclear,
    /// EC2 was not reached, or was not able to answer. No order was sent.
    Unreachable,
    /// It cannot be done like this, and was not.
    Failed,
    /// There was no time left to send the order.
    TooLate,
    /// Nobody waited any more, and the order was not sent.
    Withdrawn,
}

impl Ec2Outcome {
    /// Whether an order that came to this may have been sent.
    fn may_have_ordered(self) -> bool {
        !matches!(
            self,
            Ec2Outcome::Unreachable
                | Ec2Outcome::Failed
                | Ec2Outcome::TooLate
                | Ec2Outcome::Withdrawn
        )
    }
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

    /// Has the program do `ask` with `instance`.
    fn ask(
        &self,
        ask: Ec2Ask,
        instance: String,
        client: Option<&Client>,
        limit: Limit,
    ) -> Ec2Answer {
        let env = environment();
        if let Some(problem) = shared_files_problem(&env) {
            return Ec2Answer::of(Ec2Outcome::Failed, problem);
        }
        let key = match &self.settings.access_key {
            None => None,
            Some((id, source)) => match source.read() {
                Ok(secret) => Some((id, secret)),
                Err(problem) => return Ec2Answer::of(Ec2Outcome::Failed, problem),
            },
        };
        let settings = self.settings.clone();
        let call = Ec2Call {
            ask,
            instance,
            tag: settings.tag,
            region: settings.region,
            endpoint: settings.endpoint,
            profile: settings.profile,
            access_key: key
                .as_ref()
                .map(|(id, secret)| ((*id).clone(), secret.expose().to_owned())),
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
            // Texts and numbers alone cannot fail to be written; without them nothing is done.
            stdin: serde_json::to_string(&call).unwrap_or_default(),
            client: client.cloned(),
            output_bytes_max: LIST_BYTES_MAX,
            ..command.with_env(env)
        };
        let outcome = self.executor.run_for(purpose, command);
        let answer = answer_of(&outcome);
        let secrets = key.map(|(_, secret)| Secrets::from(secret)).unwrap_or_default();
        for call in &answer.calls {
            let subject = Subject::of_this_thread();
            debug!("HTTP: {subject}{}", bounded(&secrets.shown(call), MESSAGE_BYTES_MAX));
        }
        // Where nothing is marked, all of it may be EC2's.
        let text = if has_quotation(&answer.text) {
            secrets.shown(&answer.text)
        } else {
            secrets.hide(&answer.text)
        };
        Ec2Answer { text: bounded(&text, MESSAGE_BYTES_MAX), ..answer }
    }

    /// Has the program do `ask` with the instance of `target`, or with the one that an order has
    /// pinned.
    fn ask_about(
        &self,
        ask: Ec2Ask,
        target: &NodeName,
        pin: &Pin,
        client: Option<&Client>,
        limit: Limit,
    ) -> Ec2Answer {
        let failed = |text| Ec2Answer::of(Ec2Outcome::Failed, text);
        let instance = match pin.machine() {
            Some(Machine::Ec2 { instance: Some(id) }) => id.clone(),
            Some(_) => {
                return failed("it is not known which instance the order was for".to_owned());
            }
            None => match self.settings.instance.of(target) {
                Some(instance) => instance,
                None => return failed(format!("no instance is configured for '{target}'")),
            },
        };
        let by_id = is_instance_id(&instance).then(|| instance.clone());
        let answer = self.ask(ask, instance, client, limit);
        Ec2Answer { instance: answer.instance.or(by_id), ..answer }
    }
}

impl Ec2Answer {
    /// An answer without names.
    pub fn of(outcome: Ec2Outcome, text: impl Into<String>) -> Self {
        Ec2Answer {
            outcome,
            text: text.into(),
            names: Vec::new(),
            instance: None,
            calls: Vec::new(),
        }
    }
}

impl FenceDevice for Ec2Device {
    fn abilities(&self) -> Abilities {
        Abilities { off: true, on: true, cycle: false, power: true }
    }

    /// Asks EC2 whether it would let us look at instances: that takes all that a fence takes, but
    /// for the instance and the permission to stop it.
    fn reachable(&self, limit: Limit) -> Reach {
        let answer = self.ask(Ec2Ask::Reach, String::new(), None, limit);
        match answer.outcome {
            Ec2Outcome::Done => Reach::Reachable(answer.text),
            _ => Reach::Unreachable(answer.text),
        }
    }

    /// The nodes whose instances carry the tag. Other instances may carry it as well, with values
    /// that are no node's.
    fn targets(&self, limit: Limit) -> TargetList {
        let answer = self.ask(Ec2Ask::Targets, String::new(), None, limit);
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
        let answer = self.ask_about(Ec2Ask::Power, target, pin, None, limit);
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
            self.ask_about(ask, job.target, job.pin, job.client, limit);
        if outcome.may_have_ordered() {
            job.pin.set(Machine::Ec2 { instance });
        }
        match outcome {
            Ec2Outcome::Done => OrderReport::Acknowledged(text),
            Ec2Outcome::Unreachable => OrderReport::Unreachable(text),
            Ec2Outcome::Failed => OrderReport::Failed(text),
            Ec2Outcome::TooLate => OrderReport::TooLate,
            Ec2Outcome::Withdrawn => OrderReport::Withdrawn,
            Ec2Outcome::On | Ec2Outcome::Off | Ec2Outcome::Unclear => {
                OrderReport::Unacknowledged(text)
            }
        }
    }

    /// Has the instance looked for, and its orders rehearsed.
    fn lack(&self, target: &NodeName, limit: Limit) -> Option<String> {
        let answer = self.ask_about(Ec2Ask::Rehearse, target, &Pin::default(), None, limit);
        (answer.outcome != Ec2Outcome::Done).then_some(answer.text)
    }

    fn check(&self) -> Vec<String> {
        let key = self.settings.access_key.as_ref();
        [
            program_problem(&self.settings.helper),
            shared_files_problem(&environment()),
            key.and_then(|(_, source)| source.read().err()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What the outcome of the program means.
fn answer_of(outcome: &RunOutcome) -> Ec2Answer {
    let mut words = outcome.end_of("its program");
    match outcome {
        RunOutcome::Exited { code: 0, stdout, .. } => {
            return serde_json::from_str(stdout).unwrap_or_else(|error| {
                // These words may hold a value.
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

/// The exit code that says that the call was not understood, and nothing done.
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
