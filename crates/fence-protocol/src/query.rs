//! Queries to the watcher, which must never be taken for a fence.
//!
//! A query is `<query_id>.json` in a separate directory; its answer is `<query_id>.answer` beside
//! it. The client removes both when it has read the answer.

use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::json::read_record;
use crate::request::line;
use crate::{NodeName, RequestId, TEXT_BYTES_MAX, bounded};

/// The kind of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueryKind {
    /// Can the device be reached at this moment?
    Reachable,
    /// Which targets can the device fence?
    Targets,
    /// What is the power state of a target?
    Power,
    /// What is the watcher doing?
    State,
    /// What would prevent a fence with the device?
    Check,
    /// Not a question: read the configuration again.
    Reload,
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Query {
    /// The query's identity and the stem of its file name.
    pub query_id: String,
    /// The kind of the query.
    #[serde(deserialize_with = "word")]
    pub query: QueryKind,
    /// The device; without it all devices of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The target, if the query concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The instant of `CLOCK_BOOTTIME`, in milliseconds, after which the client does not wait.
    pub deadline_boottime_ms: u64,
    /// The boot of this clock, as the client knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The instant of that clock at which the client asked, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_boottime_ms: Option<u64>,
}

impl Query {
    /// Reads a query file's content. The error says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let query: Query = read_record(bytes)?;
        query.query_id.parse::<RequestId>().map_err(|error| format!("query_id: {error}"))?;
        Ok(query)
    }

    /// Whether the text is empty or cut off. A simple client may still be writing it.
    pub fn is_cut_off(bytes: &[u8]) -> bool {
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
            .is_err_and(|error| error.classify() == serde_json::error::Category::Eof)
    }

    /// The target as a checked name; `None` if the query has no target.
    pub fn target(&self) -> Option<Result<NodeName, crate::NameError>> {
        self.target.as_deref().map(str::parse)
    }

    /// The content of the query's file.
    pub fn to_json(&self) -> Vec<u8> {
        line(self)
    }
}

/// The power state of a target, as a device shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// The target has power (or access).
    On,
    /// The target has no power.
    Off,
    /// The device did not show the state.
    Unknown,
}

/// How a query ended. The number in the member `code` is read and written here alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum QueryCode {
    /// 0: yes, or the requested information.
    Yes,
    /// 1: the device was not reached, or did not show the state.
    NotReached,
    /// 2: the device returned no list.
    NoList,
    /// 3: the query is wrong, or no device here serves it.
    WrongQuery,
}

impl QueryCode {
    /// All codes, each at its number.
    pub const ALL: [QueryCode; 4] =
        [QueryCode::Yes, QueryCode::NotReached, QueryCode::NoList, QueryCode::WrongQuery];
}

impl From<QueryCode> for u8 {
    fn from(code: QueryCode) -> u8 {
        code as u8
    }
}

impl TryFrom<u8> for QueryCode {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        let known = QueryCode::ALL.get(usize::from(number)).copied();
        known.ok_or_else(|| format!("{number} is no known code; known: 0 to 3"))
    }
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// The query's identity.
    pub query_id: String,
    /// How it ended.
    pub code: QueryCode,
    /// One line for people.
    pub message: String,
    /// For `targets`: the nodes that can be fenced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// For `power`: the state.
    #[serde(default, deserialize_with = "optional_word", skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerState>,
    /// For `state`: the watcher's own description. For `check`: the findings about each device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Value>,
    /// For `reload`: all errors of the configuration, each with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl QueryAnswer {
    /// An answer of `code` and `message` alone. A long message is cut: the answer must fit into a
    /// record.
    pub fn new(query_id: &str, code: QueryCode, message: impl Into<String>) -> Self {
        QueryAnswer {
            query_id: query_id.to_owned(),
            code,
            message: bounded(&message.into(), TEXT_BYTES_MAX),
            targets: Vec::new(),
            power: None,
            state: None,
            problems: Vec::new(),
        }
    }

    /// Reads an answer file's content. The error says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        read_record(bytes)
    }

    /// The power-on that follows the answer to the reboot `id`, as this state shows it; `None` if
    /// the watcher does not know one.
    pub fn power_on(&self, id: &RequestId) -> Option<PowerOn> {
        let state = self.state.as_ref()?;
        let is_it = |job: &&Value| job["request_id"] == id.as_str();
        if state["returning"].as_array()?.iter().any(|job| is_it(&job)) {
            return Some(PowerOn::UnderWay);
        }
        let devices = state["devices"].as_array()?;
        let last = devices.iter().map(|device| &device["last"]).find(is_it)?;
        Some(PowerOn::Over(last["on_result"].as_str()?.to_owned()))
    }

    /// The content of the answer's file.
    pub fn to_json(&self) -> Vec<u8> {
        line(self)
    }
}

