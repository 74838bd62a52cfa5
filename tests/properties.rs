//! What holds for all lists of nodes, configurations and outputs of device programs.

use std::collections::BTreeSet;
use std::path::Path;

use fence_device::{listed_nodes, message, power_shown};
use fence_log::is_plain;
use fence_protocol::{NodeName, PowerState, expand_hostlist, fold_hostlist};
use fence_watcher::config::{ConfigError, Origin, Targets, parse};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_folded_list_of_nodes_names_the_same_nodes(nodes in nodes()) {
        let folded = fold_hostlist(&nodes);

        let again = expand_hostlist(&folded).unwrap();
        prop_assert_eq!(again.len(), nodes.len(), "{}", folded);
        prop_assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), nodes, "{}", folded);
    }

    #[test]
    fn a_configured_list_of_targets_is_read_as_it_was_written(nodes in nodes()) {
        let text = format!(
            "[[device]]\nname = 'a'\ntype = 'simulated'\nstate_file = '/var/lib/a'\ntargets = '{}'\n",
            fold_hostlist(&nodes)
        );

        let settings = parse(&text, &origin()).unwrap();
        prop_assert_eq!(&settings.devices[0].targets, &Targets::Nodes(nodes));
    }

    #[test]
    fn a_value_that_is_wrong_is_one_line_of_the_problem_with_its_place(value: String) {
        // What JSON escapes, TOML reads.
        let value = serde_json::to_string(&value).unwrap();
        let text = format!("[service]\nrescan = {value}\n[spool]\nrequest_dir = {value}\n");

        let Err(ConfigError::Problems { problems, .. }) = parse(&text, &origin()) else {
            return Err(TestCaseError::fail("it has no device"));
        };
        for problem in problems {
            prop_assert!(problem.text.chars().all(is_plain), "{:?}", problem);
            prop_assert!(problem.line.is_none_or(|line| (1..=5).contains(&line)), "{:?}", problem);
        }
    }

    #[test]
    fn the_nodes_that_a_program_lists_are_read_as_they_were_written(
        nodes in nodes(),
        remark in "[ -~]{0,10}",
    ) {
        let lines: Vec<String> = nodes.iter().map(|node| format!("{node},{remark}")).collect();

        let listed = listed_nodes(&lines.join("\n")).unwrap();
        prop_assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), nodes);
    }

    #[test]
    fn whatever_a_program_writes_its_message_is_one_line(stdout: String, stderr: String) {
        if let Some(line) = message(&stdout, &stderr) {
            prop_assert_eq!(line.lines().count(), 1, "{:?}", line);
            prop_assert!(!line.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{:?}", line);
        }
    }

    #[test]
    fn a_program_shows_off_only_by_silence_and_code_2_or_by_the_line_that_states_it(
        code in 0..4,
        stdout in status_text(),
        stderr in prop_oneof![Just(String::new()), status_text()],
    ) {
        match power_shown(code, &stdout, &stderr, &["n3", "outlet 7"]) {
            PowerState::On => prop_assert_eq!(code, 0),
            PowerState::Off => {
                let line = stdout.trim_matches([' ', '\t', '\n']).to_lowercase();
                // Blanks around the state are ignored.
                let line = match line.split_once(':') {
                    Some((name, state)) => format!("{name}:{}", state.trim_matches([' ', '\t'])),
                    None => line,
                };
                let states_it =
                    ["off", "n3:off", "outlet 7:off", "status:off", "chassis power is off"];
                let is_silent = line.is_empty() && stderr.trim().is_empty();
                prop_assert!(
                    code == 2 && is_silent || [0, 2].contains(&code) && states_it.contains(&&*line),
                    "{:?}",
                    stdout
                );
                prop_assert!(!is_doubtful(&stderr), "{:?}", stderr);
            }
            PowerState::Unknown => {}
        }
    }

    #[test]
    fn what_negates_or_fails_or_names_another_node_never_shows_off(
        code in prop_oneof![Just(0), Just(2)],
        before in status_text(),
        doubt in prop::sample::select(&DOUBTS),
        after in status_text(),
        is_error in any::<bool>(),
    ) {
        let text = format!("{before} {doubt} {after}");
        let (stdout, stderr) = if is_error { ("n3: off", &*text) } else { (&*text, "") };

        let state = power_shown(code, stdout, stderr, &["n3"]);

        prop_assert_ne!(state, PowerState::Off, "{:?} {:?}", stdout, stderr);
    }
}

/// What no output that shows "off" may contain.
const DOUBTS: [&str; 12] = [
    "not",
    "no",
    "n't",
    "error",
    "Error:",
    "FAILED",
    "cannot",
    "unable",
    "unknown",
    "refused",
    "timed out",
    "on",
];

fn is_doubtful(stderr: &str) -> bool {
    stderr.lines().any(|line| {
        let mut words = line.split(|c: char| !c.is_alphanumeric());
        words.any(|word| ["not", "no", "error", "cannot", "failed"].contains(&word))
    })
}

/// Texts that consist of what status programs print, and of similar text.
fn status_text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => "(off|OFF|Off)",
        2 => "(n3|n4|outlet 7|Status|status|state)[:=]?",
        2 => "(on|not|no|error|cannot|failed|is|Chassis Power is)",
        1 => "(оff|of\u{200b}f|ｏｆｆ|off\u{301}|off\r|off[.!])",
        1 => any::<String>(),
    ];
    let space = prop::sample::select(&["", " ", " ", "\n", "\t", "\r", "\u{a0}", "\u{200b}"]);
    let parts = prop::collection::vec((word, space), 0..4);
    parts.prop_map(|parts| parts.into_iter().map(|(word, space)| word + space).collect())
}

fn origin() -> Origin<'static> {
    Origin {
        file: Path::new("/etc/w.toml"),
        node: "n1".to_owned(),
        environment: &[],
        programs_must_exist: false,
    }
}

/// Few prefixes and few digits, so that ranges and widths occur. A comma separates names, so no
/// name in a hostlist contains a comma.
fn nodes() -> impl Strategy<Value = BTreeSet<NodeName>> {
    let name = prop_oneof![
        "[ab]-?[0-9]{1,2}",
        "[ab]?0{0,2}(9|1[0-2]|99|100)",
        "[a-z0-9:@+=~#%_][A-Za-z0-9_.:]{0,9}",
        "n(429496729[4-6]|[0-9]{12})",
    ];
    let names = name.prop_filter_map("two dots", |text| text.parse::<NodeName>().ok());
    // An empty list has no expression.
    proptest::collection::btree_set(names, 1..40)
}
