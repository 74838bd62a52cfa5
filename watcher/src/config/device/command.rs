//! `type = "command"`: a program for each action.

use fence_core::execution::Method;
use fence_device::{CommandSettings, known_placeholders};

use super::read::Common;
use crate::config::reader::Section;
use crate::config::table::Form::Program;
use crate::config::table::Key;
use crate::config::table::Standing::Optional;
use crate::config::values::argv;

/// The keys of this type.
pub(super) const KEYS: &[Key] = &[
    Key::new("off", Program, Optional(OFF)).help(
        "The program that switches a target off. Exit code 0: the device has acknowledged. \
         `off` or `reboot` is required.",
    ),
    Key::new("on", Program, Optional(ON))
        .help("The program that switches a target on. Exit code 0: the device has acknowledged."),
    Key::new("reboot", Program, Optional(CYCLE)).help(
        "The program for the device's own reset, for the method `\"cycle\"`. Exit code 0: the \
         device has acknowledged.",
    ),
    Key::new("status", Program, Optional(STATUS)).help(
        "The program that shows the power state by its exit code and its output: see the table \
         in fence-watcher.toml(5). Without it only the exit codes of the other programs count, \
         and answers contain `verified: false`.",
    ),
    Key::new("list", Program, Optional("[\"/usr/local/sbin/node-power\", \"list\"]")).help(
        "The program that lists the targets, one in each line. `targets = \"discover\"` needs \
         it.",
    ),
    Key::new("monitor", Program, Optional(MONITOR)).help(
        "The program that contacts the device. Exit code 0: the device can be reached now. \
         Pacemaker's monitor runs it, for at most `monitor_timeout`. Without it the watcher \
         runs `list`; without both the device counts as reachable if its programs exist.",
    ),
];

/// The keys that the example sets.
pub(super) const WRITTEN: &[(&str, &str)] =
    &[("off", OFF), ("on", ON), ("status", STATUS), ("monitor", MONITOR)];

const OFF: &str = "[\"/usr/local/sbin/node-power\", \"off\", \"{target}\"]";
const ON: &str = "[\"/usr/local/sbin/node-power\", \"on\", \"{target}\"]";
const CYCLE: &str = "[\"/usr/local/sbin/node-power\", \"cycle\", \"{target}\"]";
const STATUS: &str = "[\"/usr/local/sbin/node-power\", \"status\", \"{target}\"]";
const MONITOR: &str = "[\"/usr/local/sbin/node-power\", \"monitor\"]";

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> CommandSettings {
    common.refuse_names(section);
    check_abilities(section, common);
    let mut command = |key| {
        let argv = section.get(key, |value| argv(value, known_placeholders(key)))?;
        if let Some(problem) = common.program_problem(argv[0].as_ref()) {
            section.note(key, problem);
        }
        Some(argv)
    };
    CommandSettings {
        name: common.name.clone(),
        timeout_ms: common.timeout_ms,
        off: command("off"),
        on: command("on"),
        reboot: command("reboot"),
        status: command("status"),
        list: command("list"),
        monitor: command("monitor"),
    }
}

/// Notes each ability that the configuration asks for without a program for it.
fn check_abilities(section: &Section, common: &Common) {
    let has = |key| section.has(key);
    if !has("off") && !has("reboot") {
        section.absent("neither 'off' nor 'reboot' is given: the device could not fence");
    }
    match common.method {
        Some(Method::Cycle) if !has("reboot") => {
            section.note("method", "\"cycle\" needs a program for 'reboot'");
        }
        Some(Method::OnOff) if !has("off") || !has("on") => {
            section.note("method", "\"onoff\" needs programs for 'off' and 'on'");
        }
        _ => {}
    }
    if common.discovers() && !has("list") {
        section.note("targets", "\"discover\" needs a program for 'list'");
    }
}
