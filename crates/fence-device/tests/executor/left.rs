//! Everything that a program starts, and however it escapes, ends with the program.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::common::left_out::left_out;
use crate::common::{Directory, children_of, command, executor_pid, is_alive, shell, wait_for};
use crate::{exited, run_until_file};
use fence_device::{Command, Limit, RunOutcome, boot_ms_now};

/// Ways in which a program starts something that does not end with it. Each is started in the
/// background, and runs `"$@"`.
pub(crate) const ESCAPES: &[&str] = &[
    // In the program's group, in its own group, and in its own session.
    "\"$@\" &",
    "timeout 1000 \"$@\" &",
    "setsid \"$@\" &",
    // The same without a parent.
    "(\"$@\" &)",
    "(timeout 1000 \"$@\" &)",
    "(setsid \"$@\" &)",
    // A daemon: without a parent, in a session whose leader has ended, without its environment or
    // its open files.
    "setsid sh -c '(setsid env -i sh -c \"exec \\\"\\$@\\\" <&- >&- 2>&-\" sh \"$@\" &)' sh \"$@\"",
    // Ignores signals, and is stopped.
    "(trap '' TERM HUP INT; setsid \"$@\" &)",
    "(setsid sh -c 'kill -STOP $$; exec \"$@\"' sh \"$@\" &)",
    // A parent that is stopped, and a parent that continues when its child dies.
    "(setsid sh -c '\"$@\" & kill -STOP $$' sh \"$@\" &)",
    "(setsid sh -c 'while :; do \"$@\"; done' sh \"$@\" &)",
];

/// A script that starts a process in each of these ways. Each process writes its number to `pids`.
/// The script waits until all have done so, writes its own number and runs `finally`.
pub(crate) fn escaping(directory: &Directory, finally: &str) -> String {
    let pids = directory.path("pids");
    let pids = pids.display();
    let running = directory.script("running", &format!("echo $$ >> '{pids}'\nexec sleep 1000"));
    let stopped = ESCAPES.iter().filter(|way| way.contains("STOP $$; exec")).count();
    let count = ESCAPES.len() - stopped;
    let ways = ESCAPES.join("\n");
    format!(
        "set -- '{running}'\n: > '{pids}'\n{ways}\n\
         while [ $(wc -l < '{pids}') -lt {count} ]; do :; done\n\
         echo $$ >> '{pids}'\necho began\n{finally}"
    )
}

/// The processes that `escaping` has started and that still run: those that wrote their number, and
/// those with the program in their arguments.
pub(crate) fn survivors(directory: &Directory) -> Vec<String> {
    let script = directory.path("running").into_os_string().into_string().unwrap();
    let processes = fs::read_dir("/proc").unwrap();
    let names = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = directory.read("pids");
    let is_ours = |pid: &String| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&script) || pids.lines().any(|own| own == pid)
    };
    let numbers = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    numbers.filter(is_ours).filter(|pid| is_alive(pid)).collect()
}

#[test]
fn at_the_limit_a_program_is_killed_with_all_that_it_started() {
    let directory = Directory::new();
    let executor = directory.executor();
    let limit = Limit::in_ms(5_000);

    let outcome =
        executor.run(Command { limit, ..shell(&escaping(&directory, "wait; sleep 1000")) });

    assert_eq!(survivors(&directory), [""; 0]);
    assert!(boot_ms_now() >= limit.not_after_boot_ms);
    assert_eq!(
        outcome,
        RunOutcome::TimedOut { stdout: "began\n".to_owned(), stderr: String::new() }
    );
    assert_eq!(directory.read("pids").lines().count(), ESCAPES.len());
}

#[test]
fn the_processes_that_a_program_leaves_end_before_its_end_is_reported() {
    let directory = Directory::new();
    let executor = directory.executor();

    for (finally, ends) in [("exit 3", exited(3, "began\n", "")), ("kill -9 $$", killed("began\n"))]
    {
        let outcome = executor.run(shell(&escaping(&directory, finally)));

        assert_eq!(survivors(&directory), [""; 0]);
        assert_eq!(outcome, ends);
        assert_eq!(directory.read("pids").lines().count(), ESCAPES.len());
    }
}

fn killed(stdout: &str) -> RunOutcome {
    RunOutcome::Signaled { signal: 9, stdout: stdout.to_owned(), stderr: String::new() }
}

#[test]
fn the_end_of_one_program_touches_nothing_of_another() {
    let directory = Directory::new();
    let executor = directory.executor();
    let others = Directory::new();
    let script = format!("read x < '{}'; exit 4", gate(&others));
    let other = run_until_file(
        &executor,
        shell(&escaping(
            &others,
            &format!("echo > '{0}'; {script}", others.path("began").display()),
        )),
        &others,
        "began",
    );
    let all = survivors(&others);

    let limit = Limit::in_ms(5_000);
    let outcome = executor.run(Command { limit, ..shell(&escaping(&directory, "sleep 1000")) });
    assert!(matches!(outcome, RunOutcome::TimedOut { .. }), "{outcome:?}");
    assert_eq!(executor.run(shell("(setsid sleep 1000 &); exit 5")), exited(5, "", ""));
    let outcome = executor.run(shell("(setsid sleep 1000 &); kill -9 $PPID"));
    assert_eq!(outcome, RunOutcome::ExecutorLost);

    assert_eq!(survivors(&others), all);
    assert_eq!(survivors(&directory), [""; 0]);
    fs::write(others.path("gate"), "\n").unwrap();
    assert_eq!(other.join().unwrap(), exited(4, "began\n", ""));
    assert_eq!(survivors(&others), [""; 0]);
}

