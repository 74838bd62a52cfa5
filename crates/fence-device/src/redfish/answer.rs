//! What the body of an answer says beyond its status: errors, refusals that pass, tasks. Nothing
//! here is I/O.
//!
//! A status of success is half of an answer. Services put errors into the body of a 200, and 202
//! says that a task was made, which may have failed by then. Some also wrap a success into an
//! `error`. So the messages decide: one that is neither `Success` nor of the severity `OK` makes
//! the answer a refusal. A resource may carry remarks. One that is critical, or says that the
//! service is not ready, makes what the resource shows doubtful.

use std::borrow::Cow;

use serde_json::Value;

use super::path::ResourcePath;
use crate::quoted;

/// A task, as far as its outcome concerns an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// It has failed, with these words.
    Failed(String),
    /// It is not at its end.
    Running,
    /// It is done.
    Done,
}

/// The text of a body. What is no UTF-8 is replaced: it cannot become a word that counts.
pub(super) fn text_of(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body))
}

/// What the service says of an error, as a quotation.
pub fn error_words(body: &[u8]) -> Option<String> {
    let body = parse(body)?;
    let of_messages = |holder: &Value| words_of(&messages(holder));
    match body.get("error").filter(|error| error.is_object()) {
        Some(error) => of_messages(error).or_else(|| Some(quoted(&text(error, "message")?))),
        None => of_messages(&body),
    }
}

/// Why an answer whose status is a success is none, by its body.
pub fn refusal(body: &[u8]) -> Option<String> {
    if text_of(body).trim().is_empty() {
        return None;
    }
    let Some(parsed) = parse(body) else {
        return Some("the answer is no JSON".to_owned());
    };
    let words = || error_words(body).unwrap_or_else(|| "the answer holds an error".to_owned());
    if let Some(error) = parsed.get("error").filter(|error| !error.is_null()) {
        let mut messages = messages(error);
        messages.retain(|message| !is_empty(message));
        let is_benign = if messages.is_empty() {
            text(error, "code").is_some_and(|code| is_success_id(&code))
        } else {
            messages.iter().all(|message| is_benign(message))
        };
        return (!is_benign).then(words);
    }
    // Beside the members of a resource, messages may be remarks; one that says so is an error.
    let messages = messages(&parsed);
    let is_bad = messages.iter().any(|message| !is_benign(message));
    is_bad.then(words)
}

/// Why the power that a resource shows is doubtful, by the messages beside it: one is critical, or
/// says that the service is not ready. A critical message about other properties alone, such as a
/// broken fan, is no doubt.
pub(super) fn doubt(beside: &[Option<&Value>]) -> Option<String> {
    let is_critical = |message: &Value| {
        let is_of_others =
            message.get("RelatedProperties").and_then(Value::as_array).is_some_and(|related| {
                let is_power =
                    |property: &Value| property.as_str().is_some_and(|p| p.contains("PowerState"));
                !related.is_empty() && !related.iter().any(is_power)
            });
        !is_of_others
            && severity(message).is_some_and(|severity| severity.eq_ignore_ascii_case("Critical"))
    };
    let mut messages: Vec<&Value> = beside.iter().flat_map(|holder| listed(*holder)).collect();
    messages.retain(|message| is_critical(message) || is_not_ready(message, MESSAGE));
    let words = || words_of(&messages).unwrap_or_else(|| "it has no words".to_owned());
    (!messages.is_empty()).then(words)
}

