//! The Redfish driver against services of the field: errors and tasks in the body of a success,
//! links that lead nowhere, temporary refusals, redirections, chassis.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::{fs, thread};

use common::bmc::{
    Bmc, ONE, RESET, SYSTEMS, TWO, allowing, answer_of, assert_acknowledged, assert_text,
    assert_unacknowledged, device, list, ok, order, order_for, request, settings, system, with,
};
use common::{Directory, long, node};
use fence_core::execution::{Order, OrderReport};
use fence_device::{
    Client, FenceDevice, Limit, Pin, Reach, RedfishDevice, RedfishLogin, TargetList,
};
use fence_protocol::PowerState;

#[test]
fn a_success_whose_body_says_no_is_not_acknowledged() {
    for (reply, words) in [
        (ok(r#"{"error": {"code": "Base.1.8.GeneralError", "message": "Locked."}}"#), "Locked."),
        (
            answer_of(
                "202 Accepted",
                r#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "X.Refused"}]}}"#,
            ),
            "X.Refused",
        ),
        (ok(r#"{"@Message.ExtendedInfo": [{"MessageId": "A.B", "Message": "Busy"}]}"#), "Busy"),
        (ok("<html>Please log in</html>"), "no JSON"),
        (answer_of("202 Accepted", r#"{"TaskState": "Exception"}"#), "its task has failed"),
        (ok(r#"{"TaskState": "Completed", "TaskStatus": "Critical"}"#), "Critical"),
    ] {
        let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[reply])]);
        for what in [Order::Off, Order::Cycle] {
            assert_unacknowledged(&order(&bmc, what), words);
        }
        assert_eq!(bmc.orders(), 2);
    }
}

#[test]
fn a_success_in_the_words_of_an_error_is_acknowledged() {
    let info = r#"{"error": {"code": "iLO.0.10.ExtendedInfo", "message": "See below.",
        "@Message.ExtendedInfo": [{"MessageId": "Base.1.4.Success"}]}}"#;
    let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[ok(info)])]);

    assert_acknowledged(&order(&bmc, Order::Off), "HTTP 200");
}

