//! The resources of a Redfish service: texts in, checked values out. This module does no I/O.
//!
//! The module reads only the members that a fence needs. An optional member of the standard is a
//! hint: without it, or if it cannot be read, the fence goes on. A member that appears twice spoils
//! the whole answer: such a service is not reliable.
//!
//! The module does not cut texts: the caller first removes secrets, and then cuts.

use fence_core::execution::Order;
use fence_protocol::{PowerState, json_problem};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::{doubt, is_empty, parse, refusal, text_of};
use super::path::{ResourcePath, no_path};
use crate::quoted;

/// A computer system, or a chassis that can be reset like a system: the part that a fence needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The name within the collection.
    pub id: Option<String>,
    /// The name for people.
    pub name: Option<String>,
    /// The power state.
    pub power: PowerState,
    /// The words for the power state.
    pub power_words: String,
    /// Whether the system shows any state, without an error that makes the state doubtful.
    pub shows_power: bool,
    /// Whether there is an error beside the state, so that another state may follow soon.
    pub is_doubtful: bool,
    /// The reset action, or why there is none.
    pub reset: Result<Reset, String>,
}

/// The action `ComputerSystem.Reset` or `Chassis.Reset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The place for orders.
    pub target: ResourcePath,
    /// The reset types that the service allows, if the action lists them.
    pub allowed: Option<Vec<String>>,
    /// The place of another description of the allowed types.
    pub info: Option<ResourcePath>,
}

/// The list of a service's systems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// The places of the members, each once.
    pub members: Vec<ResourcePath>,
    /// The errors of the members whose place cannot be read.
    pub unreadable: Vec<String>,
    /// The place of the list's next part.
    pub next: Option<ResourcePath>,
}

impl System {
    /// Whether `name` is the `Id`, which no other system of the service has.
    pub(super) fn has_id(&self, name: &str) -> bool {
        self.id.as_deref() == Some(name)
    }

    /// Whether `name` is the `Id` or the `Name`.
    pub fn is_called(&self, name: &str) -> bool {
        [&self.id, &self.name].into_iter().flatten().any(|found| found == name)
    }
}

/// Reads a `ComputerSystem` or a `Chassis`. A state beside an error does not count: the service may
/// show an old state, or an invented one.
pub fn parse_system(body: &[u8]) -> Result<System, String> {
    let raw: RawSystem = read("the system", body)?;
    if let Some(words) = error_beside(raw.error.as_ref(), body) {
        return Err(format!("the system is shown with an error: {words}"));
    }
    let mut power_words = match &raw.power_state {
        None | Some(Value::Null) => "it shows no PowerState".to_owned(),
        Some(Value::String(word)) => format!("PowerState {}", quoted(word)),
        Some(other) => format!("PowerState {}, which is no state", quoted(&other.to_string())),
    };
    let doubt = doubt(&[raw.messages.as_ref(), raw.power_messages.as_ref()]);
    let is_doubtful = doubt.is_some();
    if let Some(why) = doubt {
        power_words = format!("{power_words}, beside an error: {why}");
    }
    let word = string(raw.power_state);
    Ok(System {
        id: string(raw.id),
        name: string(raw.name),
        power: match word.as_deref() {
            Some("On") if !is_doubtful => PowerState::On,
            Some("Off") if !is_doubtful => PowerState::Off,
            _ => PowerState::Unknown,
        },
        power_words,
        shows_power: word.is_some() && !is_doubtful,
        is_doubtful,
        reset: parse_reset(raw.actions.as_ref()),
    })
}

/// The words of an `error` in a body. Some services write an empty `error`, or `Success`, beside
/// the requested resource; these do not count.
fn error_beside(error: Option<&Value>, body: &[u8]) -> Option<String> {
    error.filter(|error| !is_empty(error)).and_then(|_| refusal(body))
}

fn parse_reset(actions: Option<&Value>) -> Result<Reset, String> {
    let action = |name| actions?.get(name).filter(|action| action.is_object());
    let Some(action) = action("#ComputerSystem.Reset").or_else(|| action("#Chassis.Reset")) else {
        return Err("the system has no action to reset it".to_owned());
    };
    let Some(target) = action.get("target").and_then(Value::as_str) else {
        return Err("the system has no action to reset it: the action has no target".to_owned());
    };
    let Some(target) = ResourcePath::of_url(target) else {
        return Err(format!("the target of its reset action: {}", no_path(&words(target))));
    };
    // Some services write the place of a hint as a reference.
    let info = action.get("@Redfish.ActionInfo");
    let info = info.map(|info| info.get("@odata.id").unwrap_or(info)).and_then(Value::as_str);
    let allowed = action.get("ResetType@Redfish.AllowableValues").and_then(strings);
    Ok(Reset { target, allowed, info: info.and_then(ResourcePath::of_url) })
}

