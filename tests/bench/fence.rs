//! Speed, against a floor: the cost of a fence here, and the cost of a minimal program in C.
//!
//! Both are measured in the same run, alternately, because the speed of a machine changes more from
//! hour to hour than the code does; only the ratio can be compared. Times are printed and not
//! judged, but a failed fence ends the run with exit code 1.
//!
//!
//! - `rig`: the programs under measurement, each with a private spool. `floor.c` is the minimal
//!   pair.
//! - `measure`: samples, the kernel's own figures, and the lines of the table.
//!
//! Run it with `cargo bench -p fence-watcher`. `FENCE_AGENT` names an agent that is already built.

mod measure;
mod rig;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use measure::{
    Samples, context_switches, kib, line, memory, milliseconds, peak, ratio, settle, titles,
};
use rig::{Agent, Floor, FloorServer, Scratch, Watcher};

/// The number of samples of each single operation, and of the warm-up runs before them.
const RUNS: usize = 300;
const WARM_UPS: usize = 20;

/// The number of files in the full spool: answers, and refused requests.
const ANSWERS: usize = 100_000;
const REFUSED: usize = 10_000;

/// The number of agents that start at once.
const AGENTS: usize = 500;

const IDLE: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let scratch = Scratch::new()?;
    let agent = Agent::build()?;
    let floor = Floor::build()?;
    if floor.is_none() {
        line("no C compiler (cc): measured without the floor", "", "", "")?;
    }
    titles(scratch.path(), RUNS)?;
    fences(&scratch, &agent, floor.as_ref())?;
    starts(&agent, floor.as_ref())?;
    burst(&scratch, &agent, floor.as_ref())?;
    idleness(&scratch, floor.as_ref())
}

/// One fence from the agent's start to its exit, in a fresh spool and in one full of files.
fn fences(scratch: &Scratch, agent: &Agent, floor: Option<&Floor>) -> Result<()> {
    let fresh = Watcher::start(&scratch.join("fresh"), NO_OP)?;
    let full = scratch.join("full");
    fill(&full)?;
    let full = Watcher::start(&full, NO_OP)?;
    let server =
        floor.map(|f| FloorServer::start(f, &scratch.join("floor"), &["/bin/true"])).transpose()?;
    settle(&full.pids()?)?;

    let [mut ours, mut among, mut least] = [const { Samples::new() }; 3];
    for run in 0..WARM_UPS + RUNS {
        let fresh = timed(&mut agent.command(), &fresh.options("n1"))?;
        let full = timed(&mut agent.command(), &full.options("n1"))?;
        let floor = match &server {
            Some(server) => timed(&mut server.client(), &server.options())?,
            None => Duration::ZERO,
        };
        if run >= WARM_UPS {
            ours.push(fresh);
            among.push(full);
            least.push(floor);
        }
    }
    let least = server.is_some().then_some(&least);
    compare("one fence, start to exit (median / 95 %)", &ours, least)?;
    let label = format!("  among {} files, against none", ANSWERS + REFUSED);
    compare(&label, &among, Some(&ours))
}

/// The cost of an agent that only prints.
fn starts(agent: &Agent, floor: Option<&Floor>) -> Result<()> {
    for arguments in [&["-o", "metadata"][..], &["--version"]] {
        let command = || {
            let mut command = agent.command();
            command.args(arguments);
            command
        };
        let length = command().output()?.stdout.len();
        let [mut ours, mut least] = [const { Samples::new() }; 2];
        for _ in 0..RUNS {
            ours.push(timed(&mut command(), "")?);
            if let Some(floor) = floor {
                least.push(timed(&mut floor.print(length), "")?);
            }
        }
        let label = format!("agent {}, {length} bytes", arguments.join(" "));
        compare(&label, &ours, floor.is_some().then_some(&least))?;
    }
    Ok(())
}

/// Many agents at once, and a device that needs a second.
fn burst(scratch: &Scratch, agent: &Agent, floor: Option<&Floor>) -> Result<()> {
    let watcher = Watcher::start(&scratch.join("burst"), ONE_SECOND)?;
    let pids = watcher.pids()?;
    let ours = all_at_once(|n| (agent.command(), watcher.options(&format!("n{n}"))))?;
    let (of_watcher, of_executor) = (peak(pids[0])?, peak(pids[1])?);
    watcher.stop()?;
    let least = match floor {
        Some(floor) => {
            let sleep = ["/bin/sleep", "1"];
            let server = FloorServer::start(floor, &scratch.join("floor-burst"), &sleep)?;
            Some(all_at_once(|_| (server.client(), server.options()))?)
        }
        None => None,
    };

    let words = |of: &dyn Fn(&Burst) -> String| least.as_ref().map(of).unwrap_or_default();
    line(
        &format!("{AGENTS} agents at once, the device takes 1 s"),
        &milliseconds(ours.wall),
        &words(&|least| milliseconds(least.wall)),
        &words(&|least| ratio(ours.wall.as_secs_f64(), least.wall.as_secs_f64())),
    )?;
    let failures = |burst: &Burst| burst.failures.to_string();
    line("  of them failed", &failures(&ours), &words(&failures), "")?;
    let memory = |burst: &Burst| format!("{} / {}", kib(burst.resident), kib(burst.own));
    line(
        "  one waiting agent's memory: RSS / PSS",
        &memory(&ours),
        &words(&memory),
        &words(&|least| ratio(ours.own, least.own)),
    )?;
    let peaks = format!("{} + {}", kib(of_watcher), kib(of_executor));
    line("  peak RSS: watcher + its executor", &peaks, "", "")?;
    if ours.failures > 0 {
        bail!("{} of {AGENTS} agents failed", ours.failures);
    }
    Ok(())
}

