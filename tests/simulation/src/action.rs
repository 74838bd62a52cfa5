//! How a world is made, what can happen in it, and which bugs can be put in.

use fence_protocol::FenceAction;

use crate::setup::Setup;

/// How a world is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// How many targets there are.
    pub targets: u8,
    /// The fence devices at first.
    pub setup: Setup,
    /// How many executions each device allows at the same time, or each address of it.
    pub max_concurrent: usize,
    /// Every second agent names the shared device.
    pub is_named: bool,
    /// The spool lies in memory: a crash of the host loses it.
    pub in_memory: bool,
    /// How many watcher processes there can be. With the lock only one of them lives at a time.
    pub watchers: usize,
    /// The watchers respect the lock that keeps them apart. Without it only S1 to S4 can hold.
    pub lock: bool,
    /// A small world has reboots.
    pub has_reboots: bool,
    /// Keeps a small world small: pauses between two looks at the power take no time, older clients are
    /// whole ones, and a look at the directory is a look at each file.
    pub is_small: bool,
    /// How long an agent waits, in milliseconds.
    pub patience_ms: u64,
    /// What may go wrong, and how often.
    pub budget: Budget,
    /// A bug that is put in, to show that it is found.
    pub mutation: Option<Mutation>,
}

/// How often each thing may still happen.
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
    /// Times that the disk gets full.
    pub full_disks: u8,
    /// Steps of the wall clock.
    pub clock_steps: u8,
    /// Requests of older clients, and files that are none.
    pub foreign_requests: u8,
    /// Answers by others, most of them wrong.
    pub foreign_answers: u8,
    /// Odd behaviour of the device.
    pub device_faults: u8,
    /// Changes of the configuration.
    pub reloads: u8,
    /// Spans of time that pass for no reason.
    pub idle_spans: u8,
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The action is started, and the request claimed afterwards.
    ClaimAfterStart,
    /// Nobody looks at the clock before an action.
    NoDeadlineCheck,
    /// An order that was acknowledged counts as done.
    AnswerBeforeConfirmation,
    /// The claimed file is removed before its answer is written.
    DeleteBeforeAnswer,
    /// What was under way at a crash is done again.
    RetryAfterCrash,
    /// A request is executed although its client is gone.
    ClientNotChecked,
    /// An order is given without a look for its client.
    OrderForNobody,
    /// What a device says of anything counts as "off".
    RemarkCountsAsOff,
    /// An execution does not say when its target was off: what waits is executed all the same.
    SecondFenceForOneDeath,
    /// What was off before a request was seen settles it.
    FenceBeforeDeathCounts,
    /// One machine is acted on under two names at a time.
    OtherNamesForgotten,
    /// A watcher that was told to stop goes on beginning requests.
    StopForgotten,
    /// A watcher that was told to stop serves no free device while it waits.
    StopServesNobody,
    /// What waits is not routed anew by a new configuration.
    ReloadForgotten,
    /// A plug or an address that a new configuration gives to a target is not looked at.
    MovedPlugForgotten,
    /// An identity that was begun is forgotten when its file's name does not show it.
    IdentityForgotten,
    /// A device is given as much at the same time as there is to do.
    DeviceLimitForgotten,
    /// A watcher takes no notice of the one that runs.
    WatcherLockIgnored,
    /// What became of the power-on of a reboot is in no log.
    OnForgottenWhenAnswered,
    /// A fence begins while the order that brings its target back is on its way.
    FenceBesideItsOn,
}

/// One thing that can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An agent is started: its target and its action.
    NewAgent(u8, FenceAction),
    /// An agent does its next step.
    AgentStep(usize),
    /// An agent gets SIGTERM.
    SignalAgent(usize),
    /// An agent gets SIGKILL.
    KillAgent(usize),
    /// A watcher process starts.
    StartWatcher(usize),
    /// A watcher does its next step.
    WatcherStep(usize),
    /// A watcher hears of a file through inotify.
    Hear(usize, String),
    /// A watcher looks through the directory.
    Rescan(usize),
    /// A timer of a watcher goes off.
    Tick(usize),
    /// A watcher takes over a new configuration.
    Reload(usize, Setup),
    /// A watcher gets SIGTERM.
    StopWatcher(usize),
    /// A watcher gets SIGKILL; its children die with it.
    KillWatcher(usize),
    /// The device does something about an execution.
    Device(usize, String, Reaction),
    /// A device that was asked for its targets lists all of them, or fails to.
    List(usize, bool),
    /// The device does something about the power-on of a reboot, which is named by its request.
    PowerOn(usize, String, Reaction),
    /// A watcher learns that an execution or a power-on is over, or that a power-on was ordered.
    Told(usize),
    /// The host crashes and boots; the bits tell what of the unsynced is left.
    CrashHost(u64),
    /// The disk becomes full, or writable again.
    FillDisk(bool),
    /// The wall clock is set, by so many milliseconds.
    StepClock(i64),
    /// Time passes.
    Advance(u64),
    /// An older client writes a file: its kind, its target.
    ForeignRequest(u8, u8),
    /// It goes on writing a file that it began.
    ForeignCompletes(String),
    /// A watcher of another make takes a pending request by a rename, fences, and answers in place.
    ForeignTakes(String),
    /// Somebody else writes an answer to an agent: its kind.
    ForeignAnswer(usize, u8),
}

/// What the device does about an order or a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// It does what it is told and says so; it shows what is so.
    Honest,
    /// It says yes and does nothing.
    Lies,
    /// It does it and says nothing.
    SilentlyDoes,
    /// It cannot be reached.
    Unreachable,
    /// It hangs until the limit and does it then.
    Hangs,
    /// It does not show the state.
    Mute,
}
