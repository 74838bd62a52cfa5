//! `type = "ipmi"` against `ipmi_sim`: BMCs that speak IPMI 2.0, each with a real process as its
//! node and a log of its orders.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{Ended, Site, Watcher, is_alive, names, output_of, wait_for};
use crate::sim::{Simulator, free_ports};

pub(crate) const PASSWORD: &str = "s3cret";

/// BMCs of `node1`, `node2`, … on consecutive ports.
pub(crate) struct Bmcs {
    simulator: Simulator,
    pub(crate) port: u16,
}

impl Bmcs {
    pub(crate) fn start(count: u16, mode: &str) -> Self {
        // startcmd mode needs a second port for each BMC, 100 higher.
        let port = free_ports(100 + count);
        let variables = [
            ("IPMI_PORT", &*port.to_string()),
            ("DEVSIM_NODES", &*count.to_string()),
            ("IPMI_MODE", mode),
        ];
        Bmcs { simulator: Simulator::start("ipmi", &variables), port }
    }

    pub(crate) fn path(&self, node: u16, name: &str) -> std::path::PathBuf {
        self.simulator.directory().join(format!("node{node}/{name}"))
    }

    fn read(&self, node: u16, name: &str) -> String {
        fs::read_to_string(self.path(node, name)).unwrap_or_default()
    }

    /// Makes a BMC fail: see `ipmi-power`.
    pub(crate) fn fault(&self, node: u16, name: &str, text: &str) {
        fs::write(self.path(node, name), text).unwrap();
    }

    fn mend(&self, node: u16) {
        for name in names(&self.path(node, "")) {
            if ["hang-", "fail-", "lie-", "slow-"].iter().any(|fault| name.starts_with(fault)) {
                fs::remove_file(self.path(node, &name)).unwrap();
            }
        }
    }

    /// Whether the node's process runs.
    fn is_on(&self, node: u16) -> bool {
        self.read(node, "node.pid").split(' ').next().is_some_and(is_alive)
    }

    /// The orders that the BMC received since its start, without the one that first turned its node
    /// on.
    fn orders(&self, node: u16) -> Vec<String> {
        let calls = self.read(node, "calls");
        let orders = calls.lines().filter_map(|line| Some(line.split_once(" set ")?.1.to_owned()));
        orders.skip(1).collect()
    }