#[test]
fn a_link_that_leads_nowhere_stops_no_fence() {
    let info = r#", "@Redfish.ActionInfo": "/I""#;
    let info_of = |reply: Option<String>| (info.to_owned(), reply);
    for (action, reply) in [
        (allowing("[]"), None),
        (allowing("null"), None),
        (allowing("{}"), None),
        (allowing(r#""On""#), None),
        (allowing(r#"["On", "ForceOff", null]"#), None),
        (r#", "@Redfish.ActionInfo": """#.to_owned(), None),
        (r#", "@Redfish.ActionInfo": {"@odata.id": "/I"}"#.to_owned(), None),
        info_of(None),
        info_of(Some(answer_of("500 Oops", ""))),
        info_of(Some(answer_of("403 No", ""))),
        info_of(Some(ok("<html>"))),
        info_of(Some(ok(r#"{"Id": "I"}"#))),
        info_of(Some(ok(r#"{"Parameters": {}}"#))),
        info_of(Some(String::new())),
    ] {
        let reply = reply.unwrap_or_else(|| answer_of("404 No", ""));
        let bmc = Bmc::start(&[
            (ONE, &[system("On", &action)]),
            ("GET /I", &[reply]),
            (RESET, &[answer_of("204 Done", "")]),
        ]);
        assert_acknowledged(&order(&bmc, Order::Off), "ForceOff: HTTP 204");
        assert!(bmc.count("GET /I") <= 1);
    }
    let bmc = Bmc::start(&[
        (ONE, &[system("On", info)]),
        ("GET /I", &[ok(r#"{"Parameters": [{"Name": "ResetType", "AllowableValues": ["On"]}]}"#)]),
    ]);
    let OrderReport::Failed(text) = order(&bmc, Order::Off) else { panic!() };
    assert_text(&text, "it allows only On");
    assert_eq!(bmc.orders(), 0);
}

#[test]
fn other_systems_do_not_matter() {
    let named = |name: &str| ok(&format!(r#"{{"Id": "{name}", "PowerState": "Off"}}"#));
    let directory = Directory::new();
    for other in [
        answer_of("503 Later", ""),
        answer_of("404 No", ""),
        answer_of("401 No", ""),
        ok("<html>"),
        String::new(),
    ] {
        let bmc =
            Bmc::start(&[(SYSTEMS, &[list(&["1", "2"])]), (ONE, &[other]), (TWO, &[named("n1")])]);
        let found = RedfishDevice::new(settings(&directory, &bmc.address, Some("{target}")));
        assert_eq!(found.power(&node(), &Pin::default(), long()).state, PowerState::Off);
        assert_eq!(found.targets(long()), TargetList::Nodes(vec![node()]));
    }
    // A permanently unreadable answer is reported; after a temporary one, the driver waits.
    let bmc = Bmc::start(&[
        (SYSTEMS, &[list(&["1", "2"])]),
        (ONE, &[answer_of("404 No", "")]),
        (TWO, &[named("n2")]),
    ]);
    let found = RedfishDevice::new(settings(&directory, &bmc.address, Some("{target}")));
    let detail = found.power(&node(), &Pin::default(), long()).detail;
    assert_text(&detail, "cannot be read: /redfish/v1/Systems/1: ");
    let bmc = Bmc::start(&[
        (SYSTEMS, &[list(&["1", "2"])]),
        (ONE, &[answer_of("503 Later", ""), named("n1")]),
        (TWO, &[named("n2")]),
    ]);
    let found = RedfishDevice::new(settings(&directory, &bmc.address, Some("{target}")));
    assert_eq!(found.power(&node(), &Pin::default(), long()).state, PowerState::Off);
}

#[test]
fn a_member_that_is_listed_twice_is_one() {
    let directory = Directory::new();
    let bmc = Bmc::start(&[
        (SYSTEMS, &[list(&["1", "1", "1/"])]),
        (ONE, &[system("On", "")]),
        (RESET, &[answer_of("204 Done", "")]),
    ]);
    let only = RedfishDevice::new(settings(&directory, &bmc.address, None));

    assert_acknowledged(&order_for(&only, Order::Off, None, long()), "HTTP 204");
}

#[test]
fn each_call_has_its_own_connection() {
    let directory = Directory::new();
    let bmc = Bmc::start(&[
        (SYSTEMS, &[list(&["1"])]),
        (ONE, &[system("On", "")]),
        (RESET, &[answer_of("204 Done", "")]),
    ]);
    let only = RedfishDevice::new(settings(&directory, &bmc.address, None));

    assert_acknowledged(&order_for(&only, Order::Off, None, long()), "HTTP 204");

    for request in bmc.asked.lock().unwrap().iter() {
        assert_text(request, "connection: close");
        assert_text(request, "accept-encoding: identity");
    }
}

#[test]
fn an_order_for_which_there_is_no_connection_was_not_sent() {
    let directory = Directory::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        request(&connection).unwrap();
        // No service listens by the time of the order.
        drop(listener);
        connection.write_all(system("On", "").as_bytes()).unwrap();
    });
    let device = RedfishDevice::new(settings(&directory, &address, Some("/redfish/v1/Systems/1")));

    let report = order_for(&device, Order::Off, None, long());

    assert!(matches!(report, OrderReport::Unreachable(_)), "{report:?}");
}

#[test]
fn a_question_is_repeated_while_the_service_is_not_ready() {
    let info = |id: &str| {
        format!(r#"{{"error": {{"@Message.ExtendedInfo": [{{"MessageId": "{id}"}}]}}}}"#)
    };
    for refusal in [
        with("503 Later", "Retry-After: 1", ""),
        with("503 Later", "Retry-After: Mon, 30 Nov 2026 10:00:00 GMT", ""),
        answer_of("429 Often", ""),
        answer_of("500 Oops", ""),
        answer_of("400 Bad", &info("IDRAC.1.6.SWC0700")),
        answer_of("404 No", &info("IDRAC.2.8.SYS518")),
        ok(&info("Base.1.12.ServiceTemporarilyUnavailable")),
    ] {
        let bmc = Bmc::start(&[
            (ONE, &[refusal, system("On", "")]),
            (RESET, &[answer_of("204 Done", "")]),
        ]);
        assert_acknowledged(&order(&bmc, Order::Off), "HTTP 204");
        assert_eq!((bmc.count(ONE), bmc.orders()), (2, 1));
    }
}

#[test]
fn a_service_that_never_gets_ready_was_not_reached() {
    let directory = Directory::new();
    let bmc = Bmc::start(&[(ONE, &[answer_of("503 Later", "")])]);
    let device = device(&directory, &bmc);

    let report = order_for(&device, Order::Off, None, Limit::in_ms(900));

    let OrderReport::Unreachable(text) = report else { panic!("{report:?}") };
    assert_text(&text, "HTTP 503");
    assert!(bmc.count(ONE) > 1);
    assert_eq!(bmc.orders(), 0);
}

#[test]
fn a_question_that_the_limit_cuts_short_hides_no_refusal_before_it() {
    let directory = Directory::new();
    let (end, ended) = mpsc::channel::<()>();
    let mut is_first = true;
    // Silent from the second question on, until the test ends.
    let bmc = Bmc::start_with(&[(ONE, &[answer_of("503 Later", "")])], move |_| {
        let _ = std::mem::take(&mut is_first) || ended.recv().is_ok();
    });

    let shown = device(&directory, &bmc).power(&node(), &Pin::default(), Limit::in_ms(4_000));

    assert_eq!((shown.state, bmc.count(ONE)), (PowerState::Unknown, 2));
    assert_text(&shown.detail, "HTTP 503");
    drop(end);
}

#[test]
fn an_order_is_repeated_only_if_the_service_says_that_it_did_not_accept_it() {
    let later = || with("503 Later", "Retry-After: 1", "");
    let not_ready = r#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.SWC0700"}]}}"#;
    for refusal in [later(), answer_of("429 Often", ""), answer_of("400 Bad", not_ready)] {
        let bmc = Bmc::start(&[
            (ONE, &[system("On", "")]),
            (RESET, &[refusal.clone(), answer_of("204 Done", "")]),
        ]);
        assert_acknowledged(&order(&bmc, Order::Off), "HTTP 204");
        assert_eq!(bmc.orders(), 2);

        // Nothing shows a reset.
        let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[refusal])]);
        assert_unacknowledged(&order(&bmc, Order::Cycle), "ForceRestart: HTTP ");
        assert_eq!(bmc.orders(), 1);
    }

    // An order that was carried out nevertheless.
    let bmc = Bmc::start(&[(ONE, &[system("On", ""), system("Off", "")]), (RESET, &[later()])]);
    assert_acknowledged(&order(&bmc, Order::Off), "it is off already");
    assert_eq!(bmc.orders(), 1);
    // Nothing shows that the order was not accepted.
    for refusal in [answer_of("503 Later", ""), answer_of("500 Oops", ""), answer_of("409 No", "")]
    {
        let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[refusal])]);
        assert_unacknowledged(&order(&bmc, Order::Off), "HTTP ");
        assert_eq!(bmc.orders(), 1);
    }
}

#[test]
fn an_order_is_not_repeated_without_a_client() {
    let moved = with("307 There", "Location: /elsewhere", "");
    for (refusal, is_withdrawn) in [(with("503 Later", "Retry-After: 0", ""), false), (moved, true)]
    {
        let directory = Directory::new();
        let claim = directory.path("claim");
        let held = fs::File::create(&claim).unwrap();
        held.lock().unwrap();
        let answers: [(&str, &[String]); 2] = [(ONE, &[system("On", "")]), (RESET, &[refusal])];
        // The client dies while the order is on its way.
        let bmc = Bmc::start_with(&answers, move |what| {
            if what.starts_with("POST") {
                held.unlock().unwrap();
            }
        });
        let client = Client::new(claim, true);

        let report = order_for(&device(&directory, &bmc), Order::Off, Some(&client), long());

        assert_eq!(bmc.orders(), 1);
        match report {
            OrderReport::Withdrawn => assert!(is_withdrawn),
            OrderReport::Unacknowledged(_) => assert!(!is_withdrawn),
            report => panic!("{report:?}"),
        }
    }
}

#[test]
fn an_order_is_sent_on_once_where_the_service_says_that_it_did_nothing() {
    for status in ["307 There", "308 There"] {
        for location in
            ["/redfish/v1/Systems/1/Reset/", "http://127.0.0.1/redfish/v1/Systems/1/Reset/"]
        {
            let bmc = Bmc::start(&[
                (ONE, &[system("On", "")]),
                (RESET, &[with(status, &format!("Location: {location}"), "")]),
                ("POST /redfish/v1/Systems/1/Reset/", &[answer_of("204 Done", "")]),
            ]);
            assert_acknowledged(&order(&bmc, Order::Off), "HTTP 204");
            let asked = bmc.asked.lock().unwrap();
            assert_text(asked.last().unwrap(), r#"{"ResetType":"ForceOff"}"#);
        }
        // In a circle, and to another service.
        for location in
            ["/redfish/v1/Systems/1/Reset", "http://bmc.invalid/x", "http://127.0.0.1:1/x"]
        {
            let again = with(status, &format!("Location: {location}"), "");
            let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[again])]);
            assert_unacknowledged(&order(&bmc, Order::Off), "HTTP 30");
            assert!(bmc.orders() <= 2);
        }
    }
    for status in ["301 There", "302 There", "303 There"] {
        let moved = with(status, "Location: /elsewhere", "");
        let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[moved])]);
        assert_unacknowledged(&order(&bmc, Order::Off), "HTTP 30");
        assert_eq!(bmc.orders(), 1);
    }
}

#[test]
fn a_services_own_name_for_itself_leads_to_it() {
    let directory = Directory::new();
    let member = r#"{"Members": [{"@odata.id": "https://its-own-name/redfish/v1/Systems/1"}]}"#;
    let own = r##"{"PowerState": "On", "Actions": {"#ComputerSystem.Reset":
        {"target": "https://its-own-name:8443/redfish/v1/Systems/1/Reset"}}}"##;
    let bmc = Bmc::start(&[
        (SYSTEMS, &[ok(member)]),
        (ONE, &[ok(own)]),
        (RESET, &[answer_of("204 Done", "")]),
    ]);
    let only = RedfishDevice::new(settings(&directory, &bmc.address, None));

    assert_acknowledged(&order_for(&only, Order::Off, None, long()), "HTTP 204");
}

/// The requests of a device that opens a session, when its power state is asked for.
fn asked_in_session(answers: &[(&str, &[String])]) -> Vec<String> {
    let bmc = Bmc::start(answers);
    let directory = Directory::new();
    let mut settings = settings(&directory, &bmc.address, Some("/redfish/v1/Systems/1"));
    settings.login = RedfishLogin::Session;
    let report = RedfishDevice::new(settings).power(&node(), &Pin::default(), long());
    assert_eq!(report.state, PowerState::On, "{report:?} {:?}", bmc.asked());
    bmc.asked()
}

#[test]
fn a_session_is_opened_where_the_service_says_and_ended_where_it_is() {
    const ROOT: &str = "GET /redfish/v1/";
    const FIXED: &str = "POST /redfish/v1/SessionService/Sessions";
    const END: &str = "DELETE /redfish/v1/SessionService/Sessions/9";
    let root = ok(r#"{"Links": {"Sessions": {"@odata.id": "/redfish/v1/Sessions"}}}"#);
    let place = "/redfish/v1/SessionService/Sessions/9";
    let opened = with("201 Made", &format!("X-Auth-Token: t0k\r\nLocation: {place}"), "");
    let without_place = |body: &str| with("201 Made", "X-Auth-Token: t0k", body);
    let in_body = without_place(&format!(r#"{{"@odata.id": "{place}"}}"#));
    let power = [system("On", "")];
    let to_slash =
        |status: &str| with(status, "Location: /redfish/v1/SessionService/Sessions/", "");
    let slash = "POST /redfish/v1/SessionService/Sessions/";
    let elsewhere = "POST /redfish/v1/Sessions";

    let said = asked_in_session(&[
        (ROOT, std::slice::from_ref(&root)),
        (elsewhere, std::slice::from_ref(&opened)),
        (ONE, &power),
        (END, &[answer_of("204 Done", "")]),
    ]);
    assert_eq!(said, [ROOT, elsewhere, ONE, END]);
    let fallback =
        asked_in_session(&[(ROOT, &[root]), (FIXED, std::slice::from_ref(&opened)), (ONE, &power)]);
    assert_eq!(fallback, [ROOT, elsewhere, FIXED, ONE, END]);
    let by_body = asked_in_session(&[(FIXED, &[in_body]), (ONE, &power)]);
    assert_eq!(by_body, [ROOT, FIXED, ONE, END]);
    let endless = asked_in_session(&[(FIXED, &[without_place("")]), (ONE, &power)]);
    assert_eq!(endless, [ROOT, FIXED, ONE]);
    for status in ["301 There", "302 There", "307 There", "308 There"] {
        let moved = asked_in_session(&[
            (FIXED, &[to_slash(status)]),
            (slash, std::slice::from_ref(&opened)),
            (ONE, &power),
        ]);
        assert_eq!(moved, [ROOT, FIXED, slash, ONE, END]);
    }
    let later = asked_in_session(&[(FIXED, &[answer_of("503 Later", ""), opened]), (ONE, &power)]);
    assert_eq!(later, [ROOT, FIXED, FIXED, ONE, END]);
}

#[test]
fn a_state_that_exists_already_counts_as_done() {
    for (order_of, shown, other) in [(Order::Off, "Off", "On"), (Order::On, "On", "ForceOff")] {
        let bmc = Bmc::start(&[(ONE, &[system(shown, &allowing(&format!("[\"{other}\"]")))])]);
        assert_acknowledged(&order(&bmc, order_of), "already; nothing was sent");
        assert_eq!(bmc.orders(), 0);
        let without = ok(&format!(r#"{{"PowerState": "{shown}"}}"#));
        let bmc = Bmc::start(&[(ONE, &[without])]);
        assert_acknowledged(&order(&bmc, order_of), "no action to reset it");
        for refusal in [answer_of("400 No", ""), answer_of("409 No", ""), answer_of("500 Oops", "")]
        {
            let is_clear = !refusal.contains("500");
            let bmc = Bmc::start(&[(ONE, &[system(shown, "")]), (RESET, &[refusal])]);
            let report = order(&bmc, order_of);
            assert_eq!(matches!(report, OrderReport::Acknowledged(_)), is_clear, "{report:?}");
            assert_eq!(bmc.orders(), 1);
        }
    }
    for (order_of, shown) in [
        (Order::Off, "PoweringOff"),
        (Order::On, "PoweringOn"),
        (Order::Off, "On"),
        (Order::On, "Off"),
        (Order::Cycle, "On"),
        (Order::Cycle, "Off"),
    ] {
        let bmc = Bmc::start(&[(ONE, &[system(shown, &allowing("[\"Nmi\"]"))])]);
        let report = order(&bmc, order_of);
        assert!(matches!(report, OrderReport::Failed(_)), "{shown}: {report:?}");
        let bmc = Bmc::start(&[(ONE, &[system(shown, "")]), (RESET, &[answer_of("409 No", "")])]);
        assert_unacknowledged(&order(&bmc, order_of), "HTTP 409");
    }
}

#[test]
fn a_chassis_is_fenced_by_its_own_action() {
    let directory = Directory::new();
    let chassis = r##"{"PowerState": "On", "Actions": {"#Chassis.Reset": {
        "target": "/redfish/v1/Chassis/P7/Actions/Chassis.Reset"}}}"##;
    let bmc = Bmc::start(&[
        ("GET /redfish/v1/Chassis/P7", &[ok(chassis)]),
        ("POST /redfish/v1/Chassis/P7/Actions/Chassis.Reset", &[answer_of("204 Done", "")]),
    ]);
    let settings = settings(&directory, &bmc.address, Some("/redfish/v1/Chassis/P7"));

    assert_acknowledged(&order_for(&RedfishDevice::new(settings), Order::Off, None, long()), "204");
}

#[test]
fn a_check_is_never_greener_than_a_fence() {
    let directory = Directory::new();
    let gentle = allowing(r#"["On", "GracefulShutdown"]"#);
    let no_state = system("On", "").replace("PowerState", "PowerStill");
    for (reply, words) in [
        (system("On", &gentle), "it allows only On, GracefulShutdown"),
        (system("Off", &allowing(r#"["ForceOff"]"#)), "it allows only ForceOff"),
        (ok(r#"{"PowerState": "On"}"#), "no action to reset it"),
        (ok(r##"{"PowerState": "On", "Actions": {"#ComputerSystem.Reset": {}}}"##), "no target"),
        (no_state, "no PowerState"),
        (answer_of("404 No", ""), "404"),
    ] {
        let bmc = Bmc::start(&[(ONE, &[reply])]);
        let Reach::Unreachable(text) = device(&directory, &bmc).reachable(long()) else {
            panic!("{words}")
        };
        assert_text(&text, words);
        let problems = device(&directory, &bmc).unknown_targets(long());
        assert_text(&problems.concat(), words);
        assert_eq!(bmc.orders(), 0);
    }
    // The offers of a service may depend on the state.
    for (power, types) in
        [("On", r#"["ForceOff"]"#), ("Off", r#"["On"]"#), ("PoweringOff", r#"["Nmi"]"#)]
    {
        let bmc = Bmc::start(&[(ONE, &[system(power, &allowing(types))])]);
        assert!(matches!(device(&directory, &bmc).reachable(long()), Reach::Reachable(_)));
        assert_eq!(device(&directory, &bmc).unknown_targets(long()), [""; 0]);
    }
}

#[test]
fn a_check_names_each_target_of_one_service_that_cannot_be_fenced() {
    let other = system("On", "").replace("Systems/1", "Systems/2");
    let bmc = Bmc::start(&[
        (SYSTEMS, &[list(&["n1", "n2"])]),
        (
            "GET /redfish/v1/Systems/n1",
            &[system("On", "").replace("\"Id\": \"1\"", "\"Id\":\"n1\"")],
        ),
        ("GET /redfish/v1/Systems/n2", &[other.replace("\"Id\": \"1\"", "\"Id\":\"n2\"")]),
    ]);
    let directory = Directory::new();
    for pattern in ["{target}", "/redfish/v1/Systems/{target}"] {
        let mut settings = settings(&directory, &bmc.address, Some(pattern));
        settings.known_targets = ["n1", "n2", "n3"].map(|name| name.parse().unwrap()).into();
        let device = RedfishDevice::new(settings);

        let Reach::Reachable(text) = device.reachable(long()) else { panic!("{pattern}") };
        assert_text(&text, "1 of 1 BMCs answered; cannot be fenced: n3: ");
        let problems = device.unknown_targets(long());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_text(&problems[0], "'n3' cannot be fenced: ");
    }
}
