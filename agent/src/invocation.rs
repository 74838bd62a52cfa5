//! The meaning of the options: one [`Invocation`] with exactly what its action needs.
//!
//! These modules refuse all wrong input, before the agent opens or writes anything. No refusal
//! contains a parameter name with the word "timeout": Pacemaker reads that word as an expired time.
//!
//! - `options` gives each option its value, and makes the settings of a fence and of a probe.
//! - `refusal` has the reasons for a refusal.
//! - `values` has the values that fit a parameter.

mod options;
mod refusal;
mod values;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use fence_protocol::{FenceAction, NameError, NodeName, RecordName, RequestId};
use fence_spool::{ClientSpool, Places, Showing, SpoolError};
use gfs2_discovery::Search;

use crate::input::RawInput;
use options::Options;
pub use refusal::InputError;

/// What the agent is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Show the options.
    Help,
    /// Show the version.
    Version,
    /// Show the metadata.
    Metadata,
    /// Show the metadata as `fence2man`, the generator of manuals, reads it.
    Manpage,
    /// Nothing more: the options are right. The advice needs the agent's time.
    ValidateAll(Duration),
    /// Answer a probe.
    Probe(Box<Probe>),
    /// Fence.
    Fence(Box<FenceSettings>),
}

/// A probe, and the settings of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which probe.
    pub kind: ProbeKind,
    /// The other half.
    pub responder: Responder,
    /// The spool.
    pub places: Places,
    /// The fence device; `None` means all devices.
    pub device: Option<String>,
    /// How long to wait for the answer.
    pub time_max: Duration,
    /// The cluster's name of the target, if it was sent.
    pub nodename: Option<String>,
    /// How to find the target's GFS2 file systems, if they are to be shown.
    pub discovery: Option<Search>,
    /// How a `monitor` finds the nodes that Kubernetes has; for nnf-sos alone.
    pub naming: Option<Search>,
    /// The values that are ignored.
    pub ignored: Vec<Ignored>,
    /// How to find the names of the cluster's nodes.
    pub cluster: Search,
    /// What to report on the way.
    pub telling: Telling,
}

/// The kinds of probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Would fencing work now? With a fixed target: would fencing this target work?
    Monitor(Option<NodeName>),
    /// Is the target on or off?
    Status(NodeName),
    /// Which nodes can be fenced? With a fixed target: can this one be fenced?
    List(Option<NodeName>),
    /// The same, with their power states, in columns separated by this text.
    ListStatus(Option<NodeName>, String),
}

/// A fence, and the settings of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceSettings {
    /// The action.
    pub action: FenceAction,
    /// The action as the cluster manager wrote it.
    pub action_word: String,
    /// The target.
    pub target: NodeName,
    /// The cluster's name of the target, if it was sent.
    pub nodename: Option<String>,
    /// The cluster's number of the target, if `dlm_controld` sent it.
    pub dlm_node: Option<u32>,
    /// The other half.
    pub responder: Responder,
    /// The spool.
    pub places: Places,
    /// The directory of the audit.
    pub log_dir: PathBuf,
    /// The fence device to use, if one is named.
    pub device: Option<String>,
    /// The time from the agent's start to its end.
    pub time_max: Duration,
    /// The longest time between two looks for the answer.
    pub poll_interval: Duration,
    /// How long to wait before the fence begins.
    pub delay: Duration,
    /// How to find the target's GFS2 file systems; `None` disables discovery.
    pub discovery: Option<Search>,
    /// How to find out whether Kubernetes has the target; for nnf-sos alone, and not for `on`.
    pub naming: Option<Search>,
    /// How to find the names of the cluster's nodes, if discovery does not read them.
    pub cluster: Search,
    /// The values that are ignored.
    pub ignored: Vec<Ignored>,
    /// The options come from a command line, and not from a cluster manager.
    pub is_by_hand: bool,
    /// What to report on the way.
    pub telling: Telling,
}

/// Who answers requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responder {
    /// Our watcher: it claims, answers queries and can be asked whether it lives.
    FenceWatcher,
    /// A user's own watcher, which knows only requests and answers.
    Script,
    /// nnf-sos: it fences on every request file, whatever the action.
    Nnf,
}

