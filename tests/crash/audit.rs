//! What must hold after every crash, once a watcher has had the time to settle everything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What happened to the client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A client that wrote a request and ended.
    Foreign,
    /// An agent that ended with this exit code.
    Ended(i32),
    /// An agent that was killed.
    Killed,
    /// An agent that was killed, or gave up, before any watcher could claim its request.
    Unseen,
}

/// A client of a request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) target: String,
    /// The identity of the request; an agent generates its own. It is the only agent for its
    /// target.
    pub(crate) id: Option<String>,
    pub(crate) fate: Fate,
}

/// Everything that remains after a round.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    pub(crate) clients: Vec<Client>,
    /// `target request_id` of each execution.
    pub(crate) executions: Vec<(String, String)>,
    /// The same for each order that followed the answer to a reboot.
    pub(crate) power_ons: Vec<(String, String)>,
    /// The requests for which the audit has the outcome of the power-on, or a record that it is
    /// due.
    pub(crate) returns: BTreeSet<String>,
    /// Other executions that were running when an execution began, and should not have been.
    pub(crate) overlaps: Vec<String>,
    /// The answers, by file name.
    pub(crate) answers: BTreeMap<String, Value>,
}

impl Remains {
    /// Whether `client` made this request.
    fn is_of(&self, client: &Client, target: &str, id: &str) -> bool {
        client.target == target
            && match &client.id {
                Some(own) => own == id,
                None => self.clients.iter().all(|other| other.id.as_deref() != Some(id)),
            }
    }

    /// Whether `answer` names another request whose execution has dealt with it: a request for the
    /// same target, which was carried out and answered with success.
    fn is_settled(&self, answer: &Value) -> bool {
        let message = answer["message"].as_str().unwrap_or_default();
        let Some((_, rest)) = message.split_once("not fenced again: for request ") else {
            return false;
        };
        let other = rest.split(' ').next().unwrap_or_default();
        let target = answer["target_node"].as_str().unwrap_or_default();
        let is_success = |one: &Value| one["request_id"] == other && one["result"] == "success";
        self.executions.iter().any(|(of, id)| of == target && id == other)
            && self.answers.values().any(is_success)
    }

    fn is_known(&self, target: &str, id: &str) -> bool {
        self.clients.iter().any(|client| self.is_of(client, target, id))
    }
}

/// The problems; empty if there are none.
pub(crate) fn audit(remains: &Remains) -> Vec<String> {
    let mut findings = Vec::new();
    let text =
        |answer: &Value, member: &str| answer[member].as_str().unwrap_or_default().to_owned();
    let asked = |answer: &Value| (text(answer, "target_node"), text(answer, "request_id"));
    for client in &remains.clients {
        let executions = remains.executions.iter();
        let executions: Vec<&String> = executions
            .filter(|(target, id)| remains.is_of(client, target, id))
            .map(|(_, id)| id)
            .collect();
        let of_client = |answer: &Value| {
            let (target, id) = asked(answer);
            remains.is_of(client, &target, &id)
        };
        let answers: Vec<(&String, &Value)> =
            remains.answers.iter().filter(|(_, answer)| of_client(answer)).collect();
        let is_settled = answers.iter().any(|(_, answer)| remains.is_settled(answer));
        let of_one = of_one(client.fate, &executions, &answers, is_settled);
        findings.extend(of_one.into_iter().map(|problem| {
            format!("{client:?}: {problem}: executions {executions:?}, answers {answers:?}")
        }));
    }
    for (name, answer) in &remains.answers {
        let (target, id) = asked(answer);
        if !remains.is_known(&target, &id) {
            findings.push(format!("an answer that no client asked for, {name}: {answer}"));
        }
    }
    for (target, id) in &remains.executions {
        if !remains.is_known(target, id) {
            findings.push(format!("an execution that no client asked for: {target} {id}"));
        }
    }
    findings.extend(audit_power_ons(remains));
    findings.extend(remains.overlaps.iter().map(|noted| format!("S6: {noted}")));
    findings
}

