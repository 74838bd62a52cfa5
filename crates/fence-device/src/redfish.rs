//! `type = "redfish"`: BMCs that speak Redfish, in process over HTTPS.
//!
//! Each question and each order is a visit: log in, look at the target's system, perhaps send
//! `ComputerSystem.Reset` (or `Chassis.Reset`, if `system` is the path of a chassis), log out. A
//! visit looks at the system also before an order. The look shows that the BMC responds, that it is
//! the right BMC, that the login is valid, and that the system exists and allows the order. An
//! error up to then proves that nothing was done; after an error from then on, the BMC may have
//! carried the order out.
//!
//! The reports of an order, their result codes, and their causes:
//!
//! - `Acknowledged`: 200, 202 or 204, without an error or a failed task in the body. Or the system
//!   shows the wanted state before the order, and the service does not allow or refuses the order.
//!   In both cases the plan asks for the power afterwards.
//! - `Unreachable`, 1, before the order was sent: unknown name, no connection, no answer, a broken
//!   answer, "not now" until the limit.
//! - `Unacknowledged`, 2: after the order came an error, a task that failed, or no answer.
//! - `Failed`, 3: certificate not trusted; login refused; no such system, or not exactly one; the
//!   system does not allow the order; the answer is not Redfish; password or CA file not readable.
//!
//! A name may have several addresses, and each look-up may return them in another order. A visit
//! chooses one address that accepts a connection. The first order of an execution pins the address
//! and the path of the system: the rest of the execution uses this address and path, or fails. The
//! certificate must still show the name.
//!
//! - `address`: the place of a BMC. `tls`, `pinned` and `names`: the checks of its certificate.
//! - `client`: HTTP. `path`, `resource` and `answer`: the content of answers, as pure functions.
//! - `systems`: the choice of the system. `service`: the questions. `errand`: the order. `review`:
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
use fence_protocol::NodeName;

pub use address::Address;
use address::connectable;
pub use answer::{Task, error_words, is_passing, parse_task, refusal, task_place};
use client::Client;
use errand::Errand;
pub use path::ResourcePath;
pub use resource::{
    Collection, Reset, System, parse_action_info, parse_collection, parse_system, reset_type,
};
use service::{Found, Problem, Service};
use systems::{Member, position_of};
use tls::Expected;
pub use tls::Fingerprint;

use crate::pin::Machine;
use crate::program::unknown;
use crate::{FenceDevice, Limit, OrderContext, Pin, Reach, SecretSource, TargetList};

/// A Redfish device as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedfishSettings {
    /// The address of each target's BMC, as [`Address::parse`] takes it.
    pub address: PerTarget,
    /// Each target's computer system, by its path or by its `Id` or `Name`. Without it, the BMC
    /// must have exactly one.
    pub system: Option<PerTarget>,
    /// The known targets, whose BMCs [`FenceDevice::reachable`] contacts.
    pub known_targets: BTreeSet<NodeName>,
    /// The user of the login.
    pub username: String,
    /// The source of the password.
    pub password: SecretSource,
    /// How to log in.
    pub login: RedfishLogin,
    /// How to check a BMC's certificate.
    pub trust: RedfishTrust,
    /// Whether a reboot is the service's own reset, which the system must then allow as well.
    pub is_cycled: bool,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedfishLogin {
    /// With each call.
    Basic,
    /// Once for each visit.
    Session,
}

