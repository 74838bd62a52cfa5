//! The watcher's configuration: one TOML file, read whole, into types that need no further check.
//!
//! All problems of a file are reported in one pass, each with its line. Unknown keys are typing
//! errors and refused. `REQUEST_DIR`, `RESPONSE_DIR` and `LOG_DIR` in the environment override the
//! file, as they do for the agent.
//!
//! - `table`: the keys. `device`: the keys of the devices, and their checks.
//! - `file`: reading the file safely. `reader`: its tables. `values`: the forms of single values.
//!
//! Nothing here looks at a device or at the spool.

mod device;
mod file;
mod problems;
mod reader;
mod table;
mod targets;
mod values;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use fence_log::LogTarget;
use fence_spool::Places;
use ring::digest::{SHA256, digest};

pub use device::{DEVICE, DeviceKind, DeviceSettings, TYPES, Type};
pub use problems::{ConfigError, Problem};
pub use table::{Form, Key, Standing, TABLES};
pub use targets::Targets;

pub use values::in_words;
pub(crate) use values::milliseconds;

use problems::Problems;
use reader::Section;
use table::{LOG, SERVICE, SPOOL};
use values::path;

/// The configuration that is read unless `--config` names another.
pub const DEFAULT_FILE: &str = "/etc/gfs2-fencing/fence-watcher.toml";

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatcherConfig {
    /// `[spool]`: the directories and how long things stay there.
    pub spool: SpoolSettings,
    /// `[log]`: what is logged, and where.
    pub log: LogSettings,
    /// `[service]`: the bounds of the daemon itself.
    pub service: ServiceSettings,
    /// The `[[device]]` tables in their order, also those for other nodes.
    pub devices: Vec<DeviceSettings>,
    /// The name of the node that this watcher serves.
    pub node: String,
    /// The SHA-256 digest of the file, as sha256sum(1) prints it; empty if there is no file.
    pub digest: String,
}

/// `[spool]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Where requests arrive.
    pub request_dir: PathBuf,
    /// Where answers are written.
    pub response_dir: PathBuf,
    /// How long after its timestamp a request without a deadline may be executed.
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
    /// The least important level that is logged.
    pub level: log::LevelFilter,
    /// Where the daemon's own lines go.
    pub target: LogTarget,
}

/// `[service]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The most executions at the same time, over all devices.
    pub max_running: usize,
    /// How long a stopping watcher waits for the fences that still run.
    pub stop_limit_ms: u64,
    /// How often the watcher looks through the spool without an event of inotify.
    pub rescan_ms: u64,
}

impl SpoolSettings {
    /// The directories.
    pub fn places(&self) -> Places {
        Places::new(&self.request_dir, &self.response_dir)
    }
}

impl WatcherConfig {
    /// Names of one target: no fault, but perhaps a surprise.
    pub fn reports(&self) -> Vec<String> {
        device::reports(&self.devices)
    }
}

/// The sources of the settings.
#[derive(Debug)]
pub struct Origin<'a> {
    /// The configuration file.
    pub file: &'a Path,
    /// The local node's name.
    pub node: String,
    /// The environment, as [`environment`] reads it.
    pub environment: &'a [(&'static str, Option<String>)],
    /// Whether each device's program must exist and be executable: false for a file that is checked
    /// on another machine than its own.
    pub programs_must_exist: bool,
}

/// The variables that override the file.
pub const VARIABLES: [&str; 3] = ["REQUEST_DIR", "RESPONSE_DIR", "LOG_DIR"];

