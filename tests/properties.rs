//! What holds for all lists of nodes, configurations and outputs of device programs.

use std::collections::BTreeSet;
use std::path::Path;

use fence_device::{listed_nodes, message, power_shown};
use fence_log::is_plain;
use fence_protocol::{NodeName, PowerState, expand_hostlist};
use fence_watcher::config::{ConfigError, Origin, Targets, fold_hostlist, parse};
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
    fn what_a_program_says_can_only_make_its_exit_code_doubtful(
        code in 0..4,
        text in prop_oneof![any::<String>(), "((on|off|Off|unknown|x)[ \n:.]){0,4}"],
    ) {
        match power_shown(code, &text) {
            PowerState::On => prop_assert_eq!(code, 0),
            PowerState::Off if code == 0 => {
                prop_assert!(text.trim().lines().count() == 1, "{:?}", text);
                prop_assert!(text.to_lowercase().contains("off"), "{:?}", text);
            }
            PowerState::Off => prop_assert_eq!(code, 2),
            PowerState::Unknown => {}
        }
    }
}

fn origin() -> Origin<'static> {
    Origin {
        file: Path::new("/etc/w.toml"),
        node: "n1".to_owned(),
        environment: &[],
        programs_must_exist: false,
    }
}

/// Few prefixes and few digits, so that ranges and widths come about. A comma separates names, so no
/// name of a hostlist holds one.
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
