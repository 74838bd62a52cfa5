//! `type = "ipmi"`: servers through their management controllers (BMCs), which ipmitool is told to
//! speak to over the network (IPMI 2.0, `-I lanplus`). Each target has a BMC of its own.
//!
//! # An order is sent once
//!
//! It is sent again only if the BMC itself says that it did not take the order (`Node busy`, no
//! session).
//!
//! ipmitool repeats whatever is not answered in time, and a BMC that hears an order twice carries
//! it out twice. So an order is sent with one try (`-R 1`) and a long time to answer (`-N`), and it
//! is given up before the limit where that is possible, so that ipmitool can say how far it came.
//! With a long `-N` it also takes long to see that there is no BMC at all (2·N seconds). So each
//! order follows a question for the power state, with shorter times and a second try, which changes
//! nothing and may be repeated. It tells in 10 s or less that a BMC is not there or does not let us
//! in, and then the order is not sent.
//!
//! # Where an order goes
//!
//! A name may have several addresses. The name is looked up here, and ipmitool gets a number. The
//! question before an order goes to one address after the other, until a BMC is reached. The order
//! goes there, and pins the address: everything that follows in the execution is sent and asked
//! there, or not at all.
//!
//! # Which error is which report
//!
//! Each report of an order, its result code, and what comes to it:
//!
//! - `Acknowledged`, 0 once the power shows: `Chassis Power Control: …` of this order, exit code 0.
//! - `Unreachable`, 1: no session for the question or the order (no answer, unknown name, no
//!   route). Or no room for a session, a session forgotten, or "Node busy", until the limit; the
//!   BMC is asked and told again before.
//! - `Failed`, 3: no session (wrong password, user, privilege or cipher suite); no address for the
//!   target, no password, no ipmitool; the question ends in something unknown.
//! - `Unacknowledged`, 2, or 0 where the power shows it: the order is refused or not answered,
//!   ipmitool is killed with it, or says something unknown.
//! - `TooLate`, 3: the limit has passed.
//!
//! The texts that tell them apart are in `output`. `cycle` is the BMC's own: many refuse it for a
//! server that is off.
//!
//! The password travels in the environment of ipmitool (`-E`), which only root can read.

mod address;
pub mod output;

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fence_core::PerTarget;
use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, PowerState, bounded};
use fence_spool::program_problem;

use crate::contacts::{Contacted, contact_all};
use crate::executor::Purpose;
use crate::pin::Machine;
use crate::{
    Called, Client, Command, ExecutorClient, FenceDevice, Limit, OrderContext, Pin, Reach,
    RunOutcome, Secret, SecretSource, Secrets, TargetList,
};

pub use address::BmcAddress;
use output::{Said, What, order_report, power_report, said};

/// BMCs as they are configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpmiSettings {
    /// The address of each target's BMC, as [`BmcAddress::parse`] takes it.
    pub address: PerTarget,
    /// The targets that are known: all of whose BMCs are contacted to see what can be reached.
    pub known_targets: BTreeSet<NodeName>,
    /// The user, the same on all BMCs.
    pub username: String,
    /// Where the user's password comes from.
    pub password: SecretSource,
    /// The cipher suite.
    pub cipher: u8,
    /// The privilege that a session has.
    pub privilege: IpmiPrivilege,
    /// The absolute path of ipmitool.
    pub program: String,
}

/// A privilege that is enough to switch the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpmiPrivilege {
    /// May do all that is needed here.
    Operator,
    /// May also change the BMC itself.
    Administrator,
}

/// BMCs that ipmitool speaks to.
#[derive(Clone, Debug)]
pub struct IpmiDevice {
    settings: IpmiSettings,
    executor: ExecutorClient,
}

impl IpmiDevice {
    /// The device of `settings`, whose programs `executor` runs.
    pub fn new(settings: IpmiSettings, executor: ExecutorClient) -> Self {
        IpmiDevice { settings, executor }
    }

