//! `type = "fence-agent"`: any program that speaks as ClusterLabs' fence agents do.
//!
//! An agent is started without arguments and reads `name=value` lines: the configured options, the
//! secrets, then the action and the target's plug. Its exit code alone shows the outcome; its texts
//! are for people.
//!
//! | the agent's end | an order is | a state is | a contact is |
//! | --- | --- | --- | --- |
//! | exit code 0 | `Acknowledged` | `On` | `Reachable` |
//! | exit code 2 | `Unacknowledged` | `Off`, see below and the module `shown` | `Unreachable` |
//! | any other code, a signal, its limit | `Unacknowledged` | `Unknown` | `Unreachable` |
//! | not started: no plug, no secret, no program | `Failed` | `Unknown` | `Unreachable` |
//! | not started: too late | `TooLate` | `Unknown` | `Unreachable` |
//!
//! An order that was given to an agent is never `Unreachable`. The agent exits with 1 for a wrong
//! password, for a device that does not respond, and for a device that fell silent after it obeyed.
//! Only the texts differ, and each agent has its own.
//!
//! Two kinds of "off" are not trusted. `fence_virt` and `fence_xvm` report "off" for every unknown
//! machine, mistyped or moved to another host, and acknowledge every order for it. So the plug must
//! be in the agent's list, if the agent can list its plugs. The list is read once in an execution.
//! It is read before the order if nothing shows the order's effect (no `status`, a reset), or if
//! `plug_option` is not set. If the agent does not answer, the order is `Unreachable`; if the list
//! lacks the plug, the order is `Failed`. And an agent that takes its target from an address, not
//! from a plug, would act on the same machine for every target: see [`Metadata::may_ignore_plugs`].
//!
//! - `metadata`: the metadata of agents; `description`: how they are read and kept. `output`: the
//!   lists of agents. `plugs`: whether an agent knows a plug. `host`: the machine behind a name.
//!   `contact`: whether an agent reaches its device.

mod action;
mod contact;
mod description;
mod host;
mod metadata;
mod output;
mod plugs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use fence_core::PerTarget;
use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, PowerState};
use fence_spool::program_problem;

use crate::program::{Shown, acknowledged, failure, lack, unknown};
use crate::shown::{complaint, power_report};
use crate::{
    Client, Command, ExecutorClient, FenceDevice, Limit, OUTPUT_BYTES_MAX, OrderContext, Pin,
    Reach, RunOutcome, Secret, SecretSource, Secrets, TargetList,
};

pub use action::AgentAction;
use description::Description;
use host::is_host_option;
use plugs::Doubt;
// Public for the fuzz targets.
pub use metadata::{Given, Metadata};
pub use output::{Listed, listed_plugs};

/// A fence agent as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceAgentSettings {
    /// The program's absolute path.
    pub agent: String,
    /// Its options in each call.
    pub options: BTreeMap<String, String>,
    /// Its secret options.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Variables of its environment.
    pub env: BTreeMap<String, String>,
    /// The agent's names of the targets.
    pub plug: PerTarget,
    /// The option for this name. `None`, if it is not configured, means `plug`.
    pub plug_option: Option<String>,
    /// The targets that the configuration names.
    pub targets: BTreeSet<NodeName>,
    /// The actions that may be used. `None`, if they are not configured, means all that it has.
    pub actions: Option<BTreeSet<AgentAction>>,
    /// The actions without which the configuration is wrong.
    pub needed: BTreeSet<AgentAction>,
}

impl FenceAgentSettings {
    /// The address of each target, if the option that names a target is an address.
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

/// A target, and the agent's name of it.
#[derive(Clone, Copy, Debug)]
struct Target<'a> {
    node: &'a NodeName,
    plug: &'a str,
    /// The number that replaces the name of the device, if there is one.
    host: Option<&'a str>,
}

