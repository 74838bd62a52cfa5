//! The sequences with which fence-agents tests its agents against real devices, restated: each by
//! standard input, by short and by long options.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::process::Command;

use common::{Site, agent_program, output_of};

#[derive(Clone, Copy, Debug)]
enum Method {
    Stdin,
    Short,
    Long,
}

/// The exit code of `action` on n1, and what the agent wrote.
fn run(site: &Site, method: Method, action: &str) -> (i32, String) {
    if let Method::Stdin = method {
        let ended = site.agent(&format!("plug=n1\naction={action}")).wait();
        return (ended.code.unwrap(), ended.stdout + &ended.stderr);
    }
    let mut command = Command::new(agent_program());
    command.env_clear();
    for name in ["request", "response"] {
        command.arg(format!("--{name}-dir={}", site.path(&format!("{name}s")).display()));
    }
    command.arg("--log-dir").arg(site.path("log"));
    match method {
        Method::Short => command.args(["-n", "n1", "-o", action]),
        _ => command.args(["--plug", "n1", &format!("--action={action}")]),
    };
    let output = output_of(&mut command);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Each sequence contains actions with the allowed exit codes.
const SEQUENCES: &[&[(&str, &[i32])]] = &[
    &[("status", &[0, 2])],
    &[("on", &[0]), ("status", &[0]), ("off", &[0]), ("status", &[2])],
    &[("off", &[0]), ("off", &[0]), ("status", &[2])],
    &[("on", &[0]), ("on", &[0]), ("status", &[0])],
    &[("reboot", &[0]), ("status", &[0])],
    &[("list", &[0])],
    &[("list-status", &[0])],
    &[("monitor", &[0])],
    &[("metadata", &[0])],
    &[("validate-all", &[0])],
];

#[test]
fn each_sequence_of_actions_ends_with_the_codes_of_a_fence_agent() {
    let site = Site::new();
    site.configure(&site.simulated("demo", "").replace("'*'", "'n[1-2]'"));
    let _watcher = site.start();
    for method in [Method::Stdin, Method::Short, Method::Long] {
        for sequence in SEQUENCES {
            for (action, codes) in *sequence {
                let (code, text) = run(&site, method, action);
                assert!(
                    codes.contains(&code),
                    "{method:?}: {action} of {sequence:?}: {code} {text}"
                );
                let expected = match (*action, code) {
                    ("on", _) => "Success: Powered ON\n",
                    ("off", _) => "Success: Powered OFF\n",
                    ("reboot", _) => "Success: Powered OFF, the power-on follows\n",
                    ("status", 0) => "Status: ON\n",
                    ("status", _) => "Status: OFF\n",
                    // A `list` with a plug answers for that plug alone.
                    ("list", _) => "n1\n",
                    ("list-status", _) => "n1,,ON\n",
                    ("metadata", _) => continue,
                    _ => "",
                };
                assert_eq!(text, expected, "{method:?}: {action}");
            }
        }
    }
}

#[test]
fn a_fence_by_the_older_word_option_is_done_and_one_without_an_action_is_not() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();

    site.agent("option=off\nport=n1\nnodename=other\nnonsense=1\nlogin").wait().assert_success();
    assert_eq!(site.executed().len(), 1);
    assert!(site.executed()[0].starts_with("off n1 "));

    site.agent("port=n1\nnodename=n1").wait().assert_failure(&["no action was given"]);
    assert_eq!(site.executed().len(), 1);
}
