//! What must hold after whatever crashes, once a watcher has had the time to settle everything.

use std::collections::BTreeMap;

use serde_json::Value;

/// How the client of a request fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A client that wrote a request and went away.
    Foreign,
    /// An agent that ended with this exit code.
    Ended(i32),
    /// An agent that was killed.
    Killed,
    /// An agent that was killed, or gave up, before any watcher could claim anything.
    Unseen,
}

/// All that is left of a round. Each request has a target of its own, by which it is known.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// The targets of the requests.
    pub(crate) clients: BTreeMap<String, Fate>,
    /// `target request_id` of each execution.
    pub(crate) executions: Vec<(String, String)>,
    /// The answers, by file name.
    pub(crate) answers: BTreeMap<String, Value>,
}

/// What is wrong; empty when all is well.
pub(crate) fn audit(remains: &Remains) -> Vec<String> {
    let mut findings = Vec::new();
    for (target, fate) in &remains.clients {
        let executions: Vec<&String> =
            remains.executions.iter().filter(|(of, _)| of == target).map(|(_, id)| id).collect();
        let answers: Vec<(&String, &Value)> = remains
            .answers
            .iter()
            .filter(|(_, answer)| answer["target_node"] == **target)
            .collect();
        let of_one = of_one(*fate, &executions, &answers);
        findings.extend(of_one.into_iter().map(|problem| {
            format!("{target}, {fate:?}: {problem}: executions {executions:?}, answers {answers:?}")
        }));
    }
    let known = |target: &Value| target.as_str().is_some_and(|t| remains.clients.contains_key(t));
    for (name, answer) in &remains.answers {
        if !known(&answer["target_node"]) {
            findings.push(format!("an answer that nobody asked for, {name}: {answer}"));
        }
    }
    for (target, id) in &remains.executions {
        if !remains.clients.contains_key(target) {
            findings.push(format!("an execution that nobody asked for: {target} {id}"));
        }
    }
    findings
}

fn of_one(fate: Fate, executions: &[&String], answers: &[(&String, &Value)]) -> Vec<String> {
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
        "success" => must(executions.len() == 1, "S3: success without an execution"),
        "expired" | "withdrawn" | "rejected" => {
            must(executions.is_empty(), "S4: executed all the same");
        }
        // Cut off at some step, by the death of the watcher, of the executor or of the program.
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

/// What is wrong with a log; an agent that dies leaves whole lines or none.
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
            clients: [("n1".to_owned(), fate)].into(),
            executions: vec![("n1".to_owned(), "i".to_owned()); executions],
            answers: answers.collect(),
        }
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
        strange.clients.clear();
        assert_eq!(audit(&strange).len(), 2);
        assert!(audit_log("events.log", "half").is_some());
        assert!(audit_log("events-detailed", "{\"half\n").is_some());
    }

    #[test]
    fn what_crashes_may_leave_is_accepted() {
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
        assert_eq!(audit_log("events-detailed", "{}\n"), None);
    }
}
