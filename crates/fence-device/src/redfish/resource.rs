//! What a Redfish service sends: texts in, checked values out. Nothing here is I/O.
//!
//! Only what a fence needs is read; everything else may be anything. What the standard calls optional is a
//! hint: a hint that is missing or cannot be read is no hint, and stops nothing. A member that stands
//! there twice spoils the whole answer: such a service says nothing that could be relied on.
//!
//! Texts are as long as they come: who passes them on removes secrets first, and then cuts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use fence_core::execution::Order;
use fence_protocol::{PowerState, json_problem};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::address::bare;
use super::answer::{doubt, is_empty, refusal, text_of};
use crate::quoted;

/// Where a resource is on its service: an absolute path, so that following it never leads to another
/// host.
#[derive(Clone, Debug)]
pub struct ResourcePath {
    text: String,
    /// The service gave it, so that it is quoted in messages.
    is_quotation: bool,
}

impl PartialEq for ResourcePath {
    /// Whether it is the same place, whoever named it.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ResourcePath {}

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

impl ResourcePath {
    /// Where a service whose URLs start with `base`, and whose network address is `ip`, sends a reader of
    /// `from` on to, if that is on itself. Services leave their port out, or name the standard one. Under a name
    /// that is not the one by which the service is reached, it may be another machine: only the resource that
    /// was asked for is then looked for here, perhaps with another slash at its end.
    pub fn redirected(location: &str, from: &Self, base: &str, ip: Option<IpAddr>) -> Option<Self> {
        let Some((authority, path)) = split_url(location) else {
            return Self::of_service(location);
        };
        let path = Self::of_service(path)?;
        let (host, port) = split_port(authority);
        let (own_host, own_port) = split_port(split_url(base)?.0);
        let is_own_host = host.eq_ignore_ascii_case(own_host)
            || bare(host).parse().is_ok_and(|named: IpAddr| Some(named) == ip);
        let is_own_port = port.is_none_or(|port| Some(port) == own_port || is_standard(port));
        ((is_own_host && is_own_port) || path.is_same(from)).then_some(path)
    }

    /// The path of a URL by which a service names a resource of its own. Services name themselves in many
    /// ways, so the host does not count: whatever stands there, the call goes to this very service.
    pub fn of_url(url: &str) -> Option<Self> {
        Self::of_service(split_url(url).map_or(url, |(_, path)| path))
    }

    fn of_service(path: &str) -> Option<Self> {
        let path: Self = path.parse().ok()?;
        Some(ResourcePath { is_quotation: true, ..path })
    }

    /// The path for a message: a quotation where the service gave it.
    pub(super) fn quoted(&self) -> String {
        if self.is_quotation { quoted(&self.text) } else { self.text.clone() }
    }

    /// The path of a URL by which a service names the next part of a list: here a query is part of it.
    fn of_page(url: &str) -> Option<Self> {
        let Some((page, query)) = url.split_once('?') else { return Self::of_url(url) };
        let path = Self::of_url(page)?;
        let is_query = query.bytes().all(|byte| byte == b'?' || is_allowed(byte));
        let whole = format!("{path}?{query}");
        (is_query && whole.len() <= PATH_BYTES_MAX)
            .then_some(ResourcePath { text: whole, is_quotation: true })
    }

    /// Whether both are one resource, as `/S/1` and `/S/1/` are.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.without_slash() == other.without_slash()
    }

    /// Whether the last part of the path is `name`, as it is for the `Id` of nearly every resource.
    pub(super) fn ends_in(&self, name: &str) -> bool {
        self.without_slash().rsplit('/').next() == Some(name)
    }

    /// The path without the slash at its end.
    fn without_slash(&self) -> &str {
        self.text.strip_suffix('/').unwrap_or(&self.text)
    }
}

/// The host, perhaps with a port, and the path of a URL.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (is_http && !authority.contains('@')).then_some((authority, path))
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_standard(port: &str) -> bool {
    ["", "80", "443"].contains(&port)
}

impl FromStr for ResourcePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_path = text.starts_with('/') && !text.starts_with("//");
        if is_path && text.len() <= PATH_BYTES_MAX && text.bytes().all(is_allowed) {
            Ok(ResourcePath { text: text.to_owned(), is_quotation: false })
        } else {
            Err(no_path(&text.escape_debug().to_string()))
        }
    }
}

