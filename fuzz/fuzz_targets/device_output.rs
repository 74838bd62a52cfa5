//! What a device's programs write: never an "off" that was not shown, never a node that is no name.
#![no_main]

use fence_device::{listed_nodes, message, power_shown};
use fence_log::is_plain;
use fence_protocol::{NodeName, PowerState};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|output: (u8, &str)| {
    let (code, text) = output;
    let (stdout, stderr) = text.split_once('\0').unwrap_or((text, ""));
    match power_shown(i32::from(code), stdout, stderr, &["n3", "7"]) {
        PowerState::Off => {
            assert!(code == 0 || code == 2);
            let line = stdout.trim_matches([' ', '\t', '\n']).to_lowercase();
            let (subject, state) = line.rsplit_once(':').unwrap_or(("", &line));
            let is_stated = line == "chassis power is off"
                || ["", "n3", "7", "status"].contains(&subject) && state.trim() == "off";
            let is_silent = line.is_empty() && stderr.trim().is_empty();
            assert!(is_stated || code == 2 && is_silent, "{stdout:?}");
            let record = |line: &str| line.starts_with(|c: char| c.is_ascii_digit());
            for line in stderr.lines().filter(|line| !record(line)) {
                let lower = line.to_lowercase();
                let mut words = lower.split(|c: char| !c.is_alphanumeric());
                assert!(line.is_ascii(), "{line:?}");
                assert!(!["error", "fail", "cannot"].iter().any(|word| lower.contains(word)));
                assert!(!words.any(|word| word == "not" || word == "no"), "{line:?}");
            }
        }
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
    if let Some(line) = message(stdout, stderr) {
        assert!(!line.is_empty() && line.len() <= 1024 && line.lines().count() == 1, "{line:?}");
    }
});
