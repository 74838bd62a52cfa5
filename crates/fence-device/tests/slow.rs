//! Executors and keepers that are slow but not dead: none of this ends another job's program.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::fs;
use std::path::Path;
use std::thread::{self, JoinHandle};

use common::{Directory, children_of, command, executor_pid, is_alive, shell, wait_for};
use fence_device::{Command, ExecutorClient, Limit, RunOutcome, boot_ms_now};
use nix::sys::signal::{Signal, kill};

/// A program that runs until it may end; it writes its number to `pid`.
struct Held {
    directory: Directory,
    gate: String,
}

impl Held {
    fn new() -> Self {
        let directory = Directory::new();
        let gate = directory.path("gate");
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Held { gate: gate.into_os_string().into_string().unwrap(), directory }
    }

    /// Starts the program as an order with this limit, and returns when it runs.
    fn begin(&self, executor: &ExecutorClient, limit: Limit) -> JoinHandle<RunOutcome> {
        let pid = self.directory.path("pid");
        let script = format!("echo $$ > '{}'; read x < '{}'", pid.display(), self.gate);
        let (executor, command) = (executor.clone(), Command { limit, ..shell(&script) });
        let running = thread::spawn(move || executor.run(command));
        wait_for("the order's start", || self.directory.read("pid").ends_with('\n'));
        running
    }

    fn end(&self) {
        fs::write(&self.gate, "\n").unwrap();
    }

    fn is_alive(&self) -> bool {
        is_alive(&self.directory.read("pid"))
    }
}

fn done() -> RunOutcome {
    RunOutcome::Exited { code: 0, stdout: String::new(), stderr: String::new() }
}

#[test]
fn a_question_to_a_stopped_executor_ends_alone() {
    let directory = Directory::new();
    let executor = directory.executor();
    let pid = executor_pid(&directory);
    let order = Held::new();
    let running = order.begin(&executor, Limit::in_ms(60_000));

    kill(pid, Signal::SIGSTOP).unwrap();
    // Together longer than the wait for a stuck executor.
    for _ in 0..3 {
        let question = Command { limit: Limit::in_ms(500), ..command(&["/bin/true"]) };
        assert_eq!(executor.ask(question), RunOutcome::NotReported);
    }
    let question = Command { limit: Limit::in_ms(4_000), ..command(&["/bin/true"]) };
    assert_eq!(executor.ask(question), RunOutcome::NotReported);
    assert!(order.is_alive());
    kill(pid, Signal::SIGCONT).unwrap();

    assert_eq!(executor.ask(command(&["/bin/true"])), done());
    order.end();
    assert_eq!(running.join().unwrap(), done());
    assert_eq!(executor_pid(&directory), pid, "the executor was given up");
}

#[test]
fn an_executor_that_is_stopped_past_an_orders_limit_has_time_to_report_its_end() {
    let directory = Directory::new();
    let executor = directory.executor();
    let pid = executor_pid(&directory);
    let (order, longer) = (Held::new(), Held::new());
    let running = order.begin(&executor, Limit::in_ms(1_000));
    let other = longer.begin(&executor, Limit::in_ms(60_000));

    kill(pid, Signal::SIGSTOP).unwrap();
    order.end();
    wait_for("the order's end", || !order.is_alive());
    // The order is late by now, and the watcher has asked its executor whether it lives.
    let question = Command { limit: Limit::in_ms(2_500), ..command(&["/bin/true"]) };
    assert_eq!(executor.ask(question), RunOutcome::NotReported);
    assert!(!running.is_finished());
    kill(pid, Signal::SIGCONT).unwrap();

    assert_eq!(running.join().unwrap(), done());
    longer.end();
    assert_eq!(other.join().unwrap(), done());
    assert_eq!(executor_pid(&directory), pid, "the executor was given up");
}

#[test]
fn a_keeper_that_is_stopped_for_a_while_reports_the_result_of_its_order() {
    let directory = Directory::new();
    let executor = directory.executor();
    let order = Held::new();
    let running = order.begin(&executor, Limit::in_ms(60_000));
    let [keeper] = children_of(executor_pid(&directory))[..] else { panic!() };

    kill(keeper, Signal::SIGSTOP).unwrap();
    order.end();
    wait_for("the order's end", || !order.is_alive());
    assert_eq!(executor.ask(command(&["/bin/true"])), done());
    kill(keeper, Signal::SIGCONT).unwrap();

    assert_eq!(running.join().unwrap(), done());
}

/// As during a suspend of a machine, or a pause of a virtual one.
#[test]
fn when_all_were_stopped_past_an_orders_limit_its_end_is_reported() {
    let directory = Directory::new();
    let executor = directory.executor();
    let pid = executor_pid(&directory);
    let order = Held::new();
    let running = order.begin(&executor, Limit::in_ms(1_000));
    let [keeper] = children_of(pid)[..] else { panic!() };

    kill(keeper, Signal::SIGSTOP).unwrap();
    kill(pid, Signal::SIGSTOP).unwrap();
    order.end();
    wait_for("the order's end", || !order.is_alive());
    let question = Command { limit: Limit::in_ms(2_500), ..command(&["/bin/true"]) };
    assert_eq!(executor.ask(question), RunOutcome::NotReported);
    // The executor first sees that its keeper is late.
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(executor.ask(command(&["/bin/true"])), done());
    kill(keeper, Signal::SIGCONT).unwrap();

    assert_eq!(running.join().unwrap(), done());
}