/// Whether the `error` of an answer says nothing at all: `{}`, `""`, or members that say nothing.
pub(super) fn is_empty(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(members) => members.values().all(is_empty),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Whether the service says that it refuses for a while: it is starting, or has too much to do.
pub fn is_passing(status: u16, body: &[u8]) -> bool {
    match status {
        429 | 500 | 502 | 503 | 504 => true,
        200..=299 => !is_resource(body) && says_not_ready(body),
        _ => says_not_ready(body),
    }
}

/// Whether the body shows a resource, whatever it remarks on it.
fn is_resource(body: &[u8]) -> bool {
    let shows =
        |body: Value| body.get("@odata.id").is_some() && body.get("error").is_none_or(is_empty);
    parse(body).is_some_and(shows)
}

/// Whether the body says that the service is not ready, whatever the status.
pub(super) fn says_not_ready(body: &[u8]) -> bool {
    let Some(body) = parse(body) else { return false };
    let error = body.get("error");
    error.is_some_and(|error| is_not_ready(error, ("code", "message")))
        || [error, Some(&body)]
            .into_iter()
            .flatten()
            .flat_map(messages)
            .any(|message| is_not_ready(message, MESSAGE))
}

/// Whether an error or a message says that, in the members of these names: its identity and its
/// words.
fn is_not_ready(holder: &Value, (id, words): (&str, &str)) -> bool {
    let words = text(holder, words).unwrap_or_default().to_lowercase();
    text(holder, id).is_some_and(|id| is_not_ready_id(&id))
        || NOT_READY_WORDS.iter().any(|known| words.contains(known))
}

/// The task that a body describes, if it describes one.
pub fn parse_task(body: &[u8]) -> Option<Task> {
    let body = parse(body)?;
    let state = text(&body, "TaskState").or_else(|| text(&body, "JobState"));
    let status = text(&body, "TaskStatus");
    if state.is_none() && status.is_none() {
        return None;
    }
    let state = state.unwrap_or_default();
    let has_failed = FAILED_STATES.iter().any(|known| state.eq_ignore_ascii_case(known))
        || status.as_deref().is_some_and(|status| status.eq_ignore_ascii_case("Critical"));
    if has_failed {
        let status = status.map_or(String::new(), |status| format!(", {status}"));
        let words = words_of(&task_messages(&body));
        let words = words.map_or(String::new(), |words| format!(": {words}"));
        return Some(Task::Failed(format!(
            "its task has failed ({}){words}",
            quoted(&format!("{state}{status}"))
        )));
    }
    let is_done =
        ["Completed", "CompletedOK"].iter().any(|known| state.eq_ignore_ascii_case(known));
    Some(if is_done { Task::Done } else { Task::Running })
}

/// Where the task of a body is asked, if the body describes one.
pub fn task_place(body: &[u8]) -> Option<ResourcePath> {
    let body = parse(body)?;
    let kind = text(&body, "@odata.type").unwrap_or_default();
    let is_task = kind.starts_with("#Task.")
        || kind.starts_with("#TaskMonitor")
        || body.get("TaskState").is_some();
    let place = text(&body, "@odata.id").filter(|_| is_task);
    let place = place.or_else(|| text(&body, "TaskMonitor"));
    place.as_deref().and_then(ResourcePath::of_url)
}

fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_str(&text_of(body)).ok()
}

fn text(holder: &Value, member: &str) -> Option<String> {
    Some(holder.get(member)?.as_str()?.to_owned())
}

/// The messages of an error or a resource. Some services give one without a list around it.
fn messages(holder: &Value) -> Vec<&Value> {
    listed(holder.get("@Message.ExtendedInfo"))
}

fn task_messages(task: &Value) -> Vec<&Value> {
    listed(task.get("Messages"))
}

fn listed(value: Option<&Value>) -> Vec<&Value> {
    match value {
        Some(Value::Array(list)) => list.iter().collect(),
        Some(one @ Value::Object(_)) => vec![one],
        _ => Vec::new(),
    }
}

/// The words of messages, as a quotation; the names of those that have no words, where none has.
fn words_of(messages: &[&Value]) -> Option<String> {
    let of =
        |member: &'static str| messages.iter().filter_map(move |message| text(message, member));
    let mut words: Vec<String> = of("Message").collect();
    if words.is_empty() {
        words.extend(of("MessageId"));
    }
    (!words.is_empty()).then(|| quoted(&words.join(" ")))
}

fn is_benign(message: &Value) -> bool {
    let id = text(message, "MessageId").unwrap_or_default();
    let is_calm = |severity: String| {
        ["OK", "Informational"].iter().any(|known| severity.eq_ignore_ascii_case(known))
    };
    let is_success = is_success_id(&id);
    match severity(message) {
        // iDRAC says of its not being ready that it is informational.
        Some(severity) => (is_success || is_calm(severity)) && !is_not_ready_id(&id),
        None => is_success || message.as_object().is_some_and(serde_json::Map::is_empty),
    }
}

