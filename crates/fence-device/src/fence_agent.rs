//! `type = "fence-agent"`: any program that speaks as ClusterLabs' fence agents do.
//!
//! An agent is started without arguments and reads `name=value` lines: the configured options, the
//! secrets, then the action and the target's plug. It shows what came of it by its exit code alone;
//! its texts are for people.
//!
//! | the agent's end | an order is | a state is | a contact is |
//! | --- | --- | --- | --- |
//! | exit code 0 | `Acknowledged` | `On` | `Reachable` |
//! | exit code 2 | `Unacknowledged` | `Off`, see below and the module `shown` | `Unreachable` |
//! | any other code, a signal, its limit | `Unacknowledged` | `Unknown` | `Unreachable` |
//! | not started: no plug, no secret, no program | `Failed` | `Unknown` | `Unreachable` |
//! | not started: too late | `TooLate` | `Unknown` | `Unreachable` |
//!
//! An agent that was given an order is never `Unreachable`. It exits with 1 for a wrong password, a
//! device that is not there and one that fell silent after it had obeyed, and the texts in which
//! these differ are every agent's own.
//!
//! Two kinds of "off" are not believed. `fence_virt` and `fence_xvm` say it of every machine that
//! they do not know, be it mistyped or moved to another host, and acknowledge every order for it:
//! where the agent can list its plugs, the plug must be among them. The list is read once in an
//! execution: before the order, if nothing shows its effect (no `status`, a reset) or if nobody
//! said which option names the target. Without an answer, the order is `Unreachable`; a list
//! without the plug makes it `Failed`. And an agent that takes its target from an address, not from
//! a plug, would act on the same machine for every target: see [`Metadata::may_ignore_plugs`].
//!
//! - `metadata`: what an agent says of itself; `description`: how that is read and kept. `output`:
//!   what its list says. `plugs`: whether it knows a plug. `host`: the machine behind a name.
//!   `contact`: asking whether it can be reached.

mod action;
mod contact;
mod description;
mod host;
mod metadata;
mod output;
mod plugs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fence_core::PerTarget;
use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, PowerState};
use fence_spool::program_problem;

use crate::program::{acknowledged, failure};
use crate::shown::{complaint, power_report};
use crate::{
    Client, Command, ExecutorClient, FenceDevice, Limit, OUTPUT_BYTES_MAX, OrderContext, Pin,
    Reach, RunOutcome, Secret, SecretSource, Secrets, TargetList,
};

pub use action::AgentAction;
use description::Description;
pub(crate) use host::AgentHost;
use host::is_host_option;
// Public for the fuzz targets.
pub use metadata::{Given, Metadata};
pub use output::{Listed, listed_plugs};

/// A fence agent as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceAgentSettings {
    /// The program's absolute path.
    pub agent: String,
    /// What it is told each time.
    pub options: BTreeMap<String, String>,
    /// What it is told as well, and nobody else.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Variables of its environment.
    pub env: BTreeMap<String, String>,
    /// What it calls the targets.
    pub plug: PerTarget,
    /// The option that carries that; `None`, if nobody said so, is `plug`.
    pub plug_option: Option<String>,
    /// The targets that are known by name.
    pub targets: BTreeSet<NodeName>,
    /// The actions that may be asked of it; `None`, if nobody named them, is all that it has.
    pub actions: Option<BTreeSet<AgentAction>>,
    /// Those without which the configuration is wrong.
    pub needed: BTreeSet<AgentAction>,
}

impl FenceAgentSettings {
    /// Where each target is reached, if the option that names it is an address.
    pub fn addresses(&self) -> Option<&PerTarget> {
        let is_address = matches!(self.plug_option.as_deref(), Some("ip" | "ipaddr"));
        is_address.then_some(&self.plug)
    }
}

/// A fence agent.
#[derive(Debug)]
pub struct FenceAgentDevice {
    settings: FenceAgentSettings,
    executor: ExecutorClient,
    description: Description,
}

/// A target, and what the agent calls it.
#[derive(Clone, Copy, Debug)]
struct Target<'a> {
    node: &'a NodeName,
    plug: &'a str,
    /// The number that replaces the name of the device, if one does.
    host: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn new(node: &'a NodeName, plug: &'a str) -> Self {
        Target { node, plug, host: None }
    }
}

