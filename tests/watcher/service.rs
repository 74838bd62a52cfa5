//! The configuration, and what the service reports about itself.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{
    SERVICE, Site, holds_within, names, new_id, next_message, next_told, output_of, request,
    wait_for,
};

fn submit(site: &Site, action: &str, target: &str) -> String {
    let id = new_id();
    site.spool.submit(&id, &request(&id, action, target));
    id
}

/// Starts a service that must refuse its configuration, and returns its message.
fn refused(site: &Site) -> Vec<String> {
    let output = output_of(&mut site.watcher_command(SERVICE));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!site.spool.requests.exists(), "something was begun");
    let stderr = String::from_utf8(output.stderr).unwrap();
    stderr.lines().map(str::to_owned).collect()
}

#[test]
fn each_fault_of_a_configuration_is_reported_with_its_line() {
    let site = Site::new();
    let device = |more: &str| {
        let directory = site.path("");
        format!(
            "[[device]]\nname = 'd'\ntype = 'simulated'\nstate_file = '{}state'\n{more}",
            directory.display()
        )
    };
    let good = device("targets = 'n1'\n");
    let command = "[[device]]\nname = 'c'\ntype = 'command'\ntargets = 'n1'\n";
    // The tables follow seven lines that the site adds.
    for (what, text, line, words) in [
        ("an unknown key", device("targets = 'n1'\ndelya = '1s'\n"), 13, "unknown key 'delya'"),
        ("an unknown table", format!("[servise]\n{good}"), 8, "unknown key 'servise'"),
        ("a number for a text", device("targets = 7\n"), 12, "'targets': expected node names"),
        ("no unit", device("targets = 'n1'\ndelay = 1\n"), 13, "write a unit"),
        (
            "a text for a number",
            device("targets = 'n1'\nmax_concurrent = '2'\n"),
            13,
            "whole number",
        ),
        ("out of bounds", device("targets = 'n1'\nmax_concurrent = 0\n"), 13, "must be 1 to"),
        ("two of one name", format!("{good}{good}"), 14, "a second device 'd'; the first: line 9"),
        ("a bad hostlist", device("targets = 'n[1-'\n"), 12, "bad hostlist"),
        ("a huge hostlist", device("targets = 'n[1-99999999]'\n"), 12, "bad hostlist"),
        ("no targets", device(""), 8, "'targets' is missing"),
        ("an unknown type", good.replace("simulated", "psychic"), 10, "none of"),
        ("no program", format!("{command}off = ['/nowhere/x']\n"), 12, "no program '/nowhere/x'"),
        ("no absolute path", format!("{command}off = ['reboot']\n"), 12, "not an absolute path"),
        ("a shell line", format!("{command}off = 'x {{target}}'\n"), 12, "expected a list"),
        ("an empty list", format!("{command}off = []\n"), 12, "must start with a program"),
        (
            "an unknown placeholder",
            format!("{command}off = ['/bin/true', '{{taget}}']\n"),
            12,
            "'{taget}'",
        ),
        ("no way to fence", format!("{command}on = ['/bin/true']\n"), 8, "neither 'off' nor"),
        ("no TOML", "[[device]\n".to_owned(), 8, ""),
        ("no device", String::new(), 1, "no [[device]]"),
    ] {
        site.configure(&text);
        let said = refused(&site);
        let place = format!("fence-watcher: {}:{line}: ", site.path("w.toml").display());
        assert!(
            said.iter().any(|said| said.starts_with(&place) && said.contains(words)),
            "{what}: {said:#?}"
        );
    }
}

#[test]
fn all_faults_of_a_configuration_are_reported_in_one_pass_before_anything_starts() {
    let site = Site::new();
    site.configure(
        "lvel = 'info'\n[service]\nrescan = 30\n\
         [[device]]\nname = 'a'\ntype = 'command'\ntargets = 'n['\noff = ['/nowhere/x']\n\
         [[device]]\nname = 'a'\ntype = 'simulated'\ntargets = '*'\n",
    );

    let said = refused(&site);

    let lines: Vec<&str> = said.iter().map(|line| line.split(':').nth(2).unwrap()).collect();
    assert_eq!(lines, ["8", "10", "14", "15", "16", "17"], "{said:#?}");
    assert_eq!(names(&site.path("")), ["w.toml"]);
}

