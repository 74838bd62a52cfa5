//! `monitor`, `status`, `list` and `list-status`. They write no request, because some responders
//! take every request for a fence.

use std::fmt::Display;
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

/// Answers `probe`, for an agent that started at `start_boot_ms`.
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
        asking.answer().unwrap_or_else(|failure| failure)
    };
    // A monitor reports a value that a fence ignores: its reader wants to know whether all is well.
    let is_monitor = matches!(probe.kind, ProbeKind::Monitor(_));
    let mut problems = if is_monitor { ignored } else { Vec::new() };
    problems.extend(asking.progress.settle(DEBUG_TIME_MAX));
    ending.with_problems(&problems)
}

/// How long the debug file may delay the answer.
const DEBUG_TIME_MAX: Duration = Duration::from_millis(500);

fn failure(why: impl Display) -> Ending {
    Ending::failure(&why.to_string())
}

/// One probe under way. The error of its functions is the failure with which the agent ends.
struct Asking<'a> {
    probe: &'a Probe,
    progress: Progress,
    budget: Budget,
}

impl Asking<'_> {
    /// Shows the discovery that a fence of the target would make, if `verbose` asks for it.
    fn show_discovery(&mut self) {
        let (Some(search), ProbeKind::Status(target)) = (&self.probe.discovery, &self.probe.kind)
        else {
            return;
        };
        let target = Target { plug: target.as_str(), nodename: self.probe.nodename.as_deref() };
        let (found, _) = Discovery::of(target, Some(search), self.budget.search(boot_ms()));
        found.to_lines().iter().for_each(|line| self.progress.step(line));
    }

    /// Fails if the target is another node than the cluster means.
    fn check_target(&self) -> Result<(), Ending> {
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
            .map_or(Ok(()), |why| Err(failure(format_args!("'{target}': {what}: {why}"))))
    }

    fn answer(&mut self) -> Result<Ending, Ending> {
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
            ProbeKind::Status(target) => Err(failure(format_args!(
                "the state of '{target}' is unknown: responder '{name}' cannot be asked"
            ))),
            ProbeKind::List(_) | ProbeKind::ListStatus(..) => Err(failure(format_args!(
                "responder '{name}' cannot be asked for its nodes: name them with pcmk_host_list"
            ))),
        }
    }

    /// Fails if Kubernetes does not have the target, or does not answer.
    fn check_naming(&mut self, target: Option<&NodeName>) -> Result<(), Ending> {
        let Some(search) = &self.probe.naming else { return Ok(()) };
        let time_max = self.budget.side_question(boot_ms());
        match Naming::of(target.map(NodeName::as_str), search, time_max) {
            Naming::Known => Ok(()),
            Naming::Unknown(why) | Naming::NotKnown(why) => Err(failure(why)),
            Naming::NotAsked(why) => {
                self.progress.step(&format!("monitor: {why}"));
                Ok(())
            }
        }
    }

    fn ask_watcher(&mut self) -> Result<Ending, Ending> {
        let spool = self.open()?;
        match &self.probe.kind {
            ProbeKind::Monitor(target) => {
                check_alive(&spool).map_err(failure)?;
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
                    Err(failure(format_args!("the state of '{target}' is unknown: {why}")))
                }
            },
            ProbeKind::List(fixed) => {
                let names = self.targets(&spool, fixed.as_ref())?;
                let lines = names.iter().map(|name| format!("{name}\n"));
                Ok(Ending::answer(lines.collect::<String>()))
            }
            ProbeKind::ListStatus(fixed, separator) => {
                let names = self.targets(&spool, fixed.as_ref())?;
                let lines = names.iter().map(|name| {
                    let state = match self.power(&spool, name) {
                        Ok((PowerState::On, _)) => "ON",
                        Ok((PowerState::Off, _)) => "OFF",
                        Ok((PowerState::Unknown, _)) | Err(_) => "UNKNOWN",
                    };
                    // The column in the middle is the alias, and a node has none.
                    format!("{name}{separator}{separator}{state}\n")
                });
                Ok(Ending::answer(lines.collect::<String>()))
            }
        }
    }

    /// Fails if the watcher has no device for the target that each fence would be for. The state of
    /// the target does not matter, and neither does a device that does not answer.
    fn check_covered(&self, spool: &ClientSpool, target: Option<&NodeName>) -> Result<(), Ending> {
        let Some(target) = target else { return Ok(()) };
        match self.power(spool, target) {
            Ok((PowerState::Unknown, why)) if self.is_unroutable(&why) => {
                Err(failure(format_args!("'{target}' cannot be fenced: {why}")))
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

    fn open(&self) -> Result<ClientSpool, Ending> {
        self.probe.responder.open(&self.probe.places).map_err(failure)
    }

    /// Opens the directories, and proves that a request could be written now.
    fn open_and_try(&self) -> Result<(), Ending> {
        let spool = self.open()?;
        spool.check_served().map_err(failure)?;
        spool
            .try_submitting(self.probe.responder.showing())
            .map_err(|error| failure(format_args!("no request could be written: {error}")))
    }

    /// The nodes that can be fenced. A `fixed` target leaves only itself: nothing else would be
    /// fenced.
    fn targets(
        &mut self,
        spool: &ClientSpool,
        fixed: Option<&NodeName>,
    ) -> Result<Vec<NodeName>, Ending> {
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
    ) -> Result<(PowerState, String), Ending> {
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
    ) -> Result<QueryAnswer, Ending> {
        let device = self.probe.device.as_deref();
        let deadline_boot_ms = self.budget.end_boot_ms();
        let query = fence_client::NewQuery { kind, device, target, deadline_boot_ms };
        fence_client::ask(spool, &query).map_err(|error| match error {
            AskError::NoAnswer { .. } => Ending::failure_as_said(&format!(
                "timed out after {} s: {error}; see 'journalctl -u fence-watcher'",
                self.probe.time_max.as_secs_f64()
            )),
            other => failure(other),
        })
    }
}

/// The longest message of the watcher in a failure, in bytes. A line on standard error has at most
/// 1024.
const MESSAGE_BYTES_MAX: usize = 900;

fn positive(answer: QueryAnswer, otherwise: &str) -> Result<QueryAnswer, Ending> {
    if answer.code == QueryCode::Yes {
        return Ok(answer);
    }
    // The whole message would leave no room for the advice.
    let message = shortened(&answer.message, MESSAGE_BYTES_MAX);
    Err(failure(format_args!("{otherwise}: {message}; see 'fence-watcher check'")))
}

/// Whether Pacemaker reads `name` as one node. Pacemaker takes every run of these characters for a
/// name, so any other character would make two names of it, perhaps of nodes that exist.
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
