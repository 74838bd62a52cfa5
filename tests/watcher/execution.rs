//! What is begun, when and how often, and what the programs of a device are given.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{
    SERVICE, Site, boot_id, boot_ms, instant, is_alive, names, new_id, our_request, output_of,
    request, wait_for, with,
};

/// Submits a first-version request under its identity; gives that.
fn submit(site: &Site, action: &str, target: &str) -> String {
    let id = new_id();
    site.spool.submit(&id, &request(&id, action, target));
    id
}

fn await_queued(site: &Site, count: usize) {
    wait_for(&format!("{count} queued requests"), || {
        site.state()["queued"].as_array().unwrap().len() == count
    });
}

#[test]
fn a_request_of_every_kind_of_client_is_executed_once_and_answered_under_its_own_name() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    let (id, held) = (new_id(), new_id());
    let file = site.spool.submit_held(&held, &our_request(&held, "off", "n2"));
    let plain = request(&id, "off", "n1");
    let all_of_ours = json!({
        "deadline": instant(60), "boot_id": boot_id(), "deadline_boottime_ms": boot_ms() + 60_000,
        "device": "power", "held": false, "a member of later": {"x": [1, null]}
    });
    let styles: [(&str, String, Value); 5] = [
        ("the first version's name", id.clone(), plain.clone()),
        ("target and identity", "n1-ID".into(), plain.clone()),
        ("a name of its own", "fence n1, please".into(), plain.clone()),
        ("all members", "ID".into(), with(plain.clone(), all_of_ours)),
        ("with a deadline", "ID".into(), with(plain, json!({"deadline": instant(30)}))),
    ];

    for (what, name, mut request) in styles {
        let id = if name == id { id.clone() } else { new_id() };
        let name = name.replace("ID", &id);
        request["request_id"] = json!(id);
        site.spool.submit(&name, &request);
        let answer = site.spool.await_result(&name, "success");
        assert_eq!(answer["request_id"], json!(id), "{what}");
        assert_eq!((&answer["target_node"], &answer["action"]), (&json!("n1"), &json!("off")));
        assert_eq!(answer["action_performed"], "off", "{what}");
        assert_eq!((&answer["device"], &answer["verified"]), (&json!("power"), &json!(false)));
        assert_eq!(site.executions_of(&id), 1, "{what}");
    }
    site.spool.await_result(&held, "success");
    drop(file);
    assert_eq!(site.executions_of(&held), 1);
    site.spool.await_quiet();
}

#[test]
fn one_death_is_fenced_once_whoever_else_asked_for_it_meanwhile() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let (same, other) = (submit(&site, "reboot", "n1"), submit(&site, "off", "n2"));
    await_queued(&site, 2);
    let last = submit(&site, "off", "n1");
    await_queued(&site, 3);

    site.release();

    for id in [&same, &last] {
        let answer = site.spool.await_result(id, "success");
        assert_eq!(answer["action_performed"], "off");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(&format!("for request {first} ")), "{message}");
    }
    site.spool.await_result(&other, "success");
    let executed = site.executed();
    assert_eq!(executed, [format!("off n1 {first}"), format!("off n2 {other}")]);
    // Who asks now asks about another death.
    let again = submit(&site, "off", "n1");
    site.spool.await_result(&again, "success");
    assert_eq!(site.executions_of(&again), 1);
    site.spool.await_quiet();
}

#[test]
fn a_cycle_deals_with_the_requests_that_were_seen_before_it_was_ordered() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let other = submit(&site, "off", "n2");
    site.await_execution(&other);
    let first = submit(&site, "reboot", "n1");
    await_queued(&site, 1);
    let (second, off) = (submit(&site, "reboot", "n1"), submit(&site, "off", "n1"));
    await_queued(&site, 3);

    site.release();

    let answer = site.spool.await_result(&second, "success");
    assert_eq!(
        (&answer["action_performed"], &answer["verified"]),
        (&json!("reboot"), &json!(false))
    );
    assert!(answer["message"].as_str().unwrap().contains(&format!("for request {first} ")));
    assert_eq!(site.executions_of(&second), 0);
    // The reset has brought it back: who wants it off has to have it made off.
    site.spool.await_result(&off, "success");
    assert_eq!(site.executions_of(&off), 1);
}

