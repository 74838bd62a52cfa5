//! Crash injection: the programs that ship, killed at every system call that matters.
//!
//! The test begins with a sweep: for each victim and each kind of call, it kills at the first call,
//! the second, and so on, until the victim survives. Then, until the time is over, it runs rounds
//! of several kills at random calls, so that it also kills a watcher that repairs what the previous
//! one left. Each finding is printed with the words that repeat its round.
//!
//! `CRASH_SECONDS` is the time limit (an hour makes tens of thousands of kills), `CRASH_SEED`
//! chooses the random rounds, and `CRASH_REPLAY='watcher:fsync:3,agent:write:2'` repeats one round
//! for that time: the kills are the same, but the timing between them is not.
//!
//!
//! - `kill`: one kill. `round`: a round of them. `audit`: what must hold afterwards.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod audit;
#[path = "../common/mod.rs"]
mod common;
mod kill;
mod round;

use std::collections::BTreeMap;
use std::env;
use std::io::{Write, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use kill::{Kill, LOOKS, Victim};
use round::Report;

/// The default duration of the rounds.
const SECONDS: u64 = 100;

/// The number of concurrent rounds; each mostly waits for other processes.
const AT_ONCE: usize = 8;

/// After this many findings, more of them would show nothing new.
const FINDINGS_MAX: usize = 5;

/// A call with more repetitions than this is repeated without end.
const NTH_MAX: u32 = 60;

#[test]
fn a_kill_at_any_system_call_loses_nothing_and_repeats_nothing() {
    if !common::can_trace("crash") {
        return;
    }
    common::agent_program();
    let rounds = Rounds::new();
    if let Ok(text) = env::var("CRASH_REPLAY") {
        let kills: Vec<Kill> = text.split(',').map(|kill| kill.parse().unwrap()).collect();
        while !rounds.is_over() {
            rounds.run(&kills);
        }
    } else {
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    rounds.sweep();
                    rounds.wander();
                });
            }
        });
    }
    rounds.conclude();
}

#[test]
fn a_watcher_that_retries_what_a_dead_one_had_claimed_would_be_found() {
    if !common::can_trace("crash") {
        return;
    }
    common::agent_program();
    let found = (1..NTH_MAX).any(|nth| {
        let kill = Kill { victim: Victim::Starting, call: "fsync".to_owned(), nth };
        let report = round::run(&[kill], true);
        report.findings.iter().any(|finding| finding.contains("S2: executed more than once"))
    });
    assert!(found);
}

#[test]
fn two_watchers_that_act_on_one_target_at_the_same_time_would_be_found() {
    let found = (1..NTH_MAX).any(|_| {
        let report = round::run_beside_another_spool();
        report.findings.iter().any(|finding| finding.contains("S6: n0 is acted on twice"))
    });
    assert!(found);
}

#[test]
fn a_watcher_that_gets_no_inotify_finds_requests_without_waiting_for_the_usual_look() {
    if !common::can_trace("crash") {
        return;
    }
    let site = common::Site::new();
    site.configure(&format!("[service]\nrescan = '1h'\n{}", site.recorder("power", "*", "")));
    let service = site.watcher_command(common::SERVICE);
    let mut blind = Command::new("strace");
    blind.args(["-D", "-q", "-o", "/dev/null", "-e", "inject=inotify_init1:error=EMFILE", "--"]);
    blind.arg(service.get_program()).args(service.get_args());
    let (watcher, _told) = site.start_as(blind);
    watcher.await_log("inotify is not available");
    // The look at the start may find the first request.
    for _ in 0..2 {
        let id = common::new_id();
        site.spool.submit(&id, &common::request(&id, "off", "n1"));
        site.spool.await_result(&id, "success");
    }
}

