//! `type = "redfish"`: BMCs that speak Redfish, in process over HTTPS.
//!
//! Each question and each order is a visit: log in, look at the target's system, perhaps send
//! `ComputerSystem.Reset` (or `Chassis.Reset`, where `system` is the path of a chassis), log out.
//! The system is looked at first also before an order: that shows that the BMC is there, that it is
//! the right one, that the login is good, and that the system exists and allows the order. So
//! whatever fails until then fails before anything was done, and whatever fails from then on may
//! have been done.
//!
//! Each report of an order, its result code, and what comes to it:
//!
//! - `Acknowledged`: 200, 202 or 204, without an error or a failed task in the body. Or the system
//!   shows the wanted state before the order, and the service does not allow or refuses the order.
//!   Either is accepted and not done; the plan looks at the power.
//! - `Unreachable`, 1, before the order was sent: the name is not found, no connection, silence, a
//!   broken answer, "not now" until the limit.
//! - `Unacknowledged`, 2: the order was sent and answered with an error, with a task that failed,
//!   or not at all.
//! - `Failed`, 3: certificate not trusted; login refused; no such system, or not exactly one; the
//!   system does not allow the order; an answer that is no Redfish; password or CA file not
//!   readable.
//!
//! A name may have several addresses, and each look-up another order of them. A visit chooses one
//! address, to which there is a connection. The first order of an execution pins the address and
//! the path of the system: everything that follows in the execution is sent and asked there, or not
//! at all. The name stays the one that a certificate must show.
//!
//! - `address`: where a BMC is. `tls`, `pinned` and `names`: whether it is the right one.
//! - `client`: HTTP. `path`, `resource` and `answer`: what a BMC says, as pure functions.
//! - `systems`: which system is meant. `service`: what is asked. `errand`: the order. `review`:
//!   whether a fence would find all that it needs.

mod address;
mod answer;
mod client;
mod errand;
mod names;
mod path;
mod pinned;
mod resource;
mod review;
mod service;
mod systems;
mod tls;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use fence_core::PerTarget;
use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, PowerState};

pub use address::Address;
use address::connectable;
pub use answer::{Task, error_words, is_passing, parse_task, refusal, task_place};
use client::Client;
use errand::Errand;
pub use path::ResourcePath;
pub use resource::{
    Collection, Reset, System, parse_action_info, parse_collection, parse_system, reset_type,
};
use service::{Problem, Service};
use systems::{Member, position_of};
use tls::Expected;
pub use tls::Fingerprint;

use crate::pin::Machine;
use crate::{FenceDevice, Limit, OrderContext, Pin, Reach, SecretSource, TargetList};

/// A Redfish device as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedfishSettings {
    /// The address of each target's BMC, as [`Address::parse`] takes it.
    pub address: PerTarget,
    /// Each target's computer system, by its path or by its `Id` or `Name`. Without it, the BMC
    /// must have exactly one.
    pub system: Option<PerTarget>,
    /// The targets that are known: their BMCs are contacted to see what can be reached.
    pub known_targets: BTreeSet<NodeName>,
    /// Who logs in.
    pub username: String,
    /// With which password.
    pub password: SecretSource,
    /// How.
    pub login: RedfishLogin,
    /// What a BMC's certificate has to be.
    pub trust: RedfishTrust,
    /// Whether a reboot is the service's own reset: then that has to be allowed as well.
    pub is_cycled: bool,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedfishLogin {
    /// With each call.
    Basic,
    /// Once a visit.
    Session,
}

/// How a BMC's certificate is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedfishTrust {
    /// It is in this file, or signed by one that is.
    CaFile(PathBuf),
    /// It has this [`Fingerprint`].
    Fingerprint(PerTarget),
    /// Not at all.
    Insecure,
}

/// A device whose targets have BMCs that speak Redfish.
#[derive(Debug)]
pub struct RedfishDevice {
    settings: RedfishSettings,
}

impl RedfishDevice {
    /// The device of `settings`.
    pub fn new(settings: RedfishSettings) -> Self {
        RedfishDevice { settings }
    }

    /// Where `target` is reached.
    fn place(&self, target: &NodeName) -> Result<Place, Problem> {
        let absent = |what| Problem::Failed(format!("no '{what}' is configured for '{target}'"));
        Ok(Place {
            address: self.settings.address.of(target).ok_or_else(|| absent("address"))?,
            fingerprint: match &self.settings.trust {
                RedfishTrust::Fingerprint(fingerprints) => {
                    Some(fingerprints.of(target).ok_or_else(|| absent("fingerprint"))?)
                }
                _ => None,
            },
            pinned: None,
        })
    }

    /// Where the machine of an execution is reached: `target`, until an order has pinned one.
    fn place_in(&self, target: &NodeName, pin: &Pin) -> Result<Place, Problem> {
        let pinned = pinned(pin).map(|(address, _)| address);
        Ok(Place { pinned, ..self.place(target)? })
    }