    /// Stops or continues the whole BMC.
    fn signal(&self, node: u16, signal: Signal) {
        let pid = self.read(node, "bmc.pid").split(' ').next().unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Its addresses, in the form of the key `address`.
    fn addresses(&self, count: u16) -> String {
        let one = |node| format!("node{node} = '127.0.0.1:{}'", self.port + node - 1);
        format!("{{ {} }}", (1..=count).map(one).collect::<Vec<_>>().join(", "))
    }

    /// A device for all these BMCs.
    fn device(&self, site: &Site, name: &str, count: u16, more: &str) -> String {
        let (addresses, file) = (self.addresses(count), secret(site, "password", PASSWORD));
        format!(
            "[[device]]\nname = '{name}'\ntype = 'ipmi'\ntargets = {addresses}\n\
             username = 'admin'\npassword_file = '{file}'\ncipher = 3\n{more}\n"
        )
    }

    /// A site with these BMCs, and its running watcher.
    pub(crate) fn site(&self, count: u16, more: &str) -> (Site, Watcher) {
        let site = Site::new();
        // No level of the log may contain a secret.
        site.configure(&format!("level = 'trace'\n{}", self.device(&site, "bmc", count, more)));
        let watcher = site.start();
        (site, watcher)
    }
}

/// A file that only this user can read; returns its path.
pub(crate) fn secret(site: &Site, name: &str, text: &str) -> String {
    let path = site.path(name);
    fs::write(&path, format!("{text}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Runs a fence through the agent; returns its end and the answer to its request.
fn fence(site: &Site, options: &str) -> (Ended, Value) {
    let ended = site.agent(options).wait();
    let answer = site.spool.await_answer(&site.last_request());
    (ended, answer)
}

/// Checks that the fence fails with this result, with all of these words in its answer and in the
/// agent's message.
fn assert_fails(site: &Site, options: &str, result: &str, code: u8, words: &[&str]) {
    let (ended, answer) = fence(site, options);
    ended.assert_failure(&[result]);
    assert_eq!((&answer["result"], &answer["result_code"]), (&json!(result), &json!(code)));
    let message = answer["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
}

/// Checks that the fence succeeds and is verified, with all of these words in its answer.
fn assert_fences(site: &Site, options: &str, words: &[&str]) {
    let (ended, answer) = fence(site, options);
    ended.assert_success();
    let expected = (&json!("success"), &json!(0), &json!(true));
    assert_eq!((&answer["result"], &answer["result_code"], &answer["verified"]), expected);
    let message = answer["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn each_order_is_carried_out_once_and_each_question_is_answered() {
    let bmcs = Bmcs::start(2, "program");
    let site = Site::new();
    let cycling = bmcs.device(&site, "cycling", 2, "method = 'cycle'");
    site.configure(&(bmcs.device(&site, "bmc", 2, "") + &cycling));
    let _watcher = site.start();
    let ask = |action: &str| site.agent(&format!("{action}\ndevice=bmc")).wait();

    assert_eq!(ask("action=monitor").code, Some(0));
    assert_eq!(ask("action=list").stdout, "node1\nnode2\n");
    assert_eq!(ask("action=status\nplug=node1").code, Some(0));
    assert_fences(&site, "action=off\nplug=node1", &["Chassis Power Control: Down/Off"]);
    assert!(!bmcs.is_on(1) && bmcs.is_on(2));
    assert_eq!(ask("action=status\nplug=node1").code, Some(2));
    // A node that is off is fenced like any other.
    assert_fences(&site, "action=off\nplug=node1", &[]);
    assert_fences(&site, "action=on\nplug=node1", &["Chassis Power Control: Up/On"]);
    assert!(bmcs.is_on(1));
    let has_booted = |times| bmcs.read(1, "boots").lines().count() == times;
    wait_for("the second boot", || has_booted(2));
    assert_fences(&site, "action=reboot\nplug=node1", &["off: "]);
    site.assert_on_result(&site.last_request(), "on");
    wait_for("the third boot", || has_booted(3));
    assert!(bmcs.is_on(1));
    let orders = ["power 0", "power 0", "power 1", "power 0", "power 1"];
    assert_eq!(bmcs.orders(1), orders);

    let (ended, answer) = fence(&site, "action=reboot\nplug=node2\ndevice=cycling");
    ended.assert_success();
    assert_eq!((&answer["result_code"], &answer["verified"]), (&json!(0), &json!(false)));
    assert_eq!(bmcs.orders(2), ["power 0"]);
    assert_eq!(bmcs.orders(1), orders);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_bmc_that_refuses_the_login_or_does_not_respond_gets_no_order() {
    let bmcs = Bmcs::start(1, "program");
    let site = Site::new();
    let one = |name: &str, from: &str, to: &str| {
        let device = bmcs.device(&site, name, 1, "timeout = '5s'");
        assert!(device.contains(from), "{device}");
        device.replace(from, to)
    };
    let right = format!("password_file = '{}'", site.path("password").display());
    let wrong = format!("password_file = '{}'", secret(&site, "wrong", "s3cres"));
    let long = format!("password_file = '{}'", secret(&site, "long", "123456789012345678901"));
    let address = format!("127.0.0.1:{}", bmcs.port);
    let dead = format!("127.0.0.1:{}", bmcs.port + 50);
    let devices = [
        (one("password", &right, &wrong), "device-failure", 3, "the password is wrong"),
        (one("user", "'admin'", "'nobody'"), "device-failure", 3, "does not know the user"),
        (one("cipher", "cipher = 3", "cipher = 17"), "device-failure", 3, "set 'cipher'"),
        (one("long", &right, &long), "device-failure", 3, "has more than 20 bytes"),
        (one("missing", &right, "password_env = 'NO_SUCH'"), "device-failure", 3, "NO_SUCH"),
        (one("dead", &address, &dead), "unreachable", 1, "does not answer"),
        (one("unknown", &address, "n1.invalid"), "unreachable", 1, "cannot be looked up"),
    ];
    site.configure(&devices.each_ref().map(|(device, ..)| device.as_str()).concat());
    let _watcher = site.start();

    for (device, result, code, words) in &devices {
        let name = device.split('\'').nth(1).unwrap();
        let device = format!("device={name}");
        assert_fails(&site, &format!("action=off\nplug=node1\n{device}"), result, *code, &[words]);
        site.agent(&format!("action=monitor\n{device}")).wait().assert_failure(&["none of 1 BMCs"]);
        let status = site.agent(&format!("action=status\nplug=node1\n{device}")).wait();
        assert_eq!(status.code, Some(1), "{name}: {status:?}");
    }
    assert!(bmcs.is_on(1) && bmcs.orders(1).is_empty());
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn one_dead_bmc_does_not_block_the_fencing_of_the_others() {
    let bmcs = Bmcs::start(3, "program");
    let (site, _watcher) = bmcs.site(3, "timeout = '5s'\nmax_concurrent = 3");
    bmcs.signal(2, Signal::SIGSTOP);

    assert_eq!(site.agent("action=monitor").wait().code, Some(0));
    let check = output_of(&mut site.watcher_command(&["check", "--node", "n1"]));
    let text = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(1), "{text}");
    assert!(text.contains("2 of 3 BMCs answered; cannot be asked: node2: "), "{text}");
    let options = "action=off\nplug=node2";
    assert_fails(&site, options, "unreachable", 1, &["does not answer", "127.0.0.1"]);
    assert_fences(&site, "action=off\nplug=node3", &[]);

    bmcs.signal(2, Signal::SIGCONT);
    let is_awake = || site.agent("action=status\nplug=node2").wait().code == Some(0);
    wait_for("the BMC's awakening", is_awake);
    assert!(bmcs.orders(1).is_empty() && bmcs.orders(2).is_empty());
    assert_eq!(bmcs.orders(3), ["power 0"]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn an_order_to_a_bmc_that_falls_silent_is_given_once_and_its_effect_examined() {
    let bmcs = Bmcs::start(2, "program");
    let (site, _watcher) = bmcs.site(2, "timeout = '7s'");

    // The BMC carries the order out when it wakes up, after the driver has given up waiting for its
    // answer.
    bmcs.fault(1, "hang-set", "4");
    let words = ["learned by asking", "Unable to set Chassis Power Control to Down/Off"];
    assert_fences(&site, "action=off\nplug=node1", &words);
    assert!(!bmcs.is_on(1));
    assert_eq!(bmcs.orders(1), ["power 0"]);

    // The BMC forgets the order.
    bmcs.fault(2, "hang-set", "4");
    bmcs.fault(2, "lie-set", "");
    let words = ["not acknowledged, and not confirmed: the device showed on"];
    assert_fails(&site, "action=off\nplug=node2", "unacknowledged", 2, &words);
    assert!(bmcs.is_on(2));
    assert_eq!(bmcs.orders(2), ["power 0"]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn the_watcher_waits_for_a_late_answer_and_a_late_action() {
    let bmcs = Bmcs::start(3, "program");
    let (site, _watcher) = bmcs.site(3, "max_concurrent = 3");

    // By default, ipmitool would have sent the order three times in this time.
    bmcs.fault(1, "hang-set", "4");
    assert_fences(&site, "action=off\nplug=node1", &["the device shows it"]);
    assert_eq!((bmcs.is_on(1), bmcs.orders(1)), (false, vec!["power 0".to_owned()]));

    bmcs.fault(2, "slow-set", "2");
    assert_fences(&site, "action=off\nplug=node2", &["the device shows it"]);
    assert_eq!((bmcs.is_on(2), bmcs.orders(2)), (false, vec!["power 0".to_owned()]));

    // A reboot does not turn the node on before it is off.
    bmcs.fault(3, "slow-set", "1");
    assert_fences(&site, "action=reboot\nplug=node3", &["off: the device shows it"]);
    site.assert_on_result(&site.last_request(), "on");
    assert_eq!(bmcs.orders(3), ["power 0", "power 1"]);
    wait_for("the second boot", || bmcs.read(3, "boots").lines().count() == 2);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn an_order_that_a_bmc_refuses_or_only_acknowledges_is_not_a_success() {
    let bmcs = Bmcs::start(1, "program");
    let (site, _watcher) = bmcs.site(1, "timeout = '3s'");
    let mut orders: Vec<String> = Vec::new();
    for (fault, words) in [
        ("lie-set", "acknowledged, but not confirmed: the device showed on"),
        ("fail-set", "Set Chassis Power Control to Down/Off failed: Unspecified error"),
    ] {
        bmcs.fault(1, fault, "");
        for action in ["off", "reboot"] {
            let options = format!("action={action}\nplug=node1");
            assert_fails(&site, &options, "unacknowledged", 2, &[words]);
            orders.push("power 0".to_owned());
            assert_eq!(bmcs.orders(1), orders);
        }
        assert!(bmcs.is_on(1));
        bmcs.mend(1);
    }

    bmcs.fault(1, "fail-get", "");
    let words = ["Get Chassis Power Status failed: Unspecified error"];
    site.agent("action=monitor").wait().assert_failure(&words);
    assert_eq!(site.agent("action=status\nplug=node1").wait().code, Some(1));
    assert_fails(&site, "action=off\nplug=node1", "unacknowledged", 2, &words);
    orders.push("power 0".to_owned());
    assert_eq!((bmcs.is_on(1), bmcs.orders(1)), (false, orders));
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn a_slow_node_is_off_when_its_bmc_shows_it() {
    let bmcs = Bmcs::start(1, "startcmd");
    let (site, _watcher) = bmcs.site(1, "");
    wait_for("the first boot", || bmcs.read(1, "boots").lines().count() == 1);

    assert_fences(&site, "action=off\nplug=node1", &["the device shows it"]);
    let pid = bmcs.read(1, "boots").split_whitespace().last().unwrap().to_owned();
    assert!(!is_alive(&pid));
    assert_fences(&site, "action=on\nplug=node1", &[]);
    wait_for("the second boot", || bmcs.read(1, "boots").lines().count() == 2);
    assert_fences(&site, "action=reboot\nplug=node1", &["off: the device shows it"]);
    wait_for("the third boot", || bmcs.read(1, "boots").lines().count() == 3);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn the_password_is_nowhere_to_be_seen() {
    let bmcs = Bmcs::start(1, "program");
    let site = Site::new();
    // ipmitool soon hides a password in its arguments; the test looks at them before that.
    let arguments = site.path("arguments");
    let script = format!("echo \"$0 $*\" >>'{}'\nexec ipmitool \"$@\"", arguments.display());
    let program = site.program("ipmitool", &script);
    let right = bmcs.device(&site, "bmc", 1, &format!("timeout = '5s'\nipmitool = '{program}'"));
    let wrong_file = secret(&site, "wrong", "s3cres");
    let wrong = right
        .replace("'bmc'", "'wrong'")
        .replace(&site.path("password").display().to_string(), &wrong_file);
    site.configure(&(right + &wrong));
    let watcher = site.start();

    assert_fences(&site, "action=off\nplug=node1", &[]);
    let options = "action=off\nplug=node1\ndevice=wrong";
    assert_fails(&site, options, "device-failure", 3, &["the password is wrong"]);
    let status = output_of(&mut site.watcher_command(&["status"]));
    let check = output_of(&mut site.watcher_command(&["check", "--node", "n1"]));
    assert!(String::from_utf8_lossy(&check.stdout).contains("the password is wrong"), "{check:?}");
    assert!(watcher.log().contains("node1"), "{}", watcher.log());

    let mut seen = vec![format!("{status:?}"), format!("{check:?}"), watcher.log()];
    for directory in ["log", "responses", "requests", "."] {
        let kept = names(&site.path(directory)).into_iter();
        let kept = kept.filter(|name| !["password", "wrong"].contains(&name.as_str()));
        seen.extend(kept.map(|name| site.read(&format!("{directory}/{name}"))));
    }
    let is_seen = |words| seen.iter().any(|text| text.contains(words));
    assert!(is_seen("chassis power off") && is_seen("\"result\":\"success\""), "{seen:?}");
    for text in &seen {
        assert!(!text.contains("s3cre"), "{text}");
    }
}
