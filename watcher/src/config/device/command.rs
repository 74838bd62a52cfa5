//! `type = "command"`: a program for each action.

use std::path::Path;

use fence_core::execution::Method;
use fence_device::CommandSettings;
use fence_spool::program_problem;

use super::Common;
use crate::config::reader::Section;
use crate::config::values::argv;

/// The keys of this type.
pub(super) const KEYS: &[&str] = &["off", "on", "reboot", "status", "list", "monitor"];

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> CommandSettings {
    common.refuse_names();
    check_abilities(section, common);
    let commands = commands(section, common);
    CommandSettings { name: common.name.clone(), timeout_ms: common.timeout_ms, ..commands }
}

/// Notes what a device of type `command` is told to do and has no program for.
fn check_abilities(section: &Section, common: &Common) {
    let has = |key| section.has(key);
    if !has("off") && !has("reboot") {
        section.absent("neither 'off' nor 'reboot' is given: the device could not fence");
    }
    let needs = |text: &str| common.problems.at(common.method_at, format!("'method': {text}"));
    match common.method {
        Some(Method::Cycle) if !has("reboot") => needs("\"cycle\" needs a program for 'reboot'"),
        Some(Method::OnOff) if !has("off") || !has("on") => {
            needs("\"onoff\" needs programs for 'off' and 'on'");
        }
        _ => {}
    }
    if common.discovers() && !has("list") {
        let text = "'targets': \"discover\" needs a program for 'list'";
        common.problems.at(common.targets_at, text);
    }
}

/// The command lines; the device's name and time limit are its own.
fn commands(section: &mut Section, common: &Common) -> CommandSettings {
    let mut command = |key| {
        let offset = section.offset_of(key);
        let argv = section.get(key, |value| argv(value, placeholders(key)))?;
        if common.programs_must_exist
            && let Some(problem) = program_problem(Path::new(&argv[0]))
        {
            common.problems.at(offset, format!("'{key}': {problem}"));
        }
        Some(argv)
    };
    CommandSettings {
        off: command("off"),
        on: command("on"),
        reboot: command("reboot"),
        status: command("status"),
        list: command("list"),
        monitor: command("monitor"),
        ..CommandSettings::default()
    }
}

/// What is put in for the arguments of a command: a list concerns no target, a question no request.
fn placeholders(command: &str) -> &'static [&'static str] {
    match command {
        "list" | "monitor" => &["{action}"],
        "status" => &["{target}", "{action}"],
        _ => &["{target}", "{action}", "{gfs2_filesystems}", "{request_id}"],
    }
}
