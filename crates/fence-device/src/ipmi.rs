//! `type = "ipmi"`: servers through their management controllers (BMCs), with ipmitool over the
//! network (IPMI 2.0, `-I lanplus`). Each target has its own BMC.
//!
//! # An order is sent once
//!
//! The driver sends an order again only if the BMC itself reports that it did not take the order
//! (`Node busy`, no session).
//!
//! ipmitool repeats a message without a timely answer, and a BMC that receives an order twice
//! carries it out twice. So ipmitool sends an order with one try (`-R 1`) and a long wait for the
//! answer (`-N`), and gives up before the limit if possible, so that it can report how far it came.
//! With a long `-N`, ipmitool also needs long to find that no BMC responds (2·N seconds). So the
//! driver first asks for the power state, with shorter waits and a second try: the question changes
//! nothing and may be repeated. It finds within 10 s a BMC that does not respond or refuses the
//! login, and then the driver does not send the order.
//!
//! # The address of an order
//!
//! A name may have several addresses. The driver looks the name up, and gives ipmitool an IP
//! address. The question before an order tries one address after the other, until a BMC responds.
//! The order goes to this address, and pins it: the rest of the execution uses this address, or
//! fails.
//!
//! # The report of each error
//!
//! The reports of an order, their result codes, and their causes:
//!
//! - `Acknowledged`, 0 once the power shows: `Chassis Power Control: …` of this order, exit code 0.
//! - `Unreachable`, 1: no session for the question or the order (no answer, unknown name, no
//!   route). Or no room for a session, a dropped session, or "Node busy", in each try until the
//!   limit.
//! - `Failed`, 3: no session (wrong password, user, privilege or cipher suite); no address for the
//!   target, no password, no ipmitool; the question has an unknown result.
//! - `Unacknowledged`, 2, or 0 if the power shows it: the BMC refuses the order or does not answer,
//!   ipmitool is killed with it, or its text is unknown.
//! - `TooLate`, 3: the limit has passed.
//!
//! `output` has the texts for each result. `cycle` is the BMC's own order: many BMCs refuse it for
//! a server that is off.
//!
//! The password is in the environment of ipmitool (`-E`), which only root can read.

mod address;
pub mod output;

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fence_core::PerTarget;
use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, bounded};
use fence_spool::program_problem;

use crate::contacts::{Contacted, contact_all};
use crate::executor::Purpose;
use crate::pin::Machine;
use crate::program::unknown;
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
    /// The known targets, whose BMCs [`FenceDevice::reachable`] contacts.
    pub known_targets: BTreeSet<NodeName>,
    /// The user, the same on all BMCs.
    pub username: String,
    /// The source of the user's password.
    pub password: SecretSource,
    /// The cipher suite.
    pub cipher: u8,
    /// The privilege of a session.
    pub privilege: IpmiPrivilege,
    /// The absolute path of ipmitool.
    pub program: String,
}

/// A privilege that is sufficient to switch the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpmiPrivilege {
    /// Permits all that the driver needs.
    Operator,
    /// Also permits changes to the BMC itself.
    Administrator,
}

/// BMCs that ipmitool controls.
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
        let address =
            address.ok_or_else(|| format!("no 'address' is configured for '{target}'"))?;
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
}

impl FenceDevice for IpmiDevice {
    fn abilities(&self) -> Abilities {
        Abilities { off: true, on: true, cycle: true, power: true }
    }

    /// Asks every known BMC for the power of its node, several in parallel. One answer is enough: a
    /// dead BMC must not disable the fencing of all other nodes.
    fn reachable(&self, limit: Limit) -> Reach {
        let places: Vec<Vec<&NodeName>> =
            self.settings.known_targets.iter().map(|target| vec![target]).collect();
        if places.is_empty() {
            let text = "no BMC was contacted: each BMC is known only by the name of its target";
            let problem = self.check().into_iter().next();
            return problem.map_or(Reach::NotAsked(text.to_owned()), Reach::Unreachable);
        }
        let called = Called { address: Some(&self.settings.address), plug: None };
        contact_all(Contacted::Bmcs, &places, called, |targets| {
            targets.iter().try_for_each(|target| {
                match self.bmc(target)?.ask(&Pin::default(), &PASSING, None, limit) {
                    (_, Ran::Said(Said { what: What::Power(_), .. })) => Ok(()),
                    (_, ran) => Err(ran.words()),
                }
            })
        })
    }