    /// The BMC of `target`, or why there is none.
    fn bmc(&self, target: &NodeName) -> Result<Bmc<'_>, String> {
        let address = self.settings.address.of(target);
        let address = address.ok_or_else(|| format!("'address' has nothing for '{target}'"))?;
        let address = BmcAddress::parse(&address)?;
        Ok(Bmc { device: self, address, password: self.password()? })
    }

    fn password(&self) -> Result<Secret, String> {
        let password = self.settings.password.read()?;
        if password.expose().len() > PASSWORD_BYTES_MAX {
            let source = &self.settings.password;
            return Err(format!(
                "{source} has more than {PASSWORD_BYTES_MAX} bytes, which is the most that IPMI \
                 2.0 takes: set a shorter password on the BMCs"
            ));
        }
        Ok(password)
    }

    /// Why the power of `target` cannot be asked at this moment; `None` when it can.
    fn contact(&self, target: &NodeName, limit: Limit) -> Result<(), String> {
        match self.bmc(target)?.ask(&Pin::default(), limit) {
            (_, Ran::Said(Said { what: What::Power(_), .. })) => Ok(()),
            (_, ran) => Err(ran.words()),
        }
    }
}

impl FenceDevice for IpmiDevice {
    fn abilities(&self) -> Abilities {
        Abilities { off: true, on: true, cycle: true, power: true }
    }

    /// Asks every BMC that is known for the power of its node, some at a time. One that answers is
    /// enough: a dead BMC must not take away the fencing of all other nodes.
    fn reachable(&self, limit: Limit) -> Reach {
        let places: Vec<Vec<&NodeName>> =
            self.settings.known_targets.iter().map(|target| vec![target]).collect();
        if places.is_empty() {
            return match self.check().into_iter().next() {
                Some(problem) => Reach::Unreachable(problem),
                None => Reach::NotAsked(
                    "no BMC was contacted: which there are is known only when a target is named"
                        .to_owned(),
                ),
            };
        }
        let called = Called { address: Some(&self.settings.address), plug: None };
        contact_all(Contacted::Bmcs, &places, called, |targets| {
            targets.iter().try_for_each(|target| self.contact(target, limit))
        })
    }

    fn targets(&self, _limit: Limit) -> TargetList {
        TargetList::NoList("a BMC knows no list of nodes".to_owned())
    }

    fn power(&self, target: &NodeName, pin: &Pin, limit: Limit) -> PowerReport {
        match self.bmc(target).map(|bmc| bmc.ask(pin, limit)) {
            Ok((_, Ran::Said(said))) => power_report(said),
            Ok((_, ran)) => PowerReport { state: PowerState::Unknown, detail: ran.words() },
            Err(detail) => PowerReport { state: PowerState::Unknown, detail },
        }
    }

    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport {
        let bmc = match self.bmc(job.target) {
            Ok(bmc) => bmc,
            Err(problem) => return OrderReport::Failed(problem),
        };
        let (host, ran) = bmc.reach(job.pin, job.client, limit);
        match ran {
            Ran::Said(said) => match said.what {
                // It answers. The power as it was does not matter now.
                What::Power(_) | What::Took(_) | What::Refused | What::Silent | What::Later => {}
                What::Unreachable | What::Busy => return OrderReport::Unreachable(said.words),
                What::NotLetIn | What::Unclear => return OrderReport::Failed(said.words),
            },
            Ran::Ended(RunOutcome::TimedOut { .. }, words) => {
                return OrderReport::Unreachable(words);
            }
            // A question changes nothing, whatever became of it.
            Ran::Ended(outcome, words) => {
                return match outcome.order_report(words) {
                    OrderReport::Unacknowledged(words) => OrderReport::Failed(words),
                    report => report,
                };
            }
        }
        job.pin.set(Machine::Ipmi { host: host.clone() });
        match bmc.tell(&host, order, job.client, limit) {
            Ran::Said(said) => order_report(order, said),
            Ran::Ended(outcome, words) => outcome.order_report(words),
        }
    }

    fn check(&self) -> Vec<String> {
        let program = program_problem(Path::new(&self.settings.program));
        program.into_iter().chain(self.password().err()).collect()
    }
}

/// One BMC, and what is needed to speak to it.
struct Bmc<'a> {
    device: &'a IpmiDevice,
    address: BmcAddress,
    password: Secret,
}

/// What came of running ipmitool. The texts name the BMC, and hold no secret.
enum Ran {
    Said(Said),
    /// It did not end by itself.
    Ended(RunOutcome, String),
}

impl Ran {
    fn is_busy(&self) -> bool {
        matches!(self, Ran::Said(Said { what: What::Busy, .. }))
    }

