//! A watcher with one of ClusterLabs' agents as its device.

use std::fs::{self};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Once;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{
    Ended, PATIENCE, Site, Watcher, child_of, holds_within, names, new_id, our_request, output_of,
    wait_for,
};
use crate::sim::{Simulator, free_ports};

/// The login of every simulator that needs one.
pub(super) const PASSWORD: &str = "s3cret";

/// A site with one device of this type, named `d`, and its running watcher.
pub(super) struct Rig {
    pub(super) site: Site,
    pub(super) watcher: Watcher,
}

impl Rig {
    /// `keys` follow after the device's name and type.
    pub(super) fn new(keys: &str) -> Self {
        Self::with_password(keys, PASSWORD)
    }

    /// `PASSWORD_FILE` in `keys` is replaced by the path of the file with the password.
    pub(super) fn with_password(keys: &str, password: &str) -> Self {
        install_agents();
        let site = Site::new();
        let file = site.path("password");
        fs::write(&file, password).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let keys = keys.replace("PASSWORD_FILE", file.to_str().unwrap());
        // No level of the log may contain a secret.
        site.configure(&format!(
            "level = 'trace'\n[[device]]\nname = 'd'\ntype = 'fence-agent'\n{keys}"
        ));
        let watcher = site.start();
        Rig { site, watcher }
    }

    pub(super) fn ask(&self, options: &str) -> Ended {
        self.site.agent(options).wait()
    }

    /// How the agent's `status` ends: 0 for on, 2 for off.
    pub(super) fn status(&self, target: &str) -> Option<i32> {
        self.ask(&format!("action=status\nplug={target}")).code
    }

    pub(super) fn succeeds(&self, action: &str, target: &str) {
        self.ask(&format!("action={action}\nplug={target}")).assert_success();
    }

    /// Runs a request and returns the answer, which must have this result.
    pub(super) fn answer(&self, action: &str, target: &str, result: &str) -> Value {
        let id = new_id();
        let _client = self.site.spool.submit_held(&id, &our_request(&id, action, target));
        self.site.spool.await_result(&id, result)
    }

    /// Switches a target off, asks for its state, switches it on and resets it, with the device's
    /// own verification.
    pub(super) fn whole_life(&self, target: &str) {
        assert_eq!(self.status(target), Some(0));
        self.succeeds("off", target);
        assert_eq!(self.status(target), Some(2));
        self.succeeds("on", target);
        assert_eq!(self.status(target), Some(0));
        let answer = self.answer("reboot", target, "success");
        assert_eq!(
            (&answer["verified"], &answer["action_performed"]),
            (&json!(true), &json!("off"))
        );
        let id = answer["request_id"].as_str().unwrap();
        let (result, details) = self.site.await_on_result(id);
        assert_eq!(result, "on", "{details}");
        assert_eq!(self.status(target), Some(0));
        self.await_contact();
    }

    /// Waits for a successful monitor: an agent can start slowly.
    pub(super) fn await_contact(&self) {
        wait_for("a contact", || self.ask("action=monitor").code == Some(0));
    }

    /// Waits for a check without problems.
    pub(super) fn await_sound(&self) {
        let mut text = String::new();
        let is_sound = holds_within(PATIENCE, || {
            let (code, said) = self.check();
            text = said;
            code == Some(0)
        });
        assert!(is_sound, "{text}");
    }

    pub(super) fn check(&self) -> (Option<i32>, String) {
        let output = output_of(&mut self.site.watcher_command(&["check", "--node", "n1"]));
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// The processes of the executor's session, in which all its programs run, with their command
    /// lines.
    pub(super) fn commands(&self) -> Vec<(String, String)> {
        let executor = child_of(&self.watcher.pid().to_string());
        let session = |pid: &str| -> Option<String> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(") ")?.1.split(' ').nth(3).map(str::to_owned)
        };
        let processes = names(Path::new("/proc")).into_iter();
        let ours = processes.filter(|pid| session(pid).is_some_and(|session| session == executor));
        ours.filter_map(|pid| Some((fs::read(format!("/proc/{pid}/cmdline")).ok()?, pid)))
            .map(|(bytes, pid)| (pid, String::from_utf8_lossy(&bytes).into_owned()))
            .collect()
    }

    /// Waits until the agent runs, and returns its process number.
    pub(super) fn await_agent(&self, name: &str) -> String {
        let mut found = None;
        wait_for("the agent", || {
            found = self.commands().into_iter().find(|(_, command)| command.contains(name));
            found.is_some()
        });
        found.unwrap().0
    }

    /// Everything that people can read: logs, answers, and the output of the commands.
    pub(super) fn all_texts(&self) -> String {
        let status = output_of(&mut self.site.watcher_command(&["status", "--json"]));
        let mut text =
            self.watcher.log() + &self.check().1 + &String::from_utf8_lossy(&status.stdout);
        for directory in [&self.site.spool.responses, &self.site.path("log")] {
            let files = names(directory).into_iter().map(|name| directory.join(name));
            for file in files.filter(|path| path.is_file()) {
                text += &fs::read_to_string(file).unwrap();
            }
        }
        text
    }
}

/// Installs the agents, once.
pub(crate) fn install_agents() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(Simulator::start("fence-agents", &[])));
}

pub(super) fn signal(pid_file: &Path, signal: Signal) {
    let text = fs::read_to_string(pid_file).unwrap();
    let pid = text.split_whitespace().next().unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

// fence_virt

pub(super) fn virt() -> (Simulator, u16) {
    let port = free_ports(1);
    (Simulator::start("fence-virt", &[("FENCE_VIRT_PORT", &port.to_string())]), port)
}

/// A device whose only machine is the target `n1`, and which does not know the target `ghost`.
pub(super) fn virt_device(port: u16, key: &Path) -> String {
    format!(
        "agent = 'fence_virt'\ntargets = {{ n1 = 'test', ghost = 'nosuch' }}\ntimeout = '2s'\n\
         options = {{ ipaddr = '127.0.0.1', ipport = {port}, key_file = '{}' }}\n",
        key.display()
    )
}