#[test]
fn a_request_of_a_client_that_was_killed_is_not_settled_by_another_fence() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let id = new_id();
    let held = site.spool.submit_held(&id, &our_request(&id, "off", "n1"));
    await_queued(&site, 1);
    drop(held);

    site.release();

    site.spool.await_result(&id, "withdrawn");
    assert_eq!(site.executed().len(), 1);
}

#[test]
fn one_machine_is_acted_on_once_at_a_time_whatever_its_name() {
    let site = Site::new();
    let device = site.recorder("power", "*", &site.held());
    site.configure(&format!("{device}max_concurrent = 4\n"));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let (same, other) = (submit(&site, "off", "N1.example.com"), submit(&site, "off", "n2"));

    site.await_execution(&other);
    await_queued(&site, 1);
    assert_eq!(site.executions_of(&same), 0);
    site.release();

    // It is the same death.
    let answer = site.spool.await_result(&same, "success");
    assert_eq!(answer["target_node"], "N1.example.com");
    assert!(answer["message"].as_str().unwrap().contains(&first), "{answer}");
    assert_eq!(site.executions_of(&same), 0);
}

#[test]
fn each_action_is_told_to_the_device() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();

    for action in ["on", "off", "reboot"] {
        let id = submit(&site, action, "n1");
        let answer = site.spool.await_result(&id, "success");
        assert_eq!(answer["action_performed"], action);
        assert_eq!(site.executed().last(), Some(&format!("{action} n1 {id}")));
    }
}

#[test]
fn a_request_id_under_two_names_is_executed_once() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let watcher = site.start();
    let id = new_id();
    let fence = request(&id, "off", "n1");
    // Queued behind its twin, while that runs, and under all the names that a client can choose.
    site.spool.submit("mine", &fence);
    site.await_execution(&id);
    for name in [id.as_str(), &format!("n1-{id}"), "another"] {
        site.spool.submit(name, &fence);
        wait_for("the twin to be removed", || !site.spool.request(name).exists());
    }
    site.release();
    site.spool.await_result("mine", "success");

    for _ in 0..2 {
        for name in [id.as_str(), &format!("n1-{id}"), "mine", "a third"] {
            site.spool.submit(name, &fence);
            wait_for("the twin to be removed", || !site.spool.request(name).exists());
        }
    }
    watcher.stop();
    site.spool.submit(&id, &fence);
    let _watcher = site.start();
    site.spool.submit("a fourth", &fence);

    site.spool.await_quiet();
    assert_eq!(site.executions_of(&id), 1);
}

#[test]
fn the_case_of_an_ids_letters_makes_no_other_request_and_the_answer_has_the_clients_spelling() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    for (first, second) in
        [("low", "UP"), ("UP", "low"), ("n1-low", "n1-UP"), ("n1-UP", "low"), ("mine", "UP")]
    {
        let lower = new_id();
        let upper = lower.to_ascii_uppercase();
        let named = |name: &str| name.replace("low", &lower).replace("UP", &upper);
        let spelled = |name: &str| if name.contains("UP") { &upper } else { &lower };
        site.spool.submit(&named(first), &request(spelled(first), "off", "n1"));
        let answer = site.spool.await_result(&named(first), "success");
        assert_eq!(answer["request_id"], **spelled(first), "{first}");

        for target in ["n1", "n2"] {
            site.spool.submit(&named(second), &request(spelled(second), "off", target));
            wait_for("the twin to be removed", || !site.spool.request(&named(second)).exists());
        }
        site.spool.await_quiet();
        let both = site.executions_of(&lower) + site.executions_of(&upper);
        assert_eq!(both, 1, "{first}, then {second}");
    }
}

#[test]
fn a_boot_is_the_same_whatever_the_case_of_its_letters() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    let id = new_id();
    let ours = with(our_request(&id, "off", "n1"), json!({"held": false}));
    let upper = json!({"boot_id": boot_id().to_ascii_uppercase()});

    site.spool.submit(&id, &with(ours, upper));

    site.spool.await_result(&id, "success");
}

