//! The watcher's configuration: settings within their bounds, or problems that name a line each.
#![no_main]

use std::collections::BTreeSet;
use std::path::Path;

use fence_log::is_plain;
use fence_protocol::{expand_hostlist, fold_hostlist};
use fence_watcher::config::{ConfigError, Origin, Targets, WatcherConfig, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let origin = Origin {
        file: Path::new("/etc/x.toml"),
        node: "n1".to_owned(),
        environment: &[],
        programs_must_exist: false,
    };
    match parse(text, &origin) {
        Ok(settings) => check_settings(&settings),
        Err(ConfigError::Problems { problems, .. }) => {
            assert!(!problems.is_empty());
            // The parser counts an end of file as a line.
            let lines = text.split('\n').count() + 1;
            for problem in problems {
                assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?}");
                assert!(problem.text.chars().all(is_plain), "{problem:?}");
            }
        }
        Err(error) => panic!("{error}"),
    }
});

fn check_settings(settings: &WatcherConfig) {
    assert!(settings.spool.request_dir.is_absolute() && settings.spool.response_dir.is_absolute());
    assert!(settings.log.log_dir.is_absolute());
    assert!((1..=10_000).contains(&settings.service.max_running));
    let names: BTreeSet<&str> =
        settings.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names.len(), settings.devices.len());
    for device in &settings.devices {
        if let Targets::Nodes(nodes) = &device.targets {
            let again = expand_hostlist(&fold_hostlist(nodes)).expect("a folded list is one");
            assert_eq!(&again.into_iter().collect::<BTreeSet<_>>(), nodes);
        }
    }
}
