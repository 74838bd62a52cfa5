//! The state of a watcher: the answer to a `state` query, and the output of `status --json`.
//!
//! The daemon writes the state, and `fence-watcher status` reads it. A reader ignores unknown members: a
//! newer watcher may write more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) pid: u32,
    pub(crate) node: String,
    pub(crate) started: String,
    pub(crate) version: String,
    pub(crate) devices: Vec<Device>,
    pub(crate) running: Vec<Job>,
    /// Reboots that are answered, and whose targets are being brought back.
    #[serde(default)]
    pub(crate) returning: Vec<Job>,
    pub(crate) queued: Vec<Job>,
    /// How often each result was answered.
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) answers_waiting_for_disk: usize,
}

/// A fence device of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) r#type: String,
    /// Whether the last contact succeeded; `None` before the first contact.
    pub(crate) reachable: Option<bool>,
    pub(crate) reachable_since: Option<String>,
    pub(crate) running: u64,
    pub(crate) queued: u64,
    pub(crate) max_concurrent: usize,
    pub(crate) per_address: bool,
    /// The targets of the configuration, and those of the device's list.
    pub(crate) targets: String,
    pub(crate) last: Option<Last>,
}

/// The outcome of a device's last fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Last {
    pub(crate) time: String,
    #[serde(default)]
    pub(crate) request_id: String,
    pub(crate) target: String,
    pub(crate) action: String,
    pub(crate) result: String,
    pub(crate) message: String,
    /// Of a reboot: the outcome of the power-on after its answer; `None` before it is known.
    #[serde(default)]
    pub(crate) on_result: Option<String>,
}

/// A request that runs, waits, or is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) request_id: String,
    pub(crate) target: String,
    pub(crate) action: String,
    pub(crate) device: String,
    /// The address of the target, if each target has its own address.
    pub(crate) address: Option<String>,
    /// How long it has been running; only if it is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since_ms: Option<u64>,
    /// How long it may still wait; only if it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_in_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scripts read these names.
    #[test]
    fn the_members_have_the_names_that_status_prints() {
        let job = |id: &str| {
            json!({
                "request_id": id, "target": "n2", "action": "off", "device": "pdu", "address": null,
            })
        };
        let (mut running, mut queued) = (job("a"), job("b"));
        running["since_ms"] = 5.into();
        queued["deadline_in_ms"] = 7.into();
        queued["address"] = "10.0.0.1".into();
        let value = json!({
            "pid": 7, "node": "n1", "started": "2026-11-21T20:00:00.000Z", "version": "0.1.0",
            "devices": [{
                "name": "pdu", "type": "command", "reachable": true,
                "reachable_since": "2026-11-21T20:00:01.000Z", "running": 1, "queued": 1,
                "max_concurrent": 1, "per_address": false, "targets": "n[1-3]",
                "last": {
                    "time": "2026-11-21T20:01:00.000Z", "request_id": "c", "target": "n1",
                    "action": "off", "result": "success", "message": "n1 is off", "on_result": null,
                },
            }],
            "running": [running], "returning": [job("d")], "queued": [queued], "counts": {"success": 1},
            "answers_waiting_for_disk": 0,
        });

        let state: State = serde_json::from_value(value.clone()).unwrap();

        assert_eq!(state.queued[0].address.as_deref(), Some("10.0.0.1"));
        assert_eq!(serde_json::to_value(state).unwrap(), value);
    }
}
