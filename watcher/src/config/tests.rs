//! Whole configuration files: what is wrong with them, all at once, and what they mean.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;
use fence_core::execution::Method;
use fence_device::{CommandSettings, SimulatedFailure, SimulatedSettings};

fn origin<'a>(environment: &'a [(&'static str, Option<String>)]) -> Origin<'a> {
    Origin { file: Path::new("w.toml"), node: "n1".into(), environment, programs_must_exist: false }
}

fn read(text: &str) -> Result<WatcherConfig, ConfigError> {
    parse(text, &origin(&[]))
}

/// The problems of `text`, one a line.
fn problems(text: &str) -> String {
    read(text).map_or_else(|error| error.to_string(), |settings| format!("{settings:?}"))
}

const DEVICE: &str = "
[[device]]
name = 'pdu'
type = 'command'
targets = 'n[1-3]'
off = ['/bin/off', '{target}']
";

#[test]
fn all_that_is_wrong_is_said_at_once_with_its_line() {
    let text = r#"[spool]
request_dir = "requests"
default_deadline = 60
keep_answers = "1 month"
keep_anwsers_max = 5
[log]
level = "loud"
target = 3
[service]
max_running = 0
stop_limit = "2d"
[device]
"#;
    assert_eq!(
        problems(text),
        r#"w.toml:2: 'request_dir': 'requests' is not an absolute path
w.toml:3: 'default_deadline': write a unit: "60s" for seconds (units: ms, s, m, h, d)
w.toml:4: 'keep_answers': "1 month" is not a duration such as "45s" (units: ms, s, m, h, d)
w.toml:5: unknown key 'keep_anwsers_max' (did you mean 'keep_answers_max'?)
w.toml:7: 'level': "loud" is none of "error", "warn", "info", "debug", "trace"
w.toml:8: 'target': expected a text in quotes, not a number
w.toml:10: 'max_running': must be 1 to 10000
w.toml:11: 'stop_limit': must be 1s to 1h
w.toml:12: 'device' must be a list: write [[device]]"#
    );
}

/// Devices with much that is wrong.
const WRONG_DEVICES: &str = r#"[[device]]
name = "a"
type = "command"
tiemout = "5s"
targets = ["n[1-3", "n4",
  "n[5-x]"]
off = ["off", "{target}"]
on = []
reboot = ["/bin/true", "{tagret}"]
timeout = "500ms"
max_concurrent = 10001
attempts = 11
list = ["/bin/true",
  "{target}"]

[[device]]
name = "a"
type = "command"
targets = "discover"
nodes = "-n1"
method = "onoff"
on = ["/bin/on"]

[[device]]
name = "../b"
type = "smart"
off = ["/bin/off"]
state_file = 7

[[device]]
type = "simulated"
targets = true
method = "off"
off = ["/bin/off"]
fail = "sometimes"
delay = "2h"
attempts = "3"
acknowledge_dlm = "yes"
"#;

#[test]
fn all_that_is_wrong_with_devices_is_said_at_once_with_its_line() {
    assert_eq!(
        problems(WRONG_DEVICES),
        r#"w.toml:4: unknown key 'tiemout' (did you mean 'timeout'?)
w.toml:5: 'targets': bad hostlist "n[1-3": its brackets do not match
w.toml:6: 'targets': bad hostlist "n[5-x]": "5-x" is not a range such as 1-16
w.toml:7: 'off': the program 'off' is not an absolute path
w.toml:8: 'on': the list is empty: it must start with a program
w.toml:9: 'reboot': unknown placeholder '{tagret}' (known: {target} {action} {gfs2_filesystems} {request_id})
w.toml:10: 'timeout': must be 1s to 1h
w.toml:11: 'max_concurrent': must be 1 to 10000
w.toml:12: 'attempts': must be 1 to 10
w.toml:14: 'list': unknown placeholder '{target}' (known: {action})
w.toml:16: neither 'off' nor 'reboot' is given: the device could not fence
w.toml:17: a second device 'a'; the first: line 2
w.toml:19: 'targets': "discover" needs a program for 'list'
w.toml:20: 'nodes': bad hostlist "-n1": "-n1" is not a node name: it starts with '-'
w.toml:21: 'method': "onoff" needs programs for 'off' and 'on'
w.toml:24: 'targets' is missing
w.toml:25: 'name': '../b' is not a name: it starts with '.'
w.toml:26: 'type': "smart" is none of "command", "ec2", "fence-agent", "ipmi", "redfish", "simulated"
w.toml:30: 'name' is missing
w.toml:30: 'state_file' is missing
w.toml:32: 'targets': expected node names such as "n[1-4]" or a list of them, not true or false
w.toml:33: 'method': "off" is none of "onoff", "cycle"
w.toml:34: unknown key 'off'
w.toml:35: 'fail': "sometimes" is none of "none", "unreachable", "unacknowledged", "device-failure", "lie", "hang"
w.toml:36: 'delay': must be 0s to 1h
w.toml:37: 'attempts': expected a whole number, not a text
w.toml:38: 'acknowledge_dlm': expected true or false, not a text"#
    );
}

#[test]
fn names_of_targets_are_for_devices_that_have_them() {
    let table = DEVICE.replace("'n[1-3]'", "{ 'n[1-2]' = '{target}-bmc', n2 = 'x', n3 = '' }");
    assert_eq!(
        problems(&table),
        "w.toml:5: 'targets': 'n2' is written twice\n\
         w.toml:5: 'targets': it is empty or has control characters"
    );
    let table = DEVICE.replace("'n[1-3]'", "{ 'n[1-2]' = '{target}-bmc' }");
    assert_eq!(
        problems(&table),
        "w.toml:5: 'targets': this type has no other names for targets: write a list of nodes"
    );
}

#[test]
fn a_file_that_is_no_toml_is_read_as_far_as_it_goes_and_nothing_is_missed_in_it() {
    let text = "[[device]]
name = \"a
type = \"command\"
targets = n1
off = [\"/bin/off\"]
tiemout = \"5s\"
[sservice]
";
    let found = problems(text);

    let lines: Vec<_> = found.lines().map(|line| line.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["2", "4", "6", "7"], "{found}");
    assert!(
        found.contains("w.toml:7: unknown key 'sservice' (did you mean 'service'?)"),
        "{found}"
    );
    let no_device = problems("[spool\n");
    assert!(!no_device.contains("[[device]]"), "{no_device}");
}

#[test]
fn a_key_that_stands_there_twice_is_an_error() {
    let found = problems(&format!("{DEVICE}timeout = '5s'\ntimeout = '6s'\n"));

    assert!(found.starts_with("w.toml:8: "), "{found}");
}

#[test]
fn what_is_not_written_has_its_default() {
    let settings = read(DEVICE).unwrap();

    assert_eq!(settings.spool.request_dir, Path::new("/var/run/gfs2-fencing/requests"));
    assert_eq!(settings.spool.response_dir, Path::new("/var/run/gfs2-fencing/responses"));
    assert_eq!(settings.spool.default_deadline_ms, 60_000);
    assert_eq!(settings.spool.keep_answers_ms, 30 * 86_400_000);
    assert_eq!(settings.spool.keep_answers_max, 10_000);
    assert_eq!(settings.log.log_dir, Path::new("/var/log/gfs2-fencing"));
    assert_eq!(settings.log.level, log::LevelFilter::Info);
    assert_eq!(settings.log.target, LogTarget::Auto);
    assert_eq!(
        settings.service,
        ServiceSettings { max_running: 256, stop_limit_ms: 60_000, rescan_ms: 30_000 }
    );
    let device = &settings.devices[0];
    assert_eq!((device.timeout_ms, device.max_concurrent, device.attempts), (45_000, 1, 1));
    assert_eq!(device.monitor_timeout_ms, 10_000);
    assert_eq!((device.method, &device.nodes), (None, &None));
    assert_eq!(device.targets.to_string(), "n[1-3]");
}

#[test]
fn what_is_written_is_meant() {
    let settings = read(
        r#"
        [spool]
        request_dir = "/a"
        response_dir = "/b"
        keep_answers_max = 1
        [log]
        target = "journal"
        level = "debug"
        [[device]]
        name = "c"
        type = "command"
        targets = ["n[1-2]", "m1"]
        nodes = "n1"
        timeout = "1m"
        max_concurrent = 4
        method = "cycle"
        attempts = 2
        acknowledge_dlm = true
        reboot = ["/bin/reset", "--plug={target}", "{request_id}"]
        [[device]]
        name = "s"
        type = "simulated"
        targets = "*"
        state_file = "/tmp/state"
        delay = "1500ms"
        fail = "lie"
        "#,
    )
    .unwrap();

    assert_eq!(settings.log.target, LogTarget::Journal);
    let [command, simulated] = &settings.devices[..] else { panic!("{settings:?}") };
    assert_eq!(command.targets.to_string(), "m1,n[1-2]");
    assert_eq!(command.method, Some(Method::Cycle));
    assert_eq!((command.acknowledge_dlm, simulated.acknowledge_dlm), (true, false));
    assert!(command.applies_to("n1.example.com") && !command.applies_to("n2"));
    let reset = ["/bin/reset", "--plug={target}", "{request_id}"].map(str::to_owned).to_vec();
    let commands = CommandSettings {
        name: "c".into(),
        reboot: Some(reset),
        timeout_ms: 60_000,
        ..CommandSettings::default()
    };
    assert_eq!(command.kind, DeviceKind::Command(commands));
    assert_eq!(simulated.targets, Targets::Any);
    let simulation = SimulatedSettings {
        state_file: "/tmp/state".into(),
        delay_ms: 1_500,
        fail: SimulatedFailure::Lie,
    };
    assert_eq!(simulated.kind, DeviceKind::Simulated(simulation));
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = format!("[spool]\nrequest_dir = '/file/q'\nresponse_dir = '/file/a'\n{DEVICE}");
    let environment = [
        ("REQUEST_DIR", Some("/env/q".into())),
        ("RESPONSE_DIR", None),
        ("LOG_DIR", Some("/env/log".into())),
    ];

    let settings = parse(&text, &origin(&environment)).unwrap();

    assert_eq!(settings.spool.request_dir, Path::new("/env/q"));
    assert_eq!(settings.spool.response_dir, Path::new("/file/a"));
    assert_eq!(settings.log.log_dir, Path::new("/env/log"));
}

#[test]
fn a_bad_value_of_the_environment_is_said_without_a_line() {
    let environment = [("REQUEST_DIR", Some("requests".into()))];

    let error = parse(DEVICE, &origin(&environment)).unwrap_err();

    assert_eq!(
        error.to_string(),
        "REQUEST_DIR in the environment: 'requests' is not an absolute path"
    );
}

#[test]
fn requests_answers_and_queries_never_share_a_directory() {
    for (requests, responses) in [("/x", "/x/"), ("/a/x", "/a/queries"), ("/a/queries", "/x")] {
        let spool = format!("[spool]\nrequest_dir = '{requests}'\nresponse_dir = '{responses}'\n");
        assert_eq!(
            problems(&(spool + DEVICE)),
            "w.toml:1: request_dir, response_dir and 'queries' beside request_dir must be three \
             directories"
        );
    }
}

#[test]
fn a_file_nested_without_end_is_refused_like_any_other() {
    let text = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));

    assert!(problems(&text).starts_with("w.toml:1: "));
}

#[test]
fn a_file_without_a_device_is_refused() {
    assert_eq!(problems(""), "w.toml:1: no [[device]]: without one nothing can be fenced");
}

#[test]
fn a_number_of_nodes_that_would_eat_the_memory_is_refused() {
    let text = DEVICE.replace("n[1-3]", "n[1-99999999]");

    assert!(problems(&text).contains("w.toml:5: 'targets': bad hostlist"), "{}", problems(&text));
}

#[test]
fn a_missing_program_is_named_with_its_line_unless_programs_are_not_looked_at() {
    let text = DEVICE.replace("/bin/off", "/nowhere/off");
    assert!(read(&text).is_ok());

    let error = parse(&text, &Origin { programs_must_exist: true, ..origin(&[]) }).unwrap_err();

    assert!(error.to_string().starts_with("w.toml:6: 'off': "), "{error}");
    assert!(error.to_string().contains("/nowhere"), "{error}");
}

/// A directory of this test's own, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let mut path = std::env::temp_dir();
        let mut unique = String::new();
        write!(unique, "fence-config-{name}-{}", std::process::id()).unwrap();
        path.push(unique);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_that_others_can_write_to_is_refused_and_a_missing_one_is_explained() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("mode");
    let file = scratch.0.join("w.toml");
    let origin = Origin { file: &file, ..origin(&[]) };

    let missing = load(&origin).unwrap_err();
    assert!(matches!(missing, ConfigError::Missing(_)), "{missing}");
    assert!(missing.to_string().contains("[[device]]"), "{missing}");

    std::fs::write(&file, DEVICE).unwrap();
    for (mode, refused) in [(0o600, false), (0o644, false), (0o664, true), (0o602, true)] {
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(matches!(load(&origin), Err(ConfigError::Refused(..))), refused, "{mode:o}");
    }
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&scratch.0, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(matches!(load(&origin), Err(ConfigError::Refused(..))));
}

