//! Time namespaces, and different boots: a client with another clock is refused with the reason,
//! and no deadline is misread.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{
    SERVICE, Site, agent_program, boot_id, boot_ms, can_be_run_as_root, instant, names, new_id,
    our_request, output_of, wait_for, with,
};

/// `command` in a time namespace whose `CLOCK_BOOTTIME` is this many seconds ahead.
fn shifted(seconds: &str, command: &Command) -> Command {
    let mut shifted = Command::new("unshare");
    shifted.args(["--time", "--boottime", seconds, "--fork", "--kill-child", "--"]);
    shifted.arg(command.get_program()).args(command.get_args());
    shifted
}

/// `command` on a system that shows another boot, as in a container that hides the host's boot.
fn in_another_boot(site: &Site, command: &Command) -> Command {
    fs::write(site.path("boot_id"), "00000000-0000-4000-8000-000000000000\n").unwrap();
    let mut other = Command::new("unshare");
    other.args(["--mount", "sh", "-c"]);
    other.arg("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"");
    other.arg(site.path("boot_id")).arg(command.get_program()).args(command.get_args());
    other
}

#[test]
fn a_service_whose_clock_is_shifted_starts_nothing_and_reports_the_remedy() {
    if !can_be_run_as_root("a_service_whose_clock_is_shifted") {
        return;
    }
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    for (seconds, arguments) in [("-60", SERVICE), ("86400", SERVICE), ("-60", &["check"][..])] {
        let output = output_of(&mut shifted(seconds, &site.watcher_command(arguments)));

        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("a time namespace sets CLOCK_BOOTTIME"), "{said}");
        assert!(!site.spool.requests.exists(), "something was begun");
    }
    let checked = shifted("-60", &site.watcher_command(&["check", "--offline"]));
    assert!(output_of(&mut { checked }).status.success(), "a file for another machine");
}

#[test]
fn in_a_time_namespace_that_shifts_nothing_all_works() {
    if !can_be_run_as_root("in_a_time_namespace_that_shifts_nothing_all_works") {
        return;
    }
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let (_watcher, _told) = site.start_as(shifted("0", &site.watcher_command(SERVICE)));

    for options in ["action=monitor", "action=off\nplug=n3"] {
        site.agent(options).wait().assert_success();
        let agent = Command::new(agent_program());
        site.agent_as(shifted("0", &agent), options).wait().assert_success();
    }
}

#[test]
fn an_agent_whose_clock_is_shifted_asks_for_nothing() {
    if !can_be_run_as_root("an_agent_whose_clock_is_shifted_asks_for_nothing") {
        return;
    }
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    let agent = |options| {
        let command = shifted("-60", &Command::new(agent_program()));
        site.agent_as(command, options).wait()
    };

    for options in ["action=monitor", "action=list", "action=status\nplug=n3"] {
        agent(options).assert_failure(&["a time namespace sets CLOCK_BOOTTIME"]);
    }
    let words = ["off of 'n3' failed: nothing was requested: a time namespace", "run it outside"];
    agent("action=off\nplug=n3").assert_failure(&words);
    assert_eq!(site.executed(), [""; 0]);
    assert_eq!(site.audit().last().unwrap()["result"], "rejected");
}

#[test]
fn a_client_of_another_boot_gets_this_reason_from_monitor_and_each_fence() {
    if !can_be_run_as_root("a_client_of_another_boot_gets_this_reason") {
        return;
    }
    let words = ["the client and fence-watcher have different boots", "one kernel"];
    let check = |site: &Site, agent: &dyn Fn() -> Command| {
        for options in ["action=monitor", "action=off\nplug=n3", "action=status\nplug=n3"] {
            site.agent_as(agent(), options).wait().assert_failure(&words);
        }
        assert_eq!(site.executed(), [""; 0]);
    };
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let watcher = site.start();
    check(&site, &|| in_another_boot(&site, &Command::new(agent_program())));
    watcher.stop();

    let (_watcher, _told) = site.start_as(in_another_boot(&site, &site.watcher_command(SERVICE)));
    check(&site, &|| Command::new(agent_program()));
    let status = output_of(&mut site.watcher_command(&["status"]));
    let said = String::from_utf8(status.stderr).unwrap();
    assert!(!status.status.success() && said.contains(words[0]), "{said}");
}

#[test]
fn a_request_that_lay_there_before_the_boot_is_not_taken_for_one_of_another_kernel() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    let other = json!({ "boot_id": "00000000-0000-4000-8000-000000000000", "held": false });
    for (seconds, words) in [(0, "have different boots"), (1_000_000_000, "an earlier boot")] {
        let id = new_id();
        let text = with(our_request(&id, "off", "n3"), other.clone()).to_string();
        let temporary = site.spool.requests.join(".new");
        fs::write(&temporary, text).unwrap();
        let written = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(&temporary).unwrap().set_modified(written).unwrap();
        fs::rename(&temporary, site.spool.request(&id)).unwrap();

        let answer = site.spool.await_result(&id, "expired");
        assert!(answer["message"].as_str().unwrap().contains(words), "{answer}");
    }
    assert_eq!(site.executed(), [""; 0]);
}

#[test]
fn a_question_by_another_clock_is_refused_with_the_reason() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    let queries = site.path("queries");
    let ask = |members: Value| -> Value {
        let id = new_id();
        let query = with(json!({ "query_id": id, "query": "reachable" }), members);
        fs::write(queries.join(".new"), query.to_string()).unwrap();
        fs::rename(queries.join(".new"), queries.join(format!("{id}.json"))).unwrap();
        let answer = queries.join(format!("{id}.answer"));
        wait_for("the answer", || answer.exists());
        wait_for("its end", || !names(&queries).contains(&format!("{id}.json")));
        serde_json::from_slice(&fs::read(answer).unwrap()).unwrap()
    };
    let (now, later) = (boot_ms(), boot_ms() + 60_000);

    for (members, words) in [
        (json!({ "deadline_boottime_ms": later, "asked_boottime_ms": later }), "ahead of"),
        (json!({ "deadline_boottime_ms": 1 }), "its deadline passed"),
        (json!({ "deadline_boottime_ms": later, "boot_id": instant(0) }), "different boots"),
    ] {
        let answer = ask(members);
        assert_eq!(answer["code"], 3, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(words), "{answer}");
    }
    let ours = json!({
        "deadline_boottime_ms": later, "asked_boottime_ms": now, "boot_id": boot_id(),
    });
    assert_eq!(ask(ours)["code"], 0);
}
