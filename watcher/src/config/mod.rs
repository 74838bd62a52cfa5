//! The watcher's configuration: one TOML file, read whole, into types that need no further check.
//!
//! An administrator who mends a file wants to hear everything that is wrong with it at once, so
//! nothing here stops at the first problem; each carries the line it stands on. Unknown keys are
//! typing errors and refused. The environment's `REQUEST_DIR`, `RESPONSE_DIR` and `LOG_DIR` win over
//! the file, as they do for the agent.
//!
//! Which keys there are is the module `table`. Reading the file safely is `file`, taking TOML apart
//! is `reader`, the forms of single values are `values`. Nothing here looks at a device or at the
//! spool.

mod device;
mod file;
mod problems;
mod reader;
mod table;
mod targets;
mod values;

use std::path::{Path, PathBuf};

use fence_spool::Places;

pub use device::{DEVICE, DeviceKind, DeviceSettings, TYPES, Type};
pub use problems::{ConfigError, Problem};
pub use table::{Form, Key, Standing, TABLES};
pub use targets::Targets;

pub use values::in_words;
pub(crate) use values::milliseconds;

use problems::Problems;
use reader::Section;
use table::{LOG, SERVICE, SPOOL};
use values::{one_of, path};

/// The configuration that is read unless `--config` names another.
pub const DEFAULT_FILE: &str = "/etc/gfs2-fencing/fence-watcher.toml";

/// Everything that the watcher is told, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatcherConfig {
    /// `[spool]`: the directories and how long things stay there.
    pub spool: SpoolSettings,
    /// `[log]`: what is written down, and where.
    pub log: LogSettings,
    /// `[service]`: the bounds of the daemon itself.
    pub service: ServiceSettings,
    /// The `[[device]]` tables in their order, those for other nodes included.
    pub devices: Vec<DeviceSettings>,
    /// The name of the node that this watcher serves.
    pub node: String,
}

/// `[spool]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Where requests arrive.
    pub request_dir: PathBuf,
    /// Where answers are left.
    pub response_dir: PathBuf,
    /// How long after its timestamp a request without a deadline is still waited for.
    pub default_deadline_ms: u64,
    /// How long an answer is kept.
    pub keep_answers_ms: u64,
    /// How many answers are kept.
    pub keep_answers_max: usize,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The directory of the event logs.
    pub log_dir: PathBuf,
    /// The least important level that is still written.
    pub level: log::LevelFilter,
    /// Where the daemon's own lines go.
    pub target: LogTarget,
}

/// Where the daemon's own lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// The journal where systemd connects stderr with it, syslog where stderr is `/dev/null`, else
    /// stderr.
    Auto,
    /// Plain lines on stderr.
    Stderr,
    /// syslog's socket.
    Syslog,
    /// stderr with the journal's priority prefixes.
    Journal,
}

/// `[service]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The most executions at the same time, over all devices.
    pub max_running: usize,
    /// How long a stopping watcher waits for what still runs.
    pub stop_limit_ms: u64,
    /// How often the spool is looked through, whatever inotify says.
    pub rescan_ms: u64,
}

impl WatcherConfig {
    /// What is no fault and may surprise: names that mean one target.
    pub fn reports(&self) -> Vec<String> {
        device::reports(&self.devices)
    }
}

/// What the settings are made from.
#[derive(Debug)]
pub struct Origin<'a> {
    /// The configuration file.
    pub file: &'a Path,
    /// The local node's name.
    pub node: String,
    /// The environment, as `std::env::var` shows it.
    pub environment: &'a [(&'static str, Option<String>)],
    /// Whether each device's program must be there and executable: not so where a file is checked
    /// on another machine than the one it is written for.
    pub programs_must_exist: bool,
}

/// The variables that win over the file.
pub const VARIABLES: [&str; 3] = ["REQUEST_DIR", "RESPONSE_DIR", "LOG_DIR"];

