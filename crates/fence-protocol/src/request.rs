//! A request: "bring this target into this state before this instant".
//!
//! The reader is strict about known members, and ignores unknown members. It keeps the readable
//! parts of a bad request, so that the client gets an answer.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

use crate::{
    NameError, NodeName, RECORD_BYTES_MAX, RequestId, Requested, TEXT_BYTES_MAX, bounded,
    json_problem,
};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The request's identity; the answer carries the same.
    pub request_id: RequestId,
    /// When the client wrote it, by the client's wall clock.
    pub timestamp: DateTime<Utc>,
    /// The requested action.
    pub action: Requested,
    /// The target. Absent only in a [`Requested::Inquiry`] that concerns no target.
    pub target_node: Option<NodeName>,
    /// The GFS2 file systems that the target holds, as far as known. Information only.
    pub gfs2_filesystems: Vec<String>,
    /// The node on which the client runs.
    pub recorder_node: String,
    /// The instant after which the client does not wait for the answer, by the wall clock.
    pub deadline: Option<DateTime<Utc>>,
    /// The boot (`/proc/sys/kernel/random/boot_id`) of the clock of `deadline_boottime_ms`.
    pub boot_id: Option<String>,
    /// The deadline in milliseconds of `CLOCK_BOOTTIME`.
    pub deadline_boottime_ms: Option<u64>,
    /// The fence device to use, if the client names one.
    pub device: Option<String>,
    /// The client keeps an exclusive flock on the request's file while it waits.
    pub held: bool,
}

/// Why a text is not a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestError {
    /// The file has this many bytes, more than [`RECORD_BYTES_MAX`], and was not read.
    TooLarge(u64),
    /// The text is empty or cut off. A simple client may still be writing it.
    Incomplete,
    /// The text is not JSON, in the parser's words.
    NotJson(String),
    /// A member is missing, has the wrong type, or has a value that is not allowed.
    Member {
        /// The member's name.
        member: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::TooLarge(size) => {
                write!(f, "the request has {size} bytes; at most {RECORD_BYTES_MAX} are read")
            }
            RequestError::Incomplete => f.write_str("the request is empty or ends too early"),
            RequestError::NotJson(why) => write!(f, "the request is not valid JSON: {why}"),
            RequestError::Member { member, problem } => write!(f, "member \"{member}\": {problem}"),
        }
    }
}

impl std::error::Error for RequestError {}

/// A text that is not a request, with its readable members for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    /// What is wrong.
    pub error: RequestError,
    /// The request's identity, if it was readable.
    pub request_id: Option<RequestId>,
    /// The target, if it was readable and a safe name.
    pub target_node: Option<NodeName>,
    /// The action, as the client wrote it.
    pub action: Option<Box<str>>,
    /// The node on which the client runs, as the client wrote it.
    pub recorder_node: Option<Box<str>>,
}

impl Rejection {
    /// A rejection with the error alone.
    pub fn of(error: RequestError) -> Self {
        Rejection { error, request_id: None, target_node: None, action: None, recorder_node: None }
    }
}

impl Request {
    /// Reads a request file's content.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        if bytes.len() as u64 > RECORD_BYTES_MAX {
            return Err(Rejection::of(RequestError::TooLarge(bytes.len() as u64)));
        }
        let not_json = |error: serde_json::Error| {
            Rejection::of(match error.classify() {
                serde_json::error::Category::Eof => RequestError::Incomplete,
                _ => RequestError::NotJson(bounded(&json_problem(bytes, &error), 200)),
            })
        };
        let raw: Raw = serde_json::from_slice(bytes).map_err(not_json)?;
        check_object(bytes).map_err(|why| Rejection::of(RequestError::NotJson(why.to_owned())))?;
        check_text(bytes).map_err(|why| raw.rejection(RequestError::NotJson(why.to_owned())))?;
        // The parser bounds the depth of values that it keeps, and skips unknown members. So all
        // members are read once as values.
        let whole: Result<Value, _> = serde_json::from_slice(bytes);
        whole.map_err(|error| raw.rejection(not_json(error).error))?;
        raw.check().map_err(|error| raw.rejection(error))
    }

    /// The content of the request's file: one JSON object and a line end.
    pub fn to_json(&self) -> Vec<u8> {
        line(&Wire {
            request_id: self.request_id.as_str(),
            timestamp: rfc3339(self.timestamp),
            action: self.action.as_str(),
            target_node: self.target_node.as_ref().map_or("", NodeName::as_str),
            gfs2_filesystems: &self.gfs2_filesystems,
            recorder_node: &self.recorder_node,
            deadline: self.deadline.map(rfc3339),
            boot_id: self.boot_id.as_deref(),
            deadline_boottime_ms: self.deadline_boottime_ms,
            device: self.device.as_deref(),
            held: self.held,
        })
    }
}

/// Refuses two texts that the parser accepts: it reads a list with values in the order of our
/// members as an object, and it skips the texts of unknown members without a look at their bytes.
pub(crate) fn check_passed(bytes: &[u8]) -> Result<(), &'static str> {
    check_object(bytes)?;
    check_text(bytes)
}

fn check_object(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return Ok(());
    }
    Err("it is not an object")
}

