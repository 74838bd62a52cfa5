//! EC2 as moto simulates it, and the results of fences there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::common::{
    Ended, PATIENCE, SERVICE, Site, Watcher, built, holds_within, output_of, wait_for,
};
use crate::sim::{Simulator, free_ports};

/// EC2 with the instances `node1` to `node12` and `watcher`, and the proxy in front of it.
pub(crate) struct Aws {
    pub(crate) moto: Simulator,
    pub(crate) _microburst: Simulator,
    pub(crate) port: u16,
    /// The access key that may fence, and its secret.
    pub(crate) key: (String, String),
}

impl Aws {
    pub(crate) fn start() -> Self {
        built("fence-watcher-ec2", "fence-watcher-ec2");
        let port = free_ports(3);
        let ports = [port, port + 1, port + 2].map(|port| port.to_string());
        let moto = Simulator::start(
            "ec2",
            &[
                ("EC2_PORT", &ports[0]),
                ("EC2_TLS_PORT", &ports[1]),
                ("EC2_AUTH", "1"),
                ("EC2_STOP_SECONDS", "1"),
                ("EC2_START_SECONDS", "0.3"),
                ("DEVSIM_NODES", "12"),
            ],
        );
        let variables = [("EC2_PORT", &*ports[0]), ("MICROBURST_PORT", &ports[2])];
        let microburst = Simulator::start("microburst", &variables);
        let file = fs::read_to_string(moto.directory().join("env")).unwrap();
        let value = |name: &str| {
            let mut words = file.split_whitespace();
            words.find_map(|word| word.strip_prefix(name)).unwrap().to_owned()
        };
        let key = (value("AWS_ACCESS_KEY_ID="), value("AWS_SECRET_ACCESS_KEY="));
        Aws { moto, _microburst: microburst, port, key }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn tls_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port + 1)
    }

    pub(crate) fn microburst_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port + 2)
    }

    pub(crate) fn id_of(&self, name: &str) -> String {
        let instances = fs::read_to_string(self.moto.directory().join("instances")).unwrap();
        let mut instances = instances.lines().filter_map(|line| line.split_once(' '));
        instances.find(|(_, found)| *found == name).unwrap().0.to_owned()
    }

    /// The orders that were really carried out on the instance.
    pub(crate) fn executed(&self, name: &str) -> Vec<String> {
        let (log, id) =
            (fs::read_to_string(self.moto.directory().join("log")).unwrap(), self.id_of(name));
        let orders = log.lines().filter_map(|line| line.strip_prefix("executed "));
        let of_this = orders.filter_map(|order| order.strip_suffix(&id));
        of_this.map(|order| order.trim().to_owned()).collect()
    }

    /// How often an order to stop this instance was accepted without being carried out.
    pub(crate) fn lies_about(&self, id: &str) -> usize {
        let log = fs::read_to_string(self.moto.directory().join("log")).unwrap();
        log.lines().filter(|line| *line == format!("lied stop {id}")).count()
    }

    /// Disables the checks of the next calls, or enables them again.
    pub(crate) fn check_signatures(&self, is_checked: bool) {
        let count = if is_checked { "0" } else { "1000000" };
        let url = format!("{}/moto-api/reset-auth", self.url());
        curl(&["-H", "Content-Type: text/plain", "-d", count, &url]);
    }

    /// Sends a call to moto while signatures are not checked.
    pub(crate) fn call(&self, form: &str) {
        let scope = "Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/ec2/aws4_request, \
                     SignedHeaders=host, Signature=0";
        curl(&["-H", scope, "-d", &format!("Version=2016-11-15&{form}"), &self.url()]);
    }

    /// Makes the proxy fail all calls of this operation in this way, and no others.
    pub(crate) fn fault(&self, operation: &str, fault: &Value) {
        let rules = format!("{}/_microburst/rules", self.microburst_url());
        let mut rule = json!({ "service": "ec2", "operation": operation });
        rule.as_object_mut().unwrap().extend(fault.as_object().unwrap().clone());
        curl(&["-d", &json!([rule]).to_string(), &rules]);
    }

    /// How many calls the proxy has failed so far.
    pub(crate) fn fired(&self) -> usize {
        let fired = curl(&[&format!("{}/_microburst/fired", self.microburst_url())]);
        serde_json::from_str::<Vec<Value>>(&fired).unwrap().len()
    }

    /// The usual environment of a watcher: the key, the region, the endpoint.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        Aws::environment_of(&self.key.0, &self.key.1, self.url())
    }

    /// The same through the proxy.
    pub(crate) fn environment_with_faults(&self) -> Vec<(&'static str, String)> {
        Aws::environment_of(&self.key.0, &self.key.1, self.microburst_url())
    }

    /// The same with another key or another endpoint.
    pub(crate) fn environment_of(
        id: &str,
        secret: &str,
        url: String,
    ) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", id.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", url),
        ]
    }
}

