//! The agent's list, if it decides before an order: nothing shows the order's effect, or no option
//! is known to name the target.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use common::agents::{ALL, Rig, metadata, node, off, order_by, power};
use common::{long, order_in};
use fence_core::execution::{Order, OrderReport};
use fence_device::{AgentAction, FenceAgentSettings, FenceDevice, Limit, Pin, Reach};
use fence_protocol::PowerState;

/// An agent with this list, which accepts every order.
fn listing(list: &str) -> String {
    format!(
        "case $action in list) {list};; status) [ -e off ] && exit 2; exit 0;; off) : >off;; esac"
    )
}

/// A device with this agent, and an order for it.
type Case = fn(&Rig, &str) -> (FenceAgentSettings, Order);

const WITHOUT_STATUS: [&str; 5] = ["off", "on", "reboot", "list", "monitor"];

fn named(settings: FenceAgentSettings) -> FenceAgentSettings {
    FenceAgentSettings { plug_option: Some("plug".to_owned()), ..settings }
}

/// Nothing shows the effect of the order.
const UNCONFIRMED: [Case; 5] = [
    |rig, body| (named(rig.agent_with(&metadata("plug", &WITHOUT_STATUS), body)), Order::Off),
    |rig, body| (named(rig.agent_with(&metadata("plug", &WITHOUT_STATUS), body)), Order::On),
    |rig, body| {
        let agent = rig.agent_with(&metadata("plug", &WITHOUT_STATUS), body);
        (FenceAgentSettings { targets: [node("n1")].into(), ..agent }, Order::Off)
    },
    |rig, body| {
        let actions = Some([AgentAction::Off, AgentAction::List].into());
        (FenceAgentSettings { actions, ..rig.agent(body) }, Order::Off)
    },
    |rig, body| (rig.agent(body), Order::Cycle),
];

/// No option is known to name the target.
const UNNAMED: [Case; 3] = [
    |rig, body| (rig.agent_with(&metadata("plug", &ALL), body), Order::Off),
    |rig, body| (rig.agent_with(&metadata("plug", &WITHOUT_STATUS), body), Order::Off),
    |rig, body| {
        let agent = rig.agent_with(&metadata("port", &ALL), body);
        (FenceAgentSettings { targets: [].into(), ..agent }, Order::On)
    },
];

/// The report of the order, and whether the agent received an order.
fn ordered(case: Case, body: &str, limit: Limit) -> (OrderReport, bool) {
    let rig = Rig::new();
    let (settings, order) = case(&rig, body);
    let device = rig.device(settings);
    device.prepare(long());
    let report = order_by(&device, order, limit);
    let is_order =
        |call: &String| ["off", "on", "reboot"].contains(&call.split(' ').next().unwrap());
    (report, rig.calls().iter().any(is_order))
}

#[test]
fn an_order_is_given_only_for_a_plug_that_is_listed() {
    for case in UNCONFIRMED.into_iter().chain(UNNAMED) {
        for list in ["echo n1", "printf 'n2,\\nn1,\\n'", "echo 3,n1"] {
            let (report, was_given) = ordered(case, &listing(list), long());
            assert!(
                matches!(report, OrderReport::Acknowledged(_)) && was_given,
                "{list}: {report:?}"
            );
        }
        for list in ["echo n2", "echo n11", ":", "printf 'n2,\\nn3,\\n'"] {
            let (report, was_given) = ordered(case, &listing(list), long());
            let OrderReport::Failed(text) = report else { panic!("{list}: {report:?}") };
            assert!(text.contains("'n1' is not in its list") && !was_given, "{list}: {text}");
        }
    }
}

#[test]
fn nothing_is_ordered_where_the_list_cannot_be_read() {
    for case in UNCONFIRMED.into_iter().chain(UNNAMED) {
        let (report, was_given) = ordered(case, &listing("echo gone >&2; exit 1"), long());
        assert!(matches!(report, OrderReport::Unreachable(_)) && !was_given, "{report:?}");
        for list in
            ["echo 'no list here'", "echo NOTICE: no answer", "printf 'N/A\\nn1\\n'", "kill -9 $$"]
        {
            let (report, was_given) = ordered(case, &listing(list), long());
            assert!(matches!(report, OrderReport::Failed(_)) && !was_given, "{list}: {report:?}");
        }
        let (report, was_given) = ordered(case, &listing("sleep 1000"), Limit::in_ms(700));
        assert!(matches!(report, OrderReport::TooLate) && !was_given, "{report:?}");
    }
}

