//! The meaning of ipmitool's texts.
//!
//! The exit code is 1 for every error. Only the texts distinguish a BMC that does not respond, a
//! BMC that refuses, and a BMC that fell silent after it received an order. The texts are those of
//! ipmitool 1.8.18 and 1.8.19 with `-v`. Only known lines go into messages: other lines of `-v` may
//! help to guess passwords.

use fence_core::execution::{Order, OrderReport, PowerReport};
use fence_protocol::PowerState;

use crate::quoted;

/// The result of one run of ipmitool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Said {
    /// The meaning.
    pub what: What,
    /// The words for people, with lines of ipmitool as quotations ([`quoted`]).
    pub words: String,
}

/// The meaning of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// The BMC showed the power state, `On` or `Off`.
    Power(PowerState),
    /// The BMC took this order.
    Took(Order),
    /// The BMC opened a session and refused the order or the question.
    Refused,
    /// The BMC opened a session and then did not answer: it may have received the order.
    Silent,
    /// The BMC responds, but is busy. It did not carry out the order or answer the question, and
    /// may do so if ipmitool sends it again.
    Busy,
    /// The BMC opened a session, but could not answer the question now. It may answer the next one.
    Later,
    /// There was no session, because the BMC was not reached. It received no order.
    Unreachable,
    /// There was no session, because the BMC refused it. It received no order.
    NotLetIn,
    /// None of these.
    Unclear,
}

/// The result of a run that ended with `code`.
pub fn said(code: i32, stdout: &str, stderr: &str) -> Said {
    // A line about an order or a question within a session comes first: no line before or after it
    // can change its meaning.
    if let Some(line) = stderr.lines().find(|line| line.contains(IN_SESSION)) {
        let what = if line.trim().starts_with(UNANSWERED) {
            What::Silent
        } else if is_line(bare(line), ORDER_TOO_EARLY) {
            What::Busy
        } else if ASKED_TOO_EARLY.iter().any(|refusal| is_line(bare(line), refusal)) {
            What::Later
        } else {
            What::Refused
        };
        return Said { what, words: one_line(line) };
    }
    let has_no_session = stderr.lines().any(|line| line.trim().starts_with(NO_SESSION));
    // An answer within a session contradicts "no session": then nothing is certain.
    if has_no_session && !stdout.contains(IN_SESSION) {
        return no_session(stderr);
    }
    let mut lines = stdout.lines().map(str::trim).filter(|line| !line.is_empty());
    if let (false, 0, Some(line), None) = (has_no_session, code, lines.next(), lines.next())
        && let Some((_, what)) = SUCCESSES.iter().find(|(words, _)| *words == line)
    {
        return Said { what: *what, words: line.to_owned() };
    }
    let last = stderr.lines().chain(stdout.lines()).rfind(|line| !line.trim().is_empty());
    let said_last = last.map_or("no output".to_owned(), one_line);
    Said { what: What::Unclear, words: format!("ipmitool exited with {code}: {said_last}") }
}

/// The report of an order with this result.
pub fn order_report(order: Order, said: Said) -> OrderReport {
    match said.what {
        What::Took(taken) if taken == order => OrderReport::Acknowledged(said.words),
        What::Unreachable | What::Busy => OrderReport::Unreachable(said.words),
        What::NotLetIn => OrderReport::Failed(said.words),
        What::Took(_)
        | What::Power(_)
        | What::Refused
        | What::Silent
        | What::Later
        | What::Unclear => OrderReport::Unacknowledged(said.words),
    }
}

/// The report of a question for the power with this result.
pub fn power_report(said: Said) -> PowerReport {
    let state = if let What::Power(state) = said.what { state } else { PowerState::Unknown };
    PowerReport { state, detail: said.words }
}

/// Why there was no session: the first reason of the table that matches a line.
fn no_session(stderr: &str) -> Said {
    let found = REASONS.iter().find_map(|(pattern, what, meaning)| {
        let line = stderr.lines().find(|line| is_line(bare(line), pattern))?;
        Some(Said { what: *what, words: format!("{meaning} ({})", one_line(line)) })
    });
    found.unwrap_or_else(|| Said { what: What::NotLetIn, words: NO_SESSION.to_owned() })
}

