//! The driver for EC2 with programs that simulate `fence-watcher-ec2`: what each receives, and what
//! its end means.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use fence_core::PerTarget;
use fence_core::execution::{Order, OrderReport, PowerReport};
use fence_device::{
    Ec2Device, Ec2Settings, FenceDevice, Limit, Pin, Reach, SecretSource, TargetList, boot_ms_now,
};
use fence_protocol::PowerState;
use serde_json::{Value, json};

use common::{Directory, ec2_settings, node, order_in};

const SECRET: &str = "the/secret+key";

/// A device whose program is `script`, with the script's input in the file `call`.
struct Rig {
    directory: Directory,
    device: Ec2Device,
}

impl Rig {
    fn new(script: &str) -> Self {
        Rig::with_key(script, "0600")
    }

    fn with_key(script: &str, mode: &str) -> Self {
        let directory = Directory::new();
        let at = |name: &str| directory.path(name).display().to_string();
        let script = format!("cat >'{}'\nenv >'{}'\n{script}", at("call"), at("environment"));
        let helper = directory.script("helper", &script);
        std::fs::write(directory.path("key"), SECRET).unwrap();
        let mode = u32::from_str_radix(mode, 8).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(directory.path("key"), mode).unwrap();
        let settings = Ec2Settings {
            instance: PerTarget::Pattern("vm-{target}".into()),
            region: Some("eu-central-1".into()),
            access_key: Some(("AKIA".into(), SecretSource::File(directory.path("key")))),
            skip_os_shutdown: true,
            ..ec2_settings(helper)
        };
        let device = Ec2Device::new(settings, directory.executor());
        Rig { directory, device }
    }

    fn answering(outcome: &str, names: &[&str]) -> Self {
        let text = format!("i-1 with {SECRET}");
        let answer = json!({ "outcome": outcome, "text": text, "names": names });
        Rig::new(&format!("echo '{answer}'"))
    }

    fn order(&self, limit: Limit) -> OrderReport {
        self.order_in(&Pin::default(), limit)
    }

    fn order_in(&self, pin: &Pin, limit: Limit) -> OrderReport {
        order_in(pin, &self.device, Order::Off, limit)
    }

    fn power(&self) -> PowerReport {
        self.power_in(&Pin::default())
    }

    fn power_in(&self, pin: &Pin) -> PowerReport {
        self.device.power(&node(), pin, Limit::in_ms(20_000))
    }
}

const WORDS: &str = "i-1 with ***";

#[test]
fn each_answer_is_one_report() {
    let report = |outcome| Rig::answering(outcome, &[]).order(Limit::in_ms(20_000));
    let words = || WORDS.to_owned();

    assert_eq!(report("Done"), OrderReport::Acknowledged(words()));
    assert_eq!(report("Unreachable"), OrderReport::Unreachable(words()));
    assert_eq!(report("Failed"), OrderReport::Failed(words()));
    assert_eq!(report("TooLate"), OrderReport::TooLate);
    // A state is not an answer to an order.
    for outcome in ["Unclear", "On", "Off"] {
        assert_eq!(report(outcome), OrderReport::Unacknowledged(words()), "{outcome}");
    }

    for (outcome, state) in [
        ("On", PowerState::On),
        ("Off", PowerState::Off),
        ("Unclear", PowerState::Unknown),
        ("Done", PowerState::Unknown),
        ("Unreachable", PowerState::Unknown),
    ] {
        let expected = PowerReport { state, detail: words() };
        assert_eq!(Rig::answering(outcome, &[]).power(), expected, "{outcome}");
    }

    let reach = |outcome| Rig::answering(outcome, &[]).device.reachable(Limit::in_ms(20_000));
    assert_eq!(reach("Done"), Reach::Reachable(words()));
    assert_eq!(reach("Failed"), Reach::Unreachable(words()));
}

#[test]
fn what_ends_otherwise_may_have_done_it_unless_it_certainly_did_not() {
    let report = |script: &str| Rig::new(script).order(Limit::in_ms(20_000));

    for (script, words) in [
        ("echo done", "cannot be read"),
        ("echo '{\"outcome\":\"Off\"}'", "cannot be read"),
        ("exit 0", "cannot be read"),
        ("echo wrong >&2; exit 1", "exited with 1: wrong"),
        ("kill -9 $$", "ended by signal 9"),
    ] {
        let OrderReport::Unacknowledged(text) = report(script) else { panic!("{script}") };
        assert!(text.contains(words), "{text}");
    }
    let refused = report("echo what >&2; exit 2");
    assert!(matches!(refused, OrderReport::Failed(text) if text.ends_with("what")));

    let rig = Rig::new("");
    std::fs::remove_file(rig.directory.path("helper")).unwrap();
    assert!(matches!(rig.order(Limit::in_ms(20_000)), OrderReport::Failed(_)));
    assert!(rig.device.check()[0].contains("there is no program"), "{:?}", rig.device.check());
}

/// A device whose orders have this result, and whose instances are all off.
fn off_after(ordered: &str) -> Rig {
    let off = json!({ "outcome": "Off", "text": "is stopped", "names": [] });
    let body = "case $(cat \"${0%/*}/call\") in *Power*) echo \"$OFF\";;";
    Rig::new(&format!("OFF='{off}'\n{body} *) {ordered};; esac"))
}

