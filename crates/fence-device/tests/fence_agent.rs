//! The driver for fence agents with small agents for the tests: what they receive, and what their
//! end means. `tests/devices` drives real agents.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::agents::{ALL, PASSWORD, Rig, metadata, node, off, order_by, power, settings};
use common::{long, order_in};
use fence_core::PerTarget;
use fence_core::execution::{Order, OrderReport};
use fence_device::{
    AgentAction, FenceAgentSettings, FenceDevice, Limit, Pin, Reach, SecretSource, TargetList,
    boot_ms_now,
};
use fence_protocol::PowerState;

#[test]
fn an_agent_reads_options_secrets_target_and_action_and_gets_no_arguments() {
    let rig = Rig::new();
    let agent = rig.agent("echo \"$# arguments, $LC_ALL, $OWN\"; env >environment");
    let password = SecretSource::File(rig.path("password").into());
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let device = rig.device(FenceAgentSettings {
        options: [("username", "admin"), ("a-b", "= c")].map(text).into(),
        secrets: [("password".to_owned(), password)].into(),
        env: [("OWN", "is ours"), ("LC_ALL", "C.UTF-8")].map(text).into(),
        plug: PerTarget::Map([(node("n1"), "plug 3".to_owned())].into()),
        ..agent
    });

    let report = off(&device);

    assert_eq!(report, OrderReport::Acknowledged("0 arguments, C.UTF-8, is ours".to_owned()));
    assert_eq!(
        rig.directory.read("input"),
        format!(
            "a-b== c\nusername=admin\npassword={PASSWORD}\nnodename=n1\nplug=plug 3\naction=off\n"
        )
    );
    assert!(!rig.directory.read("environment").contains("s3cret"));
}

#[test]
fn each_order_is_one_action_of_the_agent() {
    let rig = Rig::new();
    let device = rig.device(rig.agent("exit 0"));

    for order in [Order::Off, Order::On] {
        let report = order_by(&device, order, long());
        assert_eq!(report, OrderReport::Acknowledged("exit code 0".to_owned()));
    }
    let without_list = rig.agent_with(&metadata("plug", &["reboot", "status"]), "exit 0");
    let report = order_by(&rig.device(without_list), Order::Cycle, long());
    assert_eq!(report, OrderReport::Acknowledged("exit code 0".to_owned()));

    assert_eq!(rig.calls(), ["off n1", "on n1", "reboot n1"]);
}

#[test]
fn an_order_is_acknowledged_by_exit_code_0_alone() {
    let rig = Rig::new();
    for (body, words) in [
        ("echo said; echo 'ERROR: no' >&2; exit 1", "exited with 1: ERROR: no said"),
        ("echo 'Success: Powered OFF'; exit 2", "exited with 2: Success: Powered OFF"),
        ("echo unable to connect >&2; exit 1", "exited with 1: unable to connect"),
        ("kill -9 $$", "was ended by signal 9"),
    ] {
        let OrderReport::Unacknowledged(text) = off(&rig.device(rig.agent(body))) else {
            panic!("{body}")
        };
        assert!(text.ends_with(words), "{text}");
    }
    let noise = rig.device(rig.agent("echo Success; echo 'a warning' >&2"));
    assert_eq!(off(&noise), OrderReport::Acknowledged("Success".to_owned()));
}

#[test]
fn an_agent_that_hangs_is_killed_at_the_limit_with_its_children() {
    let rig = Rig::new();
    let device = rig.device(rig.agent("sleep 1000 & echo $! >child; wait"));

    let OrderReport::Unacknowledged(text) = order_by(&device, Order::Off, Limit::in_ms(500)) else {
        panic!()
    };

    assert!(text.ends_with("was killed at its limit"), "{text}");
    let child = rig.directory.read("child");
    common::wait_for("the child's end", || !common::is_alive(&child));
    assert_eq!(
        device.power(&node("n1"), &Pin::default(), Limit::in_ms(500)).state,
        PowerState::Unknown
    );
}

