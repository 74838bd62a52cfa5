//! `type = "simulated"`: a device that is a file.

use fence_device::{SimulatedFailure, SimulatedSettings};
use fence_protocol::FenceResult;

use super::Common;
use crate::config::HOUR;
use crate::config::reader::Section;
use crate::config::values::{duration, one_of, path};

/// The keys of this type.
pub(super) const KEYS: &[&str] = &["state_file", "delay", "fail"];

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> Option<SimulatedSettings> {
    common.refuse_names();
    let fail_modes = [
        ("none", SimulatedFailure::None),
        (FenceResult::Unreachable.as_str(), SimulatedFailure::Unreachable),
        (FenceResult::Unacknowledged.as_str(), SimulatedFailure::Unacknowledged),
        (FenceResult::DeviceFailure.as_str(), SimulatedFailure::DeviceFailure),
        ("lie", SimulatedFailure::Lie),
        ("hang", SimulatedFailure::Hang),
    ];
    let state_file = section.require("state_file", path);
    let delay = section.get("delay", duration(0..=HOUR));
    let fail = section.get("fail", one_of(&fail_modes));
    Some(SimulatedSettings {
        state_file: state_file?,
        delay_ms: delay.unwrap_or(0),
        fail: fail.unwrap_or(SimulatedFailure::None),
    })
}