/// The values of [`VARIABLES`]; an empty one counts as not set.
pub fn environment() -> [(&'static str, Option<String>); 3] {
    VARIABLES.map(|name| (name, std::env::var(name).ok().filter(|value| !value.is_empty())))
}

/// The name that this machine gives itself (`uname -n`).
pub fn local_node() -> String {
    nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads and checks the configuration file.
pub fn load(origin: &Origin) -> Result<WatcherConfig, ConfigError> {
    let text = file::read(origin.file)?;
    parse(&text, origin)
}

/// Checks the text of a configuration file.
pub fn parse(text: &str, origin: &Origin) -> Result<WatcherConfig, ConfigError> {
    let problems = Problems::of(text);
    let mut root = reader::parse(text, &problems);
    let mut settings = general(&mut root, &problems, origin);
    settings.devices = device::read_all(&mut root, &problems, origin.programs_must_exist);
    root.finish();
    problems.into_result(origin.file).map(|()| settings)
}

/// The settings where there is no configuration file, for the commands that only look.
pub fn without_file(origin: &Origin) -> Result<WatcherConfig, ConfigError> {
    let problems = Problems::of("");
    let settings = general(&mut reader::parse("", &problems), &problems, origin);
    problems.into_result(origin.file).map(|()| settings)
}

/// `[spool]` as far as it can be read, whatever is wrong with the file: to find a watcher that runs.
pub fn spool_at_best(origin: &Origin) -> SpoolSettings {
    let text = file::read(origin.file).unwrap_or_default();
    let problems = Problems::of(&text);
    let mut root = reader::parse(&text, &problems);
    spool(root.section("spool", SPOOL), &problems, origin)
}

fn general(root: &mut Section, problems: &Problems, origin: &Origin) -> WatcherConfig {
    let spool = spool(root.section("spool", SPOOL), problems, origin);
    let log = log(root.section("log", LOG), problems, origin);
    let service = service(root.section("service", SERVICE));
    WatcherConfig { spool, log, service, devices: Vec::new(), node: origin.node.clone() }
}

fn spool(mut section: Section, problems: &Problems, origin: &Origin) -> SpoolSettings {
    let mut directory = |key, variable| {
        let written = section.get(key, path);
        from_environment(origin, variable, problems).or(written).unwrap_or_default()
    };
    let request_dir = directory("request_dir", "REQUEST_DIR");
    let response_dir = directory("response_dir", "RESPONSE_DIR");
    let places = Places::new(&request_dir, &response_dir);
    if [&places.requests, &places.queries].contains(&&response_dir) || places.queries == request_dir
    {
        section.wrong(
            "request_dir, response_dir and 'queries' beside request_dir must be three directories",
        );
    }
    let settings = SpoolSettings {
        request_dir,
        response_dir,
        default_deadline_ms: section.duration("default_deadline").unwrap_or_default(),
        keep_answers_ms: section.duration("keep_answers").unwrap_or_default(),
        keep_answers_max: section.number("keep_answers_max").unwrap_or_default(),
    };
    section.finish();
    settings
}

fn log(mut section: Section, problems: &Problems, origin: &Origin) -> LogSettings {
    let levels = [
        ("error", log::LevelFilter::Error),
        ("warn", log::LevelFilter::Warn),
        ("info", log::LevelFilter::Info),
        ("debug", log::LevelFilter::Debug),
        ("trace", log::LevelFilter::Trace),
    ];
    let targets = [
        ("auto", LogTarget::Auto),
        ("stderr", LogTarget::Stderr),
        ("syslog", LogTarget::Syslog),
        ("journal", LogTarget::Journal),
    ];
    let log_dir = section.get("log_dir", path);
    let settings = LogSettings {
        log_dir: from_environment(origin, "LOG_DIR", problems).or(log_dir).unwrap_or_default(),
        level: section.get("level", one_of(&levels)).unwrap_or(log::LevelFilter::Info),
        target: section.get("target", one_of(&targets)).unwrap_or(LogTarget::Auto),
    };
    section.finish();
    settings
}

fn service(mut section: Section) -> ServiceSettings {
    let settings = ServiceSettings {
        max_running: section.number("max_running").unwrap_or_default(),
        stop_limit_ms: section.duration("stop_limit").unwrap_or_default(),
        rescan_ms: section.duration("rescan").unwrap_or_default(),
    };
    section.finish();
    settings
}

fn from_environment(origin: &Origin, variable: &str, problems: &Problems) -> Option<PathBuf> {
    let (_, value) = origin.environment.iter().find(|(name, _)| *name == variable)?;
    let value = value.as_deref()?;
    values::absolute(value)
        .map_err(|text| problems.anywhere(format!("{variable} in the environment: {text}")))
        .ok()
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

#[cfg(test)]
mod tests;