    fn targets(&self, _limit: Limit) -> TargetList {
        TargetList::NoList("a BMC knows no list of nodes".to_owned())
    }

    fn power(&self, target: &NodeName, pin: &Pin, limit: Limit) -> PowerReport {
        match self.bmc(target).map(|bmc| bmc.ask(pin, &PASSING, None, limit)) {
            Ok((_, Ran::Said(said))) => power_report(said),
            Ok((_, ran)) => unknown(ran.words()),
            Err(problem) => unknown(problem),
        }
    }

    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport {
        let bmc = match self.bmc(job.target) {
            Ok(bmc) => bmc,
            Err(problem) => return OrderReport::Failed(problem),
        };
        // A BMC that cannot answer the question now may still take the order.
        let (host, ran) = bmc.ask(job.pin, &[What::Busy], job.client, limit);
        match ran {
            Ran::Said(said) => match said.what {
                // The BMC answers. The previous power state does not matter now.
                What::Power(_) | What::Took(_) | What::Refused | What::Silent | What::Later => {}
                What::Unreachable | What::Busy => return OrderReport::Unreachable(said.words),
                What::NotLetIn | What::Unclear => return OrderReport::Failed(said.words),
            },
            Ran::Ended(outcome, words) => {
                let is_late = matches!(outcome, RunOutcome::TimedOut { .. });
                return match outcome.order_report(words) {
                    // A question changes nothing, with any outcome.
                    OrderReport::Unacknowledged(words) if is_late => {
                        OrderReport::Unreachable(words)
                    }
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

/// One BMC, and its password.
struct Bmc<'a> {
    device: &'a IpmiDevice,
    address: BmcAddress,
    password: Secret,
}

/// The result of a run of ipmitool. The texts name the BMC, and contain no secret.
enum Ran {
    Said(Said),
    /// ipmitool did not exit by itself.
    Ended(RunOutcome, String),
}

impl Ran {
    fn is(&self, wanted: What) -> bool {
        matches!(self, Ran::Said(Said { what, .. }) if *what == wanted)
    }

    fn words(self) -> String {
        match self {
            Ran::Said(Said { words, .. }) | Ran::Ended(_, words) => words,
        }
    }
}

impl Bmc<'_> {
    /// Asks for the power at one address after the other, until a BMC is reached; returns the last
    /// address. If an order has pinned an address, this asks only there. It repeats the question
    /// after a result in `passing`.
    fn ask(
        &self,
        pin: &Pin,
        passing: &[What],
        client: Option<&Client>,
        limit: Limit,
    ) -> (String, Ran) {
        let mut before = None;
        loop {
            let (host, ran) = match (self.ask_once(pin, limit), before) {
                // The limit cut this question short: the BMC's answer before it says more.
                ((_, Ran::Ended(RunOutcome::TimedOut { .. }, _)), Some(before)) => before,
                (asked, _) => asked,
            };
            if !passing.iter().any(|what| ran.is(*what)) || !paused(limit) {
                return (host, ran);
            }
            if client.is_some_and(|client| !client.is_waiting(limit)) {
                return (host, self.ran(RunOutcome::Withdrawn));
            }
            before = Some((host, ran));
        }
    }

    fn ask_once(&self, pin: &Pin, limit: Limit) -> (String, Ran) {
        let hosts = match pin.machine() {
            Some(Machine::Ipmi { host }) => Ok(vec![host.clone()]),
            _ => self.address.numbers(limit),
        };
        let problem = hosts.as_ref().err().map_or("it has no address", String::as_str);
        let words = format!("BMC {}: {problem}", self.address);
        let mut last = (String::new(), Ran::Said(Said { what: What::Unreachable, words }));
        for host in hosts.unwrap_or_default() {
            let ran = self.run(&host, "status", patience(limit.left_ms()), None, limit);
            last = (host, ran);
            if !last.1.is(What::Unreachable) {
                break;
            }
        }
        last
    }

    /// Sends the order; again only if the BMC was busy, and so has certainly not carried the order
    /// out. Each time, the process that sends the order checks the client before.
    fn tell(&self, host: &str, order: Order, client: Option<&Client>, limit: Limit) -> Ran {
        let word = match order {
            Order::Off => "off",
            Order::On => "on",
            Order::Cycle => "cycle",
        };
        loop {
            let patience = Patience { wait_s: order_wait_s(limit.left_ms()), tries: 1 };
            let ran = self.run(host, word, patience, client, limit);
            if !ran.is(What::Busy) || !paused(limit) {
                return ran;
            }
        }
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
            ("-p", &self.address.port.to_string()),
            ("-U", username),
            ("-C", &cipher.to_string()),
            ("-L", privilege),
            ("-N", &patience.wait_s.to_string()),
            ("-R", &patience.tries.to_string()),
        ];
        let options = options.into_iter().flat_map(|(option, value)| [option, value]);
        let argv = [program.as_str()].into_iter().chain(options);
        let argv = argv.chain(["-E", "-v", "chassis", "power", word]);
        let purpose = if word == "status" { Purpose::Question } else { Purpose::Order };
        let command = Command::new(argv.map(str::to_owned).collect(), limit).plain();
        let command = command.with_env([("IPMI_PASSWORD", self.password.expose())]);
        let command = Command { client: client.cloned(), ..command };
        self.ran(self.device.executor.run_for(purpose, command))
    }

    fn ran(&self, outcome: RunOutcome) -> Ran {
        let secrets = Secrets::from_iter([self.password.clone()]);
        let text = |words: &str| {
            bounded(&format!("BMC {}: {}", self.address, secrets.shown(words)), TEXT_BYTES_MAX)
        };
        match outcome {
            RunOutcome::Exited { code, stdout, stderr } => {
                let said = said(code, &stdout, &stderr);
                Ran::Said(Said { words: text(&said.words), ..said })
            }
            RunOutcome::TimedOut { .. } => {
                Ran::Ended(outcome, text("ipmitool got no answer by the limit"))
            }
            outcome => {
                let words = text(&outcome.end_of("ipmitool"));
                Ran::Ended(outcome, words)
            }
        }
    }
}

/// How ipmitool waits for an answer: `wait_s` in the first try, a second longer in each further
/// try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patience {
    wait_s: u64,
    tries: u32,
}

/// Waits until a busy BMC may be ready; `false` if no time is left to ask again.
fn paused(limit: Limit) -> bool {
    let has_time = limit.left_ms() >= BUSY_PAUSE_MS + LAST_TRY_MS;
    if has_time {
        thread::sleep(Duration::from_millis(BUSY_PAUSE_MS));
    }
    has_time
}

/// The waits of a question that may take `left_ms`. With enough time, ipmitool tries twice.
fn patience(left_ms: u64) -> Patience {
    let fitting = PATIENCES.iter().rfind(|(needed_ms, _)| *needed_ms <= left_ms);
    fitting.unwrap_or(&PATIENCES[0]).1
}

/// The wait for each answer to an order that may take `left_ms`. After an order without an answer,
/// ipmitool needs the same time again to end the session.
fn order_wait_s(left_ms: u64) -> u64 {
    (left_ms.saturating_sub(1_000) / 2_000).clamp(1, ORDER_WAIT_S_MAX)
}

/// The waits of questions, by the least time left in milliseconds: without an answer, a question
/// takes at most half of it.
const PATIENCES: [(u64, Patience); 4] = [
    (0, Patience { wait_s: 1, tries: 1 }),
    (8_000, Patience { wait_s: 2, tries: 1 }),
    (12_000, Patience { wait_s: 1, tries: 2 }),
    (20_000, Patience { wait_s: 2, tries: 2 }),
];

/// The results after which a question is repeated.
const PASSING: [What; 2] = [What::Busy, What::Later];

/// The pause before the next question to a busy BMC, and the least time for that question.
const BUSY_PAUSE_MS: u64 = 1_000;
const LAST_TRY_MS: u64 = 2_000;

/// The longest wait for an answer to an order. No slower BMC is known.
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
        // The time that ipmitool needs without an answer.
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
