//! Options from the command line and from standard input that are refused, ignored or truncated.

use std::process::Command;

use crate::rig::{
    AGENT, Arrivals, Responder, Spool, Watcher, arguments, assert_failure, assert_success, start,
    text,
};

#[test]
fn each_refusal_is_one_line_and_leaves_all_directories_empty() {
    let long = format!("action=off\nplug={}\n", "x".repeat(254));
    for lines in [
        "",
        "plug=n3\n",
        "action=\nplug=n3\n",
        "action=off\n",
        "action=on\n",
        "action=reboot\n",
        "action=status\n",
        "action=off\nplug=\nnodename=n3\n",
        "action=off\nplug=n3\nport=n4\n",
        "action=off\nplug=n3,n4\n",
        "action=off\nplug=n3;n4\nplug_separator=;\n",
        "action=off\nplug=../n3\n",
        "action=off\nplug=-x\n",
        "action=off\nplug=.n3\n",
        "action=off\nplug=n\u{85}3\n",
        "action=off\nplug=n\t3\n",
        "action=off\nplug=n 3\n",
        &long,
        "action=off\nplug=n3\nfence_timeout=0\n",
        "action=off\nplug=n3\nfence_timeout=x\n",
        "action=off\nplug=n3\nfence_timeout=1.5\n",
        "action=off\nplug=n3\nfence_timeout=86401\n",
        "action=off\nplug=n3\ndelay=58\n",
        "action=off\nplug=n3\ndelay=-1\n",
        "action=off\nplug=n3\npoll_interval=x\n",
        "action=off\nplug=n3\nresponder=nobody\n",
        "action=off\nplug=n3\nrequest_dir=requests\n",
        "action=off\nplug=n3\nresponse_dir=../responses\n",
        "action=off\nplug=n3\nlog_dir=log\n",
        "action=validate-all\nplug=n3\nport=n4\n",
        "action=validate-all\nfence_timeout=x\n",
    ] {
        let spool = Spool::new();
        let output = spool.run(lines);
        let stderr = assert_failure(&output);
        assert!(!stderr.contains("timeout") && !stderr.contains("timed out"), "{lines}: {stderr}");
        for directory in ["requests", "responses", "queries", "log"] {
            assert_eq!(spool.files(directory), [""; 0], "{lines}");
        }
    }
}

#[test]
fn an_unknown_action_is_reported_in_pacemakers_words() {
    let output = arguments(&["-o", "explode", "-n", "n3"]);
    let words = "fence_gfs2_recorder: Failed: Unrecognised action 'explode'\n";
    assert_eq!(assert_failure(&output), words);
}

#[test]
fn an_unknown_option_is_an_error_on_the_command_line_and_ignored_on_standard_input() {
    let output = arguments(&["-o", "metadata", "--nonsense=1"]);
    assert!(assert_failure(&output).contains("Parse error: "));

    let spool = Spool::new();
    let output = spool.run_answered(
        "action=off\nplug=n3\nnonsense=1\npcmk_foo=2\nnodeid=3\n",
        |responder| {
            responder.answer(&responder.success());
        },
    );
    assert_success(&output, "Success: Powered OFF\n");
}

/// fence-agents warns about these values and continues.
#[test]
fn a_flag_with_a_meaningless_value_stops_no_fence() {
    for line in [
        "verbose=2",
        "verbose=",
        "quiet=",
        "quiet=yes please",
        "version=",
        "help=",
        "help=1",
        "gfs2_discovery_enabled=2",
        "gfs2_discovery_enabled=",
        "gfs2_discovery_timeout=2s",
        "gfs2_discovery_timeout=",
        "delay=",
        "poll_interval=",
    ] {
        let spool = Spool::new();
        let output = spool.run_answered(&format!("action=off\nplug=n3\n{line}\n"), |responder| {
            responder.answer(&responder.success());
        });
        assert_success(&output, "Success: Powered OFF\n");
    }
    // The steps, which also go to the log, report it; `quiet` is none of the values here.
    let spool = Spool::new();
    let lines = "action=off\nplug=n3\nverbose=1\ngfs2_discovery_enabled=2\ndelay=\nquiet=2\n";
    let output = spool.run_answered(lines, |responder| responder.answer(&responder.success()));
    assert_eq!(output.status.code(), Some(0));
    for word in ["gfs2_discovery_enabled is '2'", "delay is ''", "quiet is '2'"] {
        assert!(
            text(&output.stderr).contains(&format!("the default holds: the option {word}")),
            "{output:?}"
        );
    }
}

#[test]
fn a_monitor_fails_where_each_fence_would_or_ignores_a_value_and_warns_of_a_flag() {
    let spool = Spool::new();
    let _watcher = Watcher::start(&spool);
    for lines in [
        "plug=../n3",
        "plug=n3,n4",
        "port=",
        "plug=a\nport=b",
        "delay=60",
        "poll_interval=abc",
        "log_dir=relative",
    ] {
        assert_failure(&spool.run(&format!("action=monitor\n{lines}\n")));
    }
    // A monitor that fails takes the device from this node, and with it fences that would have
    // worked.
    let ignored = [
        ("verbose", "2"),
        ("quiet", ""),
        ("delay", ""),
        ("log_dir", ""),
        ("gfs2_discovery_enabled", "perhaps"),
        ("gfs2_discovery_timeout", "2s"),
    ];
    let lines = ignored.map(|(name, value)| format!("{name}={value}\n")).concat();
    let output = spool.run(&format!("action=monitor\n{lines}"));

    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), ""));
    for (name, value) in ignored {
        let name = name.replace("timeout", "time-out");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(&name) && stderr.contains(&format!("is '{value}'")), "{stderr}");
    }
}