/// The power-on that follows the answer to a reboot, as the watcher's state shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerOn {
    /// The watcher is switching the target on.
    UnderWay,
    /// The power-on is over: its outcome, and why.
    Over(String),
}

/// One of the known words. The parser itself would also accept an object, and give a misleading
/// error for other types.
fn word<'de, T: Deserialize<'de>, D: Deserializer<'de>>(member: D) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(member)?.into_deserializer())
}

fn optional_word<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    member: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(member)?;
    text.map(|text| T::deserialize(text.into_deserializer())).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_power_on_is_under_way_then_over_and_another_requests_is_neither() {
        let id = RequestId::random();
        let of = |returning: &str, on_result: Value| {
            let last = json!({"request_id": id.as_str(), "on_result": on_result});
            let state = json!({
                "returning": [{"request_id": returning, "target": "n3"}],
                "devices": [{"last": null}, {"last": last}],
            });
            QueryAnswer { state: Some(state), ..QueryAnswer::new("q", QueryCode::Yes, "") }
        };
        assert_eq!(of(id.as_str(), Value::Null).power_on(&id), Some(PowerOn::UnderWay));
        let over = of("x", json!("on: the device shows it"));
        assert_eq!(over.power_on(&id), Some(PowerOn::Over("on: the device shows it".to_owned())));
        assert_eq!(over.power_on(&RequestId::random()), None);
        assert_eq!(of("x", Value::Null).power_on(&id), None);
        let older = QueryAnswer { state: Some(json!({})), ..over };
        assert_eq!(older.power_on(&id), None);
    }

    #[test]
    fn queries_and_their_answers_survive_the_way_through_a_file() {
        let query = Query {
            query_id: RequestId::random().as_str().to_owned(),
            query: QueryKind::Power,
            device: Some("pdu".into()),
            target: Some("n3".into()),
            deadline_boottime_ms: 5,
            boot_id: Some("b".into()),
            asked_boottime_ms: Some(4),
        };
        assert_eq!(Query::parse(&query.to_json()), Ok(query.clone()));

        let mut answer = QueryAnswer::new(&query.query_id, QueryCode::Yes, "n3 is off");
        answer.power = Some(PowerState::Off);
        assert_eq!(QueryAnswer::parse(&answer.to_json()), Ok(answer));
    }

    #[test]
    fn each_code_has_its_number_and_another_number_is_none() {
        for (number, code) in (0..).zip(QueryCode::ALL) {
            let written = QueryAnswer::new("q", code, "").to_json();
            assert!(String::from_utf8_lossy(&written).contains(&format!("\"code\":{number},")));
            assert_eq!(QueryAnswer::parse(&written).unwrap().code, code);
        }
        let other = br#"{"query_id":"q","code":4,"message":""}"#;
        let why = "member \"code\": 4 is no known code; known: 0 to 3";
        assert_eq!(QueryAnswer::parse(other), Err(why.to_owned()));
    }

    #[test]
    fn a_word_of_another_type_is_wrong_and_its_member_is_named() {
        for value in ["true", "7", "[]", "{\"state\":null}", "null"] {
            let text = format!(r#"{{"query_id":"x","query":{value},"deadline_boottime_ms":1}}"#);
            let why = Query::parse(text.as_bytes()).unwrap_err();
            assert!(why.starts_with("member \"query\": "), "{value}: {why}");
            assert!(why.ends_with(" stands where a string is required"), "{value}: {why}");

            let text = format!(r#"{{"query_id":"x","code":0,"message":"","power":{value}}}"#);
            let answer = QueryAnswer::parse(text.as_bytes());
            if value == "null" {
                assert_eq!(answer.unwrap().power, None);
            } else {
                assert!(answer.unwrap_err().starts_with("member \"power\": "), "{value}");
            }
        }
    }

    #[test]
    fn a_query_id_that_is_a_path_is_refused() {
        let text = br#"{"query_id":"../../x","query":"state","deadline_boottime_ms":1}"#;
        assert!(Query::parse(text).is_err());
    }

    #[test]
    fn every_beginning_of_a_query_and_nothing_else_is_cut_off() {
        let text = br#"{"query_id":"x","query":"state","deadline_boottime_ms":1}"#;
        for end in 0..text.len() {
            assert!(Query::is_cut_off(&text[..end]), "cut at {end}");
        }
        for other in [&text[..], b"7", b"}", b"off n1", b"{\"query\":\"what\"}"] {
            assert!(!Query::is_cut_off(other), "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn a_list_of_the_members_values_is_no_query_and_no_answer() {
        let id = RequestId::random();
        let query = format!(r#"["{id}","state",null,null,1]"#);
        assert_eq!(Query::parse(query.as_bytes()), Err("it is not an object".to_owned()));
        let answer = format!(r#"["{id}",0,"yes",[],null,null]"#);
        assert_eq!(QueryAnswer::parse(answer.as_bytes()), Err("it is not an object".to_owned()));
    }
}