/// Submits a request under one name and, when it is done, the same identity for another target under
/// another; gives how often that was executed. `ID` in a name stands for the identity.
fn executions_of_two_targets(first: &str, second: &str) -> usize {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    let id = new_id();
    let (first, second) = (first.replace("ID", &id), second.replace("ID", &id));
    site.spool.submit(&first, &request(&id, "off", "n1"));
    site.spool.await_result(&first, "success");
    site.spool.submit(&second, &request(&id, "off", "n2"));
    wait_for("the second to be removed", || !site.spool.request(&second).exists());
    site.spool.await_quiet();
    site.executions_of(&id)
}

#[test]
fn a_request_id_is_executed_once_even_if_it_comes_again_with_another_target() {
    for first in ["ID", "mine"] {
        for second in ["ID", "n2-ID", "another"].iter().filter(|second| **second != first) {
            assert_eq!(executions_of_two_targets(first, second), 1, "{first}, then {second}");
        }
    }
}

#[test]
fn a_request_id_that_was_named_after_its_target_is_executed_once_whatever_target_comes_next() {
    for second in ["ID", "n2-ID", "another"] {
        assert_eq!(executions_of_two_targets("n1-ID", second), 1, "then {second}");
    }
}

#[test]
fn a_request_that_its_client_takes_back_while_it_waits_is_never_executed() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let second = submit(&site, "off", "n2");
    let third = submit(&site, "off", "n3");
    await_queued(&site, 2);

    fs::remove_file(site.spool.request(&second)).unwrap();
    site.release();

    site.spool.await_result(&third, "success");
    assert_eq!(site.executions_of(&second), 0);
    assert_eq!(site.spool.answer(&second), None, "nobody waits for an answer");
}

#[test]
fn a_request_whose_client_dies_while_it_waits_is_answered_withdrawn() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let (dies, lives) = (new_id(), new_id());
    let client = site.spool.submit_held(&dies, &our_request(&dies, "off", "n2"));
    let other = site.spool.submit_held(&lives, &our_request(&lives, "off", "n3"));
    await_queued(&site, 2);

    drop(client);
    site.release();

    site.spool.await_result(&dies, "withdrawn");
    site.spool.await_result(&lives, "success");
    drop(other);
    assert_eq!((site.executions_of(&dies), site.executions_of(&lives)), (0, 1));
}

/// The most that ran at once of what a log of begins (`+ name`) and ends (`- name`) tells, among
/// those whose name `matches`.
fn most_at_once(log: &[String], matches: impl Fn(&str) -> bool) -> usize {
    let (mut running, mut most) = (0, 0);
    for line in log {
        let (sign, name) = line.split_once(' ').unwrap();
        if matches(name) {
            running = if sign == "+" { running + 1 } else { running - 1 };
            most = most.max(running);
        }
    }
    assert_eq!(running, 0);
    most
}

/// A script that notes its begin and its end in the file `overlap`.
fn noting_overlap(site: &Site) -> String {
    let log = site.path("overlap");
    let (log, held) = (log.display(), site.held());
    format!(
        "echo \"+ $FENCE_DEVICE/$FENCE_TARGET\" >>'{log}'\n{held}\n\
         echo \"- $FENCE_DEVICE/$FENCE_TARGET\" >>'{log}'"
    )
}

#[test]
fn a_device_runs_as_much_at_once_as_it_may_and_never_two_for_one_target() {
    let site = Site::new();
    let device = site.recorder("power", "*", &noting_overlap(&site)) + "max_concurrent = 3\n";
    site.configure(&device);
    let _watcher = site.start();
    // The first place is free for each of three targets, but not for the second of one target.
    let targets = ["n1", "n1", "n1", "n2", "n2", "n3", "n4", "n5"];
    // An `on` is never settled by another request's execution.
    let ids: Vec<String> = targets.iter().map(|target| submit(&site, "on", target)).collect();

    wait_for("three to run", || site.lines("overlap").len() == 3);
    await_queued(&site, 5);
    let state = site.state();
    assert_eq!(state["devices"][0]["running"], 3, "{state}");
    assert_eq!(state["devices"][0]["queued"], 5, "{state}");
    site.release();

    for id in &ids {
        site.spool.await_result(id, "success");
        assert_eq!(site.executions_of(id), 1);
    }
    let log = site.lines("overlap");
    assert_eq!(most_at_once(&log, |_| true), 3);
    for target in ["n1", "n2", "n3", "n4", "n5"] {
        assert_eq!(most_at_once(&log, |name| name.ends_with(target)), 1, "{target}: {log:?}");
    }
}

