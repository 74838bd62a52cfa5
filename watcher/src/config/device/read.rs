//! What all types of device have in common, read from a `[[device]]` table.

use std::collections::{BTreeMap, BTreeSet};

use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_device::SecretSource;
use fence_protocol::NodeName;
use toml::Spanned;
use toml::de::DeValue;

use super::{DEVICE, DeviceSettings, TYPES, Type, shared};
use crate::config::Targets;
use crate::config::problems::Problems;
use crate::config::reader::{Parsed, Section};
use crate::config::table::{Form, Key, Standing};
use crate::config::values::{boolean, name, names_of_targets, nodes, one_of, secret};

/// Takes all `[[device]]` tables out of the file.
pub(in crate::config) fn read_all(
    root: &mut Section,
    problems: &Problems,
    programs_must_exist: bool,
) -> Vec<DeviceSettings> {
    if !root.has("device") {
        root.absent("no [[device]]: without one nothing can be fenced");
    }
    let sections = root.sections("device", DEVICE);
    let mut first_lines = BTreeMap::new();
    let (mut devices, mut targets_at) = (Vec::new(), Vec::new());
    for mut section in sections {
        let offset = section.offset_of("name");
        let at = section.offset_of("targets");
        let name = section.get("name", name);
        if let Some(name) = &name {
            let first = *first_lines.entry(name.clone()).or_insert(offset);
            if first != offset {
                let first = problems.line(first);
                problems.at(offset, format!("a second device '{name}'; the first: line {first}"));
            }
        }
        let device = read(name.unwrap_or_default(), section, problems, programs_must_exist);
        targets_at.extend(device.is_some().then_some(at));
        devices.extend(device);
    }
    for (at, problem) in targets_at.into_iter().zip(shared::problems(&devices)) {
        if let Some(text) = problem {
            problems.at(at, text);
        }
    }
    devices
}

/// What the types have to know of a device when they read their own keys.
pub(super) struct Common<'p> {
    pub(super) name: String,
    pub(super) timeout_ms: u64,
    pub(super) targets: Option<Targets>,
    /// What the device calls its targets, where that is written with them.
    pub(super) names: Option<BTreeMap<NodeName, String>>,
    /// Where the targets are written.
    pub(super) targets_at: usize,
    /// How a reboot is done, where that is configured.
    pub(super) method: Option<Method>,
    /// Where that is written.
    pub(super) method_at: usize,
    pub(super) programs_must_exist: bool,
    pub(super) problems: &'p Problems,
}

impl Common<'_> {
    pub(super) fn discovers(&self) -> bool {
        self.targets == Some(Targets::Discover)
    }

    /// Where `key` is written, or the targets where it may be written with them.
    pub(super) fn place_of(&self, section: &Section, key: &str) -> usize {
        if section.has(key) { section.offset_of(key) } else { self.targets_at }
    }

    /// The targets that are known to have one of `texts`; none where any may come.
    pub(super) fn known_targets(&self, texts: &PerTarget) -> BTreeSet<NodeName> {
        match (&self.targets, texts) {
            (Some(Targets::Nodes(nodes)), _) => nodes.clone(),
            (_, PerTarget::Map(texts)) => texts.keys().cloned().collect(),
            (_, PerTarget::Pattern(_)) => BTreeSet::new(),
        }
    }

    /// Refuses names of targets, for a type that has none.
    pub(super) fn refuse_names(&self) {
        if self.names.is_some() {
            let text = "'targets': this type has no names of its own: write a list of nodes";
            self.problems.at(self.targets_at, text);
        }
    }
}

/// One device; `None` where something that has no default is missing or wrong, which is then noted.
fn read(
    name: String,
    mut section: Section,
    problems: &Problems,
    programs_must_exist: bool,
) -> Option<DeviceSettings> {
    let timeout_ms = section.duration("timeout");
    let targets_at = section.offset_of("targets");
    let (targets, names) = section.get("targets", targets).unzip();
    let names = names.flatten();
    let method_at = section.offset_of("method");
    let method = section.get("method", one_of(&METHODS));
    let common = Common {
        name,
        timeout_ms: timeout_ms.unwrap_or_default(),
        targets,
        names,
        targets_at,
        method,
        method_at,
        programs_must_exist,
        problems,
    };
    let types: Vec<(&str, &Type)> = TYPES.iter().map(|of_type| (of_type.name, of_type)).collect();
    let kind = if let Some(of_type) = section.get("type", one_of(&types)) {
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
pub(super) fn password(section: &mut Section, common: &Common) -> Option<SecretSource> {
    let keys = PASSWORD;
    if !keys.iter().any(|key| section.has(key)) {
        section
            .absent("no password: give 'password_file', 'password_env' or 'password_credential'");
    }
    secret(section, keys, common.problems)
}

/// Who can be fenced, and what the device calls them where that is written with it.
fn targets(value: &Spanned<DeValue>) -> Parsed<(Targets, Option<BTreeMap<NodeName, String>>)> {
    match value.get_ref() {
        DeValue::Table(_) => {
            let names = names_of_targets(value)?;
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

pub(super) const PASSWORD_FILE: Key = Key::new(
    "password_file",
    Form::Path,
    Standing::Optional("\"/etc/gfs2-fencing/password\""),
    "The file with the password, in one line. A file that others can read is refused: use mode \
     0600.",
);

pub(super) const PASSWORD_ENV: Key = Key::new(
    "password_env",
    Form::Text,
    Standing::Optional("\"FENCE_PASSWORD\""),
    "The password, instead of `password_file`: a variable of the service's environment.",
);

pub(super) const PASSWORD_CREDENTIAL: Key = Key::new(
    "password_credential",
    Form::Name,
    Standing::Optional("\"fence-password\""),
    "The password, instead of `password_file`: a credential of systemd (`LoadCredential=`).",
);
