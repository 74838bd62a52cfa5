//! The command device with real programs: what they receive, and what their results mean.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::Rig;
use fence_core::execution::{Order, OrderReport};
use fence_device::{
    CommandDevice, CommandSettings, FenceDevice, Limit, OrderContext, Pin, Reach, TargetList,
    boot_ms_now,
};
use fence_protocol::{FenceAction, NodeName, PowerState, RequestId};

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
const REQUEST: &str = "{\"request_id\":\"67e55044\"}\n";

impl Rig {
    fn device(&self, settings: CommandSettings) -> CommandDevice {
        let settings = CommandSettings { name: "pdu".to_owned(), timeout_ms: 60_000, ..settings };
        CommandDevice::new(settings, self.executor.clone())
    }

    /// A device whose `off` is a script with these arguments.
    fn with_off(&self, body: &str, arguments: &[&str]) -> CommandDevice {
        let off = Some(self.argv(body, arguments));
        self.device(CommandSettings { off, ..CommandSettings::default() })
    }

    fn argv(&self, body: &str, arguments: &[&str]) -> Vec<String> {
        let program = self.directory.script("program", body);
        [program].into_iter().chain(arguments.iter().map(|&a| a.to_owned())).collect()
    }

    /// The power state from a status command with this body.
    fn power(&self, body: &str) -> PowerState {
        let status = Some(self.argv(body, &["{target}"]));
        let device = self.device(CommandSettings { status, ..CommandSettings::default() });
        device.power(&node(), &Pin::default(), Limit::in_ms(60_000)).state
    }

    fn targets(&self, body: &str) -> TargetList {
        let list = Some(self.argv(body, &[]));
        let device = self.device(CommandSettings { list, ..CommandSettings::default() });
        device.targets(Limit::in_ms(60_000))
    }
}

fn node() -> NodeName {
    "n3".parse().unwrap()
}

fn off(device: &CommandDevice, filesystems: &[&str], limit: Limit) -> OrderReport {
    let (target, request_id): (_, RequestId) = (node(), ID.parse().unwrap());
    let gfs2_filesystems: Vec<String> = filesystems.iter().map(|&name| name.to_owned()).collect();
    let job = OrderContext {
        target: &target,
        action: FenceAction::Reboot,
        request_id: &request_id,
        pin: &Pin::default(),
        gfs2_filesystems: &gfs2_filesystems,
        request_json: REQUEST.as_bytes(),
        client: None,
    };
    device.order(Order::Off, &job, limit)
}

fn off_now(device: &CommandDevice) -> OrderReport {
    off(device, &[], Limit::in_ms(60_000))
}

