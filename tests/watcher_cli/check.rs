//! `fence-watcher check`: what it asks, and what it prints.

use std::process::Command;

use super::{Scratch, simulated};

#[test]
fn a_check_asks_each_device_of_this_node_and_reports_surprising_settings() {
    let scratch = Scratch::new();
    let (good, bad) =
        (scratch.program("good", "exit 0"), scratch.program("bad", "echo lost; exit 1"));
    let device = |name: &str, program: &str, more: &str| {
        format!(
            "[[device]]\nname = '{name}'\ntype = 'command'\ntargets = 'n[1-3]'\n\
             off = ['{program}']\non = ['{program}']\nstatus = ['{program}']\n\
             monitor = ['{program}']\n{more}"
        )
    };
    let well = device("one", &good, "") + &device("other", &bad, "nodes = 'n2'\n");
    scratch.configure(&(well.clone() + &simulated(&scratch)));

    let ran = scratch.run(&["check", "--node", "n1.example.com"]);

    assert_eq!(ran.stderr, "");
    let host = fence_watcher::config::local_node();
    let digest = Command::new("sha256sum").arg(scratch.path("w.toml")).output().unwrap();
    let digest = String::from_utf8(digest.stdout).unwrap();
    let digest = digest.split(' ').next().unwrap();
    assert_eq!(
        ran.stdout.replace(&format!("'{host}'"), "'HOST'").replace(digest, "DIGEST"),
        "\
DEVICE  TYPE       REACHABLE  TARGETS  METHOD  CONCURRENT  ON THIS NODE
one     command    yes        n[1-3]   onoff   1           yes
other   command    not asked  n[1-3]   onoff   1           no
demo    simulated  yes        n[1-3]   onoff   1           yes

TARGETS  FENCED BY  OR, IF NAMED, BY
n[1-3]   one        demo

note: 'other' is not used on this node, 'n1.example.com'
note: 'demo' is simulated: it only pretends to fence, nothing is really cut off
note: asked from this machine, 'HOST': 'n1.example.com' may reach other devices
configuration: sha256 DIGEST
"
    );
    assert_eq!(ran.code, Some(0));

    let ran = scratch.run(&["check", "--node", "n2"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("\nother   command    NO "), "{ran:?}");
    assert!(ran.stdout.contains("\nproblem: 'other' cannot be reached: "), "{ran:?}");
    assert!(ran.stdout.contains("\nnote: 'demo' is simulated: "), "{ran:?}");
    assert!(ran.stdout.contains("lost"), "{ran:?}");
}

#[test]
fn a_check_shows_which_device_fences_which_target_by_the_devices_lists() {
    let scratch = Scratch::new();
    let program = |name: &str, script: &str| scratch.program(name, script);
    let off = program("off", "exit 0");
    let device = |name: &str, targets: &str, list: &str| {
        format!(
            "[[device]]\nname = '{name}'\ntype = 'command'\ntargets = '{targets}'\n\
             off = ['{off}']\non = ['{off}']\nmonitor = ['{off}']\n{list}"
        )
    };
    let list = |program: &str| format!("list = ['{program}']\n");
    let asked = device("asked", "discover", &list(&program("list", "echo n2; echo n3,alias")));
    scratch.configure(&(device("one", "n[1-2]", "") + &asked + &device("any", "*", "")));

    let ran = scratch.run(&["check"]);

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let table = "
TARGETS     FENCED BY  OR, IF NAMED, BY
n1          one        any
n2          one        asked, any
n3          asked      any
all others  any        -
";
    assert!(ran.stdout.contains(table), "{}", ran.stdout);
    assert!(ran.stdout.contains(" discover: n[2-3] "), "{}", ran.stdout);

    let silent = device("asked", "discover", &list(&program("list", "echo lost >&2; exit 1")));
    scratch.configure(&silent);
    let ran = scratch.run(&["check"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("problem: 'asked' gives no list of its targets: "), "{ran:?}");
    assert!(ran.stdout.contains("\nall      asked      -\n"), "{ran:?}");
}

#[test]
fn a_check_names_the_targets_that_a_fence_agent_does_not_list() {
    let scratch = Scratch::new();
    let metadata = "<resource-agent><parameters><parameter name=\"plug\"/></parameters><actions>\
                    <action name=\"off\"/><action name=\"on\"/><action name=\"status\"/>\
                    <action name=\"list\"/><action name=\"monitor\"/></actions></resource-agent>";
    let agent = scratch.program(
        "fence_x",
        &format!(
            "input=$(cat); case $(echo \"$input\" | sed -n 's/^action=//p') in\n\
             metadata) echo '{metadata}';;\n\
             status) case $input in *no-such*) exit 1;; esac;;\n\
             list) echo 1,n1; echo 2,n2;; esac"
        ),
    );
    let device = |plugs: &str, more: &str| {
        format!(
            "[[device]]\nname = 'pdu'\ntype = 'fence-agent'\nagent = '{agent}'\n\
             targets = {{ {plugs} }}\n{more}"
        )
    };
    scratch.configure(&device("n1 = '1', n2 = 'n2', n3 = '7'", ""));

    let ran = scratch.run(&["check"]);

    let note = "problem: 'pdu': no fence of 'n3' can be confirmed: its plug '7' is not in the \
                agent's list\n";
    assert!(ran.stdout.contains(note), "{ran:?}");
    assert_eq!(ran.stdout.matches("can be confirmed").count(), 1, "{ran:?}");
    assert_eq!(ran.code, Some(1), "{ran:?}");

    for sound in [
        device("n1 = '1', n2 = 'n2'", ""),
        device("n3 = '7'", "actions = ['off', 'on', 'status', 'monitor']\n"),
    ] {
        scratch.configure(&sound);
        assert_eq!(scratch.run(&["check"]).code, Some(0));
    }
}

#[test]
fn a_check_is_no_greener_than_a_fence_and_says_what_is_missing_for_which_target() {
    let scratch = Scratch::new();
    let program = scratch.program("power", "[ $2 = n2 ] && { echo lost >&2; exit 1; }; exit 0");
    let device = |targets: &str| {
        format!(
            "[[device]]\nname = 'pdu'\ntype = 'command'\ntargets = '{targets}'\n\
             off = ['{program}', 'off']\non = ['{program}', 'on']\n\
             status = ['{program}', 'status', '{{target}}']\nmonitor = ['{program}', 'monitor', '-']\n"
        )
    };
    scratch.configure(&device("n[1-3]"));

    let ran = scratch.run(&["check"]);

    assert_eq!(ran.code, Some(1), "{ran:?}");
    let note = "problem: 'pdu': a fence of 'n2' is not certain to work: ";
    assert!(ran.stdout.contains(note) && ran.stdout.contains("lost"), "{ran:?}");
    assert_eq!(ran.stdout.matches("not certain").count(), 1, "{ran:?}");

    scratch.configure(&device("n1,n3"));
    let ran = scratch.run(&["check"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn an_offline_check_runs_no_program_and_needs_none() {
    let scratch = Scratch::new();
    let witness = scratch.path("witness");
    let program = scratch.program("p", &format!("touch {}", witness.display()));
    scratch.configure(&format!(
        "[[device]]\nname = 'a'\ntype = 'command'\ntargets = '*'\noff = ['/nowhere/x']\n\
         monitor = ['{program}']\n"
    ));

    let ran = scratch.run(&["check", "--offline"]);

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.contains("not asked"), "{ran:?}");
    assert!(ran.stdout.contains("'a' has no way to do 'on'"), "{ran:?}");
    assert!(ran.stdout.contains("'a' has no 'status'"), "{ran:?}");
    assert!(!witness.exists());
}
