//! The driver for BMCs over IPMI, with an ipmitool for the tests that prints the messages of the
//! real one about a busy BMC. `tests/devices` drives the real one.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::fs;

use common::{Rig, ipmi_settings, long, node, order_in};
use fence_core::execution::{Order, OrderReport};
use fence_device::{FenceDevice, IpmiDevice, Limit, Pin, Reach};
use fence_protocol::PowerState;

impl Rig {
    /// A BMC that fails this many times, with this message: first questions, then orders.
    fn device(&self, busy: [(&str, usize); 2]) -> IpmiDevice {
        let [(question, questions), (order, orders)] = busy;
        let script = format!(
            "cd '{}'; for word; do :; done; echo $word >>calls\n\
             n=$(grep -c \"^$word\" calls)\n\
             case $word in\n\
             status) [ $n -le {questions} ] || {{ echo 'Chassis Power is on'; exit; }}\n\
             echo '{question}' >&2;;\n\
             off) [ $n -le {orders} ] || {{ echo 'Chassis Power Control: Down/Off'; exit; }}\n\
             echo '{order}' >&2;;\n\
             esac; exit 1",
            self.directory.path("").display()
        );
        let program = self.directory.script("ipmitool", &script);
        let settings = ipmi_settings(&self.directory, program);
        IpmiDevice::new(settings, self.executor.clone())
    }

    fn calls(&self) -> Vec<String> {
        self.directory.calls()
    }
}

fn off(device: &IpmiDevice, limit_ms: u64) -> OrderReport {
    order_in(&Pin::default(), device, Order::Off, Limit::in_ms(limit_ms))
}

/// The messages when no session is available at the moment, and when an order comes too early.
const NO_ROOM: &str = "RAKP 2 message indicates an error : insufficient resources for \
     session\nError: Unable to establish IPMI v2 / RMCP+ session";
const FORGOTTEN: &str = "RAKP 2 message indicates an error : inactive session ID\nError: Unable to \
                         establish IPMI v2 / RMCP+ session";
const NODE_BUSY: &str = "Set Chassis Power Control to Down/Off failed: Node busy";

#[test]
fn a_question_that_the_limit_cuts_short_hides_nothing_that_the_bmc_said_before() {
    for words in [NO_ROOM, "Get Chassis Power Status failed: Node busy"] {
        let rig = Rig::new();
        let script = format!(
            "cd '{}'; echo call >>calls; [ $(grep -c . calls) = 1 ] || exec sleep 60; \
             echo '{words}' >&2; exit 1",
            rig.directory.path("").display()
        );
        let program = rig.directory.script("ipmitool", &script);
        let settings = ipmi_settings(&rig.directory, program);
        let device = IpmiDevice::new(settings, rig.executor.clone());

        let shown = device.power(&node(), &Pin::default(), Limit::in_ms(6_000));

        assert_eq!((shown.state, rig.calls().len()), (PowerState::Unknown, 2));
        let expected = words.lines().next().unwrap();
        assert!(shown.detail.contains(expected), "{expected:?}: {}", shown.detail);
    }
}

#[test]
fn a_busy_bmc_is_asked_and_ordered_again() {
    for (question, order) in [(NO_ROOM, FORGOTTEN), (FORGOTTEN, NODE_BUSY)] {
        let rig = Rig::new();
        let device = rig.device([(question, 1), (order, 1)]);

        let report = off(&device, 60_000);

        assert!(matches!(report, OrderReport::Acknowledged(_)), "{report:?}");
        assert_eq!(rig.calls(), ["status", "status", "off", "off"]);
    }
}

#[test]
fn a_bmc_that_is_busy_until_the_limit_was_not_reached() {
    for (busy, tried) in [([(NO_ROOM, 99), ("", 0)], "status"), ([("", 0), (NODE_BUSY, 99)], "off")]
    {
        let rig = Rig::new();
        let report = off(&rig.device(busy), 4_500);

        assert!(matches!(report, OrderReport::Unreachable(_)), "{report:?}");
        assert!(rig.calls().iter().filter(|call| *call == tried).count() > 1, "{:?}", rig.calls());
    }
}

#[test]
fn an_order_with_an_unknown_outcome_is_given_once() {
    for words in [
        "Unable to set Chassis Power Control to Down/Off",
        "Set Chassis Power Control to Down/Off failed: Timeout",
        "Set Chassis Power Control to Down/Off failed: Command response could not be provided",
        "something new",
    ] {
        let rig = Rig::new();
        let report = off(&rig.device([("", 0), (words, 1)]), 60_000);

        assert!(matches!(report, OrderReport::Unacknowledged(_)), "{words}: {report:?}");
        assert_eq!(rig.calls(), ["status", "off"], "{words}");
    }
}

#[test]
fn a_contact_and_a_question_are_repeated_as_well() {
    let rig = Rig::new();
    let device = rig.device([(FORGOTTEN, 1), ("", 0)]);
    let reach = device.reachable(long());
    assert!(matches!(reach, Reach::Reachable(_)), "{reach:?}");

    let rig = Rig::new();
    let device = rig.device([(NO_ROOM, 1), ("", 0)]);
    let power = device.power(&node(), &Pin::default(), long());
    assert_eq!(power.state, PowerState::On);
}

#[test]
fn a_password_that_is_a_word_of_ours_is_not_shown_by_hiding_it() {
    let refused = "> RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session";
    for (password, quotation) in [
        ("wrong", "RAKP 2 HMAC is invalid"),
        ("HMAC", "RAKP 2 *** is invalid"),
        ("val", "***"),
        ("BMC", "***"),
    ] {
        let rig = Rig::new();
        let device = rig.device([(refused, 99), ("", 0)]);
        fs::write(rig.directory.path("password"), password).unwrap();

        let report = off(&device, 60_000);

        let expected = format!("BMC 127.0.0.1: the password is wrong ({quotation})");
        assert_eq!(report, OrderReport::Failed(expected), "{password}");
    }
}

#[test]
fn a_question_that_is_refused_for_now_is_asked_again_and_stops_no_order() {
    for refusal in ["Node busy", "BMC initialization in progress", "Timeout"] {
        let words = format!("Get Chassis Power Status failed: {refusal}");
        let rig = Rig::new();
        let device = rig.device([(&words, 1), ("", 0)]);
        let reach = device.reachable(long());
        assert!(matches!(reach, Reach::Reachable(_)), "{reach:?}");
        assert_eq!(rig.calls(), ["status", "status"]);

        let rig = Rig::new();
        let device = rig.device([(&words, 2), ("", 0)]);
        let power = device.power(&node(), &Pin::default(), long());
        assert_eq!(power.state, PowerState::On);

        let rig = Rig::new();
        let report = off(&rig.device([(&words, 99), ("", 0)]), 60_000);
        assert!(matches!(report, OrderReport::Acknowledged(_)), "{report:?}");
        assert_eq!(rig.calls(), ["status", "off"]);
    }
    let rig = Rig::new();
    let device = rig.device([("Get Chassis Power Status failed: Invalid command", 1), ("", 0)]);
    let power = device.power(&node(), &Pin::default(), long());
    assert_eq!(power.state, PowerState::Unknown);
    assert_eq!(rig.calls(), ["status"]);
}
