//! Load: hundreds of clients, devices of mixed speed, and a watcher that is killed again and again.
//!
//! No request may be lost (each gets its answer) or executed twice, and memory stays bounded.
//! `LOAD_REQUESTS` is the number of requests, 10,000 by default; `LOAD_SEED` chooses when the
//! watcher dies.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../common/mod.rs"]
mod common;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs::{self, File};
use std::io::{Write, stdout};
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use common::{
    Agent, Site, Spool, agent_program, boot_id, boot_ms, child_of, holds_within, process_status,
};
use fence_protocol::{FenceAction, RecordName, Request, RequestId, Requested};
use fence_spool::{ClientSpool, Look, Places, Submitted};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

/// The number of concurrent clients; each requests one fence after the other.
const CLIENTS: usize = 200;

/// How many of them wait with inotify, as agents do. A user has only 128 instances, for all
/// programs.
const WATCHING: usize = 20;

/// No deadline is shorter: a late answer under this load is not a finding.
const DEADLINE_MS: u64 = 280_000;

/// The maximum memory that a watcher or its executor may use, in KiB.
const MEMORY_KIB_MAX: u64 = 32 * 1024;

/// The number of real agents that start in each life of the watcher.
const AGENTS: usize = 4;

/// For each device: the first letter of its targets, its share of the load, and its kind.
const DEVICES: [(char, usize, &str); 5] = [
    ('a', 4, "type = 'simulated'\ndelay = '0ms'\nmax_concurrent = 4"),
    ('b', 2, "type = 'simulated'\ndelay = '60ms'\nmax_concurrent = 16"),
    ('c', 1, "type = 'simulated'\nfail = 'unacknowledged'\ntimeout = '1s'\nmax_concurrent = 20"),
    ('d', 2, "max_concurrent = 8"),
    ('e', 1, "max_concurrent = 8"),
];

/// The number of targets of each device. There are few, so that many requests wait for the same
/// one.
const TARGETS: usize = 25;

#[test]
fn under_load_and_kills_nothing_is_lost_or_done_twice_and_memory_stays_bounded() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<usize>().unwrap());
    let requests = number("LOAD_REQUESTS").unwrap_or(10_000);
    agent_program();
    let site = site();
    let load = &Load::new(&site, requests);
    let (asked, mut lives) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || load.client(client < WATCHING)))
            .collect();
        let lives = Lives::run(&site, load, number("LOAD_SEED").unwrap_or(1));
        let asked = clients.into_iter().flat_map(|client| client.join().unwrap());
        (asked.collect::<Vec<_>>(), lives)
    });
    let took = load.began.elapsed();
    let agents: Vec<(String, Option<i32>)> =
        lives.agents.drain(..).map(|(target, agent)| (target, agent.wait().code)).collect();
    report(&asked, &agents, &lives, took);

    assert_eq!(asked.len(), requests, "requests without an answer");
    audit(&site, &asked, &agents);
    for (who, kib) in [("watcher", lives.watcher_kib), ("executor", lives.executor_kib)] {
        assert!(kib > 0 && kib < MEMORY_KIB_MAX, "the {who} used {kib} KiB");
    }
    assert!(lives.kills > 0, "it was never killed");
}

fn site() -> Site {
    let site = Site::new();
    let device = |(letter, _, nature): &(char, usize, &str)| {
        let targets = format!("{letter}[0-{}],{letter}agent[0-999]", TARGETS - 1);
        if nature.starts_with("type") {
            let state = site.path(&format!("state-{letter}"));
            return format!(
                "[[device]]\nname = '{letter}'\ntargets = '{targets}'\nstate_file = '{}'\n{nature}\n",
                state.display()
            );
        }
        let script = if *letter == 'e' { "sleep 0.1" } else { "" };
        format!("{}{nature}\n", site.recorder(&letter.to_string(), &targets, script))
    };
    site.configure(&DEVICES.iter().map(device).collect::<String>());
    for name in ["requests", "responses"] {
        fs::DirBuilder::new().mode(0o700).create(site.path(name)).unwrap();
    }
    site
}

/// The outcome of one request.
struct Asked {
    id: String,
    result: String,
    /// The request whose execution has dealt with it, if the answer names one.
    settled_by: Option<String>,
    took: Duration,
}

