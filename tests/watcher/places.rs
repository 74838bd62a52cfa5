//! The directories: which are refused, what happens when they are replaced, lost events, full
//! disks, and which files are kept.

mod disks;

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use crate::common::{
    SERVICE, Site, Spool, agent_program, can_be_run_as_root, can_trace, names, new_id, next_told,
    output_of, request, wait_for, with_injected,
};

fn submit(spool: &Spool, target: &str) -> String {
    let id = new_id();
    spool.submit(&id, &request(&id, "off", target));
    id
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn the_directories_are_made_for_the_owner_alone() {
    let site = Site::new();
    let place = site.path("not/yet/there");
    site.configure_for(&place, &site.recorder("power", "*", ""));

    let _watcher = site.start();

    let spool = Spool::at(&place);
    for directory in [&spool.requests, &spool.responses, &place.join("queries")] {
        assert_eq!(fs::metadata(directory).unwrap().mode() & 0o7777, 0o700);
    }
    let id = submit(&spool, "n1");
    spool.await_result(&id, "success");
}

/// Starts a service that must refuse to start, and returns its message.
fn refused(site: &Site) -> String {
    let output = output_of(&mut site.watcher_command(SERVICE));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stdout, b"");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_place_that_cannot_be_used_is_reported_with_the_repair() {
    type Spoil = fn(&Spool);
    let mut cases: Vec<(&str, Spoil, &str, &str)> = vec![
        ("open", |s| set_mode(&s.requests, 0o777), "requests", "chmod go-w"),
        ("sticky", |s| set_mode(&s.requests, 0o1777), "requests", "chmod go-w"),
        ("for a group", |s| set_mode(&s.responses, 0o770), "responses", "chmod go-w"),
        (
            "claims open",
            |s| set_mode(&s.requests.join(".claimed"), 0o703),
            "requests/.claimed",
            "chmod go-w",
        ),
        (
            "no directory",
            |s| {
                fs::remove_dir_all(&s.responses).unwrap();
                fs::write(&s.responses, "").unwrap();
            },
            "responses",
            "remove it",
        ),
        (
            "a circle",
            |s| {
                fs::remove_dir_all(&s.responses).unwrap();
                symlink(&s.responses, &s.responses).unwrap();
            },
            "responses",
            "give the real path",
        ),
        (
            "an open parent",
            |s| set_mode(s.requests.parent().unwrap(), 0o777),
            "spool",
            "chmod go-w",
        ),
        (
            "a lock of others",
            |s| set_mode(&s.requests.join(".watcher.lock"), 0o666),
            "requests/.watcher.lock",
            "",
        ),
    ];
    if can_be_run_as_root("a directory of somebody else") {
        cases.push((
            "another's",
            |s| chown(&s.requests, Some(65534), None).unwrap(),
            "requests",
            "chown root:",
        ));
    }

    for (what, spoil, named, mend) in cases {
        let site = Site::new();
        let place = site.path("spool");
        site.configure_for(&place, &site.recorder("power", "*", ""));
        site.start().stop();
        let spool = Spool::at(&place);
        spoil(&spool);

        let stderr = refused(&site);

        let path = if named == "spool" { place } else { place.join(named) };
        assert!(stderr.contains(&format!("'{}'", path.display())), "{what}: {stderr}");
        assert!(stderr.contains(mend), "{what}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
    }
}

#[test]
fn a_file_system_that_cannot_rename_without_replacing_is_named_before_anything_is_served() {
    if !can_trace("a_file_system_that_cannot_rename_without_replacing") {
        return;
    }
    let site = Site::new();
    let place = site.path("spool");
    site.configure_for(&place, &site.simulated("power", ""));
    let check = site.watcher_command(&["check", "--node", "n1"]);
    let output = output_of(&mut with_injected("renameat2:error=EINVAL", &check));
    assert_eq!(output.status.code(), Some(0), "there is no spool yet: {output:?}");
    site.start().stop();
    let before = names(&place.join("requests"));

    for (nth, directory) in [(1, "requests"), (2, "responses"), (3, "queries")] {
        let injection = format!("renameat2:error=EINVAL:when={nth}");
        let named = format!("'{}' is on a file system", place.join(directory).display());

        let service = site.watcher_command(SERVICE);
        let output = output_of(&mut with_injected(&injection, &service));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&named) && stderr.contains("tmpfs"), "{stderr}");
        assert!(!stderr.contains("ready"), "{stderr}");

        let output = output_of(&mut with_injected(&injection, &check));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stdout}");
        assert!(stdout.contains(&format!("problem: {named}")), "{stdout}");
    }
    let offline = site.watcher_command(&["check", "--offline"]);
    let output = output_of(&mut with_injected("renameat2:error=EINVAL", &offline));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = output_of(&mut with_injected("renameat2:error=ENOSPC", &check));
    assert_eq!(output.status.code(), Some(0), "a failure that passes: {output:?}");
    assert_eq!(names(&place.join("requests")), before);
}

