//! The body of an answer: errors, passing refusals, tasks. This module does no I/O.
//!
//! A status of success is half of an answer. Services put errors into the body of a 200, and a 202
//! announces a task that may have failed meanwhile. Some services also wrap a success into an
//! `error`. So the messages decide: a message that is neither `Success` nor of the severity `OK`
//! makes the answer a refusal. A resource may contain remarks. A remark that is critical, or that
//! reports that the service is not ready, makes the state of the resource doubtful.

use std::borrow::Cow;

use serde_json::Value;

use super::path::ResourcePath;
use crate::quoted;

/// The outcome of a task, which may carry out an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// The task has failed, with these words.
    Failed(String),
    /// The task has not ended.
    Running,
    /// The task is done.
    Done,
}

/// The text of a body. A replacement character stands for bytes that are not UTF-8, and matches no
/// word that counts.
pub(super) fn text_of(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body))
}

/// The words of an error, as a quotation.
pub fn error_words(body: &[u8]) -> Option<String> {
    let body = parse(body)?;
    let error = body.get("error").filter(|error| error.is_object());
    let words = words_of(&messages(error.unwrap_or(&body)));
    words.or_else(|| Some(quoted(&text(error?, "message")?)))
}

/// Why an answer with a status of success is a refusal, by its body.
pub fn refusal(body: &[u8]) -> Option<String> {
    if text_of(body).trim().is_empty() {
        return None;
    }
    let Some(parsed) = parse(body) else {
        return Some("the answer is no JSON".to_owned());
    };
    let error = parsed.get("error").filter(|error| !error.is_null());
    // Without an `error`, the messages may be remarks on a resource.
    let mut messages = messages(error.unwrap_or(&parsed));
    messages.retain(|message| error.is_none() || !is_empty(message));
    let is_refused = match error {
        Some(error) if messages.is_empty() => {
            !text(error, "code").is_some_and(|code| is_success_id(&code))
        }
        _ => !messages.into_iter().all(is_benign),
    };
    is_refused
        .then(|| error_words(body).unwrap_or_else(|| "the answer contains an error".to_owned()))
}

/// Why the power state of a resource is doubtful, by the messages beside it: one is critical, or
/// reports that the service is not ready. A critical message about other properties alone, such as
/// a broken fan, causes no doubt.
pub(super) fn doubt(beside: &[Option<&Value>]) -> Option<String> {
    let is_power = |property: &Value| property.as_str().is_some_and(|p| p.contains("PowerState"));
    let may_concern_power = |message: &Value| {
        let related = message.get("RelatedProperties").and_then(Value::as_array);
        related.is_none_or(|all| all.is_empty() || all.iter().any(is_power))
    };
    let mut messages: Vec<&Value> = beside.iter().flat_map(|holder| listed(*holder)).collect();
    messages.retain(|message| {
        let is_critical = severity(message).is_some_and(|it| is_one_of(&it, &["Critical"]));
        is_critical && may_concern_power(message) || is_not_ready(message, MESSAGE)
    });
    let words = || words_of(&messages).unwrap_or_else(|| "it has no words".to_owned());
    (!messages.is_empty()).then(words)
}

/// Whether the `error` of an answer is empty: `{}`, `""`, or only empty members.
pub(super) fn is_empty(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(members) => members.values().all(is_empty),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Whether the service refuses only for a while, because it is starting or overloaded.
pub fn is_passing(status: u16, body: &[u8]) -> bool {
    match status {
        429 | 500 | 502 | 503 | 504 => true,
        200..=299 => !is_resource(body) && says_not_ready(body),
        _ => says_not_ready(body),
    }
}

/// Whether the body is a resource, with any remarks.
fn is_resource(body: &[u8]) -> bool {
    parse(body).is_some_and(|body| {
        body.get("@odata.id").is_some() && body.get("error").is_none_or(is_empty)
    })
}

/// Whether the body reports that the service is not ready, with any status.
pub(super) fn says_not_ready(body: &[u8]) -> bool {
    let Some(body) = parse(body) else { return false };
    let error = body.get("error");
    let mut messages = error.into_iter().chain([&body]).flat_map(messages);
    error.is_some_and(|error| is_not_ready(error, ("code", "message")))
        || messages.any(|message| is_not_ready(message, MESSAGE))
}

/// Whether an error or a message reports that, in the members with these names: its identity and
/// its words.
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
    let is_critical = status.as_deref().is_some_and(|status| is_one_of(status, &["Critical"]));
    if is_critical || is_one_of(&state, &FAILED_STATES) {
        let status = status.map_or(String::new(), |status| format!(", {status}"));
        let state = quoted(&format!("{state}{status}"));
        let words = words_of(&listed(body.get("Messages")));
        let words = words.map_or(String::new(), |words| format!(": {words}"));
        return Some(Task::Failed(format!("its task has failed ({state}){words}")));
    }
    let is_done = is_one_of(&state, &["Completed", "CompletedOK"]);
    Some(if is_done { Task::Done } else { Task::Running })
}

/// The place of the task that a body describes, if it describes one.
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

pub(super) fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_str(&text_of(body)).ok()
}

fn text(holder: &Value, member: &str) -> Option<String> {
    Some(holder.get(member)?.as_str()?.to_owned())
}

/// The messages of an error or a resource.
fn messages(holder: &Value) -> Vec<&Value> {
    listed(holder.get("@Message.ExtendedInfo"))
}

/// The messages in a list. Some services write a single message without a list.
fn listed(value: Option<&Value>) -> Vec<&Value> {
    match value {
        Some(Value::Array(list)) => list.iter().collect(),
        Some(one @ Value::Object(_)) => vec![one],
        _ => Vec::new(),
    }
}

/// The words of messages, as a quotation; their names if no message has words.
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
    let is_success = is_success_id(&id);
    match severity(message) {
        // iDRAC gives the severity "informational" to its message that it is not ready.
        Some(severity) => {
            (is_success || is_one_of(&severity, &["OK", "Informational"])) && !is_not_ready_id(&id)
        }
        None => is_success || message.as_object().is_some_and(serde_json::Map::is_empty),
    }
}

fn severity(message: &Value) -> Option<String> {
    text(message, "MessageSeverity").or_else(|| text(message, "Severity"))
}

fn is_success_id(id: &str) -> bool {
    is_one_of(last_part(id), &["Success", "Created", "TaskStarted"])
}

fn is_not_ready_id(id: &str) -> bool {
    is_one_of(last_part(id), &NOT_READY_IDS)
}

fn is_one_of(text: &str, known: &[&str]) -> bool {
    known.iter().any(|known| text.eq_ignore_ascii_case(known))
}

/// The name of a message without its registry and the registry's version: `Base.1.8.Success`.
fn last_part(id: &str) -> &str {
    id.rsplit('.').next().unwrap_or(id)
}

/// The members of a message: its identity and its words.
const MESSAGE: (&str, &str) = ("MessageId", "Message");

/// Messages of a service that is not ready: those of the standard, and those of iDRAC after its own
/// restart or its host's. Then messages of a service without room, mostly for a session.
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

/// The words of other messages with this meaning.
const NOT_READY_WORDS: [&str; 6] = [
    "not ready",
    "temporarily unavailable",
    "currently unable",
    "simultaneous sessions",
    "maximum number of user sessions",
    "maximum number of sessions",
];

/// The states of a task that has ended without success.
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
            (r#"{"error": "no"}"#.into(), "contains an error"),
            (r#"{"error": {}}"#.into(), "contains an error"),
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
