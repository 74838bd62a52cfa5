//! The power state in the output of a status program. This module does no I/O.
//!
//! | exit code | standard output | standard error | state |
//! | --- | --- | --- | --- |
//! | 0 | one line that states "off" | without a complaint | off |
//! | 0 | anything without the word "off" | anything | on |
//! | 2 | empty | empty | off |
//! | 2 | one line that states "off" | without a complaint | off |
//! | everything else | | | unknown |
//!
//! A line states "off" if it is `off`, `Status: off`, `NAME: off` (NAME is the target, or the name
//! of the target on the device) or `Chassis Power is off`, and nothing else.
//!
//! - `remarks`: the known lines on standard error that are no complaints.
//!
//! The rules compare whole lines, because single words prove nothing: "n3 is not off" ends with
//! "off". A shell that cannot read its script exits with 2, after all remarks of the script.

mod remarks;

use fence_core::execution::PowerReport;
use fence_protocol::PowerState;

use crate::Secrets;
use crate::program::message;
use remarks::is_remark;

/// The state that a program shows, with words for people without the `secrets`. `names` are the
/// names of the machine.
pub(crate) fn power_report(
    code: i32,
    stdout: &str,
    stderr: &str,
    names: &[&str],
    secrets: &Secrets,
) -> PowerReport {
    // A secret in the output may be the word for the state.
    let state = power_shown(code, stdout, stderr, names);
    let (stdout, stderr) = (&secrets.hide(stdout), &secrets.hide(stderr));
    let words = message(stdout, stderr);
    let detail = match (state, words) {
        (_, None) => format!("exit code {code}"),
        (PowerState::Unknown, Some(words)) => {
            format!("exit code {code} with this output shows no state: {words}")
        }
        // Without a problem, remarks on standard error do not matter.
        (_, Some(words)) => message(stdout, "").unwrap_or(words),
    };
    PowerReport { state, detail }
}

/// The state that a program shows.
pub fn power_shown(code: i32, stdout: &str, stderr: &str, names: &[&str]) -> PowerState {
    let is_off_stated = states_off(stdout, names);
    let is_silent = is_blank(stdout) && is_blank(stderr);
    match code {
        0 | 2 if is_off_stated && !complains(stderr) => PowerState::Off,
        0 if !has_word_off(stdout) => PowerState::On,
        2 if is_silent => PowerState::Off,
        _ => PowerState::Unknown,
    }
}

/// The complaint on standard error that would invalidate an "off". It often appears already while
/// the machine is on, where nobody would notice it before a fence.
pub(crate) fn complaint(stderr: &str, secrets: &Secrets) -> Option<String> {
    complains(stderr).then(|| {
        let words = message("", &secrets.hide(stderr)).unwrap_or_default();
        format!(
            "its status writes this to standard error, which invalidates every \"off\" (redirect \
             output that does not matter): {words}"
        )
    })
}

/// Whether the only line of `stdout` states that the machine is off.
fn states_off(stdout: &str, names: &[&str]) -> bool {
    let mut lines =
        stdout.split('\n').map(|line| line.trim_matches(BLANKS)).filter(|l| !l.is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) => line == IPMITOOL_OFF || is_off(line, names),
        _ => false,
    }
}

fn is_off(line: &str, names: &[&str]) -> bool {
    let Some((subject, state)) = line.rsplit_once(':') else {
        return line.eq_ignore_ascii_case("off");
    };
    let is_name = !subject.is_empty() && names.contains(&subject);
    let is_subject = is_name || subject.eq_ignore_ascii_case("status");
    is_subject && state.trim_matches(BLANKS).eq_ignore_ascii_case("off")
}

fn has_word_off(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("off"))
}

/// Whether standard error makes a stated "off" uncertain.
///
/// Programs write unimportant warnings to standard error (see the module `remarks`), and fence
/// agents write a log there in verbose mode. Any other line is a complaint if it contains a word of
/// [`COMPLAINTS`], or a character that is not ASCII; with `LC_ALL=C`, messages of honest programs
/// are ASCII.
fn complains(stderr: &str) -> bool {
    let is_harmless = |line: &str| is_remark(line) || is_harmless_record(line);
    stderr.lines().any(|line| !is_harmless(line) && is_complaint(line))
}