#[test]
fn a_device_that_is_not_configured_otherwise_does_one_thing_at_a_time_in_the_order_of_arrival() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &noting_overlap(&site)));
    let _watcher = site.start();
    let first = submit(&site, "off", "n0");
    site.await_execution(&first);
    let mut ids = vec![first];
    for number in 1..6 {
        ids.push(submit(&site, "off", &format!("n{number}")));
        await_queued(&site, number);
    }
    site.release();

    for id in &ids {
        site.spool.await_result(id, "success");
    }
    assert_eq!(most_at_once(&site.lines("overlap"), |_| true), 1);
    let order: Vec<String> =
        ids.iter().enumerate().map(|(number, id)| format!("off n{number} {id}")).collect();
    assert_eq!(site.executed(), order);
}

#[test]
fn one_target_is_not_fenced_by_two_devices_at_once() {
    let site = Site::new();
    let script = noting_overlap(&site);
    site.configure(&(site.recorder("a", "n1", &script) + &site.recorder("b", "n1", &script)));
    let _watcher = site.start();
    let ids: Vec<String> = ["a", "b"]
        .iter()
        .map(|device| {
            let id = new_id();
            let request = with(request(&id, "off", "n1"), json!({"device": device}));
            site.spool.submit(&id, &request);
            wait_for("it to be seen", || {
                let state = site.state();
                let count = |list: &str| state[list].as_array().unwrap().len();
                count("running") + count("queued") == if *device == "a" { 1 } else { 2 }
            });
            id
        })
        .collect();
    site.release();

    for id in &ids {
        site.spool.await_result(id, "success");
    }
    assert_eq!(most_at_once(&site.lines("overlap"), |_| true), 1);
}

#[test]
fn the_bound_on_all_executions_holds_across_devices() {
    let site = Site::new();
    let script = noting_overlap(&site);
    let devices: String = ["a", "b", "c", "d"]
        .iter()
        .map(|name| site.recorder(name, &format!("{name}[1-4]"), &script))
        .collect();
    site.configure(&format!("[service]\nmax_running = 2\n{devices}"));
    let _watcher = site.start();
    let ids: Vec<String> =
        ["a1", "b1", "c1", "d1", "a2"].iter().map(|target| submit(&site, "off", target)).collect();

    wait_for("two to run", || site.lines("overlap").len() == 2);
    await_queued(&site, 3);
    site.release();

    for id in &ids {
        site.spool.await_result(id, "success");
    }
    assert_eq!(most_at_once(&site.lines("overlap"), |_| true), 2);
}

#[test]
fn a_slow_device_does_not_delay_the_request_of_another() {
    let site = Site::new();
    let slow = site.recorder("slow", "s[1-9]", &site.held());
    site.configure(&(slow + &site.recorder("quick", "q[1-9]", "")));
    let _watcher = site.start();
    let mut slow = vec![submit(&site, "off", "s1")];
    site.await_execution(&slow[0]);
    slow.extend(["s2", "s3", "s1"].map(|target| submit(&site, "off", target)));

    for number in 1..5 {
        let quick = submit(&site, "off", &format!("q{number}"));
        site.spool.await_result(&quick, "success");
    }

    assert!(slow.iter().all(|id| site.spool.answer(id).is_none()));
    site.release();
    for id in &slow {
        site.spool.await_result(id, "success");
    }
}

