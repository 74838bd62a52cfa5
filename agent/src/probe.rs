//! `monitor`, `status`, `list` and `list-status`: questions. They write no request, because some
//! responders take every request for a fence.

use std::time::Duration;

use fence_client::{AskError, check_alive};
use fence_core::budget::Budget;
use fence_core::watcher::Unroutable;
use fence_protocol::{NodeName, PowerState, QueryAnswer, QueryCode, QueryKind, shortened};
use fence_spool::ClientSpool;
use gfs2_discovery::Target;

use crate::clock::{self, boot_ms};
use crate::discovery::{self, Discovery, Naming};
use crate::invocation::{Probe, ProbeKind, Responder};
use crate::outcome::Ending;
use crate::progress::Progress;
use crate::target;

/// Asks, for an agent that started at `start_boot_ms`.
pub(crate) fn run(probe: &Probe, start_boot_ms: u64) -> Ending {
    let progress = Progress::open(&probe.telling);
    let mut asking = Asking { probe, progress, budget: Budget::new(start_boot_ms, probe.time_max) };
    let ignored: Vec<String> = probe.ignored.iter().map(ToString::to_string).collect();
    for ignored in &ignored {
        asking.progress.step(ignored);
    }
    let ending = if let Some(problem) = clock::problem() {
        Ending::failure(&problem)
    } else {
        asking.show_discovery();
        asking.answer().unwrap_or_else(Failure::into_ending)
    };
    // A value that a fence ignores is worth a word where somebody looks whether all is well.
    let is_monitor = matches!(probe.kind, ProbeKind::Monitor(_));
    let mut problems = if is_monitor { ignored } else { Vec::new() };
    problems.extend(asking.progress.settle(DEBUG_TIME_MAX));
    ending.with_problems(&problems)
}

/// How long the debug file may delay the answer.
const DEBUG_TIME_MAX: Duration = Duration::from_millis(500);

/// Why there is no answer.
enum Failure {
    Other(String),
    TimedOut(String),
}

impl Failure {
    fn into_ending(self) -> Ending {
        match self {
            Failure::Other(text) => Ending::failure(&text),
            Failure::TimedOut(text) => Ending::failure_as_said(&text),
        }
    }
}

struct Asking<'a> {
    probe: &'a Probe,
    progress: Progress,
    budget: Budget,
}