/// What came of running the agent, as it is: what people see of it is without the secrets.
#[derive(Debug)]
struct Ran {
    outcome: RunOutcome,
    secrets: Secrets,
}

impl FenceAgentDevice {
    /// The agent of `settings`, which `executor` runs.
    pub fn new(settings: FenceAgentSettings, executor: ExecutorClient) -> Self {
        FenceAgentDevice { settings, executor, description: Description::default() }
    }

    /// Runs the agent. An error is one before its start.
    fn run(
        &self,
        action: AgentAction,
        target: Option<Target<'_>>,
        client: Option<&Client>,
        limit: Limit,
        output_bytes_max: usize,
    ) -> Result<Ran, String> {
        let given = self.secrets()?;
        let input = input(&self.settings, &given, action.as_str(), target);
        let call = self.call(input, limit);
        let call = Command { client: client.cloned(), output_bytes_max, ..call };
        let outcome = self.executor.run_for(action.purpose(), call);
        Ok(Ran { outcome, secrets: given.into_iter().map(|(_, secret)| secret).collect() })
    }

    /// A call of the agent, which reads `stdin`. A variable that is configured replaces ours.
    fn call(&self, stdin: String, limit: Limit) -> Command {
        let call = Command::new(vec![self.settings.agent.clone()], limit).plain();
        let call = call.with_env(PYTHON_ENVIRONMENT).with_env(self.settings.env.clone());
        Command { stdin, ..call }
    }

    fn failure(&self, Ran { outcome, secrets }: &Ran) -> String {
        let shown = outcome.clone().map_output(|words| secrets.hide(words));
        failure(&self.settings.agent, &shown)
    }

    fn secrets(&self) -> Result<Vec<(&str, Secret)>, String> {
        let sources = self.settings.secrets.iter();
        sources.map(|(name, source)| Ok((name.as_str(), source.read()?))).collect()
    }

    fn can(&self, action: AgentAction) -> bool {
        self.settings.actions.as_ref().is_none_or(|actions| actions.contains(&action))
    }

    /// Whether the agent has `action`: as configured, else as far as it is known.
    fn may_have(&self, action: AgentAction) -> bool {
        match &self.settings.actions {
            Some(actions) => actions.contains(&action),
            None => Self::declares(self.known_metadata().as_deref(), action),
        }
    }

    /// What the agent calls `target`, if it is certain that it would act on that.
    fn plug(&self, target: &NodeName, limit: Limit) -> Result<String, String> {
        let plug = self.settings.plug.of(target);
        let plug = plug.ok_or_else(|| format!("no plug is configured for '{target}'"))?;
        self.doubt_about_plugs(limit).map_or(Ok(plug), Err)
    }

    /// Whether the configuration leaves open how the agent tells its targets apart.
    fn needs_description(&self) -> bool {
        self.settings.plug_option.is_none() && self.settings.targets.len() != 1
    }

    /// Why the agent might act on the wrong machine, in a configuration that does not say
    /// otherwise.
    fn doubt_about_plugs(&self, limit: Limit) -> Option<String> {
        if !self.needs_description() {
            return None;
        }
        match self.metadata(limit) {
            Ok(metadata) if metadata.may_ignore_plugs() => Some(format!(
                "the agent may act on one and the same machine for every target: {NAME_THE_OPTION}"
            )),
            // Its list would show whether it knows its plugs.
            Ok(metadata) if metadata.has_action("list") && !self.can(AgentAction::List) => {
                Some(format!(
                    "the agent is not asked for its list, which 'actions' leaves out, so it may \
                     act on one and the same machine for every target: {NAME_THE_OPTION}"
                ))
            }
            Ok(_) => None,
            Err(problem) => Some(format!(
                "the agent's metadata cannot be read, so it may act on one and the same machine \
                 for every target: write in 'plug_option' which of its options names the target, \
                 such as \"plug\": {problem}"
            )),
        }
    }

    /// The state of `target`, if one is shown and believed, and the agent's complaint beside that.
    fn status(&self, target: &NodeName, pin: &Pin, limit: Limit) -> (PowerReport, Option<String>) {
        let unknown = |detail| (PowerReport { state: PowerState::Unknown, detail }, None);
        if !self.may_have(AgentAction::Status) {
            return unknown("the agent has no action 'status'".to_owned());
        }
        let plug = match self.plug(target, limit) {
            Ok(plug) => plug,
            Err(problem) => return unknown(problem),
        };
        match self.host_of_question(&plug, pin, limit) {
            Ok(host) => {
                let target = Target { host: host.as_deref(), ..Target::new(target, &plug) };
                self.state_of(target, pin, limit)
            }
            Err(doubt) => unknown(doubt),
        }
    }

