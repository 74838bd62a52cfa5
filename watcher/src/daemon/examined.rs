//! A `check` query: what `fence-watcher check` would find, with the secrets and from the place of
//! the service. A person's shell has no credentials of a service.

use std::sync::{Mutex, TryLockError};

use fence_device::Limit;
use fence_protocol::{Query, QueryAnswer, QueryCode, RECORD_BYTES_MAX};
use serde_json::json;

use super::asker::ANSWER_RESERVE_MS;
use crate::devices::Devices;
use crate::probe::{self, Depth, Examined};

/// Held by the one question that asks all devices: each such question takes threads for all of
/// them.
static ALL: Mutex<()> = Mutex::new(());

/// The findings about the device that `query` names, or about all of this node.
pub(super) fn answer(devices: &Devices, query: &Query) -> QueryAnswer {
    let id = &query.query_id;
    let devices: Vec<_> = match devices.choose(query.device.as_deref()) {
        Ok(devices) => devices.into_iter().cloned().collect(),
        Err(why) => return QueryAnswer::new(id, QueryCode::WrongQuery, why),
    };
    let only_one = query.device.is_none().then(|| ALL.try_lock());
    if matches!(only_one, Some(Err(TryLockError::WouldBlock))) {
        return QueryAnswer::new(
            id,
            QueryCode::NotReached,
            "another check is under way: check again in a minute",
        );
    }
    let left_ms = Limit { not_after_boot_ms: query.deadline_boottime_ms }.left_ms();
    let limit = Limit::in_ms(left_ms - ANSWER_RESERVE_MS.min(left_ms / 4));
    // One that asks all devices comes from a reload, in the midst of whatever is fenced: it asks
    // each for its contact alone. Some devices have one session, and a fence needs it.
    let depth = if query.device.is_some() { Depth::Whole } else { Depth::Contact };
    let limit = limit.min(Limit::in_ms(probe::time_max_ms(&devices)));
    let findings = probe::examine(&devices, depth, limit);
    let examined = devices.iter().zip(findings).map(|(device, findings)| {
        let (name, settings) = (device.name.clone(), device.fingerprint.clone());
        json!(Examined { name, settings, findings })
    });
    let mut answer =
        QueryAnswer::new(id, QueryCode::Yes, format!("{} devices were asked", devices.len()));
    answer.state = Some(examined.collect());
    if answer.to_json().len() as u64 > RECORD_BYTES_MAX {
        return QueryAnswer::new(
            id,
            QueryCode::NotReached,
            "the findings are too long for an answer",
        );
    }
    answer
}