impl Asking<'_> {
    /// Shows what a fence of the target would find, to those who want to see it.
    fn show_discovery(&mut self) {
        let (Some(search), ProbeKind::Status(target)) = (&self.probe.discovery, &self.probe.kind)
        else {
            return;
        };
        let target = Target { plug: target.as_str(), nodename: self.probe.nodename.as_deref() };
        let (found, _) = Discovery::of(target, Some(search), self.budget.search(boot_ms()));
        found.to_lines().iter().for_each(|line| self.progress.step(line));
    }

    /// Fails where the target would be another node than the cluster means.
    fn check_target(&self) -> Result<(), Failure> {
        let (target, what) = match &self.probe.kind {
            ProbeKind::Status(target) => (target, "the state is not asked for"),
            ProbeKind::Monitor(Some(target)) => (target, "each fence is refused"),
            _ => return Ok(()),
        };
        let wanted = target::wanted(self.probe.nodename.as_deref(), None);
        if !target::is_doubtful(target.as_str(), wanted) {
            return Ok(());
        }
        let time_max = self.budget.search(boot_ms());
        let nodes = discovery::nodes(target.as_str(), wanted, &self.probe.cluster, time_max);
        target::refusal(target.as_str(), wanted, &nodes)
            .map_or(Ok(()), |why| Err(Failure::Other(format!("'{target}': {what}: {why}"))))
    }

    fn answer(&mut self) -> Result<Ending, Failure> {
        self.check_target()?;
        let name = match self.probe.responder {
            Responder::FenceWatcher => return self.ask_watcher(),
            Responder::Script => "script",
            Responder::Nnf => "nnf",
        };
        match &self.probe.kind {
            ProbeKind::Monitor(target) => {
                self.open_and_try()?;
                self.check_naming(target.as_ref())?;
                self.progress.step(&format!(
                    "monitor: requests can be written; responder '{name}' itself cannot be asked"
                ));
                Ok(Ending::success(""))
            }
            ProbeKind::Status(target) => Err(Failure::Other(format!(
                "the state of '{target}' is unknown: responder '{name}' cannot be asked"
            ))),
            ProbeKind::List(_) | ProbeKind::ListStatus(..) => Err(Failure::Other(format!(
                "responder '{name}' cannot be asked for its nodes: name them with pcmk_host_list"
            ))),
        }
    }

    /// Refuses a target that Kubernetes does not have, and a Kubernetes that does not answer.
    fn check_naming(&mut self, target: Option<&NodeName>) -> Result<(), Failure> {
        let Some(search) = &self.probe.naming else { return Ok(()) };
        let time_max = self.budget.side_question(boot_ms());
        match Naming::of(target.map(NodeName::as_str), search, time_max) {
            Naming::Known => Ok(()),
            Naming::Unknown(why) | Naming::NotKnown(why) => Err(Failure::Other(why)),
            Naming::NotAsked(why) => {
                self.progress.step(&format!("monitor: {why}"));
                Ok(())
            }
        }
    }

    fn ask_watcher(&mut self) -> Result<Ending, Failure> {
        let spool = self.open()?;
        match &self.probe.kind {
            ProbeKind::Monitor(target) => {
                check_alive(&spool).map_err(|error| Failure::Other(error.to_string()))?;
                self.open_and_try()?;
                let answer = self.ask(&spool, QueryKind::Reachable, None)?;
                self.progress.step(&format!("monitor: {}", answer.message));
                positive(answer, "the fence device is not usable")?;
                self.check_covered(&spool, target.as_ref())?;
                Ok(Ending::success(""))
            }
            ProbeKind::Status(target) => match self.power(&spool, target)? {
                (PowerState::On, _) => Ok(Ending::answer("Status: ON\n")),
                (PowerState::Off, _) => Ok(Ending::status_off()),
                (PowerState::Unknown, why) => {
                    Err(Failure::Other(format!("the state of '{target}' is unknown: {why}")))
                }
            },
            ProbeKind::List(fixed) => {
                let names = self.targets(&spool, fixed.as_ref())?;
                Ok(Ending::answer(
                    names.iter().fold(String::new(), |text, name| text + name.as_str() + "\n"),
                ))
            }
            ProbeKind::ListStatus(fixed, separator) => {
                let mut text = String::new();
                for name in self.targets(&spool, fixed.as_ref())? {
                    let state = match self.power(&spool, &name) {
                        Ok((PowerState::On, _)) => "ON",
                        Ok((PowerState::Off, _)) => "OFF",
                        Ok((PowerState::Unknown, _)) | Err(_) => "UNKNOWN",
                    };
                    // The middle column is the alias, and a node has none.
                    text += &[name.as_str(), separator, separator, state, "\n"].concat();
                }
                Ok(Ending::answer(text))
            }
        }
    }

    /// Fails where the watcher has no device for the target that each fence would be for. Whether it is on
    /// or off, or cannot be asked, is of no interest.
    fn check_covered(&self, spool: &ClientSpool, target: Option<&NodeName>) -> Result<(), Failure> {
        let Some(target) = target else { return Ok(()) };
        match self.power(spool, target) {
            Ok((PowerState::Unknown, why)) if self.is_unroutable(&why) => {
                Err(Failure::Other(format!("'{target}' cannot be fenced: {why}")))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn is_unroutable(&self, why: &str) -> bool {
        let by_name = |name: &String| {
            [Unroutable::NotHere(name.clone()), Unroutable::NotCovered(name.clone())]
        };
        let by_name = self.probe.device.as_ref().map(by_name).into_iter().flatten();
        by_name.chain([Unroutable::Nobody]).any(|reason| reason.to_string() == why)
    }

    fn open(&self) -> Result<ClientSpool, Failure> {
        let Probe { responder, places, .. } = self.probe;
        responder.open(places).map_err(|error| Failure::Other(error.to_string()))
    }

    /// Opens the directories, and proves that a request could be written at this moment.
    fn open_and_try(&self) -> Result<ClientSpool, Failure> {
        let spool = self.open()?;
        spool.check_served().map_err(|error| Failure::Other(error.to_string()))?;
        spool
            .try_submitting(self.probe.responder.showing())
            .map_err(|error| Failure::Other(format!("no request could be written: {error}")))?;
        Ok(spool)
    }

    /// The nodes that can be fenced: of those only `fixed`, where that is all that would be fenced.
    fn targets(
        &mut self,
        spool: &ClientSpool,
        fixed: Option<&NodeName>,
    ) -> Result<Vec<NodeName>, Failure> {
        let answer = self.ask(spool, QueryKind::Targets, None)?;
        let answer = positive(answer, "there is no list of nodes")?;
        let (listable, other): (Vec<_>, Vec<_>) =
            answer.targets.into_iter().partition(|name| is_listable(name));
        for name in other {
            self.progress.step(&format!("left out of the list: '{name}'"));
        }
        let names = listable.iter().filter_map(|name| name.parse().ok());
        Ok(names.filter(|name| fixed.is_none_or(|fixed| fixed == name)).collect())
    }

    fn power(
        &self,
        spool: &ClientSpool,
        target: &NodeName,
    ) -> Result<(PowerState, String), Failure> {
        let answer = self.ask(spool, QueryKind::Power, Some(target))?;
        match answer.power {
            Some(state) if answer.code == QueryCode::Yes => Ok((state, answer.message)),
            _ => Ok((PowerState::Unknown, answer.message)),
        }
    }

    fn ask(
        &self,
        spool: &ClientSpool,
        kind: QueryKind,
        target: Option<&NodeName>,
    ) -> Result<QueryAnswer, Failure> {
        let device = self.probe.device.as_deref();
        let deadline_boot_ms = self.budget.end_boot_ms();
        let query = fence_client::NewQuery { kind, device, target, deadline_boot_ms };
        fence_client::ask(spool, &query).map_err(|error| match error {
            AskError::NoAnswer { .. } => Failure::TimedOut(format!(
                "timed out after {} s: {error}; see 'journalctl -u fence-watcher'",
                self.probe.time_max.as_secs_f64()
            )),
            other => Failure::Other(other.to_string()),
        })
    }
}

/// The longest message of the watcher in a failure, in bytes. A line on standard error has at most 1024.
const MESSAGE_BYTES_MAX: usize = 900;

fn positive(answer: QueryAnswer, otherwise: &str) -> Result<QueryAnswer, Failure> {
    if answer.code == QueryCode::Yes {
        return Ok(answer);
    }
    // With all that it says, the line would end before the advice.
    let message = shortened(&answer.message, MESSAGE_BYTES_MAX);
    Err(Failure::Other(format!("{otherwise}: {message}; see 'fence-watcher check'")))
}

/// Whether Pacemaker reads `name` as one node. It takes every run of these characters for a name of
/// its own, so another one in it would make two nodes of it that perhaps exist.
fn is_listable(name: &str) -> bool {
    name.parse::<NodeName>().is_ok()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_pacemaker_would_read_as_two_is_not_listed() {
        for good in ["n3", "compute-node-16", "a.example", "a_b"] {
            assert!(is_listable(good), "{good}");
        }
        for bad in ["", "a,b", "a:b", "a b", "a@b", "-a", "../a", "a\nb"] {
            assert!(!is_listable(bad), "{bad:?}");
        }
    }
}
