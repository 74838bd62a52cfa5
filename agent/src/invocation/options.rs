//! The options that hold, and the settings of a fence and of a probe that they make.

use std::path::PathBuf;
use std::time::Duration;

use fence_core::budget::admits_delay;
use fence_protocol::{FenceAction, NodeName, RequestId};
use fence_spool::Places;
use gfs2_discovery::{Kubernetes, ROOT_VARIABLE, Search};

use super::values::{TIME_SECONDS_MAX, is_of_kind, is_path, seconds, should_be};
use super::{
    FenceSettings, Ignored, InputError, Invocation, Probe, ProbeKind, Responder, Telling,
    is_from_dlm,
};
use crate::input::{RawInput, yes_or_no};
use crate::outcome::named;
use crate::parameters::{Kind, Parameter, parameter};
use crate::target::{self, TwoTargets};

/// The options that hold: the given value, else the environment's, else the default.
pub(super) struct Options<'a> {
    input: &'a RawInput,
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// The parameters whose wrong values the defaults replace.
    ignored: Vec<Ignored>,
}

impl<'a> Options<'a> {
    /// All of them, each as it was given.
    pub(super) fn new(
        input: &'a RawInput,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Options { input, environment, ignored: Vec::new() }
    }

    /// Refuses options that a fence would refuse or ignore. Returns the agent's time.
    pub(super) fn validate_all(&self) -> Result<Duration, InputError> {
        self.as_for_a_fence()?;
        // A fence and a monitor ignore wrong values of these.
        for name in FLAGS {
            self.boolean(name)?;
        }
        self.time_max()
    }