#[test]
fn values_become_part_of_one_argument_and_never_meet_a_shell() {
    let rig = Rig::new();
    let touched = rig.directory.path("touched");
    let arguments = [
        "{target}",
        "--plug={target}:{action}",
        "{gfs2_filesystems}",
        "{request_id}",
        "$(touch TOUCHED); `touch TOUCHED` 'a b",
        "{\"json\": {}}",
    ];
    let arguments = arguments.map(|a| a.replace("TOUCHED", touched.to_str().unwrap()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let device = rig.with_off("for a; do echo \"<$a>\"; done", &arguments);

    let hostile = ["-o off", "$(touch /x);{target}", "a,b\n\0"];
    let OrderReport::Acknowledged(told) = off(&device, &hostile, Limit::in_ms(60_000)) else {
        panic!()
    };

    let expected = format!(
        "<n3> <--plug=n3:off> <_o_off,__touch_/x___target_,a_b__> <{ID}> <{}> <{{\"json\": {{}}}}>",
        arguments[4]
    );
    assert_eq!(told, expected);
    assert!(!touched.exists());
}

#[test]
fn an_empty_list_stays_an_argument() {
    let rig = Rig::new();
    let device = rig.with_off("echo $#", &["{gfs2_filesystems}", "{target}"]);
    assert_eq!(off_now(&device), OrderReport::Acknowledged("2".to_owned()));
}

#[test]
fn a_program_finds_the_request_in_its_environment_and_on_its_input() {
    let rig = Rig::new();
    let device = rig.with_off("env | grep FENCE_ | sort; cat", &[]);

    let OrderReport::Acknowledged(told) = off(&device, &["a", "b"], Limit::in_ms(60_000)) else {
        panic!()
    };
    let expected = format!(
        "FENCE_ACTION=off FENCE_DEVICE=pdu FENCE_GFS2_FILESYSTEMS=a,b FENCE_REQUEST_ID={ID} \
         FENCE_TARGET=n3 {}",
        REQUEST.trim()
    );
    assert_eq!(told, expected);
}

#[test]
fn only_exit_code_0_is_an_acknowledgement() {
    let rig = Rig::new();

    let device = rig.with_off("exit 0", &[]);
    assert_eq!(off_now(&device), OrderReport::Acknowledged("exit code 0".to_owned()));
    let device = rig.with_off("echo said; echo broken >&2; exit 3", &[]);
    let OrderReport::Unacknowledged(text) = off_now(&device) else { panic!() };
    assert!(text.ends_with("/program\" exited with 3: broken said"), "{text}");
    let device = rig.with_off("kill -TERM $$", &[]);
    let OrderReport::Unacknowledged(text) = off_now(&device) else { panic!() };
    assert!(text.ends_with("was ended by signal 15"), "{text}");
}

#[test]
fn the_nearer_limit_counts() {
    let rig = Rig::new();
    let off_argv = Some(rig.argv("echo began; sleep 1000", &[]));
    let settings = CommandSettings { off: off_argv, name: "pdu".to_owned(), ..Default::default() };
    for (device_ms, request_ms) in [(300, 60_000), (60_000, 300)] {
        let settings = CommandSettings { timeout_ms: device_ms, ..settings.clone() };
        let device = CommandDevice::new(settings, rig.executor.clone());

        let OrderReport::Unacknowledged(text) = off(&device, &[], Limit::in_ms(request_ms)) else {
            panic!()
        };
        assert!(text.ends_with("was killed at its limit: began"), "{text}");
    }
}

#[test]
fn an_order_that_was_certainly_not_given_is_recognised() {
    let rig = Rig::new();
    let device = rig.with_off("exit 0", &[]);
    let late = Limit { not_after_boot_ms: boot_ms_now() };
    assert_eq!(off(&device, &[], late), OrderReport::TooLate);

    fs::remove_file(rig.directory.path("program")).unwrap();
    assert!(matches!(off_now(&device), OrderReport::Failed(_)));
    let device = rig.device(CommandSettings::default());
    assert!(matches!(off_now(&device), OrderReport::Failed(_)));
}

#[test]
fn messages_are_one_bounded_line() {
    let rig = Rig::new();
    let device = rig.with_off("yes 'a b' | head -n 5000", &[]);

    let OrderReport::Acknowledged(text) = off_now(&device) else { panic!() };
    assert!(text.len() <= 1024 && text.starts_with("a b a b") && text.ends_with('…'), "{text}");
}

#[test]
fn the_power_is_what_exit_code_and_words_agree_on() {
    let rig = Rig::new();
    for (body, state) in [
        ("exit 0", PowerState::On),
        ("exit 2", PowerState::Off),
        ("echo \"syntax error\" >&2; exit 2", PowerState::Unknown),
        ("echo warning >&2; echo \"Status: OFF\"; exit 2", PowerState::Off),
        (
            "echo 'IANA PEN registry open failed: No such file or directory' >&2; echo off",
            PowerState::Off,
        ),
        ("echo 'IANA PEN registry open failed: not off' >&2; echo off", PowerState::Unknown),
        ("exit 1", PowerState::Unknown),
        ("kill -9 $$", PowerState::Unknown),
        ("echo \"Status: ON\"", PowerState::On),
        ("echo \"$1: off\"", PowerState::Off),
        ("echo \"Chassis Power is off\"", PowerState::Off),
        ("echo \"Status: OFF\"; exit 2", PowerState::Off),
        ("echo \"Status: ON\"; exit 2", PowerState::Unknown),
        ("echo on off", PowerState::Unknown),
        ("echo \"off by one\"", PowerState::Unknown),
        ("echo \"offline\"", PowerState::On),
        ("echo \"certificate check is off\"; echo plug 3", PowerState::Unknown),
        ("echo \"certificate check is off\" >&2", PowerState::On),
        ("echo \"asking the PDU for $1\"; echo \"syntax error\" >&2; exit 2", PowerState::Unknown),
        ("echo \"asking the PDU for $1\"; exit 2", PowerState::Unknown),
        ("echo \"$1: off\"; echo \"error: no route\" >&2; exit 2", PowerState::Unknown),
        ("echo \"error: no route\"; echo \"Status: OFF\"; exit 2", PowerState::Unknown),
        ("echo \"$1: not off\"; exit 2", PowerState::Unknown),
        ("echo \"$1 is on\"; exit 2", PowerState::Unknown),
        ("echo \"n4: off\"; exit 2", PowerState::Unknown),
        ("printf \"$1: off\\r\\n\"; exit 2", PowerState::Unknown),
        ("echo off; yes x | head -n 100000; exit 2", PowerState::Unknown),
        ("echo \"$1 is not off\"", PowerState::Unknown),
        ("echo \"warning: certificate check is off\"", PowerState::Unknown),
        ("echo \"n4: off\"", PowerState::Unknown),
        ("echo off; echo \"error: no route\" >&2", PowerState::Unknown),
    ] {
        assert_eq!(rig.power(body), state, "{body}");
    }
}

#[test]
fn a_complaint_that_would_hide_off_is_found_while_the_machine_is_on() {
    let rig = Rig::new();
    let lack = |body: &str| {
        let status = Some(rig.argv(body, &["{target}"]));
        let device = rig.device(CommandSettings { status, ..CommandSettings::default() });
        device.lack(&node(), Limit::in_ms(60_000))
    };
    let remark = "IANA PEN registry open failed: No such file or directory";

    for body in ["exit 0", "exit 2", "echo a warning >&2", &format!("echo '{remark}' >&2; echo on")]
    {
        assert_eq!(lack(body), None, "{body}");
    }
    let found = lack("echo on; echo 'config: no such key' >&2").unwrap();
    assert!(
        found.contains("invalidates every \"off\"") && found.ends_with("config: no such key"),
        "{found}"
    );
    assert!(lack("echo lost >&2; exit 1").unwrap().ends_with("exited with 1: lost"));
    assert_eq!(rig.device(CommandSettings::default()).lack(&node(), Limit::in_ms(60_000)), None);
}

#[test]
fn a_list_is_one_name_a_line() {
    let rig = Rig::new();
    let nodes = |names: &[&str]| {
        TargetList::Nodes(names.iter().map(|name| name.parse().unwrap()).collect())
    };

    assert_eq!(rig.targets("printf 'n1\\n\\n n2 ,second node\\n'"), nodes(&["n1", "n2"]));
    assert_eq!(rig.targets("exit 0"), nodes(&[]));
    assert!(matches!(rig.targets("echo 'Node list:'"), TargetList::NoList(_)));
    assert!(matches!(rig.targets("echo n1; exit 1"), TargetList::Unreachable(_)));
    let TargetList::Nodes(many) = rig.targets("seq -f n%g 1 60000") else { panic!() };
    assert_eq!(many.len(), 60_000);
    assert!(matches!(rig.targets("seq -f n%g 1 1000000"), TargetList::NoList(_)));
    let device = rig.device(CommandSettings::default());
    assert!(matches!(device.targets(Limit::in_ms(1000)), TargetList::NoList(_)));
}

#[test]
fn a_device_is_reachable_if_its_monitor_succeeds_or_its_programs_exist() {
    let rig = Rig::new();
    let reach = |settings| rig.device(settings).reachable(Limit::in_ms(60_000));
    let none = CommandSettings::default;

    let monitor = Some(rig.argv("exit 0", &[]));
    assert!(matches!(reach(CommandSettings { monitor, ..none() }), Reach::Reachable(_)));
    let monitor = Some(rig.argv("echo no route >&2; exit 1", &[]));
    let Reach::Unreachable(text) = reach(CommandSettings { monitor, ..none() }) else { panic!() };
    assert!(text.ends_with("exited with 1: no route"), "{text}");
    // Its own 60 s are far longer than the time for this contact.
    let list = Some(rig.argv("sleep 1000", &[]));
    let reach_soon = rig.device(CommandSettings { list, ..none() }).reachable(Limit::in_ms(500));
    assert!(matches!(reach_soon, Reach::Unreachable(_)));

    let off = Some(rig.argv("exit 1", &[]));
    let reach_of_off = reach(CommandSettings { off, ..none() });
    assert!(matches!(reach_of_off, Reach::NotAsked(_)), "{reach_of_off:?}");
    let off = Some(vec!["/no/such/program".to_owned()]);
    assert!(matches!(reach(CommandSettings { off, ..none() }), Reach::Unreachable(_)));
}

#[test]
fn a_wrong_configuration_is_reported_with_all_its_problems() {
    let rig = Rig::new();
    let argv = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
    let writable = rig.directory.script("writable", "exit 0");
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o757)).unwrap();
    let plain = rig.directory.script("plain", "exit 0");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();

    let problems = rig
        .device(CommandSettings {
            off: argv(&[]),
            on: argv(&["true"]),
            reboot: argv(&["/no/such/program", "{target}", "{plug}", "{\"a\":{}}"]),
            status: argv(&[&writable, "{request_id}"]),
            list: argv(&[&plain, "{target}"]),
            monitor: argv(&["/bin"]),
            ..CommandSettings::default()
        })
        .check();

    for (problem, part) in problems.iter().zip([
        "\"off\" is empty",
        "on: the program 'true' is not an absolute path",
        "reboot: there is no program '/no/such/program'",
        "reboot: \"{plug}\" means nothing here; known are {target}, {action}, {gfs2_filesystems}",
        "writable' is refused: others can write to it",
        "status: \"{request_id}\" means nothing here; known are {target}, {action}",
        "plain' is not executable: run `chmod +x",
        "list: \"{target}\" means nothing here; known are {action}",
        "monitor: program '/bin' is refused: it is not a regular file",
    ]) {
        assert!(problem.contains(part), "{problem}");
    }
    assert_eq!(problems.len(), 9, "{problems:#?}");
    let sound = rig.with_off("exit 0", &["--plug={target}", "{action}", "{gfs2_filesystems}"]);
    assert_eq!(sound.check(), Vec::<String>::new());
}
