//! A disk of logs that is frozen, as during a snapshot of a virtual machine: each process that
//! writes to it waits inside the kernel and ignores every signal. Spool and devices are on another
//! disk.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{SERVICE, Site, Watcher, agent_program, left_out, wait_for};

/// A file system for the logs of a site, in its own mount namespace. It is thawed and removed with
/// the process that keeps the namespace; that process ends with its standard input.
struct Disk {
    keeper: Child,
    said: BufReader<ChildStdout>,
    log: PathBuf,
}

const KEEPER: &str = "
    truncate -s 16M \"$0\" && mkfs.ext4 -q -F \"$0\" && loop=$(losetup --find) || exit 1
    # In a container the kernel's devices have no names.
    [ -b \"$loop\" ] || mknod \"$loop\" b 7 \"${loop#/dev/loop}\" || exit 1
    mount -o loop=\"$loop\" \"$0\" \"$1\" || exit 1
    chmod 700 \"$1\"; echo mounted
    read word && fsfreeze -f \"$1\" && echo frozen && read word
    fsfreeze -u \"$1\"; echo thawed
    read word";

impl Disk {
    /// `None` if no such disk can be created, which is reported; in CI it must be possible.
    fn new(site: &Site) -> Option<Self> {
        let log = site.path("log");
        fs::create_dir(&log).unwrap();
        let why = "no disk can be frozen: no root, loop device or mkfs.ext4";
        let keeper = Command::new("unshare")
            .args(["--mount", "sh", "-c", KEEPER])
            .args([&site.path("disk"), &log])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut keeper) = keeper else {
            left_out("a disk that stands still", why);
            return None;
        };
        let said = BufReader::new(keeper.stdout.take().unwrap());
        let mut disk = Disk { keeper, said, log };
        if disk.next_said() == "mounted" {
            return Some(disk);
        }
        left_out("a disk that stands still", why);
        None
    }

    fn next_said(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn go_on(&mut self, expected: &str) {
        self.keeper.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(self.next_said(), expected);
    }

    /// `command`, in the mount namespace of the disk.
    fn beside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--mount=/proc/{}/ns/mnt", self.keeper.id()));
        inside.arg(command.get_program()).args(command.get_args()).env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }

    fn start(&self, site: &Site) -> Watcher {
        site.start_as(self.beside(&site.watcher_command(SERVICE))).0
    }

    /// The events in the audit, oldest first.
    fn audit(&self) -> Vec<Value> {
        let log = self.log.strip_prefix("/").unwrap().join("fence-events-detailed.jsonl");
        let path = PathBuf::from(format!("/proc/{}/root", self.keeper.id())).join(log);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The statuses of the events for `target`.
    fn audit_of(&self, target: &str) -> Vec<String> {
        let audit = self.audit().into_iter().filter(|event| event["target_node"] == target);
        audit.map(|event| event["status"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

#[test]
fn a_frozen_disk_of_logs_stops_neither_agent_nor_watcher_and_no_event_is_lost() {
    let site = Site::new();
    let Some(mut disk) = Disk::new(&site) else { return };
    let slow = site.recorder("slow", "n3", &site.held());
    site.configure(&format!("{}{slow}", site.recorder("power", "n[1,2,4]", "")));
    let mut watcher = disk.start(&site);
    let fence = |disk: &Disk, target: &str| {
        let agent = disk.beside(&Command::new(agent_program()));
        site.agent_as(agent, &format!("action=off\nplug={target}\n"))
    };
    fence(&disk, "n1").wait().assert_success();
    assert_eq!(disk.audit_of("n1"), ["requested", "completed"]);
    // A request whose end the watcher must write.
    let killed = fence(&disk, "n3");
    wait_for("the execution", || site.executed().len() == 2);
    wait_for("the audit", || disk.audit_of("n3") == ["requested"]);
    disk.go_on("frozen");

    let ended = fence(&disk, "n2").wait();
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "Success: Powered OFF\n"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("did not respond"), "{ended:?}");
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.wait().code, None);
    site.release();
    wait_for("the answer", || site.state()["running"].as_array().unwrap().is_empty());

    watcher.signal(Signal::SIGTERM);
    assert_eq!(watcher.wait().code(), Some(0), "{}", watcher.log());
    let mut service = site.watcher_command(SERVICE);
    service.env("LOG_DIR", site.path("log/missing"));
    let (again, _told) = site.start_as(disk.beside(&service));
    again.await_log("the agent may have no directory for its logs");
    assert_eq!(fence(&disk, "n4").wait().code, Some(0));

    disk.go_on("thawed");
    for target in ["n2", "n3", "n4"] {
        wait_for("the audit", || disk.audit_of(target) == ["requested", "completed"]);
    }
    drop(again);
}