struct Rounds {
    began: Instant,
    until: Instant,
    seed: u64,
    /// The sweeps that no thread has started.
    sweeps: Mutex<Vec<(Victim, &'static str)>>,
    next_seed: Mutex<u64>,
    figures: Mutex<Figures>,
}

#[derive(Default)]
struct Figures {
    rounds: u32,
    kills: BTreeMap<(Victim, String), u32>,
    results: BTreeMap<String, u32>,
    swept: u32,
    findings: Vec<String>,
}

impl Rounds {
    fn new() -> Self {
        let number = |name| env::var(name).ok().map(|text| text.parse().unwrap());
        let seed = number("CRASH_SEED").unwrap_or(1);
        let began = Instant::now();
        let all = Victim::ALL.iter().rev();
        let sweeps = all.flat_map(|victim| victim.deeds().iter().map(|call| (*victim, *call)));
        Rounds {
            began,
            until: began + Duration::from_secs(number("CRASH_SECONDS").unwrap_or(SECONDS)),
            seed,
            sweeps: Mutex::new(sweeps.collect()),
            next_seed: Mutex::new(seed),
            figures: Mutex::default(),
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.figures.lock().unwrap().findings.len() >= FINDINGS_MAX
    }

    /// Kills at every call that has an effect, one round each.
    fn sweep(&self) {
        while let Some((victim, call)) = { self.sweeps.lock().unwrap().pop() } {
            let hits = |nth: &u32| {
                let kill = Kill { victim, call: call.to_owned(), nth: *nth };
                !self.is_over() && self.run(&[kill]).first() == Some(&true)
            };
            if (1..=NTH_MAX).find(|nth| !hits(nth)).is_some() && !self.is_over() {
                self.figures.lock().unwrap().swept += 1;
            }
        }
    }

    /// Several kills at random calls in one round.
    fn wander(&self) {
        while !self.is_over() {
            let seed = {
                let mut next = self.next_seed.lock().unwrap();
                *next += 1;
                *next
            };
            let mut random = Random(seed);
            let kills: Vec<Kill> = (0..=random.below(4)).map(|_| random.kill()).collect();
            self.run(&kills);
        }
    }

    /// Runs a round, counts it, and returns which kills took effect.
    fn run(&self, kills: &[Kill]) -> Vec<bool> {
        let report = catch_unwind(AssertUnwindSafe(|| round::run(kills, false)));
        let report = report.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Report { findings: vec![text], ..Report::default() }
        });
        let mut figures = self.figures.lock().unwrap();
        figures.rounds += 1;
        for (kill, _) in kills.iter().zip(&report.hits).filter(|(_, hit)| **hit) {
            *figures.kills.entry((kill.victim, kill.call.clone())).or_default() += 1;
        }
        for (result, count) in report.results {
            *figures.results.entry(result).or_default() += count;
        }
        let words = kills.iter().map(Kill::to_string).collect::<Vec<_>>().join(",");
        figures.findings.extend(
            report.findings.into_iter().map(|text| format!("CRASH_REPLAY='{words}': {text}")),
        );
        report.hits
    }

    fn conclude(&self) {
        let figures = self.figures.lock().unwrap();
        let total: u32 = figures.kills.values().sum();
        let mut out = stdout().lock();
        writeln!(
            out,
            "figures: crash: {} rounds, {total} kills in {} s, {} of {} sweeps to their end, seed {}",
            figures.rounds,
            self.began.elapsed().as_secs(),
            figures.swept,
            Victim::ALL.iter().map(|victim| victim.deeds().len()).sum::<usize>(),
            self.seed
        )
        .unwrap();
        for victim in Victim::ALL {
            let of = figures.kills.iter().filter(|((of, _), _)| *of == victim);
            let calls: Vec<_> = of.map(|((_, call), count)| format!("{call} {count}")).collect();
            writeln!(out, "figures: crash: {victim:?}: {}", calls.join(", ")).unwrap();
        }
        writeln!(out, "figures: crash: answers {:?}", figures.results).unwrap();
        drop(out);
        let findings = &figures.findings;
        assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n\n"));
        assert!(total > 0, "no process was killed");
    }
}

/// xorshift64*: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % limit
    }

    fn kill(&mut self) -> Kill {
        let victim = Victim::ALL[self.below(Victim::ALL.len())];
        let (calls, most) = if self.below(3) == 0 { (LOOKS, 150) } else { (victim.deeds(), 12) };
        let call = calls[self.below(calls.len())].to_owned();
        // Most calls are made a few times, some of them often.
        let below = 1 + self.below(most);
        Kill { victim, call, nth: u32::try_from(1 + self.below(below)).unwrap() }
    }
}
