//! `fence-watcher check` and `reload`: they succeed only if the service and its fences would
//! succeed, and report each problem once.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::process::Output;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::common::{SERVICE, Site, output_of};

/// Exit code, standard output and standard error.
fn run(site: &Site, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = output_of(&mut site.watcher_command(arguments));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn json(site: &Site, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, stdout, stderr) = run(site, arguments);
    (code, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}")))
}

fn problems(stdout: &str) -> Vec<&str> {
    stdout.lines().filter_map(|line| line.strip_prefix("problem: ")).collect()
}

fn make(site: &Site, name: &str, mode: u32) {
    DirBuilder::new().recursive(true).mode(0o700).create(site.path(name)).unwrap();
    fs::set_permissions(site.path(name), PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_check_refuses_each_place_that_the_service_refuses_in_the_same_words() {
    for (name, mode) in [
        ("requests", 0o777),
        ("requests", 0o770),
        ("responses", 0o720),
        ("queries", 0o702),
        ("requests/.claimed", 0o770),
        ("requests/.rejected", 0o770),
        ("responses/.started", 0o770),
    ] {
        let site = Site::new();
        site.configure(&site.simulated("demo", ""));
        make(&site, name, mode);

        let (code, _, said) = run(&site, SERVICE);
        let said = said.trim_end().rsplit("fence-watcher: ").next().unwrap();
        let (checked, stdout, stderr) = run(&site, &["check"]);

        assert_eq!((code, checked, stderr.as_str()), (Some(1), Some(1), ""), "{name}: {said}");
        assert!(said.contains("chmod go-w"), "{name}: {said}");
        assert!(problems(&stdout).contains(&said), "{name}: {said}: {stdout}");
        let (code, report) = json(&site, &["check", "--json"]);
        assert_eq!((code, &report["well"]), (Some(1), &Value::Bool(false)));
        assert_eq!(report["problems"], serde_json::json!([said]), "{name}");
    }
    for name in ["requests", "responses", "queries", "requests/.watcher.lock"] {
        let site = Site::new();
        site.configure(&site.simulated("demo", ""));
        if name.contains('.') {
            make(&site, name, 0o700);
        } else {
            fs::write(site.path(name), "").unwrap();
        }
        let path = site.path(name).display().to_string();

        let (code, _, said) = run(&site, SERVICE);
        let (checked, stdout, _) = run(&site, &["check"]);

        assert_eq!((code, checked), (Some(1), Some(1)), "{said}: {stdout}");
        assert!(said.contains(&path) && stdout.contains(&path), "{said}: {stdout}");
    }
}

#[test]
fn a_check_makes_nothing_and_is_content_before_the_first_start() {
    let site = Site::new();
    site.configure(&site.simulated("demo", ""));

    let (code, stdout, _) = run(&site, &["check"]);

    assert_eq!(code, Some(0), "{stdout}");
    for name in ["requests", "responses", "queries", "log"] {
        assert!(!site.path(name).exists(), "{name} was made");
    }
}

#[test]
fn logs_that_cannot_be_written_are_a_problem() {
    let broken: [&dyn Fn(&Site); 3] = [
        &|site| make(site, "log", 0o707),
        &|site| fs::write(site.path("log"), "").unwrap(),
        &|site| {
            make(site, "log", 0o750);
            mkfifo(&site.path("log/fence-events.log"), Mode::S_IRWXU).unwrap();
        },
    ];
    for damage in broken {
        let site = Site::new();
        site.configure(&site.simulated("demo", ""));
        damage(&site);

        let (code, stdout, _) = run(&site, &["check"]);

        assert_eq!(code, Some(1), "{stdout}");
        assert!(stdout.contains("problem: fences cannot be written into the logs: "), "{stdout}");
        assert!(stdout.contains(&site.path("log").display().to_string()), "{stdout}");
    }
}

#[test]
fn a_check_without_a_device_for_this_node_is_refused_as_the_service_is() {
    let site = Site::new();
    site.configure(&site.recorder("one", "n[1-3]", "").replace("targets", "nodes = 'n7'\ntargets"));

    let (code, _, said) = run(&site, SERVICE);
    let checked = run(&site, &["check", "--node", "n1"]);

    assert_eq!(code, Some(2), "{said}");
    assert_eq!(checked, (Some(2), String::new(), said.clone()));
    assert_eq!(run(&site, &["check", "--node", "n7"]).0, Some(0));
    // A file for another machine, and for a node with that name.
    assert_eq!(run(&site, &["check", "--offline"]).0, Some(0));
    assert_eq!(run(&site, &["check", "--offline", "--node", "n1"]).2, said);
    let (code, report) = json(&site, &["check", "--json", "--node", "n1"]);
    assert_eq!((code, &report["well"]), (Some(2), &Value::Bool(false)));
    let problem = report["problems"][0].as_str().unwrap();
    assert_eq!(format!("fence-watcher: {problem}\n"), said);
}

/// A fence agent that accepts the password "open", for plugs that each have their own address.
fn agent(site: &Site, secret: &str, more: &str) -> String {
    let metadata = "<resource-agent><parameters><parameter name=\"ip\"/><parameter name=\"password\"/>\
                    </parameters><actions><action name=\"off\"/><action name=\"on\"/>\
                    <action name=\"status\"/><action name=\"monitor\"/></actions></resource-agent>";
    let program = site.program(
        "fence_x",
        &format!(
            "input=$(cat)\ncase $input in *action=metadata*) echo '{metadata}'; exit 0;; esac\n\
             case $input in *password=open*) exit 0;; esac\necho 'not let in' >&2; exit 1"
        ),
    );
    format!(
        "[[device]]\nname = 'bmc'\ntype = 'fence-agent'\nagent = '{program}'\nplug_option = 'ip'\n\
         targets = {{ n1 = 'a1', n2 = 'a2' }}\n{secret}\n{more}"
    )
}

#[test]
fn the_running_watcher_is_asked_about_devices_whose_secret_is_the_services_alone() {
    for (secret, is_credential) in
        [("password_credential = 'bmc'", true), ("password_env = 'BMC_PASSWORD'", false)]
    {
        let site = Site::new();
        site.configure(&agent(&site, secret, ""));
        make(&site, "credentials", 0o700);
        fs::write(site.path("credentials/bmc"), "open\n").unwrap();
        fs::set_permissions(site.path("credentials/bmc"), PermissionsExt::from_mode(0o600))
            .unwrap();

        let (code, report) = json(&site, &["check", "--json"]);
        assert_eq!(code, Some(1), "{report}");
        let device = &report["devices"][0];
        assert_eq!((&device["reachable"], &device["asked_by"]), (&Value::Null, &Value::Null));
        let problem = device["problems"][0].as_str().unwrap();
        assert!(problem.contains("only the running fence-watcher can ask it"), "{problem}");

        let mut command = site.watcher_command(SERVICE);
        if is_credential {
            command.env("CREDENTIALS_DIRECTORY", site.path("credentials"));
        } else {
            command.env("BMC_PASSWORD", "open");
        }
        let (watcher, _told) = site.start_as(command);

        let (code, report) = json(&site, &["check", "--json", "--node", "n1"]);
        assert_eq!((code, &report["well"]), (Some(0), &Value::Bool(true)), "{report}");
        let device = &report["devices"][0];
        assert_eq!(
            (&device["reachable"], &device["asked_by"]),
            (&true.into(), &"fence-watcher".into())
        );
        let (_, stdout, _) = run(&site, &["check", "--node", "n1"]);
        assert!(stdout.contains("\nbmc     fence-agent  yes  "), "{stdout}");

        // The findings count, and the check must use what the service would run with.
        fs::write(site.path("credentials/bmc"), "shut\n").unwrap();
        if is_credential {
            let (code, stdout, _) = run(&site, &["check", "--node", "n1"]);
            assert_eq!(code, Some(1), "{stdout}");
            assert!(stdout.contains("problem: 'bmc' cannot be reached: "), "{stdout}");
            assert!(stdout.contains("not let in"), "{stdout}");
        }
        fs::write(site.path("credentials/bmc"), "open\n").unwrap();
        site.configure(&agent(&site, secret, "attempts = 2\n"));
        let (code, stdout, _) = run(&site, &["check", "--node", "n1"]);
        assert_eq!(code, Some(1), "{stdout}");
        assert!(stdout.contains("run `fence-watcher reload`"), "{stdout}");
        assert_eq!(run(&site, &["reload"]).2, "");
        assert_eq!(run(&site, &["check", "--node", "n1"]).0, Some(0));
        watcher.stop();
    }
}

/// `ipmitool` for BMCs at NAME-bmc, some of which do not respond.
fn ipmi(site: &Site, name: &str, targets: &str, more: &str) -> String {
    let program = site.program(
        "ipmitool",
        "while [ $# -gt 0 ]; do [ \"$1\" = -H ] && host=$2; shift; done\n\
         case $host in 127.0.0.1|127.0.0.2|127.0.0.3) echo 'Chassis Power is on'; exit 0;; esac\n\
         echo 'Error: Unable to establish IPMI v2 / RMCP+ session' >&2; exit 1",
    );
    format!(
        "[[device]]\nname = '{name}'\ntype = 'ipmi'\ntargets = {targets}\nusername = 'u'\n\
         password_file = '{}'\nipmitool = '{program}'\n{more}\n",
        site.path("password").display()
    )
}

#[test]
fn one_fault_of_sixteen_bmcs_is_one_line() {
    let site = Site::new();
    site.configure(&ipmi(&site, "bmc", "'n[1-16]'", "address = '{target}-bmc'"));

    let (code, stdout, _) = run(&site, &["check"]);

    assert_eq!(code, Some(1), "{stdout}");
    let [note] = &problems(&stdout)[..] else { panic!("{stdout}") };
    assert!(note.contains("n[1-16]: cannot read the secret in "), "{note}");

    // The same if each target has its own device.
    let devices = (1..=16).map(|n| {
        ipmi(&site, &format!("bmc{n}"), &format!("'n{n}'"), &format!("address = 'n{n}-bmc'"))
    });
    site.configure(&devices.collect::<String>());
    let (code, stdout, _) = run(&site, &["check"]);
    assert_eq!(code, Some(1), "{stdout}");
    let [note] = &problems(&stdout)[..] else { panic!("{stdout}") };
    assert!(note.starts_with("'bmc[1-16]' cannot be reached: "), "{note}");
    assert!(note.contains("n[1-16]: cannot read the secret in "), "{note}");
}

fn write_password(site: &Site) {
    fs::write(site.path("password"), "secret\n").unwrap();
    fs::set_permissions(site.path("password"), PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn names_of_bmcs_that_cannot_be_looked_up_are_one_line() {
    type Device<'a> = &'a dyn Fn(&str, &str, &str) -> String;
    let site = Site::new();
    write_password(&site);
    let redfish = |name: &str, targets: &str, address: &str| {
        format!(
            "[[device]]\nname = '{name}'\ntype = 'redfish'\ntargets = '{targets}'\nusername = 'u'\n\
             password_file = '{}'\ninsecure = true\naddress = '{address}'\n",
            site.path("password").display()
        )
    };
    let ipmi = |name: &str, targets: &str, address: &str| {
        ipmi(&site, name, &format!("'{targets}'"), &format!("address = '{address}'"))
    };
    let kinds: [(Device<'_>, &str, &str); 3] = [
        (&redfish, "", "-bmc.invalid"),
        (&redfish, "https://", "-bmc.invalid:8443"),
        (&ipmi, "", "-bmc.invalid:6230"),
    ];
    for (device, before, after) in kinds {
        let alone = (1..=3)
            .map(|n| device(&format!("bmc{n}"), &format!("n{n}"), &format!("{before}n{n}{after}")));
        for devices in
            [device("bmc", "n[1-16]", &format!("{before}{{target}}{after}")), alone.collect()]
        {
            site.configure(&devices);

            let (code, stdout, _) = run(&site, &["check"]);

            assert_eq!(code, Some(1), "{stdout}");
            let [problem] = &problems(&stdout)[..] else { panic!("{stdout}") };
            assert!(problem.contains("cannot be looked up"), "{problem}");
        }
    }
}

#[test]
fn all_dead_bmcs_are_named_whatever_their_number() {
    let site = Site::new();
    write_password(&site);
    let targets: Vec<String> = (1..=24).map(|n| format!("n{n} = '127.0.0.{n}'")).collect();
    let address = format!("address = {{ {} }}", targets.join(", "));
    site.configure(&ipmi(&site, "bmc", "'n[1-24]'", &address));

    let (code, stdout, _) = run(&site, &["check"]);

    assert_eq!(code, Some(1), "{stdout}");
    let [note] = &problems(&stdout)[..] else { panic!("{stdout}") };
    let expected = "'bmc': 3 of 24 BMCs answered; cannot be asked: n[4-24]: BMC {address}: ";
    assert!(note.starts_with(expected) && !note.contains('…'), "{note}");
}

#[test]
fn a_device_that_cannot_be_asked_is_not_shown_as_reachable() {
    let site = Site::new();
    let program = site.program("p", "exit 0");
    let device = |more: &str| {
        format!(
            "[[device]]\nname = 'power'\ntype = 'command'\ntargets = 'n1'\noff = ['{program}']\n\
             on = ['{program}']\nstatus = ['{program}']\n{more}"
        )
    };
    for (more, shown, reachable) in [
        (String::new(), "not asked", Value::Null),
        (format!("monitor = ['{program}']\n"), "yes", true.into()),
        (format!("list = ['{program}']\n"), "yes", true.into()),
    ] {
        site.configure(&device(&more));
        let (code, stdout, _) = run(&site, &["check"]);
        assert_eq!(code, Some(0), "{stdout}");
        assert!(stdout.contains(&format!("\npower   command  {shown}")), "{stdout}");
        assert_eq!(stdout.contains("note: 'power' was not asked: "), shown != "yes", "{stdout}");
        assert_eq!(json(&site, &["check", "--json"]).1["devices"][0]["reachable"], reachable);
    }
}

#[test]
fn a_monitor_without_a_question_is_not_a_contact() {
    let site = Site::new();
    site.configure(&site.recorder("one", "n1", ""));
    let watcher = site.start();

    site.agent("action=monitor").wait().assert_success();

    assert_eq!(site.state()["devices"][0]["reachable"], Value::Null);
    watcher.stop();
}

#[test]
fn a_reload_warns_of_the_findings_of_a_check() {
    let site = Site::new();
    site.configure(&site.recorder("one", "n1", ""));
    let watcher = site.start();
    let bad = site.program("bad", "echo lost >&2; exit 1");
    site.configure(&(site.recorder("one", "n1", "") + &format!("monitor = ['{bad}']\n")));
    make(&site, "log", 0o707);

    let (code, stdout, stderr) = run(&site, &["reload"]);

    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("was read again"), "{stdout}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].starts_with("fence-watcher: warning: fences cannot be written"), "{stderr}");
    assert!(lines[1].starts_with("fence-watcher: warning: 'one' cannot be reached: "), "{stderr}");
    assert!(lines[1].contains("lost"), "{stderr}");
    watcher.stop();
}
