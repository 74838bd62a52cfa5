//! One round: a private spool, several kills in sequence, a last watcher that survives, the audit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fence_spool::{Places, WatcherSpool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::audit::{self, Fate, Remains, audit, audit_log};
use crate::common::{
    Agent, PATIENCE, SERVICE, Site, Spool, agent_program, child_of, holds_within, names, new_id,
    process_status, request, wait_for,
};
use crate::kill::{Kill, Victim};

/// The result of a round.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Which of the kills took effect.
    pub(crate) hits: Vec<bool>,
    /// The number of answers with each result; `none` is a withdrawal without an answer.
    pub(crate) results: BTreeMap<String, u32>,
    /// The problems.
    pub(crate) findings: Vec<String>,
}

/// Runs a round. With `retry`, the round puts requests that a dead watcher had claimed back into
/// the queue, as no watcher may do: this shows that the audit finds it.
pub(crate) fn run(kills: &[Kill], retry: bool) -> Report {
    let mut round = Round::new();
    for kill in kills {
        let hit = round.step(kill);
        round.report.hits.push(hit);
        round.keep_answers();
        if retry {
            for name in round.site.spool.all_claimed() {
                let claimed = round.site.spool.requests.join(".claimed").join(&name);
                fs::rename(claimed, round.site.spool.requests.join(name)).unwrap();
            }
        }
    }
    // A request that was put back may have been removed as already started: then its client waits
    // in vain.
    round.settle(if retry { Duration::from_secs(5) } else { PATIENCE });
    round.audit();
    round.report
}

/// The number of concurrent executions on the device whose program records them.
const AT_ONCE: usize = 2;

/// Runs a round beside a watcher that serves the same targets from another spool, so that the two
/// ignore each other: this shows that the audit finds it.
pub(crate) fn run_beside_another_spool() -> Report {
    let mut round = Round::new();
    let (config, other) = (round.site.path("w.toml"), Spool::at(&round.site.path("other")));
    let text = fs::read_to_string(&config).unwrap();
    let [ours, theirs] = [&round.site.spool, &other]
        .map(|spool| [spool.requests.display().to_string(), spool.responses.display().to_string()]);
    let first = round.start(None, Path::new(""));
    fs::write(&config, text.replace(&ours[0], &theirs[0]).replace(&ours[1], &theirs[1])).unwrap();
    let second = round.start(None, Path::new(""));
    fs::write(&config, text).unwrap();
    let target = round.next_target('n');
    let mut beside = Vec::new();
    for _ in 0..10 {
        round.submit(&target);
        let id = new_id();
        other.submit(&id, &request(&id, "off", &target));
        beside.push(id);
    }
    wait_for("everybody's answer", || {
        round.is_settled() && beside.iter().all(|id| other.answer(id).is_some())
    });
    drop((first, second));
    round.settle(PATIENCE);
    round.audit();
    round.report
}

struct Round {
    site: Site,
    started: u32,
    clients: Vec<Client>,
    kept: BTreeMap<String, Vec<u8>>,
    report: Report,
}

struct Client {
    target: String,
    who: Who,
}

enum Who {
    /// The name and the identity of its request.
    Foreign(String, String),
    Agent(Agent, Known),
    Gone(Fate),
}

/// Whether a watcher was running that could see an agent's request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Seen,
    Unseen,
}

/// A watcher that is killed with this value.
struct Running(Child);

