//! The Redfish driver if an answer proves nothing: a reset whose task never ends, a name that may
//! also belong to another system, an order that may be under way, a state beside an error.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::bmc::{
    Bmc, ONE, RESET, SYSTEMS, TWO, answer_of, assert_acknowledged, assert_text,
    assert_unacknowledged, device, list, ok, order, order_for, settings, system, with,
};
use common::{Directory, long, node};
use fence_core::execution::{Order, OrderReport};
use fence_device::{FenceDevice, Limit, Pin, Reach, RedfishDevice};
use fence_protocol::PowerState;

#[test]
fn a_reset_whose_task_does_not_end_is_not_acknowledged() {
    let check = |accepted: String, asked: String| {
        let directory = Directory::new();
        let bmc =
            Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[accepted]), ("GET /T/7", &[asked])]);
        let report = |what| order_for(&device(&directory, &bmc), what, None, Limit::in_ms(4_000));
        assert_unacknowledged(&report(Order::Cycle), "its task is still running");
        assert_eq!(bmc.orders(), 1);
        // The power state decides everything else.
        assert_acknowledged(&report(Order::Off), "the power decides");
    };
    // Each waits until its time limit: all run at once.
    std::thread::scope(|scope| {
        for state in ["New", "Pending", "Suspended", "Running", "Stopping", "Interrupted"] {
            let task =
                format!(r#"{{"@odata.id": "/T/7", "TaskState": "{state}", "TaskStatus": "OK"}}"#);
            let job = format!(r#"{{"JobState": "{state}"}}"#);
            for (accepted, asked) in [
                (with("202 Accepted", "Location: /T/7", ""), ok(&task)),
                (answer_of("202 Accepted", &task), ok(&task)),
                (with("202 Accepted", "Location: /T/7", ""), ok(&job)),
                (with("202 Accepted", "Location: /T/7", ""), answer_of("202 Accepted", "")),
            ] {
                scope.spawn(|| check(accepted, asked));
            }
        }
    });
}

#[test]
fn a_reset_whose_task_has_no_place_is_not_acknowledged() {
    for accepted in [
        answer_of("202 Accepted", r#"{"TaskState": "New"}"#),
        ok(r#"{"TaskState": "Running", "@odata.id": "//elsewhere/T/7"}"#),
        with("202 Accepted", "Location: //elsewhere/T/7", ""),
    ] {
        let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[accepted])]);
        assert_unacknowledged(&order(&bmc, Order::Cycle), "its task has no place");
        assert_acknowledged(&order(&bmc, Order::Off), "the power decides");
    }
    let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[answer_of("202 Accepted", "")])]);
    assert_acknowledged(&order(&bmc, Order::Cycle), "HTTP 202");
}

/// A system with this name, which is on.
fn called(id: &str, name: &str) -> String {
    ok(&format!(
        r##"{{"Id": "{id}", "Name": "{name}", "PowerState": "On", "Actions":
            {{"#ComputerSystem.Reset": {{"target": "/redfish/v1/Systems/{id}/Reset"}}}}}}"##
    ))
}