fn severity(message: &Value) -> Option<String> {
    text(message, "MessageSeverity").or_else(|| text(message, "Severity"))
}

fn is_success_id(id: &str) -> bool {
    SUCCESS_IDS.iter().any(|known| last_part(id).eq_ignore_ascii_case(known))
}

fn is_not_ready_id(id: &str) -> bool {
    NOT_READY_IDS.iter().any(|known| last_part(id).eq_ignore_ascii_case(known))
}

/// The name of a message without its registry and the version of that: `Base.1.8.Success`.
fn last_part(id: &str) -> &str {
    id.rsplit('.').next().unwrap_or(id)
}

/// The members of a message: its identity and its words.
const MESSAGE: (&str, &str) = ("MessageId", "Message");

/// Messages of the standard registries that say yes.
const SUCCESS_IDS: [&str; 3] = ["Success", "Created", "TaskStarted"];

/// Messages that a service gives until it is ready: those of the standard, and those of iDRAC after
/// its own restart or its host's. Then those of a service that has no room now: for a session,
/// above all.
const NOT_READY_IDS: [&str; 11] = [
    "ServiceTemporarilyUnavailable",
    "ServiceInUnknownState",
    "ServiceShuttingDown",
    "SYS518",
    "SWC0700",
    "RAC0508",
    "LC068",
    "SessionLimitExceeded",
    "CreateLimitReachedForResource",
    "ResourceExhaustion",
    "RAC0218",
];

/// What other messages say of that.
const NOT_READY_WORDS: [&str; 6] = [
    "not ready",
    "temporarily unavailable",
    "currently unable",
    "simultaneous sessions",
    "maximum number of user sessions",
    "maximum number of sessions",
];