#[test]
fn a_request_expires_in_the_queue_behind_a_slow_device() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let (same, other, wall, last) = (new_id(), new_id(), new_id(), new_id());
    let soon = || json!({"boot_id": boot_id(), "deadline_boottime_ms": boot_ms() + 700});
    site.spool.submit(&same, &with(request(&same, "off", "n1"), soon()));
    site.spool.submit(&other, &with(request(&other, "off", "n2"), soon()));
    site.spool.submit(&wall, &with(request(&wall, "off", "n3"), json!({"deadline": instant(1)})));
    site.spool.submit(&last, &request(&last, "off", "n4"));

    for id in [&same, &other, &wall] {
        let answer = site.spool.await_result(id, "expired");
        assert_eq!(answer["duration_ms"], 0, "{answer}");
    }
    assert_eq!(site.spool.answer(&first), None, "the device was not slow");
    site.release();

    site.spool.await_result(&last, "success");
    assert_eq!(site.executed(), [format!("off n1 {first}"), format!("off n4 {last}")]);
}

/// A command device `power` of one program with these arguments. The program writes all that it was
/// given into files.
fn showing_device(site: &Site, arguments: &str) -> String {
    let directory = site.path("");
    let program = site.program(
        "show",
        &format!(
            "cd '{}'\nprintf '%s\\n' \"$#\" \"$@\" >arguments\ncat >stdin\n\
             cat \"/proc/$$/environ\" | tr '\\0' '\\n' | sort >environment\n\
             ls /proc/self/fd >files",
            directory.display()
        ),
    );
    format!(
        "[[device]]\nname = 'power'\ntype = 'command'\ntargets = '*'\noff = ['{program}', {arguments}]\n"
    )
}

#[test]
fn arguments_are_passed_whole_and_never_through_a_shell() {
    let site = Site::new();
    let pwned = site.path("pwned").display().to_string();
    site.configure(&showing_device(
        &site,
        &format!(
            "'$(touch {pwned})', '; touch {pwned}', 'a  b\t*', '', '{{target}}', \
             '--plug={{target}},{{action}}', '{{request_id}}', '{{gfs2_filesystems}}', '{{}}', '`id`'"
        ),
    ));
    let _watcher = site.start();
    let id = new_id();
    let hostile = json!({"gfs2_filesystems": [
        "-rf", "home", "a b", format!("$(touch {pwned})"), "x\ny", "{target}", "\u{0}"
    ]});
    site.spool.submit(&id, &with(request(&id, "off", "n1,n2"), hostile));

    site.spool.await_result(&id, "success");

    let pwned_safe = pwned.replace(' ', "_");
    let expected = [
        "10".to_owned(),
        format!("$(touch {pwned})"),
        format!("; touch {pwned}"),
        "a  b\t*".to_owned(),
        String::new(),
        "n1,n2".to_owned(),
        "--plug=n1,n2,off".to_owned(),
        id,
        format!("_rf,home,a_b,__touch_{pwned_safe}_,x_y,_target_,_"),
        "{}".to_owned(),
        "`id`".to_owned(),
    ];
    assert_eq!(site.lines("arguments"), expected);
    assert!(!site.path("pwned").exists(), "a shell read the arguments");
}

#[test]
fn a_program_gets_the_request_and_a_clean_environment_and_nothing_of_the_watchers() {
    let site = Site::new();
    site.configure(&showing_device(&site, "'{target}'"));
    let mut command = site.watcher_command(SERVICE);
    command.env("SECRET", "1").env("LD_DEBUG_OUTPUT", "/nowhere").current_dir(site.path(""));
    let (_watcher, _told) = site.start_as(command);
    let id = new_id();
    let request = with(request(&id, "off", "n1"), json!({"gfs2_filesystems": ["a:home", "b c"]}));
    site.spool.submit(&id, &request);

    site.spool.await_result(&id, "success");

    let environment = site.lines("environment");
    let known = [
        "FENCE_ACTION=off".to_owned(),
        "FENCE_DEVICE=power".to_owned(),
        "FENCE_GFS2_FILESYSTEMS=a:home,b_c".to_owned(),
        format!("FENCE_REQUEST_ID={id}"),
        "FENCE_TARGET=n1".to_owned(),
        "LC_ALL=C".to_owned(),
    ];
    for line in &known {
        assert!(environment.contains(line), "no {line}: {environment:?}");
    }
    let more: Vec<&String> = environment
        .iter()
        .filter(|line| !known.contains(line) && !line.starts_with("PATH=/"))
        .collect();
    assert!(more.is_empty(), "{more:?}");
    let stdin: Value = serde_json::from_str(&site.read("stdin")).unwrap();
    for member in ["request_id", "action", "target_node", "gfs2_filesystems", "recorder_node"] {
        assert_eq!(stdin[member], request[member], "{member}");
    }
    // 0 to 2, and the one through which `ls` reads the directory.
    assert_eq!(site.lines("files"), ["0", "1", "2", "3"], "a file of the watcher's is open");
}