/// The cost of an idle watcher.
fn idleness(scratch: &Scratch, floor: Option<&Floor>) -> Result<()> {
    let watcher = Watcher::start(&scratch.join("idle"), NO_OP)?;
    let server = floor
        .map(|f| FloorServer::start(f, &scratch.join("floor-idle"), &["/bin/true"]))
        .transpose()?;
    let pids = watcher.pids()?;
    settle(&pids)?;
    let before = context_switches(&pids)?;
    // The measured time.
    thread::sleep(IDLE);
    let switches = context_switches(&pids)? - before;
    line(
        &format!("idle: context switches in {} s, all threads", IDLE.as_secs()),
        &switches.to_string(),
        "",
        "",
    )?;
    let (of_watcher, of_executor) = (memory(pids[0])?, memory(pids[1])?);
    let of_server = server.map(|server| memory(server.pid())).transpose()?;
    line(
        "  RSS: watcher + its executor",
        &format!("{} + {}", kib(of_watcher.0), kib(of_executor.0)),
        &of_server.map(|(resident, _)| kib(resident)).unwrap_or_default(),
        "",
    )?;
    line(
        "  PSS: watcher + its executor",
        &format!("{} + {}", kib(of_watcher.1), kib(of_executor.1)),
        &of_server.map(|(_, own)| kib(own)).unwrap_or_default(),
        &of_server.map(|(_, own)| ratio(of_watcher.1 + of_executor.1, own)).unwrap_or_default(),
    )
}

/// The results of many agents at once; memory is the mean of one agent, in KiB.
struct Burst {
    wall: Duration,
    failures: usize,
    resident: f64,
    own: f64,
}

fn all_at_once(client: impl Fn(usize) -> (Command, String)) -> Result<Burst> {
    let begin = Instant::now();
    let mut children = Vec::with_capacity(AGENTS);
    for number in 1..=AGENTS {
        let (mut command, options) = client(number);
        children.push(spawn(&mut command, &options)?);
    }
    // A sample, so that reading does not delay the agents. An agent that has ended shows nothing.
    let sample: Vec<_> =
        children.iter().step_by(AGENTS / 20).filter_map(|child| memory(child.id()).ok()).collect();
    let mut failures = 0;
    for child in &mut children {
        failures += usize::from(!child.wait()?.success());
    }
    let wall = begin.elapsed();
    let mean = |of: fn(&(f64, f64)) -> f64| {
        #[expect(clippy::cast_precision_loss, reason = "it is twenty at most")]
        let count = sample.len().max(1) as f64;
        sample.iter().map(of).sum::<f64>() / count
    };
    Ok(Burst { wall, failures, resident: mean(|m| m.0), own: mean(|m| m.1) })
}

/// The time from before the start of a program until after its end. The program must succeed.
fn timed(command: &mut Command, options: &str) -> Result<Duration> {
    let begin = Instant::now();
    let status = spawn(command, options)?.wait()?;
    let time = begin.elapsed();
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(time)
}

fn spawn(command: &mut Command, options: &str) -> Result<Child> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(options.as_bytes())?;
    }
    Ok(child)
}

fn compare(label: &str, ours: &Samples, against: Option<&Samples>) -> Result<()> {
    line(
        label,
        &ours.to_string(),
        &against.map(Samples::to_string).unwrap_or_default(),
        &against.map(|against| ours.against(against)).unwrap_or_default(),
    )
}

/// Leaves old answers and refused requests in a spool.
fn fill(spool: &Path) -> Result<()> {
    let files = [("responses", ANSWERS, ""), ("requests/.rejected", REFUSED, ".json")];
    for (directory, count, between) in files {
        let directory = spool.join(directory);
        rig::make_private(&directory)?;
        for number in 0..count {
            let name = format!("00000000-0000-4000-8000-{number:012}{between}.json");
            fs::write(directory.join(name), "{\"success\":true}\n")?;
        }
    }
    Ok(())
}

/// A device that has nothing to do. All answers are kept.
const NO_OP: &str = r#"
[spool]
keep_answers_max = 1000000
[[device]]
name = "no-op"
type = "command"
targets = "n1"
off = ["/bin/true"]
"#;

/// A slow device, for this many executions at once.
const ONE_SECOND: &str = r#"
[[device]]
name = "slow"
type = "command"
targets = "n[1-500]"
max_concurrent = 500
off = ["/bin/sleep", "1"]
"#;