fn check_text(bytes: &[u8]) -> Result<(), &'static str> {
    str::from_utf8(bytes).map(|_| ()).map_err(|_| "it is not UTF-8 text")
}

/// `value` as one line of JSON. The types of this crate always have a JSON form.
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("texts, numbers and lists have a JSON form");
    bytes.push(b'\n');
    bytes
}

/// UTC with milliseconds, as all our records write an instant.
pub fn rfc3339(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[derive(Serialize)]
struct Wire<'a> {
    request_id: &'a str,
    timestamp: String,
    action: &'a str,
    target_node: &'a str,
    gfs2_filesystems: &'a [String],
    recorder_node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_boottime_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    held: bool,
}

/// The known members, each of any type, so that one bad member does not hide the others. The parser
/// refuses a member that occurs twice: two readers could choose differently.
#[derive(Deserialize)]
struct Raw {
    request_id: Option<Value>,
    timestamp: Option<Value>,
    action: Option<Value>,
    target_node: Option<Value>,
    gfs2_filesystems: Option<Value>,
    recorder_node: Option<Value>,
    deadline: Option<Value>,
    boot_id: Option<Value>,
    deadline_boottime_ms: Option<Value>,
    device: Option<Value>,
    held: Option<Value>,
}

impl Raw {
    /// `error`, with each member that can be read.
    fn rejection(&self, error: RequestError) -> Rejection {
        Rejection {
            error,
            request_id: readable(self.request_id.as_ref()).and_then(|id| id.parse().ok()),
            target_node: readable(self.target_node.as_ref()).and_then(|name| name.parse().ok()),
            action: readable(self.action.as_ref()).map(|word| bounded(word, 64).into()),
            recorder_node: readable(self.recorder_node.as_ref()).map(Into::into),
        }
    }

    fn check(&self) -> Result<Request, RequestError> {
        let action = Requested::from(required("action", text("action", self.action.as_ref())?)?);
        let target_node = match (&action, text("target_node", self.target_node.as_ref())?) {
            (Requested::Inquiry(_), None | Some("")) => None,
            (_, text) => Some(parsed("target_node", required("target_node", text)?)?),
        };
        let deadline_boottime_ms = self.deadline_boottime_ms.as_ref().map(milliseconds);
        let request_id = required("request_id", text("request_id", self.request_id.as_ref())?)?;
        Ok(Request {
            request_id: parsed("request_id", request_id)?,
            timestamp: required("timestamp", instant("timestamp", self.timestamp.as_ref())?)?,
            action,
            target_node,
            gfs2_filesystems: self.filesystems()?,
            recorder_node: text("recorder_node", self.recorder_node.as_ref())?
                .unwrap_or_default()
                .into(),
            deadline: instant("deadline", self.deadline.as_ref())?,
            boot_id: text("boot_id", self.boot_id.as_ref())?.map(str::to_owned),
            deadline_boottime_ms: deadline_boottime_ms.transpose()?,
            device: text("device", self.device.as_ref())?.map(str::to_owned),
            held: match &self.held {
                None => false,
                Some(Value::Bool(held)) => *held,
                Some(_) => return Err(wrong("held", "it is not true or false")),
            },
        })
    }

    fn filesystems(&self) -> Result<Vec<String>, RequestError> {
        let member = "gfs2_filesystems";
        match &self.gfs2_filesystems {
            None => Ok(Vec::new()),
            Some(Value::Array(names)) => names
                .iter()
                .map(|name| name.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| wrong(member, "it holds something that is not a string")),
            Some(_) => Err(wrong(member, "it is not an array")),
        }
    }
}

/// A member's text, if the member has one.
fn readable(value: Option<&Value>) -> Option<&str> {
    text("", value).ok().flatten()
}

fn text<'a>(
    member: &'static str,
    value: Option<&'a Value>,
) -> Result<Option<&'a str>, RequestError> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => Ok(Some(text)),
        Some(Value::String(_)) => Err(wrong(member, "it is too long")),
        Some(_) => Err(wrong(member, "it is not a string")),
    }
}

fn required<T>(member: &'static str, value: Option<T>) -> Result<T, RequestError> {
    value.ok_or_else(|| wrong(member, "it is missing"))
}

fn instant(
    member: &'static str,
    value: Option<&Value>,
) -> Result<Option<DateTime<Utc>>, RequestError> {
    text(member, value)?
        .map(|text| DateTime::parse_from_rfc3339(text).map(|instant| instant.to_utc()))
        .transpose()
        .map_err(|error| wrong(member, format!("it is not an RFC 3339 time ({error})")))
}

fn parsed<T: FromStr<Err = NameError>>(
    member: &'static str,
    text: &str,
) -> Result<T, RequestError> {
    text.parse().map_err(|error: NameError| wrong(member, error.to_string()))
}

fn milliseconds(value: &Value) -> Result<u64, RequestError> {
    let problem = "it is not a whole number of milliseconds";
    value.as_u64().ok_or_else(|| wrong("deadline_boottime_ms", problem))
}

fn wrong(member: &'static str, problem: impl Into<String>) -> RequestError {
    RequestError::Member { member, problem: problem.into() }
}

#[cfg(test)]
mod tests;
