//! A person who types a reboot: the agent on a terminal.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use crate::common::{Site, Watcher, agent_program, left_out, wait_for};

/// An agent on its own terminal.
struct Typed<'a> {
    site: &'a Site,
    child: Child,
}

impl<'a> Typed<'a> {
    /// Types a reboot of n3. `script` creates the terminal, and writes what it shows.
    fn reboot(site: &'a Site) -> Self {
        let [requests, responses, log, shown] =
            ["requests", "responses", "log", "shown"].map(|name| site.path(name));
        let command = format!(
            "exec {} -o reboot -n n3 --request-dir {} --response-dir {} --log-dir {}",
            agent_program().display(),
            requests.display(),
            responses.display(),
            log.display()
        );
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &command]).arg(shown);
        script.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SHELL", "/bin/sh");
        script.env("GFS2_DISCOVERY_ROOT", site.path("root"));
        let script = script.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Typed { site, child: script.spawn().unwrap() }
    }

    fn await_shown(&self, text: &str) {
        wait_for(&format!("{text:?} on the terminal"), || self.site.read("shown").contains(text));
    }

    fn press_ctrl_c(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    }

    /// The exit code of the agent.
    fn wait(mut self) -> Option<i32> {
        wait_for("the agent's end", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

/// A device that cannot be asked: `off` counts at once, and `on` waits until it is released.
fn slow_to_come_back() -> (Site, Watcher) {
    let site = Site::new();
    let script = format!("[ \"$FENCE_ACTION\" != on ] || {{ {}; }}", site.held());
    site.configure(&(site.recorder("power", "*", &script) + "method = 'onoff'\n"));
    let watcher = site.start();
    (site, watcher)
}

/// Whether a terminal can be created; reports it if not. In CI it must be possible.
fn has_script(test: &str) -> bool {
    let version = Command::new("script").arg("--version").stdout(Stdio::null()).status();
    let is_there = version.is_ok_and(|status| status.success());
    if !is_there {
        left_out(test, "the program `script` is missing");
    }
    is_there
}

#[test]
fn a_person_who_types_a_reboot_sees_the_target_off_and_then_on() {
    if !has_script("a_person_who_types_a_reboot_sees_the_target_off_and_then_on") {
        return;
    }
    let (site, _watcher) = slow_to_come_back();
    let mut agent = Typed::reboot(&site);
    agent.await_shown("'n3' is off; its power-on follows");
    agent.await_shown("waiting for the power-on of 'n3'");
    assert!(agent.child.try_wait().unwrap().is_none(), "{}", site.read("shown"));

    site.release();

    agent.await_shown("'n3' is on");
    assert_eq!(agent.wait(), Some(0));
    assert!(site.read("shown").contains("Success: Rebooted"), "{}", site.read("shown"));
}

#[test]
fn a_person_who_does_not_wait_ends_the_agent_and_not_the_power_on() {
    if !has_script("a_person_who_does_not_wait_ends_the_agent_and_not_the_power_on") {
        return;
    }
    let (site, _watcher) = slow_to_come_back();
    let mut agent = Typed::reboot(&site);
    agent.await_shown("waiting for the power-on of 'n3'");

    agent.press_ctrl_c();

    assert_eq!(agent.wait(), Some(0), "the exit code is that of the fence");
    let shown = site.read("shown");
    assert!(shown.contains("Success: Powered OFF, the power-on follows"), "{shown}");
    site.release();
    site.assert_on_result(&site.last_request(), "on");
}