#[test]
fn without_a_configuration_file_the_environment_alone_starts_nothing() {
    let site = Site::new();
    let mut command = site.watcher_command(SERVICE);
    command.env("REQUEST_DIR", &site.spool.requests).env("RESPONSE_DIR", &site.spool.responses);

    let output = output_of(&mut command);

    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no configuration file"));
    assert_eq!(names(&site.path("")), [""; 0]);
}

#[test]
fn a_configuration_that_others_can_write_to_is_refused() {
    let site = Site::new();
    site.configure(&site.simulated("demo", ""));
    fs::set_permissions(site.path("w.toml"), PermissionsExt::from_mode(0o666)).unwrap();

    let said = refused(&site).join("\n");

    assert!(said.contains("chmod go-w") && said.contains("w.toml"), "{said}");
}

#[test]
fn a_watcher_without_a_device_for_its_node_does_not_start() {
    let site = Site::new();
    site.configure(&site.simulated("demo", "nodes = 'n2'"));

    let output = output_of(&mut site.watcher_command(SERVICE));

    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("'n1'"));
    assert!(!site.spool.requests.exists(), "something was started");
}

#[test]
fn the_environment_can_move_the_spool() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let other = crate::common::Spool::at(&site.path("other"));
    let mut command = site.watcher_command(SERVICE);
    command.env("REQUEST_DIR", &other.requests).env("RESPONSE_DIR", &other.responses);
    let (_watcher, _told) = site.start_as(command);
    let id = new_id();

    other.submit(&id, &request(&id, "off", "n1"));

    other.await_result(&id, "success");
    assert!(!site.spool.requests.exists());
}

#[test]
fn the_service_manager_shows_what_the_service_does() {
    let site = Site::new();
    site.configure(&site.simulated("demo", "delay = '100ms'"));
    let (watcher, told) = site.start_as(site.watcher_command(SERVICE));
    let await_status = |status: &str| while next_message(&told) != format!("STATUS={status}") {};

    await_status("ready; 1 device");
    let agent = site.agent("action=off\nplug=n3");
    await_status("ready; 1 device; fencing n3 with demo for 0 s");
    await_status("ready; 1 device");

    agent.wait().assert_success();
    watcher.stop();
}

#[test]
fn the_service_manager_learns_that_the_service_is_ready_lives_and_stops() {
    let site = Site::new();
    site.configure(&site.simulated("demo", ""));
    let mut command = site.watcher_command(SERVICE);
    command.env("WATCHDOG_USEC", "200000");
    // It has already waited for READY=1.
    let (mut watcher, told) = site.start_as(command);

    for _ in 0..3 {
        assert_eq!(next_told(&told), "WATCHDOG=1");
    }
    watcher.signal(Signal::SIGTERM);

    while next_told(&told) != "STOPPING=1" {}
    assert_eq!(watcher.wait().code(), Some(0));
}

#[test]
fn a_service_manager_that_does_not_read_delays_nothing() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let mut command = site.watcher_command(SERVICE);
    command.env("WATCHDOG_USEC", "100000");
    let (watcher, told) = site.start_as(command);
    let address = told.local_addr().unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    let fill = || sender.send_to(b"X=1", address.as_pathname().unwrap());
    wait_for("the socket to be full", || {
        fill().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    // A look at the spool sends something to the manager first. A watcher that waited for the
    // manager would not reach the third look.
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", watcher.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap();
        line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()
    };
    let before = switches();
    holds_within(Duration::from_secs(2), || switches() >= before + 3);

    let id = submit(&site, "off", "n1");

    site.spool.await_result(&id, "success");
}