#[test]
fn a_program_is_not_started_in_the_directory_in_which_the_watcher_was() {
    let site = Site::new();
    let cwd = site.path("cwd");
    site.configure(&site.recorder("power", "*", &format!("pwd -P >'{}'", cwd.display())));
    let mut command = site.watcher_command(SERVICE);
    command.current_dir(site.path(""));
    let (_watcher, _told) = site.start_as(command);

    let id = submit(&site, "off", "n1");

    site.spool.await_result(&id, "success");
    assert_eq!(site.read("cwd"), "/\n");
}

#[test]
fn a_programs_output_is_told_bounded_and_on_one_line() {
    let site = Site::new();
    let script = "echo 'switched off'\nhead -c 3000000 /dev/zero | tr '\\0' x\n\
                  printf '\\033[2J\\377\\000' >&2\nhead -c 3000000 /dev/zero >&2";
    site.configure(&site.recorder("power", "*", script));
    let _watcher = site.start();

    let id = submit(&site, "off", "n1");

    let answer = site.spool.await_result(&id, "success");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("switched off"), "{message}");
    assert!(message.len() < 4096, "{} bytes", message.len());
    assert!(!message.contains(char::is_control), "{message:?}");
}

#[test]
fn a_program_that_fails_is_no_success_whatever_it_writes() {
    let site = Site::new();
    let script = "case $FENCE_TARGET in exit*) echo 'Success: Powered OFF'; echo 'no route' >&2; \
                  exit ${FENCE_TARGET#exit};; signal) kill -9 $$;; esac";
    let devices = site.recorder("power", "exit[1-3],exit255,signal", script);
    let gone = site.program("gone", "exit 0");
    let device = format!(
        "[[device]]\nname = 'gone'\ntype = 'command'\ntargets = 'gone'\noff = ['{gone}']\n"
    );
    site.configure(&(devices + &device));
    let _watcher = site.start();
    fs::remove_file(gone).unwrap();

    for target in ["exit1", "exit2", "exit3", "exit255", "signal"] {
        let id = submit(&site, "off", target);
        let answer = site.spool.await_result(&id, "unacknowledged");
        assert_eq!(answer["result_code"], 2, "{answer}");
        let message = answer["message"].as_str().unwrap();
        let wanted = if target == "signal" { "signal 9" } else { "no route" };
        assert!(message.contains(wanted), "{message}");
    }
    let id = submit(&site, "off", "gone");
    site.spool.await_result(&id, "device-failure");
}

#[test]
fn the_time_limit_of_a_device_and_the_deadline_of_a_request_end_a_program_with_all_its_children() {
    let site = Site::new();
    let limited = site.recorder("limited", "n1", &site.endless("setsid")) + "timeout = '2s'\n";
    let patient = site.recorder("patient", "n2", &site.endless("setsid")) + "timeout = '1h'\n";
    site.configure(&(limited + &patient));
    let _watcher = site.start();
    let (by_device, by_request) = (new_id(), new_id());
    let soon = json!({"boot_id": boot_id(), "deadline_boottime_ms": boot_ms() + 2500});
    site.spool.submit(&by_device, &request(&by_device, "off", "n1"));
    site.spool.submit(&by_request, &with(request(&by_request, "off", "n2"), soon));

    for id in [&by_device, &by_request] {
        let answer = site.spool.await_result(id, "unacknowledged");
        assert!(answer["message"].as_str().unwrap().contains("limit"), "{answer}");
    }
    let pids = site.lines("pids");
    assert_eq!(pids.len(), 6);
    wait_for("the end of all of them", || !pids.iter().any(|pid| is_alive(pid)));
    // And the targets are free again.
    let next = new_id();
    let soon = json!({"boot_id": boot_id(), "deadline_boottime_ms": boot_ms() + 500});
    site.spool.submit(&next, &with(request(&next, "off", "n2"), soon));
    site.spool.await_result(&next, "unacknowledged");
}

