//! What a device's program receives, when it ends, and what its outcome proves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::submit;
use crate::common::{
    SERVICE, Site, boot_id, boot_ms, is_alive, names, new_id, output_of, request, wait_for, with,
};

/// A command device `power` with one program and these arguments. The program writes everything
/// that it received into files.
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
fn a_program_gets_the_request_and_a_clean_environment_and_nothing_of_the_watcher() {
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
    // 0 to 2, and the descriptor through which `ls` reads the directory.
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
fn a_programs_output_is_reported_bounded_and_on_one_line() {
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

/// A command device with power states in files; each program records its questions in `calls`.
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
fn a_device_that_can_be_asked_is_asked_before_success_is_reported() {
    let site = Site::new();
    site.configure(&stateful_device(&site, 0));
    let _watcher = site.start();

    let off = submit(&site, "off", "n1");
    assert_eq!(site.spool.await_result(&off, "success")["verified"], true);
    assert_eq!(site.lines("calls"), ["off n1", "status n1"]);

    let reboot = submit(&site, "reboot", "n2");
    let answer = site.spool.await_result(&reboot, "success");
    assert_eq!((&answer["verified"], &answer["action_performed"]), (&json!(true), &json!("off")));
    let calls = ["off n2", "status n2", "on n2", "status n2"];
    wait_for("the power-on", || site.lines("calls").len() == 6);
    assert_eq!(site.lines("calls")[2..], calls);

    let lie = submit(&site, "off", "liar");
    assert_eq!(site.spool.await_result(&lie, "unacknowledged")["verified"], false);
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
fn if_the_helper_process_is_killed_its_orders_fail_and_the_next_request_is_served() {
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
