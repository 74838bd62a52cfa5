//! The executor with real programs: limits, and a program's input and output.
//!
//!
//! - `left`: no process of a program is left behind. `lost`: executors and watchers that are killed
//!   or stuck. `stuck`: programs whose start hangs.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "../common/mod.rs"]
mod common;
mod left;
mod lost;
mod stuck;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;

use common::{Directory, command, executor_pid, executor_program, is_alive, shell, wait_for};
use fence_device::{Command, ExecutorClient, Limit, OUTPUT_BYTES_MAX, RunOutcome, boot_ms_now};
use nix::unistd::Pid;

fn exited(code: i32, stdout: &str, stderr: &str) -> RunOutcome {
    RunOutcome::Exited { code, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}

/// Runs `command` in a thread and returns when its script has created the file `name`.
fn run_until_file(
    executor: &ExecutorClient,
    command: Command,
    directory: &Directory,
    name: &str,
) -> thread::JoinHandle<RunOutcome> {
    let executor = executor.clone();
    let running = thread::spawn(move || executor.run(command));
    wait_for("the program's start", || directory.read(name).ends_with('\n'));
    running
}

#[test]
fn a_program_ends_with_its_code_and_its_words() {
    let directory = Directory::new();
    let executor = directory.executor();

    let outcome = executor.run(shell("echo out; echo err >&2; exit 7"));
    assert_eq!(outcome, exited(7, "out\n", "err\n"));
    let outcome = executor.run(shell("kill -9 $$"));
    assert_eq!(
        outcome,
        RunOutcome::Signaled { signal: 9, stdout: String::new(), stderr: String::new() }
    );
}

#[test]
fn a_program_that_a_real_time_signal_ends_is_reported_at_once() {
    let directory = Directory::new();
    let executor = directory.executor();

    let outcome = executor.run(shell("kill -40 $$"));
    assert!(matches!(outcome, RunOutcome::Signaled { signal: 0, .. }), "{outcome:?}");
}

#[test]
fn a_program_inherits_nothing_from_the_watcher() {
    let directory = Directory::new();
    let executor = directory.executor();

    let outcome = executor.run(command(&["/usr/bin/env"]));
    assert_eq!(outcome, exited(0, "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n", ""));
    let outcome = executor.run(shell("pwd; readlink /proc/self/fd/0; ls /proc/self/fd | wc -w"));
    // 0, 1, 2, and the descriptor through which ls reads the directory.
    assert_eq!(outcome, exited(0, "/\n/dev/null\n4\n", ""));
    let outcome = executor.run(shell("grep -E '^Sig(Blk|Ign)' /proc/self/status"));
    let RunOutcome::Exited { code: 0, stdout, .. } = outcome else { panic!("{outcome:?}") };
    for line in stdout.lines() {
        let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // The standard signals; the C library reserves two others.
        assert_eq!(set & 0x7fff_ffff, 0, "{line}");
    }
}

#[test]
fn a_program_leads_a_group_in_the_executors_session() {
    let directory = Directory::new();
    let executor = directory.executor();

    let RunOutcome::Exited { stdout, .. } =
        executor.run(shell("cut -d ' ' -f 1,5,6 /proc/$$/stat"))
    else {
        panic!()
    };
    let numbers: Vec<&str> = stdout.split_whitespace().collect();
    assert_eq!(numbers[0], numbers[1]);
    assert_eq!(numbers[2], executor_pid(&directory).to_string());
}

#[test]
fn the_input_of_a_program_is_delivered_completely_and_need_not_be_read() {
    let directory = Directory::new();
    let executor = directory.executor();
    let text = "é{\"a\":\"b\\n\"}\n".repeat(80_000);

    let mut counting = command(&["/usr/bin/wc", "-c"]);
    counting.stdin.clone_from(&text);
    assert_eq!(executor.run(counting), exited(0, &format!("{}\n", text.len()), ""));

    let mut ignoring = command(&["/bin/true"]);
    ignoring.stdin = text;
    assert_eq!(executor.run(ignoring), exited(0, "", ""));
}

#[test]
fn output_is_read_to_its_end_and_kept_up_to_its_bound() {
    let directory = Directory::new();
    let executor = directory.executor();

    let RunOutcome::Exited { code: 0, stdout, stderr } =
        executor.run(shell("head -c 5000000 /dev/zero | tr '\\0' x; echo end >&2"))
    else {
        panic!()
    };
    let more = format!("\n({} bytes more)", 5_000_000 - OUTPUT_BYTES_MAX);
    assert_eq!(stdout, "x".repeat(OUTPUT_BYTES_MAX) + &more);
    assert_eq!(stderr, "end\n");
}

#[test]
fn output_is_readable_text() {
    let directory = Directory::new();
    let executor = directory.executor();

    let outcome = executor.run(shell("printf 'a\\033[2J\\r\\t\\377\\000\\n'"));
    assert_eq!(outcome, exited(0, "a\u{fffd}[2J\u{fffd}\t\u{fffd}\u{fffd}\n", ""));
}

#[test]
fn the_processes_have_names() {
    let directory = Directory::new();
    let executor = directory.executor();
    let name = |pid: Pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();

    let pid = executor_pid(&directory);
    assert_eq!(name(pid), "fence-executor\n");
    let outcome = executor.run(shell("cat /proc/$PPID/comm"));
    assert_eq!(outcome, exited(0, "fence-keeper\n", ""));
}

#[test]
fn a_program_that_ignores_signals_is_killed_nevertheless() {
    let directory = Directory::new();
    let executor = directory.executor();

    let limit = Limit::in_ms(300);
    let outcome =
        executor.run(Command { limit, ..shell("trap '' TERM INT HUP; while :; do :; done") });
    assert!(matches!(outcome, RunOutcome::TimedOut { .. }), "{outcome:?}");
}

#[test]
fn a_background_process_that_holds_the_output_open_delays_nothing() {
    let directory = Directory::new();
    let executor = directory.executor();

    let outcome = executor.run(shell("sleep 1000 & echo $!"));

    let RunOutcome::Exited { code: 0, stdout: pid, .. } = outcome else { panic!("{outcome:?}") };
    assert!(!is_alive(&pid));
}

#[test]
fn nothing_is_started_when_it_is_too_late() {
    let directory = Directory::new();
    let executor = directory.executor();
    let touching = || {
        let path = directory.path("touched").into_os_string().into_string().unwrap();
        command(&["/usr/bin/touch", &path])
    };

    let now = boot_ms_now();
    let late = Command { start_not_after_boot_ms: now, ..touching() };
    assert_eq!(executor.run(late), RunOutcome::TooLate);
    let late = Command { limit: Limit { not_after_boot_ms: now }, ..touching() };
    assert_eq!(executor.run(late), RunOutcome::TooLate);
    assert!(!directory.path("touched").exists());

    assert_eq!(executor.run(touching()), exited(0, "", ""));
    assert!(directory.path("touched").exists());
}

#[test]
fn a_program_that_cannot_be_started_is_reported() {
    let directory = Directory::new();
    let executor = directory.executor();
    fs::write(directory.path("no-program"), "x").unwrap();
    let no_program = directory.path("no-program").into_os_string().into_string().unwrap();

    for argv in [&["/no/such/program"][..], &[&no_program], &["/bin/echo", "a\0b"], &[]] {
        let outcome = executor.run(command(argv));
        assert!(matches!(outcome, RunOutcome::NotStarted(_)), "{argv:?}: {outcome:?}");
    }
    let outcome = executor.run(command(&["/no/such/program"]));
    let RunOutcome::NotStarted(problem) = outcome else { panic!("{outcome:?}") };
    assert!(problem.contains("\"/no/such/program\""), "{problem}");
}

#[test]
fn five_hundred_programs_run_at_once() {
    let directory = Directory::new();
    let executor = directory.executor();
    let fifo = directory.path("gate");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fifo = fifo.into_os_string().into_string().unwrap();
    let (sender, outcomes) = channel();

    // Each reports that it runs and waits at the gate, so that all run at the same time.
    for number in 0..500 {
        let (executor, sender) = (executor.clone(), sender.clone());
        let began = directory.path(&format!("began-{number}")).into_os_string();
        let script = format!("echo > {}; echo {number}; read x < {fifo}", began.to_str().unwrap());
        let run = move || sender.send((number, executor.run(shell(&script)))).unwrap();
        thread::Builder::new().stack_size(64 * 1024).spawn(run).unwrap();
    }
    let all_began = || (0..500).all(|number| directory.path(&format!("began-{number}")).exists());
    wait_for("all to run", all_began);
    // Opened in both directions, so that neither side must wait for the other; one line for each
    // program.
    let mut gate = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    gate.write_all(&[b'\n'; 500]).unwrap();

    for _ in 0..500 {
        let (number, outcome) = outcomes.recv().unwrap();
        assert_eq!(outcome, exited(0, &format!("{number}\n"), ""));
    }
}

#[test]
fn an_executor_that_cannot_lock_reports_why() {
    let directory = Directory::new();
    let missing = directory.path("missing/lock");

    let error = ExecutorClient::start(&executor_program(), &[], &missing).unwrap_err().to_string();
    assert!(error.contains("missing/lock"), "{error}");
    let error = ExecutorClient::start(Path::new("/bin/true"), &[], &missing).unwrap_err();
    assert!(error.to_string().contains("ended before it was ready"), "{error}");
    assert!(ExecutorClient::start(Path::new("/no/program"), &[], &missing).is_err());
    let lock = directory.path("lock");
    let watcher = File::create(&lock).unwrap();
    watcher.lock().unwrap();
    let error = ExecutorClient::start(&executor_program(), &[], &lock).unwrap_err().to_string();
    assert!(error.contains("exclusively"), "{error}");
}