/// The values of [`VARIABLES`]; an empty value counts as not set.
pub fn environment() -> [(&'static str, Option<String>); 3] {
    VARIABLES.map(|name| (name, std::env::var(name).ok().filter(|value| !value.is_empty())))
}

/// The name of this machine (`uname -n`).
pub fn local_node() -> String {
    nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads and checks the configuration file.
pub fn load(origin: &Origin) -> Result<WatcherConfig, ConfigError> {
    let text = file::read(origin.file)?;
    let mut settings = parse(&text, origin)?;
    for byte in digest(&SHA256, text.as_bytes()).as_ref() {
        // A String takes every text.
        let _ = write!(settings.digest, "{byte:02x}");
    }
    Ok(settings)
}

/// Checks the text of a configuration file.
pub fn parse(text: &str, origin: &Origin) -> Result<WatcherConfig, ConfigError> {
    let problems = Problems::of(text);
    let mut root = reader::parse(text, &problems);
    let mut settings = general(&mut root, origin);
    settings.devices = device::read_all(&mut root, origin.programs_must_exist);
    root.finish();
    problems.into_result(origin.file).map(|()| settings)
}

/// The settings without a configuration file, for the commands that only look.
pub fn without_file(origin: &Origin) -> Result<WatcherConfig, ConfigError> {
    let problems = Problems::of("");
    let settings = general(&mut reader::parse("", &problems), origin);
    problems.into_result(origin.file).map(|()| settings)
}

/// `[spool]` as far as it can be read, even from a wrong file: to find a running watcher.
pub fn spool_at_best(origin: &Origin) -> SpoolSettings {
    let text = file::read(origin.file).unwrap_or_default();
    let problems = Problems::of(&text);
    spool(&mut reader::parse(&text, &problems), origin)
}

fn general(root: &mut Section, origin: &Origin) -> WatcherConfig {
    let (spool, log, service) = (spool(root, origin), log(root, origin), service(root));
    let (node, digest) = (origin.node.clone(), String::new());
    WatcherConfig { spool, log, service, devices: Vec::new(), node, digest }
}

fn spool(root: &mut Section, origin: &Origin) -> SpoolSettings {
    let mut section = root.section("spool", SPOOL);
    let settings = SpoolSettings {
        request_dir: directory(&mut section, "request_dir", origin, "REQUEST_DIR"),
        response_dir: directory(&mut section, "response_dir", origin, "RESPONSE_DIR"),
        default_deadline_ms: section.duration("default_deadline").unwrap_or_default(),
        keep_answers_ms: section.duration("keep_answers").unwrap_or_default(),
        keep_answers_max: section.number("keep_answers_max").unwrap_or_default(),
    };
    let Places { requests, responses, queries } = &settings.places();
    if [requests, queries].contains(&responses) || queries == requests {
        section.wrong(
            "request_dir, response_dir and 'queries' beside request_dir must be three directories",
        );
    }
    section.finish();
    settings
}

fn log(root: &mut Section, origin: &Origin) -> LogSettings {
    let mut section = root.section("log", LOG);
    let level = section.word::<String>("level").and_then(|level| level.parse().ok());
    let settings = LogSettings {
        log_dir: directory(&mut section, "log_dir", origin, "LOG_DIR"),
        level: level.unwrap_or(log::LevelFilter::Info),
        target: section.word("target").unwrap_or(LogTarget::Auto),
    };
    section.finish();
    settings
}

fn service(root: &mut Section) -> ServiceSettings {
    let mut section = root.section("service", SERVICE);
    let settings = ServiceSettings {
        max_running: section.number("max_running").unwrap_or_default(),
        stop_limit_ms: section.duration("stop_limit").unwrap_or_default(),
        rescan_ms: section.duration("rescan").unwrap_or_default(),
    };
    section.finish();
    settings
}

/// The directory in `variable` of the environment, else the one in `key`.
fn directory(section: &mut Section, key: &str, origin: &Origin, variable: &str) -> PathBuf {
    let written = section.get(key, path);
    let variable = origin.environment.iter().find(|(name, _)| *name == variable);
    let overriding = variable.and_then(|(name, value)| {
        let problem = |text| format!("{name} in the environment: {text}");
        let read = values::absolute(value.as_deref()?);
        read.map_err(|text| section.problems.anywhere(problem(text))).ok()
    });
    overriding.or(written).unwrap_or_default()
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

#[cfg(test)]
mod tests;