/// The states in which a task has ended without success.
const FAILED_STATES: [&str; 6] =
    ["Exception", "Killed", "Cancelled", "Cancelling", "Failed", "CompletedWithErrors"];

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secrets;

    #[test]
    fn an_error_is_told_in_the_services_words() {
        let words =
            |text: &str| error_words(text.as_bytes()).map(|words| Secrets::default().shown(&words));
        assert_eq!(
            words(
                r#"{"error": {"message": "See below", "@Message.ExtendedInfo": [
                {"Message": "The power is off."}, {"MessageId": "Base.1.0"}, {"Message": "So?"}]}}"#
            )
            .unwrap(),
            "The power is off. So?"
        );
        let general = r#"{"error": {"message": "Bad", "@Message.ExtendedInfo": [{}]}}"#;
        assert_eq!(words(general).unwrap(), "Bad");
        let name = r#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "iLO.2.14.Bad"}]}}"#;
        assert_eq!(words(name).unwrap(), "iLO.2.14.Bad");
        for text in ["", "<html>", "{}", r#"{"error": {}}"#, r#"{"error": {"message": 7}}"#] {
            assert_eq!(words(text), None, "{text}");
        }
    }

    #[test]
    fn a_success_that_carries_an_error_is_none() {
        let info =
            |messages: &str| format!(r#"{{"error": {{"@Message.ExtendedInfo": {messages}}}}}"#);
        for text in [
            String::new(),
            " \r\n".into(),
            "{}".into(),
            "null".into(),
            r#"{"error": null}"#.into(),
            // As iLO and Supermicro say yes.
            info(r#"[{"MessageId": "Base.1.4.Success"}]"#),
            info(r#"[{"MessageId": "iLO.2.14.Noted", "Severity": "OK"}]"#),
            r#"{"error": {"code": "Base.1.4.Success", "message": "Done"}}"#.into(),
            r#"{"Success": {"code": "Base.v1_4_0.Success"}}"#.into(),
            r#"{"@Message.ExtendedInfo": [{"MessageId": "Base.1.8.Success", "Severity": "OK"}]}"#
                .into(),
            r#"{"@odata.id": "/T/1", "TaskState": "New"}"#.into(),
        ] {
            assert_eq!(refusal(text.as_bytes()), None, "{text}");
        }
        for (text, words) in [
            (info(r#"[{"MessageId": "Base.1.4.GeneralError", "Message": "No."}]"#), "No."),
            (info(r#"[{"MessageId": "Base.1.8.Success"}, {"MessageId": "X.Bad"}]"#), "X.Bad"),
            (info(r#"[{"MessageId": "X.Y", "MessageSeverity": "Warning"}]"#), "X.Y"),
            (info(r#"{"MessageId": "X.Y", "Severity": "Critical"}"#), "X.Y"),
            (info(r#"[{"MessageId": "Base.1.8.NoOperation"}]"#), "NoOperation"),
            (info(r#"[{"MessageId": "IDRAC.2.8.SYS518", "Severity": "Informational"}]"#), "SYS518"),
            (r#"{"error": {"code": "Base.1.0.GeneralError", "message": "Oh"}}"#.into(), "Oh"),
            (r#"{"error": "no"}"#.into(), "holds an error"),
            (r#"{"error": {}}"#.into(), "holds an error"),
            (r#"{"@Message.ExtendedInfo": [{"MessageId": "A.B", "Message": "N"}]}"#.into(), "N"),
            ("<html>Log in!</html>".into(), "no JSON"),
        ] {
            let found = refusal(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert!(found.contains(words), "{text}: {found}");
        }
    }

    #[test]
    fn a_task_fails_by_its_state_or_its_status() {
        let task = |text: &str| parse_task(text.as_bytes());
        for (text, words) in [
            (r#"{"TaskState": "Exception"}"#, "(Exception)"),
            (r#"{"TaskState": "Killed", "TaskStatus": "Warning"}"#, "(Killed, Warning)"),
            (r#"{"TaskState": "Cancelled"}"#, "Cancelled"),
            (r#"{"TaskState": "Completed", "TaskStatus": "Critical"}"#, "Critical"),
            (r#"{"TaskStatus": "Critical"}"#, "Critical"),
            (
                r#"{"TaskState": "Exception", "Messages": [{"Message": "It is locked."}]}"#,
                ": It is locked.",
            ),
        ] {
            let Some(Task::Failed(found)) = task(text) else { panic!("{text}") };
            let found = Secrets::default().shown(&found);
            assert!(found.contains(words), "{text}: {found}");
        }
        assert_eq!(task(r#"{"TaskState": "Completed", "TaskStatus": "OK"}"#), Some(Task::Done));
        assert_eq!(
            task(r#"{"TaskState": "Completed", "TaskStatus": "Warning"}"#),
            Some(Task::Done)
        );
        for state in ["New", "Starting", "Running", "Pending", "Suspended", "?"] {
            assert_eq!(task(&format!(r#"{{"TaskState": "{state}"}}"#)), Some(Task::Running));
        }
        for text in ["", "{}", "<html>", r#"{"TaskState": 7}"#] {
            assert_eq!(task(text), None, "{text}");
        }
    }

    #[test]
    fn a_task_is_where_its_description_says() {
        let place = |text: &str| task_place(text.as_bytes()).map(|path| path.to_string());
        for text in [
            r##"{"@odata.type": "#Task.v1_4_2.Task", "@odata.id": "/T/1"}"##,
            r#"{"@odata.id": "https://me/T/1", "TaskState": "New"}"#,
            r#"{"TaskMonitor": "/T/1"}"#,
        ] {
            assert_eq!(place(text).unwrap(), "/T/1");
        }
        for text in [r#"{"@odata.id": "/S/1"}"#, "", r#"{"TaskState": "New"}"#] {
            assert_eq!(place(text), None, "{text}");
        }
    }

    #[test]
    fn a_service_that_is_not_ready_is_known_by_its_status_or_its_message() {
        for status in [429, 500, 502, 503, 504] {
            assert!(is_passing(status, b""));
        }
        let sys = br#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.SYS518"}]}}"#;
        let swc = br#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "IDRAC.1.6.SWC0700"}]}}"#;
        let words = br#"{"error": {"message": "The Lifecycle Controller is not ready."}}"#;
        let top = br#"{"@Message.ExtendedInfo": {"Message": "Service temporarily unavailable"}}"#;
        for body in [&sys[..], swc, words, top] {
            for status in [200, 400, 401, 404] {
                assert!(is_passing(status, body));
            }
        }
        for status in [200, 400, 401, 403, 404, 501, 505] {
            assert!(!is_passing(status, br#"{"error": {"message": "No."}}"#));
        }
    }
}
