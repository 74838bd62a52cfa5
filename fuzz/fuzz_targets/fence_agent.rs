//! What fence agents write of themselves and of their plugs: never a plug that no line names, never an end
//! of the watcher.
#![no_main]

use fence_device::{Given, Metadata, listed_plugs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|output: (&str, &str)| {
    let (text, name) = output;
    if let Ok(metadata) = Metadata::parse(text) {
        let given = [Given { name, value: Some(text) }, Given { name: "plug", value: None }];
        let problems = metadata.problems(&given, ["off", name]);
        assert_eq!(
            problems.iter().any(|problem| problem.contains("no action 'off'")),
            !metadata.has_action("off")
        );
        let _ = metadata.may_ignore_plugs();
    }
    if let Ok(listed) = listed_plugs(text, name) {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(listed.len(), lines.len());
        for (listed, line) in listed.iter().zip(lines) {
            assert!(line.trim_start().starts_with(listed.plug), "{line:?}");
            assert!(line.contains(listed.alias), "{line:?}");
        }
    }
});
