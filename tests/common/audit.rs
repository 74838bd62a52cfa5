//! The audit of a site.

use serde_json::{Value, json};

use super::{Site, wait_for};

impl Site {
    /// The events that the agents and the watcher wrote.
    pub fn audit(&self) -> Vec<Value> {
        let lines = self.lines("log/fence-events-detailed.jsonl");
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The audit's outcome of the power-on after the answer to the reboot `id`, if it is recorded:
    /// the result and the details.
    pub fn await_on_result(&self, id: &str) -> (String, String) {
        let mut found = None;
        wait_for("what became of the power-on", || {
            let is_it = |event: &Value| event["request_id"] == id && !event["on_result"].is_null();
            let mut events = self.audit().into_iter().filter(is_it);
            found = events.next();
            assert_eq!(events.next(), None, "each power-on has one end");
            found.is_some()
        });
        let event = found.unwrap();
        assert_eq!(
            (&event["action"], &event["pacemaker_action"]),
            (&json!("on"), &json!("reboot"))
        );
        let text = |member: &str| event[member].as_str().unwrap().to_owned();
        (text("on_result"), text("details"))
    }

    /// Waits for the outcome of the power-on of the request `id`, and checks that it is `result`.
    pub fn assert_on_result(&self, id: &str, result: &str) {
        let (on_result, details) = self.await_on_result(id);
        assert_eq!(on_result, result, "{details}");
    }

    /// The identity of the last request that an agent wrote.
    pub fn last_request(&self) -> String {
        let begun = self.audit().into_iter().rfind(|event| event["status"] == "requested");
        begun.unwrap()["request_id"].as_str().unwrap().to_owned()
    }
}