/// How to check a BMC's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedfishTrust {
    /// This file contains the certificate, or the certificate of its issuer.
    CaFile(PathBuf),
    /// The certificate has this [`Fingerprint`].
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

    /// The place of `target`, with the address that an order of the execution has pinned.
    fn place(&self, target: &NodeName, pin: &Pin) -> Result<Place, Problem> {
        let place = self.place_by(|values| values.of(target)).map_err(|absent| {
            Problem::Failed(format!("no '{absent}' is configured for '{target}'"))
        })?;
        Ok(Place { pinned: pinned(pin).map(|(address, _)| address), ..place })
    }

    /// The place of all targets, if they share one.
    fn place_of_all(&self) -> Option<Place> {
        self.place_by(|values| values.of_all().map(str::to_owned)).ok()
    }

    /// The place for which `of` selects the configured values; the error names the missing key.
    fn place_by(&self, of: impl Fn(&PerTarget) -> Option<String>) -> Result<Place, &'static str> {
        let address = of(&self.settings.address).ok_or("address")?;
        let fingerprint = match &self.settings.trust {
            RedfishTrust::Fingerprint(fingerprints) => Some(of(fingerprints).ok_or("fingerprint")?),
            RedfishTrust::CaFile(_) | RedfishTrust::Insecure => None,
        };
        Ok(Place { address, fingerprint, pinned: None })
    }

    /// Opens a service, logs in, does `work` there, and logs out. `work` must clean the texts that
    /// it returns ([`Service::clean`]), except the text of a problem.
    fn visit<T>(
        &self,
        place: &Place,
        limit: Limit,
        work: impl FnOnce(&Service) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let password = self.settings.password.read().map_err(Problem::Failed)?;
        let mut service = Service::new(self.client(place, limit)?, limit);
        let RedfishSettings { login, username, .. } = &self.settings;
        let result = service.log_in(*login, username, &password).and_then(|()| work(&service));
        service.close_session();
        result.map_err(|problem| service.named(problem))
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

    /// The present system of `target`, or the pinned system, and its path.
    fn system(&self, service: &Service, target: &NodeName, pin: &Pin) -> Result<Found, Problem> {
        if let Some((_, path)) = pinned(pin) {
            return self.pinned_system(service, target, path);
        }
        let Some(systems) = &self.settings.system else {
            let Collection { members, unreadable, next } = service.collection()?;
            return match (&members[..], &unreadable[..]) {
                ([only], []) => service.system(only),
                _ if next.is_some() => Err(Problem::Unreachable(unreadable.join("; "))),
                _ => Err(Problem::Failed(format!(
                    "it has {} systems: set 'system' to the system of '{target}'",
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

    /// The same. Repeats the question while the system shows its state beside an error, unless
    /// `is_enough`.
    fn settled_system(
        &self,
        service: &Service,
        target: &NodeName,
        pin: &Pin,
        is_enough: impl Fn(&System) -> bool,
    ) -> Result<Found, Problem> {
        loop {
            let found = self.system(service, target, pin)?;
            if !found.1.is_doubtful || is_enough(&found.1) || !service.has_paused(None) {
                return Ok(found);
            }
        }
    }

    /// The system at `path`, to which an order was sent. A system that has moved, or has another
    /// name now, may be a different one.
    fn pinned_system(
        &self,
        service: &Service,
        target: &NodeName,
        path: &ResourcePath,
    ) -> Result<Found, Problem> {
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

    /// The targets whose systems the one service lists.
    fn discovered(&self, service: &Service) -> Result<BTreeSet<NodeName>, Problem> {
        let Some(called) = &self.settings.system else {
            return Err(Problem::Failed(
                "'system' is not set, so systems have no target names".to_owned(),
            ));
        };
        // The list contains only the systems that can be read now.
        let all = service.systems(&[])?.members;
        let target_at = |(at, Member { path, system, .. }): (usize, &Member)| {
            // A name counts only if it leads back to this system.
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
}

impl FenceDevice for RedfishDevice {
    fn abilities(&self) -> Abilities {
        Abilities { off: true, on: true, cycle: true, power: true }
    }

    /// Looks at the system of each target, and checks that an order would find all that it needs.
    fn reachable(&self, limit: Limit) -> Reach {
        if !self.settings.known_targets.is_empty() {
            return self.review(limit).reach();
        }
        let Some(place) = self.place_of_all() else {
            let text = "not contacted: each target has its own BMC, and none is listed";
            return Reach::NotAsked(text.to_owned());
        };
        match self.visit(&place, limit, Service::collection) {
            Ok(Collection { members, unreadable, .. }) => {
                let count = members.len() + unreadable.len();
                Reach::Reachable(format!("it answered, and has {count} systems"))
            }
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
        match self.visit(&place, limit, |service| self.discovered(service)) {
            Ok(nodes) => TargetList::Nodes(Vec::from_iter(nodes)),
            Err(Problem::Failed(text)) => TargetList::NoList(text),
            Err(problem) => TargetList::Unreachable(problem.into_text()),
        }
    }

    fn power(&self, target: &NodeName, pin: &Pin, limit: Limit) -> PowerReport {
        // A BMC that dropped a question often answers the next one.
        let limit = limit.min(Limit::in_ms(QUESTION_MS_MAX));
        let look = |service: &Service| {
            let (_, system) = self.settled_system(service, target, pin, |_| false)?;
            Ok(PowerReport { state: system.power, detail: service.clean(&system.power_words) })
        };
        let report = self.place(target, pin).and_then(|place| self.visit(&place, limit, look));
        report.unwrap_or_else(|problem| unknown(problem.into_text()))
    }

    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport {
        if limit.has_passed() {
            return OrderReport::TooLate;
        }
        let send = |service: &Service| {
            // An order needs no state, only the reset action.
            let is_enough = |system: &System| system.reset.is_ok();
            let (path, system) = self.settled_system(service, job.target, job.pin, is_enough)?;
            let errand = Errand { service, order, job, limit, path };
            let (is_acknowledged, words) = errand.run(system)?;
            Ok((is_acknowledged, service.clean(&words)))
        };
        let place = self.place(job.target, job.pin);
        match place.and_then(|place| self.visit(&place, limit, send)) {
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

/// The address of a BMC, and the fingerprint that its certificate must have.
struct Place {
    address: String,
    fingerprint: Option<String>,
    /// The network address to which an order of the execution was sent.
    pinned: Option<SocketAddr>,
}

/// The address and the system to which an order was sent.
fn pinned(pin: &Pin) -> Option<(SocketAddr, &ResourcePath)> {
    match pin.machine()? {
        Machine::Redfish { address, system } => Some((*address, system)),
        _ => None,
    }
}

/// The time limit of a question for the power. It is shorter than the 15 s for which an agent
/// waits, so that the agent learns which BMC does not answer.
const QUESTION_MS_MAX: u64 = 13_000;