/// Whether the whole line matches `pattern`, in which `*` is any text.
fn is_line(line: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return line == pattern };
    let Some(rest) = line.strip_prefix(before) else { return false };
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.into_iter().any(|end| is_line(&rest[end..], after))
}

/// The line without blanks around it, and without the arrow at the start of some lines.
fn bare(line: &str) -> &str {
    line.trim().trim_start_matches("> ")
}

/// The line as a quotation. The caller cuts it after it has hidden the secrets.
fn one_line(line: &str) -> String {
    quoted(&bare(line).split_whitespace().collect::<Vec<_>>().join(" "))
}

/// All lines that mean success, on standard output.
const SUCCESSES: [(&str, What); 5] = [
    ("Chassis Power is on", What::Power(PowerState::On)),
    ("Chassis Power is off", What::Power(PowerState::Off)),
    ("Chassis Power Control: Down/Off", What::Took(Order::Off)),
    ("Chassis Power Control: Up/On", What::Took(Order::On)),
    ("Chassis Power Control: Cycle", What::Took(Order::Cycle)),
];

/// A part of every line about an order or a question that was sent.
const IN_SESSION: &str = "Chassis Power";

/// The start of such a line without an answer; the others end with the BMC's reason for refusing.
const UNANSWERED: &str = "Unable to ";

/// The start of the line that reports that no order and no question was sent.
const NO_SESSION: &str = "Error: Unable to establish IPMI v2 / RMCP+ session";

/// The refusal of an order that the BMC did not process (completion code C0h, "Node busy").
const ORDER_TOO_EARLY: &str = "Set Chassis Power Control to * failed: Node busy";

/// The passing refusals of a question. A question changes nothing, so it may be repeated.
const ASKED_TOO_EARLY: [&str; 6] = [
    "Get Chassis Power Status failed: Node busy",
    "Get Chassis Power Status failed: Timeout",
    "Get Chassis Power Status failed: Out of space",
    "Get Chassis Power Status failed: Command response could not be provided",
    "Get Chassis Power Status failed: Device firmware in update mode",
    "Get Chassis Power Status failed: BMC initialization in progress",
];