    /// Where all targets are reached, if that is one place.
    fn place_of_all(&self) -> Option<Place> {
        let fingerprint = match &self.settings.trust {
            RedfishTrust::Fingerprint(fingerprints) => Some(fingerprints.of_all()?.to_owned()),
            _ => None,
        };
        let address = self.settings.address.of_all()?.to_owned();
        Some(Place { address, fingerprint, pinned: None })
    }

    /// Opens a service, logs in, does `work` there, and leaves. The text that comes with a value
    /// holds no secret, as little as that of a problem.
    fn visit<T>(
        &self,
        place: &Place,
        limit: Limit,
        work: impl FnOnce(&Service) -> Result<(T, String), Problem>,
    ) -> Result<(T, String), Problem> {
        let password = self.settings.password.read().map_err(Problem::Failed)?;
        let mut service = Service::new(self.client(place, limit)?, limit);
        let username = &self.settings.username;
        let result = match self.settings.login {
            RedfishLogin::Basic => service.log_in_each_time(username, &password),
            RedfishLogin::Session => service.open_session(username, &password),
        };
        let result = result.and_then(|()| work(&service));
        service.close_session();
        match result {
            Ok((value, text)) => Ok((value, service.clean(&text))),
            Err(problem) => Err(service.named(problem)),
        }
    }

    fn client(&self, place: &Place, limit: Limit) -> Result<Client, Problem> {
        let address = Address::parse(&place.address)
            .map_err(|problem| Problem::Failed(format!("'address': {problem}")))?;
        let expected = match (&self.settings.trust, &place.fingerprint) {
            (RedfishTrust::CaFile(path), _) => Expected::in_file(path),
            (RedfishTrust::Fingerprint(_), Some(text)) => text.parse().map(Expected::Fingerprint),
            _ => Ok(Expected::Any),
        };
        let tls = expected.and_then(Expected::into_settings).map_err(Problem::Failed)?;
        let at = match place.pinned {
            Some(pinned) => Ok(pinned),
            None => address.resolve(limit).and_then(|found| connectable(&found, limit)),
        };
        let at = at.map_err(Problem::Unreachable)?;
        Ok(Client::new(address.base(), at, address.is_tls().then_some(tls)))
    }

    /// The system of `target` and its path, as it is now: the pinned one, if there is one.
    fn system(
        &self,
        service: &Service,
        target: &NodeName,
        pin: &Pin,
    ) -> Result<(ResourcePath, System), Problem> {
        if let Some((_, path)) = pinned(pin) {
            return self.pinned_system(service, target, path);
        }
        let Some(systems) = &self.settings.system else {
            let Collection { members, unreadable, next } = service.collection()?;
            return match (&members[..], &unreadable[..]) {
                ([only], []) => service.system(only),
                _ if next.is_some() => Err(Problem::Unreachable(unreadable.join("; "))),
                _ => Err(Problem::Failed(format!(
                    "it has {} systems: say with 'system' which one is '{target}'",
                    members.len() + unreadable.len()
                ))),
            };
        };
        match systems.of(target) {
            None => Err(Problem::Failed(format!("no 'system' is configured for '{target}'"))),
            Some(uri) if uri.starts_with('/') => {
                service.system(&uri.parse().map_err(Problem::Failed)?)
            }
            Some(name) => service.named_system(&name),
        }
    }

    /// The same; asked again while it shows its state beside an error, and is not enough as it is.
    fn settled_system(
        &self,
        service: &Service,
        target: &NodeName,
        pin: &Pin,
        is_enough: impl Fn(&System) -> bool,
    ) -> Result<(ResourcePath, System), Problem> {
        loop {
            let found = self.system(service, target, pin)?;
            if !found.1.is_doubtful || is_enough(&found.1) || !service.has_paused(None) {
                return Ok(found);
            }
        }
    }

    /// The system at `path`, which an order went to. One that has moved on, or is called otherwise
    /// by now, may be another one.
    fn pinned_system(
        &self,
        service: &Service,
        target: &NodeName,
        path: &ResourcePath,
    ) -> Result<(ResourcePath, System), Problem> {
        let (place, system) = service.system(path)?;
        let name = self.settings.system.as_ref().and_then(|systems| systems.of(target));
        match name.filter(|name| !name.starts_with('/')) {
            _ if place != *path => Err(Problem::Failed(format!(
                "the system at {} has moved to {}",
                path.quoted(),
                place.quoted()
            ))),
            Some(name) if !system.is_called(&name) => Err(Problem::Failed(format!(
                "the system at {} is not '{name}' any more",
                path.quoted()
            ))),
            _ => Ok((place, system)),
        }
    }