#[test]
fn an_agent_on_a_file_system_that_cannot_rename_without_replacing_says_so() {
    if !can_trace("an_agent_on_a_file_system_that_cannot_rename_without_replacing") {
        return;
    }
    let site = Site::new();
    site.configure(&site.simulated("power", ""));
    let _watcher = site.start();
    let agent = Command::new(agent_program());
    let agent = with_injected("renameat2:error=EINVAL", &agent);

    let ended = site.agent_as(agent, "action=off\nplug=n1\n").wait();

    let requests = site.spool.requests.display().to_string();
    ended.assert_failure(&["nothing was requested", &requests, "RENAME_NOREPLACE", "tmpfs"]);
}

/// What happens to a directory under a running watcher.
fn replace(directory: &Path, how: &str) {
    match how {
        "removed" => fs::remove_dir_all(directory).unwrap(),
        "moved away" => fs::rename(directory, directory.with_extension("old")).unwrap(),
        "made again" => {
            fs::remove_dir_all(directory).unwrap();
            // The watcher may be faster.
            let _ = fs::DirBuilder::new().mode(0o700).create(directory);
        }
        other => unreachable!("{other}"),
    }
}

#[test]
fn the_directory_of_requests_may_be_removed_moved_or_made_again_under_the_watcher() {
    let site = Site::new();
    // Events must reveal the change.
    let device = site.recorder("power", "*", "");
    site.configure(&format!("[service]\nrescan = '1h'\n{device}"));
    let watcher = site.start();
    for how in ["made again", "removed", "moved away", "made again"] {
        replace(&site.spool.requests, how);
        wait_for("the directory to be there", || site.spool.requests.is_dir());

        let id = submit(&site.spool, "n1");

        site.spool.await_result(&id, "success");
        assert_eq!(site.executions_of(&id), 1, "{how}: {}", watcher.log());
    }
    watcher.stop();
}

#[test]
fn a_removed_directory_of_the_watcher_costs_no_fence() {
    let site = Site::new();
    // There is no periodic look.
    let device = site.recorder("power", "*", "");
    site.configure(&format!("[service]\nrescan = '1h'\n{device}"));
    let (watcher, told) = site.start_as(site.watcher_command(SERVICE));
    assert_eq!(next_told(&told), "WATCHDOG=1");
    let own = [
        site.spool.requests.join(".claimed"),
        site.spool.responses.join(".started"),
        site.spool.requests.join(".rejected"),
    ];
    for directory in &own {
        for how in ["removed", "moved away"] {
            wait_for("the directory to be made again", || directory.is_dir());
            replace(directory, how);
            let id = new_id();
            // Such a name needs a mark.
            let name = format!("n1-{id}");

            site.spool.submit(&name, &request(&id, "off", "n1"));

            site.spool.await_result(&name, "success");
            assert_eq!(site.executions_of(&id), 1, "{}: {}", directory.display(), watcher.log());
        }
    }
    // Without a request, the removal itself is noticed.
    for directory in [&own[0], &own[2]] {
        wait_for("the directory to be there", || directory.is_dir());
        replace(directory, "removed");
        wait_for("the directory to be made again", || directory.is_dir());
    }
    watcher.stop();
}

#[test]
fn other_directories_of_the_spool_that_vanish_are_made_again() {
    let site = Site::new();
    let device = site.recorder("power", "*", "");
    site.configure(&format!("[service]\nrescan = '1s'\n{device}"));
    let watcher = site.start();
    let beside = site.path("queries");
    let inside = [".claimed", ".rejected", ".returning"].map(|name| site.spool.requests.join(name));
    for directory in [&site.spool.responses, &beside, &inside[0], &inside[1]] {
        replace(directory, "removed");
        wait_for(&format!("{} to be there", directory.display()), || directory.is_dir());

        let id = submit(&site.spool, "n1");
        site.spool.await_result(&id, "success");
        assert_eq!(site.executions_of(&id), 1, "{}", watcher.log());
        let bad = new_id();
        site.spool.submit_bytes(&bad, b"}");
        site.spool.await_result(&bad, "rejected");
        wait_for("the state", || !site.state()["pid"].is_null());
    }
}