#[test]
fn the_status_shows_running_and_waiting_requests_and_the_last_results() {
    let site = Site::new();
    let slow = site.recorder("slow", "s[1-9]", &site.held());
    let quick = site.recorder("quick", "q[1-9]", "echo done; [ $FENCE_TARGET = q1 ]");
    site.configure(&(slow + &quick));
    let _watcher = site.start();
    let good = submit(&site, "off", "q1");
    site.spool.await_result(&good, "success");
    let bad = submit(&site, "off", "q2");
    site.spool.await_result(&bad, "unacknowledged");
    let running = submit(&site, "reboot", "s1");
    site.await_execution(&running);
    let queued = submit(&site, "on", "s2");

    let mut state = Value::Null;
    wait_for("it to be queued", || {
        state = site.state();
        !state["queued"].as_array().unwrap().is_empty()
    });

    for (list, id, target, action) in
        [("running", &running, "s1", "reboot"), ("queued", &queued, "s2", "on")]
    {
        let jobs = state[list].as_array().unwrap();
        assert_eq!(jobs.len(), 1, "{state}");
        assert_eq!(jobs[0]["request_id"], json!(id));
        assert_eq!((&jobs[0]["target"], &jobs[0]["action"]), (&json!(target), &json!(action)));
        assert_eq!(jobs[0]["device"], "slow");
    }
    assert!(state["queued"][0]["deadline_in_ms"].as_u64().unwrap() <= 300_000);
    let devices = state["devices"].as_array().unwrap();
    assert_eq!((&devices[0]["running"], &devices[0]["queued"]), (&json!(1), &json!(1)));
    assert_eq!(devices[0]["last"], Value::Null);
    assert_eq!(devices[1]["last"]["request_id"], json!(bad));
    assert_eq!(devices[1]["last"]["result"], "unacknowledged");
    assert_eq!(state["counts"], json!({"success": 1, "unacknowledged": 1}));
    site.release();
    site.spool.await_result(&queued, "success");
}

#[test]
fn every_line_about_a_request_names_it() {
    let site = Site::new();
    site.configure(&site.recorder("power", "n1", ""));
    let (watcher, _told) = site.start_as(site.watcher_command(SERVICE));
    let (done, refused) = (submit(&site, "off", "n1"), submit(&site, "off", "n2"));
    site.spool.await_result(&done, "success");
    site.spool.await_result(&refused, "rejected");
    watcher.await_log(&format!("answered: request={done} "));
    watcher.await_log(&format!("answered: request={refused} "));

    let log = watcher.log();
    watcher.stop();

    let about: Vec<&str> = log.lines().filter(|line| !line.contains("ready: ")).collect();
    assert!(about.iter().all(|line| line.contains(&done) || line.contains(&refused)), "{log}");
    assert!(log.contains(&format!("begun: request={done} ")), "{log}");
    assert!(!log.contains(&format!("begun: request={refused} ")), "{log}");
}

#[test]
fn a_simulated_device_is_named_in_every_answer_and_in_the_log() {
    let site = Site::new();
    site.configure(&site.simulated("demo", "timeout = '1s'"));
    let watcher = site.start();
    for behaviour in ["none", "unreachable", "unacknowledged", "device-failure", "lie", "hang"] {
        fs::write(site.path("state.behave"), behaviour).unwrap();
        let id = submit(&site, "off", "n1");

        let answer = site.spool.await_answer(&id);

        assert!(answer["message"].as_str().unwrap().contains("simulated:"), "{answer}");
        assert_eq!(answer["success"], behaviour == "none", "{behaviour}: {answer}");
        watcher.await_log(&format!("answered: request={id} "));
        let log = watcher.log();
        let line = log.lines().find(|line| line.contains("answered") && line.contains(&id));
        assert!(line.unwrap().contains("simulated"), "{log}");
        // So that the next watcher finds it on.
        let _ = fs::remove_file(site.path("state"));
    }
}

#[test]
fn names_of_one_node_are_reported_by_the_service_and_by_check_but_not_as_faults() {
    let site = Site::new();
    let one = site.recorder("one", "n3,n4,N3", "");
    site.configure(&(one + &site.recorder("two", "n3.example.com,10.0.0.1,10.0.0.2", "")));

    let watcher = site.start();
    let checked = output_of(&mut site.watcher_command(&["check", "--node", "n1"]));

    let words = "the targets 'N3' and 'n3' and 'n3.example.com' differ by letter case or domain";
    assert!(
        watcher.log().contains(&format!("warning: configuration: {words}")),
        "{}",
        watcher.log()
    );
    assert_eq!(watcher.log().matches("differ by").count(), 1, "{}", watcher.log());
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(said.contains(&format!("note: {words}")), "{said}");
    assert!(checked.status.success(), "{said}");
}