    /// Refuses options that a fence would refuse, by making the settings of a fence. Returns the
    /// target: here a made-up target is usual, and so is none.
    pub(super) fn as_for_a_fence(&self) -> Result<Option<NodeName>, InputError> {
        match self.fence(FenceAction::Off, FenceAction::Off.as_str()) {
            Ok(settings) => Ok(Some(settings.target)),
            // The target is checked last: all else is right.
            Err(InputError::NoTarget(_)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The same options, with the defaults in place of wrong values that the fence does not depend
    /// on: options for information only, and options that were left empty.
    pub(super) fn without_senseless(&self) -> Options<'_> {
        let is_empty = |name: &str| self.text(name).is_some_and(|text| text.is_empty());
        let informing = [
            ("gfs2_discovery_enabled", self.boolean("gfs2_discovery_enabled").err()),
            ("gfs2_discovery_timeout", self.seconds("gfs2_discovery_timeout").err()),
        ];
        let empty = [
            ("delay", self.seconds("delay").err()),
            ("poll_interval", self.seconds("poll_interval").err()),
            ("log_dir", self.path("log_dir").err()),
        ];
        let empty = empty.into_iter().filter(|(name, _)| is_empty(name));
        let flags = FLAGS.map(|name| (name, self.boolean(name).err()));
        let options = informing.into_iter().chain(empty).chain(flags);
        let options = options.map(|(name, why)| (name, why, self.input.is_typed));
        let variables = INFORMATION.map(|name| (name, self.wrong_variable(name), true));
        let root = (ROOT_VARIABLE, self.root().err(), true);
        let wrong = variables.into_iter().chain([root]).chain(options);
        let ignored = wrong.filter_map(|(name, why, is_by_hand)| {
            let default = match name {
                ROOT_VARIABLE => "/",
                name => parameter(name).default.unwrap_or_default(),
            };
            Some(Ignored { name, why: why?.to_string(), default, is_by_hand })
        });
        Options { ignored: ignored.collect(), ..*self }
    }

    /// Why the variable that would give the value of `name` is wrong, if it is.
    fn wrong_variable(&self, name: &str) -> Option<InputError> {
        let row = parameter(name);
        let value = self.input.value(row).is_none().then(|| self.variable(row)).flatten()?;
        (!is_of_kind(row.kind, &value)).then(|| self.wrong(name, value))
    }

    pub(super) fn probe(&self, kind: ProbeKind) -> Result<Invocation, InputError> {
        let telling = self.telling();
        // Only people see it; the probe itself does not need it.
        let is_shown = telling.verbose && matches!(kind, ProbeKind::Status(_));
        let responder = self.responder()?;
        let asks_kubernetes = responder == Responder::Nnf && matches!(kind, ProbeKind::Monitor(_));
        Ok(Invocation::Probe(Box::new(Probe {
            kind,
            responder,
            places: self.places()?,
            device: self.text("device"),
            time_max: self.time_max()?.min(PROBE_TIME_MAX),
            nodename: self.text("nodename"),
            discovery: self.discovery()?.filter(|_| is_shown),
            naming: self.naming(asks_kubernetes)?,
            ignored: self.ignored.clone(),
            cluster: self.search(CLUSTER_TIME_MAX),
            telling,
        })))
    }

    /// The settings of a fence, or why it is refused: for the fence itself, and for a check whether
    /// the fence would be refused.
    pub(super) fn fence(
        &self,
        action: FenceAction,
        action_word: &str,
    ) -> Result<FenceSettings, InputError> {
        let responder = self.responder()?;
        let dlm_node = self.input.dlm_node.as_ref().filter(|_| is_from_dlm(self.input));
        let (time_max, delay) = self.times(action)?;
        Ok(FenceSettings {
            action,
            action_word: action_word.to_owned(),
            nodename: self.text("nodename"),
            dlm_node: dlm_node.and_then(|number| number.parse().ok()),
            responder,
            places: self.places()?,
            log_dir: self.path("log_dir")?,
            device: self.text("device"),
            time_max,
            poll_interval: self.seconds("poll_interval")?.max(POLL_INTERVAL_MIN),
            delay,
            discovery: self.discovery()?,
            naming: self.naming(responder == Responder::Nnf && action != FenceAction::On)?,
            cluster: self.search(CLUSTER_TIME_MAX),
            ignored: self.ignored.clone(),
            is_by_hand: self.input.is_typed,
            telling: self.telling(),
            // Last: if only the target is missing, all else is checked.
            target: self.target_for(action.as_str(), responder)?,
        })
    }

    /// The target, if its name fits into the name of a request's file.
    fn target_for(
        &self,
        action: &'static str,
        responder: Responder,
    ) -> Result<NodeName, InputError> {
        let target = self.target(action)?;
        match responder.names(&target, &RequestId::random()) {
            Ok(_) => Ok(target),
            Err(error) => Err(InputError::Target(target.to_string(), error)),
        }
    }

    /// `plug` or `port`, else `nodename`. An empty plug is refused: its sender meant to name a
    /// node, and the cluster may name another one.
    pub(super) fn target(&self, action: &'static str) -> Result<NodeName, InputError> {
        let text =
            self.named()?.or(self.input.last("nodename")).ok_or(InputError::NoTarget(action))?;
        self.node_name(text)
    }

    /// The target that is given beside the cluster's name of the node, if any.
    pub(super) fn fixed_target(&self) -> Result<Option<NodeName>, InputError> {
        self.named()?.map(|text| self.node_name(text)).transpose()
    }

    fn named(&self) -> Result<Option<&str>, InputError> {
        let (plug, port) = (self.input.last("plug"), self.input.last("port"));
        target::meant(plug, port, self.input.last("nodename")).map_err(|TwoTargets| {
            let name = |name: Option<&str>| name.unwrap_or_default().to_owned();
            InputError::TwoTargets(name(plug), name(port))
        })
    }

    fn node_name(&self, text: &str) -> Result<NodeName, InputError> {
        let separator = self.text("plug_separator").unwrap_or_default();
        if !separator.is_empty() && text.contains(&separator) {
            return Err(InputError::SeveralTargets(text.to_owned()));
        }
        text.parse().map_err(|error| InputError::Target(text.to_owned(), error))
    }

    /// The agent's time and the delay in it.
    fn times(&self, action: FenceAction) -> Result<(Duration, Duration), InputError> {
        let time_max = self.time_max()?;
        let delay = self.seconds("delay")?;
        self.seconds("poll_interval")?;
        if action == FenceAction::On {
            return Ok((time_max, Duration::ZERO));
        }
        if !admits_delay(time_max, delay) {
            return Err(InputError::Delay(delay, time_max));
        }
        Ok((time_max, delay))
    }

    fn time_max(&self) -> Result<Duration, InputError> {
        let text = self.text("fence_timeout").unwrap_or_default();
        match text.parse() {
            Ok(seconds @ 1..=TIME_SECONDS_MAX) if text.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Duration::from_secs(seconds))
            }
            _ => {
                let should = "a whole number of seconds from 1 to 86400";
                Err(InputError::Value { what: self.giver("fence_timeout"), value: text, should })
            }
        }
    }

    fn seconds(&self, name: &str) -> Result<Duration, InputError> {
        let text = self.text(name).unwrap_or_default();
        seconds(&text).ok_or_else(|| self.wrong(name, text))
    }

    /// The refusal of `value` for the parameter `name`.
    fn wrong(&self, name: &str, value: String) -> InputError {
        InputError::Value { what: self.giver(name), value, should: should_be(parameter(name).kind) }
    }

    /// The source of a parameter's value: an option, or a variable of the environment.
    fn giver(&self, name: &str) -> String {
        let row = parameter(name);
        let spelling = row.spellings().find(|spelling| self.input.last(spelling).is_some());
        match (spelling, row.environment) {
            (Some(spelling), _) if self.input.is_typed => {
                named("the option --", &spelling.replace('_', "-"))
            }
            (None, Some(variable)) => named("the environment variable ", variable),
            (spelling, _) => named("the option ", spelling.unwrap_or(name)),
        }
    }