/// The reset types in a list, if it has any. Some services write several types into one text.
fn strings(list: &Value) -> Option<Vec<String>> {
    let texts = list.as_array()?.iter().filter_map(Value::as_str);
    let words = texts.flat_map(|text| text.split([',', ';', '|', ' '])).map(str::trim);
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
    (!words.is_empty()).then_some(words)
}

fn string(value: Option<Value>) -> Option<String> {
    value?.as_str().map(str::to_owned)
}

/// Reads a collection, or one part of it: the places of its members. The length that it states does
/// not count.
pub fn parse_collection(body: &[u8]) -> Result<Collection, String> {
    let raw: RawCollection = read("the list of systems", body)?;
    let mut collection = Collection { members: Vec::new(), unreadable: Vec::new(), next: None };
    let error = error_beside(raw.error.as_ref(), body);
    if let Some(words) = error.or_else(|| doubt(&[raw.messages.as_ref()])) {
        collection.unreadable.push(format!("the list is shown with an error: {words}"));
    }
    for link in [&raw.next, &raw.next_of_all].into_iter().flatten() {
        // Some services write a place as a reference. Others end a list with an empty text.
        let link = link.get("@odata.id").unwrap_or(link).as_str().unwrap_or_default().trim();
        if !link.is_empty() {
            collection.next = ResourcePath::of_page(link);
            if collection.next.is_none() {
                let problem = no_path(&words(link));
                collection.unreadable.push(format!("the next part of the list: {problem}"));
            }
        }
    }
    for member in &raw.members {
        let place = member.get("@odata.id").and_then(Value::as_str).unwrap_or_default();
        match ResourcePath::of_url(place) {
            None => collection.unreadable.push(no_path(&words(place))),
            Some(path) => collection.add(path),
        }
    }
    Ok(collection)
}

impl Collection {
    /// Adds a member, unless the list contains it.
    pub(super) fn add(&mut self, path: ResourcePath) {
        if !self.members.iter().any(|known| known.is_same(&path)) {
            self.members.push(path);
        }
    }
}

/// Reads an `ActionInfo`: the reset types that it allows, if it lists them.
pub fn parse_action_info(body: &[u8]) -> Option<Vec<String>> {
    let info = parse(body)?;
    let is_reset_type = |it: &&Value| it.get("Name").is_some_and(|name| name == "ResetType");
    let parameter = info.get("Parameters")?.as_array()?.iter().find(is_reset_type)?;
    strings(parameter.get("AllowableValues")?)
}

/// The place of the sessions in a service root.
pub(super) fn parse_sessions_place(body: &[u8]) -> Option<ResourcePath> {
    ResourcePath::of_url(parse(body)?.pointer("/Links/Sessions/@odata.id")?.as_str()?)
}

/// The place of a new session in its own description.
pub(super) fn parse_place(body: &[u8]) -> Option<ResourcePath> {
    ResourcePath::of_url(parse(body)?.get("@odata.id")?.as_str()?)
}

/// The reset type for `order`, of those that the service allows.
pub fn reset_type(order: Order, allowed: Option<&[String]>) -> Result<&'static str, String> {
    let types: &[&'static str] = match order {
        Order::Off => &["ForceOff"],
        Order::On => &["On", "ForceOn"],
        Order::Cycle => &["ForceRestart", "PowerCycle"],
    };
    let Some(allowed) = allowed else { return Ok(types[0]) };
    // The case of the offered types does not count; the order has the case of the standard.
    let is_allowed =
        |wanted: &&&str| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(wanted));
    types.iter().find(is_allowed).copied().ok_or_else(|| {
        let (types, allowed) = (types.join(" or "), quoted(&allowed.join(", ")));
        format!("the system does not support {types}: it allows only {allowed}")
    })
}

fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, String> {
    serde_json::from_str(&text_of(body)).map_err(|error| {
        // These words may contain a value.
        format!("{what} cannot be read: {}", quoted(&json_problem(body, &error)))
    })
}

/// A text of the service, on one line.
fn words(text: &str) -> String {
    quoted(&text.escape_debug().to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawSystem {
    id: Option<Value>,
    name: Option<Value>,
    power_state: Option<Value>,
    #[serde(rename = "PowerState@Message.ExtendedInfo")]
    power_messages: Option<Value>,
    #[serde(rename = "@Message.ExtendedInfo")]
    messages: Option<Value>,
    actions: Option<Value>,
    #[serde(rename = "error")]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct RawCollection {
    #[serde(rename = "Members")]
    members: Vec<Value>,
    #[serde(rename = "Members@odata.nextLink")]
    next: Option<Value>,
    #[serde(rename = "@odata.nextLink")]
    next_of_all: Option<Value>,
    #[serde(rename = "@Message.ExtendedInfo")]
    messages: Option<Value>,
    error: Option<Value>,
}

#[cfg(test)]
mod tests;