/// A target comes back once, after its reboot was answered with success, and the outcome is
/// reported.
fn audit_power_ons(remains: &Remains) -> Vec<String> {
    let is_off = |answer: &Value| {
        answer["action"] == "reboot"
            && answer["result"] == "success"
            && answer["action_performed"] == "off"
    };
    let mut findings = Vec::new();
    for (at, (target, id)) in remains.power_ons.iter().enumerate() {
        if remains.power_ons[..at].iter().any(|(_, other)| other == id) {
            findings.push(format!("S2: {target} is powered on more than once by {id}"));
        }
        let of_id = |answer: &&Value| answer["request_id"] == id.as_str();
        if !remains.answers.values().any(|answer| of_id(&answer) && is_off(answer)) {
            findings.push(format!("{target} is powered on by {id}, which is not answered so"));
        }
    }
    for answer in remains.answers.values().filter(|answer| is_off(answer)) {
        let id = answer["request_id"].as_str().unwrap_or_default();
        if !remains.is_settled(answer) && !remains.returns.contains(id) {
            findings.push(format!("audit: nothing tells what became of the power-on of {answer}"));
        }
    }
    findings
}

fn of_one(
    fate: Fate,
    executions: &[&String],
    answers: &[(&String, &Value)],
    is_settled: bool,
) -> Vec<String> {
    let mut findings = Vec::new();
    let mut must = |holds: bool, problem: &str| {
        if !holds {
            findings.push(problem.to_owned());
        }
    };
    must(executions.len() <= 1, "S2: executed more than once");
    must(answers.len() <= 1, "S5: more than one answer");
    let Some((name, answer)) = answers.first() else {
        must(executions.is_empty(), "S5: executed without an answer");
        must(fate != Fate::Foreign, "S5: never answered");
        must(fate != Fate::Ended(0), "S3: success without an answer");
        return findings;
    };
    let id = answer["request_id"].as_str().unwrap_or_default();
    must(!id.is_empty() && name.contains(id), "the answer's name is not its request's");
    must(executions.iter().all(|executed| *executed == id), "the answer is for another request");
    let result = answer["result"].as_str().unwrap_or_default();
    must(
        answer["success"] == (result == "success"),
        "S3: the answer says success and failure at once",
    );
    match result {
        "success" if is_settled => must(executions.is_empty(), "S4: executed all the same"),
        "success" => must(executions.len() == 1, "S3: success without an execution"),
        "expired" | "withdrawn" | "rejected" => {
            must(executions.is_empty(), "S4: executed all the same");
        }
        // Cut off at some step by the death of the watcher, the executor or the program.
        "interrupted" | "unreachable" | "unacknowledged" | "device-failure" => {}
        _ => must(false, "an unknown result"),
    }
    match fate {
        Fate::Ended(0) => must(result == "success", "S3: the agent says success, the answer not"),
        Fate::Ended(_) => must(result != "success", "a success that the agent does not believe"),
        Fate::Unseen => must(
            executions.is_empty() && result != "success",
            "S4: executed although its agent was gone before",
        ),
        Fate::Foreign | Fate::Killed => {}
    }
    findings
}

