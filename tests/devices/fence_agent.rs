//! `type = "fence-agent"` with ClusterLabs' own agents: `fence_virt`, `fence_ipmilan`,
//! `fence_redfish` and `fence_powerman`. The watcher drives each of them for the agent of this
//! project.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use crate::common::{is_alive, new_id, our_request, output_of, wait_for};
use crate::sim::{Simulator, free_ports};

pub(crate) mod rig;

use rig::*;

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn fence_virt_does_each_action_and_its_list_becomes_targets() {
    let (simulator, port) = virt();
    let device = virt_device(port, &simulator.directory().join("key"));
    let found = device.replace("{ n1 = 'test', ghost = 'nosuch' }", "'discover'");
    let second = format!("[[device]]\nname = 'found'\ntype = 'fence-agent'\n{found}");
    let rig = Rig::new(&format!("{device}\n{second}"));

    rig.whole_life("n1");
    assert_eq!(rig.ask("action=list\ndevice=found").stdout.trim(), "test");
    let (code, text) = rig.check();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("fence of 'ghost'") && !text.contains("fence of 'n1'"), "{text}");
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_machine_that_fence_virt_does_not_know_is_never_off() {
    let (simulator, port) = virt();
    let rig = Rig::new(&virt_device(port, &simulator.directory().join("key")));
    let direct = |action: &str| {
        let mut agent = Command::new("/usr/sbin/fence_virt");
        agent.args(["-T", "127.0.0.1", "-p", &port.to_string(), "-k"]);
        agent.arg(simulator.directory().join("key")).args(["-n", "nosuch", "-o", action]);
        output_of(&mut agent).status.code()
    };
    assert_eq!((direct("status"), direct("off")), (Some(2), Some(1)), "has it been mended?");

    rig.answer("off", "ghost", "device-failure");
    rig.answer("reboot", "ghost", "device-failure");
    rig.ask("action=status\nplug=ghost").assert_failure(&["'nosuch' is not in its list"]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_host_of_machines_that_cannot_be_asked_is_a_failure() {
    let (simulator, port) = virt();
    let key = simulator.directory().join("wrong-key");
    fs::write(&key, [7; 512]).unwrap();
    let nobody = free_ports(1);
    for (device, words) in [
        (virt_device(port, &key), "Invalid response to challenge"),
        (virt_device(nobody, &simulator.directory().join("key")), "Unable to connect"),
    ] {
        let rig = Rig::new(&device);

        let answer = rig.answer("off", "n1", "unreachable");

        assert!(answer["message"].as_str().unwrap().contains(words), "{answer}");
        rig.ask("action=monitor").assert_failure(&[words]);
        assert_eq!(rig.status("n1"), Some(1));
    }
}

// fence_ipmilan

/// Two management controllers, and a device for them: only their ports differ.
struct Bmcs {
    simulator: Simulator,
    first_port: u16,
}

impl Bmcs {
    fn start() -> Self {
        let first_port = free_ports(2);
        let variables = [("IPMI_PORT", &*first_port.to_string()), ("DEVSIM_NODES", "2")];
        Bmcs { simulator: Simulator::start("ipmi", &variables), first_port }
    }

    fn device(&self, timeout: &str, power_timeout: u32) -> String {
        format!(
            "agent = 'fence_ipmilan'\nplug_option = 'ipport'\nmax_concurrent = 2\n\
             targets = {{ n1 = '{}', n2 = '{}' }}\npassword_file = 'PASSWORD_FILE'\ntimeout = '{timeout}'\n\
             [device.options]\nip = '127.0.0.1'\nusername = 'admin'\nlanplus = true\ncipher = 3\n\
             power_wait = 0\npower_timeout = {power_timeout}\n",
            self.first_port,
            self.first_port + 1,
        )
    }

    fn file(&self, number: u8, name: &str) -> std::path::PathBuf {
        self.simulator.directory().join(format!("node{number}/{name}"))
    }

    /// The orders that this controller has received since its start.
    fn orders(&self, number: u8) -> Vec<String> {
        let calls = fs::read_to_string(self.file(number, "calls")).unwrap();
        let orders =
            calls.lines().filter_map(|line| line.split_once(" set ").map(|(_, order)| order));
        // The first order is the simulator's own.
        orders.skip(1).map(str::to_owned).collect()
    }
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn fence_ipmilan_does_each_action_once_and_on_the_right_machine() {
    let bmcs = Bmcs::start();
    let rig = Rig::new(&bmcs.device("20s", 2));

    rig.whole_life("n1");

    assert_eq!(bmcs.orders(1), ["power 0", "power 1", "power 0", "power 1"]);
    assert_eq!(bmcs.orders(2), [""; 0]);
    assert_eq!(rig.ask("action=list").stdout.split_whitespace().collect::<Vec<_>>(), ["n1", "n2"]);
    rig.await_sound();
    assert!(!rig.all_texts().contains(PASSWORD));
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_controller_that_lies_or_refuses_has_not_acknowledged() {
    let bmcs = Bmcs::start();
    let rig = Rig::new(&bmcs.device("6s", 2));
    for fault in ["lie-set", "fail-set"] {
        fs::write(bmcs.file(1, fault), "").unwrap();
        let before = bmcs.orders(1).len();
        rig.answer("off", "n1", "unacknowledged");
        assert!(bmcs.orders(1).len() > before, "it got no order");
        fs::remove_file(bmcs.file(1, fault)).unwrap();
    }
    assert_eq!(rig.status("n1"), Some(0));
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn the_watcher_waits_for_a_slow_controller() {
    let bmcs = Bmcs::start();
    fs::write(bmcs.file(1, "slow-set"), "3").unwrap();
    // The agent itself gives up after 2 s; the watcher continues to ask.
    let rig = Rig::new(&bmcs.device("20s", 2));

    let answer = rig.answer("off", "n1", "success");

    assert_eq!(answer["verified"], json!(true));
    assert_eq!(bmcs.orders(1), ["power 0"]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_silent_controller_gets_no_order_and_does_not_block_the_others() {
    let bmcs = Bmcs::start();
    let rig = Rig::new(&bmcs.device("6s", 2));
    signal(&bmcs.file(1, "bmc.pid"), Signal::SIGSTOP);

    let answer = rig.answer("off", "n1", "unacknowledged");
    // Either the agent gives up by itself first, or the watcher ends it.
    let message = answer["message"].as_str().unwrap();
    let ends = ["Connection timed out", "was killed at its limit"];
    assert!(ends.iter().any(|end| message.contains(end)), "{answer}");
    rig.await_contact();
    rig.succeeds("off", "n2");

    signal(&bmcs.file(1, "bmc.pid"), Signal::SIGCONT);
    wait_for("the controller's state", || rig.status("n1") == Some(0));
    assert_eq!(bmcs.orders(1), [""; 0]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn the_outcome_of_a_killed_agents_order_is_learned_by_asking() {
    let bmcs = Bmcs::start();
    let rig = Rig::new(&bmcs.device("8s", 30));
    // The agent that printed its metadata has ended by then, and is not confused with the one that
    // orders.
    rig.await_contact();
    let hang = bmcs.file(1, "hang-set");
    mkfifo(&hang, Mode::S_IRWXU).unwrap();
    let id = new_id();
    let _client = rig.site.spool.submit_held(&id, &our_request(&id, "off", "n1"));
    let agent = rig.await_agent("fence_ipmilan");
    // The controller has accepted the order and waits for the configured seconds.
    let mut seconds = None;
    wait_for("the order", || {
        let opened = File::options().write(true).custom_flags(O_NONBLOCK).open(&hang);
        seconds = opened.ok();
        seconds.is_some()
    });
    // The agent's ipmitool repeats its order, and each repetition would wait.
    fs::remove_file(&hang).unwrap();
    wait_for("the agent's end", || !is_alive(&agent));
    seconds.unwrap().write_all(b"0").unwrap();

    let answer = rig.site.spool.await_result(&id, "success");

    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("the order failed") && message.contains("killed"), "{answer}");
    assert_eq!(answer["verified"], json!(true));
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_wrong_password_orders_nothing_and_is_not_shown_either() {
    let bmcs = Bmcs::start();
    let wrong = "0ther-s3cret";
    let rig = Rig::with_password(&bmcs.device("3s", 2), wrong);

    rig.answer("off", "n1", "unacknowledged");
    rig.ask("action=monitor").assert_failure(&["no target answers (n"]);

    assert_eq!(bmcs.orders(1), [""; 0]);
    assert!(!rig.all_texts().contains(wrong));
}

// fence_redfish

const SYSTEMS: &str = "/redfish/v1/Systems/00000000-0000-4000-8000-00000000000";

fn redfish() -> (Simulator, u16) {
    let port = free_ports(1);
    let variables = [("REDFISH_PORT", &*port.to_string()), ("REDFISH_DELAY", "0 1")];
    (Simulator::start("redfish", &variables), port)
}

fn redfish_device(simulator: &Simulator, port: u16, more: &str) -> String {
    format!(
        "agent = 'fence_redfish'\nplug_option = 'systems_uri'\n\
         targets = {{ n1 = '{SYSTEMS}1', n2 = '{SYSTEMS}2' }}\npassword_file = 'PASSWORD_FILE'\n\
         env = {{ REQUESTS_CA_BUNDLE = '{}' }}\n{more}\n\
         [device.options]\nip = '127.0.0.1'\nipport = {port}\nusername = 'admin'\n",
        simulator.directory().join("ca.pem").display()
    )
}

/// The orders that the emulator has received.
fn resets(simulator: &Simulator) -> Vec<String> {
    let log = fs::read_to_string(simulator.directory().join("log")).unwrap();
    log.lines().filter(|line| line.contains("POST /")).map(str::to_owned).collect()
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn fence_redfish_does_each_action_once_and_checks_the_certificate() {
    let (simulator, port) = redfish();
    let device = redfish_device(&simulator, port, "timeout = '30s'");
    let rig = Rig::new(&device);

    rig.whole_life("n1");

    let resets = resets(&simulator);
    assert_eq!(resets.len(), 4, "{resets:#?}");
    assert!(resets.iter().all(|line| line.contains(&format!("{SYSTEMS}1/"))), "{resets:#?}");
    rig.await_sound();

    let untrusted = Rig::new(&device.replace("REQUESTS_CA_BUNDLE", "OTHER"));
    untrusted.ask("action=monitor").assert_failure(&["CERTIFICATE_VERIFY_FAILED"]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn an_agent_that_hangs_is_killed_and_its_password_is_nowhere_to_be_seen() {
    let (simulator, port) = redfish();
    let rig = Rig::new(&redfish_device(&simulator, port, "timeout = '3s'"));
    signal(&simulator.directory().join("pid"), Signal::SIGSTOP);

    let id = new_id();
    let _client = rig.site.spool.submit_held(&id, &our_request(&id, "off", "n1"));
    rig.await_agent("fence_redfish");
    let commands = rig.commands();
    assert!(commands.iter().all(|(_, command)| !command.contains(PASSWORD)), "{commands:?}");
    let answer = rig.site.spool.await_result(&id, "unacknowledged");

    assert!(answer["message"].as_str().unwrap().contains("was killed at its limit"), "{answer}");
    rig.ask("action=monitor").assert_failure(&["no target answers"]);
    signal(&simulator.directory().join("pid"), Signal::SIGCONT);
    wait_for("the emulator's answer", || rig.status("n1") == Some(0));
    assert_eq!(resets(&simulator), [""; 0]);
    assert!(!rig.all_texts().contains(PASSWORD));
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_redfish_service_that_refuses_the_login_is_a_failure() {
    let (simulator, port) = redfish();
    let device = redfish_device(&simulator, port, "timeout = '3s'");
    let rig = Rig::with_password(&device, "0ther-s3cret");

    rig.answer("off", "n1", "unacknowledged");

    rig.ask("action=status\nplug=n1").assert_failure(&["Unable to get PowerState"]);
    assert_eq!(resets(&simulator), [""; 0]);
}

// fence_powerman

fn powerman_device(port: u16, targets: &str, more: &str) -> String {
    format!(
        "agent = 'fence_powerman'\ntargets = {targets}\n{more}\n\
         [device.options]\nip = '127.0.0.1'\nipport = {port}\npower_wait = 0\n"
    )
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn fence_powerman_does_each_action_and_has_no_list() {
    let port = free_ports(1);
    let _simulator = Simulator::start("powerman", &[("POWERMAN_PORT", &port.to_string())]);
    let more = "plug_option = 'plug'\nplug = 'node{target}'\ntimeout = '20s'";
    let rig = Rig::new(&powerman_device(port, "'[1-16]'", more));

    rig.whole_life("3");
    assert_eq!(rig.status("4"), Some(0));
    rig.await_sound();

    let found = Rig::new(&powerman_device(port, "'discover'", more));
    found.ask("action=list").assert_failure(&["has no action 'list'"]);
    let (code, text) = found.check();
    assert_eq!(code, Some(1));
    assert!(text.contains("the agent has no action 'list'"), "{text}");
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_silent_or_dead_powermand_is_a_failure_within_the_limit() {
    let port = free_ports(1);
    let simulator = Simulator::start("powerman", &[("POWERMAN_PORT", &port.to_string())]);
    let more = "plug_option = 'plug'\nplug = 'node{target}'\ntimeout = '3s'";
    let rig = Rig::new(&powerman_device(port, "'[1-16]'", more));
    signal(&simulator.directory().join("pid"), Signal::SIGSTOP);

    let answer = rig.answer("off", "3", "unacknowledged");
    assert!(answer["message"].as_str().unwrap().contains("was killed at its limit"), "{answer}");
    assert_eq!(rig.ask("action=monitor").code, Some(1));

    signal(&simulator.directory().join("pid"), Signal::SIGCONT);
    wait_for("the daemon's answer", || rig.status("3") == Some(0));
    drop(simulator);
    rig.answer("off", "3", "unacknowledged");
    rig.ask("action=status\nplug=3").assert_failure(&["Traceback"]);
}

// All of them

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_check_asks_each_agent_for_its_options() {
    let device = |number: usize, agent: &str, more: &str| {
        format!(
            "[[device]]\nname = 'd{number}'\ntype = 'fence-agent'\nagent = '{agent}'\ntargets = 'n{number}'\n\
             actions = ['off', 'monitor']\n{more}\n"
        )
    };
    let agents = [
        "fence_apc_snmp",
        "fence_aws",
        "fence_azure_arm",
        "fence_gce",
        "fence_idrac",
        "fence_ilo4",
        "fence_kdump",
        "fence_mpath",
        "fence_openstack",
        "fence_pve",
        "fence_scsi",
        "fence_vmware_soap",
    ];
    let known: String =
        agents.iter().enumerate().map(|(number, agent)| device(number, agent, "")).collect();
    let rig = Rig::new(&format!(
        "agent = 'fence_ipmilan'\ntargets = 'm[1-2]'\n\
         options = {{ lanplsu = true, ipaddr = 'x', auth = 'md6', ipport = 'a' }}\n{known}"
    ));

    let (code, text) = rig.check();

    assert_eq!(code, Some(1));
    for problem in [
        "'d': the agent has no option 'lanplsu' (did you mean 'lanplus'?)",
        "'d': option 'ipaddr' is an old name: write 'ip'",
        "'d': option 'auth': 'md6' is none of md5, password, none",
        "'d': option 'ipport': 'a' is not a whole number",
        "'d' cannot be reached: the agent may act on one and the same machine for every target",
        "'d[0,9,11]': option 'ip' is missing",
    ] {
        assert!(text.contains(problem), "{problem}: {text}");
    }
    assert!(!text.contains("metadata cannot be read"), "{text}");
}