/// A command device with power states in files; each program notes what it was asked in `calls`.
fn stateful_device(site: &Site, on_exits_with: u8) -> String {
    let directory = site.path("");
    let directory = directory.display();
    let program = |action: &str, body: &str| {
        let script = format!("echo \"{action} $1\" >>'{directory}/calls'\n{body}");
        site.program(&format!("power-{action}"), &script)
    };
    let off = program("off", &format!("[ $1 = liar ] || touch '{directory}/off-'$1"));
    let on = program("on", &format!("rm -f '{directory}/off-'$1; exit {on_exits_with}"));
    let status = program("status", &format!("[ ! -e '{directory}/off-'$1 ] || exit 2"));
    format!(
        "[[device]]\nname = 'power'\ntype = 'command'\ntargets = '*'\ntimeout = '1s'\n\
         off = ['{off}', '{{target}}']\non = ['{on}', '{{target}}']\n\
         status = ['{status}', '{{target}}']\n"
    )
}

#[test]
fn a_device_that_can_be_asked_is_asked_before_success_is_said() {
    let site = Site::new();
    site.configure(&stateful_device(&site, 0));
    let _watcher = site.start();

    let off = submit(&site, "off", "n1");
    assert_eq!(site.spool.await_result(&off, "success")["verified"], true);
    assert_eq!(site.lines("calls"), ["off n1", "status n1"]);

    let reboot = submit(&site, "reboot", "n2");
    let answer = site.spool.await_result(&reboot, "success");
    assert_eq!(
        (&answer["verified"], &answer["action_performed"]),
        (&json!(true), &json!("reboot"))
    );
    assert_eq!(site.lines("calls")[2..], ["off n2", "status n2", "on n2", "status n2"]);

    let lie = submit(&site, "off", "liar");
    assert_eq!(site.spool.await_result(&lie, "unacknowledged")["verified"], false);
}

#[test]
fn a_reboot_has_succeeded_once_the_target_is_off_even_if_it_does_not_come_back() {
    let site = Site::new();
    let device = stateful_device(&site, 1).replace("[ ! -e", "true; [ ! -e");
    // What switches it on fails and leaves it off.
    let directory = site.path("").display().to_string();
    site.program("power-on", &format!("echo \"on $1\" >>'{directory}/calls'\nexit 1"));
    site.configure(&device);
    let _watcher = site.start();

    let id = submit(&site, "reboot", "n1");

    let answer = site.spool.await_result(&id, "success");
    assert_eq!(answer["action_performed"], "off", "{answer}");
    assert!(site.path("off-n1").exists());
}

#[test]
fn a_device_is_used_for_the_targets_that_it_lists() {
    let site = Site::new();
    let calls = site.path("calls");
    let list =
        site.program("list", &format!("echo x >>'{}'; echo d1; echo d2,alias", calls.display()));
    let discovered = site
        .recorder("first", "discover", "")
        .replace("type = ", &format!("list = ['{list}']\ntype = "));
    site.configure(&(discovered + &site.recorder("second", "n[1-9]", "")));
    let watcher = site.start();
    let targets = || site.state()["devices"][0]["targets"].clone();

    for (target, device, list) in [
        ("n1", "second", "discover"),
        ("d1", "first", "discover: d[1-2]"),
        ("d2", "first", "discover: d[1-2]"),
    ] {
        let id = submit(&site, "off", target);
        assert_eq!(site.spool.await_result(&id, "success")["device"], device, "{target}");
        assert_eq!(targets(), list);
    }
    assert_eq!(site.lines("calls").len(), 1, "it is asked once, when a request needs it");
    let id = submit(&site, "off", "unknown");
    site.spool.await_result(&id, "rejected");
    assert_eq!(site.lines("calls").len(), 2, "and once more for a target that its list lacks");

    // The command would have the watcher look at its devices as well.
    watcher.signal(Signal::SIGHUP);
    wait_for("the new configuration", || targets() == "discover");
    let id = submit(&site, "off", "d1");
    site.spool.await_result(&id, "success");
    assert_eq!(site.lines("calls").len(), 3, "and anew after a reload");
}

