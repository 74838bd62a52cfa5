//! A new configuration for a running watcher.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{
    SERVICE, Site, Watcher, child_of, new_id, next_told, output_of, request, wait_for, with,
};

fn submit(site: &Site, target: &str, device: Option<&str>) -> String {
    let id = new_id();
    let device = json!({"device": device});
    site.spool.submit(&id, &with(request(&id, "off", target), device));
    id
}

fn reload(site: &Site) -> Output {
    output_of(&mut site.watcher_command(&["reload"]))
}

/// Makes the watcher read its configuration again, which it must accept.
fn reload_well(site: &Site) {
    let output = reload(site);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("was read again"), "{output:?}");
}

/// The same for a configuration that it must refuse; returns the reason.
fn reload_in_vain(site: &Site) -> String {
    let output = reload(site);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn serves(site: &Site, target: &str, device: &str) {
    let id = submit(site, target, None);
    assert_eq!(site.spool.await_result(&id, "success")["device"], device);
}

/// A watcher in which n1 runs on the device `old`, with these requests waiting: n1, n2, n2 for
/// `old`, n3.
fn busy(site: &Site) -> (Watcher, String, [String; 4]) {
    site.configure(&site.recorder("old", "n[1-3]", &site.held()));
    let watcher = site.start();
    let first = submit(site, "n1", None);
    site.await_execution(&first);
    let waiting = [("n1", None), ("n2", None), ("n2", Some("old")), ("n3", None)];
    let waiting = waiting.map(|(target, device)| submit(site, target, device));
    wait_for("all to wait", || site.state()["queued"].as_array().unwrap().len() == 4);
    (watcher, first, waiting)
}

#[test]
fn a_new_configuration_keeps_running_executions_and_routes_waiting_requests() {
    let site = Site::new();
    let (watcher, first, [same, other, named, nobodys]) = busy(&site);
    let helper = child_of(&watcher.pid().to_string());
    site.configure(&site.recorder("new", "n[1-2]", ""));

    reload_well(&site);

    assert_eq!(site.spool.await_result(&other, "success")["device"], "new");
    for (id, words) in [(&named, "\"old\""), (&nobodys, "no fence device of this node")] {
        let answer = site.spool.await_result(id, "rejected");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains("configuration changed") && message.contains(words), "{answer}");
    }
    assert_eq!(site.spool.answer(&first), None, "what runs was disturbed");
    site.release();
    assert_eq!(site.spool.await_result(&first, "success")["device"], "old");
    // Another device's execution settles nothing.
    assert_eq!(site.spool.await_result(&same, "success")["device"], "new");
    assert_eq!(site.executed().len(), 3);
    assert_eq!(child_of(&watcher.pid().to_string()), helper, "the helper process was replaced");
}

#[test]
fn a_wrong_configuration_changes_nothing_and_all_errors_are_reported() {
    let site = Site::new();
    let good = site.recorder("good", "n[1-2]", "");
    site.configure(&good);
    let watcher = site.start();
    let file = site.path("w.toml").display().to_string();
    let wrong = "[[device]]\nname = 'a'\ntype = 'simulated'\ntargets = 'n['\nstate_file = 'x'\n";
    site.configure(&(site.recorder("better", "n[1-9]", "") + wrong));

    let said = reload_in_vain(&site);

    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, number) in lines.iter().zip(["18", "19"]) {
        assert!(line.starts_with(&format!("fence-watcher: {file}:{number}: ")), "{said}");
    }
    assert!(lines[2].contains("the old one stays in force"), "{said}");
    watcher.await_log(&format!("{file}:18: "));
    watcher.await_log("the old one stays in force");
    serves(&site, "n1", "good");
    let id = submit(&site, "n9", None);
    site.spool.await_result(&id, "rejected");

    // Not TOML at all, no device for this node, and a file that others can write to.
    for (text, words) in [
        ("[spool", "w.toml:"),
        (&good.replace("targets", "nodes = 'n7'\ntargets"), "no [[device]] is for this node"),
    ] {
        fs::write(site.path("w.toml"), text).unwrap();
        // The first file does not show the spool's place; then the environment does.
        let mut command = site.watcher_command(&["reload"]);
        command.env("REQUEST_DIR", &site.spool.requests);
        command.env("RESPONSE_DIR", &site.spool.responses);
        let output = output_of(&mut command);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
    site.configure(&site.recorder("better", "n[1-9]", ""));
    fs::set_permissions(site.path("w.toml"), PermissionsExt::from_mode(0o666)).unwrap();
    assert!(reload_in_vain(&site).contains("chmod go-w"));
    serves(&site, "n1", "good");

    fs::set_permissions(site.path("w.toml"), PermissionsExt::from_mode(0o600)).unwrap();
    reload_well(&site);
    serves(&site, "n9", "better");
}

#[test]
fn the_places_of_the_spool_cannot_change_under_a_watcher() {
    let site = Site::new();
    let device = site.recorder("power", "*", "");
    site.configure(&device);
    let watcher = site.start();
    let text = site.read("w.toml").replace("/responses'", "/elsewhere'");
    fs::write(site.path("w.toml"), text).unwrap();

    watcher.signal(Signal::SIGHUP);
    watcher.await_log("response_dir cannot change while the watcher runs");
    // The file redirects the command, too.
    assert!(reload_in_vain(&site).contains("needs a restart"));

    serves(&site, "n1", "power");
    assert!(!site.path("elsewhere").exists());
}

#[test]
fn a_hangup_reads_the_configuration_again_and_informs_the_service_manager() {
    let site = Site::new();
    site.configure(&site.recorder("one", "*", ""));
    let (watcher, told) = site.start_as(site.watcher_command(SERVICE));
    site.configure(&site.recorder("other", "*", ""));

    watcher.signal(Signal::SIGHUP);

    let told = || loop {
        let state = next_told(&told);
        if state != "WATCHDOG=1" {
            return state;
        }
    };
    let reloading = told();
    let (first, second) = reloading.split_once('\n').unwrap();
    assert_eq!(first, "RELOADING=1");
    let usec = second.strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(usec.parse::<u64>().unwrap() > 0, "{reloading}");
    assert_eq!(told(), "READY=1");
    serves(&site, "n1", "other");

    site.configure("");
    watcher.signal(Signal::SIGHUP);

    assert!(told().starts_with("RELOADING=1"));
    assert_eq!(told(), "READY=1");
    watcher.await_log("the old one stays in force");
    serves(&site, "n1", "other");
    watcher.stop();
}

#[test]
fn a_configuration_that_was_named_by_a_relative_path_is_found_again() {
    let site = Site::new();
    site.configure(&site.recorder("one", "*", ""));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fence-watcher"));
    command.args(["--config", "w.toml"]).args(SERVICE).current_dir(site.path(""));
    let (_watcher, _told) = site.start_as(command);
    site.configure(&site.recorder("other", "*", ""));

    reload_well(&site);

    serves(&site, "n1", "other");
}

#[test]
fn without_a_watcher_a_reload_fails_and_says_so() {
    let site = Site::new();
    site.configure(&site.recorder("one", "*", ""));
    let watcher = site.start();
    watcher.stop();

    assert!(reload_in_vain(&site).contains("no fence-watcher is running"));
}
