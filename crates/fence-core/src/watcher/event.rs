//! What comes to the watcher, and what it wants done.

use std::collections::BTreeSet;

use fence_protocol::{Answer, NodeName, RecordName, Rejection, Request, RequestId};

use super::{Device, Job, OnResult, Settings};
use crate::execution::Verdict;

/// What the disk shows under the name of a pending request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// No such file.
    Gone,
    /// An answer to it exists already, under its own name or one that its client reads too.
    Answered,
    /// Of a claimed one: it is a reboot that was answered when its target was off. The target was to be
    /// brought back after that.
    OffAnswered(Box<Request>),
    /// It must not be read, for this reason.
    Untrusted(String),
    /// It was read.
    Content(Box<Content>),
}

/// What was read of a request's file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// The request, or what is wrong with it.
    pub parsed: Result<Request, Rejection>,
    /// The size in bytes and the time of the last change, milliseconds of the wall clock: they tell
    /// whether somebody is still writing.
    pub changed: (u64, i64),
}

/// What came of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// The request was gone: its client withdrew it.
    Gone,
    /// The disk refused, for this reason; the request is still pending.
    Failed(String),
    /// The request is ours.
    Claimed {
        /// What the claimed file says. It is read after the claim, when no client can change it.
        parsed: Result<Request, Rejection>,
        /// The client no longer holds its lock on the file.
        client_gone: bool,
        /// The request's identity was begun before, under another file name or by another watcher.
        begun_before: bool,
    },
}

/// What happens to the watcher.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// At the start, a claimed request lies there: the watcher before us ended while it had it.
    Recovered(RecordName, Sight),
    /// It looked at a pending request.
    Seen(RecordName, Sight),
    /// Of [`Effect::Claim`].
    Claim(RecordName, Claim),
    /// Of [`Effect::Execute`].
    Finished(RecordName, Verdict),
    /// Of [`Effect::Inquire`]: whether the device was reached, and what there is to say.
    Inquired(RecordName, bool, String),
    /// Of [`Effect::Answer`]: whether the answer is on the disk.
    Answered(RecordName, Result<(), String>),
    /// A device listed its targets, or did not: because of [`Effect::AskTargets`], or because somebody
    /// else wanted to know.
    Targets(String, Option<BTreeSet<NodeName>>),
    /// Of [`Effect::PowerOn`]: the device has taken or refused the order of this request. An order that
    /// it did not acknowledge may still be carried out: then this does not happen.
    OnOrdered(RequestId),
    /// Of [`Effect::PowerOn`]: whether the target is on.
    OnOver(RequestId, Verdict),
    /// At the start, the record of a target that was to be brought back: see
    /// [`Effect::KeepReturning`].
    LeftReturning(Request),
    /// Time has passed.
    Tick,
    /// The configuration is another one now. The claims before it have been reported.
    Reconfigured(Settings, Vec<Device>),
    /// The watcher is to end once what runs is over. Free lanes are served meanwhile, until this
    /// instant at most (milliseconds of `CLOCK_BOOTTIME`); without one, nothing more is begun.
    Stop(Option<u64>),
}

/// What the watcher wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Look at this pending request and report [`Event::Seen`].
    Look(RecordName),
    /// Take it out of its client's reach, durably if `sync`, and report [`Event::Claim`].
    Claim {
        /// The record.
        name: RecordName,
        /// The claim must survive a crash of the host, because no boot identity protects it.
        sync: bool,
    },
    /// Fence, and report [`Event::Finished`].
    Execute(RecordName, Job),
    /// Ask, without fencing, and report [`Event::Inquired`].
    Inquire(RecordName, Request),
    /// Ask this device for its targets and report [`Event::Targets`].
    AskTargets(String),
    /// Write the answer durably and report [`Event::Answered`]. Beside it stands the request, if anybody
    /// could read one: the audit needs it where the client is gone.
    Answer(RecordName, Answer, Option<Request>),
    /// Remove the claimed file, whose answer is on the disk.
    RemoveClaimed(RecordName),
    /// Keep the claimed file, whose answer is on the disk, as the record of this request's target, which
    /// is to be brought back.
    KeepReturning(RecordName, RequestId),
    /// Order the target back, once, and report [`Event::OnOrdered`], then [`Event::OnOver`].
    PowerOn(Job),
    /// Order the target of this request back no more, or ask the device no more whether it is on.
    EndPowerOn(RequestId),
    /// Note what became of the target of this request, which was made off by it.
    Returned(Request, OnResult),
    /// Remove the record of [`Effect::KeepReturning`], once what was noted last is certain to last.
    ForgetReturning(RequestId),
    /// Remove the pending file, whose answer is on the disk or not due.
    RemovePending(RecordName),
    /// Move the pending file to where people can look at it.
    SetAside(RecordName, String),
    /// Tell people.
    Note(RecordName, String),
}
