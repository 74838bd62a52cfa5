//! The watcher's events and effects.

use std::collections::BTreeSet;

use fence_protocol::{Answer, NodeName, RecordName, Rejection, Request, RequestId};

use super::{Device, Job, OnResult, Settings};
use crate::execution::Verdict;

/// What the disk shows under the name of a pending request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// No such file.
    Gone,
    /// The request already has an answer, under its own name or another name that its client reads.
    Answered,
    /// For a claimed request: a reboot that was answered when its target was off, and whose
    /// power-on was due after the answer.
    OffAnswered(Box<Request>),
    /// The file must not be read, for this reason.
    Untrusted(String),
    /// The file was read.
    Content(Box<Content>),
}

/// What was read from a request's file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// The request, or what is wrong with the file.
    pub parsed: Result<Request, Rejection>,
    /// The size in bytes and the time of the last change, in milliseconds on the wall clock: they
    /// show whether a client is still writing.
    pub changed: (u64, i64),
}

/// The result of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// The request no longer existed: its client withdrew it.
    Gone,
    /// The disk refused the claim, for this reason; the request is still pending.
    Failed(String),
    /// The watcher has claimed the request.
    Claimed {
        /// The content of the claimed file. It is read after the claim, when no client can change
        /// it.
        parsed: Result<Request, Rejection>,
        /// The client no longer holds its lock on the file.
        client_gone: bool,
        /// A request with this identity was started before, under another file name or by another
        /// watcher.
        begun_before: bool,
    },
}

/// An event for the watcher.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// At the start, a claimed request was found: the previous watcher ended before it had finished
    /// it.
    Recovered(RecordName, Sight),
    /// The watcher looked at a pending request.
    Seen(RecordName, Sight),
    /// The result of [`Effect::Claim`].
    Claim(RecordName, Claim),
    /// The result of [`Effect::Execute`].
    Finished(RecordName, Verdict),
    /// The result of [`Effect::Inquire`]: whether the device was reached, and a message.
    Inquired(RecordName, bool, String),
    /// The result of [`Effect::Answer`]: whether the answer is on the disk.
    Answered(RecordName, Result<(), String>),
    /// A device returned its list of targets, or failed to: after [`Effect::AskTargets`], or after
    /// another query for the list.
    Targets(String, Option<BTreeSet<NodeName>>),
    /// During [`Effect::PowerOn`]: the device has accepted or refused the order of this request.
    /// This event is not sent for an order that the device did not acknowledge, because the device
    /// may still carry it out.
    OnOrdered(RequestId),
    /// The result of [`Effect::PowerOn`]: whether the target is on.
    OnOver(RequestId, Verdict),
    /// At the start, the record of a target whose power-on was due: see [`Effect::KeepReturning`].
    LeftReturning(Request),
    /// Time has passed.
    Tick,
    /// The watcher uses a new configuration. All earlier claims have been reported.
    Reconfigured(Settings, Vec<Device>),
    /// The watcher must stop after the running executions. Until this instant at most (milliseconds
    /// of `CLOCK_BOOTTIME`) it still serves free lanes; without an instant, it starts nothing more.
    Stop(Option<u64>),
}

/// What the watcher asks its shell to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Look at this pending request and report [`Event::Seen`].
    Look(RecordName),
    /// Claim the request, so that its client can no longer withdraw it, durably if `sync`, and
    /// report [`Event::Claim`].
    Claim {
        /// The record.
        name: RecordName,
        /// The claim must survive a crash of the host, because no boot identity protects it.
        sync: bool,
    },
    /// Fence, and report [`Event::Finished`].
    Execute(RecordName, Job),
    /// Ask the device without fencing, and report [`Event::Inquired`].
    Inquire(RecordName, Request),
    /// Ask this device for its targets and report [`Event::Targets`].
    AskTargets(String),
    /// Write the answer durably and report [`Event::Answered`]. The request is passed along if it
    /// could be read: the audit needs it if the client has ended.
    Answer(RecordName, Answer, Option<Request>),
    /// Remove the claimed file, whose answer is on the disk.
    RemoveClaimed(RecordName),
    /// Keep the claimed file, whose answer is on the disk, as the record that this request's target
    /// awaits its power-on.
    KeepReturning(RecordName, RequestId),
    /// Order the power-on of the target, once, and report [`Event::OnOrdered`], then
    /// [`Event::OnOver`].
    PowerOn(Job),
    /// Cancel the power-on of this request's target, or stop asking the device whether the target
    /// is on.
    EndPowerOn(RequestId),
    /// Record the outcome of the power-on of this request's target, which the request switched off.
    Returned(Request, OnResult),
    /// Remove the record of [`Effect::KeepReturning`], after the outcome is durable.
    ForgetReturning(RequestId),
    /// Remove the pending file, whose answer is on the disk or not due.
    RemovePending(RecordName),
    /// Move the pending file to a place where people can look at it.
    SetAside(RecordName, String),
    /// Log this message.
    Note(RecordName, String),
}
