//! What the options mean: one [`Invocation`] with just what its action needs.
//!
//! Every refusal of input is here, before anything is opened or written, in the fence-agents
//! library's words where it has some. The parameter names that hold the word "timeout" stand in no
//! refusal: Pacemaker reads that word as an expired time.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use fence_protocol::{FenceAction, NameError, NodeName, RecordName, RequestId};
use fence_spool::{ClientSpool, Places, Showing, SpoolError};
use gfs2_discovery::{Kubernetes, ROOT_VARIABLE, Search};

use crate::input::{RawInput, yes_or_no};
use crate::outcome::without_read_words;
use crate::parameters::{Kind, Parameter, parameter};
use crate::target::{self, TwoTargets};

/// What the agent was told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Show the options.
    Help,
    /// Show the version.
    Version,
    /// Show the metadata.
    Metadata,
    /// Show the metadata with the marks that the maker of manuals (`fence2man`) needs.
    Manpage,
    /// Nothing more: the options are right. The agent's time is kept for an advice.
    ValidateAll(Duration),
    /// Ask something.
    Probe(Box<Probe>),
    /// Fence.
    Fence(Box<Fence>),
}

/// A question, and whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub question: Question,
    /// The other half.
    pub responder: Responder,
    /// The spool.
    pub places: Places,
    /// The fence device meant; all without it.
    pub device: Option<String>,
    /// How long to wait for the answer.
    pub time_max: Duration,
    /// The cluster's name of the target, when it was sent.
    pub nodename: Option<String>,
    /// Where to look for a target's GFS2 file systems, when somebody wants to see them.
    pub discovery: Option<Search>,
    /// Where a `monitor` asks which nodes Kubernetes has; nnf-sos alone.
    pub naming: Option<Search>,
    /// What is wrong with options that are ignored.
    pub ignored: Vec<String>,
    /// Where the names of the cluster's nodes are read.
    pub cluster: Search,
    /// What to tell on the way.
    pub telling: Telling,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Would fencing work at this moment? Of this target, where the device has a fixed one.
    Monitor(Option<NodeName>),
    /// Is the target on or off?
    Status(NodeName),
    /// Which nodes can be fenced? Only whether this one can, where a device has a fixed plug.
    List(Option<NodeName>),
    /// The same, with their power states, in columns separated by this text.
    ListStatus(Option<NodeName>, String),
}

/// A fence, with all that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What is asked for.
    pub action: FenceAction,
    /// The action in the cluster manager's word.
    pub action_word: String,
    /// For whom.
    pub target: NodeName,
    /// The cluster's name of the target, when it was sent.
    pub nodename: Option<String>,
    /// The cluster's number of the target, when `dlm_controld` sent it.
    pub dlm_node: Option<u32>,
    /// The other half.
    pub responder: Responder,
    /// The spool.
    pub places: Places,
    /// Where the audit is written.
    pub log_dir: PathBuf,
    /// The fence device to use, when one is named.
    pub device: Option<String>,
    /// The time from the agent's start to its end.
    pub time_max: Duration,
    /// The longest time between two looks for the answer.
    pub poll_interval: Duration,
    /// How long to wait before anything is done.
    pub delay: Duration,
    /// Where to look for the target's GFS2 file systems; nowhere without it.
    pub discovery: Option<Search>,
    /// Where to ask whether Kubernetes has the target; nnf-sos alone, and not for `on`.
    pub naming: Option<Search>,
    /// Where the names of the cluster's nodes are read, if discovery does not.
    pub cluster: Search,
    /// What is wrong with options that are ignored.
    pub ignored: Vec<String>,
    /// What to tell on the way.
    pub telling: Telling,
}

/// Who answers requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responder {
    /// Our watcher: it claims, answers queries and can be asked whether it lives.
    FenceWatcher,
    /// A user's own watcher, which knows nothing but requests and answers.
    Script,
    /// nnf-sos: it fences on every request file, whatever the action.
    Nnf,
}

impl Responder {
    /// The spool in these places. Our watcher makes its directories itself; nobody else is known to.
    pub(crate) fn open(self, places: &Places) -> Result<ClientSpool, SpoolError> {
        match self {
            Responder::FenceWatcher => ClientSpool::open(places),
            Responder::Script | Responder::Nnf => ClientSpool::create(places),
        }
    }

    /// How it sees a request.
    pub(crate) fn showing(self) -> Showing {
        match self {
            Responder::Script => Showing::Link,
            Responder::FenceWatcher | Responder::Nnf => Showing::Rename,
        }
    }
}

/// What is told beside the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// Each step, on standard error.
    pub verbose: bool,
    /// Nothing at all on standard error.
    pub quiet: bool,
    /// Each step, appended to this file.
    pub debug_file: Option<PathBuf>,
    /// What is wrong with the environment, and changes nothing of a fence.
    pub remarks: Vec<String>,
}

