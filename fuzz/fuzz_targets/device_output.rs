//! What a device's programs write: never an "off" that was not shown, never a node that is no name.
#![no_main]

use fence_device::{listed_nodes, message, power_shown};
use fence_log::is_plain;
use fence_protocol::{NodeName, PowerState};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|output: (u8, &str)| {
    let (code, stdout) = output;
    let lower = stdout.to_lowercase();
    match power_shown(i32::from(code), stdout) {
        PowerState::Off if code == 0 => {
            assert_eq!(stdout.trim().lines().count(), 1, "{stdout:?}");
            let last = lower.trim_end_matches(|c: char| !c.is_alphanumeric());
            assert!(last.ends_with("off"), "{stdout:?}");
        }
        PowerState::Off => assert_eq!(code, 2),
        PowerState::On => assert_eq!(code, 0),
        PowerState::Unknown => {}
    }
    match listed_nodes(stdout) {
        Ok(nodes) => {
            assert!(nodes.len() <= stdout.lines().count());
            assert!(nodes.iter().all(|node| node.as_str().parse::<NodeName>().is_ok()));
        }
        Err(problem) => {
            assert!(problem.chars().all(is_plain) && problem.len() <= 1_000, "{problem:?}");
        }
    }
    let (out, err) = stdout.split_once('\0').unwrap_or((stdout, ""));
    if let Some(line) = message(out, err) {
        assert!(!line.is_empty() && line.len() <= 1024 && line.lines().count() == 1, "{line:?}");
    }
});