#[test]
fn of_devices_that_list_their_targets_the_one_that_lists_the_target_is_used() {
    let site = Site::new();
    let listing = |name: &str, script: &str| {
        let list = site.program(&format!("{name}-list"), script);
        let device = site.recorder(name, "discover", "");
        device.replace("type = ", &format!("list = ['{list}']\ntype = "))
    };
    let silent = listing("silent", &site.held());
    site.configure(&(silent + &listing("other", "echo n1")));
    let _watcher = site.start();

    let id = submit(&site, "off", "n1");

    assert_eq!(site.spool.await_result(&id, "success")["device"], "other");
    site.release();
}

/// The processes whose parent is `pid`.
fn children_of(pid: u32) -> Vec<Pid> {
    let parent = |child: &str| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let processes = names(Path::new("/proc"));
    let children = processes.iter().filter(|process| parent(process) == Some(pid));
    children.map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

#[test]
fn when_the_helper_process_is_killed_what_ran_has_failed_and_the_next_request_is_served() {
    let site = Site::new();
    site.configure(&site.recorder(
        "power",
        "*",
        &format!("[ $FENCE_TARGET = n2 ] || {{ {}\n}}", site.endless("timeout 1000")),
    ));
    let watcher = site.start();
    let first = submit(&site, "off", "n1");
    wait_for("it to run", || site.lines("pids").len() == 3);
    let helpers = children_of(watcher.pid());
    assert_eq!(helpers.len(), 1);

    kill(helpers[0], Signal::SIGKILL).unwrap();

    let answer = site.spool.await_answer(&first);
    assert_eq!((&answer["success"], &answer["result"]), (&json!(false), &json!("unacknowledged")));
    let pids = site.lines("pids");
    wait_for("the end of all that ran", || !pids.iter().any(|pid| is_alive(pid)));
    let second = submit(&site, "off", "n2");
    site.spool.await_result(&second, "success");
    assert_eq!(site.executed().len(), 2);
}

#[test]
fn a_program_that_others_could_replace_is_not_started() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    fs::set_permissions(site.path("power.sh"), PermissionsExt::from_mode(0o777)).unwrap();

    let output = output_of(&mut site.watcher_command(SERVICE));

    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("power.sh") && stderr.contains("chmod go-w"), "{stderr}");
}

#[test]
fn a_device_with_addresses_is_used_at_each_of_them_at_the_same_time() {
    let site = Site::new();
    let (executed, held) = (site.path("executed"), site.held());
    let agent = site.program(
        "fence_x",
        &format!(
            "while IFS='=' read -r name value; do eval \"$name='$value'\"; done\n\
             case $action in status) [ -e '{on}' ] && exit 0; exit 2;; on) >'{on}';; esac\n\
             echo \"$action $ip\" >>'{}'\n[ $ip != one ] || {{ {held}; }}",
            executed.display(),
            on = site.path("on").display()
        ),
    );
    site.configure(&format!(
        "[[device]]\nname = 'bmcs'\ntype = 'fence-agent'\nagent = '{agent}'\n\
         targets = {{ n1 = 'one', N1 = 'one', n3 = 'other' }}\nplug_option = 'ip'\n\
         actions = ['off', 'on', 'status']\n"
    ));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    wait_for("it to run", || site.executed() == ["off one"]);

    let same = submit(&site, "on", "N1");
    let other = submit(&site, "off", "n3");

    site.spool.await_result(&other, "success");
    assert_eq!(site.executed(), ["off one", "off other"]);
    let state = site.state();
    assert_eq!(
        (&state["queued"][0]["target"], &state["queued"][0]["address"]),
        (&json!("N1"), &json!("one"))
    );
    site.release();
    for id in [&first, &same] {
        site.spool.await_result(id, "success");
    }
    assert_eq!(site.executed().len(), 3);
}