#[test]
fn a_name_that_an_unreadable_system_may_also_have_is_not_trusted() {
    let directory = Directory::new();
    let no_place = r#"{"Members": [{"@odata.id": "/redfish/v1/Systems/1"}, {}]}"#;
    for (members, other, is_passing) in [
        (list(&["1", "2"]), answer_of("503 Later", ""), true),
        (list(&["1", "2"]), String::new(), true),
        (list(&["1", "2"]), answer_of("403 No", ""), false),
        (list(&["1", "2"]), answer_of("404 No", ""), false),
        (list(&["1", "2"]), ok("<html>"), false),
        (list(&["1", "2"]), ok(r#"{"Name": "n1", "error": {"message": "Timed out."}}"#), false),
        (ok(no_place), String::new(), false),
    ] {
        let bmc = Bmc::start(&[
            (SYSTEMS, &[members]),
            (ONE, &[called("1", "n1")]),
            (TWO, &[other]),
            (RESET, &[answer_of("204 Done", "")]),
        ]);
        let by = |name| RedfishDevice::new(settings(&directory, &bmc.address, Some(name)));
        let named = by("n1");
        match order_for(&named, Order::Off, None, Limit::in_ms(900)) {
            OrderReport::Unreachable(text) if is_passing => assert_text(&text, "cannot be read"),
            OrderReport::Failed(text) if !is_passing => assert_text(&text, "cannot be read"),
            report => panic!("{report:?}"),
        }
        let power = named.power(&node(), &Pin::default(), Limit::in_ms(900));
        assert_eq!(power.state, PowerState::Unknown, "{power:?}");
        let Reach::Unreachable(text) = named.reachable(Limit::in_ms(900)) else { panic!() };
        assert_text(&text, "cannot be read");
        assert_eq!(bmc.orders(), 0);

        // No two systems of a service have the same Id.
        assert_acknowledged(&order_for(&by("1"), Order::Off, None, long()), "HTTP 204");
    }
    // The other system is readable in the end, and has another name, or the same.
    for (name, count) in [("n2", 1), ("n1", 0)] {
        let bmc = Bmc::start(&[
            (SYSTEMS, &[list(&["1", "2"])]),
            (ONE, &[called("1", "n1")]),
            (TWO, &[answer_of("503 Later", ""), called("2", name)]),
            (RESET, &[answer_of("204 Done", "")]),
        ]);
        let named = RedfishDevice::new(settings(&directory, &bmc.address, Some("n1")));
        let report = order_for(&named, Order::Off, None, long());
        assert_eq!(bmc.orders(), count, "{report:?}");
    }
}

#[test]
fn an_order_that_may_be_under_way_is_never_repeated() {
    let words = r#"{"error": {"code": "Base.1.8.GeneralError",
        "message": "No answer in time; the service is temporarily unavailable."}}"#;
    let id = r#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.SYS518"}]}}"#;
    for status in ["500 Oops", "501 Never", "502 Bad", "504 Late", "507 Full", "599 Odd"] {
        for refusal in [
            answer_of(status, words),
            answer_of(status, id),
            with(status, "Retry-After: 1", words),
            with(status, "Retry-After: 1", ""),
        ] {
            let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &[refusal])]);
            for what in [Order::Off, Order::On, Order::Cycle] {
                assert_unacknowledged(&order(&bmc, what), "HTTP 5");
            }
            assert_eq!(bmc.orders(), 3);
        }
    }
    for refusal in [answer_of("503 Later", words), answer_of("409 No", words)] {
        let answers = [refusal, answer_of("204 Done", "")];
        let bmc = Bmc::start(&[(ONE, &[system("On", "")]), (RESET, &answers)]);
        assert_acknowledged(&order(&bmc, Order::Off), "HTTP 204");
        assert_eq!(bmc.orders(), 2);
    }
}

/// Members beside a system's state that make the state invalid.
const DOUBTS: [&str; 6] = [
    r#""@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.SYS518", "MessageSeverity": "Critical",
        "Message": "iDRAC is not ready."}]"#,
    r#""@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.SYS518", "Severity": "Informational"}]"#,
    r#""@Message.ExtendedInfo": {"MessageId": "X.1.0.Y", "Severity": "critical"}"#,
    r#""@Message.ExtendedInfo": [{"MessageId": "Base.1.8.Success"},
        {"Message": "The host interface is not ready."}]"#,
    r#""PowerState@Message.ExtendedInfo": [{"MessageId": "X.1.0.Y", "Severity": "Critical"}]"#,
    r#""error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.8.Success"}]},
        "@Message.ExtendedInfo": [{"MessageId": "X.1.0.Y", "Severity": "Critical"}]"#,
];

fn beside(doubt: &str, power: &str) -> String {
    let shown = system(power, "").split_once("\r\n\r\n").unwrap().1.to_owned();
    ok(&shown.replace("\"Id\"", &format!("{doubt}, \"Id\"")))
}

#[test]
fn a_state_beside_an_error_is_invalid() {
    let directory = Directory::new();
    for doubt in DOUBTS {
        for power in ["Off", "On"] {
            let bmc =
                Bmc::start(&[(ONE, &[beside(doubt, power)]), (RESET, &[answer_of("409 No", "")])]);
            let one = device(&directory, &bmc);
            let shown = one.power(&node(), &Pin::default(), Limit::in_ms(300));
            assert_eq!(shown.state, PowerState::Unknown, "{doubt}: {shown:?}");
            assert_text(&shown.detail, &format!("PowerState {power}, beside an error"));
            // The order is given nevertheless, and a refused order does not count as done.
            for what in [Order::Off, Order::On] {
                let report = order_for(&one, what, None, long());
                assert_unacknowledged(&report, "HTTP 409");
            }
            let Reach::Unreachable(text) = one.reachable(Limit::in_ms(900)) else { panic!() };
            assert_text(&text, "no fence can be confirmed");
        }
    }
}

#[test]
fn a_state_beside_a_remark_is_valid() {
    let directory = Directory::new();
    for remark in [
        r#""@Message.ExtendedInfo": []"#,
        r#""@Message.ExtendedInfo": [{"MessageId": "Base.1.8.Success", "Severity": "OK"}]"#,
        r#""@Message.ExtendedInfo": [{"MessageId": "X.1.0.FanSlow", "Severity": "Warning"}]"#,
        r#""@Message.ExtendedInfo": [{"MessageId": "X.1.0.Deprecated", "Message": "Old."}]"#,
        r#""Status": {"Health": "Critical", "State": "Disabled"}"#,
        r#""Name@Message.ExtendedInfo": [{"MessageId": "X.1.0.Y", "Severity": "Critical"}]"#,
    ] {
        let bmc = Bmc::start(&[(ONE, &[beside(remark, "Off")])]);
        let report = device(&directory, &bmc).power(&node(), &Pin::default(), long());
        assert_eq!(report.state, PowerState::Off, "{remark}: {report:?}");
    }
}