impl Running {
    fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Round {
    fn new() -> Self {
        let site = Site::new();
        // As tmpfiles.d does, so that clients can arrive before the first watcher.
        for name in ["requests", "responses", "log"] {
            fs::DirBuilder::new().mode(0o700).create(site.path(name)).unwrap();
        }
        let simulated = site.simulated("simulated", "max_concurrent = 2");
        let simulated = simulated.replace("targets = '*'", "targets = 's[0-99]'");
        let command = site.recorder("command", "n[0-99]", &exclusive(&site));
        site.configure(&format!("{command}max_concurrent = {AT_ONCE}\n{simulated}"));
        Round {
            site,
            started: 0,
            clients: Vec::new(),
            kept: BTreeMap::new(),
            report: Report::default(),
        }
    }

    /// Carries out one kill, and returns whether it took effect.
    fn step(&mut self, kill: &Kill) -> bool {
        match kill.victim {
            Victim::Starting | Victim::Watcher | Victim::Anyone => self.kill_watcher(kill),
            Victim::Executor | Victim::Keeper => self.kill_helper(kill),
            Victim::Agent => self.kill_agent(kill),
            Victim::UnseenAgent => self.kill_unseen_agent(kill),
        }
    }

    fn kill_watcher(&mut self, kill: &Kill) -> bool {
        if kill.victim == Victim::Starting {
            self.wave();
        }
        let trace = self.next_path("trace");
        let mut watcher = self.start(Some(kill), &trace);
        if kill.victim != Victim::Starting {
            self.wave();
        }
        wait_for("the watcher's death or everybody's answer", || {
            watcher.is_over() || self.is_settled()
        });
        if !watcher.is_over() {
            // In the traces of many processes, the dead one may be a device's program.
            return fs::read_to_string(&trace).unwrap().contains("killed by SIGKILL");
        }
        let status = watcher.0.wait().unwrap();
        // A watcher may give up if its executor was killed during its start.
        if status.signal() != Some(Signal::SIGKILL as i32) && kill.victim != Victim::Anyone {
            self.finding(&format!("the watcher ended by itself: {status}"));
        }
        true
    }

    /// The executor, or its first keeper, which is the first to get a job.
    fn kill_helper(&mut self, kill: &Kill) -> bool {
        let mut watcher = self.start(None, Path::new(""));
        let executor = child_of(&watcher.pid());
        let pid = if kill.victim == Victim::Keeper { child_of(&executor) } else { executor };
        let trace = self.next_path("trace");
        let mut strace = kill.upon_process(&pid, &trace);
        let tracer = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut tracer = Running(tracer);
        wait_for("the tracer", || {
            tracer.is_over() || process_status(&pid, "TracerPid").is_none_or(|by| by != "0")
        });
        self.wave();
        wait_for("everybody's answer", || self.is_settled() || watcher.is_over());
        let died = watcher.is_over();
        if died {
            self.finding("the watcher died with its helper");
        }
        fs::read_to_string(&trace).unwrap_or_default().contains("killed by SIGKILL")
    }

    fn kill_agent(&mut self, kill: &Kill) -> bool {
        let watcher = self.start(None, Path::new(""));
        self.wave();
        let hit = self.traced_agent(kill, Known::Seen);
        // Sometimes the watcher dies as well, sometimes it sees that no client waits any more.
        if kill.nth.is_multiple_of(2) {
            wait_for("everybody's answer", || self.is_settled());
        }
        drop(watcher);
        hit
    }

    fn kill_unseen_agent(&mut self, kill: &Kill) -> bool {
        let watcher = self.start(None, Path::new(""));
        watcher.signal(Signal::SIGSTOP);
        let hit = self.traced_agent(kill, Known::Unseen);
        watcher.signal(Signal::SIGCONT);
        wait_for("everybody's answer", || self.is_settled());
        hit
    }

    /// An agent that is killed; waits for its end. An agent whose request no watcher sees receives
    /// a signal to give up as soon as its request exists: it withdraws the request, as at its time
    /// limit.
    fn traced_agent(&mut self, kill: &Kill, known: Known) -> bool {
        let target = self.next_target('n');
        let command = kill.upon(&Command::new(agent_program()), &self.next_path("trace"));
        let mut agent =
            self.site.agent_as(command, &format!("action={}\nplug={target}\n", action(&target)));
        if known == Known::Unseen {
            let requests = self.site.spool.requests.clone();
            let is_its = |name: &String| {
                fs::read_to_string(requests.join(name)).is_ok_and(|text| text.contains(&target))
            };
            wait_for("the agent's request", || {
                agent.has_ended() || self.pending().iter().any(is_its)
            });
            if !agent.has_ended() {
                agent.signal(Signal::SIGTERM);
            }
        }
        let fate = fate(agent, known);
        self.clients.push(Client { target, who: Who::Gone(fate.0) });
        fate.1
    }

    /// Clients of different kinds: for each device an agent and a client that writes and leaves,
    /// for one target; and for one device as many others as it may serve at once, and one more.
    fn wave(&mut self) {
        for device in ['n', 's'] {
            let target = self.next_target(device);
            self.submit(&target);
            let action = action(&target);
            let options = format!("action={action}\nplug={target}\nfence_timeout=60");
            let agent = self.site.agent(&options);
            self.clients.push(Client { target, who: Who::Agent(agent, Known::Seen) });
        }
        for _ in 0..AT_ONCE {
            self.submit(&self.next_target('n'));
        }
    }

    /// A request of a client that leaves.
    fn submit(&mut self, target: &str) {
        let id = new_id();
        let name = if target.starts_with('n') { id.clone() } else { format!("{target}-{id}") };
        self.site.spool.submit(&name, &request(&id, action(target), target));
        self.clients.push(Client { target: target.to_owned(), who: Who::Foreign(name, id) });
    }

    /// The unclaimed requests.
    fn pending(&self) -> Vec<String> {
        let mut names = names(&self.site.spool.requests);
        names.retain(|name| !name.starts_with('.'));
        names
    }

    fn is_settled(&mut self) -> bool {
        let spool = &self.site.spool;
        let is_done = |client: &mut Client| match &mut client.who {
            Who::Foreign(name, _) => spool.answer(name).is_some(),
            Who::Agent(agent, _) => agent.has_ended(),
            Who::Gone(_) => true,
        };
        self.clients.iter_mut().all(is_done)
            && self.pending().is_empty()
            && spool.all_claimed().is_empty()
    }

    /// Starts a watcher and waits until it is ready, or dead.
    fn start(&mut self, kill: Option<&Kill>, trace: &Path) -> Running {
        let command = self.site.watcher_command(SERVICE);
        let mut command = match kill {
            Some(kill) => kill.upon(&command, trace),
            None => command,
        };
        self.started += 1;
        let log = self.site.path(&format!("watcher-{}.log", self.started));
        let child = command.stdin(Stdio::null()).stderr(File::create(&log).unwrap()).spawn();
        let mut watcher = Running(child.unwrap());
        wait_for("the watcher to be ready", || {
            let is_ready = fs::read_to_string(&log).unwrap().contains(": ready: ");
            is_ready || watcher.is_over()
        });
        if kill.is_none() && watcher.is_over() {
            let log = fs::read_to_string(&log).unwrap();
            self.finding(&format!("the watcher does not start: {log}"));
        }
        watcher
    }

    /// Lets a watcher that is not killed finish the remaining work.
    fn settle(&mut self, patience: Duration) {
        let mut watcher = self.start(None, Path::new(""));
        if watcher.is_over() {
            return self.keep_answers();
        }
        if !holds_within(patience, || self.is_settled()) {
            self.finding("S5: a client waits in vain for an answer from the last watcher");
        }
        watcher.signal(Signal::SIGTERM);
        wait_for("the last watcher's end", || watcher.is_over());
        self.keep_answers();
    }

    /// Collects the answers; each earlier answer must still exist, unchanged.
    fn keep_answers(&mut self) {
        let directory = self.site.spool.responses.clone();
        let mut now = BTreeMap::new();
        for name in names(&directory).into_iter().filter(|name| !name.starts_with('.')) {
            now.insert(name.clone(), fs::read(directory.join(name)).unwrap());
        }
        for (name, before) in &self.kept {
            if now.get(name) != Some(before) {
                let text = format!("S5: the answer {name} was changed or removed");
                self.report.findings.push(text);
            }
        }
        self.kept = now;
    }

    fn audit(&mut self) {
        let mut remains = Remains::default();
        for Client { target, who } in self.clients.drain(..) {
            let (id, fate) = match who {
                Who::Foreign(_, id) => (Some(id), Fate::Foreign),
                Who::Agent(agent, known) => (None, fate(agent, known).0),
                Who::Gone(fate) => (None, fate),
            };
            remains.clients.push(audit::Client { target, id, fate });
        }
        remains.overlaps = self.site.lines("overlaps");
        let lines = [(self.site.executed(), 1), (self.site.lines("state.orders"), 3)];
        for (line, at) in lines.iter().flat_map(|(lines, at)| lines.iter().map(move |l| (l, *at))) {
            let words: Vec<&str> = line.split(' ').collect();
            let of_order = match words[at - 1] {
                "on" => &mut remains.power_ons,
                _ => &mut remains.executions,
            };
            of_order.push((words[at].to_owned(), words[at + 1].to_owned()));
        }
        remains.returns = self.returns();
        for (name, bytes) in &self.kept {
            let answer: Value = serde_json::from_slice(bytes).unwrap();
            let result = answer["result"].as_str().unwrap_or_default().to_owned();
            *self.report.results.entry(result).or_default() += 1;
            remains.answers.insert(name.clone(), answer);
        }
        let silent = remains.clients.len().saturating_sub(remains.answers.len());
        *self.report.results.entry("none".to_owned()).or_default() +=
            u32::try_from(silent).unwrap();
        for finding in audit(&remains) {
            self.finding(&finding);
        }
        self.audit_logs();
        self.audit_leftovers();
    }

    /// The requests for which the audit has the outcome of the power-on, or a record that it is
    /// due.
    fn returns(&self) -> BTreeSet<String> {
        let log = self.site.read("log/fence-events-detailed.jsonl");
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told = events.filter(|event| !event["on_result"].is_null());
        let told = told.filter_map(|event| Some(event["request_id"].as_str()?.to_owned()));
        let records = names(&self.site.spool.requests.join(".returning")).into_iter();
        told.chain(records.map(|name| name.trim_end_matches(".json").to_owned())).collect()
    }

    fn audit_logs(&mut self) {
        let watchers = (1..=self.started).map(|number| format!("watcher-{number}.log"));
        let agents = names(&self.site.path("log")).into_iter().map(|name| format!("log/{name}"));
        for name in watchers.chain(agents) {
            if let Some(problem) = audit_log(&name, &self.site.read(&name)) {
                self.finding(&problem);
            }
        }
    }

    /// A pruning for which everything is old must leave nothing: no unfinished file remains.
    fn audit_leftovers(&mut self) {
        let spool = self.site.spool.clone();
        let places = Places::new(&spool.requests, &spool.responses);
        WatcherSpool::open(&places, false).unwrap().prune_answers(i64::MAX, 0).unwrap();
        for (directory, kept) in [
            (
                &spool.requests,
                &[".claimed", ".rejected", ".returning", ".running.lock", ".watcher.lock"][..],
            ),
            (&spool.requests.join(".claimed"), &[".running.lock"]),
            (&spool.requests.join(".rejected"), &[]),
            (&spool.responses, &[".started"]),
        ] {
            if names(directory) != kept {
                self.finding(&format!("{}: {:?}", directory.display(), names(directory)));
            }
        }
    }

    fn next_target(&self, device: char) -> String {
        format!("{device}{}", self.clients.len())
    }

    fn next_path(&self, name: &str) -> std::path::PathBuf {
        self.site.path(&format!("{name}-{}-{}", self.started, self.clients.len()))
    }

    /// Collects the problems, with the logs of all watchers.
    fn finding(&mut self, text: &str) {
        let logs = (1..=self.started).map(|number| {
            format!("-- watcher {number}\n{}", self.site.read(&format!("watcher-{number}.log")))
        });
        let logs: String = logs.collect();
        self.report.findings.push(format!("{text}\n{logs}"));
    }
}

/// A part of the device's program: it records what else runs when it begins. The locks show this:
/// the program takes them at its beginning, and the kernel releases them at its end, however it
/// ends.
fn exclusive(site: &Site) -> String {
    let path = site.path("").display().to_string();
    format!(
        "exec 8>>'{path}lock-'\"$FENCE_TARGET\"\n\
         flock -n 8 || echo \"$FENCE_TARGET is acted on twice\" >>'{path}overlaps'\n\
         for slot in $(seq {AT_ONCE}) none; do\n\
         exec 9>>'{path}slot-'$slot; flock -n 9 && break; done\n\
         [ $slot != none ] || echo 'more than {AT_ONCE} run on the device' >>'{path}overlaps'\n\
         sleep 0.01\n"
    )
}

/// The action for `target`: the same for all of its clients.
fn action(target: &str) -> &'static str {
    let number: usize = target[1..].parse().unwrap();
    if number.is_multiple_of(2) { "reboot" } else { "off" }
}

/// How an agent ended, and whether it was killed.
fn fate(agent: Agent, known: Known) -> (Fate, bool) {
    let ended = agent.wait();
    let fate = match ended.code {
        Some(0) => Fate::Ended(0),
        _ if known == Known::Unseen => Fate::Unseen,
        Some(code) => Fate::Ended(code),
        None => Fate::Killed,
    };
    (fate, ended.code.is_none())
}
