//! `type = "redfish"` against sushy-emulator (one service with three systems), and against our own
//! BMCs for what the emulator lacks: one system each, sessions, tasks, and faults.

use std::net::TcpListener;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{holds_within, output_of, wait_for};

pub(crate) mod rig;

use rig::*;

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_does_every_action_of_the_agent_and_sends_each_order_once() {
    let sushy = Sushy::start(&[("REDFISH_DELAY", "0 1")]);
    let site = site();
    let common = format!(
        "address = '{}'\nca_file = '{}'\nsystem = ",
        sushy.address,
        sushy.certificate().display()
    );
    let named = format!("{common}'{{target}}'\ntargets = 'node[1-3]'");
    let found = format!("{common}'{{target}}'\ntargets = 'discover'");
    let path = format!("{common}'/redfish/v1/Systems/{{target}}'\ntargets = '*'\nmethod = 'cycle'");
    let devices = [("named", named), ("found", found), ("path", path)];
    let devices: String = devices.iter().map(|(name, more)| device(&site, name, more)).collect();
    // Libraries would log the data that they send.
    site.configure(&format!("level = 'trace'\n{devices}"));
    let watcher = site.start();

    let mut outputs = vec![said(&site, &["check"]), said(&site, &["status", "--json"])];
    assert_eq!(outputs[0].matches(" yes ").count(), 3, "{}", outputs[0]);
    for name in ["named", "found"] {
        site.agent(&format!("action=monitor\ndevice={name}")).wait().assert_success();
        let list = site.agent(&format!("action=list\ndevice={name}")).wait();
        assert_eq!(list.stdout.lines().count(), 3, "{list:?}");
        assert!(list.stdout.lines().all(|line| line.starts_with("node")), "{list:?}");
    }
    assert_eq!(status_code(&site, "node2"), Some(0));

    let off = fence(&site, "named", "off", "node2");
    assert_answer(&off, "success", "ForceOff: HTTP 204");
    assert_eq!((&off["verified"], &off["action_performed"]), (&json!(true), &json!("off")));
    assert_eq!(status_code(&site, "node2"), Some(2));
    assert_eq!(status_code(&site, "node1"), Some(0));
    assert_answer(&fence(&site, "found", "on", "node2"), "success", "On: HTTP 204");
    let reboot = fence(&site, "named", "reboot", "node3");
    assert_eq!((&reboot["result"], &reboot["verified"]), (&json!("success"), &json!(true)));
    site.assert_on_result(&site.last_request(), "on");
    // The path is another name for the system's own path, and the order uses the latter.
    let cycle = fence(&site, "path", "reboot", "node1");
    assert_answer(&cycle, "success", "ForceRestart: HTTP 204");
    assert_eq!(cycle["verified"], json!(false));

    assert_eq!(sushy.orders(), ["2 204", "2 204", "3 204", "3 204", "1 204"]);
    outputs.extend([watcher.log(), said(&site, &["status"]), said(&site, &["history"])]);
    assert!(!watcher.log().contains("TcpStream"), "{}", watcher.log());
    assert_secret_is_kept(&site, &outputs);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_orders_nothing_if_the_identity_of_the_host_is_uncertain() {
    let sushy = Sushy::start(&[]);
    let site = site();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (address, ca) = (format!("address = '{}'", sushy.address), sushy.certificate());
    let ca = format!("ca_file = '{}'", ca.display());
    let wrong = site.path("wrong.pem");
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.arg("-keyout").arg(site.path("wrong.key")).arg("-out").arg(&wrong);
    assert!(output_of(&mut openssl).status.success());
    let wrong_login = format!("password_file = '{}'", site.path("wrong-password").display());
    let name = "system = '{target}'";

    let cases = [
        ("password", format!("{address}\n{ca}\n{name}\n{wrong_login}"), 3, "login was refused"),
        (
            "authority",
            format!("{address}\nca_file = '{}'\n{name}", wrong.display()),
            3,
            "not trusted",
        ),
        (
            "pin",
            format!("{address}\nfingerprint = '{}'\n{name}", fingerprint(&wrong)),
            3,
            "not trusted",
        ),
        ("name", format!("{address}\n{ca}\nsystem = 'x{{target}}'"), 3, "none of its 3 systems"),
        ("path", format!("{address}\n{ca}\nsystem = '/redfish/v1/Systems/x{{target}}'"), 3, "404"),
        ("which", format!("address = {{ node2 = '{}' }}\n{ca}", sushy.address), 3, "3 systems"),
        ("closed", format!("address = 'https://{closed}'\n{ca}\n{name}"), 1, "refused"),
        (
            "no-tls",
            format!(
                "address = '{}'\ninsecure = true\n{name}",
                sushy.address.replace("https", "http")
            ),
            1,
            "127.0.0.1",
        ),
    ];
    let devices: String = cases
        .iter()
        .map(|(name, more, ..)| {
            device(&site, name, &format!("{more}\ntargets = 'node2'\ntimeout = '5s'"))
        })
        .collect();
    site.configure(&devices);
    let watcher = site.start();

    for (name, _, code, words) in &cases {
        let answer = fence(&site, name, "off", "node2");
        assert_eq!(answer["result_code"], *code, "{name}: {answer}");
        assert_answer(&answer, if *code == 1 { "unreachable" } else { "device-failure" }, words);
        let monitor = site.agent(&format!("action=monitor\ndevice={name}")).wait();
        assert_eq!(monitor.code, Some(1), "{name}: {monitor:?}");
    }
    let check = said(&site, &["check"]);
    let found = fingerprint(&sushy.certificate());
    assert!(check.contains(&found), "{found}: {check}");
    assert_eq!(sushy.orders(), [""; 0]);
    assert_secret_is_kept(&site, &[watcher.log(), check, said(&site, &["history"])]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_survives_a_service_that_falls_silent_before_an_order_and_after() {
    let sushy = Sushy::start(&[("REDFISH_DELAY", "2 2")]);
    let site = site();
    let more = format!(
        "address = '{}'\nfingerprint = '{}'\nsystem = '{{target}}'\ntargets = 'node[1-3]'",
        sushy.address,
        fingerprint(&sushy.certificate())
    );
    let [brief, patient] = [("brief", "3s"), ("patient", "40s")]
        .map(|(name, timeout)| device(&site, name, &format!("{more}\ntimeout = '{timeout}'")));
    site.configure(&(brief + &patient));
    let _watcher = site.start();

    sushy.signal(Signal::SIGSTOP);
    let silent = fence(&site, "brief", "off", "node1");
    let monitor = site.agent("action=monitor\ndevice=brief").wait();
    assert_eq!(monitor.code, Some(1), "{monitor:?}");
    sushy.signal(Signal::SIGCONT);
    assert_answer(&silent, "unreachable", "no connection in time");

    let agent = site.agent("action=off\nplug=node2\ndevice=patient");
    wait_for("the order", || !sushy.orders().is_empty());
    sushy.signal(Signal::SIGSTOP);
    assert!(!holds_within(std::time::Duration::from_secs(3), || site.audit().len() > 3));
    sushy.signal(Signal::SIGCONT);
    agent.wait().assert_success();

    // What remained of the first visit had no effect.
    assert_eq!(sushy.orders(), ["2 204"]);
    assert_eq!(status_code(&site, "node1"), Some(0));
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_reports_that_the_service_refuses_the_order() {
    let sushy = Sushy::start(&[("REDFISH_NO_OFF", "1")]);
    let site = site();
    let more = format!(
        "address = '{}'\ninsecure = true\nsystem = '{{target}}'\ntargets = 'node[1-3]'\ntimeout = '2s'",
        sushy.address
    );
    site.configure(&device(&site, "bmc", &more));
    let _watcher = site.start();

    assert_answer(&fence(&site, "bmc", "off", "node1"), "unacknowledged", "ForceOff: HTTP 400");
    assert_eq!(sushy.orders(), ["1 400"]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_sessions_always_end() {
    let bmcs = Bmcs::start(1);
    let site = site();
    let common = format!(
        "address = '{}'\nfingerprint = '{}'\nauth = 'session'\ntargets = 'node1'\ntimeout = '3s'\n",
        bmcs.address(1),
        bmcs.fingerprint(1)
    );
    let wrong = format!("{common}password_file = '{}'", site.path("wrong-password").display());
    site.configure(&(device(&site, "bmc", &common) + &device(&site, "wrong", &wrong)));
    let watcher = site.start();

    // The service has room for two sessions: one unclosed session per visit would soon lock the
    // driver out.
    site.agent("action=monitor\ndevice=bmc").wait().assert_success();
    assert_answer(&fence(&site, "bmc", "off", "node1"), "success", "ForceOff: HTTP 202");
    assert_eq!(status_code(&site, "node1"), Some(2));
    // The service refuses the order because the system is off; then it shows that the system is
    // off.
    assert_answer(&fence(&site, "bmc", "off", "node1"), "success", "HTTP 409: The system is off");
    assert_answer(&fence(&site, "bmc", "on", "node1"), "success", "On: HTTP 202");
    bmcs.behave(1, "refuse");
    assert_answer(&fence(&site, "bmc", "off", "node1"), "unacknowledged", "HTTP 403: You may not");
    bmcs.behave(1, "gentle");
    assert_answer(&fence(&site, "bmc", "off", "node1"), "device-failure", "only On, GracefulShut");
    bmcs.behave(1, "");
    assert_answer(&fence(&site, "wrong", "off", "node1"), "device-failure", "login was refused");

    assert_eq!(bmcs.sessions(1).as_deref(), Some("0"));
    assert_eq!(bmcs.orders(1), ["ForceOff", "ForceOff", "On", "ForceOff"]);
    assert_secret_is_kept(
        &site,
        &[watcher.log(), said(&site, &["check"]), said(&site, &["status"])],
    );
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_trusts_the_state_that_a_bmc_shows_and_not_its_answer() {
    let bmcs = Bmcs::start(1);
    let site = site();
    let more =
        format!("targets = {{ node1 = '{}' }}\ninsecure = true\ntimeout = '3s'", bmcs.address(1));
    site.configure(&device(&site, "bmc", &more));
    let watcher = site.start();
    let off = |behaviour: &str, result: &str, words: &str| {
        let before = bmcs.orders(1).len();
        bmcs.behave(1, behaviour);
        let answer = fence(&site, "bmc", "off", "node1");
        bmcs.behave(1, "");
        assert_answer(&answer, result, words);
        if result == "success" {
            assert_eq!(answer["verified"], json!(true), "{answer}");
            assert_eq!(fence(&site, "bmc", "on", "node1")["result"], "success");
            assert_eq!(bmcs.orders(1)[before..], ["ForceOff", "On"], "{behaviour}");
        }
        bmcs.orders(1).len() - before
    };

    assert_eq!(off("lie", "unacknowledged", "on"), 1);
    assert_eq!(off("silent-power", "unacknowledged", "no PowerState"), 1);
    assert_eq!(fence(&site, "bmc", "on", "node1")["result"], "success");
    // Both orders were carried out, and the answer was lost.
    off("cut", "success", "learned by asking");
    off("hang", "success", "learned by asking");
    // Before the order, every error is certain.
    assert_eq!(off("unavailable", "unreachable", "HTTP 503: The service is starting."), 0);
    assert_eq!(off("garbage", "device-failure", "cannot be read"), 0);
    assert_eq!(off("away", "device-failure", "HTTP 307"), 0);
    assert_eq!(off("two", "device-failure", "2 systems"), 0);
    assert_secret_is_kept(&site, &[watcher.log()]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_takes_no_bmc_for_anothers_and_lives_with_a_dead_one() {
    let bmcs = Bmcs::start(3);
    let site = site();
    let map = |text: &dyn Fn(u16) -> String| {
        let each: Vec<String> = (1..=3).map(|n| format!("node{n} = '{}'", text(n))).collect();
        format!("{{ {} }}", each.join(", "))
    };
    let fingerprints = map(&|number| bmcs.fingerprint(number));
    // For example after a mistake in the name service.
    let swapped = map(&|number| bmcs.address([2, 1, 3][usize::from(number) - 1]));
    let right = map(&|number| bmcs.address(number));
    let more = |addresses: &str| {
        format!("targets = {addresses}\nfingerprint = {fingerprints}\ntimeout = '3s'")
    };
    // One configuration with both is refused: a BMC would belong to two nodes.
    site.configure(&device(&site, "swapped", &more(&swapped)));
    let watcher = site.start();
    let refused = fence(&site, "swapped", "off", "node1");
    assert_answer(&refused, "device-failure", &bmcs.fingerprint(2));
    drop(watcher);

    site.configure(&device(&site, "right", &more(&right)));
    let _watcher = site.start();
    signal_to(&bmcs.directory(3), Signal::SIGSTOP);
    site.agent("action=monitor\ndevice=right").wait().assert_success();
    let check = said(&site, &["check"]);
    assert!(check.contains("'right': 2 of 3 BMCs answered; cannot be asked: node3: "), "{check}");
    assert_answer(&fence(&site, "right", "off", "node1"), "success", "HTTP 202");
    signal_to(&bmcs.directory(3), Signal::SIGCONT);

    assert_eq!([1, 2, 3].map(|number| bmcs.orders(number).len()), [1, 0, 0]);
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_trusts_a_certificate_in_the_file_or_signed_by_one_there_for_its_name_alone() {
    let bmcs = Bmcs::start(1);
    let site = site();
    let authority = bmcs.simulator.directory().join("ca.pem");
    let own = bmcs.directory(1).join("cert.pem");
    let (here, elsewhere) = (bmcs.address(1), bmcs.address(1).replace("127.0.0.1", "localhost"));
    let cases = [
        ("signed", &here, &authority, true),
        ("signed-for-another", &elsewhere, &authority, false),
        ("own", &here, &own, true),
        ("own-of-another", &elsewhere, &own, false),
    ];
    let device = |(name, address, file, _): &(&str, &String, &PathBuf, bool)| {
        let more = format!("targets = {{ node1 = '{address}' }}\nca_file = '{}'", file.display());
        device(&site, name, &more)
    };
    site.configure(&cases.iter().map(device).collect::<String>());
    let _watcher = site.start();

    for (name, _, _, is_trusted) in cases {
        let monitor = site.agent(&format!("action=monitor\ndevice={name}")).wait();
        if is_trusted {
            monitor.assert_success();
        } else {
            monitor.assert_failure(&["not trusted", "not valid for name \"localhost\""]);
        }
    }
}