/// Why there was no session, the certain reasons first. Each is a whole line; `*` is any text.
///
/// If a BMC does not answer the question for its abilities, ipmitool repeats the question in the
/// form of IPMI 1.5, and the BMC answers as if it knew only IPMI 1.5. With one try each, a lost
/// packet has this effect. So "does not support" counts as not reached.
///
/// A BMC without room for a session, or that just dropped the new session, accepts the next one a
/// moment later.
const REASONS: [(&str, What, &str); 33] = [
    ("RAKP 2 HMAC is invalid", What::NotLetIn, "the password is wrong"),
    ("RAKP * message indicates an error : unauthorized name", What::NotLetIn, NO_USER),
    ("Error in open session response message : unauthorized name", What::NotLetIn, NO_USER),
    ("RAKP * message indicates an error : unauthorized role requested", What::NotLetIn, NO_ROLE),
    ("Error in open session response message : unauthorized role *", What::NotLetIn, NO_ROLE),
    ("RAKP * message indicates an error : insufficient resources for *", What::Busy, NO_ROOM),
    ("Error in open session response message : insufficient resources for *", What::Busy, NO_ROOM),
    ("RAKP * message indicates an error : inactive session ID", What::Busy, FORGOTTEN),
    ("Error in open session response message : inactive session ID", What::Busy, FORGOTTEN),
    ("RAKP * message indicates an error : invalid session ID", What::Busy, FORGOTTEN),
    ("Error in open session response message : invalid session ID", What::Busy, FORGOTTEN),
    ("Error in open session response message : *", What::NotLetIn, NO_CIPHER),
    ("Authentication algorithm * is not what we requested *", What::NotLetIn, NO_CIPHER),
    ("Integrity algorithm * is not what we requested *", What::NotLetIn, NO_CIPHER),
    ("Encryption algorithm * is not what we requested *", What::NotLetIn, NO_CIPHER),
    ("RAKP 2 message indicates an error : *", What::NotLetIn, "it refuses the login"),
    ("RAKP 4 message indicates an error : *", What::NotLetIn, "it refuses the login"),
    ("RAKP 4 message has invalid integrity check value", What::NotLetIn, "it refuses the login"),
    ("Set Session Privilege Level to * failed: Node busy", What::Busy, "it is busy"),
    ("Set Session Privilege Level to * failed: BMC initialization *", What::Busy, STARTING),
    ("Set Session Privilege Level to * failed: *", What::NotLetIn, NO_ROLE),
    ("Get Auth Capabilities error: Node busy", What::Busy, "it is busy"),
    ("Get Auth Capabilities error: BMC initialization in progress", What::Busy, STARTING),
    ("Get Auth Capabilities error: *", What::NotLetIn, "it refuses to speak IPMI 2.0"),
    ("Address lookup for * failed", What::Unreachable, "its name is not known here"),
    ("Interface address lookup for * failed", What::Unreachable, "there is no route to it"),
    ("Could not open socket!", What::Unreachable, "there is no route to it"),
    ("This BMC does not support IPMI v2 *", What::Unreachable, NO_V2),
    ("Error: no response from RAKP * message", What::Unreachable, "it stopped answering"),
    ("Set Session Privilege Level to * failed", What::Unreachable, "it stopped answering"),
    ("Get Auth Capabilities error", What::Unreachable, "it does not answer"),
    ("Error issuing Get Channel Authentication *", What::Unreachable, "it does not answer"),
    ("IPMI LAN send command failed", What::Unreachable, "there is no route to it"),
];