#[test]
fn the_instance_of_the_order_is_asked_wherever_the_tag_is_by_then() {
    let limit = Limit::in_ms(20_000);
    let called = |rig: &Rig| {
        let call: Value = serde_json::from_str(&rig.directory.read("call")).unwrap();
        (call["ask"].as_str().unwrap().to_owned(), call["instance"].as_str().unwrap().to_owned())
    };
    for outcome in ["Done", "Unclear"] {
        let answer =
            json!({ "outcome": outcome, "text": "", "names": [], "instance": "i-0123abcd" });
        let (rig, pin) = (off_after(&format!("echo '{answer}'")), Pin::default());
        rig.order_in(&pin, limit);

        assert_eq!(rig.power_in(&pin).state, PowerState::Off);
        assert_eq!(called(&rig), ("Power".to_owned(), "i-0123abcd".to_owned()));
        rig.order_in(&pin, limit);
        assert_eq!(called(&rig), ("Off".to_owned(), "i-0123abcd".to_owned()));
        // A separate question uses the tag.
        rig.power();
        assert_eq!(called(&rig).1, "vm-n1");
    }
}

#[test]
fn if_the_instance_of_the_order_is_unknown_its_state_is_unknown() {
    let limit = Limit::in_ms(20_000);
    for ordered in ["exit 1", "kill -9 $$", "echo '{}'"] {
        let (rig, pin) = (off_after(ordered), Pin::default());
        assert!(matches!(rig.order_in(&pin, limit), OrderReport::Unacknowledged(_)), "{ordered}");

        let report = rig.power_in(&pin);

        assert_eq!(report.state, PowerState::Unknown, "{ordered}");
        assert!(report.detail.contains("the instance of the order is not known"), "{report:?}");
    }
    for outcome in ["Unreachable", "Failed", "TooLate"] {
        let answer =
            json!({ "outcome": outcome, "text": "", "names": [], "instance": "i-0123abcd" });
        let (rig, pin) = (off_after(&format!("echo '{answer}'")), Pin::default());
        rig.order_in(&pin, limit);
        // Nothing was sent.
        assert_eq!(rig.power_in(&pin).state, PowerState::Off, "{outcome}");
        assert!(rig.directory.read("call").contains("vm-n1"), "{outcome}");
    }
}

#[test]
fn it_is_killed_at_its_limit_and_not_started_after_it() {
    let rig = Rig::new("sleep 1000");
    let OrderReport::Unacknowledged(text) = rig.order(Limit::in_ms(500)) else { panic!() };
    assert_eq!(text, "its program was killed at its limit");

    let rig = Rig::answering("Done", &[]);
    assert_eq!(rig.order(Limit { not_after_boot_ms: boot_ms_now() }), OrderReport::TooLate);
    assert_eq!(rig.directory.read("call"), "");
}

#[test]
fn it_gets_its_input_on_standard_input_and_no_arguments() {
    let rig = Rig::new("tr '\\0' ' ' </proc/$$/cmdline >\"$0.cmdline\"; exit 2");
    let limit = Limit::in_ms(20_000);
    rig.order(limit);

    let call: Value = serde_json::from_str(&rig.directory.read("call")).unwrap();
    assert_eq!(
        call,
        json!({
            "ask": "Off", "instance": "vm-n1", "tag": "Name", "region": "eu-central-1",
            "endpoint": null, "profile": null, "access_key": ["AKIA", SECRET],
            "skip_os_shutdown": true, "limit": { "not_after_boot_ms": limit.not_after_boot_ms },
            "client": null,
        })
    );
    let command_line = rig.directory.read("helper.cmdline");
    assert_eq!(command_line.trim(), format!("/bin/sh {}", rig.directory.path("helper").display()));
    let environment = rig.directory.read("environment");
    assert!(
        !environment.contains(SECRET) && environment.contains("PATH=/usr/local"),
        "{environment}"
    );
    assert!(!environment.contains("CARGO"), "{environment}");
}

#[test]
fn targets_are_the_nodes_whose_names_the_tags_are() {
    let rig = Rig::answering("Done", &["vm-n2", "vm-n1", "web server", "vm-n2", "vm-", "n3"]);

    let nodes = ["n1", "n2"].map(|name| name.parse().unwrap()).to_vec();
    assert_eq!(rig.device.targets(Limit::in_ms(20_000)), TargetList::Nodes(nodes));
    let targets = |outcome| Rig::answering(outcome, &[]).device.targets(Limit::in_ms(20_000));
    assert_eq!(targets("Unreachable"), TargetList::Unreachable(WORDS.into()));
    assert_eq!(targets("Failed"), TargetList::NoList(WORDS.into()));
}

#[test]
fn nothing_is_done_with_a_key_that_others_can_read() {
    let rig = Rig::with_key("exit 1", "0644");

    let report = rig.order(Limit::in_ms(20_000));

    assert!(matches!(report, OrderReport::Failed(text) if text.contains("others can read it")));
    assert_eq!(rig.directory.read("call"), "");
    assert!(rig.device.check()[0].contains("others can read it"));
}
