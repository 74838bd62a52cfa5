//! What an agent's metadata decides: whether an order is given, and which questions the agent
//! receives. Small agents print their metadata late, badly, or not at all.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::fs;

use common::agents::{ALL, Rig, metadata, node, off, order_by, power, settings};
use common::long;
use fence_core::execution::{Order, OrderReport};
use fence_device::{AgentAction, FenceAgentDevice, FenceAgentSettings, FenceDevice, Limit, Reach};
use fence_protocol::PowerState;

/// An agent that runs `describe` when it is asked for its metadata, and obeys otherwise.
fn described(rig: &Rig, option: &str, describe: &str) -> FenceAgentDevice {
    rig.device(settings_of(rig, option, describe))
}

fn settings_of(rig: &Rig, option: &str, describe: &str) -> FenceAgentSettings {
    fs::write(rig.path("metadata"), metadata(option, &ALL)).unwrap();
    let script = format!(
        "cd '{}'; input=$(cat)\n\
         case $input in *action=metadata*) echo x >>described; {describe}; exit;; esac\n\
         echo \"$input\" >>calls; case $input in *action=list*) echo n1;; *action=status*) exit \
         2;; esac",
        rig.path("")
    );
    settings(rig.directory.script("fence_test", &script))
}

fn descriptions(rig: &Rig) -> usize {
    rig.directory.read("described").lines().count()
}

#[test]
fn nothing_is_ordered_or_trusted_while_the_metadata_of_an_agent_cannot_be_read() {
    for describe in [
        "exit 1",
        "echo 'no XML'",
        "head -c 200 metadata",
        "kill -9 $$",
        "cat metadata; exit 1",
        "sleep 1000",
    ] {
        let rig = Rig::new();
        let device = described(&rig, "plug", describe);
        let limit = Limit::in_ms(1_000);

        let report = order_by(&device, Order::Off, limit);
        let is_refused = match &report {
            OrderReport::Failed(text) => text.contains("write in 'plug_option'"),
            OrderReport::TooLate => describe.starts_with("sleep"),
            _ => false,
        };
        assert!(is_refused, "{describe}: {report:?}");
        let pin = fence_device::Pin::default();
        let state = device.power(&node("n1"), &pin, Limit::in_ms(1_000)).state;
        assert_eq!(state, PowerState::Unknown, "{describe}");
        let reach = device.reachable(Limit::in_ms(1_000));
        assert!(matches!(reach, Reach::Unreachable(_)), "{describe}: {reach:?}");
        assert_eq!(rig.calls(), [""; 0], "{describe}");
    }
}

#[test]
fn metadata_that_comes_late_or_after_other_words_decides_nevertheless() {
    // No event tells a shell that a file appears.
    let slow = "while ! [ -e go ]; do sleep 0.1; done; cat metadata";
    for describe in [slow, "echo 'Warning: old'; cat metadata; echo 'Bye <all>'"] {
        for (option, is_safe) in [("plug", true), ("port_as_ip", false)] {
            let rig = Rig::new();
            let device = described(&rig, option, describe);
            let report = std::thread::scope(|scope| {
                let order = scope.spawn(|| off(&device));
                common::wait_for("a question for the metadata", || descriptions(&rig) == 1);
                fs::write(rig.path("go"), "").unwrap();
                order.join().unwrap()
            });
            let is_ordered = matches!(report, OrderReport::Acknowledged(_));
            assert_eq!(is_ordered, is_safe, "{describe}, {option}: {report:?}");
        }
    }
}

#[test]
fn text_beside_the_metadata_is_a_remark_and_not_a_problem() {
    let rig = Rig::new();
    let device = described(&rig, "plug", "echo 'Warning: old'; cat metadata");

    assert_eq!(device.check(), [""; 0]);
    let remarks = device.remarks(long());
    assert!(remarks.len() == 1 && remarks[0].ends_with("Warning: old"), "{remarks:?}");

    assert_eq!(described(&rig, "plug", "cat metadata").remarks(long()), [""; 0]);
}

#[test]
fn the_metadata_is_read_once_until_the_agent_is_another_one() {
    let rig = Rig::new();
    let device = described(&rig, "plug", "cat metadata");
    for _ in 0..3 {
        device.prepare(long());
        assert!(matches!(off(&device), OrderReport::Acknowledged(_)));
        power(&device);
    }
    assert_eq!(descriptions(&rig), 1);

    // An update of the same agent, with another length.
    described(&rig, "port_as_ip", "cat metadata; : new");
    assert!(matches!(off(&device), OrderReport::Failed(_)));
    assert_eq!(descriptions(&rig), 2);
}

#[test]
fn a_failure_to_read_the_metadata_is_tried_again_only_where_safety_depends_on_it() {
    let rig = Rig::new();
    let unclear = described(&rig, "plug", "[ -e go ] && cat metadata || exit 1");
    assert!(matches!(off(&unclear), OrderReport::Failed(_)));
    fs::write(rig.path("go"), "").unwrap();
    assert!(matches!(off(&unclear), OrderReport::Acknowledged(_)));

    let rig = Rig::new();
    let plug_option = Some("plug".to_owned());
    let clear = FenceAgentSettings { plug_option, ..settings_of(&rig, "plug", "exit 1") };
    let clear = rig.device(clear);
    for _ in 0..3 {
        clear.prepare(long());
        assert!(matches!(off(&clear), OrderReport::Acknowledged(_)));
        power(&clear);
    }
    assert_eq!(descriptions(&rig), 1);
}

#[test]
fn an_agent_is_asked_for_its_state_only_if_it_has_a_status() {
    for (actions, has_status) in
        [(&["off", "on", "monitor"][..], false), (&["off", "on", "status"], true), (&[], true)]
    {
        let rig = Rig::new();
        let device = rig.device(rig.agent_with(&metadata("plug", actions), "exit 0"));

        device.prepare(long());

        assert_eq!(device.abilities().power, has_status, "{actions:?}");
        power(&device);
        assert_eq!(!rig.calls().is_empty(), has_status, "{actions:?}");
    }
    // The administrator's setting counts, whatever the agent prints.
    let rig = Rig::new();
    let agent = rig.agent_with(&metadata("plug", &["off"]), "exit 0");
    let actions = Some([AgentAction::Off, AgentAction::Status].into());
    let device = rig.device(FenceAgentSettings { actions, ..agent });
    device.prepare(long());
    assert!(device.abilities().power);
}

#[test]
fn a_status_that_does_not_depend_on_the_plug_is_found() {
    let found = |options: &str, body: &str| {
        let rig = Rig::new();
        let agent = rig.agent_with(&metadata(options, &["off", "on", "status"]), body);
        let device = rig.device(FenceAgentSettings { targets: [node("n1")].into(), ..agent });
        device.unknown_targets(long())
    };
    let of_plug = "[ $plug = n1 ] && exit 2; echo 'Failed: no such plug' >&2; exit 1";
    assert_eq!(found("plug", of_plug), [""; 0]);
    for (body, state) in [("exit 2", "off"), ("echo 'Status: ON'", "on")] {
        let found = found("plug", body);
        assert!(found.len() == 1 && found[0].contains(state), "{found:?}");
    }
    // The only target of an agent for one machine needs no plug.
    assert_eq!(found("port_as_ip", "exit 2"), [""; 0]);
}
