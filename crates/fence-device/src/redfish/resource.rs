//! What a Redfish service sends: texts in, checked values out. Nothing here is I/O.
//!
//! Only what a fence needs is read; everything else may be anything. What the standard calls
//! optional is a hint: a hint that is missing or cannot be read is no hint, and stops nothing. A
//! member that stands there twice spoils the whole answer: such a service says nothing that could
//! be relied on.
//!
//! Texts are as long as they come: who passes them on removes secrets first, and then cuts.

use fence_core::execution::Order;
use fence_protocol::{PowerState, json_problem};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::{doubt, is_empty, refusal, text_of};
use super::path::{ResourcePath, no_path};
use crate::quoted;

/// A computer system, or a chassis that is switched like one, as far as a fence concerns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Its name within the collection.
    pub id: Option<String>,
    /// Its name for people.
    pub name: Option<String>,
    /// Whether it is on.
    pub power: PowerState,
    /// The words for that.
    pub power_words: String,
    /// Whether it shows any state, and nothing that makes the state doubtful.
    pub shows_power: bool,
    /// Whether there is an error beside the state, so that it may show another one soon.
    pub is_doubtful: bool,
    /// How it is reset, or why it cannot be.
    pub reset: Result<Reset, String>,
}

/// The action `ComputerSystem.Reset` or `Chassis.Reset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Where orders are sent.
    pub target: ResourcePath,
    /// The reset types that the service allows, where it says so.
    pub allowed: Option<Vec<String>>,
    /// Where it says so otherwise.
    pub info: Option<ResourcePath>,
}

/// The list of a service's systems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// The places of the members, each once.
    pub members: Vec<ResourcePath>,
    /// What is wrong with the members whose place cannot be read.
    pub unreadable: Vec<String>,
    /// Where the list goes on.
    pub next: Option<ResourcePath>,
}

impl System {
    /// Whether this is its `Id`, which no other system of the service has.
    pub(super) fn has_id(&self, name: &str) -> bool {
        self.id.as_deref() == Some(name)
    }

    /// Whether this is its `Id` or its `Name`.
    pub fn is_called(&self, name: &str) -> bool {
        [&self.id, &self.name].into_iter().flatten().any(|found| found == name)
    }
}

/// Reads a `ComputerSystem` or a `Chassis`. A state beside an error is none: the service may show
/// what it saw last, or nothing that it ever saw.
pub fn parse_system(body: &[u8]) -> Result<System, String> {
    let raw: RawSystem = read("the system", body)?;
    if let Some(words) = error_beside(raw.error.as_ref(), body) {
        return Err(format!("the system is shown with an error: {words}"));
    }
    let (mut power, mut power_words) = match &raw.power_state {
        Some(Value::String(word)) => {
            let state = match word.as_str() {
                "On" => PowerState::On,
                "Off" => PowerState::Off,
                _ => PowerState::Unknown,
            };
            (state, format!("PowerState {}", quoted(word)))
        }
        None | Some(Value::Null) => (PowerState::Unknown, "it shows no PowerState".to_owned()),
        Some(other) => (PowerState::Unknown, {
            let words = quoted(&other.to_string());
            format!("PowerState {words}, which is no state")
        }),
    };
    let doubt = doubt(&[raw.messages.as_ref(), raw.power_messages.as_ref()]);
    let is_doubtful = doubt.is_some();
    if let Some(why) = doubt {
        power = PowerState::Unknown;
        power_words = format!("{power_words}, beside an error: {why}");
    }
    let shows_power = !is_doubtful && raw.power_state.is_some_and(|state| state.is_string());
    let reset = parse_reset(raw.actions.as_ref());
    let (id, name) = (string(raw.id), string(raw.name));
    Ok(System { id, name, power, power_words, shows_power, is_doubtful, reset })
}

/// The words of an `error` in a body, where it is one. Some services write an empty one, or one
/// that says `Success`, beside what is asked for.
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
    // Some services give the place of a hint as a reference.
    let info = action.get("@Redfish.ActionInfo");
    let info = info.map(|info| info.get("@odata.id").unwrap_or(info)).and_then(Value::as_str);
    let allowed = action.get("ResetType@Redfish.AllowableValues").and_then(strings);
    Ok(Reset { target, allowed, info: info.and_then(ResourcePath::of_url) })
}