/// A fifo from which a script reads when it may continue.
fn gate(directory: &Directory) -> String {
    let fifo = directory.path("gate");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fifo.into_os_string().into_string().unwrap()
}

#[test]
fn a_program_that_kills_its_keeper_is_ended_and_reported_as_lost() {
    let directory = Directory::new();
    let executor = directory.executor();

    let outcome = executor.run(shell(&escaping(&directory, "kill -9 $PPID; sleep 1000")));

    assert_eq!(survivors(&directory), [""; 0]);
    assert_eq!(outcome, RunOutcome::ExecutorLost);
    assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
}

#[test]
fn a_program_that_stops_its_keeper_is_ended_after_its_limit() {
    let directory = Directory::new();
    let executor = directory.executor();
    let pid = executor_pid(&directory);

    for finally in ["kill -STOP $PPID; sleep 1000", "kill -STOP $PPID"] {
        let limit = Limit::in_ms(5_000);
        let script = escaping(&directory, finally);
        let outcome = executor.run(Command { limit, ..shell(&script) });

        assert_eq!(survivors(&directory), [""; 0]);
        assert!(matches!(outcome, RunOutcome::TimedOut { .. }), "{outcome:?}");
        assert_eq!(executor_pid(&directory), pid, "the executor was given up");
    }
    assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
}

/// A control group whose processes no signal reaches, as if they hung in the kernel. Only the first
/// version of control groups works like this; a system that uses the second can mount the first
/// beside it.
struct Freezer {
    group: PathBuf,
    mount: PathBuf,
}

impl Freezer {
    /// `None` if nothing can be mounted, or the kernel has no such groups.
    fn new(mount: &Path) -> Option<Self> {
        fs::create_dir(mount).unwrap();
        let mut command = std::process::Command::new("mount");
        let arguments = command.args(["-t", "cgroup", "-o", "freezer", "freezer"]).arg(mount);
        if !arguments.status().is_ok_and(|status| status.success()) {
            return None;
        }
        let group = mount.join(format!("fence-device-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        Some(Freezer { group, mount: mount.to_owned() })
    }

    /// Freezes the process that a script writes to its file `tasks`.
    fn script(&self) -> String {
        let group = self.group.display();
        format!(
            "(setsid sleep 1000 & echo $! > '{group}/tasks')\necho FROZEN > \
             '{group}/freezer.state'\n\
             while ! grep -q FROZEN '{group}/freezer.state'; do :; done\n"
        )
    }

    fn thaw(&self) {
        fs::write(self.group.join("freezer.state"), "THAWED").unwrap();
    }

    fn frozen(&self) -> Vec<String> {
        let tasks = fs::read_to_string(self.group.join("tasks")).unwrap();
        tasks.lines().map(str::to_owned).collect()
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        wait_for("the group to be empty", || fs::remove_dir(&self.group).is_ok());
        let unmounted = std::process::Command::new("umount").arg(&self.mount).status().unwrap();
        assert!(unmounted.success(), "{} is still mounted", self.mount.display());
    }
}

#[test]
fn a_process_that_cannot_be_killed_is_given_up_and_ends_when_it_can() {
    let directory = Directory::new();
    let Some(freezer) = Freezer::new(&directory.path("freezer")) else {
        left_out("what cannot be killed", "no freezer of control groups can be mounted");
        return;
    };
    let executor = directory.executor();
    let pid = executor_pid(&directory);

    for (end, limit_ms) in [("exit 3", 60_000), ("sleep 1000", 2_000)] {
        let limit = Limit::in_ms(limit_ms);
        let outcome = executor.run(Command { limit, ..shell(&(freezer.script() + end)) });

        let frozen = freezer.frozen();
        assert!(frozen.iter().any(|pid| is_alive(pid)), "the test freezes no process");
        let is_right = match limit_ms {
            2_000 => matches!(outcome, RunOutcome::TimedOut { .. }),
            _ => outcome == exited(3, "", ""),
        };
        assert!(is_right, "{outcome:?}");
        assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
        freezer.thaw();
        wait_for("its end", || !frozen.iter().any(|pid| is_alive(pid)));
    }
    assert_eq!(executor_pid(&directory), pid, "the executor was given up");
}

#[test]
fn a_keeper_is_used_again_and_few_are_kept() {
    let directory = Directory::new();
    let executor = directory.executor();
    let pid = executor_pid(&directory);
    let [keeper] = children_of(pid)[..] else { panic!() };

    for _ in 0..3 {
        let outcome = executor.run(shell("echo $PPID"));
        assert_eq!(outcome, exited(0, &format!("{keeper}\n"), ""));
    }
    let fifo = gate(&directory);
    let programs: Vec<_> = (0..8)
        .map(|number| {
            let began = format!("began-{number}");
            let path = directory.path(&began);
            let script = format!("echo > '{}'; read x < '{fifo}'", path.display());
            run_until_file(&executor, shell(&script), &directory, &began)
        })
        .collect();
    assert_eq!(children_of(pid).len(), 8);
    let mut gate = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    gate.write_all(&[b'\n'; 8]).unwrap();
    for program in programs {
        assert_eq!(program.join().unwrap(), exited(0, "", ""));
    }
    wait_for("the end of the others", || children_of(pid).len() == 2);
}