    /// The state that the agent shows of `target`, if that is believed, and its complaint beside
    /// that.
    fn state_of(
        &self,
        target: Target<'_>,
        pin: &Pin,
        limit: Limit,
    ) -> (PowerReport, Option<String>) {
        let unknown = |detail| (PowerReport { state: PowerState::Unknown, detail }, None);
        let ran = match self.run(AgentAction::Status, Some(target), None, limit, OUTPUT_BYTES_MAX) {
            Ok(ran) => ran,
            Err(problem) => return unknown(problem),
        };
        let RunOutcome::Exited { code: code @ (0 | 2), stdout, stderr } = &ran.outcome else {
            return unknown(self.failure(&ran));
        };
        let (code, names) = (*code, [target.node.as_str(), target.plug]);
        let report = power_report(code, stdout, stderr, &names, &ran.secrets);
        match report.state {
            // That it is off, an agent says by its exit code.
            PowerState::Off if code != 2 => unknown(report.detail),
            PowerState::Off => match self.doubt_about_off(target, pin, limit) {
                Some(doubt) => unknown(doubt),
                None => (report, None),
            },
            PowerState::On | PowerState::Unknown => (report, complaint(stderr, &ran.secrets)),
        }
    }

    /// What is wrong with the options, as the agent itself sees it.
    fn problems_of_options(&self) -> Vec<String> {
        let metadata = match self.metadata(Limit::in_ms(METADATA_CHECK_MS)) {
            Ok(metadata) => metadata,
            Err(problem) => {
                return vec![format!(
                    "the agent's metadata cannot be read, so its options are not checked: {problem}"
                )];
            }
        };
        let FenceAgentSettings { options, secrets, plug_option, needed, .. } = &self.settings;
        let mut given: Vec<Given> =
            options.iter().map(|(name, value)| Given { name, value: Some(value) }).collect();
        given.extend(secrets.keys().map(|name| Given { name, value: None }));
        // Where nobody says that there are plugs, and the agent has none, all is well for one
        // target.
        if plug_option.is_some() || !metadata.may_ignore_plugs() {
            let name = plug_option.as_deref().unwrap_or(PLUG);
            given.push(Given { name, value: None });
        }
        metadata.problems(&given, needed.iter().map(|action| action.as_str()))
    }
}

impl FenceDevice for FenceAgentDevice {
    fn abilities(&self) -> Abilities {
        Abilities {
            off: self.can(AgentAction::Off),
            on: self.can(AgentAction::On),
            cycle: self.may_have(AgentAction::Reboot),
            power: self.may_have(AgentAction::Status),
        }
    }

    /// Reads the metadata, where something depends on it.
    fn prepare(&self, limit: Limit) {
        if self.needs_description() || self.settings.actions.is_none() {
            let _ = self.metadata_if_readable(limit);
        }
    }

    /// Runs `monitor`: once, or for each target that is known by name where the plug is an address.
    fn reachable(&self, limit: Limit) -> Reach {
        self.contact(limit)
    }

    fn targets(&self, limit: Limit) -> TargetList {
        if !self.can_list(limit) {
            return TargetList::NoList("the agent has no action 'list'".to_owned());
        }
        let list = match self.list(None, limit) {
            Ok(list) => list,
            Err(doubt) => return TargetList::Unreachable(doubt.text),
        };
        match list.plugs(self.separator()) {
            // A plug that is nobody's, or whose name is none of a node, is no target.
            Ok(listed) => TargetList::Nodes(
                listed.iter().filter_map(|one| self.settings.plug.target_of(one.plug)).collect(),
            ),
            Err(problem) => TargetList::NoList(problem),
        }
    }