#[test]
fn the_list_is_read_once_for_order_and_state() {
    let rig = Rig::new();
    let device = rig.device(rig.agent_with(&metadata("plug", &ALL), &listing("echo n1")));
    let pin = Pin::default();

    assert!(matches!(order_in(&pin, &device, Order::Off, long()), OrderReport::Acknowledged(_)));

    assert_eq!(device.power(&node("n1"), &pin, long()).state, PowerState::Off);
    assert_eq!(rig.calls(), ["list n1", "off n1", "status n1"]);
}

const NOTICE: &str = "echo 'NOTICE: List option is not working on this device yet'";

#[test]
fn an_agent_that_reports_no_list_has_none() {
    for case in UNCONFIRMED {
        for list in [NOTICE, "echo N/A"] {
            let (report, _) = ordered(case, &listing(list), long());
            assert!(matches!(report, OrderReport::Acknowledged(_)), "{list}: {report:?}");
        }
    }
    // Its plugs are declared, and only the list is missing.
    for case in UNNAMED {
        let (report, _) = ordered(case, &listing(NOTICE), long());
        assert!(matches!(report, OrderReport::Acknowledged(_)), "{report:?}");
    }
    for (list, is_named, state) in [
        (NOTICE, true, PowerState::Off),
        ("echo N/A", true, PowerState::Off),
        (NOTICE, false, PowerState::Off),
        ("echo N/A", false, PowerState::Unknown),
    ] {
        let rig = Rig::new();
        let agent = rig.agent_with(&metadata("plug", &ALL), &listing(list));
        let device = rig.device(if is_named { named(agent) } else { agent });
        std::fs::write(rig.path("off"), "").unwrap();
        assert_eq!(power(&device).state, state, "{list} {is_named}");
    }
}

#[test]
fn an_agent_for_one_machine_gets_no_order_for_one_of_several_targets() {
    for case in UNNAMED {
        let (report, was_given) = ordered(case, &listing("echo N/A"), long());
        let OrderReport::Failed(text) = report else { panic!("{report:?}") };
        assert!(text.contains("write in 'plug_option'") && !was_given, "{text}");
    }
    let rig = Rig::new();
    let agent = rig.agent_with(&metadata("plug", &ALL), &listing("echo N/A"));
    let found = rig.device(agent).unknown_targets(long());
    assert!(found[0].contains("no target can be fenced"), "{found:?}");
    // Without its list, nothing shows its nature.
    let actions = Some([AgentAction::Off, AgentAction::Status].into());
    let agent = rig.agent_with(&metadata("plug", &ALL), &listing("echo N/A"));
    let device = rig.device(FenceAgentSettings { actions, ..agent });
    let OrderReport::Failed(text) = off(&device) else { panic!() };
    assert!(text.contains("not asked for its list"), "{text}");
    assert!(device.check().contains(&text), "{:?}", device.check());
    assert!(matches!(device.reachable(long()), Reach::Unreachable(_)));
    assert!(!rig.calls().iter().any(|call| call.starts_with("off")));
}

#[test]
fn a_list_that_cannot_be_read_confirms_nothing() {
    let rig = Rig::new();
    for (list, words) in [
        ("echo crash >&2; exit 1", "it is not known whether it has "),
        ("echo 'NOTICE: the list is not working'", "is not a plug"),
    ] {
        let body = format!("case $action in list) {list};; *) echo 'Status: OFF'; exit 2;; esac");
        let shown = power(&rig.device(rig.agent(&body)));

        assert_eq!(shown.state, PowerState::Unknown);
        assert!(shown.detail.contains(words), "{shown:?}");
    }
}

#[test]
fn an_agent_without_a_list_is_trusted() {
    let rig = Rig::new();
    let body = "[ $action = list ] && exit 1; exit 2";
    let without = rig.agent_with(&metadata("plug", &["off", "status"]), body);
    assert_eq!(power(&rig.device(without)).state, PowerState::Off);

    let actions = Some([AgentAction::Off, AgentAction::Status].into());
    let not_used = FenceAgentSettings { actions, ..rig.agent(body) };
    assert_eq!(power(&rig.device(not_used)).state, PowerState::Off);

    // Without metadata, the agent's nature is unknown.
    let plug_option = Some("plug".to_owned());
    let silent = FenceAgentSettings { plug_option, ..rig.agent_with("", body) };
    assert_eq!(power(&rig.device(silent)).state, PowerState::Unknown);
    assert_eq!(rig.calls().iter().filter(|call| call.starts_with("list")).count(), 1);
}
