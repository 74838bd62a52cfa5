//! What is understood of the input, and what is refused.

use super::*;
use crate::input::yes_or_no;
use gfs2_discovery::Kubernetes;

fn with(text: &str, environment: &[(&str, &str)]) -> Result<Invocation, InputError> {
    let input = RawInput::from_stdin(text.as_bytes()).unwrap();
    understand(&input, &|name| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

fn fence(text: &str) -> FenceSettings {
    match with(text, &[]) {
        Ok(Invocation::Fence(fence)) => *fence,
        other => panic!("{text:?}: {other:?}"),
    }
}

/// Why the options are refused, by `validate-all` as by an action.
fn refusal(text: &str) -> InputError {
    match with(text, &[]).expect_err(text) {
        InputError::Invalid(why) => *why,
        other => other,
    }
}

#[test]
fn who_gives_a_wrong_value_is_named_without_the_word_that_pacemaker_reads() {
    let refused = |text: &str, variables: &[(&str, &str)]| {
        with(&format!("action=off\nplug=n3\n{text}"), variables).unwrap_err().to_string()
    };
    let seconds = "is 'abc', but must be a number of seconds from 0 to 86400";
    for (text, name, value, expected) in [
        (
            "",
            "FENCE_TIMEOUT",
            "abc",
            "the environment variable FENCE_TIMEOUT is \
             'abc', but must be a whole number of seconds from 1 to 86400"
                .to_owned(),
        ),
        (
            "recorder_timeout=abc",
            "FENCE_TIMEOUT",
            "7",
            "the option recorder_time-out (written without the hyphen in 'time-out') is 'abc', but \
             must be a whole number of seconds from 1 to 86400"
                .to_owned(),
        ),
        ("", "POLL_INTERVAL", "abc", format!("the environment variable POLL_INTERVAL {seconds}")),
        ("poll_interval=abc", "POLL_INTERVAL", "7", format!("the option poll_interval {seconds}")),
        ("delay=abc", "", "", format!("the option delay {seconds}")),
        (
            "",
            "REQUEST_DIR",
            "r",
            "the environment variable REQUEST_DIR is 'r', but must be a path that starts with '/'"
                .to_owned(),
        ),
        (
            "responder=x",
            "",
            "",
            "the option responder is 'x', but must be one of fence-watcher, script and nnf".to_owned(),
        ),
    ] {
        assert_eq!(refused(text, &[(name, value)]), expected);
    }
    let words = ["-o", "off", "-n", "n3", "--fence-timeout=x"].map(std::ffi::OsString::from);
    let typed = understand(&RawInput::from_arguments(&words).unwrap(), &|_| None).unwrap_err();
    assert!(typed.to_string().starts_with("the option --fence-time-out (written"), "{typed}");
}

#[test]
fn a_wrong_variable_that_concerns_information_stops_no_fence() {
    let variables = [
        ("GFS2_DISCOVERY_ENABLED", "maybe"),
        ("GFS2_DISCOVERY_TIMEOUT", "-1"),
        ("LOG_DIR", "logs"),
        ("GFS2_DISCOVERY_ROOT", "copy/of/n3"),
    ];
    for text in ["action=off\nplug=n3\n", "action=monitor\n", "action=status\nplug=n3\n"] {
        let expected = with(text, &[]).unwrap();
        let ignored = match with(text, &variables).unwrap() {
            Invocation::Fence(fence) => {
                let found = FenceSettings { ignored: Vec::new(), ..(*fence).clone() };
                assert_eq!(Invocation::Fence(Box::new(found)), expected);
                fence.ignored
            }
            Invocation::Probe(probe) => {
                let found = Probe { ignored: Vec::new(), ..(*probe).clone() };
                assert_eq!(Invocation::Probe(Box::new(found)), expected);
                probe.ignored
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(ignored.len(), 4, "{ignored:?}");
        assert!(ignored.iter().all(|ignored| ignored.is_by_hand), "{ignored:?}");
        assert_eq!(
            ignored[0].to_string(),
            "a value is ignored, and the default holds: the environment variable \
             GFS2_DISCOVERY_ENABLED is 'maybe', but must be yes or no; the default is 'true'"
        );
        assert_eq!(
            ignored[3].why,
            "the environment variable GFS2_DISCOVERY_ROOT is 'copy/of/n3', but must be a path that \
             starts with '/'"
        );
    }
    // What is given as an option is checked when the device is made, and is refused there.
    for (name, value) in variables.into_iter().take(3) {
        let option = format!("action=validate-all\n{}={value}\n", name.to_ascii_lowercase());
        assert!(matches!(refusal(&option), InputError::Value { .. }), "{option}");
        // An option that is right outranks the variable, which is not looked at.
        let right = "gfs2_discovery_enabled=yes\ngfs2_discovery_timeout=1\nlog_dir=/l\n";
        let fence = with(&format!("action=off\nplug=n3\n{right}"), &variables[..3]).unwrap();
        assert!(matches!(fence, Invocation::Fence(f) if f.ignored.is_empty()));
    }
}

#[test]
fn a_fence_needs_nothing_but_action_and_target() {
    let fence = fence("action=off\nplug=n3\n");

    assert_eq!((fence.action, fence.target.as_str()), (FenceAction::Off, "n3"));
    assert_eq!(fence.responder, Responder::FenceWatcher);
    assert_eq!(fence.places.requests, PathBuf::from("/var/run/gfs2-fencing/requests"));
    assert_eq!(fence.log_dir, PathBuf::from("/var/log/gfs2-fencing"));
    assert_eq!(fence.time_max, Duration::from_mins(1));
    assert_eq!(fence.poll_interval, Duration::from_millis(500));
    assert_eq!(fence.delay, Duration::ZERO);
    let search = fence.discovery.unwrap();
    assert_eq!((search.root, search.time_max), ("/".into(), Duration::from_secs(2)));
}

#[test]
fn an_option_outranks_the_environment_and_that_the_default() {
    let directory = |text: &str, environment: &[(&str, &str)]| {
        let text = format!("action=off\nplug=n3\n{text}");
        match with(&text, environment).unwrap() {
            Invocation::Fence(fence) => fence.places.requests,
            other => panic!("{other:?}"),
        }
    };
    let environment = [("REQUEST_DIR", "/environment")];

    assert_eq!(directory("request_dir=/option\n", &environment), PathBuf::from("/option"));
    assert_eq!(directory("request_path=/option\n", &environment), PathBuf::from("/option"));
    assert_eq!(directory("", &environment), PathBuf::from("/environment"));
    assert_eq!(
        directory("", &[("REQUEST_DIR", "")]),
        PathBuf::from("/var/run/gfs2-fencing/requests")
    );
}

#[test]
fn plug_and_port_name_the_target_and_nodename_only_without_them() {
    assert_eq!(fence("action=off\nplug=a\nnodename=b\n").target.as_str(), "a");
    assert_eq!(fence("action=off\nport=a\nnodename=b\n").target.as_str(), "a");
    assert_eq!(fence("action=off\nport=a\nplug=a\n").target.as_str(), "a");
    assert_eq!(fence("action=off\nnodename=b\n").target.as_str(), "b");
    assert_eq!(
        refusal("action=off\nplug=a\nport=b\n"),
        InputError::TwoTargets("a".into(), "b".into())
    );
    assert_eq!(fence("action=off\nplug=a\nport=b\nnodename=b\n").target.as_str(), "a");
    assert_eq!(fence("action=off\nplug=b\nport=a\nnodename=b\n").target.as_str(), "a");
    for action in ["off", "status", "list", "list-status", "validate-all"] {
        let text = format!("action={action}\nplug=a\nport=b\nnodename=c\n");
        assert_eq!(refusal(&text), InputError::TwoTargets("a".into(), "b".into()));
    }
    assert_eq!(
        refusal("action=off\nplug=\nnodename=b\n"),
        InputError::Target(String::new(), NameError::Empty)
    );
    assert_eq!(refusal("action=off\nnodeid=3\n"), InputError::NoTarget("off"));
}

#[test]
fn without_an_action_nothing_is_done_but_for_dlm() {
    let from_dlm = "node=2\nfail_time=1790000000\nport=n2\n";
    assert_eq!(fence(from_dlm).action, FenceAction::Reboot);
    assert_eq!(fence(&format!("{from_dlm}action=off\n")).action, FenceAction::Off);
    assert_eq!(refusal("plug=n3\n"), InputError::NoAction);
    assert_eq!(refusal("node=2\nplug=n3\n"), InputError::NoAction);
    assert_eq!(refusal("fail_time=1790000000\nplug=n3\n"), InputError::NoAction);
    assert_eq!(refusal("action=\nplug=n3\n"), InputError::NoAction);
    assert_eq!(refusal("action=cycle\nplug=n3\n"), InputError::UnknownAction("cycle".into()));
    assert_eq!(fence("option=Off\nplug=n3\n").action, FenceAction::Off);
    assert_eq!(fence("action=Reboot\nplug=n3\n").action_word, "Reboot");
}

#[test]
fn an_unsafe_target_is_refused_for_each_action_that_has_one() {
    let long = "x".repeat(254);
    for action in ["off", "on", "reboot", "status", "validate-all"] {
        for target in ["../n3", "a/b", "-n3", ".n3", "a\tb", "n\u{85}3", "n 3", "a,b", &long] {
            let text = format!("action={action}\nplug=x{target}\nplug={target}\n");
            assert!(
                matches!(refusal(&text), InputError::Target(..) | InputError::SeveralTargets(_)),
                "{text:?}"
            );
        }
    }
}

#[test]
fn a_name_too_long_for_the_other_file_name_is_refused_only_there() {
    let text = format!("action=off\nplug={}\n", "x".repeat(230));
    fence(&text);
    assert!(matches!(refusal(&format!("{text}responder=nnf\n")), InputError::Target(..)));
}

#[test]
fn a_value_that_makes_no_sense_is_refused_in_words_pacemaker_does_not_read() {
    for (name, values) in [
        (
            "fence_timeout",
            &["0", "-1", "1.5", "86401", "abc", "", "+5", "99999999999999999999"][..],
        ),
        ("poll_interval", &["-1", "abc", "inf", "NaN", "1e3", "86401"]),
        ("delay", &["-1", "abc", "inf", "58", "60", "1000"]),
        ("responder", &["", "nobody", "NNF"]),
        ("request_dir", &["", "relative", "./x", "~/x"]),
        ("response_dir", &["relative"]),
        ("log_dir", &["relative"]),
    ] {
        for value in values {
            for action in ["off", "validate-all", "monitor"] {
                let text = format!("action={action}\nplug=n3\n{name}={value}\n");
                let words = with(&text, &[]).expect_err(&text).to_string();
                assert!(!words.contains("timeout") && !words.contains('\n'), "{words}");
                let is_invalid = words.starts_with("validate-all failed: ");
                assert_eq!(is_invalid, action == "validate-all");
            }
        }
    }
}

#[test]
fn a_value_that_only_informs_or_is_empty_stops_no_fence_and_fails_a_check() {
    let plain = fence("action=off\nplug=n3\n");
    let environment = |name: &str| match name {
        "gfs2_discovery_enabled" => "GFS2_DISCOVERY_ENABLED",
        _ => "GFS2_DISCOVERY_TIMEOUT",
    };
    for (name, values) in [
        ("gfs2_discovery_enabled", &["maybe", "2", ""][..]),
        ("gfs2_discovery_timeout", &["-1", "2s", "86401", ""]),
        ("delay", &[""]),
        ("poll_interval", &[""]),
        ("log_dir", &[""]),
    ] {
        for value in values {
            for action in ["off", "on", "reboot", "status", "list", "list-status", "monitor"] {
                let text = format!("action={action}\nplug=n3\n{name}={value}\n");
                let (ignored, usual) = match with(&text, &[]).expect(&text) {
                    Invocation::Fence(fence) => {
                        let FenceSettings {
                            ignored, discovery, delay, poll_interval, log_dir, ..
                        } = *fence;
                        let found = (discovery, delay, poll_interval, log_dir);
                        let FenceSettings { discovery, delay, poll_interval, log_dir, .. } =
                            plain.clone();
                        (ignored, found == (discovery, delay, poll_interval, log_dir))
                    }
                    Invocation::Probe(probe) => (probe.ignored, true),
                    other => panic!("{other:?}"),
                };
                assert!(usual, "{text}");
                assert_eq!(ignored.len(), 1, "{text}: {ignored:?}");
                assert!(
                    !ignored[0].why.contains("timeout") && !ignored[0].is_by_hand,
                    "{ignored:?}"
                );
            }
            refusal(&format!("action=validate-all\nplug=n3\n{name}={value}\n"));
            if name.starts_with("gfs2") && !value.is_empty() {
                let environment = [(environment(name), *value)];
                with("action=off\nplug=n3\n", &environment).expect(value);
            }
        }
    }
}

#[test]
fn a_monitor_refuses_what_each_fence_would_be_refused_for() {
    let long = format!("plug={}\nresponder=nnf", "x".repeat(230));
    for lines in [
        "plug=../x",
        "plug=node1,node2",
        "port=",
        "plug=a\nport=b",
        "delay=60",
        "delay=x",
        "fence_timeout=10\ndelay=9",
        "poll_interval=abc",
        "log_dir=relative",
        &long,
    ] {
        with(&format!("action=monitor\n{lines}\n"), &[]).expect_err(lines);
        let lines = format!("action=off\nnodename=node1\n{lines}\n");
        with(&lines, &[]).expect_err(&lines);
    }
    for (lines, target) in
        [("", None), ("plug=n3", Some("n3")), ("port=n3", Some("n3")), ("delay=57", None)]
    {
        let lines = format!("action=monitor\n{lines}\n");
        match with(&lines, &[]).unwrap() {
            Invocation::Probe(probe) => {
                let target = target.map(|name| name.parse().unwrap());
                assert_eq!(probe.kind, ProbeKind::Monitor(target), "{lines}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn validate_all_and_monitor_refuse_what_a_fence_refuses_in_the_same_words() {
    let values =
        ["", "x", "-1", "0", "1", "59", "86401", "relative", "/absolute", "nnf", "a,b", "no"];
    for row in crate::parameters::PARAMETERS {
        for (spelling, value) in row.spellings().flat_map(|name| values.map(|value| (name, value)))
        {
            if row.name == "action" {
                continue;
            }
            let of = |action: &str| {
                let text = format!("action={action}\nplug=n3\nnodename=n3\n{spelling}={value}\n");
                with(&text, &[])
            };
            let (fence, monitor) = (of("off").err(), of("monitor").err());
            assert_eq!(monitor, fence, "{spelling}={value}");
            if let Some(why) = fence {
                let invalid = InputError::Invalid(Box::new(why));
                assert_eq!(of("validate-all"), Err(invalid), "{spelling}={value}");
            }
        }
    }
}

#[test]
fn the_number_that_dlm_sends_is_kept_and_nobody_elses() {
    let number = |text: &str| fence(&format!("plug=n2\n{text}")).dlm_node;
    assert_eq!(number("node=1\nfail_time=1790000000\n"), Some(1));
    assert_eq!(number("fail_time=1790000000\nnode=1\naction=off\n"), Some(1));
    assert_eq!(number("node=n1\nfail_time=1790000000\n"), None);
    assert_eq!(number("node=1\naction=off\n"), None);
    assert_eq!(number("nodeid=1\nfail_time=1790000000\naction=off\n"), None);
}

#[test]
fn a_delay_must_leave_time_to_fence() {
    assert_eq!(fence("action=off\nplug=n3\ndelay=57.9\n").delay, Duration::from_millis(57_900));
    assert_eq!(fence("action=on\nplug=n3\ndelay=1000\n").delay, Duration::ZERO);
}

#[test]
fn yes_and_no_have_four_words_each() {
    for (word, expected) in [("1", true), ("YES", true), ("on", true), ("True", true)]
        .into_iter()
        .chain([("0", false), ("no", false), ("OFF", false), ("False", false)])
    {
        let text = format!("action=off\nplug=n3\ngfs2_discovery_enabled={word}\n");
        assert_eq!(fence(&text).discovery.is_some(), expected, "{word}");
    }
}

#[test]
fn discovery_is_switched_off_in_three_ways_and_told_where_to_look() {
    let off = "action=off\nplug=n3\n";
    let search =
        |text: &str, environment: &[(&str, &str)]| match with(&format!("{off}{text}"), environment)
            .unwrap()
        {
            Invocation::Fence(fence) => fence.discovery,
            other => panic!("{other:?}"),
        };
    assert_eq!(search("no_gfs2_discovery=1\n", &[]), None);
    assert_eq!(search("gfs2_discovery_enabled=0\n", &[]), None);
    assert_eq!(search("", &[("GFS2_DISCOVERY_ENABLED", "false")]), None);

    let environment = [
        ("GFS2_DISCOVERY_ROOT", "/copy"),
        ("GFS2_DISCOVERY_TIMEOUT", "0.5"),
        ("KUBECTL_CMD", "oc"),
        ("KUBECONFIG", "/etc/kube.conf"),
        ("HOME", "/home/admin"),
    ];
    let found = search("", &environment).unwrap();
    assert_eq!((found.root, found.time_max), ("/copy".into(), Duration::from_millis(500)));
    let kubernetes = Kubernetes {
        kubectl: Some("oc".to_owned()),
        config: Some("/etc/kube.conf".to_owned()),
        home: Some("/home/admin".into()),
    };
    assert_eq!(found.kubernetes, kubernetes);
    let found = search("kubectl_cmd=k\ngfs2_discovery_timeout=0\n", &environment).unwrap();
    assert_eq!((found.kubernetes.kubectl, found.time_max), (Some("k".into()), Duration::ZERO));
}

#[test]
fn only_those_who_want_to_see_it_are_shown_what_a_fence_would_find() {
    for (text, is_shown) in [
        ("action=status\nplug=n3\nverbose=1\n", true),
        ("action=status\nplug=n3\n", false),
        ("action=status\nplug=n3\nverbose=1\nno_gfs2_discovery=1\n", false),
        ("action=status\nplug=n3\nverbose=1\ngfs2_discovery_enabled=2\n", true),
        ("action=monitor\nverbose=1\n", false),
    ] {
        match with(text, &[]).unwrap() {
            Invocation::Probe(probe) => {
                assert_eq!(probe.discovery.is_some(), is_shown, "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_shows_texts_looks_at_nothing_else() {
    for (text, expected) in [
        ("action=metadata\nfence_timeout=x\n", Invocation::Metadata),
        ("action=meta-data\n", Invocation::Metadata),
        ("action=manpage\nplug=../x\n", Invocation::Manpage),
        ("help=1\nversion=1\n", Invocation::Help),
        ("version=yes\n", Invocation::Version),
        ("action=validate-all\n", Invocation::ValidateAll(Duration::from_mins(1))),
        (
            "action=validate-all\nplug=node1\nnodename=node1\nfence_timeout=90\n",
            Invocation::ValidateAll(Duration::from_secs(90)),
        ),
    ] {
        assert_eq!(with(text, &[]), Ok(expected), "{text:?}");
    }
}

/// Exit code 0 without a fence would tell Pacemaker that the node is fenced.
#[test]
fn no_option_that_shows_or_tells_something_stops_a_fence_that_was_sent() {
    for name in ["verbose", "quiet", "version", "help", "no_gfs2_discovery", "verbose_level"] {
        for value in ["", "1", "0", "2", "yes", "no", "yes please", "debug"] {
            let text = format!("action=off\nplug=n3\n{name}={value}\n");
            assert_eq!(fence(&text).action, FenceAction::Off, "{text:?}");
            let text = format!("action=validate-all\n{name}={value}\n");
            let is_right = name == "verbose_level" || yes_or_no(value).is_some();
            assert_eq!(with(&text, &[]).is_ok(), is_right, "{text:?}");
        }
    }
    let words = ["-o", "off", "-n", "n3", "--help"].map(std::ffi::OsString::from);
    let typed = RawInput::from_arguments(&words).unwrap();
    assert_eq!(understand(&typed, &|_| None), Ok(Invocation::Help), "a person is shown it");
}

#[test]
fn a_probe_waits_no_longer_than_a_monitor_may_last() {
    let time = |text: &str| match with(text, &[]).unwrap() {
        Invocation::Probe(probe) => probe.time_max,
        other => panic!("{other:?}"),
    };
    assert_eq!(time("action=monitor\n"), Duration::from_secs(15));
    assert_eq!(time("action=monitor\nfence_timeout=3\n"), Duration::from_secs(3));
}