struct Load {
    spool: ClientSpool,
    files: Spool,
    began: Instant,
    requests: usize,
    next: AtomicUsize,
    answered: AtomicUsize,
    boot_id: String,
}

impl Load {
    fn new(site: &Site, requests: usize) -> Self {
        let places = Places::new(&site.spool.requests, &site.spool.responses);
        Load {
            spool: ClientSpool::open(&places).unwrap(),
            files: site.spool.clone(),
            began: Instant::now(),
            requests,
            next: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            boot_id: boot_id(),
        }
    }

    fn left(&self) -> usize {
        self.requests - self.answered.load(Ordering::Relaxed)
    }

    /// A client: sends requests and waits for the answers until none is left to send.
    fn client(&self, watches: bool) -> Vec<Asked> {
        let mut asked = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests {
                return asked;
            }
            let Some(one) = self.ask(number, watches) else { return asked };
            asked.push(one);
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests one fence, as the agent does. `None` if no answer arrives at all.
    fn ask(&self, number: usize, watches: bool) -> Option<Asked> {
        let began = Instant::now();
        let id = RequestId::random();
        let name = RecordName::of_id(&id);
        let request = self.request(&id, number).to_json();
        let client = if watches {
            Client::Watching(self.spool.submit(&name, &request).unwrap())
        } else {
            let request = serde_json::from_slice(&request).unwrap();
            Client::Looking(self.files.submit_held(id.as_str(), &request))
        };
        let until = began + Duration::from_millis(DEADLINE_MS);
        while Instant::now() < until {
            if let Look::Found(bytes) = self.spool.look(&name) {
                let answer: Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(answer["request_id"], id.as_str(), "{answer}");
                assert_eq!(answer["success"], answer["result"] == "success", "{answer}");
                let result = answer["result"].as_str().unwrap().to_owned();
                let message = answer["message"].as_str().unwrap();
                let settled = message.strip_prefix("not fenced again: for request ");
                let settled_by = settled.map(|rest| rest.split(' ').next().unwrap().to_owned());
                let took = began.elapsed();
                return Some(Asked { id: id.to_string(), result, settled_by, took });
            }
            client.wait();
        }
        None
    }

    fn request(&self, id: &RequestId, number: usize) -> Request {
        let shares: Vec<char> = DEVICES
            .iter()
            .flat_map(|(letter, share, _)| std::iter::repeat_n(*letter, *share))
            .collect();
        let letter = shares[number % shares.len()];
        let target = format!("{letter}{}", number / shares.len() % TARGETS);
        let milliseconds = TimeDelta::milliseconds(i64::try_from(DEADLINE_MS).unwrap());
        Request {
            request_id: id.clone(),
            timestamp: Utc::now(),
            action: Requested::Fence(FenceAction::Off),
            target_node: Some(target.parse().unwrap()),
            gfs2_filesystems: Vec::new(),
            recorder_node: "n1".to_owned(),
            deadline: Some(Utc::now() + milliseconds),
            boot_id: Some(self.boot_id.clone()),
            deadline_boottime_ms: Some(boot_ms() + DEADLINE_MS),
            device: None,
            held: true,
        }
    }
}

/// A waiting client, with the lock that holds its request.
enum Client {
    Watching(Submitted),
    Looking(#[expect(dead_code, reason = "it is held")] File),
}

impl Client {
    /// Waits until something happens to the request, or for a short time.
    fn wait(&self) {
        if let Client::Watching(submitted) = self
            && let Some(fd) = submitted.wait_fd()
        {
            poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(250_u8)).unwrap();
            submitted.drain();
        } else {
            // Without a free watch, this client looks from time to time, as the agent does.
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A sequence of watchers.
#[derive(Default)]
struct Lives {
    kills: usize,
    watcher_kib: u64,
    executor_kib: u64,
    agents: Vec<(String, Agent)>,
}

impl Lives {
    /// Kills watchers until little is left to do; the last watcher finishes the rest.
    fn run(site: &Site, load: &Load, seed: usize) -> Self {
        let mut lives = Lives::default();
        let mut random = seed;
        loop {
            let watcher = site.start();
            for _ in 0..AGENTS {
                lives.start_agent(site);
            }
            // A linear congruence is random enough to choose the moment of a kill.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let more = 20 + (random >> 33) % 400;
            let is_last = load.left() <= more;
            let goal = if is_last { 0 } else { load.left() - more };
            let reached = holds_within(Duration::from_millis(DEADLINE_MS), || load.left() <= goal);
            let pid = watcher.pid().to_string();
            lives.watcher_kib = lives.watcher_kib.max(memory_kib(&pid));
            lives.executor_kib = lives.executor_kib.max(memory_kib(&child_of(&pid)));
            if is_last || !reached {
                for (_, agent) in &mut lives.agents {
                    holds_within(Duration::from_mins(1), || agent.has_ended());
                }
                watcher.stop();
                return lives;
            }
            watcher.crash();
            lives.kills += 1;
        }
    }

    fn start_agent(&mut self, site: &Site) {
        let number = self.agents.len();
        let target = format!("{}agent{number}", DEVICES[number % DEVICES.len()].0);
        let agent = site.agent(&format!("action=off\nplug={target}\nfence_timeout=120"));
        self.agents.push((target, agent));
    }
}

/// The maximum memory that a process has used.
fn memory_kib(pid: &str) -> u64 {
    process_status(pid, "VmHWM").and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

fn report(asked: &[Asked], agents: &[(String, Option<i32>)], lives: &Lives, took: Duration) {
    let mut results: BTreeMap<&str, usize> = BTreeMap::new();
    for one in asked {
        *results.entry(&one.result).or_default() += 1;
    }
    let mut times: Vec<Duration> = asked.iter().map(|one| one.took).collect();
    times.sort();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1));
    let mut out = stdout().lock();
    writeln!(
        out,
        "figures: load: {} requests of {CLIENTS} clients answered in {:.1} s, {} kills of the watcher\n\
         figures: load: answers {results:?}; {} of {} agents succeeded\n\
         figures: load: an answer took {:?} (median), {:?} (99%), {:?} (longest)\n\
         figures: load: most memory: watcher {} KiB, executor {} KiB",
        asked.len(),
        took.as_secs_f64(),
        lives.kills,
        agents.iter().filter(|(_, code)| *code == Some(0)).count(),
        agents.len(),
        at(50).unwrap_or(&Duration::ZERO),
        at(99).unwrap_or(&Duration::ZERO),
        times.last().unwrap_or(&Duration::ZERO),
        lives.watcher_kib,
        lives.executor_kib,
    )
    .unwrap();
}

/// Compares the answers with the orders that the devices received.
fn audit(site: &Site, asked: &[Asked], agents: &[(String, Option<i32>)]) {
    let mut by_id: HashMap<String, usize> = HashMap::new();
    let mut by_target: HashMap<String, usize> = HashMap::new();
    let orders = DEVICES.iter().flat_map(|(name, ..)| site.lines(&format!("state-{name}.orders")));
    for line in site.executed().into_iter().chain(orders) {
        let mut words = line.rsplit(' ');
        *by_id.entry(words.next().unwrap().to_owned()).or_default() += 1;
        *by_target.entry(words.next().unwrap().to_owned()).or_default() += 1;
    }
    for one in asked {
        let executions = by_id.get(&one.id).copied().unwrap_or(0);
        if let Some(other) = &one.settled_by {
            assert_eq!((one.result.as_str(), executions), ("success", 0), "{}", one.id);
            assert_eq!(by_id.get(other), Some(&1), "{} is said to be settled by it", one.id);
            continue;
        }
        match one.result.as_str() {
            "success" | "unacknowledged" => assert_eq!(executions, 1, "{}: {}", one.id, one.result),
            "interrupted" => assert!(executions <= 1, "{}: {executions} executions", one.id),
            other => panic!("{}: {other}, which nothing here gives a reason for", one.id),
        }
    }
    for (target, code) in agents {
        let executions = by_target.get(target).copied().unwrap_or(0);
        assert!(executions <= 1, "{target}: {executions} executions");
        assert!(*code != Some(0) || executions == 1, "{target}: a success without an execution");
    }
    let twice: Vec<_> = by_id.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "executed more than once: {twice:?}");
}
