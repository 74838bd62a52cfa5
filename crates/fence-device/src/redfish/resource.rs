//! What a Redfish service sends: texts in, checked values out. Nothing here is I/O.
//!
//! Only what a fence needs is read; everything else may be anything. A member of a wrong type, or one
//! that is there twice, spoils the whole answer: such a device says nothing that could be relied on.
//!
//! Texts are as long as they come: who passes them on removes secrets first, and then cuts.

use std::fmt;
use std::str::FromStr;

use fence_core::execution::Order;
use fence_protocol::PowerState;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// Where a resource is on its service: an absolute path, so that following it never leads to another
/// host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePath(String);

/// A computer system, as far as a fence concerns it.
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
    /// How it is reset; `None` where it cannot be.
    pub reset: Option<Reset>,
}

/// The action `ComputerSystem.Reset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Where orders are sent.
    pub target: ResourcePath,
    /// The reset types that the service allows, where it says so.
    pub allowed: Option<Vec<String>>,
    /// Where it says so otherwise.
    pub info: Option<ResourcePath>,
}

impl ResourcePath {
    /// Where a service whose URLs start with `base` sends a reader on to, if that is on itself.
    pub fn redirected(location: &str, base: &str) -> Option<Self> {
        location.strip_prefix(base).unwrap_or(location).parse().ok()
    }

    /// The path of a URL. Services name themselves in many ways in the URL of a new session.
    pub fn of_url(url: &str) -> Option<Self> {
        let path = url.split_once("://").and_then(|(_, rest)| Some(&rest[rest.find('/')?..]));
        path.unwrap_or(url).parse().ok()
    }
}

impl FromStr for ResourcePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte);
        let is_path = text.starts_with('/') && !text.starts_with("//");
        if is_path && text.len() <= PATH_BYTES_MAX && text.bytes().all(is_allowed) {
            Ok(ResourcePath(text.to_owned()))
        } else {
            Err(format!("\"{}\" is no path of a Redfish resource", text.escape_debug()))
        }
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl System {
    /// Whether this is its `Id` or its `Name`.
    pub fn is_called(&self, name: &str) -> bool {
        [&self.id, &self.name].into_iter().flatten().any(|found| found == name)
    }
}

/// Reads a `ComputerSystem`.
pub fn parse_system(body: &[u8]) -> Result<System, String> {
    let raw: RawSystem = read("the system", body)?;
    if raw.error.is_some() {
        let words = error_words(body).unwrap_or_default();
        return Err(format!("the system is shown with an error: {words}"));
    }
    let reset = raw.actions.and_then(|actions| actions.reset);
    let reset = match reset {
        Some(RawReset { target: Some(target), allowed, info }) => Some(Reset {
            target: target.parse()?,
            allowed,
            info: info.as_deref().map(str::parse).transpose()?,
        }),
        _ => None,
    };
    let (power, power_words) = match raw.power_state.as_deref() {
        Some("On") => (PowerState::On, "PowerState On".to_owned()),
        Some("Off") => (PowerState::Off, "PowerState Off".to_owned()),
        Some(other) => (PowerState::Unknown, format!("PowerState {other}")),
        None => (PowerState::Unknown, "it shows no PowerState".to_owned()),
    };
    Ok(System { id: raw.id, name: raw.name, power, power_words, reset })
}

/// Reads a collection: the places of all its members. Part of them is an error.
pub fn parse_collection(body: &[u8]) -> Result<Vec<ResourcePath>, String> {
    let raw: RawCollection = read("the list of systems", body)?;
    let is_whole = raw.count.is_none_or(|count| count == raw.members.len());
    if raw.next.is_some() || !is_whole {
        return Err("the list of systems is not given at once: configure 'system' as a URI".into());
    }
    raw.members.into_iter().map(|member| member.place.parse()).collect()
}

/// Reads an `ActionInfo`: the reset types that it allows, where it says so.
pub fn parse_action_info(body: &[u8]) -> Result<Option<Vec<String>>, String> {
    let raw: RawActionInfo = read("the description of the reset action", body)?;
    let mut parameters = raw.parameters.into_iter();
    let reset_type = parameters.find(|parameter| parameter.name.as_deref() == Some("ResetType"));
    Ok(reset_type.and_then(|parameter| parameter.allowed))
}

/// The reset type for `order`, of those that the service allows.
pub fn reset_type(order: Order, allowed: Option<&[String]>) -> Result<&'static str, String> {
    let types: &[&'static str] = match order {
        Order::Off => &["ForceOff"],
        Order::On => &["On", "ForceOn"],
        Order::Cycle => &["ForceRestart", "PowerCycle"],
    };
    let Some(allowed) = allowed else { return Ok(types[0]) };
    let is_allowed = |wanted: &&&str| allowed.iter().any(|allowed| allowed == **wanted);
    types.iter().find(is_allowed).copied().ok_or_else(|| {
        let (types, allowed) = (types.join(" or "), allowed.join(", "));
        format!("the system cannot be told {types}: it allows only {allowed}")
    })
}

/// What the service says of an error.
pub fn error_words(body: &[u8]) -> Option<String> {
    let error = serde_json::from_slice::<RawProblem>(body).ok()?.error?;
    let details = error.details.unwrap_or_default();
    let mut messages: Vec<String> = details.into_iter().filter_map(|info| info.message).collect();
    if messages.is_empty() {
        messages.extend(error.message);
    }
    (!messages.is_empty()).then(|| messages.join(" "))
}

fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("{what} cannot be read: {error}"))
}