impl Responder {
    /// The spool in these places. Only our watcher is known to make its directories itself.
    pub(crate) fn open(self, places: &Places) -> Result<ClientSpool, SpoolError> {
        match self {
            Responder::FenceWatcher => ClientSpool::open(places),
            Responder::Script | Responder::Nnf => ClientSpool::create(places),
        }
    }

    /// The name of the request's file first, then the other names that its answer may have.
    pub(crate) fn names(
        self,
        target: &NodeName,
        id: &RequestId,
    ) -> Result<Vec<RecordName>, NameError> {
        let by_id = RecordName::of_id(id);
        let by_target = RecordName::of_target_and_id(target, id);
        if self == Responder::Nnf {
            return Ok(vec![by_target?, by_id]);
        }
        // A target's name can be too long for the second form: then no answer has that form.
        Ok(std::iter::once(by_id).chain(by_target).collect())
    }

    /// How the responder notices a request.
    pub(crate) fn showing(self) -> Showing {
        match self {
            Responder::Script => Showing::Link,
            Responder::FenceWatcher | Responder::Nnf => Showing::Rename,
        }
    }
}

/// What the agent reports beside the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// Each step, on standard error.
    pub verbose: bool,
    /// Nothing at all on standard error.
    pub quiet: bool,
    /// Each step, appended to this file.
    pub debug_file: Option<PathBuf>,
}

/// A wrong value that does not change a fence: the default replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The parameter, or the variable of the environment.
    pub name: &'static str,
    /// What is wrong with it.
    pub why: String,
    /// The default that replaces it.
    pub default: &'static str,
    /// It was typed, or is a variable of the environment: the person who gave it reads standard
    /// error. A warning about an option of a configured fence device would be logged at each fence.
    pub is_by_hand: bool,
}

/// The name for people.
impl fmt::Display for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Responder::FenceWatcher => "fence-watcher",
            Responder::Script => "the responder",
            Responder::Nnf => "nnf-sos",
        })
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ignored { why, default, .. } = self;
        write!(f, "a value is ignored, and the default holds: {why}; the default is '{default}'")
    }
}

/// What the options mean; `environment` returns the value of a variable.
pub fn understand(
    input: &RawInput,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Invocation, InputError> {
    let options = Options::new(input, environment);
    let word = options.text("action");
    // With help=1 in a device's configuration, each fence would succeed at once otherwise.
    if input.is_typed || word.is_none() {
        if options.flag("help") {
            return Ok(Invocation::Help);
        }
        if options.flag("version") {
            return Ok(Invocation::Version);
        }
    }
    // `dlm_controld` sends no action and means a fence; with the fence-agents library that is a
    // reboot. Only `dlm_controld` sends `fail_time`: a forgotten action is not a reboot.
    let word = word
        .or_else(|| is_from_dlm(input).then(|| "reboot".to_owned()))
        .ok_or(InputError::NoAction)?;
    let strict = options;
    let options = strict.without_senseless();
    match word.to_ascii_lowercase().as_str() {
        "metadata" | "meta-data" => Ok(Invocation::Metadata),
        "manpage" => Ok(Invocation::Manpage),
        "validate-all" => {
            let valid = strict.validate_all().map(Invocation::ValidateAll);
            valid.map_err(|why| InputError::Invalid(Box::new(why)))
        }
        "monitor" => options.probe(ProbeKind::Monitor(options.as_for_a_fence()?)),
        "list" => options.probe(ProbeKind::List(options.fixed_target()?)),
        "list-status" => {
            let separator = options.text("separator").unwrap_or_default();
            options.probe(ProbeKind::ListStatus(options.fixed_target()?, separator))
        }
        "status" => options.probe(ProbeKind::Status(options.target("status")?)),
        other => match other.parse() {
            Ok(action) => options.fence(action, &word).map(Box::new).map(Invocation::Fence),
            Err(()) => Err(InputError::UnknownAction(word)),
        },
    }
}

fn is_from_dlm(input: &RawInput) -> bool {
    let is_given = |name: &&str| input.unknown.iter().any(|unknown| unknown == name);
    !input.is_typed && ["node", "fail_time"].iter().all(is_given)
}

#[cfg(test)]
mod tests;
