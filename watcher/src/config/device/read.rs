//! The keys that all types of device have, read from a `[[device]]` table.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::path::Path;

use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_device::SecretSource;
use fence_protocol::NodeName;
use toml::Spanned;
use toml::de::DeValue;

use super::{DEVICE, DeviceSettings, TYPES, Type, shared};
use crate::config::Targets;
use crate::config::reader::{Parsed, Section};
use crate::config::table::{Form, Key, Standing};
use crate::config::values::{boolean, name, names_of_targets, nodes, one_of, per_target, secret};

/// Takes all `[[device]]` tables out of the file.
pub(in crate::config) fn read_all(
    root: &mut Section,
    programs_must_exist: bool,
) -> Vec<DeviceSettings> {
    if !root.has("device") {
        root.absent("no [[device]]: without one nothing can be fenced");
    }
    let mut first_lines = BTreeMap::new();
    let (mut devices, mut targets_at) = (Vec::new(), Vec::new());
    for mut section in root.sections("device", DEVICE) {
        let at = section.offset_of("targets");
        let name = section.get("name", name);
        if let Some(name) = &name {
            match first_lines.entry(name.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(section.offset_of("name"))),
                Entry::Occupied(entry) => {
                    let first = section.problems.line(*entry.get());
                    section
                        .at("name", format!("a second device '{name}'; the first: line {first}"));
                }
            }
        }
        let device = read(name.unwrap_or_default(), section, programs_must_exist);
        targets_at.extend(device.is_some().then_some(at));
        devices.extend(device);
    }
    for (at, problem) in targets_at.into_iter().zip(shared::problems(&devices)) {
        if let Some(text) = problem {
            root.problems.at(at, text);
        }
    }
    devices
}

/// The facts of a device that the types need when they read their own keys.
pub(super) struct Common {
    pub(super) name: String,
    pub(super) timeout_ms: u64,
    pub(super) targets: Option<Targets>,
    /// The device's names for its targets, if they are written with the targets.
    pub(super) names: Option<BTreeMap<NodeName, String>>,
    /// How a reboot is done, if that is configured.
    pub(super) method: Option<Method>,
    programs_must_exist: bool,
}

impl Common {
    pub(super) fn discovers(&self) -> bool {
        self.targets == Some(Targets::Discover)
    }

    /// The targets that are known to have one of `texts`; none if the device has no list of
    /// targets.
    pub(super) fn known_targets(&self, texts: &PerTarget) -> BTreeSet<NodeName> {
        match (&self.targets, texts) {
            (Some(Targets::Nodes(nodes)), _) => nodes.clone(),
            (_, PerTarget::Map(texts)) => texts.keys().cloned().collect(),
            (_, PerTarget::Pattern(_)) => BTreeSet::new(),
        }
    }

    /// The device's names for its targets, from `key` or from the targets.
    pub(super) fn per_target(&self, section: &mut Section, key: &str) -> Option<PerTarget> {
        per_target(section, key, self.names.as_ref())
    }

    /// Why `program` cannot be run, unless the file is for another machine.
    pub(super) fn program_problem(&self, program: &Path) -> Option<String> {
        if self.programs_must_exist { fence_spool::program_problem(program) } else { None }
    }

    /// Refuses names of targets, for a type that has none.
    pub(super) fn refuse_names(&self, section: &Section) {
        if self.names.is_some() {
            section
                .note("targets", "this type has no other names for targets: write a list of nodes");
        }
    }
}

/// One device; `None` if a value without a default is missing or wrong, which is then noted.
fn read(name: String, mut section: Section, programs_must_exist: bool) -> Option<DeviceSettings> {
    let timeout_ms = section.duration("timeout");
    let (targets, names) = section.get("targets", targets).unzip();
    let common = Common {
        name,
        timeout_ms: timeout_ms.unwrap_or_default(),
        targets,
        names: names.flatten(),
        method: section.get("method", one_of(&METHODS)),
        programs_must_exist,
    };
    let types: Vec<(&str, &Type)> = TYPES.iter().map(|of_type| (of_type.name, of_type)).collect();
    let of_type = section.get("type", one_of(&types));
    let kind = if let Some(of_type) = of_type {
        section.allow(of_type.keys);
        (of_type.read)(&mut section, &common)
    } else {
        for of_type in TYPES {
            section.ignore(of_type.keys);
        }
        None
    };
    let nodes = section.get("nodes", nodes);
    let max_concurrent = section.number("max_concurrent");
    let attempts = section.number("attempts");
    let monitor_timeout_ms = section.duration("monitor_timeout");
    let acknowledge_dlm = section.get("acknowledge_dlm", boolean);
    section.finish();
    Some(DeviceSettings {
        name: common.name,
        type_name: of_type?.name,
        kind: kind?,
        targets: common.targets?,
        nodes,
        timeout_ms: timeout_ms?,
        monitor_timeout_ms: monitor_timeout_ms?,
        max_concurrent: max_concurrent?,
        method: common.method,
        attempts: attempts?,
        acknowledge_dlm: acknowledge_dlm?,
    })
}

/// The password of a device that has one login.
pub(super) fn password(section: &mut Section) -> Option<SecretSource> {
    if !PASSWORD.iter().any(|key| section.has(key)) {
        section
            .absent("no password: give 'password_file', 'password_env' or 'password_credential'");
    }
    secret(section, PASSWORD)
}

/// The targets, with the device's names for them if they are written in a table.
fn targets(value: &Spanned<DeValue>) -> Parsed<(Targets, Option<BTreeMap<NodeName, String>>)> {
    match value.get_ref() {
        DeValue::Table(table) => {
            let names = names_of_targets(value, table)?;
            Ok((Targets::Nodes(names.keys().cloned().collect()), Some(names)))
        }
        DeValue::String(text) if text == "*" => Ok((Targets::Any, None)),
        DeValue::String(text) if text == "discover" => Ok((Targets::Discover, None)),
        _ => nodes(value).map(|nodes| (Targets::Nodes(nodes), None)),
    }
}

const METHODS: [(&str, Method); 2] = [("onoff", Method::OnOff), ("cycle", Method::Cycle)];

/// The keys of a password.
pub(super) const PASSWORD: [&str; 3] = ["password_file", "password_env", "password_credential"];

pub(super) const PASSWORD_FILE: Key =
    Key::new("password_file", Form::Path, Standing::Optional("\"/etc/gfs2-fencing/password\""))
        .help(
            "The file with the password, in one line. A file that others can read is refused: use \
             mode 0600.",
        );

pub(super) const PASSWORD_ENV: Key =
    Key::new("password_env", Form::Text, Standing::Optional("\"FENCE_PASSWORD\""))
        .help("The password, instead of `password_file`: a variable of the service's environment.");

pub(super) const PASSWORD_CREDENTIAL: Key =
    Key::new("password_credential", Form::Name, Standing::Optional("\"fence-password\"")).help(
        "The password, instead of `password_file`: a credential of systemd (`LoadCredential=`).",
    );