fn is_complaint(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
    !line.is_ascii()
        || line.contains("n't")
        || words.any(|word| {
            WHOLE_COMPLAINTS.contains(&word)
                || COMPLAINTS.split_whitespace().any(|part| word.contains(part))
        })
}

/// Whether `line` is a record in the log of ClusterLabs' fence agents that reports no problem, such
/// as `2026-01-31 12:00:00,123 DEBUG: …`.
fn is_harmless_record(line: &str) -> bool {
    let Some((head, words)) = line.split_once(": ") else { return false };
    let Some((time, level)) = head.rsplit_once(' ') else { return false };
    let is_time = time.starts_with(|c: char| c.is_ascii_digit())
        && time.bytes().all(|byte| byte.is_ascii_digit() || b" -:,.[]".contains(&byte));
    // An agent ignores an unknown option, and carries the action out.
    let is_remark = level == "WARNING" && words.starts_with("Parse error: Ignoring unknown option");
    is_time && (["DEBUG", "INFO"].contains(&level) || is_remark)
}

fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || BLANKS.contains(&c))
}

/// The characters that may surround a state. No other character counts as a blank.
const BLANKS: [char; 2] = [' ', '\t'];

/// The line of `ipmitool chassis power status`, which exits with 0 for either state.
const IPMITOOL_OFF: &str = "Chassis Power is off";

/// The whole words that make a complaint.
const WHOLE_COMPLAINTS: [&str; 9] =
    ["no", "not", "nor", "never", "none", "bad", "lost", "wrong", "on"];

