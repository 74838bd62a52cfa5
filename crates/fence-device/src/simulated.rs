//! `type = "simulated"`: a device that is a file, for demonstrations and tests.
//!
//! The device remembers power states, and delays and fails as configured. Every text starts with
//! "simulated:", so that nobody mistakes it for a fence. Beside the state file `S` are
//! - `S.orders`: one line for each order that began: `time boot_ms order target request_id`;
//! - `S.behave`, optional: a failure and a delay in ms that override the settings.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use fence_core::execution::{Abilities, Order, OrderReport, PowerReport};
use fence_protocol::{NodeName, PowerState};
use fence_spool::PlaceError;
use serde::{Deserialize, Serialize};

use crate::pool::lock;
use crate::program::unknown;
use crate::{FenceDevice, Limit, OrderContext, Pin, Reach, TargetList, boot_ms_now};

/// How a simulated device fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SimulatedFailure {
    /// The device does not fail.
    #[default]
    None,
    /// The device cannot be reached.
    Unreachable,
    /// The device refuses the order.
    Unacknowledged,
    /// The driver is broken.
    DeviceFailure,
    /// The device acknowledges the order and does nothing.
    Lie,
    /// The device does not answer by the limit.
    Hang,
}

/// A simulated device as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedSettings {
    /// The file of the power states: a JSON object with `"on"` and `"off"`. A node that is not in
    /// the file is on.
    pub state_file: PathBuf,
    /// The duration of each order.
    pub delay_ms: u64,
    /// How the device fails.
    pub fail: SimulatedFailure,
}

/// A device that is a file.
#[derive(Debug)]
pub struct SimulatedDevice {
    settings: SimulatedSettings,
    /// Locked while the file is read and replaced.
    file: Mutex<()>,
}

type States = BTreeMap<String, PowerState>;

impl SimulatedDevice {
    /// The device of `settings`.
    pub fn new(settings: SimulatedSettings) -> Self {
        SimulatedDevice { settings, file: Mutex::new(()) }
    }

    fn behaviour(&self) -> (SimulatedFailure, u64) {
        let text = fs::read_to_string(self.beside(".behave")).unwrap_or_default();
        let mut words = text.split_whitespace();
        // The file uses the words of the configuration.
        let fail = words.next().and_then(|word| serde_json::from_value(word.into()).ok());
        let delay_ms = words.next().and_then(|word| word.parse().ok());
        (fail.unwrap_or(self.settings.fail), delay_ms.unwrap_or(self.settings.delay_ms))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.settings.state_file.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    fn states(&self) -> io::Result<States> {
        match fs::read(&self.settings.state_file) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(States::new()),
            Err(error) => Err(error),
        }
    }

    fn set(&self, target: &NodeName, state: PowerState) -> io::Result<()> {
        let _guard = lock(&self.file);
        let mut states = self.states()?;
        states.insert(target.as_str().to_owned(), state);
        let temporary = self.beside(".tmp");
        fs::write(&temporary, serde_json::to_vec_pretty(&states)?)?;
        fs::rename(&temporary, &self.settings.state_file)
    }

    fn note(&self, order: Order, job: &OrderContext<'_>) -> io::Result<()> {
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let OrderContext { target, request_id, .. } = job;
        let (boot_ms, order) = (boot_ms_now(), order.as_action());
        let line = format!("{now} {boot_ms} {order} {target} {request_id}\n");
        let mut file = OpenOptions::new().create(true).append(true).open(self.beside(".orders"))?;
        file.write_all(line.as_bytes())
    }

    fn problem(&self, error: &io::Error) -> String {
        format!("simulated: \"{}\": {error}", self.settings.state_file.display())
    }
}

impl FenceDevice for SimulatedDevice {
    fn abilities(&self) -> Abilities {
        Abilities { off: true, on: true, cycle: true, power: true }
    }

    fn reachable(&self, limit: Limit) -> Reach {
        match self.behaviour().0 {
            SimulatedFailure::Unreachable => Reach::Unreachable(UNREACHABLE.to_owned()),
            SimulatedFailure::Hang => {
                wait_until(limit);
                Reach::Unreachable(HANGS.to_owned())
            }
            _ => Reach::Reachable("simulated: reachable; nothing real is fenced".to_owned()),
        }
    }