    fn words(self) -> String {
        match self {
            Ran::Said(Said { words, .. }) | Ran::Ended(_, words) => words,
        }
    }
}

impl Bmc<'_> {
    /// Asks for the power at one address after the other, until a BMC is reached; gives the address
    /// that was asked last. Where an order has pinned an address, only that one is asked. A BMC
    /// that has no time is asked again.
    fn reach(&self, pin: &Pin, client: Option<&Client>, limit: Limit) -> (String, Ran) {
        let mut before = None;
        loop {
            let (host, ran) = not_cut_short(self.reach_once(pin, limit), before);
            if !ran.is_busy() || !paused(limit) {
                return (host, ran);
            }
            if client.is_some_and(|client| !client.is_waiting(limit)) {
                return (host, self.ran(RunOutcome::Withdrawn));
            }
            before = Some((host, ran));
        }
    }

    /// Asks for the power, and asks again while the BMC says that it cannot answer now. Before an
    /// order that is not waited for: a BMC that answers no question may take the order all the
    /// same.
    fn ask(&self, pin: &Pin, limit: Limit) -> (String, Ran) {
        let mut before = None;
        loop {
            let (host, ran) = not_cut_short(self.reach(pin, None, limit), before);
            let passes = matches!(&ran, Ran::Said(said) if said.what == What::Later);
            if !passes || !paused(limit) {
                return (host, ran);
            }
            before = Some((host, ran));
        }
    }

    fn reach_once(&self, pin: &Pin, limit: Limit) -> (String, Ran) {
        let hosts = match pin.machine() {
            Some(Machine::Ipmi { host }) => Ok(vec![host.clone()]),
            _ => self.address.numbers(limit),
        };
        let unreachable = |words: &str| {
            let words = format!("BMC {}: {words}", self.address);
            (String::new(), Ran::Said(Said { what: What::Unreachable, words }))
        };
        let hosts = match hosts {
            Ok(hosts) => hosts,
            Err(problem) => return unreachable(&problem),
        };
        let mut last = unreachable("it has no address");
        for host in hosts {
            let ran = self.run(&host, "status", patience(limit.left_ms()), None, limit);
            let is_reached = !matches!(&ran, Ran::Said(said) if said.what == What::Unreachable);
            last = (host, ran);
            if is_reached {
                break;
            }
        }
        last
    }

    /// Sends the order; again only if the BMC has certainly done nothing of it, because it had no
    /// time. Each time, the process that sends it looks for the client before.
    fn tell(&self, host: &str, order: Order, client: Option<&Client>, limit: Limit) -> Ran {
        loop {
            let ran = self.tell_once(host, order, client, limit);
            if !ran.is_busy() || !paused(limit) {
                return ran;
            }
        }
    }

    fn tell_once(&self, host: &str, order: Order, client: Option<&Client>, limit: Limit) -> Ran {
        let word = match order {
            Order::Off => "off",
            Order::On => "on",
            Order::Cycle => "cycle",
        };
        let patience = Patience { wait_s: order_wait_s(limit.left_ms()), tries: 1 };
        self.run(host, word, patience, client, limit)
    }

    /// Runs `ipmitool chassis power WORD` for the BMC at `host`.
    fn run(
        &self,
        host: &str,
        word: &str,
        patience: Patience,
        client: Option<&Client>,
        limit: Limit,
    ) -> Ran {
        let IpmiSettings { username, cipher, privilege, program, .. } = &self.device.settings;
        let privilege = match privilege {
            IpmiPrivilege::Operator => "OPERATOR",
            IpmiPrivilege::Administrator => "ADMINISTRATOR",
        };
        let options = [
            ("-I", "lanplus"),
            ("-H", host),
            ("-p", &self.address.port().to_string()),
            ("-U", username),
            ("-C", &cipher.to_string()),
            ("-L", privilege),
            ("-N", &patience.wait_s.to_string()),
            ("-R", &patience.tries.to_string()),
        ];
        let options = options.into_iter().flat_map(|(option, value)| [option, value]);
        let argv = [program].into_iter().map(String::as_str).chain(options);
        let argv = argv.chain(["-E", "-v", "chassis", "power", word]);
        let purpose = if word == "status" { Purpose::Question } else { Purpose::Order };
        let command = Command::new(argv.map(str::to_owned).collect(), limit).plain();
        let command = command.with_env([("IPMI_PASSWORD", self.password.expose())]);
        let command = Command { client: client.cloned(), ..command };
        let outcome = self.device.executor.run_for(purpose, command);
        self.ran(outcome)
    }

    fn ran(&self, outcome: RunOutcome) -> Ran {
        let secrets = Secrets::from(self.password.clone());
        let text = |words: &str| {
            bounded(&format!("BMC {}: {}", self.address, secrets.shown(words)), TEXT_BYTES_MAX)
        };
        match outcome {
            RunOutcome::Exited { code, stdout, stderr } => {
                let said = said(code, &stdout, &stderr);
                Ran::Said(Said { words: text(&said.words), ..said })
            }
            outcome => {
                let words = match &outcome {
                    RunOutcome::TimedOut { .. } => text("ipmitool got no answer by the limit"),
                    other => text(&other.end_of("ipmitool")),
                };
                Ran::Ended(outcome, words)
            }
        }
    }
}

