//! The Redfish driver without a simulator: no service responds, or a service with the answers of
//! the test. The devices themselves are in `tests/devices/redfish.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::{fs, thread};

use common::bmc::{assert_text, read_request, settings};
use common::{Directory, node, order_in};
use fence_core::execution::{Order, OrderReport};
use fence_device::{FenceDevice, Limit, Pin, Reach, RedfishDevice};
use fence_protocol::PowerState;

const SYSTEM: &str = r##"{"PowerState": "On", "Actions": {"#ComputerSystem.Reset":
    {"target": "/redfish/v1/Systems/1/Reset"}}}"##;

fn device(directory: &Directory, address: &str) -> RedfishDevice {
    RedfishDevice::new(settings(directory, address, Some("/redfish/v1/Systems/1")))
}

fn order(device: &RedfishDevice, limit: Limit) -> OrderReport {
    order_in(&Pin::default(), device, Order::Off, limit)
}

/// A service that sends these answers unchanged, one for each connection, and one more for an
/// excess request. Returns its address, and the requests that it received: the first line of each,
/// and its body.
fn service(mut answers: Vec<String>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (asked, requests) = mpsc::channel();
    answers.push(answer("200 OK", "{}"));
    thread::spawn(move || {
        for answer in answers {
            let (mut connection, _) = listener.accept().unwrap();
            let request = read_request(&connection).unwrap();
            asked.send(request.first + &request.body).unwrap();
            connection.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, requests)
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

#[test]
fn a_service_that_does_not_respond_got_no_order() {
    let directory = Directory::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [format!("https://{closed}"), "https://no-such-host.invalid".to_owned()] {
        let device = device(&directory, &address);
        let limit = Limit::in_ms(60_000);

        let report = order(&device, limit);

        assert!(matches!(report, OrderReport::Unreachable(_)), "{report:?}");
        assert!(matches!(device.reachable(limit), Reach::Unreachable(_)));
        assert_eq!(device.power(&node(), &Pin::default(), limit).state, PowerState::Unknown);
    }
}

#[test]
fn the_driver_waits_for_a_silent_host_until_the_limit() {
    let directory = Directory::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    for scheme in ["https", "http"] {
        let device = device(&directory, &format!("{scheme}://{address}"));

        match order(&device, Limit::in_ms(300)) {
            OrderReport::Unreachable(text) => assert_text(&text, "in time"),
            report => panic!("{report:?}"),
        }
    }
}

#[test]
fn after_the_limit_no_device_is_asked() {
    let directory = Directory::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let device = device(&directory, &format!("http://{}", listener.local_addr().unwrap()));

    assert_eq!(order(&device, Limit { not_after_boot_ms: 0 }), OrderReport::TooLate);

    assert!(listener.accept().is_err());
}

#[test]
fn an_order_with_a_lost_or_negative_answer_may_be_done_and_is_not_repeated() {
    let directory = Directory::new();
    for (lost, words) in [
        (String::new(), "ForceOff: "),
        ("HTTP/1.1 204".to_owned(), "ForceOff: "),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned(), "ForceOff: "),
        (answer("500 Oops", ""), "ForceOff: HTTP 500"),
        (answer("401 No", r#"{"error": {"message": "not s3cret"}}"#), "HTTP 401: not ***"),
        (
            "HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
            "ForceOff: HTTP 307",
        ),
        (
            "HTTP/1.1 302 There\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "ForceOff: HTTP 302",
        ),
    ] {
        let (address, asked) = service(vec![answer("200 OK", SYSTEM), lost]);

        match order(&device(&directory, &address), Limit::in_ms(60_000)) {
            OrderReport::Unacknowledged(text) => assert_text(&text, words),
            report => panic!("{report:?}"),
        }

        let asked: Vec<String> = asked.try_iter().collect();
        let post = r#"POST /redfish/v1/Systems/1/Reset HTTP/1.1{"ResetType":"ForceOff"}"#;
        assert_eq!(asked, ["GET /redfish/v1/Systems/1 HTTP/1.1", post]);
    }
}

#[test]
fn an_invalid_answer_of_redfish_is_a_failure_before_anything_was_ordered() {
    let directory = Directory::new();
    let away = "HTTP/1.1 302 Away\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n";
    for (reply, words) in [
        (answer("200 OK", "<html>"), "cannot be read"),
        (answer("200 OK", "{}"), "no action to reset it"),
        (answer("200 OK", &SYSTEM.replace("/redfish", "//evil/redfish")), "no path"),
        (answer("501 Never", ""), "HTTP 501"),
        (away.to_owned(), "HTTP 302"),
    ] {
        let (address, asked) = service(vec![reply]);

        match order(&device(&directory, &address), Limit::in_ms(60_000)) {
            OrderReport::Failed(text) => assert_text(&text, words),
            report => panic!("{report:?}"),
        }

        assert_eq!(asked.try_iter().count(), 1);
    }
}

/// A service with these `answers`, and a device whose systems are known by name.
fn named(directory: &Directory, answers: Vec<String>) -> (RedfishDevice, mpsc::Receiver<String>) {
    let (address, asked) = service(answers);
    let device = RedfishDevice::new(settings(directory, &address, Some("{target}")));
    (device, asked)
}

fn system(name: &str, power: &str) -> String {
    let system = SYSTEM.replace("\"On\"", &format!("\"{power}\", \"Name\": \"{name}\""));
    answer("200 OK", &system)
}

#[test]
fn the_system_of_the_order_is_asked_whatever_has_its_name_by_then() {
    let list = || {
        let members = r#"{"@odata.id": "/S/1"}, {"@odata.id": "/S/2"}"#;
        answer("200 OK", &format!(r#"{{"Members": [{members}]}}"#))
    };
    let ordered = || vec![list(), system("n1", "On"), system("n2", "Off"), answer("204", "")];
    let limit = Limit::in_ms(60_000);
    for (then, state) in [
        (system("n1", "Off"), PowerState::Off),
        (system("n1", "On"), PowerState::On),
        // The names were exchanged: the system that is called n1 now never received an order.
        (system("n2", "Off"), PowerState::Unknown),
        (answer("404 Not Found", ""), PowerState::Unknown),
        (
            "HTTP/1.1 308 Moved\r\nLocation: /S/2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                .to_owned(),
            PowerState::Unknown,
        ),
    ] {
        let (directory, pin) = (Directory::new(), Pin::default());
        let answers = [ordered(), vec![then, system("n1", "Off")]].concat();
        let (device, asked) = named(&directory, answers);
        assert!(matches!(order_in(&pin, &device, Order::Off, limit), OrderReport::Acknowledged(_)));
        assert_eq!(asked.try_iter().count(), 4);

        assert_eq!(device.power(&node(), &pin, limit).state, state);

        assert_eq!(asked.try_iter().next().unwrap(), "GET /S/1 HTTP/1.1");
    }
}

#[test]
fn where_no_order_was_sent_nothing_is_pinned() {
    let directory = Directory::new();
    let list = r#"{"Members": [{"@odata.id": "/S/1"}]}"#;
    let refused = system("n1", "On").replace("Reset", "Nothing");
    let answers = vec![
        answer("200 OK", list),
        refused,
        answer("200 OK", &list.replace('1', "2")),
        system("n1", "Off"),
    ];
    let (device, asked) = named(&directory, answers);
    let (pin, limit) = (Pin::default(), Limit::in_ms(60_000));
    assert!(matches!(order_in(&pin, &device, Order::Off, limit), OrderReport::Failed(_)));

    assert_eq!(device.power(&node(), &pin, limit).state, PowerState::Off);

    assert_eq!(asked.try_iter().nth(3).unwrap(), "GET /S/2 HTTP/1.1");
}

#[test]
fn a_system_that_has_moved_on_its_service_is_found() {
    let directory = Directory::new();
    let moved = "HTTP/1.1 308 Moved\r\nLocation: /redfish/v1/Systems/7\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n";
    let answers = vec![moved.to_owned(), answer("200 OK", SYSTEM), answer("202 Accepted", "")];
    let (address, asked) = service(answers);

    let report = order(&device(&directory, &address), Limit::in_ms(60_000));

    assert_eq!(report, OrderReport::Acknowledged("ForceOff: HTTP 202".into()));
    assert_eq!(asked.try_iter().nth(1).unwrap(), "GET /redfish/v1/Systems/7 HTTP/1.1");
}

#[test]
fn a_password_that_is_a_word_of_ours_is_not_shown_by_hiding_it() {
    let directory = Directory::new();
    let refusal = r#"{"error": {"message": "admin is locked"}}"#;
    for (password, words) in [
        ("login", "admin is locked"),
        ("admin", "*** is locked"),
        ("lock", "admin is ***"),
        ("e", "***"),
    ] {
        let (address, _asked) = service(vec![answer("401 No", refusal)]);
        let device = device(&directory, &address);
        fs::write(directory.path("password"), password).unwrap();

        let report = order(&device, Limit::in_ms(60_000));

        let text = format!(
            "{address}: the login was refused (HTTP 401: {words}): check 'username' and the \
             password"
        );
        assert_eq!(report, OrderReport::Failed(text), "{password}");
    }
}

#[test]
fn a_place_is_hidden_only_where_the_service_names_it() {
    let directory = Directory::new();
    let moved = "HTTP/1.1 307 There\r\nLocation: /Systems/moved\r\nContent-Length: 0\r\n\r\n";
    let system = r##"{"PowerState": "Systems", "Actions": {"#ComputerSystem.Reset": {"target": 
        "Systems"}}}"##;
    for (answers, words) in [
        (vec![answer("404 No", "")], "there is no /redfish/v1/Systems/1 (HTTP 404)"),
        (
            vec![moved.to_owned(), answer("404 No", "")],
            "there is no /redfish/v1/Systems/1 (HTTP 404)",
        ),
        (vec![answer("200 OK", system)], "action: \"***\" is no path"),
    ] {
        let (address, _asked) = service(answers);
        let device = device(&directory, &address);
        fs::write(directory.path("password"), "Systems").unwrap();

        match order(&device, Limit::in_ms(60_000)) {
            OrderReport::Failed(text) => assert_text(&text, words),
            report => panic!("{report:?}"),
        }
    }
    // The result of a check contains the service's words as well.
    let (address, _asked) = service(vec![answer("200 OK", r#"{"PowerState": 5, "Id": "s3cret"}"#)]);
    let problems = device(&directory, &address).unknown_targets(Limit::in_ms(60_000)).join(" ");
    assert_text(&problems, "PowerState 5, which is no state: no fence can be confirmed");
    let system = r##"{"PowerState": "On", "Actions": {"#ComputerSystem.Reset": {"target": 
        "s3cret"}}}"##;
    let (address, _asked) = service(vec![answer("200 OK", system)]);
    let problems = device(&directory, &address).unknown_targets(Limit::in_ms(60_000)).join(" ");
    assert_text(&problems, "action: \"***\" is no path");
}