    /// The nodes in the state file.
    fn targets(&self, limit: Limit) -> TargetList {
        match (self.reachable(limit), self.states()) {
            (Reach::Unreachable(text), _) => TargetList::Unreachable(text),
            (_, Ok(all)) => {
                TargetList::Nodes(all.keys().filter_map(|it| it.parse().ok()).collect())
            }
            (_, Err(error)) => TargetList::NoList(self.problem(&error)),
        }
    }

    fn power(&self, target: &NodeName, _pin: &Pin, limit: Limit) -> PowerReport {
        let detail = match (self.reachable(limit), self.states()) {
            (Reach::Unreachable(text), _) => text,
            (_, Err(error)) => self.problem(&error),
            (_, Ok(states)) => {
                let state = states.get(target.as_str()).copied().unwrap_or(PowerState::On);
                let word = if state == PowerState::Off { "off" } else { "on" };
                return PowerReport { state, detail: format!("simulated: {target} is {word}") };
            }
        };
        unknown(detail)
    }

    fn order(&self, order: Order, job: &OrderContext<'_>, limit: Limit) -> OrderReport {
        if limit.has_passed() {
            return OrderReport::TooLate;
        }
        if let Err(error) = self.note(order, job) {
            return OrderReport::Failed(self.problem(&error));
        }
        let (fail, delay_ms) = self.behaviour();
        let delay = Limit::in_ms(delay_ms);
        if fail == SimulatedFailure::Hang || delay >= limit {
            wait_until(limit);
            return OrderReport::Unacknowledged(HANGS.to_owned());
        }
        wait_until(delay);
        if let Some(report) = job.forbids(limit) {
            return report;
        }
        let state = if order == Order::Off { PowerState::Off } else { PowerState::On };
        let done =
            format!("simulated: {} of {} done, for show only", order.as_action(), job.target);
        match fail {
            SimulatedFailure::Unreachable => OrderReport::Unreachable(UNREACHABLE.to_owned()),
            SimulatedFailure::DeviceFailure => {
                OrderReport::Failed("simulated: the driver is set to fail".to_owned())
            }
            SimulatedFailure::Unacknowledged => {
                OrderReport::Unacknowledged("simulated: the device is set to refuse".to_owned())
            }
            SimulatedFailure::Lie => OrderReport::Acknowledged(done),
            SimulatedFailure::None | SimulatedFailure::Hang => match self.set(job.target, state) {
                Ok(()) => OrderReport::Acknowledged(done),
                Err(error) => OrderReport::Unacknowledged(self.problem(&error)),
            },
        }
    }

    fn check(&self) -> Vec<String> {
        let directory = self.settings.state_file.parent().unwrap_or(Path::new(""));
        let shown = directory.display();
        let problem = if !directory.is_absolute() {
            format!("state_file: \"{shown}\" is not an absolute path")
        } else if is_on_gfs2(directory) {
            format!("state_file: \"{shown}\" is on GFS2, which hangs during a fence")
        } else if !directory.is_dir() {
            format!("state_file: \"{shown}\" is no directory; make it")
        } else {
            return Vec::new();
        };
        vec![problem]
    }
}

const UNREACHABLE: &str = "simulated: the device is set to be unreachable";
const HANGS: &str = "simulated: the device did not answer by the limit";

/// Whether the directory `path` is on GFS2, where any access may hang until the awaited fence is
/// done. This function touches nothing below the mount point of such a file system.
fn is_on_gfs2(path: &Path) -> bool {
    matches!(fence_spool::open_log_dir(path), Err(PlaceError::Gfs2 { .. }))
}

