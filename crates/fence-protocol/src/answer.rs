//! An answer: the end of a request.
//!
//! The watcher writes [`Answer`]. The agent reads [`ReceivedAnswer`], which any responder may have
//! written, and trusts no unknown value.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::{check_passed, line, rfc3339};
use crate::{FenceResult, NodeName, RequestId, TEXT_BYTES_MAX, bounded, json_problem};

/// An answer as the watcher writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The request's identity, if it was readable.
    pub request_id: Option<RequestId>,
    /// The target, if it was readable.
    pub target_node: Option<NodeName>,
    /// The requested action, as the client wrote it.
    pub action: String,
    /// The request's `recorder_node`.
    pub recorder_node: String,
    /// How it ended. `success` in the file is true for [`FenceResult::Success`] alone.
    pub result: FenceResult,
    /// The action that was carried out: `off`, `on`, `reboot`, or `none`.
    pub action_performed: &'static str,
    /// The device was asked afterwards and showed the state.
    pub verified: bool,
    /// The fence device that was used.
    pub device: Option<String>,
    /// A description for people.
    pub message: String,
    /// Milliseconds from the claim to the outcome; 0 if nothing was executed.
    pub duration_ms: u64,
}

impl Answer {
    /// The content of the answer's file, stamped with the wall clock's `now`.
    pub fn to_json(&self, now: DateTime<Utc>) -> Vec<u8> {
        let success = self.result == FenceResult::Success;
        line(&Wire {
            request_id: self.request_id.as_ref().map_or("", RequestId::as_str),
            success,
            action_performed: self.action_performed,
            target_node: self.target_node.as_ref().map_or("", NodeName::as_str),
            message: &bounded(&self.message, TEXT_BYTES_MAX),
            timestamp: rfc3339(now),
            result: self.result.as_str(),
            result_code: self.result.code(),
            verified: self.verified,
            device: self.device.as_deref(),
            duration_ms: self.duration_ms,
            status: if success { "success" } else { "error" },
            action: &self.action,
            recorder_node: &self.recorder_node,
        })
    }
}

#[derive(Serialize)]
struct Wire<'a> {
    request_id: &'a str,
    success: bool,
    action_performed: &'a str,
    target_node: &'a str,
    message: &'a str,
    timestamp: String,
    result: &'a str,
    result_code: u8,
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    duration_ms: u64,
    status: &'a str,
    action: &'a str,
    recorder_node: &'a str,
}

/// An answer as the agent finds it, written by any responder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReceivedAnswer {
    /// The identity of the request that it answers.
    pub request_id: Option<String>,
    /// The target. Some responders leave it out.
    pub target_node: Option<String>,
    /// `success`, if it is a boolean.
    pub success: Option<bool>,
    /// The action that was carried out, if the responder names it.
    pub action_performed: Option<String>,
    /// The responder's message, bounded.
    pub message: String,
    /// `result`, if the responder gives one.
    pub result: Option<String>,
    /// `result_code`, if the responder gives one.
    pub result_code: Option<u64>,
    /// `status`, if the responder gives one.
    pub status: Option<String>,
    /// `verified`, if the responder gives it.
    pub verified: Option<bool>,
    /// The fence device that was used, if the responder names it.
    pub device: Option<String>,
}

/// Why a text is not an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AnswerError {
    /// It does not parse: a simple responder may still be writing it.
    NotYet(String),
    /// It is JSON but not an object, or a deciding member has the wrong type.
    Malformed(String),
}

