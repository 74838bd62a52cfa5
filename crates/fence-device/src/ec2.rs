//! `type = "ec2"`: instances of AWS EC2, through the program `fence-watcher-ec2`.
//!
//! What speaks to AWS is larger than the whole watcher and needs an async run-time, so it is a
//! program of its own, started like any other device's. It gets one [`Ec2Call`] as JSON on its
//! standard input, so that no secret stands on a command line, carries it out, writes one
//! [`Ec2Answer`] as a line of JSON, and exits with 0; or with 2, when it could not read the call and
//! did nothing.
//!
//! Which error is which report of an order, and so which result code:
//!
//! | what happens | report | code |
//! | --- | --- | --- |
//! | the endpoint cannot be reached, or does not answer, while the instance is looked up | `Unreachable` | 1 |
//! | the order has no connection | `Unreachable` | 1 |
//! | it answers only errors (5xx) or "too many requests" to that, until the limit | `Unreachable` | 1 |
//! | the service that gives credentials does not answer in time | `Unreachable` | 1 |
//! | no credentials, no region; a key that cannot be read | `Failed` | 3 |
//! | refused: `AuthFailure`, `UnauthorizedOperation`, `InvalidInstanceID.…`, any other code of a 4xx answer | `Failed` | 3 |
//! | no instance, or several, with the tag | `Failed` | 3 |
//! | the order is refused in the instance's present state, and that does not pass by the limit: `IncorrectInstanceState` | `Unacknowledged` | 2 |
//! | the order is answered "too many requests" until the limit: never carried out | `Unreachable` | 1 |
//! | the answer to the order is lost, late, an error of the service (5xx), or not readable | `Unacknowledged` | 2 |
//! | the program is killed at its limit, or breaks down | `Unacknowledged` | 2 |
//! | the program is not there | `Failed` | 3 |
//! | the limit has passed before the order is sent | `TooLate` | 3 |
//! | EC2 names the instance among those that it stops or starts | `Acknowledged` | 0, once the state shows |
//!
//! An order that EC2 has throttled was not carried out, so it is sent again while the limit allows. So is one
//! that came while the instance was on its way to a state in which EC2 takes it: `off` while it is `pending`,
//! `on` while it is `stopping`. Any other is sent once.
//!
//! A tag may move to another instance at any moment. So the answer to an order names the instance, and
//! everything that follows in the execution concerns that instance. If the program ended without an
//! answer, nobody knows which instance it was: the state is unknown, unless the configuration has an id.
//!
//! There is no [`Order::Cycle`]: `RebootInstances` asks the guest to reboot and waits for some minutes
//! before it does more. A node that hangs, the one that is fenced, goes on until then, and nothing
//! shows when it ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fence_core::PerTarget;
use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, PowerState, bounded, json_problem};
use fence_spool::{FileError, TrustedFile, program_problem};
use log::debug;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::executor::Purpose;
use crate::pin::Machine;
use crate::secret::{has_quotation, quoted};
use crate::{
    Client, Command, ExecutorClient, FenceDevice, Job, Limit, Outcome, Pin, Reach, SecretSource,
    Secrets, Subject, TargetList,
};

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
    /// The same for people, with the words of EC2 as quotations (`quoted`). It holds no secret of the
    /// program's.
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
        let outcome = self.executor.run_for(
            purpose,
            Command {
                argv: vec![settings.helper.display().to_string()],
                env,
                // Texts and numbers alone cannot fail to be written; nothing is carried out without them.
                stdin: serde_json::to_string(&call).unwrap_or_default(),
                limit,
                start_not_after_boot_ms: limit.not_after_boot_ms,
                client: client.cloned(),
                output_bytes_max: LIST_BYTES_MAX,
            },
        );
        let answer = answer_of(outcome);
        let secrets = key.map(|(_, secret)| Secrets::from(secret)).unwrap_or_default();
        for call in &answer.calls {
            let subject = Subject::of_this_thread();
            debug!("HTTP: {subject}{}", bounded(&secrets.shown(call), TEXT_BYTES_MAX));
        }
        // Where nothing is marked, all of it may be EC2's.
        let text = if has_quotation(&answer.text) {
            secrets.shown(&answer.text)
        } else {
            secrets.hide(&answer.text)
        };
        Ec2Answer { text: bounded(&text, TEXT_BYTES_MAX), ..answer }
    }

    /// Has the program do `ask` with the instance of `target`, or with the one that an order has pinned.
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

    /// Asks EC2 whether it would let us look at instances: that takes all that a fence takes, but for
    /// the instance and the permission to stop it.
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

    fn order(&self, order: Order, job: &Job<'_>, limit: Limit) -> OrderReport {
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
fn answer_of(outcome: Outcome) -> Ec2Answer {
    let (certain, doubtful) = (Ec2Outcome::Failed, Ec2Outcome::Unclear);
    match outcome {
        Outcome::Exited { code: 0, stdout, .. } => {
            serde_json::from_str(&stdout).unwrap_or_else(|error| {
                Ec2Answer::of(doubtful, {
                    // These words may hold a value.
                    let words = quoted(&json_problem(stdout.as_bytes(), &error));
                    format!("its program's answer cannot be read: {words}")
                })
            })
        }
        Outcome::Exited { code: NOT_UNDERSTOOD, stderr, .. } => {
            Ec2Answer::of(certain, format!("its program did nothing: {}", quoted(stderr.trim())))
        }
        Outcome::Exited { code, stderr, .. } => Ec2Answer::of(
            doubtful,
            format!("its program exited with {code}: {}", quoted(stderr.trim())),
        ),
        Outcome::Signaled { signal, stderr, .. } => {
            let text =
                format!("its program was ended by signal {signal}: {}", quoted(stderr.trim()));
            Ec2Answer::of(doubtful, text)
        }
        Outcome::TimedOut { .. } => Ec2Answer::of(doubtful, "its program was killed at its limit"),
        Outcome::ExecutorLost => {
            Ec2Answer::of(doubtful, "the executor was lost in the middle of it")
        }
        Outcome::NotReported => Ec2Answer::of(doubtful, "no result of its program came in time"),
        Outcome::NotStarted(problem) => Ec2Answer::of(certain, problem),
        Outcome::TooLate => Ec2Answer::of(Ec2Outcome::TooLate, "it was too late to ask"),
        Outcome::Withdrawn => Ec2Answer::of(Ec2Outcome::Withdrawn, "nobody waited any more"),
    }
}

/// What the program sees of our own environment: what AWS's chain of credentials looks at, where the
/// certificates are, and the way through a proxy.
fn environment() -> Vec<(String, String)> {
    let ours = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut env: Vec<(String, String)> = ours.filter(|(name, _)| is_passed_on(name)).collect();
    // A service has no HOME unless its unit says so; the shared files are looked for there.
    if geteuid().is_root() && !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), "/root".to_owned()));
    }
    env.push(("PATH".to_owned(), PATH.to_owned()));
    env
}

