//! Samples of times, the kernel's figures about a process, and the lines of the table.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::thread::{self, available_parallelism};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Repeated measurements of the same operation.
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) const fn new() -> Self {
        Samples(Vec::new())
    }

    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The ratio of the medians.
    pub(crate) fn against(&self, other: &Samples) -> String {
        ratio(self.percentile(50).as_secs_f64(), other.percentile(50).as_secs_f64())
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p95) = (self.percentile(50), self.percentile(95));
        write!(f, "{} / {}", milliseconds(median), milliseconds(p95))
    }
}

/// How often the processes' threads were preempted or gave the processor up: each is a wake-up.
pub(crate) fn context_switches(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(thread?.path().join("status"))?;
            let keys = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
            sum += keys.iter().filter_map(|key| figure(&status, key)).sum::<u64>();
        }
    }
    Ok(sum)
}

/// Waits until the processes have finished the work of their start.
pub(crate) fn settle(pids: &[u32]) -> Result<()> {
    for _ in 0..100 {
        let before = context_switches(pids)?;
        // No event announces that a process is idle.
        thread::sleep(Duration::from_millis(200));
        if context_switches(pids)? == before {
            return Ok(());
        }
    }
    bail!("the watcher does not come to rest");
}

/// A process's memory in KiB: the resident memory (RSS), and its proportional share (PSS).
pub(crate) fn memory(pid: u32) -> Result<(f64, f64)> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let of = |key| figure(&rollup, key).context("smaps_rollup shows no memory");
    Ok((as_kib(of("Rss")?), as_kib(of("Pss")?)))
}

/// The maximum of a process's resident memory, in KiB.
pub(crate) fn peak(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    figure(&status, "VmHWM").map(as_kib).context("/proc shows no peak of memory")
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    figure(&status, "PPid").and_then(|parent| parent.try_into().ok())
}

fn figure(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 KiB")]
fn as_kib(value: u64) -> f64 {
    value as f64
}

pub(crate) fn titles(spool: &Path, runs: usize) -> Result<()> {
    let cpus = available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let spool = spool.display();
    let about = format!("{cpus} CPUs, Linux {}, spool '{spool}', {runs} runs", kernel.trim());
    writeln!(io::stdout(), "{about}")?;
    line("", "ours", "floor", "ratio")
}

/// A line of the table.
pub(crate) fn line(label: &str, ours: &str, floor: &str, ratio: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{label:<50} {ours:>21} {floor:>21} {ratio:>6}")?)
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

pub(crate) fn kib(kib: f64) -> String {
    format!("{:.1} MiB", kib / 1024.0)
}

pub(crate) fn ratio(ours: f64, floor: f64) -> String {
    format!("{:.2}", ours / floor)
}