pub(crate) fn curl(arguments: &[&str]) -> String {
    let output = output_of(Command::new("curl").args(["-sSf", "-m", "30"]).args(arguments));
    assert!(output.status.success(), "curl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A device for all nodes, with what `more` adds.
pub(crate) fn device(more: &str) -> String {
    format!("[[device]]\nname = 'aws'\ntype = 'ec2'\n{more}\n")
}

/// A site with this device whose watcher runs in this environment. The metadata service of the
/// machine under the tests is not used.
pub(crate) fn site(device: &str, environment: &[(&str, String)]) -> (Site, Watcher) {
    let site = Site::new();
    site.configure(device);
    let mut command = site.watcher_command(SERVICE);
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    let (watcher, _) = site.start_as(command);
    (site, watcher)
}

/// `fence-watcher check` of this device, in this environment.
pub(crate) fn check(device: &str, environment: &[(&str, String)]) -> Output {
    let site = Site::new();
    site.configure(device);
    let mut command = site.watcher_command(&["check", "--node", "n1"]);
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    output_of(command.envs(environment.iter().map(|(name, value)| (*name, value))))
}

/// Checks that the device can be reached in this environment. On a busy machine, not every contact
/// ends in time.
pub(crate) fn assert_reachable(device: &str, environment: &[(&str, String)]) {
    let is_reached = || check(device, environment).status.success();
    wait_for(&format!("contact: {device} {environment:?}"), is_reached);
}

/// Checks that the device cannot be reached, for a reason with these words.
pub(crate) fn assert_unreachable(device: &str, environment: &[(&str, String)], words: &str) {
    let mut shown = String::new();
    let is_shown = holds_within(PATIENCE, || {
        let output = check(device, environment);
        assert!(!output.status.success(), "{output:?}");
        shown = String::from_utf8_lossy(&output.stdout).into_owned();
        shown.contains(words)
    });
    assert!(is_shown, "no {words:?} for {device} {environment:?}: {shown}");
}

/// Checks that the agent's monitor succeeds for the device.
pub(crate) fn assert_usable(site: &Site) {
    wait_for("success of monitor", || site.agent("action=monitor").wait().code == Some(0));
}

/// Checks that the agent's monitor fails, for a reason with these words.
pub(crate) fn assert_unusable(site: &Site, device: &str, words: &str) {
    wait_for(&format!("failure of monitor with {words:?}"), || {
        let ended = site.agent(&format!("action=monitor\ndevice={device}")).wait();
        ended.assert_failure(&[]);
        ended.stderr.contains(words)
    });
}

/// Runs a fence through the agent; returns its end and the answer to its request.
pub(crate) fn fence(site: &Site, action: &str, target: &str) -> (Ended, Value) {
    let ended = site.agent(&format!("action={action}\nplug={target}")).wait();
    let answer = site.spool.await_answer(&site.last_request());
    (ended, answer)
}

/// Checks that the fence succeeds and is verified, with all of these words in its answer.
pub(crate) fn assert_fences(site: &Site, action: &str, target: &str, words: &[&str]) {
    let (ended, answer) = fence(site, action, target);
    ended.assert_success();
    let expected = (&json!("success"), &json!(0), &json!(true));
    assert_eq!((&answer["result"], &answer["result_code"], &answer["verified"]), expected);
    assert_words(&answer, words);
}

/// Checks that the fence fails with this result, with all of these words in its answer and in the
/// agent's message.
pub(crate) fn assert_fails(
    site: &Site,
    action: &str,
    target: &str,
    result: (&str, u8),
    words: &[&str],
) {
    let (ended, answer) = fence(site, action, target);
    ended.assert_failure(&[result.0]);
    assert_eq!((&answer["result"], &answer["result_code"]), (&json!(result.0), &json!(result.1)));
    assert_words(&answer, words);
}

pub(crate) fn assert_words(answer: &Value, words: &[&str]) {
    let message = answer["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
}

pub(crate) fn status(site: &Site, target: &str) -> Option<i32> {
    site.agent(&format!("action=status\nplug={target}")).wait().code
}

/// A file that only this user can read; returns its path.
pub(crate) fn private_file(site: &Site, name: &str, text: &str) -> String {
    let path = site.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path.display().to_string()
}

pub(crate) const UNREACHABLE: (&str, u8) = ("unreachable", 1);
pub(crate) const UNACKNOWLEDGED: (&str, u8) = ("unacknowledged", 2);
pub(crate) const FAILED: (&str, u8) = ("device-failure", 3);