#[derive(Deserialize)]
struct RawSystem {
    #[serde(rename = "Id")]
    id: Option<String>,
    #[serde(rename = "Name")]
    name: Option<String>,
    #[serde(rename = "PowerState")]
    power_state: Option<String>,
    #[serde(rename = "Actions")]
    actions: Option<RawActions>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawActions {
    #[serde(rename = "#ComputerSystem.Reset")]
    reset: Option<RawReset>,
}

#[derive(Deserialize)]
struct RawReset {
    target: Option<String>,
    #[serde(rename = "ResetType@Redfish.AllowableValues")]
    allowed: Option<Vec<String>>,
    #[serde(rename = "@Redfish.ActionInfo")]
    info: Option<String>,
}

#[derive(Deserialize)]
struct RawCollection {
    #[serde(rename = "Members")]
    members: Vec<RawReference>,
    #[serde(rename = "Members@odata.count")]
    count: Option<usize>,
    #[serde(rename = "Members@odata.nextLink")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct RawReference {
    #[serde(rename = "@odata.id")]
    place: String,
}

#[derive(Deserialize)]
struct RawActionInfo {
    #[serde(rename = "Parameters")]
    parameters: Vec<RawParameter>,
}

#[derive(Deserialize)]
struct RawParameter {
    #[serde(rename = "Name")]
    name: Option<String>,
    #[serde(rename = "AllowableValues")]
    allowed: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawProblem {
    error: Option<RawError>,
}

#[derive(Deserialize)]
struct RawError {
    message: Option<String>,
    #[serde(rename = "@Message.ExtendedInfo")]
    details: Option<Vec<RawMessage>>,
}

#[derive(Deserialize)]
struct RawMessage {
    #[serde(rename = "Message")]
    message: Option<String>,
}

const PATH_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

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
            ("{}", PowerState::Unknown),
        ] {
            assert_eq!(parse_system(text.as_bytes()).unwrap().power, state, "{text}");
        }
        for text in ["", "Off", "[]", r#"{"PowerState": false}"#, r#"{"PowerState": "Off""#] {
            assert!(parse_system(text.as_bytes()).is_err(), "{text}");
        }
        let failed = br#"{"error": {"message": "Timed out."}, "PowerState": "Off"}"#;
        let failed = parse_system(failed).unwrap_err();
        assert_eq!(failed, "the system is shown with an error: Timed out.");
        let twice = parse_system(br#"{"PowerState": "On", "PowerState": "Off"}"#).unwrap_err();
        assert!(twice.contains("duplicate field"), "{twice}");
    }

    #[test]
    fn a_path_never_leads_to_another_host() {
        let reset = |target: &str| {
            let text = format!(r##"{{"Actions": {{"#ComputerSystem.Reset": {target}}}}}"##);
            parse_system(text.as_bytes())
        };
        assert_eq!(reset("null").unwrap().reset, None);
        assert_eq!(reset("{}").unwrap().reset, None);
        for target in ["https://elsewhere/", "//elsewhere/", "relative", "", "/a b", "/a\\r\\nX: y"]
        {
            reset(&format!(r#"{{"target": "{target}"}}"#)).unwrap_err();
        }
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        long.parse::<ResourcePath>().unwrap_err();

        let base = "https://bmc:8443";
        let redirected =
            |location: &str| ResourcePath::redirected(location, base).map(|path| path.to_string());
        assert_eq!(redirected("/a/b").unwrap(), "/a/b");
        assert_eq!(redirected("https://bmc:8443/a").unwrap(), "/a");
        for location in ["https://bmc:84430/a", "https://other/a", "http://bmc:8443/a", "a", ""] {
            assert_eq!(redirected(location), None, "{location}");
        }
        let of_url = |url: &str| ResourcePath::of_url(url).map(|path| path.to_string());
        assert_eq!(of_url("https://name/Sessions/1").unwrap(), "/Sessions/1");
        assert_eq!(of_url("/Sessions/1").unwrap(), "/Sessions/1");
        assert_eq!(of_url("https://name"), None);
    }

    #[test]
    fn a_collection_is_read_whole_or_not_at_all() {
        let members = parse_collection(
            br#"{"Members": [{"@odata.id": "/S/1"}, {"@odata.id": "/S/2"}],
                "Members@odata.count": 2}"#,
        );
        let members: Vec<String> = members.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(members, ["/S/1", "/S/2"]);
        assert_eq!(parse_collection(br#"{"Members": []}"#).unwrap(), []);

        for text in [
            r#"{"Members": [{"@odata.id": "/S/1"}], "Members@odata.count": 2}"#,
            r#"{"Members": [{"@odata.id": "/S/1"}], "Members@odata.nextLink": "/S?$skip=1"}"#,
        ] {
            let problem = parse_collection(text.as_bytes()).unwrap_err();
            assert!(problem.contains("not given at once"), "{problem}");
        }
        for text in ["{}", r#"{"Members": [{}]}"#, r#"{"Members": [{"@odata.id": "//x"}]}"#] {
            parse_collection(text.as_bytes()).unwrap_err();
        }
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
        assert_eq!(
            problem,
            "the system cannot be told ForceOff: it allows only GracefulShutdown, On"
        );

        let info = br#"{"Parameters": [{"Name": "Other", "AllowableValues": ["x"]},
            {"Name": "ResetType", "AllowableValues": ["ForceOff"]}]}"#;
        assert_eq!(parse_action_info(info).unwrap().unwrap(), ["ForceOff"]);
        assert_eq!(parse_action_info(br#"{"Parameters": []}"#).unwrap(), None);
        parse_action_info(b"{}").unwrap_err();
    }

    #[test]
    fn an_error_is_told_in_the_services_words() {
        let words = |text: &str| error_words(text.as_bytes());
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
        for text in ["", "<html>", "{}", r#"{"error": {}}"#, r#"{"error": {"message": 7}}"#] {
            assert_eq!(words(text), None, "{text}");
        }
    }
}
