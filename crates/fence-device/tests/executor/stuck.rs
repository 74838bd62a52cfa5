//! Programs whose start hangs, as on a file server that does not answer.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::PathBuf;
use std::process::{self, Child};
use std::thread;

use crate::common::{Directory, children_of, command, executor_pid, is_alive, shell, wait_for};
use crate::exited;
use fence_device::{Command, ExecutorClient, Limit, RunOutcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program that cannot start while this value lives. Another process holds a lease on its file,
/// and the kernel blocks each process that opens the file, like a dead file server. The program
/// creates a file if it has run nevertheless.
struct Unstartable {
    program: String,
    witness: PathBuf,
    holder: Child,
}

impl Unstartable {
    fn new(directory: &Directory) -> Self {
        let witness = directory.path("witness");
        let program = directory.script("unstartable", &format!("echo > {}", witness.display()));
        // F_SETLEASE, F_WRLCK. A process that breaks the lease causes SIGIO.
        let hold = "$SIG{IO} = 'IGNORE'; open(my $f, '+<', $ARGV[0]) or die; \
                    fcntl($f, 1024, 1) or die; syswrite(STDOUT, \"held\\n\"); sleep 1000";
        let mut holder = process::Command::new("perl")
            .args(["-e", hold, &program])
            .stdout(process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = [0; 5];
        holder.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        Unstartable { program, witness, holder }
    }

    /// Lets it start.
    fn release(&mut self) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}

impl Drop for Unstartable {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The programs of an executor's keepers.
fn programs_of(executor: Pid) -> Vec<Pid> {
    children_of(executor).into_iter().flat_map(children_of).collect()
}

/// Runs it in a thread and returns when its start hangs.
fn run_until_stuck(
    executor: &ExecutorClient,
    program: &Unstartable,
    limit: Limit,
    directory: &Directory,
) -> thread::JoinHandle<RunOutcome> {
    let (client, command) = (executor.clone(), Command { limit, ..command(&[&program.program]) });
    let running = thread::spawn(move || client.run(command));
    let executor = executor_pid(directory);
    wait_for("the start to hang", || !programs_of(executor).is_empty());
    running
}

#[test]
fn a_program_whose_start_hangs_delays_no_other() {
    let directory = Directory::new();
    let executor = directory.executor();
    let mut program = Unstartable::new(&directory);
    let stuck = run_until_stuck(&executor, &program, Limit::in_ms(60_000), &directory);

    for _ in 0..3 {
        assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
        let limited = Command { limit: Limit::in_ms(200), ..shell("sleep 1000") };
        assert!(matches!(executor.run(limited), RunOutcome::TimedOut { .. }));
    }
    assert!(!stuck.is_finished());

    program.release();
    assert_eq!(stuck.join().unwrap(), exited(0, "", ""));
    assert!(program.witness.exists());
}

#[test]
fn a_program_whose_start_hangs_until_its_limit_never_runs() {
    let directory = Directory::new();
    let executor = directory.executor();
    let mut program = Unstartable::new(&directory);
    let stuck = run_until_stuck(&executor, &program, Limit::in_ms(1_000), &directory);

    let outcome = stuck.join().unwrap();

    assert!(matches!(outcome, RunOutcome::TimedOut { .. }), "{outcome:?}");
    let pid = executor_pid(&directory);
    wait_for("its end", || programs_of(pid).is_empty());
    program.release();
    assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
    assert_eq!(executor_pid(&directory), pid, "the executor was given up");
    assert!(!program.witness.exists(), "it ran after all");
}

#[test]
fn a_program_whose_start_hangs_is_killed_with_its_executor() {
    let directory = Directory::new();
    let executor = directory.executor();
    let mut program = Unstartable::new(&directory);
    let stuck = run_until_stuck(&executor, &program, Limit::in_ms(60_000), &directory);
    let pid = executor_pid(&directory);
    let [child] = programs_of(pid)[..] else { panic!() };

    kill(pid, Signal::SIGKILL).unwrap();

    assert_eq!(stuck.join().unwrap(), RunOutcome::ExecutorLost);
    assert!(!is_alive(&child.to_string()));
    program.release();
    assert!(!program.witness.exists(), "it ran after all");
}

#[test]
fn a_program_whose_start_hangs_is_killed_with_the_watcher_before_its_lock_is_free() {
    let directory = Directory::new();
    let mut program = Unstartable::new(&directory);
    let mut watcher = process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lost::watcher_that_is_going_to_be_killed"])
        .env("FENCE_DEVICE_TEST_WATCHER", directory.path(""))
        .env("FENCE_DEVICE_TEST_PROGRAM", &program.program)
        .spawn()
        .unwrap();
    wait_for("the executor's start", || directory.path("lock").exists());
    let executor = executor_pid(&directory);
    wait_for("the start to hang", || !programs_of(executor).is_empty());
    let [child] = programs_of(executor)[..] else { panic!() };
    let lock = File::open(directory.path("lock")).unwrap();
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));

    watcher.kill().unwrap();
    watcher.wait().unwrap();
    lock.lock().unwrap();

    assert!(!is_alive(&child.to_string()));
    program.release();
    assert!(!program.witness.exists(), "it ran after all");
}
