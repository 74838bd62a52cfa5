//! `type = "redfish"` against sushy-emulator (one service with three systems), and against BMCs of our
//! own for what that one does not have: one system each, sessions, tasks, and faults.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{Site, holds_within, names, output_of, wait_for};
use crate::sim::{Simulator, free_ports};

const PASSWORD: &str = "s3cret";

/// sushy-emulator.
struct Sushy {
    simulator: Simulator,
    address: String,
}

impl Sushy {
    fn start(variables: &[(&str, &str)]) -> Self {
        let port = free_ports(1).to_string();
        let variables = [&[("REDFISH_PORT", port.as_str())], variables].concat();
        let simulator = Simulator::start("redfish", &variables);
        Sushy { simulator, address: format!("https://127.0.0.1:{port}") }
    }

    fn certificate(&self) -> PathBuf {
        self.simulator.directory().join("ca.pem")
    }

    /// The orders that it got: the system's number and the answer's status.
    fn orders(&self) -> Vec<String> {
        let log = fs::read_to_string(self.simulator.directory().join("log")).unwrap();
        // 127.0.0.1 - - [TIME] "POST PATH HTTP/1.1" STATUS -, with colours.
        let order = |line: &str| {
            let (_, order) = line.split_once("POST ")?;
            let number = order.split_once(' ')?.0.split('/').nth(4)?.rsplit('-').next()?;
            Some(format!("{} {}", number.trim_start_matches('0'), order.rsplit(' ').nth(1)?))
        };
        log.lines().filter_map(order).collect()
    }

    fn signal(&self, signal: Signal) {
        signal_to(&self.simulator.directory(), signal);
    }
}

/// BMCs of our own, with one system each.
struct Bmcs {
    simulator: Simulator,
    port: u16,
}

impl Bmcs {
    fn start(count: u16) -> Self {
        let port = free_ports(count);
        let (first, nodes) = (port.to_string(), count.to_string());
        let variables = [("REDFISH_PORT", first.as_str()), ("DEVSIM_NODES", &nodes)];
        Bmcs { simulator: Simulator::start("redfish-bmc", &variables), port }
    }

    fn directory(&self, number: u16) -> PathBuf {
        self.simulator.directory().join(format!("node{number}"))
    }

    fn address(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.port + number - 1)
    }

    /// As `openssl` shows it.
    fn fingerprint(&self, number: u16) -> String {
        fingerprint(&self.directory(number).join("cert.pem"))
    }

    fn behave(&self, number: u16, words: &str) {
        fs::write(self.directory(number).join("behave"), words).unwrap();
    }

    /// The orders that it got.
    fn orders(&self, number: u16) -> Vec<String> {
        let calls = fs::read_to_string(self.directory(number).join("calls")).unwrap_or_default();
        let orders = calls.lines().filter(|line| line.starts_with("POST "));
        orders.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    }

    /// How many sessions are open; `None` when there never was one.
    fn sessions(&self, number: u16) -> Option<String> {
        let text = fs::read_to_string(self.directory(number).join("sessions")).ok()?;
        Some(text.trim().to_owned())
    }
}

fn signal_to(directory: &Path, signal: Signal) {
    let text = fs::read_to_string(directory.join("pid")).unwrap();
    let pid = text.split(' ').next().unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn fingerprint(certificate: &Path) -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(certificate);
    let shown = String::from_utf8(output_of(&mut openssl).stdout).unwrap();
    shown.trim().split_once('=').unwrap().1.to_owned()
}

/// A site with the right password, and a wrong one, in files.
fn site() -> Site {
    let site = Site::new();
    secret_file(&site, "password", PASSWORD);
    secret_file(&site, "wrong-password", "s3crets");
    site
}

fn secret_file(site: &Site, name: &str, text: &str) {
    let mut options = fs::OpenOptions::new();
    let file = options.create_new(true).write(true).mode(0o600).open(site.path(name));
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
}

/// A device that logs in as it should, and has what `more` says.
fn device(site: &Site, name: &str, more: &str) -> String {
    let mut password = String::new();
    if !more.contains("password_file") {
        password = format!("password_file = '{}'\n", site.path("password").display());
    }
    format!("[[device]]\nname = '{name}'\ntype = 'redfish'\nusername = 'admin'\n{password}{more}\n")
}

/// Has the agent do `action` to `target` with the device `name`; gives the answer as well.
fn fence(site: &Site, name: &str, action: &str, target: &str) -> Value {
    let ended = site.agent(&format!("action={action}\nplug={target}\ndevice={name}")).wait();
    let event = site.audit().pop().unwrap();
    assert_eq!(event["status"] == "completed", ended.code == Some(0), "{ended:?} {event}");
    site.spool.answer(event["request_id"].as_str().unwrap()).unwrap()
}

fn assert_answer(answer: &Value, result: &str, words: &str) {
    assert_eq!(answer["result"], result, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains(words), "no {words:?}: {answer}");
}

/// Checks that the password is in no file of the site but its own, and in no command line.
fn assert_secret_is_kept(site: &Site, more: &[String]) {
    let login = "YWRtaW46czNjcmV0"; // admin:s3cret, as basic authentication sends it
    let assert_clean = |place: &str, text: &str| {
        for secret in [PASSWORD, login] {
            assert!(!text.contains(secret), "{place}: {text}");
        }
    };
    let mut directories = vec![site.path("")];
    let mut read = 0;
    while let Some(directory) = directories.pop() {
        for name in names(&directory) {
            let path = directory.join(&name);
            if path.is_dir() {
                directories.push(path);
            } else if !name.ends_with("password") && !name.starts_with("notify") {
                let text =
                    String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
                assert_clean(&path.display().to_string(), &text);
                read += 1;
            }
        }
    }
    assert!(read > 4, "{read} files of the site");
    for name in names(Path::new("/proc")) {
        let arguments = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&arguments).into_owned();
        // The simulator itself gets it on its command line.
        if text.contains("fence") && !text.contains("redfish-bmc") {
            assert_clean(&text, &text);
        }
    }
    for text in more {
        assert_clean("output", text);
    }
}

/// What `fence-watcher` writes when it is called so.
fn said(site: &Site, arguments: &[&str]) -> String {
    let output = output_of(&mut site.watcher_command(arguments));
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn status_code(site: &Site, target: &str) -> Option<i32> {
    site.agent(&format!("action=status\nplug={target}")).wait().code
}

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
    // Libraries would write what they send into a log like this.
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
    // The path is another name for the system's own, and the order goes to that.
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
fn redfish_orders_nothing_where_it_is_not_certain_who_is_there() {
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

    // What was left of the first visit came to nothing.
    assert_eq!(sushy.orders(), ["2 204"]);
    assert_eq!(status_code(&site, "node1"), Some(0));
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_says_so_when_the_service_refuses_the_order() {
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
fn redfish_sessions_are_ended_whatever_happens() {
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

    // It has place for two sessions: one that is left open each time would soon shut us out.
    site.agent("action=monitor\ndevice=bmc").wait().assert_success();
    assert_answer(&fence(&site, "bmc", "off", "node1"), "success", "ForceOff: HTTP 202");
    assert_eq!(status_code(&site, "node1"), Some(2));
    // It says no, as it is off; that it is off, it shows.
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
fn redfish_believes_what_a_bmc_shows_and_not_what_it_says() {
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
    // Both were carried out, and the answer was lost.
    off("cut", "success", "learned by asking");
    off("hang", "success", "learned by asking");
    // Before the order, all of it is certain.
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
    // A mistake in the name service, say.
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