/// The reset types in a list that has some; anything else says nothing. Some services write several
/// of them into one text.
fn strings(list: &Value) -> Option<Vec<String>> {
    let texts = list.as_array()?.iter().filter_map(Value::as_str);
    let words = texts.flat_map(|text| text.split([',', ';', '|', ' '])).map(str::trim);
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
    (!words.is_empty()).then_some(words)
}

fn string(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// Reads a collection, or one part of it: the places of its members. What it says of its length
/// does not count.
pub fn parse_collection(body: &[u8]) -> Result<Collection, String> {
    let raw: RawCollection = read("the list of systems", body)?;
    let mut collection = Collection { members: Vec::new(), unreadable: Vec::new(), next: None };
    let error = error_beside(raw.error.as_ref(), body);
    if let Some(words) = error.or_else(|| doubt(&[raw.messages.as_ref()])) {
        collection.unreadable.push(format!("the list is shown with an error: {words}"));
    }
    for link in [&raw.next, &raw.next_of_all].into_iter().flatten() {
        // Some services give a place as a reference. No text at all is how others end a list.
        let link = link.get("@odata.id").unwrap_or(link).as_str().unwrap_or_default().trim();
        if !link.is_empty() {
            collection.next = ResourcePath::of_page(link);
            if collection.next.is_none() {
                collection
                    .unreadable
                    .push(format!("where the list goes on: {}", no_path(&words(link))));
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
    /// Adds a member, unless it is there.
    pub(super) fn add(&mut self, path: ResourcePath) {
        if !self.members.iter().any(|known| known.is_same(&path)) {
            self.members.push(path);
        }
    }
}

/// Reads an `ActionInfo`: the reset types that it allows, where it says so.
pub fn parse_action_info(body: &[u8]) -> Option<Vec<String>> {
    let info: Value = read("the description of the reset action", body).ok()?;
    let mut parameters = info.get("Parameters")?.as_array()?.iter();
    let is_reset_type =
        |parameter: &&Value| parameter.get("Name").and_then(Value::as_str) == Some("ResetType");
    strings(parameters.find(is_reset_type)?.get("AllowableValues")?)
}

/// Where a service root says that sessions are opened.
pub(super) fn parse_sessions_place(body: &[u8]) -> Option<ResourcePath> {
    let root: Value = read("the service root", body).ok()?;
    let place = root.get("Links")?.get("Sessions")?.get("@odata.id")?.as_str()?;
    ResourcePath::of_url(place)
}

/// Where a new session is, as its own description says.
pub(super) fn parse_place(body: &[u8]) -> Option<ResourcePath> {
    let resource: Value = read("the resource", body).ok()?;
    ResourcePath::of_url(resource.get("@odata.id")?.as_str()?)
}

/// The reset type for `order`, of those that the service allows.
pub fn reset_type(order: Order, allowed: Option<&[String]>) -> Result<&'static str, String> {
    let types: &[&'static str] = match order {
        Order::Off => &["ForceOff"],
        Order::On => &["On", "ForceOn"],
        Order::Cycle => &["ForceRestart", "PowerCycle"],
    };
    let Some(allowed) = allowed else { return Ok(types[0]) };
    // The case does not count for who offers; what is sent is written as the standard writes it.
    let is_allowed =
        |wanted: &&&str| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(wanted));
    types.iter().find(is_allowed).copied().ok_or_else(|| {
        let (types, allowed) = (types.join(" or "), quoted(&allowed.join(", ")));
        format!("the system cannot be told {types}: it allows only {allowed}")
    })
}

fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, String> {
    serde_json::from_str(&text_of(body)).map_err(|error| {
        // These words may hold a value.
        format!("{what} cannot be read: {}", quoted(&json_problem(body, &error)))
    })
}

/// What the service says, on one line.
fn words(text: &str) -> String {
    quoted(&text.escape_debug().to_string())
}

#[derive(Deserialize)]
struct RawSystem {
    #[serde(rename = "Id")]
    id: Option<Value>,
    #[serde(rename = "Name")]
    name: Option<Value>,
    #[serde(rename = "PowerState")]
    power_state: Option<Value>,
    #[serde(rename = "PowerState@Message.ExtendedInfo")]
    power_messages: Option<Value>,
    #[serde(rename = "@Message.ExtendedInfo")]
    messages: Option<Value>,
    #[serde(rename = "Actions")]
    actions: Option<Value>,
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