    /// The targets among the systems of the one service, by what they are called there.
    fn discovered(&self, service: &Service) -> Result<BTreeSet<NodeName>, Problem> {
        let Some(called) = &self.settings.system else {
            return Err(Problem::Failed("'system' does not say how targets are called".to_owned()));
        };
        // A system that cannot be read has no name now; the others have theirs.
        let all = service.systems(&[])?.members;
        let target_at = |(at, Member { path, system, .. }): (usize, &Member)| {
            // A name is of use only where it leads back to this system.
            let is_its = |name: &&str| position_of(name, &all) == Ok(at);
            let names = [system.name.as_deref(), system.id.as_deref()];
            let by_name = || {
                let mut own = names.into_iter().flatten().filter(is_its);
                own.find_map(|name| called.target_of(name))
            };
            called.target_of(&path.to_string()).or_else(by_name)
        };
        Ok(all.iter().enumerate().filter_map(target_at).collect())
    }

    fn look(
        &self,
        target: &NodeName,
        pin: &Pin,
        limit: Limit,
    ) -> Result<(PowerState, String), Problem> {
        self.visit(&self.place_in(target, pin)?, limit, |service| {
            let (_, system) = self.settled_system(service, target, pin, |_| false)?;
            Ok((system.power, system.power_words))
        })
    }
}

impl FenceDevice for RedfishDevice {
    fn abilities(&self) -> Abilities {
        Abilities { off: true, on: true, cycle: true, power: true }
    }

    /// Looks at the system of each target, and for all that an order will need there.
    fn reachable(&self, limit: Limit) -> Reach {
        if !self.settings.known_targets.is_empty() {
            return self.review(limit).reach();
        }
        let Some(place) = self.place_of_all() else {
            let text = "not contacted: each target has its own BMC, and none is listed";
            return Reach::NotAsked(text.to_owned());
        };
        let count = |service: &Service| {
            let Collection { members, unreadable, .. } = service.collection()?;
            Ok((members.len() + unreadable.len(), String::new()))
        };
        match self.visit(&place, limit, count) {
            Ok((count, _)) => Reach::Reachable(format!("it answered, and has {count} systems")),
            Err(problem) => Reach::Unreachable(problem.into_text()),
        }
    }

    fn unknown_targets(&self, limit: Limit) -> Vec<String> {
        self.review(limit).into_problems()
    }

    fn targets(&self, limit: Limit) -> TargetList {
        let Some(place) = self.place_of_all() else {
            return TargetList::NoList("each target has its own BMC".to_owned());
        };
        match self.visit(&place, limit, |service| Ok((self.discovered(service)?, String::new()))) {
            Ok((nodes, _)) => TargetList::Nodes(Vec::from_iter(nodes)),
            Err(Problem::Failed(text)) => TargetList::NoList(text),
            Err(problem) => TargetList::Unreachable(problem.into_text()),
        }
    }

    fn power(&self, target: &NodeName, pin: &Pin, limit: Limit) -> PowerReport {
        // A BMC that forgot a question may well answer the next one.
        match self.look(target, pin, limit.min(Limit::in_ms(QUESTION_MS_MAX))) {
            Ok((state, detail)) => PowerReport { state, detail },
            Err(problem) => PowerReport { state: PowerState::Unknown, detail: problem.into_text() },
        }
    }

    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport {
        if limit.has_passed() {
            return OrderReport::TooLate;
        }
        let done = self.place_in(job.target, job.pin).and_then(|place| {
            self.visit(&place, limit, |service| {
                // An order needs no state, only the way to give it.
                let is_enough = |system: &System| system.reset.is_ok();
                let (path, system) =
                    self.settled_system(service, job.target, job.pin, is_enough)?;
                Errand { service, order, job, limit, path }.run(system)
            })
        });
        match done {
            Ok((true, words)) => OrderReport::Acknowledged(words),
            Ok((false, words)) => OrderReport::Unacknowledged(words),
            Err(Problem::Unreachable(text)) => OrderReport::Unreachable(text),
            Err(Problem::Failed(text)) => OrderReport::Failed(text),
            Err(Problem::Forbidden(report)) => report,
        }
    }

    fn check(&self) -> Vec<String> {
        let mut problems = Vec::from_iter(self.settings.password.read().err());
        if let RedfishTrust::CaFile(path) = &self.settings.trust {
            problems.extend(Expected::in_file(path).err());
        }
        problems
    }
}

/// Where a BMC is, and what its certificate has to be.
struct Place {
    address: String,
    fingerprint: Option<String>,
    /// The one network address that counts, once an order was sent there.
    pinned: Option<SocketAddr>,
}

/// The address and the system that an order went to.
fn pinned(pin: &Pin) -> Option<(SocketAddr, &ResourcePath)> {
    match pin.machine()? {
        Machine::Redfish { address, system } => Some((*address, system)),
        _ => None,
    }
}

/// How long a question for the power may take: less than the 15 s for which an agent waits, so that
/// the agent learns which BMC does not answer.
const QUESTION_MS_MAX: u64 = 13_000;
