//! What the watcher's log contains at each level, and that it contains no password.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::common::{Site, new_id, request};

const PASSWORD: &str = "s3cret-of-the-pdu";

/// The log of a watcher at `level` that was stopped after an off and a reboot. An agent and
/// ipmitool carried them out, and print everything that they received.
fn log_at(level: &str) -> String {
    let site = Site::new();
    let password = site.path("password");
    fs::write(&password, PASSWORD).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let password = password.display();
    let agent = site.program(
        "agent",
        "input=$(cat); echo \"$input\" >&2\n\
         case $input in *action=status*) echo 'Status: OFF'; exit 2;; *) echo \"did: $input\";; esac",
    );
    let ipmitool = site.program("ipmitool", "env >&2; echo \"no: $IPMI_PASSWORD\"; exit 1");
    site.configure(&format!(
        "level = '{level}'\n\
         [[device]]\nname = 'a'\ntype = 'fence-agent'\ntargets = 'n1'\nagent = '{agent}'\n\
         plug_option = 'plug'\nactions = ['off', 'on', 'status']\npassword_file = '{password}'\n\
         [[device]]\nname = 'i'\ntype = 'ipmi'\ntargets = 'n2'\naddress = '127.0.0.1'\n\
         username = 'fence'\npassword_file = '{password}'\nipmitool = '{ipmitool}'\n"
    ));
    let mut watcher = site.start();
    for (target, action) in [("n1", "off"), ("n2", "reboot")] {
        let id = new_id();
        site.spool.submit(&id, &request(&id, action, target));
        site.spool.await_answer(&id);
    }
    // The result of the search does not matter here.
    site.agent("action=monitor").wait();
    watcher.signal(Signal::SIGTERM);
    watcher.wait();
    let log = watcher.log();
    assert!(!log.contains(PASSWORD), "{log}");
    log
}

#[test]
fn each_level_shows_more_of_what_is_done_and_never_a_password() {
    let info = log_at("info");
    assert!(info.contains("answered: request="), "{info}");
    for part in ["step: ", "program ", "spool: ", "core: "] {
        assert!(!info.contains(part), "{part}: {info}");
    }

    let debug = log_at("debug");
    for part in [
        "debug: step: request=",
        "target=n1 device=a order off within ",
        "ask for the power within ",
        "look whether the client still waits",
        "target=n1 device=a the order was acknowledged: ",
        "target=n1 device=a the device shows off: ",
        "target=n2 device=i the order failed, nothing was done: ",
        "/agent (an order, at most ",
        "ipmitool -I lanplus -H 127.0.0.1 ",
        " it exited with 1 after ",
        "debug: spool: claimed request ",
        "debug: spool: wrote the answer to request ",
        "debug: spool: remove the claimed request ",
    ] {
        assert!(debug.contains(part), "{part}: {debug}");
    }
    assert!(!debug.contains("trace: "), "{debug}");
    let is_about = |line: &&str, kind: &str| line.contains(&format!(": {kind}="));
    let programs: Vec<&str> = debug.lines().filter(|line| line.contains("program ")).collect();
    assert!(programs.iter().any(|line| is_about(line, "request")), "{programs:?}");
    assert!(programs.iter().any(|line| is_about(line, "query")), "{programs:?}");
    for line in &programs {
        assert!(is_about(line, "request") || is_about(line, "query"), "{line}");
    }

    let trace = log_at("trace");
    for part in [
        "trace: spool: looked at request ",
        "trace: core: event: saw request ",
        "trace: core: effect: claim request ",
        "debug: step: request=",
    ] {
        assert!(trace.contains(part), "{part}: {trace}");
    }
    let decided = trace.lines().filter(|line| line.contains("step: ") || line.contains("core: "));
    for line in decided {
        for debug in ["(\"", "RecordName", "Some(", "None", " { "] {
            assert!(!line.contains(debug), "{debug}: {line}");
        }
    }
}
