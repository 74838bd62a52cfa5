//! File systems that refuse: read-only or full.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use super::submit;
use crate::common::{
    SERVICE, Site, Spool, Watcher, agent_program, can_be_run_as_root, names, output_of,
};

/// The service's command in its own mount namespace, with a small file system on `place`.
fn on_a_file_system_of_its_own(site: &Site, place: &Path, options: &str) -> Command {
    let watcher = site.watcher_command(SERVICE);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg(format!("mount -t tmpfs -o mode=0700,{options} tmpfs \"$0\" && exec \"$@\""))
        .arg(place)
        .arg(watcher.get_program())
        .args(watcher.get_args());
    command
}

#[test]
fn a_spool_that_cannot_be_written_is_named() {
    if !can_be_run_as_root("a_spool_that_cannot_be_written_is_named") {
        return;
    }
    let site = Site::new();
    let place = site.path("spool");
    fs::create_dir(&place).unwrap();
    site.configure_for(&place, &site.recorder("power", "*", ""));

    let output = output_of(&mut on_a_file_system_of_its_own(&site, &place, "ro"));

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(&format!("'{}/requests'", place.display())), "{stderr}");
    assert!(stderr.contains("Read-only file system"), "{stderr}");
}

/// A service on a full disk that a test can fill and empty. The disk is removed with the service.
struct SmallDisk {
    site: Site,
    watcher: Watcher,
    spool: Spool,
    ballast: PathBuf,
}

impl SmallDisk {
    fn new() -> Self {
        let site = Site::new();
        let place = site.path("spool");
        fs::create_dir(&place).unwrap();
        site.configure_for(&place, &site.recorder("power", "*", &site.held()));
        let command = on_a_file_system_of_its_own(&site, &place, "size=512k");
        let (watcher, _told) = site.start_as(command);
        let seen = PathBuf::from(format!("/proc/{}/root{}", watcher.pid(), place.display()));
        SmallDisk { spool: Spool::at(&seen), ballast: seen.join("ballast"), site, watcher }
    }

    fn fill(&self) {
        let mut file = File::create(&self.ballast).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        assert!(fs::write(self.spool.responses.join(".probe"), "x").is_err(), "it is not full");
        fs::remove_file(self.spool.responses.join(".probe")).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(&self.ballast).unwrap();
    }
}

#[test]
fn an_answer_that_finds_the_disk_full_is_written_when_there_is_room_and_nothing_is_done_twice() {
    if !can_be_run_as_root("an_answer_that_finds_the_disk_full_is_written_when_there_is_room") {
        return;
    }
    let disk = SmallDisk::new();
    let id = submit(&disk.spool, "n1");
    disk.site.await_execution(&id);
    let queued = submit(&disk.spool, "n2");
    disk.spool.submit_bytes("bad", b"}");
    disk.spool.await_result("bad", "rejected");
    disk.fill();
    disk.site.release();

    disk.watcher.await_log(&format!("{id}: cannot write its answer yet"));
    let spool = &disk.spool;
    assert!(spool.claimed(&id).exists(), "it is forgotten");
    assert_eq!(spool.answer(&id), None);
    // The device is free again, though the answer cannot be written.
    disk.site.await_execution(&queued);
    disk.watcher.await_log(&format!("{queued}: cannot write its answer yet"));
    disk.empty();

    for id in [&id, &queued] {
        let answer = spool.await_result(id, "success");
        assert_eq!(answer["request_id"], json!(id));
        assert_eq!(disk.site.executions_of(id), 1);
    }
    spool.await_quiet();
    assert_eq!(names(&spool.responses).len(), 4, "three answers and a directory");
}

#[test]
fn a_monitor_and_a_check_report_that_no_answer_can_be_written() {
    if !can_be_run_as_root("a_monitor_and_a_check_report_that_no_answer_can_be_written") {
        return;
    }
    let site = Site::new();
    site.configure(&site.simulated("demo", ""));
    let responses = &site.spool.responses;
    fs::create_dir(responses).unwrap();
    let (watcher, _told) = site.start_as(on_a_file_system_of_its_own(&site, responses, "size=64k"));
    let inside = |program: &Command| {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &watcher.pid().to_string(), "--"]);
        command.arg(program.get_program()).args(program.get_args());
        command
    };
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(responses);
        assert!(output_of(&mut inside(&command)).status.success(), "{script}");
    };
    let monitor = || site.agent_as(inside(&Command::new(agent_program())), "action=monitor").wait();
    let check = || {
        let output = output_of(&mut inside(&site.watcher_command(&["check", "--node", "n1"])));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let full = "dd if=/dev/zero of=\"$1/ballast\" bs=4k 2>/dev/null; test -s \"$1/ballast\"";
    for (spoil, mend, why) in [
        (full, "rm \"$1/ballast\"", "No space left on device"),
        ("mount -o remount,ro \"$1\"", "mount -o remount,rw \"$1\"", "Read-only file system"),
    ] {
        monitor().assert_success();
        assert_eq!(check().0, Some(0));

        shell(spoil);

        monitor().assert_failure(&["no answer could be written", why]);
        let (code, stdout) = check();
        assert_eq!(code, Some(1), "{stdout}");
        // If a whole directory cannot be used, the message names the directory.
        assert!(stdout.contains(responses.to_str().unwrap()) && stdout.contains(why), "{stdout}");
        shell(mend);
    }
    monitor().assert_success();
}

#[test]
fn a_watcher_that_ends_with_an_unwritten_answer_leaves_the_request_claimed() {
    if !can_be_run_as_root("a_watcher_that_ends_with_an_unwritten_answer") {
        return;
    }
    let mut disk = SmallDisk::new();
    let keep = File::open(&disk.spool.requests).unwrap();
    let id = submit(&disk.spool, "n1");
    disk.site.await_execution(&id);
    disk.fill();
    disk.site.release();
    disk.watcher.await_log("cannot write its answer yet");

    disk.watcher.signal(Signal::SIGKILL);
    disk.watcher.wait();

    let claimed = format!("/proc/self/fd/{}/.claimed", std::os::fd::AsRawFd::as_raw_fd(&keep));
    let left = [".running.lock".to_owned(), format!("{id}.json")];
    assert_eq!(names(Path::new(&claimed)), left, "no client would get an answer");
}