#[test]
fn a_long_option_may_be_abbreviated_to_a_unique_prefix() {
    let full = arguments(&["-o", "metadata"]);
    for words in [&["--act", "metadata"][..], &["--act=metadata", "--plug", "n3", "--verb=2"]] {
        let is_unique = !words.contains(&"--verb=2");
        let output = arguments(words);
        if is_unique {
            assert_success(&output, text(&full.stdout));
        } else {
            assert!(assert_failure(&output).contains("'--verb' could be '--verbose'"));
        }
    }
}

#[test]
fn texts_about_the_agent_need_no_directory_no_environment_and_no_input() {
    let metadata = arguments(&["-o", "metadata"]);
    assert_eq!((metadata.status.code(), text(&metadata.stderr)), (Some(0), ""));
    assert!(text(&metadata.stdout).starts_with("<?xml version=\"1.0\" ?>\n<resource-agent "));
    for word in ["meta-data", "METADATA"] {
        assert_success(&arguments(&["--action", word]), text(&metadata.stdout));
        let spool = Spool::new();
        assert_success(&spool.run(&format!("action={word}\n")), text(&metadata.stdout));
        assert_eq!(spool.files("log"), [""; 0]);
    }
    for option in ["-h", "--help"] {
        let output = arguments(&[option]);
        assert!(
            text(&output.stdout).starts_with("Usage:\n\tfence_gfs2_recorder [options]\nOptions:\n")
        );
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    }
    let version = format!("fence_gfs2_recorder {}\n", env!("CARGO_PKG_VERSION"));
    assert_success(&arguments(&["-V"]), &version);
}

#[test]
fn a_mistyped_option_is_reported_with_the_intended_one() {
    for (words, meant) in [
        (&["-o", "off", "-n", "n3", "--fence-timeot=5"][..], "--fence-time-out"),
        (&["--actoin", "off"], "--action"),
        (&["--responer=nnf"], "--responder"),
    ] {
        let output = arguments(words);
        let stderr = assert_failure(&output);
        assert!(stderr.contains(&format!("did you mean {meant}")), "{stderr}");
        assert!(stderr.contains("Please use '-h' for usage"), "{stderr}");
    }
}

#[test]
fn validate_all_warns_of_an_unknown_option_and_does_not_fail() {
    let spool = Spool::new();
    let said = |lines: &str| {
        let output = spool.run(&format!("action=validate-all\n{lines}"));
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), ""), "{output:?}");
        text(&output.stderr).to_owned()
    };
    let callers = "pcmk_host_list=n1 n2\npcmk_off_timeout=75s\nnodename=node1\nport=node1\n\
                   nodeid=1\nstonith-timeout=9\ncrm_feature_set=3.19\nlogin_timeout=5\n";
    assert_eq!(said(callers), "");
    assert_eq!(said(&format!("{callers}quiet=1\nfence_timeot=5\n")), "");
    let warning = said(&format!("{callers}fence_timeot=5\nlorem ipsum=1\n"));
    for part in ["'fence_timeot' is not an option, did you mean fence_time-out", "'lorem ipsum'"] {
        assert!(warning.contains(part), "{warning}");
    }
    assert!(!warning.contains("pcmk") && !warning.contains("timeout"), "{warning}");
    assert_eq!(warning.lines().count(), 1, "{warning}");
    // As many as Pacemaker's pipe holds.
    let warning = said(&(0..3_000).map(|n| format!("bogus{n}=\n")).collect::<Vec<_>>().concat());
    assert!(warning.len() <= 1_024 && warning.ends_with(" more\n"), "{warning}");
}

/// Only a person sets the environment and types a command line: Pacemaker passes neither.
#[test]
fn a_wrong_variable_is_reported_to_a_person_and_stops_no_fence() {
    let ignored = "fence_gfs2_recorder: a value is ignored, and the default holds: the environment \
                   variable GFS2_DISCOVERY_ENABLED is 'maybe', but must be yes or no; the default is \
                   'true'\n";
    let spool = Spool::new();
    let _watcher = Watcher::start(&spool);
    let with_variable = |lines: &str| {
        let mut command = Command::new(AGENT);
        command.env_clear().env("GFS2_DISCOVERY_ROOT", spool.path("root"));
        start(command.env("GFS2_DISCOVERY_ENABLED", "maybe"), &(spool.lines() + lines))
    };
    let arrivals = Arrivals::watch(&spool.path("requests"));
    let fence = with_variable("action=off\nplug=n3\nresponder=script\n");
    let responder = Responder::new(&spool, &arrivals.next());
    responder.answer(&responder.success());
    for child in [fence, with_variable("action=monitor\n")] {
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ignored));
    }
    let output = with_variable("action=status\nplug=on\n").wait_with_output().unwrap();
    assert_success(&output, "Status: ON\n");
}