const NO_USER: &str = "it does not know the user with this privilege";
const NO_ROLE: &str = "the user does not have the privilege: set 'privilege'";
const NO_ROOM: &str = "it has no room for another session";
const FORGOTTEN: &str = "it dropped the session during setup";
const NO_CIPHER: &str = "cipher suite refused: set 'cipher'";
const STARTING: &str = "it is starting";
const NO_V2: &str = "no IPMI 2.0, or its answer was lost";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secrets;

    /// What each run with `-v` begins with, and what follows the start of a session.
    const BEGIN: &str = "Loading IANA PEN Registry...\n";
    const SESSION: &str = "Loading IANA PEN Registry...\n\
        Running Get VSO Capabilities my_addr 0x20, transit 0, target 0x20\n\
        Invalid completion code received: Invalid command\nDiscovered IPMB address 0x0\n";
    const NONE: &str = "Error: Unable to establish IPMI v2 / RMCP+ session\n";

    /// Reasons that `-v` gives before it says that there is no session, and what they mean.
    const NO_SESSION_LINES: [(&str, What, &str); 27] = [
        ("> RAKP 2 HMAC is invalid", What::NotLetIn, "the password is wrong"),
        (
            "RAKP 2 message indicates an error : unauthorized name",
            What::NotLetIn,
            "it does not know the user",
        ),
        (
            "RAKP 2 message indicates an error : unauthorized role requested",
            What::NotLetIn,
            "set 'privilege'",
        ),
        ("RAKP 2 message indicates an error : invalid role", What::NotLetIn, "refuses the login"),
        (
            "RAKP 2 message indicates an error : insufficient resources for session",
            What::Busy,
            "no room for another session",
        ),
        ("> RAKP 4 message has invalid integrity check value", What::NotLetIn, "refuses the login"),
        (
            "Error in open session response message : invalid authentication algorithm\n",
            What::NotLetIn,
            "set 'cipher'",
        ),
        (
            "Error in open session response message : insufficient resources for session\n",
            What::Busy,
            "no room",
        ),
        ("Integrity algorithm 0x00 is not what we requested 0x01\n", What::NotLetIn, "'cipher'"),
        (
            "Set Session Privilege Level to ADMINISTRATOR failed: Unknown (0x81)",
            What::NotLetIn,
            "set 'privilege'",
        ),
        ("Set Session Privilege Level to ADMINISTRATOR failed", What::Unreachable, "stopped"),
        (
            "Get Auth Capabilities error\n\
                 Error issuing Get Channel Authentication Capabilities request",
            What::Unreachable,
            "it does not answer (Get Auth Capabilities error)",
        ),
        ("Get Auth Capabilities error: Invalid data field in request", What::NotLetIn, "refuses"),
        ("This BMC does not support IPMI v2 / RMCP+", What::Unreachable, "was lost"),
        ("> Error: no response from RAKP 1 message", What::Unreachable, "stopped answering"),
        (
            "Address lookup for n1-ipmi failed\nCould not open socket!",
            What::Unreachable,
            "its name is not known here (Address lookup for n1-ipmi failed)",
        ),
        ("Could not open socket!", What::Unreachable, "no route to it"),
        ("something new", What::NotLetIn, "Unable to establish"),
        (
            "RAKP 2 message indicates an error : inactive session ID",
            What::Busy,
            "dropped the session",
        ),
        (
            "RAKP 4 message indicates an error : invalid session ID",
            What::Busy,
            "dropped the session",
        ),
        (
            "RAKP 2 message indicates an error : insufficient resources for role",
            What::Busy,
            "no room",
        ),
        ("Set Session Privilege Level to ADMINISTRATOR failed: Node busy", What::Busy, "busy"),
        ("Get Auth Capabilities error: BMC initialization in progress", What::Busy, "starting"),
        (
            "RAKP 2 message indicates an error : inactive session ID\n> RAKP 2 HMAC is invalid",
            What::NotLetIn,
            "the password is wrong",
        ),
        // A message about ipmitool's own files says nothing about the BMC.
        (
            "IANA PEN registry open failed: No such file or directory\nGet Auth Capabilities error",
            What::Unreachable,
            "it does not answer",
        ),
        (
            "IANA PEN registry open failed: inactive session ID\n> Error: no response from RAKP 1 \
             message",
            What::Unreachable,
            "stopped answering",
        ),
        ("IANA PEN registry open failed: Permission denied", What::NotLetIn, "Unable to establish"),
    ];

    #[test]
    fn a_pattern_is_a_whole_line() {
        for (line, pattern, expected) in [
            ("> a b", "a b", true),
            ("a b c", "a b", false),
            ("x a b", "a b", false),
            ("a x b", "a * b", true),
            ("a x failed: y", "a * failed", false),
            ("a x failed: y", "a * failed: *", true),
            ("a failed: y", "a * failed: *", false),
            ("a x b y c", "a * b * c", true),
            ("a x b y", "a * b * c", false),
        ] {
            assert_eq!(is_line(bare(line), pattern), expected, "{line:?}, {pattern:?}");
        }
    }

    #[test]
    fn an_order_that_came_too_early_was_not_carried_out_and_no_other_refusal_proves_that() {
        for (reason, what) in [
            ("Node busy", What::Busy),
            ("Node busy now", What::Refused),
            ("Timeout", What::Refused),
            ("Command response could not be provided", What::Refused),
            ("Command not supported in present state", What::Refused),
        ] {
            let stderr =
                format!("{SESSION}Set Chassis Power Control to Down/Off failed: {reason}\n");
            assert_eq!(said(1, "", &stderr).what, what, "{reason}");
        }
        for (reason, what) in [
            ("Node busy", What::Later),
            ("Timeout", What::Later),
            ("Node busy now", What::Refused),
            ("Invalid command", What::Refused),
        ] {
            let question = format!("Get Chassis Power Status failed: {reason}\n");
            assert_eq!(said(1, "", &question).what, what, "{reason}");
        }
    }

    #[test]
    fn success_is_exit_code_0_and_the_words_and_nothing_else() {
        for (words, what) in SUCCESSES {
            assert_eq!(said(0, &format!("{words}\n"), SESSION).what, what);
            for (code, stdout) in [
                (1, format!("{words}\n")),
                (0, format!("{words}?\n")),
                (0, format!("{words}\n{words}\n")),
                (0, format!("Chassis Power is on\n{words}\n")),
                (0, format!("\"{words}\"")),
            ] {
                assert_eq!(said(code, &stdout, SESSION).what, What::Unclear, "{stdout}");
            }
        }
        assert_eq!(said(0, "", "Chassis Power is off").what, What::Refused);
        assert_eq!(said(0, "", "").words, "ipmitool exited with 0: no output");
        let lost = "Close Session command failed\n";
        assert_eq!(said(0, "Chassis Power is off\n", lost).what, What::Power(PowerState::Off));
    }

    #[test]
    fn an_order_that_was_refused_or_not_answered_may_have_been_carried_out() {
        for (stderr, what, words) in [
            (
                "Set Chassis Power Control to Down/Off failed: Insufficient privilege level\n",
                What::Refused,
                "Set Chassis Power Control to Down/Off failed: Insufficient privilege level",
            ),
            (
                "Get Chassis Power Status failed: Unspecified error\n",
                What::Refused,
                "Get Chassis Power Status failed: Unspecified error",
            ),
            (
                "Unable to set Chassis Power Control to Down/Off\nClose Session command failed\n",
                What::Silent,
                "Unable to set Chassis Power Control to Down/Off",
            ),
            (
                "Unable to get Chassis Power Status\nClose Session command failed\n",
                What::Silent,
                "Unable to get Chassis Power Status",
            ),
        ] {
            for more in ["", NONE] {
                let stderr = format!("{SESSION}{stderr}{more}");
                let said = said(1, "", &stderr);
                let shown = Secrets::default().shown(&said.words);
                assert_eq!((said.what, shown.as_str()), (what, words));
                let report = order_report(Order::Off, said);
                assert!(matches!(report, OrderReport::Unacknowledged(_)), "{report:?}");
            }
        }
    }

    #[test]
    fn without_a_session_nothing_was_told_and_the_reason_is_said() {
        for (reason, what, meaning) in NO_SESSION_LINES {
            let said = said(1, "", &format!("{BEGIN}{reason}\n{NONE}"));
            assert_eq!(said.what, what, "{reason}");
            let shown = Secrets::default().shown(&said.words);
            assert!(shown.contains(meaning), "{reason}: {shown}");
            match order_report(Order::Off, said) {
                OrderReport::Unreachable(_) => {
                    assert!([What::Unreachable, What::Busy].contains(&what));
                }
                OrderReport::Failed(_) => assert_eq!(what, What::NotLetIn),
                report => panic!("{report:?}"),
            }
        }
    }

    #[test]
    fn only_the_order_that_was_given_is_acknowledged() {
        let took = |order: usize| said(0, SUCCESSES[order].0, SESSION);
        for (order, took, is_it) in [
            (Order::Off, took(2), true),
            (Order::On, took(3), true),
            (Order::Cycle, took(4), true),
            (Order::Off, took(3), false),
            (Order::Off, took(1), false),
        ] {
            let is_acknowledged = matches!(order_report(order, took), OrderReport::Acknowledged(_));
            assert_eq!(is_acknowledged, is_it);
        }
    }

    #[test]
    fn the_power_is_known_only_where_it_is_shown() {
        let state = |code, out, err| power_report(said(code, out, err)).state;
        assert_eq!(state(0, "Chassis Power is on\n", SESSION), PowerState::On);
        assert_eq!(state(0, "Chassis Power is off\n", SESSION), PowerState::Off);
        assert_eq!(state(1, "Chassis Power is off\n", SESSION), PowerState::Unknown);
        assert_eq!(state(0, "Chassis Power Control: Down/Off\n", SESSION), PowerState::Unknown);
        assert_eq!(state(1, "", NONE), PowerState::Unknown);
    }
}