/// Waits for an instant of `CLOCK_BOOTTIME`, which runs while the machine sleeps; the clock of a
/// sleeping thread does not.
fn wait_until(limit: Limit) {
    while !limit.has_passed() {
        thread::sleep(Duration::from_millis(limit.left_ms().min(1000)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fence_protocol::{FenceAction, RequestId};

    /// A device with its own directory.
    struct Rig {
        directory: PathBuf,
        device: SimulatedDevice,
    }

    impl Rig {
        fn new(name: &str, fail: SimulatedFailure) -> Self {
            let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            fs::create_dir(&directory).unwrap();
            let state_file = directory.join("states");
            let device = SimulatedDevice::new(SimulatedSettings { state_file, delay_ms: 0, fail });
            Rig { directory, device }
        }

        fn order(&self, order: Order, limit: Limit) -> OrderReport {
            let (target, request_id) = ("n3".parse().unwrap(), RequestId::random());
            let job = OrderContext {
                target: &target,
                action: FenceAction::Off,
                request_id: &request_id,
                pin: &Pin::default(),
                gfs2_filesystems: &[],
                request_json: b"{}",
                client: None,
            };
            self.device.order(order, &job, limit)
        }

        fn off(&self) -> OrderReport {
            self.order(Order::Off, Limit::in_ms(60_000))
        }

        fn power(&self) -> PowerState {
            self.device.power(&"n3".parse().unwrap(), &Pin::default(), Limit::in_ms(60_000)).state
        }

        fn orders(&self) -> usize {
            let orders = fs::read_to_string(self.directory.join("states.orders"));
            orders.unwrap_or_default().lines().count()
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn it_remembers_what_it_did() {
        let rig = Rig::new("simulated-remembers", SimulatedFailure::None);
        assert_eq!(rig.power(), PowerState::On);

        let OrderReport::Acknowledged(text) = rig.off() else { panic!() };
        assert!(text.starts_with("simulated:"), "{text}");
        assert_eq!(rig.power(), PowerState::Off);
        let nodes = rig.device.targets(Limit::in_ms(60_000));
        assert_eq!(nodes, TargetList::Nodes(vec!["n3".parse().unwrap()]));

        rig.order(Order::Cycle, Limit::in_ms(60_000));
        assert_eq!(rig.power(), PowerState::On);
        assert_eq!(rig.orders(), 2);
        let orders = fs::read_to_string(rig.directory.join("states.orders")).unwrap();
        let words: Vec<&str> = orders.lines().next().unwrap().split(' ').collect();
        assert_eq!((words.len(), words[2], words[3]), (5, "off", "n3"));
    }

    #[test]
    fn a_file_beside_it_steers_it_while_it_runs() {
        let rig = Rig::new("simulated-steered", SimulatedFailure::DeviceFailure);
        assert!(matches!(rig.off(), OrderReport::Failed(_)));

        for (behaviour, kind) in [
            ("unreachable", "Unreachable"),
            ("unacknowledged", "Unacknowledged"),
            ("device-failure", "Failed"),
            ("lie 1", "Acknowledged"),
        ] {
            fs::write(rig.directory.join("states.behave"), behaviour).unwrap();
            let report = format!("{:?}", rig.off());
            assert!(report.starts_with(kind), "{behaviour}: {report}");
        }
        fs::remove_file(rig.directory.join("states.behave")).unwrap();
        assert_eq!(rig.power(), PowerState::On);
        assert_eq!(rig.orders(), 5);
    }

    #[test]
    fn it_never_takes_longer_than_its_limit_and_does_nothing_late() {
        let rig = Rig::new("simulated-late", SimulatedFailure::None);

        fs::write(rig.directory.join("states.behave"), "none 600000").unwrap();
        let report = rig.order(Order::Off, Limit::in_ms(20));
        assert!(matches!(report, OrderReport::Unacknowledged(_)), "{report:?}");
        fs::write(rig.directory.join("states.behave"), "hang").unwrap();
        let report = rig.order(Order::Off, Limit::in_ms(20));
        assert!(matches!(report, OrderReport::Unacknowledged(_)), "{report:?}");
        assert_eq!(rig.orders(), 2);

        assert_eq!(rig.order(Order::Off, Limit::in_ms(0)), OrderReport::TooLate);
        assert_eq!(rig.orders(), 2);
        fs::remove_file(rig.directory.join("states.behave")).unwrap();
        assert_eq!(rig.power(), PowerState::On);
    }

    #[test]
    fn an_unreadable_state_is_no_state() {
        let rig = Rig::new("simulated-unreadable", SimulatedFailure::None);
        fs::write(rig.directory.join("states"), "{").unwrap();

        assert_eq!(rig.power(), PowerState::Unknown);
        assert!(matches!(rig.off(), OrderReport::Unacknowledged(_)));
    }
}