/// The parts of words that make a complaint.
const COMPLAINTS: &str = "
    abort assum broken cannot corrupt could crash critical denied err except exhaust expect fail
    fatal forbid guess illegal incorrect invalid killed mismatch missing perhaps refus reject
    reset stale timed timeout traceback unable unauth unavail undef unknown unreach unres unsuc
    unsup usage
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn shown(code: i32, stdout: &str, stderr: &str) -> PowerState {
        power_shown(code, stdout, stderr, &["n3", "outlet:7"])
    }

    #[test]
    fn a_line_that_is_the_state_and_nothing_else_shows_off() {
        for line in [
            "off",
            "OFF",
            "Off\n",
            "\n  off\t\n\n",
            "n3: off",
            "n3:OFF",
            "outlet:7: off",
            "Status: OFF",
            "status: off\n",
            "Chassis Power is off\n",
        ] {
            assert_eq!(shown(0, line, ""), PowerState::Off, "{line:?}");
            assert_eq!(shown(2, line, "a warning"), PowerState::Off, "{line:?}");
            assert_eq!(shown(1, line, ""), PowerState::Unknown, "{line:?}");
        }
        assert_eq!(shown(2, "", ""), PowerState::Off);
        assert_eq!(shown(2, " \n\t\n", "\n"), PowerState::Off);
    }

    #[test]
    fn every_other_text_shows_no_off() {
        for text in [
            "n3 is not off",
            "n3 is off",
            "n3: not off",
            "n3: off, perhaps",
            "N3: off",
            "n4: off",
            "n33: off",
            "n3 : off",
            "n3: n4: off",
            ": off",
            "state: off",
            "off.",
            "off!",
            "\"off\"",
            "off off",
            "off\noff",
            "off\nn4: off",
            "on\noff",
            "Status: ON\nStatus: OFF",
            "error: no route\nStatus: OFF",
            "Status: OFF\nerror: no route",
            "asking the PDU for n3\nStatus: OFF",
            "ERROR: cannot tell whether n3 is off",
            "warning: certificate check is off",
            "off\r",
            "not\roff",
            "off\0",
            "of\u{200b}f",
            "\u{200b}off",
            "\u{2060}off",
            "\u{feff}off",
            "\u{a0}off",
            "off\u{2028}",
            "оff",
            "ｏｆｆ",
            "oﬀ",
            "off\u{301}",
            "off\u{fffd}",
            "off\n(12 bytes more)",
            "of",
            "o f f",
            "n3: on",
            "asking the PDU for n3",
            "Chassis Power is off.",
            "chassis power is not off",
        ] {
            assert_ne!(shown(0, text, ""), PowerState::Off, "{text:?}");
            assert_eq!(shown(2, text, ""), PowerState::Unknown, "{text:?}");
            assert_eq!(shown(2, text, "a warning"), PowerState::Unknown, "{text:?}");
        }
    }

    #[test]
    fn exit_code_0_is_on_unless_the_output_speaks_of_off() {
        for text in ["", "Status: ON", "n3 has power", "offline", "pdu-3\nrunning\n"] {
            assert_eq!(shown(0, text, "remark"), PowerState::On, "{text:?}");
        }
        for text in ["n3 is not off", "off by one", "on off", "n4: off", "Status: OFF?"] {
            assert_eq!(shown(0, text, ""), PowerState::Unknown, "{text:?}");
        }
    }

    #[test]
    fn a_complaint_on_standard_error_takes_the_certainty_away() {
        for stderr in [
            "error",
            "Error: connection refused",
            "curl: (7) Failed to connect",
            "n3 is not off",
            "can't tell",
            "ssh: connect to host pdu port 22: Connection timed out",
            "usage: status [-h] node",
            "/status: line 3: syntax error near unexpected token `then'",
            "state unknown, the last one was off",
            "bash: pdu: No such file or directory",
            "a warning\npdu: IOError",
            "2026-01-31 12:00:00,123 ERROR: Unable to connect/login to fencing device",
            "2026-01-31 12:00:00,123 DEBUG: asking\n2026-01-31 12:00:00,124 CRITICAL: x",
            "2026-01-31 12:00:00,123 WARNING: no answer",
            "еrrоr",
            "er\u{200b}ror",
            "n3 is on",
            "error: DEBUG: x",
            "Warning: Permanently added 'pdu' (ED25519) to the list of known hosts. error",
            "** WARNING: no key",
            "IANA PEN registry open failed: No such file or directory\nn3: not off",
            "9 error DEBUG: x",
        ] {
            for (code, stdout) in [(2, "n3: off"), (2, "Status: OFF"), (0, "off"), (2, "")] {
                assert_eq!(shown(code, stdout, stderr), PowerState::Unknown, "{stderr:?}");
            }
        }
        for stderr in [
            "Warning: Permanently added 'pdu' (ED25519) to the list of known hosts.",
            "IANA PEN registry open failed: No such file or directory",
            "bash: warning: setlocale: LC_ALL: cannot change locale (de_DE)\n\
             Pseudo-terminal will not be allocated because stdin is not a terminal.\n",
            "** WARNING: connection is not using a post-quantum key exchange algorithm.\n\
             ** This session may be vulnerable to \"store now, decrypt later\" attacks.\n\
             ** The server may need to be upgraded. See https://openssh.com/pq.html\n",
            "2026-01-31 12:00:00,123 DEBUG: Executing: /usr/bin/ipmitool -H bmc chassis power \
             status\n\
             2026-01-31 12:00:00,456 DEBUG: 0 Chassis Power is off\n \n",
            "2026-01-31 12:00:00,123 INFO: error counters: 0",
            "2026-01-31 12:00:00,123 [412] DEBUG: not what it seems",
            "2026-01-31 12:00:00,123 WARNING: Parse error: Ignoring unknown option 'nodename=n3'",
        ] {
            assert_eq!(shown(2, "Status: OFF", stderr), PowerState::Off, "{stderr:?}");
            assert_eq!(shown(2, "", stderr), PowerState::Unknown, "{stderr:?}");
        }
    }

    #[test]
    fn a_report_says_what_was_not_understood() {
        let secrets = Secrets::default();
        let detail = |code, out, err| power_report(code, out, err, &["n3"], &secrets).detail;
        assert_eq!(detail(2, "", ""), "exit code 2");
        assert_eq!(detail(2, "Status: OFF", "a warning"), "Status: OFF");
        assert_eq!(detail(0, "", "a warning"), "a warning");
        assert_eq!(
            detail(2, "asking", "syntax error"),
            "exit code 2 with this output shows no state: asking syntax error"
        );
    }
    #[test]
    fn a_password_that_is_the_word_for_the_state_takes_no_state_away() {
        for (password, detail) in
            [("off", "***"), ("OFF", "***"), ("n3: off", "***"), ("s3c", "***")]
        {
            let secrets = Secrets::from_iter([Secret::new(password).unwrap()]);
            let report = power_report(2, "n3: off", "", &["n3"], &secrets);
            assert_eq!((report.state, report.detail.as_str()), (PowerState::Off, detail));
        }
    }
}
