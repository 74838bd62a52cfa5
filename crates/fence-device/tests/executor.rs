//! The executor with real programs: bounds, limits, and that nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::channel;
use std::thread;

use common::left_out::left_out;
use common::{
    Directory, children_of, command, executor_pid, executor_program, is_alive, shell, wait_for,
};
use fence_device::{Command, ExecutorClient, Limit, OUTPUT_BYTES_MAX, Outcome, boot_ms_now};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn exited(code: i32, stdout: &str, stderr: &str) -> Outcome {
    Outcome::Exited { code, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}

/// Runs `command` in a thread and returns when its script has made the file `name`.
fn run_until_file(
    executor: &ExecutorClient,
    command: Command,
    directory: &Directory,
    name: &str,
) -> thread::JoinHandle<Outcome> {
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
        Outcome::Signaled { signal: 9, stdout: String::new(), stderr: String::new() }
    );
}

#[test]
fn a_program_that_a_real_time_signal_ends_is_reported_at_once() {
    let directory = Directory::new();
    let executor = directory.executor();

    let outcome = executor.run(shell("kill -40 $$"));
    assert!(matches!(outcome, Outcome::Signaled { signal: 0, .. }), "{outcome:?}");
}

#[test]
fn a_program_finds_nothing_of_the_watchers() {
    let directory = Directory::new();
    let executor = directory.executor();

    let outcome = executor.run(command(&["/usr/bin/env"]));
    assert_eq!(outcome, exited(0, "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n", ""));
    let outcome = executor.run(shell("pwd; readlink /proc/self/fd/0; ls /proc/self/fd | wc -w"));
    // 0, 1, 2, and the one with which ls reads the directory.
    assert_eq!(outcome, exited(0, "/\n/dev/null\n4\n", ""));
    let outcome = executor.run(shell("grep -E '^Sig(Blk|Ign)' /proc/self/status"));
    let Outcome::Exited { code: 0, stdout, .. } = outcome else { panic!("{outcome:?}") };
    for line in stdout.lines() {
        let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // The standard signals; the C library keeps two others for itself.
        assert_eq!(set & 0x7fff_ffff, 0, "{line}");
    }
}

#[test]
fn a_program_leads_a_group_in_the_executors_session() {
    let directory = Directory::new();
    let executor = directory.executor();

    let Outcome::Exited { stdout, .. } = executor.run(shell("cut -d ' ' -f 1,5,6 /proc/$$/stat"))
    else {
        panic!()
    };
    let numbers: Vec<&str> = stdout.split_whitespace().collect();
    assert_eq!(numbers[0], numbers[1]);
    assert_eq!(numbers[2], executor_pid(&directory).to_string());
}

