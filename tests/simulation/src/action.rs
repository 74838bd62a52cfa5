//! How a world is created, what can happen in it, and which bugs can be injected.

use fence_protocol::FenceAction;

use crate::setup::Setup;

/// The parameters of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The number of targets.
    pub targets: u8,
    /// The fence devices at the start.
    pub setup: Setup,
    /// How many executions each device, or each address of it, allows at the same time.
    pub max_concurrent: usize,
    /// Every second agent names the shared device.
    pub is_named: bool,
    /// The spool is in memory: a crash of the host loses it.
    pub in_memory: bool,
    /// The maximum number of watcher processes. With the lock, only one of them lives at a time.
    pub watchers: usize,
    /// The watchers respect the lock that allows only one of them. Without the lock, only S1 to S4
    /// can hold.
    pub lock: bool,
    /// A small world has reboots.
    pub has_reboots: bool,
    /// Keeps a small world small: pauses between two questions for the power state take no time,
    /// older clients write whole files, and a look at the directory is a look at each file.
    pub is_small: bool,
    /// How long an agent waits, in milliseconds.
    pub patience_ms: u64,
    /// What may go wrong, and how often.
    pub budget: Budget,
    /// An injected bug, which the checks must find.
    pub mutation: Option<Mutation>,
}

/// How often each event may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// New agents.
    pub agents: u8,
    /// SIGKILL to an agent.
    pub agent_kills: u8,
    /// SIGTERM to an agent.
    pub signals: u8,
    /// SIGKILL to a watcher.
    pub watcher_kills: u8,
    /// SIGTERM to a watcher.
    pub watcher_stops: u8,
    /// Crashes of the host.
    pub host_crashes: u8,
    /// Times that the disk becomes full.
    pub full_disks: u8,
    /// Steps of the wall clock.
    pub clock_steps: u8,
    /// Requests of older clients, and files that are not requests.
    pub foreign_requests: u8,
    /// Answers by others, most of them wrong.
    pub foreign_answers: u8,
    /// Odd behaviour of the device.
    pub device_faults: u8,
    /// Changes of the configuration.
    pub reloads: u8,
    /// Spans of time that pass without a reason.
    pub idle_spans: u8,
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The action is started, and the request claimed afterwards.
    ClaimAfterStart,
    /// The clock is not checked before an action.
    NoDeadlineCheck,
    /// An order that was acknowledged counts as done.
    AnswerBeforeConfirmation,
    /// The claimed file is removed before its answer is written.
    DeleteBeforeAnswer,
    /// An execution that was under way at a crash is repeated.
    RetryAfterCrash,
    /// A request is executed although its client has ended.
    ClientNotChecked,
    /// An order is given without a look for its client.
    OrderForNobody,
    /// Every state that a device shows counts as "off".
    RemarkCountsAsOff,
    /// An execution does not report when its target was off: waiting requests are executed anyway.
    SecondFenceForOneDeath,
    /// An off before a request was seen settles the request.
    FenceBeforeDeathCounts,
    /// Two executions act on one machine, under two names, at the same time.
    OtherNamesForgotten,
    /// A watcher that was asked to stop continues to start requests.
    StopForgotten,
    /// A watcher that was asked to stop serves no free device while it waits.
    StopServesNobody,
    /// Waiting requests keep their route after a new configuration.
    ReloadForgotten,
    /// A changed plug or address of a target in a new configuration is ignored.
    MovedPlugForgotten,
    /// A started identity is forgotten if the file's name does not show it.
    IdentityForgotten,
    /// The limit of concurrent executions of a device is ignored.
    DeviceLimitForgotten,
    /// A watcher ignores another watcher that runs.
    WatcherLockIgnored,
    /// The outcome of the power-on of a reboot is in no log.
    OnForgottenWhenAnswered,
    /// A fence starts while the power-on of its target is on its way.
    FenceBesideItsOn,
}

/// An event that can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An agent starts, with its target and its action.
    NewAgent(u8, FenceAction),
    /// An agent takes its next step.
    AgentStep(usize),
    /// An agent receives SIGTERM.
    SignalAgent(usize),
    /// An agent receives SIGKILL.
    KillAgent(usize),
    /// A watcher process starts.
    StartWatcher(usize),
    /// A watcher takes its next step.
    WatcherStep(usize),
    /// Inotify reports a file to a watcher.
    Hear(usize, String),
    /// A watcher looks through the directory.
    Rescan(usize),
    /// A timer of a watcher expires.
    Tick(usize),
    /// A watcher takes over a new configuration.
    Reload(usize, Setup),
    /// A watcher receives SIGTERM.
    StopWatcher(usize),
    /// A watcher receives SIGKILL; its children die with it.
    KillWatcher(usize),
    /// The device reacts to an execution.
    Device(usize, String, Reaction),
    /// A device that was asked for its targets lists all of them, or fails.
    List(usize, bool),
    /// The device reacts to the power-on of the reboot with this request.
    PowerOn(usize, String, Reaction),
    /// A watcher receives the report that an execution or a power-on has ended, or that a power-on
    /// was ordered.
    Told(usize),
    /// The host crashes and boots; the bits say which unsynced changes survive.
    CrashHost(u64),
    /// The disk becomes full, or writable again.
    FillDisk(bool),
    /// The wall clock is changed by this many milliseconds.
    StepClock(i64),
    /// Time passes.
    Advance(u64),
    /// An older client writes a file: its kind, its target.
    ForeignRequest(u8, u8),
    /// An older client continues a file that it began.
    ForeignCompletes(String),
    /// Another implementation of a watcher takes a pending request by a rename, fences, and answers
    /// in place.
    ForeignTakes(String),
    /// Another process writes an answer to an agent: its kind.
    ForeignAnswer(usize, u8),
}

/// How the device reacts to an order or a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// It obeys and acknowledges; it shows the true state.
    Honest,
    /// It acknowledges and does nothing.
    Lies,
    /// It obeys and does not acknowledge.
    SilentlyDoes,
    /// It cannot be reached.
    Unreachable,
    /// It hangs until the limit and obeys then.
    Hangs,
    /// It does not show the state.
    Mute,
}