/// Whether a byte may stand in a path.
fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte)
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
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

/// Reads a `ComputerSystem` or a `Chassis`. A state beside an error is none: the service may show what it saw
/// last, or nothing that it ever saw.
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

/// The words of an `error` in a body, where it is one. Some services write an empty one, or one that says
/// `Success`, beside what is asked for.
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

/// The reset types in a list that has some; anything else says nothing. Some services write several of them
/// into one text.
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

/// Reads a collection, or one part of it: the places of its members. What it says of its length does not
/// count.
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

fn no_path(shown: &str) -> String {
    format!("\"{shown}\" is no path of a Redfish resource")
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

const PATH_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secrets;

    #[test]
    fn a_system_shows_its_power_and_how_it_is_reset() {
        let system = parse_system(
            br##"{"Id": "1", "Name": "node1", "PowerState": "On", "Boot": [7], "Actions": {
                "#ComputerSystem.Reset": {"target": "/redfish/v1/Systems/1/Actions/Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff"]},
                "Oem": {}}}"##,
        )
        .unwrap();

        assert_eq!((system.id.as_deref(), system.name.as_deref()), (Some("1"), Some("node1")));
        assert_eq!(system.power, PowerState::On);
        let reset = system.reset.unwrap();
        assert_eq!(reset.target.to_string(), "/redfish/v1/Systems/1/Actions/Reset");
        assert_eq!(reset.allowed.unwrap(), ["On", "ForceOff"]);
        assert_eq!(reset.info, None);
    }

    #[test]
    fn only_the_words_on_and_off_show_a_state() {
        for (text, state) in [
            (r#"{"PowerState": "On"}"#, PowerState::On),
            (r#"{"PowerState": "Off"}"#, PowerState::Off),
            (r#"{"PowerState": "off"}"#, PowerState::Unknown),
            (r#"{"PowerState": "PoweringOff"}"#, PowerState::Unknown),
            (r#"{"PowerState": "PoweringOn"}"#, PowerState::Unknown),
            (r#"{"PowerState": "Paused"}"#, PowerState::Unknown),
            (r#"{"PowerState": null}"#, PowerState::Unknown),
            (r#"{"PowerState": false}"#, PowerState::Unknown),
            (r#"{"PowerState": ["Off"]}"#, PowerState::Unknown),
            ("{}", PowerState::Unknown),
        ] {
            assert_eq!(parse_system(text.as_bytes()).unwrap().power, state, "{text}");
        }
        for text in ["", "Off", "[]", r#"{"PowerState": "Off""#] {
            assert!(parse_system(text.as_bytes()).is_err(), "{text}");
        }
        let failed = br#"{"error": {"message": "Timed out."}, "PowerState": "Off"}"#;
        let failed = parse_system(failed).unwrap_err();
        let failed = Secrets::default().shown(&failed);
        assert_eq!(failed, "the system is shown with an error: Timed out.");
        for nothing in [
            "{}",
            r#""""#,
            "[]",
            "null",
            "false",
            r#"{"code": "", "@Message.ExtendedInfo": [{}]}"#,
            r#"{"code": "Base.1.8.Success", "message": "ok"}"#,
            r#"{"@Message.ExtendedInfo": [{"MessageId": "Base.1.8.Success"}]}"#,
        ] {
            let text = format!(r#"{{"error": {nothing}, "PowerState": "Off"}}"#);
            assert_eq!(parse_system(text.as_bytes()).unwrap().power, PowerState::Off, "{nothing}");
        }
        for error in [
            r#""no""#,
            "7",
            "true",
            r#"{"code": "X.Y"}"#,
            r#"[{"MessageId": "X.Y"}]"#,
            r#"{"code": "Base.1.8.InternalError", "@Message.ExtendedInfo": [{}]}"#,
        ] {
            let text = format!(r#"{{"error": {error}, "PowerState": "Off"}}"#);
            assert!(parse_system(text.as_bytes()).is_err(), "{error}");
        }
        for (related, state) in [
            (r##"["#/Status"]"##, PowerState::Off),
            (r##"["#/Status", "#/PowerState"]"##, PowerState::Unknown),
            ("[]", PowerState::Unknown),
        ] {
            let text = format!(
                r#"{{"PowerState": "Off", "@Message.ExtendedInfo": [{{"Message": "A fan has failed.",
                    "Severity": "Critical", "RelatedProperties": {related}}}]}}"#
            );
            assert_eq!(parse_system(text.as_bytes()).unwrap().power, state, "{related}");
        }
        let twice = parse_system(br#"{"PowerState": "On", "PowerState": "Off"}"#).unwrap_err();
        assert!(twice.contains("stands there twice"), "{twice}");
    }

    #[test]
    fn a_path_never_leads_to_another_host() {
        let reset = |target: &str| {
            let text = format!(r##"{{"Actions": {{"#ComputerSystem.Reset": {target}}}}}"##);
            parse_system(text.as_bytes())
        };
        for action in ["null", "{}", "[]", "7", r#"{"target": null}"#] {
            let problem = reset(action).unwrap().reset.unwrap_err();
            assert!(problem.contains("no action to reset it"), "{problem}");
        }
        for target in ["//elsewhere/", "relative", "", "/a b", "/a\\r\\nX: y", "ftp://bmc/a"] {
            let problem =
                reset(&format!(r#"{{"target": "{target}"}}"#)).unwrap().reset.unwrap_err();
            assert!(problem.contains("no path"), "{problem}");
        }
        // A service's own name for itself is not the one by which it is reached.
        let own = reset(r#"{"target": "https://name-of-its-own/S/1/Reset"}"#).unwrap().reset;
        assert_eq!(own.unwrap().target.to_string(), "/S/1/Reset");
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        long.parse::<ResourcePath>().unwrap_err();

        let base = "https://bmc:8443";
        let ip = Some([10, 0, 0, 1].into());
        let redirected_from = |from: &str, location: &str| {
            let from = from.parse().unwrap();
            ResourcePath::redirected(location, &from, base, ip).map(|path| path.to_string())
        };
        let redirected = |location: &str| redirected_from("/x", location);
        assert_eq!(redirected("/a/b").unwrap(), "/a/b");
        for own in ["bmc:8443", "bmc", "BMC", "bmc:443", "10.0.0.1", "10.0.0.1:8443"] {
            assert_eq!(redirected(&format!("https://{own}/a")).unwrap(), "/a", "{own}");
        }
        for location in [
            "https://bmc:84430/a",
            "https://other/a",
            "https://10.0.0.2/a",
            "https://bmc@other/a",
            "https://other@bmc/a",
            "//other/a",
            "ftp://bmc/a",
            "a",
            "",
        ] {
            assert_eq!(redirected(location), None, "{location}");
        }
        // Whatever it is called there, what was asked for is asked for here.
        for other in ["other", "other:8443", "10.0.0.2", "bmc:84430"] {
            let location = format!("https://{other}/a/");
            assert_eq!(redirected_from("/a", &location).unwrap(), "/a/");
            assert_eq!(redirected_from("/a/", &location).unwrap(), "/a/");
            assert_eq!(redirected_from("/b/a", &location), None);
            assert_eq!(redirected_from("/A", &location), None);
        }
        let of_url = |url: &str| ResourcePath::of_url(url).map(|path| path.to_string());
        assert_eq!(of_url("https://name/Sessions/1").unwrap(), "/Sessions/1");
        assert_eq!(of_url("/Sessions/1").unwrap(), "/Sessions/1");
        assert_eq!(of_url("https://name"), None);
    }

    #[test]
    fn a_collection_is_the_places_of_its_members_each_once() {
        let members = parse_collection(
            br#"{"Members": [{"@odata.id": "/S/1"}, {"@odata.id": "/S/2"}],
                "Members@odata.count": 2}"#,
        );
        let members: Vec<String> =
            members.unwrap().members.iter().map(ToString::to_string).collect();
        assert_eq!(members, ["/S/1", "/S/2"]);
        assert_eq!(parse_collection(br#"{"Members": []}"#).unwrap().members, []);

        let one = r#"{"@odata.id": "/S/1"}"#;
        for text in [
            format!(r#"{{"Members": [{one}], "Members@odata.count": 2}}"#),
            format!(r#"{{"Members": [{one}], "Members@odata.count": "1"}}"#),
            format!(r#"{{"Members": [{one}], "Members@odata.nextLink": null}}"#),
            format!(r#"{{"Members": [{one}, {one}], "Members@odata.count": 1}}"#),
            format!(r#"{{"Members": [{one}, {{"@odata.id": "/S/1/"}}]}}"#),
            r#"{"Members": [{"@odata.id": "https://name-of-its-own/S/1"}]}"#.to_owned(),
        ] {
            let collection = parse_collection(text.as_bytes()).unwrap();
            assert_eq!(collection.members, ["/S/1".parse().unwrap()], "{text}");
            assert_eq!(collection.unreadable.len(), 0, "{text}");
        }
        for member in ["{}", r#"{"@odata.id": "//x"}"#, r#"{"@odata.id": 7}"#, "null", "7"] {
            let text = format!(r#"{{"Members": [{one}, {member}]}}"#);
            let collection = parse_collection(text.as_bytes()).unwrap();
            assert_eq!((collection.members.len(), collection.unreadable.len()), (1, 1), "{text}");
        }
        for text in ["{}", r#"{"Members": null}"#, r#"{"Members": {}}"#, ""] {
            parse_collection(text.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn a_collection_goes_on_where_it_says() {
        let next = |link: &str| {
            let text = format!(r#"{{"Members": [{{"@odata.id": "/S/1"}}], {link}}}"#);
            let collection = parse_collection(text.as_bytes()).unwrap();
            assert_eq!(collection.members.len(), 1, "{link}");
            (collection.next.map(|path| path.to_string()), collection.unreadable.len())
        };
        for member in ["Members@odata.nextLink", "@odata.nextLink"] {
            for none in [r#""""#, r#"" ""#, "null", "{}", "[]", r#"{"@odata.id": ""}"#] {
                assert_eq!(next(&format!(r#""{member}": {none}"#)), (None, 0), "{none}");
            }
            for (link, path) in [
                (r#""/S?$skip=1""#, "/S?$skip=1"),
                (r#""/S/page/2""#, "/S/page/2"),
                (r#""https://name-of-its-own/S?$skip=1&$top=2""#, "/S?$skip=1&$top=2"),
                (r#"{"@odata.id": "/S?$skiptoken=a?b"}"#, "/S?$skiptoken=a?b"),
            ] {
                let found = next(&format!(r#""{member}": {link}"#));
                assert_eq!(found, (Some(path.to_owned()), 0));
            }
            for bad in [r#""S?$skip=1""#, r#""//x/S?a""#, r#""/S?a b""#, "\"/S?a#b\"", r#""?""#] {
                assert_eq!(next(&format!(r#""{member}": {bad}"#)), (None, 1), "{bad}");
            }
        }
        // A list that was broken off is not whole.
        for error in [
            r#""error": {"message": "Timed out."}"#,
            r#""@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.SYS518"}]"#,
        ] {
            assert_eq!(next(error), (None, 1), "{error}");
        }
        assert_eq!(next(r#""error": {}"#), (None, 0));
    }

    #[test]
    fn an_order_is_a_reset_type_that_the_service_allows() {
        let allowed = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(reset_type(Order::Off, None).unwrap(), "ForceOff");
        assert_eq!(reset_type(Order::On, None).unwrap(), "On");
        assert_eq!(reset_type(Order::Cycle, None).unwrap(), "ForceRestart");

        let few = allowed(&["ForceOn", "PowerCycle", "ForceOff"]);
        assert_eq!(reset_type(Order::Off, Some(&few)).unwrap(), "ForceOff");
        assert_eq!(reset_type(Order::On, Some(&few)).unwrap(), "ForceOn");
        assert_eq!(reset_type(Order::Cycle, Some(&few)).unwrap(), "PowerCycle");

        let gentle = allowed(&["GracefulShutdown", "On"]);
        let problem = reset_type(Order::Off, Some(&gentle)).unwrap_err();
        let problem = Secrets::default().shown(&problem);
        assert_eq!(
            problem,
            "the system cannot be told ForceOff: it allows only GracefulShutdown, On"
        );

        let lower = allowed(&["on", "FORCEOFF"]);
        assert_eq!(reset_type(Order::Off, Some(&lower)).unwrap(), "ForceOff");
        assert_eq!(reset_type(Order::On, Some(&lower)).unwrap(), "On");
        reset_type(Order::Cycle, Some(&lower)).unwrap_err();

        let joined = br#"{"Parameters": [{"Name": "ResetType",
            "AllowableValues": ["On, ForceOff;Nmi", "", "PushPowerButton |ForceOn"]}]}"#;
        let words = ["On", "ForceOff", "Nmi", "PushPowerButton", "ForceOn"];
        assert_eq!(parse_action_info(joined).unwrap(), words);
        let info = br#"{"Parameters": [{"Name": "Other", "AllowableValues": ["x"]},
            {"Name": "ResetType", "AllowableValues": ["ForceOff"]}]}"#;
        assert_eq!(parse_action_info(info).unwrap(), ["ForceOff"]);
        for text in [
            "",
            "[]",
            "{}",
            r#"{"Parameters": []}"#,
            r#"{"Parameters": {"Name": "ResetType", "AllowableValues": ["On"]}}"#,
            r#"{"Parameters": [{"Name": "ResetType"}]}"#,
            r#"{"Parameters": [{"Name": "ResetType", "AllowableValues": []}]}"#,
            r#"{"Parameters": [{"Name": "ResetType", "AllowableValues": ["", ", "]}]}"#,
            r#"{"Parameters": [{"Name": "ResetType", "AllowableValues": "On"}]}"#,
            r#"{"Parameters": [7, {"Name": 7}]}"#,
        ] {
            assert_eq!(parse_action_info(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_hint_that_cannot_be_read_is_none() {
        let reset = |hint: &str| {
            let action = format!(r#"{{"target": "/R", {hint}}}"#);
            let text = format!(r##"{{"Actions": {{"#ComputerSystem.Reset": {action}}}}}"##);
            parse_system(text.as_bytes()).unwrap().reset.unwrap()
        };
        for hint in ["null", "[]", "{}", "7", r#""On""#, "[null]", "[[]]"] {
            let hint = format!(r#""ResetType@Redfish.AllowableValues": {hint}"#);
            assert_eq!(reset(&hint).allowed, None, "{hint}");
        }
        let some = reset(r#""ResetType@Redfish.AllowableValues": ["On", null, "ForceOff", 7]"#);
        assert_eq!(some.allowed.unwrap(), ["On", "ForceOff"]);

        for info in ["null", r#""""#, "{}", "7", r#""relative""#, r#"{"@odata.id": null}"#] {
            let info = format!(r#""@Redfish.ActionInfo": {info}"#);
            assert_eq!(reset(&info).info, None, "{info}");
        }
        for info in [r#""/I""#, r#"{"@odata.id": "/I"}"#, r#""https://name-of-its-own/I""#] {
            let info = reset(&format!(r#""@Redfish.ActionInfo": {info}"#)).info;
            assert_eq!(info.unwrap().to_string(), "/I");
        }
    }

    #[test]
    fn what_is_optional_spoils_nothing_else() {
        for text in [
            r#"{"PowerState": "Off", "Id": 7, "Name": null, "Actions": []}"#,
            r#"{"PowerState": "Off", "Actions": null}"#,
            r##"{"PowerState": "Off", "Actions": {"#ComputerSystem.Reset": {"target": 7}}}"##,
        ] {
            let system = parse_system(text.as_bytes()).unwrap();
            assert_eq!(system.power, PowerState::Off, "{text}");
            assert!(system.reset.is_err() && system.id.is_none(), "{text}");
        }
        let mark =
            [b"\xef\xbb\xbf", &b"{\"PowerState\": \"Off\", \"Model\": \"R\xe9\"}"[..]].concat();
        assert_eq!(parse_system(&mark).unwrap().power, PowerState::Off);
    }

    #[test]
    fn a_chassis_is_reset_by_its_own_action() {
        let text =
            br##"{"PowerState": "On", "Actions": {"#Chassis.Reset": {"target": "/C/1/Reset"}}}"##;
        let reset = parse_system(text).unwrap().reset.unwrap();
        assert_eq!(reset.target.to_string(), "/C/1/Reset");
        let manager = br##"{"Actions": {"#Manager.Reset": {"target": "/M/1/Reset"}}}"##;
        assert!(parse_system(manager).unwrap().reset.is_err());
    }
}