#[test]
fn a_file_may_be_a_link_but_neither_a_directory_nor_a_circle_nor_a_heap_of_bytes() {
    use std::os::unix::fs::symlink;
    let scratch = Scratch::new("link");
    let at = |name: &str| scratch.0.join(name);
    std::fs::write(at("w.toml"), DEVICE).unwrap();
    symlink("w.toml", at("link.toml")).unwrap();
    symlink("circle.toml", at("circle.toml")).unwrap();
    std::fs::create_dir(at("dir.toml")).unwrap();
    std::fs::write(at("large.toml"), vec![b'#'; 1024 * 1024 + 1]).unwrap();
    std::fs::write(at("latin1.toml"), b"# \xe4").unwrap();

    let load = |name: &str| load(&Origin { file: &at(name), ..origin(&[]) });

    assert!(load("link.toml").is_ok());
    for name in ["circle.toml", "dir.toml", "large.toml", "latin1.toml"] {
        let error = load(name).unwrap_err();
        assert!(matches!(error, ConfigError::Refused(..)), "{error}");
    }
}

#[test]
fn a_program_must_be_executable_and_nobody_elses() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("program");
    let program = scratch.0.join("power");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    for (mode, problem) in
        [(0o755, None), (0o644, Some("not executable")), (0o777, Some("others can write to it"))]
    {
        std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
        let found = fence_spool::program_problem(&program);
        match problem {
            None => assert_eq!(found, None),
            Some(text) => assert!(found.unwrap().contains(text), "{mode:o}"),
        }
    }
    assert_eq!(fence_spool::program_problem(Path::new("/bin/sh")), None);
}

