//! Which members of a service's answers count.

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
            r#"{{"PowerState": "Off", "@Message.ExtendedInfo": [
                    {{"Message": "A fan has failed.", "Severity": "Critical",
                    "RelatedProperties": {related}}}]}}"#
        );
        assert_eq!(parse_system(text.as_bytes()).unwrap().power, state, "{related}");
    }
    let twice = parse_system(br#"{"PowerState": "On", "PowerState": "Off"}"#).unwrap_err();
    assert!(twice.contains("stands there twice"), "{twice}");
}

#[test]
fn a_collection_is_the_places_of_its_members_each_once() {
    let members = parse_collection(
        br#"{"Members": [{"@odata.id": "/S/1"}, {"@odata.id": "/S/2"}],
                "Members@odata.count": 2}"#,
    );
    let members: Vec<String> = members.unwrap().members.iter().map(ToString::to_string).collect();
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
        "the system does not support ForceOff: it allows only GracefulShutdown, On"
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
    let mark = [b"\xef\xbb\xbf", &b"{\"PowerState\": \"Off\", \"Model\": \"R\xe9\"}"[..]].concat();
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