fn is_passed_on(name: &str) -> bool {
    name.starts_with("AWS_") || PASSED_ON.contains(&name)
}

/// Why AWS's shared files must not be used. They say who we are to AWS, hold keys, and may name
/// programs to run.
fn shared_files_problem(env: &[(String, String)]) -> Option<String> {
    let variable = |wanted: &str| {
        let (_, value) = env.iter().find(|(name, _)| name == wanted)?;
        (!value.is_empty()).then(|| PathBuf::from(value))
    };
    let at = |name: &str, usual: &str| {
        variable(name).or_else(|| Some(variable("HOME")?.join(".aws").join(usual)))
    };
    let config = at("AWS_CONFIG_FILE", "config").and_then(|path| file_problem(&path, false));
    let keys = || at("AWS_SHARED_CREDENTIALS_FILE", "credentials");
    config.or_else(|| keys().and_then(|path| file_problem(&path, true)))
}

fn file_problem(path: &Path, is_secret: bool) -> Option<String> {
    let shown = path.display();
    match TrustedFile::find(path) {
        Err(FileError::Missing) => None,
        Err(error) => Some(format!("AWS's file '{shown}' is refused: {error}")),
        Ok(file) if is_secret && file.is_readable_by_others() => {
            Some(format!("others can read the keys in '{shown}': run `chmod 0600 '{shown}'`"))
        }
        Ok(_) => None,
    }
}

/// The variables that are passed on, besides all that begin with `AWS_`.
const PASSED_ON: [&str; 7] =
    ["HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

/// What a `credential_process` is looked for in.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The exit code that says that the call was not understood, and nothing done.
const NOT_UNDERSTOOD: i32 = 2;

/// How much of a list of targets is read.
const LIST_BYTES_MAX: usize = 1024 * 1024;

/// The longest text that is passed on, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn env(variables: &[(&str, &Path)]) -> Vec<(String, String)> {
        let text = |(name, path): &(&str, &Path)| ((*name).to_owned(), path.display().to_string());
        variables.iter().map(text).collect()
    }

    #[test]
    fn shared_files_are_used_only_when_nobody_else_can_write_to_them_or_read_the_keys() {
        let unique = format!("fence-ec2-{}", std::process::id());
        let home = std::env::temp_dir().join(unique);
        let file = |name: &str, mode: u32| {
            let path = home.join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        };
        fs::create_dir_all(home.join(".aws")).unwrap();
        let at_home = env(&[("HOME", &home)]);

        assert_eq!(shared_files_problem(&[]), None);
        assert_eq!(shared_files_problem(&at_home), None);
        file(".aws/config", 0o644);
        file(".aws/credentials", 0o600);
        assert_eq!(shared_files_problem(&at_home), None);

        file(".aws/config", 0o664);
        let problem = shared_files_problem(&at_home).unwrap();
        assert!(problem.contains(".aws/config' is refused: others can write"), "{problem}");
        file(".aws/config", 0o644);
        file(".aws/credentials", 0o640);
        let problem = shared_files_problem(&at_home).unwrap();
        assert!(problem.contains("others can read the keys in '"), "{problem}");

        let (config, keys) = (file("config", 0o600), file("keys", 0o644));
        let elsewhere = [("HOME", home.as_path()), ("AWS_SHARED_CREDENTIALS_FILE", &keys)];
        assert!(shared_files_problem(&env(&elsewhere)).unwrap().contains("/keys'"));
        let both =
            [("AWS_CONFIG_FILE", config.as_path()), ("AWS_SHARED_CREDENTIALS_FILE", &config)];
        assert_eq!(shared_files_problem(&env(&both)), None);
        fs::remove_dir_all(&home).unwrap();
    }

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

    #[test]
    fn of_the_environment_only_what_aws_needs_is_passed_on() {
        for (name, expected) in [
            ("AWS_PROFILE", true),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", true),
            ("HOME", true),
            ("https_proxy", true),
            // The metadata service is asked directly.
            ("http_proxy", false),
            ("LD_PRELOAD", false),
            ("BMC_PASSWORD", false),
        ] {
            assert_eq!(is_passed_on(name), expected, "{name}");
        }
    }
}