/// The shipped examples whose names end so, with their contents.
fn examples(extension: &str) -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn every_shipped_configuration_is_right() {
    let examples = examples("toml");
    assert!(examples.len() >= 3, "{examples:?}");
    let is_built_in =
        |path: &Path| cfg!(feature = "ec2") || !path.ends_with("fence-watcher-ec2.toml");
    for (path, text) in examples.iter().filter(|(path, _)| is_built_in(path)) {
        if let Err(error) = read(text) {
            panic!("{}: {error}", path.display());
        }
    }
}

#[cfg(not(feature = "ec2"))]
#[test]
fn a_type_that_was_not_built_in_is_refused_with_what_is_missing() {
    assert_eq!(
        problems("[[device]]\nname = 'aws'\ntype = 'ec2'\ntargets = 'n1'"),
        "w.toml:1: 'type': this fence-watcher was built without its feature 'ec2'"
    );
}

#[test]
fn what_an_example_shows_as_commented_out_is_the_default_and_would_be_right() {
    let examples = examples("toml");
    let (_, text) =
        examples.iter().find(|(path, _)| path.ends_with("fence-watcher-command.toml")).unwrap();
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| {
            let key = line.strip_prefix("# ").and_then(|line| line.split_once(" = "));
            let is_setting = key.is_some_and(|(key, _)| !key.contains(' '));
            if is_setting { &line[2..] } else { line }
        })
        .collect();

    let (shown, meant) = (read(&uncommented.join("\n")).unwrap(), read(text).unwrap());

    assert_eq!((shown.spool, shown.log, shown.service), (meant.spool, meant.log, meant.service));
    assert!(shown.devices[0].nodes.is_some(), "the comments were not read");
}

#[test]
fn the_shipped_answer_answers_the_shipped_request() {
    use fence_protocol::{ReceivedAnswer, Request, Requested};
    let examples = examples("json");
    let content = |name: &str| {
        let (_, text) = examples.iter().find(|(path, _)| path.ends_with(name)).unwrap();
        text.as_bytes()
    };
    let request = Request::parse(content("request.json")).unwrap();
    let answer = ReceivedAnswer::parse(content("response.json")).unwrap();

    let Requested::Fence(action) = request.action else { panic!("{request:?}") };
    assert_eq!(answer.request_id.as_deref(), Some(request.request_id.as_str()));
    assert_eq!(answer.target_node.as_deref(), Some(request.target_node.unwrap().as_str()));
    assert_eq!(answer.success, Some(true));
    assert!(action.is_fulfilled_by(&answer.action_performed.unwrap()));
}
