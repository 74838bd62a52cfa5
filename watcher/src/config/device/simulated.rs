//! `type = "simulated"`: a device that is a file.

use fence_device::SimulatedSettings;

use super::read::Common;
use crate::config::HOUR;
use crate::config::reader::Section;
use crate::config::table::Form::{Duration, Path, Words};
use crate::config::table::Key;
use crate::config::table::Standing::{Default, Required};
use crate::config::values::path;

pub(super) const ABOUT: &str = "\
    fence-watcher without hardware: for trying it out, and for tests. NOTHING IS REALLY FENCED: \
    with this file a cluster believes that a node is off while it goes on writing. Every answer \
    says \"simulated\".";

/// The keys of this type.
pub(super) const KEYS: &[Key] = &[
    Key::new("state_file", Path, Required("\"/var/run/gfs2-fencing/simulated.json\""))
        .help("The simulated power states, as JSON. A node that is not in the file is on."),
    Key::new("delay", Duration(0, HOUR), Default("\"0s\"")).help("How long each order takes."),
    Key::new(
        "fail",
        Words(&["none", "unreachable", "unacknowledged", "device-failure", "lie", "hang"]),
        Default("\"none\""),
    )
    .help("How the device fails. `\"lie\"` acknowledges and does nothing."),
];

/// The keys that the example sets.
pub(super) const WRITTEN: &[(&str, &str)] =
    &[("name", "\"demo\""), ("targets", "\"*\""), ("delay", "\"1s\"")];

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> Option<SimulatedSettings> {
    common.refuse_names(section);
    let state_file = section.get("state_file", path);
    let delay = section.duration("delay");
    let fail = section.word("fail");
    Some(SimulatedSettings { state_file: state_file?, delay_ms: delay?, fail: fail? })
}