#[test]
fn an_order_that_was_certainly_not_given_is_recognised() {
    let rig = Rig::new();
    let late = Limit { not_after_boot_ms: boot_ms_now() };
    let device = rig.device(rig.agent("exit 0"));
    assert_eq!(order_by(&device, Order::Off, late), OrderReport::TooLate);

    let failed = |settings: FenceAgentSettings, words: &str| {
        let OrderReport::Failed(text) = off(&rig.device(settings)) else { panic!("{words}") };
        assert!(text.contains(words), "{text}");
    };
    let map = PerTarget::Map([(node("n2"), "2".to_owned())].into());
    failed(FenceAgentSettings { plug: map, ..rig.agent("") }, "no plug is configured for 'n1'");
    let source = SecretSource::File(rig.path("missing").into());
    let secrets = [("password".to_owned(), source)].into();
    failed(FenceAgentSettings { secrets, ..rig.agent("") }, "cannot read the secret in");
    let actions = Some([AgentAction::On].into());
    failed(FenceAgentSettings { actions, ..rig.agent("") }, "has no action 'off'");
    failed(settings(rig.path("nowhere")), "there is no program");
    let targets = [node("n1")].into();
    failed(FenceAgentSettings { targets, ..settings(rig.path("nowhere")) }, "cannot start");
    assert_eq!(rig.calls(), [""; 0]);
}

#[test]
fn the_power_is_off_only_by_exit_code_2_and_on_only_by_exit_code_0() {
    let rig = Rig::new();
    for (body, state) in [
        ("echo 'Status: ON'", PowerState::On),
        ("exit 0", PowerState::On),
        ("echo 'Status: OFF'; echo a warning >&2; exit 2", PowerState::Off),
        ("exit 2", PowerState::Off),
        ("echo 'Status: OFF'", PowerState::Unknown),
        ("echo 'Status: ON'; exit 2", PowerState::Unknown),
        ("echo 'usage: fence_test [-h]' >&2; exit 2", PowerState::Unknown),
        ("echo 'Status: OFF'; exit 1", PowerState::Unknown),
        ("echo \"$plug: off\"; exit 2", PowerState::Off),
        ("echo \"$nodename: off\"; exit 2", PowerState::Off),
        (
            "echo '2026-01-31 12:00:00,123 DEBUG: 0 ' >&2; echo 'Status: OFF'; exit 2",
            PowerState::Off,
        ),
        (
            "echo '2026-01-31 12:00:00,123 ERROR: no' >&2; echo 'Status: OFF'; exit 2",
            PowerState::Unknown,
        ),
        ("echo 'n2: off'; exit 2", PowerState::Unknown),
        ("echo 'connecting'; echo 'x: syntax error' >&2; exit 2", PowerState::Unknown),
        ("echo 'connecting'; exit 2", PowerState::Unknown),
        ("echo 'error'; echo 'Status: OFF'; exit 2", PowerState::Unknown),
        ("kill -9 $$", PowerState::Unknown),
    ] {
        let agent = rig.agent_with(&metadata("plug", &["status"]), body);
        let plug = PerTarget::Pattern("plug-{target}".to_owned());
        let device = rig.device(FenceAgentSettings { plug, ..agent });
        assert_eq!(power(&device).state, state, "{body}");
    }
}

#[test]
fn a_complaint_of_the_status_is_found_while_the_machine_is_on() {
    let rig = Rig::new();
    let lack = |body: &str| rig.device(rig.agent(body)).lack(&node("n1"), long());
    assert_eq!(lack("echo 'Status: ON'"), None);
    assert_eq!(lack("echo '2026-01-31 12:00:00,123 DEBUG: error 0' >&2"), None);
    let found = lack("echo '2026-01-31 12:00:00,123 ERROR: retried' >&2").unwrap();
    assert!(
        found.contains("invalidates every \"off\"") && found.ends_with("ERROR: retried"),
        "{found}"
    );
}

/// Like `fence_virt`: every unknown machine is off.
const VIRT: &str = "case $action in
list) printf '%-20s 6695eb01-f6a4-8304-79aa-97f2502e193f off\\n' n2 \"$known\";;
status) echo 'Status: OFF'; exit 2;;
*) exit $code;; esac";

#[test]
fn off_is_trusted_only_for_a_plug_that_the_agent_lists_whatever_it_acknowledged() {
    let rig = Rig::new();
    for (assignment, state, words) in [
        ("code=1 known=n1", PowerState::Off, "Status: OFF"),
        ("code=1 known=other", PowerState::Unknown, "'n1' is not in its list"),
        ("code=0 known=n1", PowerState::Off, "Status: OFF"),
        ("code=0 known=other", PowerState::Unknown, "'n1' is not in its list"),
        ("code=0 known=n11", PowerState::Unknown, "'n1' is not in its list"),
    ] {
        let device = rig.device(rig.agent(&format!("{assignment}\n{VIRT}")));
        let pin = Pin::default();
        order_in(&pin, &device, Order::Off, long());

        let shown = device.power(&node("n1"), &pin, long());

        assert_eq!(shown.state, state, "{assignment}: {shown:?}");
        assert!(shown.detail.ends_with(words), "{shown:?}");
    }
}