impl ReceivedAnswer {
    /// Reads an answer file's content. A deciding member of the wrong type, or a member that occurs
    /// twice, makes the answer malformed: another reader could understand it differently.
    pub fn parse(bytes: &[u8]) -> Result<Self, AnswerError> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
            let why = bounded(&json_problem(bytes, &error), 200);
            match error.classify() {
                serde_json::error::Category::Data => AnswerError::Malformed(why),
                _ => AnswerError::NotYet(why),
            }
        })?;
        check_passed(bytes).map_err(|why| AnswerError::Malformed(why.to_owned()))?;
        let malformed = |member: &str, what: &str| {
            AnswerError::Malformed(format!("\"{member}\" is not {what}"))
        };
        let text = |member: &str, value: &Option<Value>| match value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(bounded(text, TEXT_BYTES_MAX))),
            Some(_) => Err(malformed(member, "a string")),
        };
        let number =
            |code: &Value| code.as_u64().ok_or_else(|| malformed("result_code", "a whole number"));
        Ok(ReceivedAnswer {
            request_id: text("request_id", &raw.request_id)?,
            target_node: text("target_node", &raw.target_node)?,
            action_performed: text("action_performed", &raw.action_performed)?,
            success: raw.success.as_ref().and_then(Value::as_bool),
            message: text("message", &raw.message).ok().flatten().unwrap_or_default(),
            result: text("result", &raw.result)?,
            result_code: raw.result_code.as_ref().map(number).transpose()?,
            status: text("status", &raw.status)?,
            verified: raw.verified.as_ref().and_then(Value::as_bool),
            device: text("device", &raw.device).ok().flatten(),
        })
    }
}

#[derive(Deserialize)]
struct Raw {
    request_id: Option<Value>,
    target_node: Option<Value>,
    success: Option<Value>,
    action_performed: Option<Value>,
    message: Option<Value>,
    result: Option<Value>,
    result_code: Option<Value>,
    status: Option<Value>,
    verified: Option<Value>,
    device: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(result: FenceResult) -> Answer {
        Answer {
            request_id: Some(RequestId::random()),
            target_node: Some("n3".parse().unwrap()),
            action: "off".into(),
            recorder_node: "n1".into(),
            result,
            action_performed: "off",
            verified: true,
            device: Some("pdu".into()),
            message: "switched off".into(),
            duration_ms: 7,
        }
    }

    #[test]
    fn success_is_written_for_the_result_success_alone() {
        for result in FenceResult::ALL {
            let text = answer(result).to_json(DateTime::UNIX_EPOCH);
            let value: Value = serde_json::from_slice(&text).unwrap();

            assert_eq!(value["success"], Value::from(result == FenceResult::Success), "{result}");
            assert_eq!(value["result_code"] == 0, result == FenceResult::Success, "{result}");
            assert_eq!(value["status"] == "success", result == FenceResult::Success, "{result}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_in_an_unknown_member_too() {
        let mut text = answer(FenceResult::Success).to_json(DateTime::UNIX_EPOCH);
        text.splice(1..1, *b"\"other\":\"\xff\",");

        assert!(matches!(ReceivedAnswer::parse(&text), Err(AnswerError::Malformed(_))));
    }

    #[test]
    fn what_the_watcher_writes_the_agent_reads() {
        let written = answer(FenceResult::Success);
        let read = ReceivedAnswer::parse(&written.to_json(DateTime::UNIX_EPOCH)).unwrap();

        assert_eq!(read.request_id.as_deref(), written.request_id.as_ref().map(RequestId::as_str));
        assert_eq!(read.success, Some(true));
        assert_eq!(read.action_performed.as_deref(), Some("off"));
        assert_eq!(read.verified, Some(true));
    }

    #[test]
    fn success_that_is_not_a_boolean_is_no_success() {
        for text in [r#"{"success":"true"}"#, r#"{"success":1}"#, r#"{"success":null}"#, "{}"] {
            assert_eq!(ReceivedAnswer::parse(text.as_bytes()).unwrap().success, None, "{text}");
        }
    }

    #[test]
    fn a_text_that_does_not_parse_is_not_an_answer_yet() {
        for text in ["", "{", r#"{"success":tr"#, "\u{0}"] {
            let error = ReceivedAnswer::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, AnswerError::NotYet(_)), "{text:?}");
        }
        for text in [
            "[]",
            "7",
            r#"["id","n3",true]"#,
            r#"{"result":2}"#,
            r#"{"result_code":"0"}"#,
            r#"{"success":false,"success":true}"#,
        ] {
            let error = ReceivedAnswer::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, AnswerError::Malformed(_)), "{text}: {error:?}");
        }
        assert!(matches!(
            ReceivedAnswer::parse(br#"{"request_id":5}"#),
            Err(AnswerError::Malformed(_))
        ));
    }
}