#[test]
fn a_state_beside_an_error_is_asked_for_again() {
    let directory = Directory::new();
    for doubt in DOUBTS {
        let bmc = Bmc::start(&[(ONE, &[beside(doubt, "Off"), system("On", "")])]);
        let report = device(&directory, &bmc).power(&node(), &Pin::default(), long());
        assert_eq!(report.state, PowerState::On, "{doubt}: {report:?}");
        assert_eq!(bmc.count(ONE), 2);

        // Until the system shows its reset action, no order can be given.
        let without =
            beside(doubt, "Off").replace("#ComputerSystem.Reset", "#ComputerSystem.Tests");
        let bmc = Bmc::start(&[
            (ONE, &[without, system("On", "")]),
            (RESET, &[answer_of("204 Done", "")]),
        ]);
        let report = order_for(&device(&directory, &bmc), Order::Off, None, long());
        assert_acknowledged(&report, "HTTP 204");
    }
}

#[test]
fn a_task_is_asked_until_it_ends() {
    let task = "/redfish/v1/TaskService/Tasks/7";
    let by_header = with("202 Accepted", &format!("Location: {task}"), "");
    let absolute = with("202 Accepted", &format!("Location: https://its-own-name{task}"), "");
    let by_body =
        answer_of("202 Accepted", &format!(r#"{{"@odata.id": "{task}", "TaskState": "New"}}"#));
    let running = || ok(r#"{"TaskState": "Running"}"#);
    let failed = ok(r#"{"TaskState": "Killed", "Messages": [{"Message": "By hand."}]}"#);
    let question = format!("GET {task}");
    for accepted in [by_header.clone(), absolute, by_body] {
        let tasks = [running(), answer_of("202 Accepted", ""), failed.clone()];
        let bmc = Bmc::start(&[
            (ONE, &[system("On", "")]),
            (RESET, std::slice::from_ref(&accepted)),
            (&question, &tasks),
        ]);
        assert_unacknowledged(&order(&bmc, Order::Off), "By hand.");
        assert_eq!(bmc.count(&question), 3);
    }
    for (end, is_yes) in [
        (ok(r#"{"TaskState": "Completed", "TaskStatus": "OK"}"#), true),
        // A task monitor gives the answer that the order would have received.
        (answer_of("204 Done", ""), true),
        (answer_of("404 Gone", ""), true),
        (answer_of("400 Bad", r#"{"error": {"message": "No."}}"#), false),
        (ok(r#"{"error": {"message": "No."}}"#), false),
    ] {
        let tasks = [running(), end];
        let bmc = Bmc::start(&[
            (ONE, &[system("On", "")]),
            (RESET, std::slice::from_ref(&by_header)),
            (&question, &tasks),
        ]);
        let report = order(&bmc, Order::Cycle);
        assert_eq!(matches!(report, OrderReport::Acknowledged(_)), is_yes, "{report:?}");
    }
}

#[test]
fn a_task_that_runs_on_leaves_the_power_to_decide() {
    let directory = Directory::new();
    let accepted = with("202 Accepted", "Location: /T/7", "");
    let tasks = [ok(r#"{"TaskState": "Running"}"#)];
    let bmc = Bmc::start(&[
        (ONE, &[system("On", "")]),
        (RESET, std::slice::from_ref(&accepted)),
        ("GET /T/7", &tasks),
    ]);
    let limit = Limit::in_ms(2_000);
    let report = order_for(&device(&directory, &bmc), Order::Off, None, limit);
    assert_acknowledged(&report, "still running, the power decides");
    assert!(!limit.has_passed(), "no time is left to ask for the power");

    // The power may show it long before the task ends.
    let bmc = Bmc::start(&[
        (ONE, &[system("On", ""), system("PoweringOff", ""), system("Off", "")]),
        (RESET, &[accepted]),
        ("GET /T/7", &tasks),
    ]);
    assert_acknowledged(&order(&bmc, Order::Off), "HTTP 202");
    assert_eq!(bmc.count(ONE), 3);
}

#[test]
fn a_task_that_cannot_be_asked_proves_no_reset() {
    let directory = Directory::new();
    let bmc = Bmc::start(&[
        (ONE, &[system("On", "")]),
        (RESET, &[with("202 Accepted", "Location: /T/7", "")]),
        ("GET /T/7", &[answer_of("500 Oops", "")]),
    ]);
    let device = device(&directory, &bmc);
    let report = |order| order_for(&device, order, None, Limit::in_ms(1_500));

    assert_acknowledged(&report(Order::Off), "cannot be asked, the power decides");
    assert_unacknowledged(&report(Order::Cycle), "cannot be asked");
}