#[test]
fn plugs_that_are_switched_together_are_each_listed() {
    let rig = Rig::new();
    for (plug, more, state) in [
        ("3,4", None, PowerState::Off),
        ("3, outlet 4", None, PowerState::Off),
        ("3,5", None, PowerState::Unknown),
        ("3,", None, PowerState::Unknown),
        (",", None, PowerState::Unknown),
        ("3;4", None, PowerState::Unknown),
        ("3;4", Some(";"), PowerState::Off),
        ("3,4", Some(";"), PowerState::Unknown),
        ("", None, PowerState::Unknown),
    ] {
        let body = "[ $action = list ] && { echo '3,outlet 3'; echo '4,outlet 4'; echo 5a,; exit; \
                    }; exit 2";
        let separator = more.map(|more| ("plug_separator".to_owned(), more.to_owned()));
        let device = rig.device(FenceAgentSettings {
            plug: PerTarget::Pattern(plug.to_owned()),
            options: separator.into_iter().collect(),
            ..rig.agent(body)
        });
        assert_eq!(power(&device).state, state, "{plug} {more:?}");
    }
}

#[test]
fn a_list_is_read_once_in_an_execution_and_again_in_the_next() {
    let rig = Rig::new();
    let lists = || rig.calls().iter().filter(|call| call.starts_with("list")).count();
    for (known, state) in [("other", PowerState::Unknown), ("n1", PowerState::Off)] {
        let device = rig.device(rig.agent(&format!("code=0 known={known}\n{VIRT}")));
        let (pin, before) = (Pin::default(), lists());
        for _ in 0..3 {
            assert_eq!(device.power(&node("n1"), &pin, long()).state, state, "{known}");
        }
        assert_eq!(lists(), before + 1);

        device.power(&node("n1"), &Pin::default(), long());
        assert_eq!(lists(), before + 2);
    }
}

#[test]
fn a_list_that_could_not_be_read_is_read_again() {
    let rig = Rig::new();
    let list = "list) [ -e broken ] && exit 1; echo n1;;";
    let device = rig.device(rig.agent(&format!("case $action in {list} *) exit 2;; esac")));
    let pin = Pin::default();
    fs::write(rig.path("broken"), "").unwrap();
    assert_eq!(device.power(&node("n1"), &pin, long()).state, PowerState::Unknown);

    fs::remove_file(rig.path("broken")).unwrap();

    assert_eq!(device.power(&node("n1"), &pin, long()).state, PowerState::Off);
}

#[test]
fn targets_that_the_agent_does_not_list_are_named() {
    let rig = Rig::new();
    let unknown = |settings| rig.device(settings).unknown_targets(long());
    let list = |text: &str| rig.agent(&format!("[ $action = list ] && {text}"));

    assert_eq!(unknown(list("printf 'n1,\\nother,n2\\n'")), [""; 0]);
    let found = unknown(list("echo n2,"));
    let words = "no fence of 'n1' can be confirmed: its plug 'n1' is not in the agent's list";
    assert_eq!(found, [words]);
    let plug = PerTarget::Pattern("vm-{target}".to_owned());
    let found = unknown(FenceAgentSettings { plug, ..list("echo vm-n1") });
    assert!(found[0].contains("its plug 'vm-n2'"), "{found:?}");
    for broken in ["exit 1", "echo 'no list here'"] {
        let found = unknown(list(broken));
        assert!(found[0].contains("the agent's list cannot be read"), "{found:?}");
        assert_eq!(found.len(), 1);
    }

    let plug_option = Some("ip".to_owned());
    let found = unknown(FenceAgentSettings { plug_option, ..list("echo 1; echo 2") });
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("no fence of 'n1' can be confirmed"), "{found:?}");
    assert!(found[1].ends_with("the agent lists plugs and no addresses"), "{found:?}");

    // A device without `list` confirms nothing by the list. A device without `status` does.
    let without = |actions: &[&str]| unknown(rig.agent_with(&metadata("plug", actions), "exit 1"));
    assert_eq!(without(&["off", "status"]), [""; 0]);
    let actions = || Some([AgentAction::Off, AgentAction::List].into());
    let found = unknown(FenceAgentSettings { actions: actions(), ..list("echo n2") });
    assert!(found.len() == 1 && found[0].contains("its plug 'n1'"), "{found:?}");
    let found = unknown(rig.agent_with(&metadata("plug", &["off", "list"]), "echo n2"));
    assert!(found.len() == 1 && found[0].contains("its plug 'n1'"), "{found:?}");
    assert_eq!(unknown(FenceAgentSettings { targets: [].into(), ..list("exit 1") }), [""; 0]);
}