#[test]
fn what_a_program_is_to_read_is_delivered_whole_and_need_not_be_read() {
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

    let Outcome::Exited { code: 0, stdout, stderr } =
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

/// Ways in which a program starts something that does not end with it. Each is started in the
/// background, and runs `"$@"`.
const ESCAPES: &[&str] = &[
    // In the program's group, in one of its own, and in a session of its own.
    "\"$@\" &",
    "timeout 1000 \"$@\" &",
    "setsid \"$@\" &",
    // The same without a parent.
    "(\"$@\" &)",
    "(timeout 1000 \"$@\" &)",
    "(setsid \"$@\" &)",
    // A daemon: without a parent, in a session whose leader has ended, nothing left of its environment
    // or its open files.
    "setsid sh -c '(setsid env -i sh -c \"exec \\\"\\$@\\\" <&- >&- 2>&-\" sh \"$@\" &)' sh \"$@\"",
    // Deaf, and stopped.
    "(trap '' TERM HUP INT; setsid \"$@\" &)",
    "(setsid sh -c 'kill -STOP $$; exec \"$@\"' sh \"$@\" &)",
    // A parent that is stopped, and one that goes on when its child dies.
    "(setsid sh -c '\"$@\" & kill -STOP $$' sh \"$@\" &)",
    "(setsid sh -c 'while :; do \"$@\"; done' sh \"$@\" &)",
];

/// A script that starts something in each of these ways, which writes its number to `pids`, waits
/// until all have, writes its own number and does `finally`.
fn escaping(directory: &Directory, finally: &str) -> String {
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

/// What `escaping` has started and still runs: what wrote its number, and whatever has the program in its
/// arguments.
fn survivors(directory: &Directory) -> Vec<String> {
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
    assert_eq!(outcome, Outcome::TimedOut { stdout: "began\n".to_owned(), stderr: String::new() });
    assert_eq!(directory.read("pids").lines().count(), ESCAPES.len());
}

#[test]
fn what_a_program_leaves_is_ended_before_its_end_is_reported() {
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

fn killed(stdout: &str) -> Outcome {
    Outcome::Signaled { signal: 9, stdout: stdout.to_owned(), stderr: String::new() }
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
    assert!(matches!(outcome, Outcome::TimedOut { .. }), "{outcome:?}");
    assert_eq!(executor.run(shell("(setsid sleep 1000 &); exit 5")), exited(5, "", ""));
    let outcome = executor.run(shell("(setsid sleep 1000 &); kill -9 $PPID"));
    assert_eq!(outcome, Outcome::ExecutorLost);

    assert_eq!(survivors(&others), all);
    assert_eq!(survivors(&directory), [""; 0]);
    fs::write(others.path("gate"), "\n").unwrap();
    assert_eq!(other.join().unwrap(), exited(4, "began\n", ""));
    assert_eq!(survivors(&others), [""; 0]);
}

/// A fifo, from which a script reads when it is to go on.
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
    assert_eq!(outcome, Outcome::ExecutorLost);
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
        assert!(matches!(outcome, Outcome::TimedOut { .. }), "{outcome:?}");
        assert_eq!(executor_pid(&directory), pid, "the executor was given up");
    }
    assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
}

/// A control group whose processes no signal reaches, as if they hung in the kernel. That is so in the
/// first version of control groups alone, which a system that uses the second can mount beside it.
struct Freezer {
    group: PathBuf,
    mount: PathBuf,
}

impl Freezer {
    /// `None` where nothing can be mounted, or the kernel has no such groups.
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
            "(setsid sleep 1000 & echo $! > '{group}/tasks')\necho FROZEN > '{group}/freezer.state'\n\
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
fn what_cannot_be_killed_is_given_up_and_ends_when_it_can() {
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
        assert!(frozen.iter().any(|pid| is_alive(pid)), "the test freezes nobody");
        let is_right = match limit_ms {
            2_000 => matches!(outcome, Outcome::TimedOut { .. }),
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
fn a_program_that_ignores_signals_is_killed_all_the_same() {
    let directory = Directory::new();
    let executor = directory.executor();

    let limit = Limit::in_ms(300);
    let outcome =
        executor.run(Command { limit, ..shell("trap '' TERM INT HUP; while :; do :; done") });
    assert!(matches!(outcome, Outcome::TimedOut { .. }), "{outcome:?}");
}

#[test]
fn a_background_process_that_holds_the_output_open_delays_nothing() {
    let directory = Directory::new();
    let executor = directory.executor();

    let outcome = executor.run(shell("sleep 1000 & echo $!"));

    let Outcome::Exited { code: 0, stdout: pid, .. } = outcome else { panic!("{outcome:?}") };
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
    assert_eq!(executor.run(late), Outcome::TooLate);
    let late = Command { limit: Limit { not_after_boot_ms: now }, ..touching() };
    assert_eq!(executor.run(late), Outcome::TooLate);
    assert!(!directory.path("touched").exists());

    assert_eq!(executor.run(touching()), exited(0, "", ""));
    assert!(directory.path("touched").exists());
}

#[test]
fn what_cannot_be_started_is_said_so() {
    let directory = Directory::new();
    let executor = directory.executor();
    fs::write(directory.path("no-program"), "x").unwrap();
    let no_program = directory.path("no-program").into_os_string().into_string().unwrap();

    for argv in [&["/no/such/program"][..], &[&no_program], &["/bin/echo", "a\0b"], &[]] {
        let outcome = executor.run(command(argv));
        assert!(matches!(outcome, Outcome::NotStarted(_)), "{argv:?}: {outcome:?}");
    }
    let outcome = executor.run(command(&["/no/such/program"]));
    let Outcome::NotStarted(problem) = outcome else { panic!("{outcome:?}") };
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

    // Each says that it runs and waits at the gate, so that all run at the same time.
    for number in 0..500 {
        let (executor, sender) = (executor.clone(), sender.clone());
        let began = directory.path(&format!("began-{number}")).into_os_string();
        let script = format!("echo > {}; echo {number}; read x < {fifo}", began.to_str().unwrap());
        let run = move || sender.send((number, executor.run(shell(&script)))).unwrap();
        thread::Builder::new().stack_size(64 * 1024).spawn(run).unwrap();
    }
    let all_began = || (0..500).all(|number| directory.path(&format!("began-{number}")).exists());
    wait_for("all to run", all_began);
    // Opened in both directions, so that neither side has to wait for the other; a line for each.
    let mut gate = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    gate.write_all(&[b'\n'; 500]).unwrap();

    for _ in 0..500 {
        let (number, outcome) = outcomes.recv().unwrap();
        assert_eq!(outcome, exited(0, &format!("{number}\n"), ""));
    }
}

/// A program that cannot be started as long as this value lives: somebody holds a lease on its file,
/// and the kernel keeps whoever opens that waiting, as a dead file server would. It leaves a file when
/// it has run after all.
struct Unstartable {
    program: String,
    witness: std::path::PathBuf,
    holder: std::process::Child,
}

impl Unstartable {
    fn new(directory: &Directory) -> Self {
        let witness = directory.path("witness");
        let program = directory.script("unstartable", &format!("echo > {}", witness.display()));
        // F_SETLEASE, F_WRLCK. Whoever breaks the lease sends SIGIO.
        let hold = "$SIG{IO} = 'IGNORE'; open(my $f, '+<', $ARGV[0]) or die; \
                    fcntl($f, 1024, 1) or die; syswrite(STDOUT, \"held\\n\"); sleep 1000";
        let mut holder = std::process::Command::new("perl")
            .args(["-e", hold, &program])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = [0; 5];
        holder.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        Unstartable { program, witness, holder }
    }

    /// Lets it be started.
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

/// What the keepers of an executor run.
fn programs_of(executor: Pid) -> Vec<Pid> {
    children_of(executor).into_iter().flat_map(children_of).collect()
}

/// Runs it in a thread and returns when its start hangs.
fn run_until_stuck(
    executor: &ExecutorClient,
    program: &Unstartable,
    limit: Limit,
    directory: &Directory,
) -> thread::JoinHandle<Outcome> {
    let (client, command) = (executor.clone(), Command { limit, ..command(&[&program.program]) });
    let running = thread::spawn(move || client.run(command));
    let executor = executor_pid(directory);
    wait_for("the start to hang", || !programs_of(executor).is_empty());
    running
}

#[test]
fn a_program_whose_start_hangs_holds_up_no_other() {
    let directory = Directory::new();
    let executor = directory.executor();
    let mut program = Unstartable::new(&directory);
    let stuck = run_until_stuck(&executor, &program, Limit::in_ms(60_000), &directory);

    for _ in 0..3 {
        assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
        let limited = Command { limit: Limit::in_ms(200), ..shell("sleep 1000") };
        assert!(matches!(executor.run(limited), Outcome::TimedOut { .. }));
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

    assert!(matches!(outcome, Outcome::TimedOut { .. }), "{outcome:?}");
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

    assert_eq!(stuck.join().unwrap(), Outcome::ExecutorLost);
    assert!(!is_alive(&child.to_string()));
    program.release();
    assert!(!program.witness.exists(), "it ran after all");
}

#[test]
fn the_programs_of_a_killed_executor_are_ended_before_anybody_is_told() {
    let directory = Directory::new();
    let executor = directory.executor();
    for with_keepers in [false, true] {
        let script = escaping(&directory, &format!("echo > '{}'; wait", began(&directory)));
        let running = run_until_file(&executor, shell(&script), &directory, "began");
        assert!(survivors(&directory).len() >= ESCAPES.len(), "the test sees nothing end");
        let pid = executor_pid(&directory);

        let keepers = children_of(pid);
        // Stopped, so that it cannot clean up after the keepers that are killed first.
        kill(pid, Signal::SIGSTOP).unwrap();
        for keeper in keepers.into_iter().filter(|_| with_keepers) {
            kill(keeper, Signal::SIGKILL).unwrap();
        }
        kill(pid, Signal::SIGKILL).unwrap();

        assert_eq!(running.join().unwrap(), Outcome::ExecutorLost);
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

/// Started once more by the test below: runs a program for ever, and is killed meanwhile.
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

/// A process with an executor, which runs a program that has started much.
fn watcher_with_programs(directory: &Directory) -> Child {
    let script = escaping(directory, &format!("echo > '{}'; wait", began(directory)));
    fs::write(directory.path("script"), script).unwrap();
    let watcher = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "watcher_that_is_going_to_be_killed"])
        .env("FENCE_DEVICE_TEST_WATCHER", directory.path(""))
        .spawn()
        .unwrap();
    wait_for("the programs' start", || Path::new(&began(directory)).exists());
    assert!(survivors(directory).len() >= ESCAPES.len(), "the test sees nothing end");
    watcher
}

#[test]
fn a_watcher_killed_by_sigkill_takes_its_programs_along_before_its_lock_is_free() {
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

/// Kills all of a watcher's own processes, so that nobody is left who could clean up.
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
fn what_is_left_when_all_are_killed_at_once_is_ended_by_the_next_executor() {
    let directory = Directory::new();
    let mut watcher = watcher_with_programs(&directory);
    kill_all_of(&mut watcher, &directory);

    let _next = directory.executor();

    assert_eq!(survivors(&directory), [""; 0]);
}

#[test]
fn a_note_of_which_anything_is_not_certain_ends_nobody() {
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
        // All are older than the executor, which started a day after this one.
        format!("{boot} {namespace} {} {mark}", since_number + 8_640_000),
        // Another mark, none, and the limit of everybody who has none.
        format!("{boot} {namespace} {since} {}", mark.parse::<u64>().unwrap() ^ 1),
        format!("{boot} {namespace} {since} 0"),
        format!("{boot} {namespace} {since} {}", u64::MAX),
        // As it was written before.
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
fn a_program_whose_start_hangs_is_killed_with_the_watcher_before_its_lock_is_free() {
    let directory = Directory::new();
    let mut program = Unstartable::new(&directory);
    let mut watcher = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "watcher_that_is_going_to_be_killed"])
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

#[test]
fn a_lost_executor_is_replaced() {
    let directory = Directory::new();
    let executor = directory.executor();

    for _ in 0..20 {
        let lost = executor_pid(&directory);
        kill(lost, Signal::SIGKILL).unwrap();
        wait_for("its end", || !is_alive(&lost.to_string()));
        // Whether the loss has been noticed by now or not: what was not begun is begun.
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

    assert_eq!(running.join().unwrap(), Outcome::ExecutorLost);
    wait_for("the program's death", || !is_alive(&directory.read("pid")));
    assert_eq!(executor.run(command(&["/bin/true"])), exited(0, "", ""));
}

#[test]
fn an_executor_that_cannot_lock_says_why() {
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
