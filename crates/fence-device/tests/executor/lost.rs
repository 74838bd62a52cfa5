//! Executors and watchers that are killed, and executors that are stuck: none of their programs
//! continues.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::Child;

use crate::common::{
    Directory, children_of, command, executor_pid, executor_program, is_alive, shell, wait_for,
};
use crate::left::{ESCAPES, escaping, survivors};
use crate::{exited, run_until_file};
use fence_device::{Command, ExecutorClient, Limit, RunOutcome};
use nix::sys::signal::{Signal, kill};

#[test]
fn the_programs_of_a_killed_executor_end_before_any_report() {
    let directory = Directory::new();
    let executor = directory.executor();
    for with_keepers in [false, true] {
        let script = escaping(&directory, &format!("echo > '{}'; wait", began(&directory)));
        let running = run_until_file(&executor, shell(&script), &directory, "began");
        assert!(survivors(&directory).len() >= ESCAPES.len(), "the test sees nothing end");
        let pid = executor_pid(&directory);

        let keepers = children_of(pid);
        // Stopped, so that it cannot clean up after the keepers, which are killed first.
        kill(pid, Signal::SIGSTOP).unwrap();
        for keeper in keepers.into_iter().filter(|_| with_keepers) {
            kill(keeper, Signal::SIGKILL).unwrap();
        }
        kill(pid, Signal::SIGKILL).unwrap();

        assert_eq!(running.join().unwrap(), RunOutcome::ExecutorLost);
        assert_eq!(survivors(&directory), [""; 0], "with keepers: {with_keepers}");
        fs::remove_file(began(&directory)).unwrap();
    }
}

fn began(directory: &Directory) -> String {
    directory.path("began").into_os_string().into_string().unwrap()
}

#[test]
fn the_executor_leaves_its_end_to_the_watcher() {
    let directory = Directory::new();
    let executor = directory.executor();
    let pid = executor_pid(&directory);

    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        kill(pid, signal).unwrap();
        assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
    }
    assert_eq!(executor_pid(&directory), pid);
    drop(executor);
    wait_for("its end", || !is_alive(&pid.to_string()));
}

/// The test below starts this again: it runs a program without end, and is killed meanwhile.
#[test]
fn watcher_that_is_going_to_be_killed() {
    let Ok(directory) = std::env::var("FENCE_DEVICE_TEST_WATCHER") else { return };
    let directory = Path::new(&directory);
    let executor =
        ExecutorClient::start(&executor_program(), &[], &directory.join("lock")).unwrap();
    if let Ok(program) = std::env::var("FENCE_DEVICE_TEST_PROGRAM") {
        executor.run(command(&[&program]));
        return;
    }
    executor.run(shell(&fs::read_to_string(directory.join("script")).unwrap()));
}

/// A process with an executor, which runs a program with many children.
fn watcher_with_programs(directory: &Directory) -> Child {
    let script = escaping(directory, &format!("echo > '{}'; wait", began(directory)));
    fs::write(directory.path("script"), script).unwrap();
    let watcher = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lost::watcher_that_is_going_to_be_killed"])
        .env("FENCE_DEVICE_TEST_WATCHER", directory.path(""))
        .spawn()
        .unwrap();
    wait_for("the programs' start", || Path::new(&began(directory)).exists());
    assert!(survivors(directory).len() >= ESCAPES.len(), "the test sees nothing end");
    watcher
}

#[test]
fn the_programs_of_a_watcher_killed_by_sigkill_end_before_its_lock_is_free() {
    let directory = Directory::new();
    let mut watcher = watcher_with_programs(&directory);
    let lock = File::open(directory.path("lock")).unwrap();
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));

    watcher.kill().unwrap();
    watcher.wait().unwrap();
    lock.lock().unwrap();

    assert_eq!(survivors(&directory), [""; 0]);
}