    fn power(&self, target: &NodeName, pin: &Pin, limit: Limit) -> PowerReport {
        self.status(target, pin, limit).0
    }

    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport {
        let action = AgentAction::from(order);
        if !self.can(action) {
            return OrderReport::Failed(format!("the agent has no action '{}'", action.as_str()));
        }
        let plug = match self.plug(job.target, limit) {
            Ok(plug) => plug,
            Err(_) if limit.has_passed() => return OrderReport::TooLate,
            Err(problem) => return OrderReport::Failed(problem),
        };
        let host = self.host_of_order(&plug, job.pin, limit);
        let target = Target { host: host.as_deref(), ..Target::new(job.target, &plug) };
        match self.doubt_about_order(action, target, job.pin, limit) {
            None => {}
            Some(_) if limit.has_passed() => return OrderReport::TooLate,
            Some(doubt) => {
                let text =
                    format!("the agent's list was asked for before the order: {}", doubt.text);
                return if doubt.is_unreached {
                    OrderReport::Unreachable(text)
                } else {
                    OrderReport::Failed(text)
                };
            }
        }
        let ran = match self.run(action, Some(target), job.client, limit, OUTPUT_BYTES_MAX) {
            Ok(ran) => ran,
            Err(problem) => return OrderReport::Failed(problem),
        };
        match &ran.outcome {
            RunOutcome::Exited { code: 0, stdout, .. } => {
                // Not its standard error: what agents write there when all is well concerns nobody.
                acknowledged(&ran.secrets.hide(stdout), "")
            }
            outcome => outcome.order_report(self.failure(&ran)),
        }
    }

    /// Asks for the state, and looks at what an "off" would be worth then.
    fn lack(&self, target: &NodeName, limit: Limit) -> Option<String> {
        if !self.may_have(AgentAction::Status) {
            return self.plug(target, limit).err();
        }
        let (report, complaint) = self.status(target, &Pin::default(), limit);
        if report.state == PowerState::Unknown { Some(report.detail) } else { complaint }
    }

    fn unknown_targets(&self, limit: Limit) -> Vec<String> {
        self.unlisted_targets(limit).into_iter().chain(self.blind_status(limit)).collect()
    }

    fn check(&self) -> Vec<String> {
        let mut problems: Vec<String> =
            self.settings.secrets.values().filter_map(|source| source.read().err()).collect();
        if let Some(problem) = program_problem(Path::new(&self.settings.agent)) {
            problems.push(problem);
            return problems;
        }
        problems.extend(self.problems_of_options());
        problems.extend(self.doubt_about_plugs(Limit::in_ms(METADATA_CHECK_MS)));
        problems
    }

    fn remarks(&self, limit: Limit) -> Vec<String> {
        let metadata = self.metadata_if_readable(limit);
        let skipped = metadata.as_deref().and_then(Metadata::skipped);
        let remark =
            |text| format!("the agent writes this beside its metadata, which is skipped: {text}");
        skipped.map(remark).into_iter().collect()
    }
}

/// What the agent reads. What we say comes last, for that is what counts.
fn input(
    settings: &FenceAgentSettings,
    secrets: &[(&str, Secret)],
    action: &str,
    target: Option<Target<'_>>,
) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.extend([name, "=", value, "\n"]);
    };
    let host = target.and_then(|target| target.host);
    for (name, value) in &settings.options {
        line(name, host.filter(|_| is_host_option(name)).unwrap_or(value));
    }
    for (name, secret) in secrets {
        line(name, secret.expose());
    }
    if let Some(Target { node, plug, host }) = target {
        let option = settings.plug_option.as_deref().unwrap_or(PLUG);
        if option != NODE_NAME {
            line(NODE_NAME, node.as_str());
        }
        let host = host.filter(|_| is_host_option(option));
        line(option, host.unwrap_or(plug));
    }
    line("action", action);
    text
}

/// What to do where an agent may ignore its plug.
const NAME_THE_OPTION: &str = "write in 'plug_option' which of its options names the target, such \
                               as \"ip\" (or \"plug\", if that is so)";

/// The option that carries the plug, unless another is configured.
const PLUG: &str = "plug";

/// What Pacemaker tells agents beside the plug. Few want it, and the others expect it.
const NODE_NAME: &str = "nodename";

/// Most agents are written in Python, whose remarks on their code would hide their errors.
const PYTHON_ENVIRONMENT: [(&str, &str); 1] = [("PYTHONWARNINGS", "ignore")];

/// How long `check` waits for the metadata: a little longer than the agent may take.
const METADATA_CHECK_MS: u64 = 11_000;