/// The unchanged result of a call. People see it without the secrets.
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

    /// Runs the agent. After an error, the agent was not started.
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

    /// Whether the agent has `action`: as configured, else as far as its metadata are known.
    fn may_have(&self, action: AgentAction) -> bool {
        self.has(action, || self.known_metadata())
    }

    /// Whether the agent has `action`: as configured, else by its `metadata`, if they can be read.
    fn has(&self, action: AgentAction, metadata: impl FnOnce() -> Option<Arc<Metadata>>) -> bool {
        match &self.settings.actions {
            Some(actions) => actions.contains(&action),
            None => metadata().is_none_or(|metadata| metadata.may_have(action.as_str())),
        }
    }

    /// The agent's name of `target`, if it is certain that the agent would act on this machine.
    fn plug(&self, target: &NodeName, limit: Limit) -> Result<String, String> {
        let plug = self.settings.plug.of(target);
        let plug = plug.ok_or_else(|| format!("no plug is configured for '{target}'"))?;
        self.doubt_about_plugs(limit).map_or(Ok(plug), Err)
    }

    /// Whether the configuration does not show how the agent distinguishes its targets.
    fn needs_description(&self) -> bool {
        self.settings.plug_option.is_none() && self.settings.targets.len() != 1
    }

    /// Why the agent might act on the wrong machine, if the configuration does not exclude this.
    fn doubt_about_plugs(&self, limit: Limit) -> Option<String> {
        if !self.needs_description() {
            return None;
        }
        let why = match self.metadata(limit) {
            Ok(metadata) if metadata.may_ignore_plugs() => {
                format!("the agent may {ONE_FOR_ALL}: {NAME_THE_OPTION}")
            }
            // The list would show whether the agent knows its plugs.
            Ok(metadata) if metadata.has_action("list") && !self.can(AgentAction::List) => format!(
                "the agent is not asked for its list, which 'actions' leaves out, so it may \
                 {ONE_FOR_ALL}: {NAME_THE_OPTION}"
            ),
            Ok(_) => return None,
            Err(problem) => format!(
                "the agent's metadata cannot be read, so it may {ONE_FOR_ALL}: write in \
                 'plug_option' which of its options names the target, such as \"plug\": {problem}"
            ),
        };
        Some(why)
    }

    /// The state of `target`, if it is shown and trusted, and the agent's complaint beside the
    /// state.
    fn status(&self, target: &NodeName, pin: &Pin, limit: Limit) -> Result<Shown, String> {
        if !self.may_have(AgentAction::Status) {
            return Err("the agent has no action 'status'".to_owned());
        }
        let plug = self.plug(target, limit)?;
        let host = self.host_of_question(&plug, pin, limit)?;
        self.state_of(Target { host: host.as_deref(), node: target, plug: &plug }, pin, limit)
    }

    /// The state that the agent shows of `target`, if it is trusted, and the agent's complaint.
    fn state_of(&self, target: Target<'_>, pin: &Pin, limit: Limit) -> Result<Shown, String> {
        let ran = self.run(AgentAction::Status, Some(target), None, limit, OUTPUT_BYTES_MAX)?;
        let RunOutcome::Exited { code: code @ (0 | 2), stdout, stderr } = &ran.outcome else {
            return Err(self.failure(&ran));
        };
        let names = [target.node.as_str(), target.plug];
        let report = power_report(*code, stdout, stderr, &names, &ran.secrets);
        match report.state {
            // An agent reports "off" by its exit code.
            PowerState::Off if *code != 2 => Err(report.detail),
            PowerState::Off => {
                self.doubt_about_off(target, pin, limit).map_or(Ok((report, None)), Err)
            }
            PowerState::On | PowerState::Unknown => Ok((report, complaint(stderr, &ran.secrets))),
        }
    }

    /// What is wrong with the options, by the agent's metadata.
    fn problems_of_options(&self) -> Vec<String> {
        let metadata = match self.metadata(Limit::in_ms(METADATA_CHECK_MS)) {
            Ok(metadata) => metadata,
            Err(why) => {
                let text = "the agent's metadata cannot be read, so its options are not checked";
                return vec![format!("{text}: {why}")];
            }
        };
        let FenceAgentSettings { options, secrets, plug_option, needed, .. } = &self.settings;
        let mut given: Vec<Given> =
            options.iter().map(|(name, value)| Given { name, value: Some(value) }).collect();
        given.extend(secrets.keys().map(|name| Given { name, value: None }));
        // An agent without plugs can fence one target, if 'plug_option' is not set.
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

    /// Reads the metadata, if anything depends on them.
    fn prepare(&self, limit: Limit) {
        if self.needs_description() || self.settings.actions.is_none() {
            let _ = self.metadata_if_readable(limit);
        }
    }

    /// Runs `monitor`: once, or for each named target if the plug is an address.
    fn reachable(&self, limit: Limit) -> Reach {
        let reach = self.contact(limit);
        // The failure to read the metadata has perhaps passed, and a fence has no time to find out.
        if self.is_undescribed() && !matches!(reach, Reach::Unreachable(_)) {
            let _ = self.metadata(limit);
        }
        reach
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
            // A plug of no target, or with a name that no node can have, is skipped.
            Ok(listed) => TargetList::Nodes(
                listed.iter().filter_map(|one| self.settings.plug.target_of(one.plug)).collect(),
            ),
            Err(problem) => TargetList::NoList(problem),
        }
    }

    fn power(&self, target: &NodeName, pin: &Pin, limit: Limit) -> PowerReport {
        self.status(target, pin, limit).map_or_else(unknown, |(report, _)| report)
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
        let target = Target { host: host.as_deref(), node: job.target, plug: &plug };
        if let Some(Doubt { text, is_unreached }) =
            self.doubt_about_order(action, target, job.pin, limit)
        {
            let text = format!("the agent's list was asked for before the order: {text}");
            return match is_unreached {
                _ if limit.has_passed() => OrderReport::TooLate,
                true => OrderReport::Unreachable(text),
                false => OrderReport::Failed(text),
            };
        }
        let ran = match self.run(action, Some(target), job.client, limit, OUTPUT_BYTES_MAX) {
            Ok(ran) => ran,
            Err(problem) => return OrderReport::Failed(problem),
        };
        match &ran.outcome {
            RunOutcome::Exited { code: 0, stdout, .. } => {
                // Without the standard error: after a success, its content is of no interest.
                acknowledged(&ran.secrets.hide(stdout), "")
            }
            outcome => outcome.order_report(self.failure(&ran)),
        }
    }

    /// Asks for the state, and checks whether an "off" would be trusted.
    fn lack(&self, target: &NodeName, limit: Limit) -> Option<String> {
        if !self.may_have(AgentAction::Status) {
            return self.plug(target, limit).err();
        }
        lack(self.status(target, &Pin::default(), limit))
    }

    fn unknown_targets(&self, limit: Limit) -> Vec<String> {
        self.unlisted_targets(limit).into_iter().chain(self.blind_status(limit)).collect()
    }

    fn check(&self) -> Vec<String> {
        let mut problems: Vec<String> =
            self.settings.secrets.values().filter_map(|source| source.read().err()).collect();
        if let Some(problem) = program_problem(Path::new(&self.settings.agent)) {
            problems.push(problem);
        } else {
            problems.extend(self.problems_of_options());
            problems.extend(self.doubt_about_plugs(Limit::in_ms(METADATA_CHECK_MS)));
        }
        problems
    }

    fn remarks(&self, limit: Limit) -> Vec<String> {
        let metadata = self.metadata_if_readable(limit);
        let skipped = metadata.as_deref().and_then(Metadata::skipped).into_iter();
        let remark = "the agent writes this beside its metadata, which is skipped";
        skipped.map(|text| format!("{remark}: {text}")).collect()
    }
}

/// The agent's input. Our own values come last, because the last value of a name counts.
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

/// What an agent may do that ignores its plug.
const ONE_FOR_ALL: &str = "act on one and the same machine for every target";

/// What to do if an agent may ignore its plug.
const NAME_THE_OPTION: &str = "write in 'plug_option' which of its options names the target, such \
                               as \"ip\" (or \"plug\", if that is so)";

/// The option that carries the plug, unless another is configured.
const PLUG: &str = "plug";

/// The name that Pacemaker passes to agents beside the plug. Few agents use it.
const NODE_NAME: &str = "nodename";

/// Most agents are written in Python, whose remarks on their code would hide their errors.
const PYTHON_ENVIRONMENT: [(&str, &str); 1] = [("PYTHONWARNINGS", "ignore")];

/// How long `check` waits for the metadata: a little longer than the agent may take.
const METADATA_CHECK_MS: u64 = 11_000;