#[test]
fn a_watcher_killed_together_with_its_executor_leaves_nothing_when_its_lock_is_free() {
    let directory = Directory::new();
    let mut watcher = watcher_with_programs(&directory);
    let executor = executor_pid(&directory);

    // So that it does not see the watcher die.
    kill(executor, Signal::SIGSTOP).unwrap();
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    kill(executor, Signal::SIGKILL).unwrap();
    let lock = File::open(directory.path("lock")).unwrap();
    lock.lock().unwrap();

    assert_eq!(survivors(&directory), [""; 0]);
}

/// Kills all of a watcher's own processes, so that none is left to clean up.
fn kill_all_of(watcher: &mut Child, directory: &Directory) {
    let executor = executor_pid(directory);
    let keepers = children_of(executor);
    for pid in keepers.iter().chain([&executor]) {
        kill(*pid, Signal::SIGSTOP).unwrap();
    }
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    for pid in keepers.iter().chain([&executor]) {
        kill(*pid, Signal::SIGKILL).unwrap();
    }
    let lock = File::open(directory.path("lock")).unwrap();
    lock.lock().unwrap();
    assert!(survivors(directory).len() >= ESCAPES.len(), "the test sees nothing end");
}

#[test]
fn the_next_executor_ends_the_processes_that_remain_when_all_are_killed_at_once() {
    let directory = Directory::new();
    let mut watcher = watcher_with_programs(&directory);
    kill_all_of(&mut watcher, &directory);

    let _next = directory.executor();

    assert_eq!(survivors(&directory), [""; 0]);
}

#[test]
fn an_uncertain_note_ends_no_process() {
    let directory = Directory::new();
    let mut watcher = watcher_with_programs(&directory);
    kill_all_of(&mut watcher, &directory);
    let left = survivors(&directory);
    let note = directory.read("lock");
    let [boot, namespace, since, mark] = note.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{note}")
    };
    let (namespace_number, since_number): (u64, u64) =
        (namespace.parse().unwrap(), since.parse().unwrap());
    let other_boot = "00000000-0000-4000-8000-000000000000";
    let session = std::process::id();

    for other in [
        format!("{other_boot} {namespace} {since} {mark}"),
        format!("{boot} {} {since} {mark}", namespace_number - 1),
        // All processes are older than the noted executor, which started a day after this one.
        format!("{boot} {namespace} {} {mark}", since_number + 8_640_000),
        // Another mark, none, and the limit of a process without a mark.
        format!("{boot} {namespace} {since} {}", mark.parse::<u64>().unwrap() ^ 1),
        format!("{boot} {namespace} {since} 0"),
        format!("{boot} {namespace} {since} {}", u64::MAX),
        // The note as it was before.
        format!("{session} {boot}\n"),
        format!("{namespace} {since} {mark}"),
        String::new(),
    ] {
        fs::write(directory.path("lock"), &other).unwrap();
        drop(directory.executor());
        assert_eq!(survivors(&directory), left, "{other}");
    }

    fs::write(directory.path("lock"), &note).unwrap();
    drop(directory.executor());
    assert_eq!(survivors(&directory), [""; 0], "nothing could have been ended");
}

#[test]
fn a_lost_executor_is_replaced() {
    let directory = Directory::new();
    let executor = directory.executor();

    for _ in 0..20 {
        let lost = executor_pid(&directory);
        kill(lost, Signal::SIGKILL).unwrap();
        wait_for("its end", || !is_alive(&lost.to_string()));
        // Whether the loss has been noticed or not: a job that was not started is started.
        assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
        assert_ne!(executor_pid(&directory), lost);
    }
}

#[test]
fn a_frozen_executor_is_given_up_and_starts_nothing_later() {
    let directory = Directory::new();
    let executor = directory.executor();
    let script = format!("echo $$ > {}; sleep 1000", directory.path("pid").display());
    let running = run_until_file(
        &executor,
        Command { limit: Limit::in_ms(1_000), ..shell(&script) },
        &directory,
        "pid",
    );

    kill(executor_pid(&directory), Signal::SIGSTOP).unwrap();

    assert_eq!(running.join().unwrap(), RunOutcome::ExecutorLost);
    wait_for("the program's death", || !is_alive(&directory.read("pid")));
    assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
}
