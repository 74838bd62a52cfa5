//! A watcher with a Redfish service as its device.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::{Site, names, output_of};
use crate::sim::{Simulator, free_ports};

pub(crate) const PASSWORD: &str = "s3cret";

/// sushy-emulator.
pub(crate) struct Sushy {
    pub(crate) simulator: Simulator,
    pub(crate) address: String,
}

impl Sushy {
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let port = free_ports(1).to_string();
        let variables = [&[("REDFISH_PORT", port.as_str())], variables].concat();
        let simulator = Simulator::start("redfish", &variables);
        Sushy { simulator, address: format!("https://127.0.0.1:{port}") }
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.simulator.directory().join("ca.pem")
    }

    /// The orders that it received: the system's number and the answer's status.
    pub(crate) fn orders(&self) -> Vec<String> {
        let log = fs::read_to_string(self.simulator.directory().join("log")).unwrap();
        // 127.0.0.1 - - [TIME] "POST PATH HTTP/1.1" STATUS -, with colours.
        let order = |line: &str| {
            let (_, order) = line.split_once("POST ")?;
            let number = order.split_once(' ')?.0.split('/').nth(4)?.rsplit('-').next()?;
            Some(format!("{} {}", number.trim_start_matches('0'), order.rsplit(' ').nth(1)?))
        };
        log.lines().filter_map(order).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(&self.simulator.directory(), signal);
    }
}

/// Our own BMCs, with one system each.
pub(crate) struct Bmcs {
    pub(crate) simulator: Simulator,
    pub(crate) port: u16,
}

impl Bmcs {
    pub(crate) fn start(count: u16) -> Self {
        let port = free_ports(count);
        let (first, nodes) = (port.to_string(), count.to_string());
        let variables = [("REDFISH_PORT", first.as_str()), ("DEVSIM_NODES", &nodes)];
        Bmcs { simulator: Simulator::start("redfish-bmc", &variables), port }
    }

    pub(crate) fn directory(&self, number: u16) -> PathBuf {
        self.simulator.directory().join(format!("node{number}"))
    }

    pub(crate) fn address(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.port + number - 1)
    }

    /// In the form that `openssl` prints.
    pub(crate) fn fingerprint(&self, number: u16) -> String {
        fingerprint(&self.directory(number).join("cert.pem"))
    }

    pub(crate) fn behave(&self, number: u16, words: &str) {
        fs::write(self.directory(number).join("behave"), words).unwrap();
    }

    /// The orders that it received.
    pub(crate) fn orders(&self, number: u16) -> Vec<String> {
        let calls = fs::read_to_string(self.directory(number).join("calls")).unwrap_or_default();
        let orders = calls.lines().filter(|line| line.starts_with("POST "));
        orders.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    }

    /// The number of open sessions; `None` if there never was one.
    pub(crate) fn sessions(&self, number: u16) -> Option<String> {
        let text = fs::read_to_string(self.directory(number).join("sessions")).ok()?;
        Some(text.trim().to_owned())
    }
}

pub(crate) fn signal_to(directory: &Path, signal: Signal) {
    let text = fs::read_to_string(directory.join("pid")).unwrap();
    let pid = text.split(' ').next().unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

pub(crate) fn fingerprint(certificate: &Path) -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(certificate);
    let shown = String::from_utf8(output_of(&mut openssl).stdout).unwrap();
    shown.trim().split_once('=').unwrap().1.to_owned()
}

/// A site with the right password, and a wrong one, in files.
pub(crate) fn site() -> Site {
    let site = Site::new();
    secret_file(&site, "password", PASSWORD);
    secret_file(&site, "wrong-password", "s3crets");
    site
}

pub(crate) fn secret_file(site: &Site, name: &str, text: &str) {
    let mut options = fs::OpenOptions::new();
    let file = options.create_new(true).write(true).mode(0o600).open(site.path(name));
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
}

/// A device with a valid login and the keys in `more`.
pub(crate) fn device(site: &Site, name: &str, more: &str) -> String {
    let mut password = String::new();
    if !more.contains("password_file") {
        password = format!("password_file = '{}'\n", site.path("password").display());
    }
    format!("[[device]]\nname = '{name}'\ntype = 'redfish'\nusername = 'admin'\n{password}{more}\n")
}

/// Runs `action` for `target` through the agent with the device `name`; also returns the answer.
pub(crate) fn fence(site: &Site, name: &str, action: &str, target: &str) -> Value {
    let ended = site.agent(&format!("action={action}\nplug={target}\ndevice={name}")).wait();
    let id = site.last_request();
    let is_own = |event: &Value| event["request_id"] == id && event["on_result"].is_null();
    let event = site.audit().into_iter().rfind(is_own).unwrap();
    assert_eq!(event["status"] == "completed", ended.code == Some(0), "{ended:?} {event}");
    site.spool.answer(&id).unwrap()
}

pub(crate) fn assert_answer(answer: &Value, result: &str, words: &str) {
    assert_eq!(answer["result"], result, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains(words), "no {words:?}: {answer}");
}

/// Checks that the password is only in its own file of the site, and in no command line.
pub(crate) fn assert_secret_is_kept(site: &Site, more: &[String]) {
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
        // The simulator itself receives the password on its command line.
        if text.contains("fence") && !text.contains("redfish-bmc") {
            assert_clean(&text, &text);
        }
    }
    for text in more {
        assert_clean("output", text);
    }
}

/// The output of `fence-watcher` with these arguments.
pub(crate) fn said(site: &Site, arguments: &[&str]) -> String {
    let output = output_of(&mut site.watcher_command(arguments));
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub(crate) fn status_code(site: &Site, target: &str) -> Option<i32> {
    site.agent(&format!("action=status\nplug={target}")).wait().code
}
