//! What the options mean: one [`Invocation`] with just what its action needs.
//!
//! Every refusal of input is below here, before anything is opened or written. The parameter names that
//! hold the word "timeout" stand in no refusal: Pacemaker reads that word as an expired time.
//!
//! - `options` gives each option its value, and makes the settings of a fence and of a question.
//! - `refusal` says why options are refused.
//! - `values` says which values fit a parameter.

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
    Fence(Box<FenceSettings>),
}

/// A question, and whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub question: ProbeKind,
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
    /// The values that are ignored.
    pub ignored: Vec<Ignored>,
    /// Where the names of the cluster's nodes are read.
    pub cluster: Search,
    /// What to tell on the way.
    pub telling: Telling,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Would fencing work at this moment? Of this target, where the device has a fixed one.
    Monitor(Option<NodeName>),
    /// Is the target on or off?
    Status(NodeName),
    /// Which nodes can be fenced? Only whether this one can, where a device has a fixed plug.
    List(Option<NodeName>),
    /// The same, with their power states, in columns separated by this text.
    ListStatus(Option<NodeName>, String),
}

/// What one fence is to do, and how: the options of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceSettings {
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
    /// The values that are ignored.
    pub ignored: Vec<Ignored>,
    /// The options come from a command line, and not from a cluster manager.
    pub is_by_hand: bool,
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

    /// The name of the request's file, and the others under which its answer may be found.
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
        // A target whose name is too long for the second form has no answer of that form.
        Ok(std::iter::once(by_id).chain(by_target).collect())
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
}

/// A value that makes no sense and changes nothing of a fence: the default holds in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// What is wrong with it.
    pub why: String,
    /// The default, which holds.
    pub default: &'static str,
    /// It was typed, or is a variable of the environment: whoever gave it reads standard error. A
    /// warning about an option of a configured fence device would be logged at each fence.
    pub is_by_hand: bool,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ignored { why, default, .. } = self;
        write!(f, "a value is ignored, and the default holds: {why}; the default is '{default}'")
    }
}

/// Understands the options; `environment` gives the value of a variable.
pub fn understand(
    input: &RawInput,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Invocation, InputError> {
    let options = Options::new(input, environment);
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
    let word = word.or_else(|| dlm_action(input)).ok_or(InputError::NoAction)?;
    let strict = options;
    let options = strict.without_senseless();
    match word.to_ascii_lowercase().as_str() {
        "metadata" | "meta-data" => Ok(Invocation::Metadata),
        "manpage" => Ok(Invocation::Manpage),
        "validate-all" => {
            let time_max =
                strict.validate_all().map_err(|why| InputError::Invalid(Box::new(why)))?;
            Ok(Invocation::ValidateAll(time_max))
        }
        "monitor" => {
            let target = options.as_for_a_fence()?;
            options.probe(ProbeKind::Monitor(target))
        }
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

/// What `dlm_controld` means, which sends no action: a fence, and with the agents of the fence-agents
/// library that is a reboot. Nobody else sends `fail_time`, so an action that was forgotten is none.
fn dlm_action(input: &RawInput) -> Option<String> {
    is_from_dlm(input).then(|| "reboot".to_owned())
}

fn is_from_dlm(input: &RawInput) -> bool {
    let is_given = |name: &&str| input.unknown.iter().any(|unknown| unknown == name);
    !input.is_typed && ["node", "fail_time"].iter().all(is_given)
}

#[cfg(test)]
mod tests;