/// Why the input is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No action was given.
    NoAction,
    /// There is no such action.
    UnknownAction(String),
    /// The action needs a target, and none was given.
    NoTarget(&'static str),
    /// `plug` and `port` name two targets, and neither is the cluster's own name of the node.
    TwoTargets(String, String),
    /// The target names several nodes.
    SeveralTargets(String),
    /// The target is no safe name.
    Target(String, NameError),
    /// The value of this parameter is not what the text says.
    Value {
        /// The option or the variable that gives it.
        what: String,
        /// Its value.
        value: String,
        /// What it should be.
        should: &'static str,
    },
    /// The delay leaves no time to fence.
    Delay(Duration, Duration),
    /// `validate-all` found this.
    Invalid(Box<Refusal>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoAction => f.write_str("no action was given: say action=off, or see --help"),
            Refusal::UnknownAction(word) => {
                write!(f, "Failed: Unrecognised action '{}'", without_read_words(word))
            }
            Refusal::NoTarget(action) => write!(
                f,
                "Failed: You have to enter plug number or machine identification: '{action}' needs \
                 plug=, the node to fence"
            ),
            Refusal::TwoTargets(plug, port) => write!(
                f,
                "plug names '{plug}' and port names '{port}', and neither is nodename, the cluster's own \
                 name: which node is meant? Give one of them"
            ),
            Refusal::SeveralTargets(text) => {
                write!(f, "the target '{text}' names several nodes: fence them one by one")
            }
            Refusal::Target(text, error) => {
                write!(f, "the target '{text}' is not a node name: {error}")
            }
            Refusal::Value { what, value, should } => {
                write!(f, "{what} is '{value}', but must be {should}")
            }
            Refusal::Delay(delay, time_max) => write!(
                f,
                "a delay of {} s leaves no time to fence within {} s: shorten the delay",
                delay.as_secs_f64(),
                time_max.as_secs_f64()
            ),
            Refusal::Invalid(why) => {
                write!(f, "validate-all failed: {why}. Please use '-h' for usage")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// The last part of the agent's time, kept free for the withdrawal and the audit. A request's
/// deadline lies at its begin; in its middle the agent stops waiting.
pub fn reserve(time_max: Duration) -> Duration {
    (time_max / 10).clamp(Duration::from_millis(200), Duration::from_secs(2))
}

/// The longest wait for the answer to a question: Pacemaker gives a monitor 20 seconds unless it is
/// told otherwise.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(15);

/// How long the CIB may take to name the cluster's nodes: a fence is refused where it takes longer.
const CLUSTER_TIME_MAX: Duration = Duration::from_secs(5);

/// The shortest time between two looks: a shorter one only takes the processor from the responder.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The longest `fence_timeout`, in seconds: a day.
const TIME_SECONDS_MAX: u64 = 86_400;

/// Parameters that change only what is shown or told.
const FLAGS: [&str; 5] = ["verbose", "quiet", "version", "help", "no_gfs2_discovery"];

/// Parameters for information alone. The environment may be one that was set for something else, and a
/// wrong variable there must not keep a node from being fenced.
const INFORMATION: [&str; 3] = ["gfs2_discovery_enabled", "gfs2_discovery_timeout", "log_dir"];

/// Understands the options; `environment` gives the value of a variable.
pub fn understand(
    input: &RawInput,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Invocation, Refusal> {
    let options = Options { input, environment, ignored: Vec::new() };
    let word = options.text("action");
    // A device that is configured with help=1 would otherwise have each fence end at once, and well.
    if input.is_typed || word.is_none() {
        if options.flag("help") {
            return Ok(Invocation::Help);
        }
        if options.flag("version") {
            return Ok(Invocation::Version);
        }
    }
    let word = word.or_else(|| dlm_action(input)).ok_or(Refusal::NoAction)?;
    let strict = options;
    let options = strict.without_senseless();
    match word.to_ascii_lowercase().as_str() {
        "metadata" | "meta-data" => Ok(Invocation::Metadata),
        "manpage" => Ok(Invocation::Manpage),
        "validate-all" => {
            let time_max = strict.validate_all().map_err(|why| Refusal::Invalid(Box::new(why)))?;
            Ok(Invocation::ValidateAll(time_max))
        }
        "monitor" => {
            let (target, _) = options.as_for_a_fence()?;
            options.probe(Question::Monitor(target))
        }
        "list" => options.probe(Question::List(options.fixed_target()?)),
        "list-status" => {
            let separator = options.text("separator").unwrap_or_default();
            options.probe(Question::ListStatus(options.fixed_target()?, separator))
        }
        "status" => options.probe(Question::Status(options.target("status")?)),
        other => match other.parse() {
            Ok(action) => options.fence(action, word).map(Box::new).map(Invocation::Fence),
            Err(()) => Err(Refusal::UnknownAction(word)),
        },
    }
}

/// What `dlm_controld` means, which sends no action: a fence, and with the agents of the fence-agents
/// library that is a reboot. Nobody else sends `fail_time`, so an action that was forgotten is none.
fn dlm_action(input: &RawInput) -> Option<String> {
    is_from_dlm(input).then(|| "reboot".to_owned())
}

fn is_from_dlm(input: &RawInput) -> bool {
    let is_given = |name: &&str| input.unknown.iter().any(|unknown| unknown == name);
    !input.is_typed && ["node", "fail_time"].iter().all(is_given)
}

/// `name` after `what`. Pacemaker reads "timeout" as an expired time, wherever it stands in small letters.
fn named(what: &str, name: &str) -> String {
    let split = name.replace("timeout", "time-out");
    let hint = if split == name { "" } else { " (written without the hyphen in 'time-out')" };
    format!("{what}{split}{hint}")
}

fn seconds(text: &str) -> Option<Duration> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = text.parse().ok().filter(|_| is_plain)?;
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    (time <= Duration::from_secs(TIME_SECONDS_MAX)).then_some(time)
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains('\0')
}

/// Whether `value` is one of this kind.
fn is_of_kind(kind: Kind, value: &str) -> bool {
    match kind {
        Kind::Seconds => seconds(value).is_some(),
        Kind::Path => is_path(value),
        Kind::Boolean | Kind::Flag => yes_or_no(value).is_some(),
        Kind::Select(words) => words.contains(&value),
        Kind::Text | Kind::Integer => true,
    }
}

/// The remark about a variable that is refused, and therefore ignored.
fn ignored(refusal: &Refusal, default: &str) -> String {
    format!("{refusal}: it is ignored, and {default} is used")
}

/// What a value of this kind is, in words.
fn should_be(kind: Kind) -> &'static str {
    match kind {
        Kind::Seconds => "a number of seconds from 0 to 86400",
        Kind::Path => "a path that starts with '/'",
        Kind::Boolean | Kind::Flag => "yes or no",
        Kind::Select(_) => "one of the known words",
        Kind::Text | Kind::Integer => "a value of another kind",
    }
}

/// The options that hold: what was given, else the environment's, else the default.
struct Options<'a> {
    input: &'a RawInput,
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// The parameters whose defaults hold, because their values make no sense: why.
    ignored: Vec<(&'static str, Refusal)>,
}

impl Options<'_> {
    fn validate_all(&self) -> Result<Duration, Refusal> {
        let (_, time_max) = self.as_for_a_fence()?;
        // A fence, and a monitor, ignore a wrong value of these.
        for name in FLAGS {
            self.boolean(name)?;
        }
        Ok(time_max)
    }

    /// Refuses what a fence with these options would be refused for, and what it would ignore. Gives the
    /// target and the agent's time. A made-up target is usual here, and so is none.
    fn as_for_a_fence(&self) -> Result<(Option<NodeName>, Duration), Refusal> {
        let responder = self.responder()?;
        let target = match self.target_for("off", responder) {
            Ok(target) => Some(target),
            Err(Refusal::NoTarget(_)) => None,
            Err(refusal) => return Err(refusal),
        };
        let (time_max, _) = self.times(FenceAction::Off)?;
        self.places()?;
        self.path("log_dir")?;
        self.discovery()?;
        Ok((target, time_max))
    }

    /// The same options, with the defaults in place of values that make no sense, where the fence itself
    /// does not depend on them: what concerns information only, and what was left empty.
    fn without_senseless(&self) -> Options<'_> {
        let is_empty = |name: &str| self.text(name).is_some_and(|text| text.is_empty());
        let informing = [
            ("gfs2_discovery_enabled", self.boolean("gfs2_discovery_enabled").err()),
            ("gfs2_discovery_timeout", self.discovery_time().err()),
        ];
        let empty = [
            ("delay", self.seconds("delay").err()),
            ("poll_interval", self.seconds("poll_interval").err()),
            ("log_dir", self.path("log_dir").err()),
        ];
        let empty = empty.into_iter().filter(|(name, _)| is_empty(name));
        let flags = FLAGS.iter().map(|name| (*name, self.boolean(name).err()));
        let wrong = informing.into_iter().chain(empty).chain(flags);
        let ignored = wrong.filter_map(|(name, why)| Some((name, why?))).collect();
        Options { input: self.input, environment: self.environment, ignored }
    }

    fn ignored(&self) -> Vec<String> {
        self.ignored.iter().map(|(_, why)| why.to_string()).collect()
    }

    fn probe(&self, question: Question) -> Result<Invocation, Refusal> {
        let telling = self.telling();
        // It is shown to people alone; what the question is about does not need it.
        let is_shown = telling.verbose && matches!(question, Question::Status(_));
        let responder = self.responder()?;
        let is_named = responder == Responder::Nnf && matches!(question, Question::Monitor(_));
        Ok(Invocation::Probe(Box::new(Probe {
            question,
            responder,
            places: self.places()?,
            device: self.text("device"),
            time_max: self.time_max()?.min(QUESTION_TIME_MAX),
            nodename: self.text("nodename"),
            discovery: self.discovery()?.filter(|_| is_shown),
            naming: is_named
                .then(|| self.discovery_time().map(|time_max| self.search(time_max)))
                .transpose()?,
            ignored: self.ignored(),
            cluster: self.search(CLUSTER_TIME_MAX),
            telling,
        })))
    }

    fn fence(&self, action: FenceAction, action_word: String) -> Result<Fence, Refusal> {
        let responder = self.responder()?;
        let target = self.target_for(action.as_str(), responder)?;
        let dlm_node = self.input.dlm_node.as_ref().filter(|_| is_from_dlm(self.input));
        let (time_max, delay) = self.times(action)?;
        Ok(Fence {
            action,
            action_word,
            target,
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
            naming: (responder == Responder::Nnf && action != FenceAction::On)
                .then(|| self.discovery_time().map(|time_max| self.search(time_max)))
                .transpose()?,
            cluster: self.search(CLUSTER_TIME_MAX),
            ignored: self.ignored(),
            telling: self.telling(),
        })
    }

    /// The target, if its name fits into the name of a request's file.
    fn target_for(&self, action: &'static str, responder: Responder) -> Result<NodeName, Refusal> {
        let target = self.target(action)?;
        if responder == Responder::Nnf
            && let Err(error) = RecordName::of_target_and_id(&target, &RequestId::random())
        {
            return Err(Refusal::Target(target.as_str().to_owned(), error));
        }
        Ok(target)
    }

    /// `plug` or `port`, else `nodename`. An empty plug is refused: whoever sent it meant to name
    /// a node, and the one that the cluster names may be another.
    fn target(&self, action: &'static str) -> Result<NodeName, Refusal> {
        let text =
            self.named()?.or(self.input.last("nodename")).ok_or(Refusal::NoTarget(action))?;
        self.node_name(text)
    }

    /// The target that is given beside the cluster's name of a node, if one is.
    fn fixed_target(&self) -> Result<Option<NodeName>, Refusal> {
        self.named()?.map(|text| self.node_name(text)).transpose()
    }

    fn named(&self) -> Result<Option<&str>, Refusal> {
        let (plug, port) = (self.input.last("plug"), self.input.last("port"));
        target::meant(plug, port, self.input.last("nodename")).map_err(|TwoTargets| {
            let name = |name: Option<&str>| name.unwrap_or_default().to_owned();
            Refusal::TwoTargets(name(plug), name(port))
        })
    }

    fn node_name(&self, text: &str) -> Result<NodeName, Refusal> {
        let separator = self.text("plug_separator").unwrap_or_default();
        if !separator.is_empty() && text.contains(&separator) {
            return Err(Refusal::SeveralTargets(text.to_owned()));
        }
        text.parse().map_err(|error| Refusal::Target(text.to_owned(), error))
    }

    /// The agent's time and the delay in it.
    fn times(&self, action: FenceAction) -> Result<(Duration, Duration), Refusal> {
        let time_max = self.time_max()?;
        let delay = self.seconds("delay")?;
        self.seconds("poll_interval")?;
        if action == FenceAction::On {
            return Ok((time_max, Duration::ZERO));
        }
        if delay + reserve(time_max) >= time_max {
            return Err(Refusal::Delay(delay, time_max));
        }
        Ok((time_max, delay))
    }

    fn time_max(&self) -> Result<Duration, Refusal> {
        let text = self.text("fence_timeout").unwrap_or_default();
        match text.parse() {
            Ok(seconds @ 1..=TIME_SECONDS_MAX) if text.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Duration::from_secs(seconds))
            }
            _ => Err(Refusal::Value {
                what: self.giver("fence_timeout"),
                value: text,
                should: "a whole number of seconds from 1 to 86400",
            }),
        }
    }

    fn seconds(&self, name: &str) -> Result<Duration, Refusal> {
        let text = self.text(name).unwrap_or_default();
        seconds(&text).ok_or_else(|| self.wrong(name, text))
    }

    /// The refusal of `value`, which is given for the parameter `name`.
    fn wrong(&self, name: &str, value: String) -> Refusal {
        Refusal::Value { what: self.giver(name), value, should: should_be(parameter(name).kind) }
    }

    /// Who gives the value of a parameter: an option, or a variable of the environment.
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

    fn places(&self) -> Result<Places, Refusal> {
        Ok(Places::new(self.path("request_dir")?, self.path("response_dir")?))
    }

    fn path(&self, name: &'static str) -> Result<PathBuf, Refusal> {
        let text = self.text(name).unwrap_or_default();
        if is_path(&text) {
            return Ok(PathBuf::from(text));
        }
        Err(self.wrong(name, text))
    }

    fn responder(&self) -> Result<Responder, Refusal> {
        match self.text("responder").unwrap_or_default().as_str() {
            "fence-watcher" => Ok(Responder::FenceWatcher),
            "script" => Ok(Responder::Script),
            "nnf" => Ok(Responder::Nnf),
            other => Err(Refusal::Value {
                what: self.giver("responder"),
                value: other.to_owned(),
                should: "one of fence-watcher, script and nnf",
            }),
        }
    }

    fn discovery(&self) -> Result<Option<Search>, Refusal> {
        let enabled = self.boolean("gfs2_discovery_enabled")?;
        let disabled = self.flag("no_gfs2_discovery");
        let time_max = self.discovery_time()?;
        Ok((enabled && !disabled).then(|| self.search(time_max)))
    }

    fn discovery_time(&self) -> Result<Duration, Refusal> {
        self.seconds("gfs2_discovery_timeout")
    }

    /// Where to look for what the cluster knows, for this long.
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

    /// The directory that stands for `/`.
    fn root(&self) -> Result<PathBuf, Refusal> {
        let value = (self.environment)(ROOT_VARIABLE).filter(|value| !value.is_empty());
        match value {
            Some(value) if !is_path(&value) => Err(Refusal::Value {
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
            remarks: INFORMATION
                .iter()
                .filter_map(|name| self.ignored_variable(name))
                .chain(self.root().err().map(|refusal| ignored(&refusal, "/")))
                .collect(),
        }
    }

    /// What is wrong with the variable that would give the value of `name`, and is ignored.
    fn ignored_variable(&self, name: &str) -> Option<String> {
        let row = parameter(name);
        let value = self.input.value(row).is_none().then(|| self.variable(row)).flatten()?;
        let default = row.default.unwrap_or_default();
        (!is_of_kind(row.kind, &value)).then(|| ignored(&self.wrong(name, value), default))
    }

    /// The value that the environment gives to `row`.
    fn variable(&self, row: &Parameter) -> Option<String> {
        row.environment.and_then(self.environment).filter(|value| !value.is_empty())
    }

    fn flag(&self, name: &str) -> bool {
        self.input.flag(parameter(name))
    }

    fn boolean(&self, name: &'static str) -> Result<bool, Refusal> {
        let Some(text) = self.text(name) else {
            return Ok(false);
        };
        yes_or_no(&text).ok_or_else(|| self.wrong(name, text))
    }

    /// The value that holds. An empty one is none where the parameter is a text that may be absent.
    fn text(&self, name: &str) -> Option<String> {
        let row: &Parameter = parameter(name);
        if self.ignored.iter().any(|(ignored, _)| *ignored == name) {
            return row.default.map(str::to_owned);
        }
        let given = self.input.value(row).map(str::to_owned);
        let value = given
            .or_else(|| {
                let is_usable =
                    |value: &String| !INFORMATION.contains(&name) || is_of_kind(row.kind, value);
                self.variable(row).filter(is_usable)
            })
            .or_else(|| row.default.map(str::to_owned))?;
        (row.kind != Kind::Text || !value.is_empty()).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, environment: &[(&str, &str)]) -> Result<Invocation, Refusal> {
        let input = RawInput::from_stdin(text.as_bytes()).unwrap();
        understand(&input, &|name| {
            environment
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn fence(text: &str) -> Fence {
        match with(text, &[]) {
            Ok(Invocation::Fence(fence)) => *fence,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    /// Why the options are refused, by `validate-all` as by an action.
    fn refusal(text: &str) -> Refusal {
        match with(text, &[]).expect_err(text) {
            Refusal::Invalid(why) => *why,
            other => other,
        }
    }

    #[test]
    fn who_gives_a_wrong_value_is_named_without_the_word_that_pacemaker_reads() {
        let refused = |text: &str, variables: &[(&str, &str)]| {
            with(&format!("action=off\nplug=n3\n{text}"), variables).unwrap_err().to_string()
        };
        let seconds = "is 'abc', but must be a number of seconds from 0 to 86400";
        for (text, name, value, expected) in [
            (
                "",
                "FENCE_TIMEOUT",
                "abc",
                "the environment variable FENCE_TIMEOUT is \
                 'abc', but must be a whole number of seconds from 1 to 86400"
                    .to_owned(),
            ),
            (
                "recorder_timeout=abc",
                "FENCE_TIMEOUT",
                "7",
                "the option recorder_time-out (written without the hyphen in 'time-out') is 'abc', but \
                 must be a whole number of seconds from 1 to 86400"
                    .to_owned(),
            ),
            ("", "POLL_INTERVAL", "abc", format!("the environment variable POLL_INTERVAL {seconds}")),
            ("poll_interval=abc", "POLL_INTERVAL", "7", format!("the option poll_interval {seconds}")),
            ("delay=abc", "", "", format!("the option delay {seconds}")),
            (
                "",
                "REQUEST_DIR",
                "r",
                "the environment variable REQUEST_DIR is 'r', but must be a path that starts with '/'"
                    .to_owned(),
            ),
            (
                "responder=x",
                "",
                "",
                "the option responder is 'x', but must be one of fence-watcher, script and nnf".to_owned(),
            ),
        ] {
            assert_eq!(refused(text, &[(name, value)]), expected);
        }
        let words = ["-o", "off", "-n", "n3", "--fence-timeout=x"].map(std::ffi::OsString::from);
        let typed = understand(&RawInput::from_arguments(&words).unwrap(), &|_| None).unwrap_err();
        assert!(typed.to_string().starts_with("the option --fence-time-out (written"), "{typed}");
    }

    #[test]
    fn a_wrong_variable_that_concerns_information_stops_no_fence() {
        let variables = [
            ("GFS2_DISCOVERY_ENABLED", "maybe"),
            ("GFS2_DISCOVERY_TIMEOUT", "-1"),
            ("LOG_DIR", "logs"),
            ("GFS2_DISCOVERY_ROOT", "copy/of/n3"),
        ];
        for text in ["action=off\nplug=n3\n", "action=monitor\n", "action=status\nplug=n3\n"] {
            let expected = with(text, &[]).unwrap();
            let telling = match with(text, &variables).unwrap() {
                Invocation::Fence(fence) => {
                    let found = Fence { telling: Telling::default(), ..(*fence).clone() };
                    assert_eq!(Invocation::Fence(Box::new(found)), expected);
                    fence.telling
                }
                Invocation::Probe(probe) => {
                    let found = Probe { telling: Telling::default(), ..(*probe).clone() };
                    assert_eq!(Invocation::Probe(Box::new(found)), expected);
                    probe.telling
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(telling.remarks.len(), 4, "{telling:?}");
            assert_eq!(
                telling.remarks[0],
                "the environment variable GFS2_DISCOVERY_ENABLED is 'maybe', but must be yes or no: it is \
                 ignored, and true is used"
            );
            assert_eq!(
                telling.remarks[3],
                "the environment variable GFS2_DISCOVERY_ROOT is 'copy/of/n3', but must be a path that \
                 starts with '/': it is ignored, and / is used"
            );
        }
        // What is given as an option is checked when the device is made, and is refused there.
        for (name, value) in variables.into_iter().take(INFORMATION.len()) {
            let option = format!("action=validate-all\n{}={value}\n", name.to_ascii_lowercase());
            assert!(matches!(refusal(&option), Refusal::Value { .. }), "{option}");
            // An option that is right outranks the variable, which is not looked at.
            let right = "gfs2_discovery_enabled=yes\ngfs2_discovery_timeout=1\nlog_dir=/l\n";
            let fence = with(&format!("action=off\nplug=n3\n{right}"), &variables[..3]).unwrap();
            assert!(matches!(fence, Invocation::Fence(f) if f.telling.remarks.is_empty()));
        }
    }

    #[test]
    fn a_fence_needs_nothing_but_action_and_target() {
        let fence = fence("action=off\nplug=n3\n");

        assert_eq!((fence.action, fence.target.as_str()), (FenceAction::Off, "n3"));
        assert_eq!(fence.responder, Responder::FenceWatcher);
        assert_eq!(fence.places.requests, PathBuf::from("/var/run/gfs2-fencing/requests"));
        assert_eq!(fence.log_dir, PathBuf::from("/var/log/gfs2-fencing"));
        assert_eq!(fence.time_max, Duration::from_mins(1));
        assert_eq!(fence.poll_interval, Duration::from_millis(500));
        assert_eq!(fence.delay, Duration::ZERO);
        let search = fence.discovery.unwrap();
        assert_eq!((search.root, search.time_max), ("/".into(), Duration::from_secs(2)));
    }

    #[test]
    fn an_option_outranks_the_environment_and_that_the_default() {
        let directory = |text: &str, environment: &[(&str, &str)]| {
            let text = format!("action=off\nplug=n3\n{text}");
            match with(&text, environment).unwrap() {
                Invocation::Fence(fence) => fence.places.requests,
                other => panic!("{other:?}"),
            }
        };
        let environment = [("REQUEST_DIR", "/environment")];

        assert_eq!(directory("request_dir=/option\n", &environment), PathBuf::from("/option"));
        assert_eq!(directory("request_path=/option\n", &environment), PathBuf::from("/option"));
        assert_eq!(directory("", &environment), PathBuf::from("/environment"));
        assert_eq!(
            directory("", &[("REQUEST_DIR", "")]),
            PathBuf::from("/var/run/gfs2-fencing/requests")
        );
    }

    #[test]
    fn plug_and_port_name_the_target_and_nodename_only_without_them() {
        assert_eq!(fence("action=off\nplug=a\nnodename=b\n").target.as_str(), "a");
        assert_eq!(fence("action=off\nport=a\nnodename=b\n").target.as_str(), "a");
        assert_eq!(fence("action=off\nport=a\nplug=a\n").target.as_str(), "a");
        assert_eq!(fence("action=off\nnodename=b\n").target.as_str(), "b");
        assert_eq!(
            refusal("action=off\nplug=a\nport=b\n"),
            Refusal::TwoTargets("a".into(), "b".into())
        );
        assert_eq!(fence("action=off\nplug=a\nport=b\nnodename=b\n").target.as_str(), "a");
        assert_eq!(fence("action=off\nplug=b\nport=a\nnodename=b\n").target.as_str(), "a");
        for action in ["off", "status", "list", "list-status", "validate-all"] {
            let text = format!("action={action}\nplug=a\nport=b\nnodename=c\n");
            assert_eq!(refusal(&text), Refusal::TwoTargets("a".into(), "b".into()));
        }
        assert_eq!(
            refusal("action=off\nplug=\nnodename=b\n"),
            Refusal::Target(String::new(), NameError::Empty)
        );
        assert_eq!(refusal("action=off\nnodeid=3\n"), Refusal::NoTarget("off"));
    }

    #[test]
    fn without_an_action_nothing_is_done_but_for_dlm() {
        let from_dlm = "node=2\nfail_time=1790000000\nport=n2\n";
        assert_eq!(fence(from_dlm).action, FenceAction::Reboot);
        assert_eq!(fence(&format!("{from_dlm}action=off\n")).action, FenceAction::Off);
        assert_eq!(refusal("plug=n3\n"), Refusal::NoAction);
        assert_eq!(refusal("node=2\nplug=n3\n"), Refusal::NoAction);
        assert_eq!(refusal("fail_time=1790000000\nplug=n3\n"), Refusal::NoAction);
        assert_eq!(refusal("action=\nplug=n3\n"), Refusal::NoAction);
        assert_eq!(refusal("action=cycle\nplug=n3\n"), Refusal::UnknownAction("cycle".into()));
        assert_eq!(fence("option=Off\nplug=n3\n").action, FenceAction::Off);
        assert_eq!(fence("action=Reboot\nplug=n3\n").action_word, "Reboot");
    }

    #[test]
    fn an_unsafe_target_is_refused_for_each_action_that_has_one() {
        let long = "x".repeat(254);
        for action in ["off", "on", "reboot", "status", "validate-all"] {
            for target in ["../n3", "a/b", "-n3", ".n3", "a\tb", "n\u{85}3", "n 3", "a,b", &long] {
                let text = format!("action={action}\nplug=x{target}\nplug={target}\n");
                assert!(
                    matches!(refusal(&text), Refusal::Target(..) | Refusal::SeveralTargets(_)),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn a_name_too_long_for_the_other_file_name_is_refused_only_there() {
        let text = format!("action=off\nplug={}\n", "x".repeat(230));
        fence(&text);
        assert!(matches!(refusal(&format!("{text}responder=nnf\n")), Refusal::Target(..)));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_in_words_pacemaker_does_not_read() {
        for (name, values) in [
            (
                "fence_timeout",
                &["0", "-1", "1.5", "86401", "abc", "", "+5", "99999999999999999999"][..],
            ),
            ("poll_interval", &["-1", "abc", "inf", "NaN", "1e3", "86401"]),
            ("delay", &["-1", "abc", "inf", "58", "60", "1000"]),
            ("responder", &["", "nobody", "NNF"]),
            ("request_dir", &["", "relative", "./x", "~/x"]),
            ("response_dir", &["relative"]),
            ("log_dir", &["relative"]),
        ] {
            for value in values {
                for action in ["off", "validate-all", "monitor"] {
                    let text = format!("action={action}\nplug=n3\n{name}={value}\n");
                    let words = with(&text, &[]).expect_err(&text).to_string();
                    assert!(!words.contains("timeout") && !words.contains('\n'), "{words}");
                    let is_invalid = words.starts_with("validate-all failed: ");
                    assert_eq!(is_invalid, action == "validate-all");
                }
            }
        }
    }

    #[test]
    fn a_value_that_only_informs_or_is_empty_stops_no_fence_and_fails_a_check() {
        let plain = fence("action=off\nplug=n3\n");
        let environment = |name: &str| match name {
            "gfs2_discovery_enabled" => "GFS2_DISCOVERY_ENABLED",
            _ => "GFS2_DISCOVERY_TIMEOUT",
        };
        for (name, values) in [
            ("gfs2_discovery_enabled", &["maybe", "2", ""][..]),
            ("gfs2_discovery_timeout", &["-1", "2s", "86401", ""]),
            ("delay", &[""]),
            ("poll_interval", &[""]),
            ("log_dir", &[""]),
        ] {
            for value in values {
                for action in ["off", "on", "reboot", "status", "list", "list-status", "monitor"] {
                    let text = format!("action={action}\nplug=n3\n{name}={value}\n");
                    let (ignored, usual) = match with(&text, &[]).expect(&text) {
                        Invocation::Fence(fence) => {
                            let Fence { ignored, discovery, delay, poll_interval, log_dir, .. } =
                                *fence;
                            let found = (discovery, delay, poll_interval, log_dir);
                            let Fence { discovery, delay, poll_interval, log_dir, .. } =
                                plain.clone();
                            (ignored, found == (discovery, delay, poll_interval, log_dir))
                        }
                        Invocation::Probe(probe) => (probe.ignored, true),
                        other => panic!("{other:?}"),
                    };
                    assert!(usual, "{text}");
                    assert_eq!(ignored.len(), 1, "{text}: {ignored:?}");
                    assert!(!ignored[0].contains("timeout"), "{ignored:?}");
                }
                refusal(&format!("action=validate-all\nplug=n3\n{name}={value}\n"));
                if name.starts_with("gfs2") && !value.is_empty() {
                    let environment = [(environment(name), *value)];
                    with("action=off\nplug=n3\n", &environment).expect(value);
                }
            }
        }
    }

    #[test]
    fn a_monitor_refuses_what_each_fence_would_be_refused_for() {
        let long = format!("plug={}\nresponder=nnf", "x".repeat(230));
        for lines in [
            "plug=../x",
            "plug=node1,node2",
            "port=",
            "plug=a\nport=b",
            "delay=60",
            "delay=x",
            "fence_timeout=10\ndelay=9",
            "poll_interval=abc",
            "log_dir=relative",
            &long,
        ] {
            with(&format!("action=monitor\n{lines}\n"), &[]).expect_err(lines);
            let lines = format!("action=off\nnodename=node1\n{lines}\n");
            with(&lines, &[]).expect_err(&lines);
        }
        for (lines, target) in
            [("", None), ("plug=n3", Some("n3")), ("port=n3", Some("n3")), ("delay=57", None)]
        {
            let lines = format!("action=monitor\n{lines}\n");
            match with(&lines, &[]).unwrap() {
                Invocation::Probe(probe) => {
                    let target = target.map(|name| name.parse().unwrap());
                    assert_eq!(probe.question, Question::Monitor(target), "{lines}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_number_that_dlm_sends_is_kept_and_nobody_elses() {
        let number = |text: &str| fence(&format!("plug=n2\n{text}")).dlm_node;
        assert_eq!(number("node=1\nfail_time=1790000000\n"), Some(1));
        assert_eq!(number("fail_time=1790000000\nnode=1\naction=off\n"), Some(1));
        assert_eq!(number("node=n1\nfail_time=1790000000\n"), None);
        assert_eq!(number("node=1\naction=off\n"), None);
        assert_eq!(number("nodeid=1\nfail_time=1790000000\naction=off\n"), None);
    }

    #[test]
    fn a_delay_must_leave_time_to_fence() {
        assert_eq!(fence("action=off\nplug=n3\ndelay=57.9\n").delay, Duration::from_millis(57_900));
        assert_eq!(fence("action=on\nplug=n3\ndelay=1000\n").delay, Duration::ZERO);
    }

    #[test]
    fn yes_and_no_have_four_words_each() {
        for (word, expected) in [("1", true), ("YES", true), ("on", true), ("True", true)]
            .into_iter()
            .chain([("0", false), ("no", false), ("OFF", false), ("False", false)])
        {
            let text = format!("action=off\nplug=n3\ngfs2_discovery_enabled={word}\n");
            assert_eq!(fence(&text).discovery.is_some(), expected, "{word}");
        }
    }

    #[test]
    fn discovery_is_switched_off_in_three_ways_and_told_where_to_look() {
        let off = "action=off\nplug=n3\n";
        let search = |text: &str, environment: &[(&str, &str)]| match with(
            &format!("{off}{text}"),
            environment,
        )
        .unwrap()
        {
            Invocation::Fence(fence) => fence.discovery,
            other => panic!("{other:?}"),
        };
        assert_eq!(search("no_gfs2_discovery=1\n", &[]), None);
        assert_eq!(search("gfs2_discovery_enabled=0\n", &[]), None);
        assert_eq!(search("", &[("GFS2_DISCOVERY_ENABLED", "false")]), None);

        let environment = [
            ("GFS2_DISCOVERY_ROOT", "/copy"),
            ("GFS2_DISCOVERY_TIMEOUT", "0.5"),
            ("KUBECTL_CMD", "oc"),
            ("KUBECONFIG", "/etc/kube.conf"),
            ("HOME", "/home/admin"),
        ];
        let found = search("", &environment).unwrap();
        assert_eq!((found.root, found.time_max), ("/copy".into(), Duration::from_millis(500)));
        let kubernetes = Kubernetes {
            kubectl: Some("oc".to_owned()),
            config: Some("/etc/kube.conf".to_owned()),
            home: Some("/home/admin".into()),
        };
        assert_eq!(found.kubernetes, kubernetes);
        let found = search("kubectl_cmd=k\ngfs2_discovery_timeout=0\n", &environment).unwrap();
        assert_eq!((found.kubernetes.kubectl, found.time_max), (Some("k".into()), Duration::ZERO));
    }

    #[test]
    fn only_those_who_want_to_see_it_are_shown_what_a_fence_would_find() {
        for (text, is_shown) in [
            ("action=status\nplug=n3\nverbose=1\n", true),
            ("action=status\nplug=n3\n", false),
            ("action=status\nplug=n3\nverbose=1\nno_gfs2_discovery=1\n", false),
            ("action=status\nplug=n3\nverbose=1\ngfs2_discovery_enabled=2\n", true),
            ("action=monitor\nverbose=1\n", false),
        ] {
            match with(text, &[]).unwrap() {
                Invocation::Probe(probe) => {
                    assert_eq!(probe.discovery.is_some(), is_shown, "{text}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_shows_texts_looks_at_nothing_else() {
        for (text, expected) in [
            ("action=metadata\nfence_timeout=x\n", Invocation::Metadata),
            ("action=meta-data\n", Invocation::Metadata),
            ("action=manpage\nplug=../x\n", Invocation::Manpage),
            ("help=1\nversion=1\n", Invocation::Help),
            ("version=yes\n", Invocation::Version),
            ("action=validate-all\n", Invocation::ValidateAll(Duration::from_mins(1))),
            (
                "action=validate-all\nplug=node1\nnodename=node1\nfence_timeout=90\n",
                Invocation::ValidateAll(Duration::from_secs(90)),
            ),
        ] {
            assert_eq!(with(text, &[]), Ok(expected), "{text:?}");
        }
    }

    /// Exit code 0 without a fence would tell Pacemaker that the node is fenced.
    #[test]
    fn no_option_that_shows_or_tells_something_stops_a_fence_that_was_sent() {
        for name in ["verbose", "quiet", "version", "help", "no_gfs2_discovery", "verbose_level"] {
            for value in ["", "1", "0", "2", "yes", "no", "yes please", "debug"] {
                let text = format!("action=off\nplug=n3\n{name}={value}\n");
                assert_eq!(fence(&text).action, FenceAction::Off, "{text:?}");
                let text = format!("action=validate-all\n{name}={value}\n");
                let is_right = name == "verbose_level" || yes_or_no(value).is_some();
                assert_eq!(with(&text, &[]).is_ok(), is_right, "{text:?}");
            }
        }
        let words = ["-o", "off", "-n", "n3", "--help"].map(std::ffi::OsString::from);
        let typed = RawInput::from_arguments(&words).unwrap();
        assert_eq!(understand(&typed, &|_| None), Ok(Invocation::Help), "a person is shown it");
    }

    #[test]
    fn a_question_waits_no_longer_than_a_monitor_may_last() {
        let time = |text: &str| match with(text, &[]).unwrap() {
            Invocation::Probe(probe) => probe.time_max,
            other => panic!("{other:?}"),
        };
        assert_eq!(time("action=monitor\n"), QUESTION_TIME_MAX);
        assert_eq!(time("action=monitor\nfence_timeout=3\n"), Duration::from_secs(3));
    }

    #[test]
    fn the_reserve_is_a_tenth_within_bounds() {
        assert_eq!(reserve(Duration::from_secs(1)), Duration::from_millis(200));
        assert_eq!(reserve(Duration::from_secs(10)), Duration::from_secs(1));
        assert_eq!(reserve(Duration::from_mins(1)), Duration::from_secs(2));
    }
}