    fn places(&self) -> Result<Places, InputError> {
        Ok(Places::new(self.path("request_dir")?, self.path("response_dir")?))
    }

    fn path(&self, name: &'static str) -> Result<PathBuf, InputError> {
        let text = self.text(name).unwrap_or_default();
        if is_path(&text) { Ok(PathBuf::from(text)) } else { Err(self.wrong(name, text)) }
    }

    fn responder(&self) -> Result<Responder, InputError> {
        let value = self.text("responder").unwrap_or_default();
        match value.as_str() {
            "fence-watcher" => Ok(Responder::FenceWatcher),
            "script" => Ok(Responder::Script),
            "nnf" => Ok(Responder::Nnf),
            _ => {
                let should = "one of fence-watcher, script and nnf";
                Err(InputError::Value { what: self.giver("responder"), value, should })
            }
        }
    }

    fn discovery(&self) -> Result<Option<Search>, InputError> {
        let enabled = self.boolean("gfs2_discovery_enabled")?;
        let disabled = self.flag("no_gfs2_discovery");
        let time_max = self.seconds("gfs2_discovery_timeout")?;
        Ok((enabled && !disabled).then(|| self.search(time_max)))
    }

    fn naming(&self, asks_kubernetes: bool) -> Result<Option<Search>, InputError> {
        let search =
            || self.seconds("gfs2_discovery_timeout").map(|time_max| self.search(time_max));
        asks_kubernetes.then(search).transpose()
    }

    /// A search in the cluster's sources that takes at most `time_max`.
    fn search(&self, time_max: Duration) -> Search {
        let variable = |name: &str| (self.environment)(name).filter(|value| !value.is_empty());
        Search {
            root: self.root().unwrap_or_else(|_| "/".into()),
            time_max,
            kubernetes: Kubernetes {
                kubectl: self.text("kubectl_cmd"),
                config: variable("KUBECONFIG"),
                home: variable("HOME").map(PathBuf::from),
            },
        }
    }

    /// The directory that replaces `/`.
    fn root(&self) -> Result<PathBuf, InputError> {
        let value = (self.environment)(ROOT_VARIABLE).filter(|value| !value.is_empty());
        match value {
            Some(value) if !is_path(&value) => Err(InputError::Value {
                what: named("the environment variable ", ROOT_VARIABLE),
                value,
                should: should_be(Kind::Path),
            }),
            value => Ok(value.unwrap_or_else(|| "/".to_owned()).into()),
        }
    }

    fn telling(&self) -> Telling {
        let level = self.text("verbose_level").unwrap_or_default();
        let debug_file = self.text("debug_file").filter(|text| !text.is_empty());
        Telling {
            verbose: self.flag("verbose") || level.parse::<u64>().is_ok_and(|level| level > 0),
            quiet: self.flag("quiet"),
            debug_file: debug_file.map(PathBuf::from),
        }
    }

    /// The value that the environment gives to `row`.
    fn variable(&self, row: &Parameter) -> Option<String> {
        row.environment.and_then(self.environment).filter(|value| !value.is_empty())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.input.flag(parameter(name))
    }

    fn boolean(&self, name: &'static str) -> Result<bool, InputError> {
        let Some(text) = self.text(name) else { return Ok(false) };
        yes_or_no(&text).ok_or_else(|| self.wrong(name, text))
    }

    /// The value that holds. An empty text counts as no value.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let row: &Parameter = parameter(name);
        if self.ignored.iter().any(|ignored| ignored.name == name) {
            return row.default.map(str::to_owned);
        }
        let is_usable =
            |value: &String| !INFORMATION.contains(&name) || is_of_kind(row.kind, value);
        let given = self.input.value(row).map(str::to_owned);
        let value = given
            .or_else(|| self.variable(row).filter(is_usable))
            .or_else(|| row.default.map(str::to_owned))?;
        (row.kind != Kind::Text || !value.is_empty()).then_some(value)
    }
}

/// The longest wait for the answer to a probe: Pacemaker's default limit for a monitor is 20
/// seconds.
const PROBE_TIME_MAX: Duration = Duration::from_secs(15);

/// How long the CIB may take to name the cluster's nodes: after that the fence is refused.
const CLUSTER_TIME_MAX: Duration = Duration::from_secs(5);

/// The shortest time between two looks: a shorter time only takes the processor from the responder.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Parameters that change only the output.
const FLAGS: [&str; 5] = ["verbose", "quiet", "version", "help", "no_gfs2_discovery"];

/// Parameters for information alone. A variable may be meant for another program, and its wrong
/// value must not prevent a fence.
const INFORMATION: [&str; 3] = ["gfs2_discovery_enabled", "gfs2_discovery_timeout", "log_dir"];
