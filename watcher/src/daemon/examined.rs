//! A `check` query: the findings of `fence-watcher check`, with the secrets and the environment of
//! the service. A person's shell does not have the credentials of the service.

use std::sync::{Mutex, TryLockError};

use fence_device::Limit;
use fence_protocol::{Query, QueryAnswer, QueryCode, RECORD_BYTES_MAX};
use serde_json::json;

use crate::asking::Limits;
use crate::devices::Devices;
use crate::findings::{self, Depth, Examined};

/// Held by the one query that asks all devices: each such query takes threads for all of them.
static ALL: Mutex<()> = Mutex::new(());

/// The findings about the device that `query` names, or about all of this node.
pub(super) fn answer(devices: &Devices, query: &Query) -> QueryAnswer {
    let id = &query.query_id;
    let refused = |code, why: &str| QueryAnswer::new(id, code, why);
    let devices = match devices.choose(query.device.as_deref()) {
        Ok(devices) => devices,
        Err(why) => return refused(QueryCode::WrongQuery, &why),
    };
    let only_one = query.device.is_none().then(|| ALL.try_lock());
    if matches!(only_one, Some(Err(TryLockError::WouldBlock))) {
        let why = "another check is under way: check again in a minute";
        return refused(QueryCode::NotReached, why);
    }
    // A query about all devices comes from a reload, while fences may be under way: it asks each
    // device for its contact alone. Some devices have one session, and a fence needs it.
    let depth = if query.device.is_some() { Depth::Whole } else { Depth::Contact };
    let limit = Limits::before(query.deadline_boottime_ms).all;
    let limit = limit.min(Limit::in_ms(findings::time_max_ms(&devices)));
    let findings = findings::examine(&devices, depth, limit);
    let examined = devices.iter().zip(findings).map(|(device, findings)| {
        let (name, settings) = (device.name.clone(), device.fingerprint());
        json!(Examined { name, settings, findings })
    });
    let mut answer =
        QueryAnswer::new(id, QueryCode::Yes, format!("{} devices were asked", devices.len()));
    answer.state = Some(examined.collect());
    if answer.to_json().len() as u64 > RECORD_BYTES_MAX {
        return refused(QueryCode::NotReached, "the findings are too long for an answer");
    }
    answer
}
