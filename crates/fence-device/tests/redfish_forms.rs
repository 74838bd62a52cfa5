//! The Redfish driver and services that differ from the standard: errors that are none, lists in
//! parts, reset types, their own names, too many sessions, connections that break off.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::bmc::{
    Bmc, ONE, RESET, SYSTEMS, TWO, allowing, answer_of, assert_acknowledged, assert_text,
    assert_unacknowledged, device, list, ok, order, order_for, request, settings, system, with,
};
use common::{Directory, long, node};
use fence_core::execution::{Order, OrderReport};
use fence_device::{FenceDevice, Limit, Pin, Reach, RedfishDevice, RedfishLogin, TargetList};
use fence_protocol::PowerState;

/// A system with this name, which is on.
fn called(id: &str, name: &str) -> String {
    ok(&format!(
        r##"{{"Id": "{id}", "Name": "{name}", "PowerState": "On", "Actions":
            {{"#ComputerSystem.Reset": {{"target": "/redfish/v1/Systems/{id}/Reset"}}}}}}"##
    ))
}

#[test]
fn an_empty_error_beside_a_system_is_ignored() {
    for error in ["{}", r#""""#, "[]", "false", r#"{"code": "Base.1.8.Success", "message": "ok"}"#]
    {
        let shown = system("On", "").split_once("\r\n\r\n").unwrap().1.to_owned();
        let shown = shown.replace("\"Id\"", &format!("\"error\": {error}, \"Id\""));
        let bmc = Bmc::start(&[(ONE, &[ok(&shown)]), (RESET, &[answer_of("204 Done", "")])]);
        assert_acknowledged(&order(&bmc, Order::Off), "HTTP 204");
    }
}

#[test]
fn reset_types_are_read_in_any_case_and_several_in_one_text() {
    for types in [
        r#"["On, ForceOff, GracefulShutdown"]"#,
        r#"["On,ForceOff"]"#,
        r#"["on", "forceoff"]"#,
        r#"["ON;FORCEOFF"]"#,
        r#"["On|ForceOff|Nmi"]"#,
        r#"[" ForceOff "]"#,
    ] {
        let bmc = Bmc::start(&[
            (ONE, &[system("On", &allowing(types))]),
            (RESET, &[answer_of("204 Done", "")]),
        ]);
        assert_acknowledged(&order(&bmc, Order::Off), "ForceOff: HTTP 204");
        let asked = bmc.asked.lock().unwrap();
        assert_text(asked.last().unwrap(), r#"{"ResetType":"ForceOff"}"#);
    }
    // No gentle reset type counts as this one.
    for types in [r#"["GracefulShutdown, On"]"#, r#"["NoForceOff"]"#, r#"["forceoffs"]"#] {
        let bmc = Bmc::start(&[(ONE, &[system("On", &allowing(types))])]);
        assert!(matches!(order(&bmc, Order::Off), OrderReport::Failed(_)), "{types}");
        assert_eq!(bmc.orders(), 0);
    }
}

/// One part of a list: these members, and the link to the next part.
fn part(members: &[&str], next: &str) -> String {
    let whole = list(members).split_once("\r\n\r\n").unwrap().1.to_owned();
    ok(&whole.replacen('{', &format!(r#"{{"Members@odata.nextLink": {next}, "#), 1))
}

const PAGE: &str = "GET /redfish/v1/Systems?$skip=1";

#[test]
fn a_list_whose_next_part_is_empty_is_whole() {
    let directory = Directory::new();
    for next in [r#""""#, r#"" ""#, "null", "{}", r#""/redfish/v1/Systems""#] {
        let bmc = Bmc::start(&[
            (SYSTEMS, &[part(&["1"], next)]),
            (ONE, &[called("1", "n1")]),
            (RESET, &[answer_of("204 Done", "")]),
        ]);
        for by in [None, Some("n1")] {
            let device = RedfishDevice::new(settings(&directory, &bmc.address, by));
            assert_acknowledged(&order_for(&device, Order::Off, None, long()), "HTTP 204");
            assert!(matches!(device.reachable(long()), Reach::Reachable(_)));
        }
    }
}

#[test]
fn a_list_in_parts_is_read_to_its_end() {
    let directory = Directory::new();
    let by = |bmc: &Bmc, name| RedfishDevice::new(settings(&directory, &bmc.address, name));
    for next in [
        r#""/redfish/v1/Systems?$skip=1""#,
        r#""https://its-own-name/redfish/v1/Systems?$skip=1""#,
        r#"{"@odata.id": "/redfish/v1/Systems?$skip=1"}"#,
    ] {
        let bmc = Bmc::start(&[
            (SYSTEMS, &[part(&["1"], next)]),
            (PAGE, &[answer_of("503 Later", ""), part(&["2"], next)]),
            (ONE, &[called("1", "n1")]),
            (TWO, &[called("2", "n2")]),
            (RESET, &[answer_of("204 Done", "")]),
            ("POST /redfish/v1/Systems/2/Reset", &[answer_of("204 Done", "")]),
        ]);
        for name in ["n1", "n2"] {
            let report = order_for(&by(&bmc, Some(name)), Order::Off, None, long());
            assert_acknowledged(&report, "HTTP 204");
        }
        let nodes = by(&bmc, Some("{target}")).targets(long());
        assert_eq!(nodes, TargetList::Nodes(vec![node(), "n2".parse().unwrap()]));
        // Several systems never count as one.
        let report = order_for(&by(&bmc, None), Order::Off, None, long());
        assert!(matches!(report, OrderReport::Failed(_)), "{report:?}");
    }
    // One name in two parts.
    let next = r#""/redfish/v1/Systems?$skip=1""#;
    let bmc = Bmc::start(&[
        (SYSTEMS, &[part(&["1"], next)]),
        (PAGE, &[list(&["2"])]),
        (ONE, &[called("1", "n1")]),
        (TWO, &[called("2", "n1")]),
    ]);
    let report = order_for(&by(&bmc, Some("n1")), Order::Off, None, long());
    assert!(matches!(report, OrderReport::Failed(_)), "{report:?}");
    assert_eq!(bmc.orders(), 0);
}

#[test]
fn if_a_part_of_a_list_cannot_be_read_only_an_id_is_trusted() {
    let directory = Directory::new();
    let by = |bmc: &Bmc, name| RedfishDevice::new(settings(&directory, &bmc.address, name));
    let next = r#""/redfish/v1/Systems?$skip=1""#;
    for (next, page) in [
        (next, answer_of("503 Later", "")),
        (next, answer_of("404 No", "")),
        (next, ok("<html>")),
        (next, String::new()),
        (r#""//elsewhere""#, String::new()),
    ] {
        let bmc = Bmc::start(&[
            (SYSTEMS, &[part(&["1"], next)]),
            (PAGE, &[page]),
            (ONE, &[called("1", "n1")]),
            (RESET, &[answer_of("204 Done", "")]),
        ]);
        for name in [None, Some("n1")] {
            let report = order_for(&by(&bmc, name), Order::Off, None, Limit::in_ms(900));
            assert!(
                matches!(report, OrderReport::Failed(_) | OrderReport::Unreachable(_)),
                "{report:?}"
            );
        }
        assert_eq!(bmc.orders(), 0);
        let report = order_for(&by(&bmc, Some("1")), Order::Off, None, Limit::in_ms(5_000));
        assert_acknowledged(&report, "HTTP 204");
    }
    // A list without an end.
    let endless: Vec<String> = (0..200)
        .map(|at| part(&["1"], &format!("\"/redfish/v1/Systems?$skip={}\"", at + 1)))
        .collect();
    let places: Vec<String> =
        (0..200).map(|at| format!("GET /redfish/v1/Systems?$skip={at}")).collect();
    let mut answers: Vec<(&str, &[String])> = places
        .iter()
        .zip(&endless)
        .map(|(place, part)| (place.as_str(), std::slice::from_ref(part)))
        .collect();
    let (first, one) = ([endless[0].clone()], [called("1", "n1")]);
    answers.extend([(SYSTEMS, &first[..]), (ONE, &one[..])]);
    let bmc = Bmc::start(&answers);
    let report = by(&bmc, Some("1")).power(&node(), &Pin::default(), long());
    assert_eq!(report.state, PowerState::On, "{report:?}");
    assert!(bmc.asked().len() < 110, "{}", bmc.asked().len());
}

#[test]
fn a_redirection_to_the_services_own_name_leads_to_it() {
    let directory = Directory::new();
    let to =
        |path: &str| with("308 There", &format!("Location: https://idrac-1.example{path}"), "");
    let slash = |what: &str| format!("{what}/");
    let bmc = Bmc::start(&[
        (SYSTEMS, &[to("/redfish/v1/Systems/")]),
        (&slash(SYSTEMS), &[list(&["1"])]),
        (ONE, &[to("/redfish/v1/Systems/1/")]),
        (&slash(ONE), &[system("On", "")]),
        (RESET, &[to("/redfish/v1/Systems/1/Reset/")]),
        (&slash(RESET), &[answer_of("204 Done", "")]),
    ]);
    for by in [None, Some("1"), Some("/redfish/v1/Systems/1")] {
        let device = RedfishDevice::new(settings(&directory, &bmc.address, by));
        assert_acknowledged(&order_for(&device, Order::Off, None, long()), "HTTP 204");
        assert_eq!(device.unknown_targets(long()), [""; 0]);
    }
    // A system with another path under another name may be another machine.
    for path in ["/redfish/v1/Systems/2", "/redfish/v1/Systems", "/"] {
        let bmc = Bmc::start(&[
            (ONE, &[to(path)]),
            (&format!("GET {path}"), &[system("On", "")]),
            (RESET, &[answer_of("204 Done", "")]),
        ]);
        let OrderReport::Failed(text) = order(&bmc, Order::Off) else { panic!("{path}") };
        assert_text(&text, "HTTP 308");
        assert_eq!(bmc.orders(), 0);
        let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[to(path)])]);
        assert_unacknowledged(&order(&bmc, Order::Off), "HTTP 308");
        assert_eq!(bmc.orders(), 1);
    }
}

const LOGIN: &str = "POST /redfish/v1/SessionService/Sessions";

/// A device that opens a session for each visit.
fn with_session(directory: &Directory, bmc: &Bmc) -> RedfishDevice {
    let mut settings = settings(directory, &bmc.address, Some("/redfish/v1/Systems/1"));
    settings.login = RedfishLogin::Session;
    RedfishDevice::new(settings)
}

#[test]
fn a_session_beyond_the_limit_is_requested_again() {
    let directory = Directory::new();
    let of_id = |id: &str| {
        format!(r#"{{"error": {{"@Message.ExtendedInfo": [{{"MessageId": "{id}"}}]}}}}"#)
    };
    let words = "The session establishment failed due to the number of simultaneous sessions \
                 exceeding the limit of the implementation.";
    let open = with("201 Made", "X-Auth-Token: t0k", "");
    for status in ["400 Bad", "403 No", "409 No", "503 Later", "507 Full"] {
        for body in [
            of_id("Base.1.8.SessionLimitExceeded"),
            of_id("Base.1.4.CreateLimitReachedForResource"),
            of_id("Base.1.4.ResourceExhaustion"),
            of_id("IDRAC.2.8.RAC0218"),
            format!(r#"{{"error": {{"code": "Base.1.0.GeneralError", "message": "{words}"}}}}"#),
            r#"{"error": {"message": "The maximum number of user sessions is reached."}}"#.into(),
        ] {
            let bmc = Bmc::start(&[
                (LOGIN, &[answer_of(status, &body), open.clone()]),
                (ONE, &[system("On", "")]),
                (RESET, &[answer_of("204 Done", "")]),
            ]);
            let device = with_session(&directory, &bmc);
            assert_acknowledged(&order_for(&device, Order::Off, None, long()), "HTTP 204");
        }
    }
    let full = answer_of("403 No", &of_id("Base.1.8.SessionLimitExceeded"));
    let bmc = Bmc::start(&[(LOGIN, &[full])]);
    let device = with_session(&directory, &bmc);
    let report = order_for(&device, Order::Off, None, Limit::in_ms(900));
    let OrderReport::Unreachable(text) = report else { panic!("{report:?}") };
    assert_text(&text, "SessionLimitExceeded");
    assert!(!text.contains("username"), "{text}");
    assert!(bmc.count(LOGIN) > 1);
    // A wrong password stays wrong.
    let bmc = Bmc::start(&[(LOGIN, &[answer_of("403 No", &of_id("Base.1.8.AccessDenied"))])]);
    let report = order_for(&with_session(&directory, &bmc), Order::Off, None, long());
    assert!(matches!(report, OrderReport::Failed(_)), "{report:?}");
    assert_eq!(bmc.count(LOGIN), 1);
}

#[test]
fn a_question_whose_answer_breaks_off_is_asked_again() {
    let directory = Directory::new();
    let open = with("201 Made", "X-Auth-Token: t0k", "");
    for broken in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
        let broken = broken.to_owned();
        let bmc = Bmc::start(&[
            (LOGIN, &[broken.clone(), open.clone()]),
            (SYSTEMS, &[broken.clone(), list(&["1"])]),
            (ONE, &[broken.clone(), system("On", "")]),
            (RESET, std::slice::from_ref(&broken)),
        ]);
        let mut settings = settings(&directory, &bmc.address, Some("1"));
        settings.login = RedfishLogin::Session;
        let device = RedfishDevice::new(settings);
        // The text is not an order.
        let report = order_for(&device, Order::Off, None, long());
        assert!(matches!(report, OrderReport::Unacknowledged(_)), "{report:?}");
        assert_eq!(bmc.count(RESET), 1);
        assert_eq!((bmc.count(LOGIN), bmc.count(SYSTEMS), bmc.count(ONE)), (2, 2, 2));

        let bmc = Bmc::start(&[(ONE, &[broken])]);
        let report = order_for(&self::device(&directory, &bmc), Order::Off, None, long());
        assert!(matches!(report, OrderReport::Unreachable(_)), "{report:?}");
        assert_eq!(bmc.count(ONE), 3);
    }
}

#[test]
fn a_connection_that_breaks_off_before_it_is_ready_is_made_again() {
    let directory = Directory::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    thread::spawn(move || {
        // The server completes no handshake.
        for connection in listener.incoming() {
            seen.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    let device = RedfishDevice::new(settings(&directory, &address, Some("/redfish/v1/Systems/1")));

    let report = device.power(&node(), &Pin::default(), long());

    assert_eq!(report.state, PowerState::Unknown);
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

/// A service that does not answer requests for these systems.
fn silent_but_for(count: usize, speaks: usize, id: impl Fn(usize) -> String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let ids: Vec<String> = (1..=count).map(&id).collect();
    let places: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (all, spoken) = (list(&places), id(speaks));
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let (all, spoken) = (all.clone(), spoken.clone());
            thread::spawn(move || {
                let Some((what, _)) = request(&connection) else { return };
                let reply = match what.rsplit('/').next().unwrap() {
                    "Systems" => all,
                    name if name == spoken => called(&spoken, &spoken),
                    "Reset" => answer_of("204 Done", ""),
                    _ => {
                        // The other side finally closes it.
                        let _ = std::io::copy(&mut connection, &mut std::io::sink());
                        return;
                    }
                };
                let _ = connection.write_all(reply.as_bytes());
            });
        }
    });
    address
}

#[test]
fn systems_that_are_silent_take_little_of_a_fences_time() {
    let directory = Directory::new();
    let address = silent_but_for(8, 8, |at| format!("Node{at}"));
    let device = RedfishDevice::new(settings(&directory, &address, Some("Node8")));

    // Each of the others could take two seconds.
    let report = order_for(&device, Order::Off, None, Limit::in_ms(8_000));

    assert_acknowledged(&report, "HTTP 204");
}

#[test]
fn a_check_looks_for_the_reset_that_a_reboot_will_order() {
    let directory = Directory::new();
    let info = r#", "@Redfish.ActionInfo": "/I""#.to_owned();
    let hint = ok(r#"{"Parameters": [{"Name": "ResetType", "AllowableValues": ["ForceOff"]}]}"#);
    for (power, action, lacks) in [
        ("On", allowing(r#"["On", "ForceOff", "GracefulRestart"]"#), true),
        ("On", info, true),
        ("On", allowing(r#"["ForceRestart"]"#), true),
        ("On", allowing(r#"["ForceOff", "ForceRestart"]"#), false),
        ("On", allowing(r#"["ForceOff", "powercycle"]"#), false),
        // A system that is off is not reset: then a service need not offer a reset.
        ("Off", allowing(r#"["On"]"#), false),
    ] {
        let bmc = Bmc::start(&[
            (ONE, &[system(power, &action)]),
            ("GET /I", std::slice::from_ref(&hint)),
        ]);
        let mut settings = settings(&directory, &bmc.address, Some("/redfish/v1/Systems/1"));
        settings.is_cycled = true;
        let cycled = RedfishDevice::new(settings);
        let problems = cycled.unknown_targets(long());
        assert_eq!(problems.len(), usize::from(lacks), "{action}: {problems:?}");
        let is_reached = matches!(cycled.reachable(long()), Reach::Reachable(_));
        assert_eq!(is_reached, !lacks, "{action}");
    }
}