/// What came of asking a BMC again: a question that the limit cut short says less than the BMC's own
/// answer `before` it.
fn not_cut_short(asked: (String, Ran), before: Option<(String, Ran)>) -> (String, Ran) {
    match (asked, before) {
        ((_, Ran::Ended(RunOutcome::TimedOut { .. }, _)), Some(before)) => before,
        (asked, _) => asked,
    }
}

/// How ipmitool waits for an answer: the first try so long, each further one a second longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patience {
    wait_s: u64,
    tries: u32,
}

/// Waits until a BMC that had no time may have some; false when no time is left to ask again.
fn paused(limit: Limit) -> bool {
    let has_time = limit.left_ms() >= BUSY_PAUSE_MS + LAST_TRY_MS;
    if has_time {
        thread::sleep(Duration::from_millis(BUSY_PAUSE_MS));
    }
    has_time
}

/// How a question waits that may take so long. A BMC that is not there is asked twice.
fn patience(left_ms: u64) -> Patience {
    let fitting = PATIENCES.iter().rfind(|(needed_ms, _)| *needed_ms <= left_ms);
    fitting.unwrap_or(&PATIENCES[0]).1
}

/// How long each answer to an order is waited for, where the whole may take so long. After an order
/// that is not answered ipmitool takes as long again to end the session.
fn order_wait_s(left_ms: u64) -> u64 {
    (left_ms.saturating_sub(1_000) / 2_000).clamp(1, ORDER_WAIT_S_MAX)
}

/// How questions wait, by the milliseconds from which on: no more than half of them go by in vain.
const PATIENCES: [(u64, Patience); 4] = [
    (0, Patience { wait_s: 1, tries: 1 }),
    (8_000, Patience { wait_s: 2, tries: 1 }),
    (12_000, Patience { wait_s: 1, tries: 2 }),
    (20_000, Patience { wait_s: 2, tries: 2 }),
];

/// The pause before a BMC that had no time is asked again, and the least that this may take.
const BUSY_PAUSE_MS: u64 = 1_000;
const LAST_TRY_MS: u64 = 2_000;

/// The longest that an answer to an order is waited for. Slower BMCs are not known.
const ORDER_WAIT_S_MAX: u64 = 10;

/// The longest text about a BMC, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// The longest password of IPMI 2.0; ipmitool refuses a longer one.
const PASSWORD_BYTES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_in_vain_leaves_time_for_the_order() {
        // What ipmitool takes where nobody answers.
        let lost_ms = |Patience { wait_s, tries }| {
            let tries = u64::from(tries);
            2_000 * (tries * wait_s + tries * (tries - 1) / 2)
        };
        for left_ms in (4_000..60_000).step_by(500) {
            assert!(lost_ms(patience(left_ms)) <= left_ms / 2, "{left_ms}");
        }
        assert_eq!(lost_ms(patience(45_000)), 10_000);
        assert_eq!(lost_ms(patience(0)), 2_000);
    }

    #[test]
    fn an_order_is_given_up_before_the_limit() {
        for left_ms in (3_000..60_000).step_by(500) {
            assert!(2_000 * order_wait_s(left_ms) < left_ms, "{left_ms}");
        }
        assert_eq!(order_wait_s(45_000), 10);
        assert_eq!(order_wait_s(0), 1);
    }
}