#[test]
fn a_fence_that_runs_while_the_requests_are_removed_is_finished_and_answered() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let watcher = site.start();
    let id = submit(&site.spool, "n1");
    site.await_execution(&id);

    replace(&site.spool.requests, "made again");
    let next = submit(&site.spool, "n1");
    site.release();

    site.spool.await_result(&id, "success");
    site.spool.await_result(&next, "success");
    assert_eq!((site.executions_of(&id), site.executions_of(&next)), (1, 1), "{}", watcher.log());
}

#[test]
fn a_fence_that_runs_while_the_answers_are_removed_is_answered_as_it_ended() {
    for how in ["made again", "removed", "moved away"] {
        let site = Site::new();
        let device = site.recorder("power", "*", &site.held());
        site.configure(&format!("[service]\nrescan = '1h'\n{device}"));
        let watcher = site.start();
        let id = submit(&site.spool, "n1");
        site.await_execution(&id);

        replace(&site.spool.responses, how);
        site.release();

        // At a place where its client, which has the directory open, still finds it.
        let mut moved = site.spool.clone();
        moved.responses = site.path("responses.old");
        let seen_in = if how == "moved away" { &moved } else { &site.spool };
        seen_in.await_result(&id, "success");
        assert_eq!(site.executions_of(&id), 1, "{how}: {}", watcher.log());
        let next = submit(&site.spool, "n1");
        site.spool.await_result(&next, "success");
        site.spool.await_quiet();
    }
}

#[test]
fn without_events_the_periodic_look_finds_requests() {
    if !can_be_run_as_root("without_events_the_periodic_look_finds_requests") {
        return;
    }
    let site = Site::new();
    let device = site.recorder("power", "*", "");
    site.configure(&format!("[service]\nrescan = '1s'\n{device}"));
    let watcher = site.watcher_command(SERVICE);
    // A user namespace has its own limit for root's instances.
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-c"])
        .arg("echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"")
        .arg("sh")
        .arg(watcher.get_program())
        .args(watcher.get_args());
    let (watcher, _) = site.start_as(command);
    watcher.await_log("inotify is not available");

    let id = submit(&site.spool, "n1");

    site.spool.await_result(&id, "success");
    assert_eq!(site.executions_of(&id), 1);
}

#[test]
fn requests_whose_events_were_lost_are_found_at_once() {
    let site = Site::new();
    let device = site.recorder("power", "*", "");
    site.configure(&format!("[service]\nrescan = '1h'\n{device}"));
    let (watcher, told) = site.start_as(site.watcher_command(SERVICE));
    // From here on, the next periodic look is an hour away.
    assert_eq!(next_told(&told), "WATCHDOG=1");
    let id = submit(&site.spool, "n1");
    site.spool.await_result(&id, "success");
    let bound = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let bound: usize = bound.trim().parse().unwrap();
    watcher.signal(Signal::SIGSTOP);
    // Each makes at least two events, alternately for two names, so that the kernel merges none of
    // them.
    for number in 0..=bound / 2 {
        let path = site.spool.requests.join(format!(".noise-{}", number % 2));
        fs::write(&path, "x").unwrap();
        fs::remove_file(path).unwrap();
    }
    let ids: Vec<String> = (2..5).map(|n| submit(&site.spool, &format!("n{n}"))).collect();

    watcher.signal(Signal::SIGCONT);

    for id in &ids {
        site.spool.await_result(id, "success");
        assert_eq!(site.executions_of(id), 1);
    }
}

#[test]
fn old_answers_are_removed_by_number_and_by_age_and_young_ones_stay() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    site.start().stop();
    let text = fs::read_to_string(site.path("w.toml")).unwrap();
    let bounds = "keep_answers = '1h'\nkeep_answers_max = 20\n[log]";
    fs::write(site.path("w.toml"), text.replace("[log]", bounds)).unwrap();
    let written = |number: u64, age: Duration| {
        let path = site.spool.responses.join(format!("old-{number:02}.json"));
        fs::write(&path, "{}").unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    };
    // 30 recent answers, the last ten of which are the oldest, and one that is too old.
    (0..30).for_each(|number| written(number, Duration::from_secs(60 + number)));
    written(99, Duration::from_hours(2));

    let _watcher = site.start();

    let answers = || -> Vec<String> {
        names(&site.spool.responses).into_iter().filter(|name| !name.starts_with('.')).collect()
    };
    wait_for("twenty answers", || answers().len() <= 20);
    let kept: Vec<String> = (0..20).map(|number| format!("old-{number:02}.json")).collect();
    assert_eq!(answers(), kept);
}