#[test]
fn a_stuck_executor_without_an_order_is_replaced_before_the_next_job() {
    let directory = Directory::new();
    let executor = directory.executor();
    let stuck = executor_pid(&directory);
    let question = |limit_ms| Command { limit: Limit::in_ms(limit_ms), ..command(&["/bin/true"]) };

    kill(stuck, Signal::SIGSTOP).unwrap();
    assert_eq!(executor.ask(question(100)), RunOutcome::NotReported);
    // From now on, its time to answer the question runs.
    assert_eq!(executor.ask(question(8_000)), RunOutcome::NotReported);

    assert_eq!(executor.run(command(&["/bin/true"])), done());
    assert_ne!(executor_pid(&directory), stuck);
    assert!(!is_alive(&stuck.to_string()));
}

#[test]
fn more_jobs_than_a_stopped_executor_has_room_for_are_carried_out_later() {
    let directory = Directory::new();
    let executor = directory.executor();
    let pid = executor_pid(&directory);

    kill(pid, Signal::SIGSTOP).unwrap();
    let input = "x".repeat(400_000);
    let jobs: Vec<_> = (0..3)
        .map(|_| {
            let counting = Command { stdin: input.clone(), ..command(&["/usr/bin/wc", "-c"]) };
            let executor = executor.clone();
            thread::spawn(move || executor.run(counting))
        })
        .collect();
    // Longer than the earlier wait of the writer for room.
    let question = Command { limit: Limit::in_ms(500), ..command(&["/bin/true"]) };
    assert_eq!(executor.ask(question), RunOutcome::NotReported);
    kill(pid, Signal::SIGCONT).unwrap();

    for job in jobs {
        let RunOutcome::Exited { code: 0, stdout, .. } = job.join().unwrap() else { panic!() };
        assert_eq!(stdout, "400000\n");
    }
    assert_eq!(executor_pid(&directory), pid, "the executor was given up");
}

#[test]
fn an_order_waits_for_no_keeper_of_a_question() {
    let directory = Directory::new();
    let executor = directory.executor();
    let pid = executor_pid(&directory);
    let order_log = directory.path("order");

    // All of them are waiting when the executor continues.
    kill(pid, Signal::SIGSTOP).unwrap();
    let note = format!("echo $1 >> '{}'", order_log.display());
    let noting = |word: &str| command(&["/bin/sh", "-c", &note, "sh", word]);
    let ask = |job: Command| {
        let executor = executor.clone();
        thread::spawn(move || executor.ask(job))
    };
    let questions: Vec<_> = (0..40).map(|_| ask(noting("question"))).collect();
    let sent = Command { limit: Limit::in_ms(1_000), ..command(&["/bin/true"]) };
    assert_eq!(executor.ask(sent), RunOutcome::NotReported);
    let order = executor.clone();
    let order = {
        let job = noting("order");
        thread::spawn(move || order.run(job))
    };
    let sent = Command { limit: Limit::in_ms(1_000), ..command(&["/bin/true"]) };
    assert_eq!(executor.ask(sent), RunOutcome::NotReported);
    kill(pid, Signal::SIGCONT).unwrap();

    assert_eq!(order.join().unwrap(), done());
    for question in questions {
        assert_eq!(question.join().unwrap(), done());
    }
    let began = fs::read_to_string(order_log).unwrap();
    let place = began.lines().position(|line| line == "order").unwrap();
    // At most two keepers were idle, and the keeper for an order starts like others.
    assert!(place < 10, "{began}");
}

#[test]
fn a_job_that_a_stopped_executor_takes_too_late_is_not_started() {
    let directory = Directory::new();
    let executor = directory.executor();
    let pid = executor_pid(&directory);
    let touched = directory.path("touched").into_os_string().into_string().unwrap();

    kill(pid, Signal::SIGSTOP).unwrap();
    let late = Command {
        start_not_after_boot_ms: boot_ms_now() + 500,
        ..command(&["/usr/bin/touch", &touched])
    };
    let running = {
        let executor = executor.clone();
        thread::spawn(move || executor.run(late))
    };
    let question = Command { limit: Limit::in_ms(500), ..command(&["/bin/true"]) };
    assert_eq!(executor.ask(question), RunOutcome::NotReported);
    kill(pid, Signal::SIGCONT).unwrap();

    assert_eq!(running.join().unwrap(), RunOutcome::TooLate);
    assert!(!Path::new(&touched).exists());
}

#[test]
fn an_executor_that_is_slow_to_start_blames_no_lock() {
    let directory = Directory::new();
    let slow = directory.script("slow", "exec sleep 1000");
    fs::write(directory.path("lock"), "").unwrap();

    let started = ExecutorClient::start(Path::new(&slow), &[], &directory.path("lock"));

    let problem = started.unwrap_err().to_string();
    assert!(problem.contains("not ready within"), "{problem}");
    assert!(!problem.contains("lock"), "{problem}");
}
