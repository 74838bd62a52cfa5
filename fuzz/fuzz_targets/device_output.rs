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
            let is_doubtful = |line: &&str| !record(line) && !is_remark(line);
            for line in stderr.lines().filter(is_doubtful) {
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

/// Whether a line may be a remark that sounds like a complaint: how it begins, and how it ends.
fn is_remark(line: &str) -> bool {
    const KNOWN: [(&str, &str); 21] = [
        ("IANA PEN registry open failed: ", "No such file or directory"),
        ("IANA PEN registry open failed: ", "Permission denied"),
        ("Failed to load entries from ", "IANA PEN Registry"),
        ("Pseudo-terminal will not be allocated ", "because stdin is not a terminal."),
        ("Warning: Permanently added ", " to the list of known hosts."),
        ("Warning: Identity file ", " not accessible: No such file or directory."),
        ("Warning: No xauth data; ", "for X11 forwarding."),
        ("X11 forwarding request failed on channel ", ""),
        ("** WARNING: connection is not using ", "algorithm."),
        ("Could not chdir to home directory ", ": No such file or directory"),
        ("Could not chdir to home directory ", ": Permission denied"),
        ("perl: warning: ", "Setting locale failed."),
        ("mesg: ttyname failed: ", " ioctl for device"),
        ("mesg: ttyname failed: ", "No such device"),
        ("tput: No value for ", "no -T specified"),
        ("Bad operator (", ""),
        ("Expected \"::=\" (", ""),
        ("Cannot find module (", ""),
        ("Did not find '", ")"),
        ("Undefined identifier: ", ""),
        ("Cannot adopt OID in ", "}"),
    ];
    let line = line.trim_matches([' ', '\t']);
    let is_of_shell = line.contains(": cannot change locale (")
        || line.contains(": no job control in this shell")
        || line.contains(": cannot set terminal process group (");
    line.is_ascii()
        && (is_of_shell
            || KNOWN.iter().any(|(start, end)| line.starts_with(start) && line.ends_with(end)))
}
