//! What holds for all options, not only for the examples of the unit tests.

use std::collections::HashMap;
use std::ffi::OsString;

use fence_agent::input::RawInput;
use fence_agent::invocation::{Invocation, understand};
use fence_agent::parameters::{PARAMETERS, Parameter};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn options_are_read_as_they_were_written_and_the_last_one_counts(
        options in vec((spelling(), value()), 0..12),
        remark in value(),
    ) {
        let lines: Vec<String> =
            options.iter().map(|(name, value)| format!("{name}={value}\n#{remark}")).collect();
        let words = options.iter().map(|(name, value)| {
            OsString::from(format!("--{}={value}", name.replace('_', "-")))
        });
        let from_stdin = RawInput::from_stdin(lines.join("\n").as_bytes()).unwrap();
        let from_arguments = RawInput::from_arguments(&words.collect::<Vec<_>>()).unwrap();

        let last: HashMap<&str, &str> =
            options.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for name in PARAMETERS.iter().flat_map(Parameter::spellings) {
            prop_assert_eq!(from_stdin.last(name), last.get(name).copied());
            prop_assert_eq!(from_arguments.last(name), last.get(name).copied());
        }
        prop_assert_eq!(from_stdin.unknown, [""; 0]);
    }

    #[test]
    fn a_fence_is_understood_only_for_the_target_and_the_action_that_stand_there(
        bytes in prop_oneof![vec(any::<u8>(), 0..200), "((action|option|plug|port)=(off|n3|[ -~]{0,5})\n){0,4}"
            .prop_map(String::into_bytes)],
    ) {
        let Ok(input) = RawInput::from_stdin(&bytes) else { return Ok(()) };
        if let Ok(Invocation::Fence(fence)) = understand(&input, &|_| None) {
            let given = |name: &str, alias: &str| input.last(name).or(input.last(alias)).unwrap().to_owned();
            prop_assert_eq!(fence.target.as_str(), given("plug", "port"));
            prop_assert_eq!(fence.action.as_str(), given("action", "option").to_lowercase());
        }
    }
}

fn spelling() -> impl Strategy<Value = &'static str> {
    prop::sample::select(PARAMETERS.iter().flat_map(Parameter::spellings).collect::<Vec<_>>())
}

/// One line with any content. Blanks around a value and a pair of quotes are not part of the value.
/// An older and a newer name of an option count as two options here.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~]{0,12}", "[=#;\"' a]{0,5}"]
        .prop_map(|text| text.replace(['\n', '\r'], "").trim().trim_matches('"').trim().to_owned())
        .prop_filter("quotes", |text| !text.starts_with('"') && !text.ends_with('"'))
}