/// The problems of a log; an agent that dies leaves complete lines or none.
pub(crate) fn audit_log(name: &str, text: &str) -> Option<String> {
    let whole = text.is_empty() || text.ends_with('\n');
    let as_json = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|v| v.is_object());
    let well_formed = !name.contains("detailed") || text.lines().all(as_json);
    (!whole || !well_formed).then(|| format!("a line of {name} is not whole: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn remains(fate: Fate, executions: usize, results: &[&str]) -> Remains {
        let answers = results.iter().enumerate().map(|(number, result)| {
            let success = *result == "success";
            let answer = json!({"target_node": "n1", "request_id": "i", "result": result, "success": success});
            (format!("i-{number}"), answer)
        });
        Remains {
            clients: vec![Client { target: "n1".to_owned(), id: None, fate }],
            executions: vec![("n1".to_owned(), "i".to_owned()); executions],
            answers: answers.collect(),
            ..Remains::default()
        }
    }

    /// Two clients for n1, the second of which was answered from the execution for `other`.
    fn settled_by(other: &str) -> Remains {
        let mut remains = remains(Fate::Foreign, 1, &["success"]);
        let id = Some("i".to_owned());
        remains.clients[0].id = id;
        let second = Client { target: "n1".into(), id: Some("s".into()), fate: Fate::Foreign };
        remains.clients.push(second);
        let message = format!("not fenced again: for request {other} the device showed off");
        let answer = json!({
            "target_node": "n1", "request_id": "s", "result": "success", "success": true,
            "message": message,
        });
        remains.answers.insert("s".to_owned(), answer);
        remains
    }

    #[test]
    fn whatever_contradicts_an_invariant_is_found() {
        for (fate, executions, results, found) in [
            (Fate::Foreign, 2, &["success"][..], "S2"),
            (Fate::Foreign, 1, &["success", "interrupted"], "S5: more than one answer"),
            (Fate::Foreign, 0, &[], "S5: never answered"),
            (Fate::Killed, 1, &[], "S5: executed without an answer"),
            (Fate::Ended(0), 0, &[], "S3: success without an answer"),
            (Fate::Ended(0), 0, &["success"], "S3: success without an execution"),
            (Fate::Ended(0), 1, &["interrupted"], "S3: the agent says success"),
            (Fate::Ended(1), 1, &["success"], "does not believe"),
            (Fate::Killed, 1, &["withdrawn"], "S4: executed all the same"),
            (Fate::Unseen, 1, &["interrupted"], "S4: executed although"),
            (Fate::Foreign, 0, &["fine"], "an unknown result"),
        ] {
            let findings = audit(&remains(fate, executions, results));
            assert!(findings.iter().any(|text| text.contains(found)), "{found}: {findings:?}");
        }
        let mut strange = remains(Fate::Foreign, 1, &["success"]);
        // Another client's request for the same target belongs to neither.
        strange.clients[0].id = Some("j".to_owned());
        assert_eq!(audit(&strange).len(), 3);
        // Settled by a request that was never executed, or by one for another target.
        for other in ["j", "i"] {
            let mut settled = settled_by(other);
            settled.executions = vec![("n2".to_owned(), other.to_owned())];
            settled.clients.push(Client { target: "n2".into(), id: None, fate: Fate::Killed });
            let findings = audit(&settled);
            assert!(
                findings.iter().any(|text| text.contains("S3: success without")),
                "{findings:?}"
            );
        }
        let mut overlapping = remains(Fate::Foreign, 1, &["success"]);
        overlapping.overlaps.push("n1".to_owned());
        assert_eq!(audit(&overlapping), ["S6: n1"]);
        assert!(audit_log("events.log", "half").is_some());
        assert!(audit_log("events-detailed", "{\"half\n").is_some());
    }

    #[test]
    fn a_power_on_that_is_lost_repeated_or_not_answered_is_found() {
        let reboot = |performed: &str| {
            let mut remains = remains(Fate::Foreign, 1, &["success"]);
            let answer = remains.answers.get_mut("i-0").unwrap();
            answer["action"] = json!("reboot");
            answer["action_performed"] = json!(performed);
            remains
        };
        let order = || ("n1".to_owned(), "i".to_owned());
        let (lost, mut told) = (reboot("off"), reboot("off"));
        assert!(audit(&lost)[0].contains("nothing tells"), "{:?}", audit(&lost));
        told.returns.insert("i".to_owned());
        assert_eq!(audit(&told), [""; 0]);
        told.power_ons = vec![order()];
        assert_eq!(audit(&told), [""; 0]);
        told.power_ons.push(order());
        assert!(audit(&told)[0].contains("more than once"), "{:?}", audit(&told));
        let mut cycle = reboot("reboot");
        assert_eq!(audit(&cycle), [""; 0]);
        cycle.power_ons.push(order());
        assert!(audit(&cycle)[0].contains("is not answered so"), "{:?}", audit(&cycle));
    }

    #[test]
    fn every_state_that_a_crash_may_leave_is_accepted() {
        for (fate, executions, results) in [
            (Fate::Foreign, 1, &["success"][..]),
            (Fate::Foreign, 1, &["interrupted"]),
            (Fate::Foreign, 0, &["interrupted"]),
            (Fate::Ended(0), 1, &["success"]),
            (Fate::Ended(1), 0, &[]),
            (Fate::Killed, 0, &["withdrawn"]),
            (Fate::Unseen, 0, &[]),
        ] {
            assert_eq!(audit(&remains(fate, executions, results)), [""; 0]);
        }
        assert_eq!(audit(&settled_by("i")), [""; 0]);
        assert_eq!(audit_log("events-detailed", "{}\n"), None);
    }
}