#[test]
fn an_agent_that_may_ignore_its_plug_gets_no_order_for_one_of_several_targets() {
    let rig = Rig::new();
    let agent = || rig.agent_with(&metadata("port_as_ip", &ALL), "exit 0");
    let device = rig.device(agent());

    let OrderReport::Failed(text) = off(&device) else { panic!() };
    assert!(text.contains("write in 'plug_option'"), "{text}");
    assert_eq!(power(&device).state, PowerState::Unknown);
    assert!(matches!(device.reachable(long()), Reach::Unreachable(_)));
    assert!(device.check().contains(&text), "{:?}", device.check());
    assert_eq!(rig.calls(), [""; 0]);

    let any = FenceAgentSettings { targets: [].into(), ..agent() };
    assert!(matches!(off(&rig.device(any)), OrderReport::Failed(_)));
    let one = FenceAgentSettings { targets: [node("n1")].into(), ..agent() };
    assert!(matches!(off(&rig.device(one)), OrderReport::Acknowledged(_)));
    let said = FenceAgentSettings { plug_option: Some("ip".to_owned()), ..agent() };
    assert!(matches!(off(&rig.device(said)), OrderReport::Acknowledged(_)));
    assert!(rig.directory.read("input").contains("\nip=n1\n"));
}

#[test]
fn a_secret_in_the_output_of_an_agent_is_not_passed_on() {
    let rig = Rig::new();
    let echo = "echo \"$input\"; echo \"Ignoring unknown option '$(grep passw input)'\" >&2";
    let secrets = || {
        let source = SecretSource::File(rig.path("password").into());
        BTreeMap::from([("password".to_owned(), source)])
    };
    for code in [0, 1, 2] {
        let body = format!("{echo}; exit {code}");
        let device = rig.device(FenceAgentSettings { secrets: secrets(), ..rig.agent(&body) });

        let shown = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            off(&device),
            power(&device),
            device.reachable(long()),
            device.targets(long()),
            device.check(),
        );

        assert!(shown.contains("password=***"), "{shown}");
        for part in ["s3cret", "pass\"", "wörd"] {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}

#[test]
fn plugs_that_are_listed_become_targets_where_that_is_certain() {
    let rig = Rig::new();
    let list = |body: &str, plug: PerTarget| {
        let settings = FenceAgentSettings { plug, ..rig.agent(body) };
        rig.device(settings).targets(long())
    };
    let nodes = |names: &[&str]| TargetList::Nodes(names.iter().map(|name| node(name)).collect());
    let pattern = |text: &str| PerTarget::Pattern(text.to_owned());

    assert_eq!(list("printf 'n1,a\\nmy vm,b\\nn2\\n'", pattern("{target}")), nodes(&["n1", "n2"]));
    assert_eq!(list("printf 'vm-n1,\\nn2,\\n'", pattern("vm-{target}")), nodes(&["n1"]));
    let map = PerTarget::Map([(node("n1"), "7".to_owned())].into());
    assert_eq!(list("printf '7,x\\n8,y\\n'", map), nodes(&["n1"]));
    assert_eq!(list("exit 0", pattern("{target}")), nodes(&[]));
    for body in ["echo N/A", "echo 'no list here'"] {
        assert!(matches!(list(body, pattern("{target}")), TargetList::NoList(_)), "{body}");
    }
    assert!(matches!(list("exit 1", pattern("{target}")), TargetList::Unreachable(_)));

    let without = rig.agent_with(&metadata("plug", &["off"]), "exit 1");
    assert!(matches!(rig.device(without).targets(long()), TargetList::NoList(_)));
}

#[test]
fn a_device_with_plugs_is_contacted_once() {
    let rig = Rig::new();
    assert!(matches!(rig.device(rig.agent("exit 0")).reachable(long()), Reach::Reachable(_)));
    assert_eq!(rig.calls(), ["monitor "]);

    let Reach::Unreachable(text) = rig.device(rig.agent("echo no >&2; exit 2")).reachable(long())
    else {
        panic!()
    };
    assert!(text.ends_with("exited with 2: no"), "{text}");
}

#[test]
fn targets_with_addresses_are_each_contacted_and_one_that_answers_is_enough() {
    let rig = Rig::new();
    let contact = |body: &str, targets: &[&str]| {
        let targets = targets.iter().map(|name| node(name)).collect();
        let plug_option = Some("ip".to_owned());
        let plug = PerTarget::Pattern("bmc-{target}".to_owned());
        let agent = rig.agent_with(&metadata("ip", &ALL), body);
        rig.device(FenceAgentSettings { plug_option, plug, targets, ..agent }).reachable(long())
    };
    let dead = "[ $ip = bmc-n2 ] && { echo dead >&2; exit 1; }; exit 0";

    assert_eq!(
        contact("exit 0", &["n1", "n2", "n3"]),
        Reach::Reachable("3 of 3 targets answer".to_owned())
    );
    let Reach::Reachable(text) = contact(dead, &["n1", "n2", "n3"]) else { panic!() };
    assert!(text.starts_with("2 of 3 targets answer, but not n2: "), "{text}");
    assert!(matches!(contact(dead, &["n2"]), Reach::Unreachable(_)));
    let calls = rig.calls().len();
    let Reach::NotAsked(text) = contact("exit 1", &[]) else { panic!() };
    assert!(text.contains("no target is configured by name"), "{text}");
    assert_eq!(rig.calls().len(), calls);
}

#[test]
fn a_contact_takes_as_long_as_it_may_and_no_longer() {
    let rig = Rig::new();
    let begun = boot_ms_now();

    let reach = rig.device(rig.agent("sleep 1000")).reachable(Limit::in_ms(500));

    assert!(matches!(reach, Reach::Unreachable(_)), "{reach:?}");
    assert!(boot_ms_now() - begun < 30_000);
}

#[test]
fn a_device_without_a_monitor_is_not_asked_and_its_agent_must_exist() {
    let rig = Rig::new();
    let actions = || Some([AgentAction::Off].into());
    let there = FenceAgentSettings { actions: actions(), ..rig.agent("exit 1") };
    assert!(matches!(rig.device(there).reachable(long()), Reach::NotAsked(_)));
    let gone = FenceAgentSettings { actions: actions(), ..settings(rig.path("nowhere")) };
    assert!(matches!(rig.device(gone).reachable(long()), Reach::Unreachable(_)));
}

#[test]
fn a_check_asks_the_agent_for_its_options_and_nothing_else() {
    let rig = Rig::new();
    let check = |settings| rig.device(settings).check();
    let options = |name: &str| [(name.to_owned(), "1".to_owned())].into();

    assert_eq!(check(rig.agent("exit 1")), Vec::<String>::new());
    let found = check(FenceAgentSettings { options: options("usrname"), ..rig.agent("exit 1") });
    assert_eq!(found, ["the agent has no option 'usrname' (did you mean 'username'?)"]);
    let plug_option = Some("plugg".to_owned());
    let found = check(FenceAgentSettings { plug_option, ..rig.agent("exit 1") });
    assert_eq!(found, ["the agent has no option 'plugg' (did you mean 'plug'?)"]);
    let found = check(rig.agent_with(&metadata("plug", &["off"]), "exit 1"));
    assert_eq!(found, ["the agent has no action 'on': list the actions that it has in 'actions'"]);
    let source = SecretSource::File(rig.path("missing").into());
    let secrets = [("secret_key".to_owned(), source)].into();
    let found = check(FenceAgentSettings { secrets, ..rig.agent("exit 1") });
    assert!(found[0].starts_with("cannot read the secret in "), "{found:?}");
    assert_eq!(found[1], "the agent has no option 'secret_key'");
    let found = check(rig.agent_with("what?", "exit 1"));
    assert!(found[0].contains("so its options are not checked: it is no XML"), "{found:?}");
    let found = check(settings(rig.path("nowhere")));
    assert!(found[0].contains("there is no program"), "{found:?}");
    assert_eq!(rig.calls(), [""; 0]);
}

#[test]
fn a_password_that_is_a_word_of_ours_is_not_shown_by_hiding_it() {
    let rig = Rig::new();
    for (password, words) in
        [("exited", "the login ***"), ("login", "the *** exited"), ("e", "***")]
    {
        let source = SecretSource::File(rig.path("password").into());
        let secrets = BTreeMap::from([("password".to_owned(), source)]);
        let body =
            "case $input in *=status*) echo 'n1: OFF'; exit 2;; *=list*) echo n1; exit;; esac
            echo the login exited; exit 1";
        let device = rig.device(FenceAgentSettings { secrets, ..rig.agent(body) });
        fs::write(rig.path("password"), password).unwrap();

        let OrderReport::Unacknowledged(text) = off(&device) else { panic!("{password}") };

        assert!(text.ends_with(&format!("exited with 1: {words}")), "{text}");
        // The state is shown nevertheless, and the list is valid.
        assert_eq!(power(&device).state, PowerState::Off, "{password}");
    }
}
