//! The agent from the view of a cluster's tools: what it declares, what it accepts, and the words
//! in its output that Pacemaker reads. These tests need no responder.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/left_out.rs"]
mod left_out;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fence_agent::input::RawInput;
use left_out::left_out;

const AGENT: &str = env!("CARGO_BIN_EXE_fence_gfs2_recorder");

/// The agent with these options on standard input.
fn stdin(lines: &str) -> Output {
    fed(Command::new(AGENT).env_clear(), lines.as_bytes())
}

fn arguments(words: &[&str]) -> Output {
    fed(Command::new(AGENT).env_clear().args(words), b"")
}

fn fed(command: &mut Command, input: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Its exit code and its standard error.
fn ended(output: &Output) -> (Option<i32>, &str) {
    (output.status.code(), text(&output.stderr))
}

/// A new directory that is the agent's root: no file appears in it unless the agent creates one.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        Place::below(&std::env::temp_dir())
    }

    fn below(directory: &Path) -> Self {
        let name = format!("agent-interface-{}", fence_protocol::RequestId::random());
        let place = Place(directory.join(name));
        fs::create_dir(&place.0).unwrap();
        fs::set_permissions(&place.0, Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// --- What it declares -----------------------------------------------------------------------------

/// Our restatements of the requirements of fence-agents and pcs, and the originals, which these
/// packages install.
const SCHEMAS: [(&str, bool); 4] = [
    (concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/schemas/fence-agents.rng"), true),
    (concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/schemas/pcs.rng"), true),
    ("/usr/share/cluster/relaxng/metadata.rng", false),
    ("/usr/share/pcs/data/ocf-1.0.rng", false),
];

fn is_valid(xml: &[u8], schema: &str) -> bool {
    let mut command = Command::new("xmllint");
    fed(command.args(["--nonet", "--noout", "--relaxng", schema, "-"]), xml).status.success()
}

/// Whether xmllint is installed; if not, this reports it, or fails if no test may be left out.
fn has_xmllint() -> bool {
    let found = Command::new("xmllint").arg("--version").output().is_ok();
    if !found {
        left_out("the check against schemas", "xmllint is not installed");
    }
    found
}

#[test]
fn the_metadata_satisfies_the_schemas_of_fence_agents_and_pcs() {
    if !has_xmllint() {
        return;
    }
    for action in ["metadata", "manpage"] {
        let output = stdin(&format!("action={action}\n"));
        assert_eq!(ended(&output), (Some(0), ""));
        for (schema, ours) in SCHEMAS {
            if ours || Path::new(schema).exists() {
                assert!(is_valid(&output.stdout, schema), "{action} by {schema}");
            } else {
                left_out("the check against a schema", &format!("'{schema}' is not installed"));
            }
        }
    }
}

#[test]
fn the_schemas_refuse_what_the_tools_would_refuse() {
    if !has_xmllint() {
        return;
    }
    let output = stdin("action=metadata\n");
    let metadata = text(&output.stdout);
    for (schema, changes) in [
        (
            SCHEMAS[0].0,
            &[
                ("<longdesc>", "<version>1.0</version>\n<longdesc>"),
                ("<action name=\"off\" />", "<action name=\"off\" timeout=\"60\" />"),
                (" unique=\"0\"", ""),
                ("type=\"second\"", "type=\"duration\""),
                ("automatic=\"0\"", "automatic=\"no\""),
                ("<vendor-url>", "<vendor-url></vendor-url>\n<vendor-url>"),
                (" mixed=", " short="),
            ][..],
        ),
        (
            SCHEMAS[1].0,
            &[
                ("<longdesc>", "<advice>x</advice>\n<longdesc>"),
                ("deprecated=\"1\"", "deprecated=\"yes\""),
                ("<action name=\"off\" />", "<action />"),
                (" obsoletes=", " replaces="),
            ],
        ),
    ] {
        for (from, to) in changes {
            let changed = metadata.replacen(from, to, 1);
            assert_ne!(changed, metadata, "{from}");
            assert!(!is_valid(changed.as_bytes(), schema), "{schema} accepts {to}");
        }
    }
}

#[test]
fn every_name_of_older_configurations_is_declared_as_deprecated() {
    let output = stdin("action=metadata\n");
    let metadata = text(&output.stdout);
    for name in [
        "port",
        "request_path",
        "response_path",
        "log_path",
        "recorder_timeout",
        "recorder_poll_interval",
        "no_gfs2_discovery",
        "debug",
    ] {
        let line = metadata.lines().find(|line| line.contains(&format!(" name=\"{name}\" ")));
        assert!(line.unwrap_or_default().contains("deprecated=\"1\""), "{name}: {line:?}");
    }
}

/// How tools use these: with `automatic`, `on` would run at each join of a node; with `on_target`,
/// only on the node itself. Pacemaker replaces a missing `reboot` by `off`.
#[test]
fn the_actions_are_those_that_pacemaker_can_use() {
    let output = stdin("action=metadata\n");
    let (_, actions) = text(&output.stdout).split_once("<actions>").unwrap();
    let names: Vec<_> =
        actions.split("name=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "on",
            "off",
            "reboot",
            "status",
            "list",
            "list-status",
            "monitor",
            "metadata",
            "manpage",
            "validate-all"
        ]
    );
    assert!(!actions.contains("automatic=\"1\"") && !actions.contains("on_target"), "{actions}");
}

#[test]
fn the_metadata_needs_no_rights_home_or_environment() {
    // Other users may have no access to the temporary directory of the tests, which can be below a
    // home directory.
    let place = Place::below(Path::new("/tmp"));
    let agent = place.path("agent");
    fs::copy(AGENT, &agent).unwrap();
    let mut command = Command::new(agent);
    command.env_clear().current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }

    let output = fed(&mut command, b"action=metadata\n");

    assert_eq!(ended(&output), (Some(0), ""));
    assert_eq!(output.stdout, stdin("action=metadata\n").stdout);
}

// --- What it accepts ------------------------------------------------------------------------------

/// The options that all agents of the fence-agents library have: name, a value, and the letter.
/// `version` and `help` have their own actions.
const OF_EVERY_AGENT: [(&str, &str, Option<char>); 17] = [
    ("action", "validate-all", Some('o')),
    ("plug", "n3", Some('n')),
    ("port", "n3", None),
    ("separator", ",", Some('C')),
    ("plug_separator", ",", None),
    ("verbose", "1", Some('v')),
    ("verbose_level", "0", None),
    ("quiet", "0", Some('q')),
    ("delay", "0", None),
    ("disable_timeout", "1", None),
    ("power_timeout", "20", None),
    ("power_wait", "0", None),
    ("login_timeout", "5", None),
    ("shell_timeout", "3", None),
    ("stonith_status_sleep", "1", None),
    ("retry_on", "1", None),
    ("debug_file", "/nonexistent/debug", Some('D')),
];

fn has_no_value(name: &str) -> bool {
    matches!(name, "verbose" | "quiet")
}

#[test]
fn every_option_of_the_fence_agents_library_is_accepted_in_each_form() {
    let lines: Vec<_> =
        OF_EVERY_AGENT.iter().map(|(name, value, _)| format!("{name}={value}\n")).collect();
    let lines = lines.concat();
    assert_eq!(ended(&stdin(&lines)), (Some(0), ""));
    assert_eq!(RawInput::from_stdin(lines.as_bytes()).unwrap().unknown, [""; 0]);

    for (name, value, letter) in OF_EVERY_AGENT {
        let hyphens = name.replace('_', "-");
        let mut forms = vec![
            vec![format!("--{hyphens}={value}")],
            vec![format!("--{name}={value}")],
            vec![format!("--{hyphens}"), value.to_owned()],
        ];
        if let Some(letter) = letter {
            forms.push(vec![format!("-{letter}"), value.to_owned()]);
        }
        if has_no_value(name) {
            forms.iter_mut().filter(|form| form.len() == 2).for_each(|form| form.truncate(1));
        }
        for form in forms {
            let mut words: Vec<&str> = form.iter().map(String::as_str).collect();
            if name != "action" {
                words.push("--action=validate-all");
            }
            assert_eq!(ended(&arguments(&words)), (Some(0), ""), "{words:?}");
        }
    }
}

/// fence-agents sends its input to each agent in this form: blanks before names, and unknown names.
#[test]
fn a_delay_applies_whatever_else_is_on_standard_input() {
    let place = Place::new();
    let lines = format!(
        "  action = off\n  action=off\n\tplug=n3\n delay=0.4\n fence_timeout=5\n login=x\n\
         lorem ipsum=1\n request_dir={0}/none\n response_dir={0}/none\n log_dir={0}\n",
        place.path("")
    );
    let begin = Instant::now();

    let output = stdin(&lines);

    // The spool does not exist, but the agent finds this out only after the delay.
    assert_eq!(output.status.code(), Some(1));
    assert!(begin.elapsed() >= Duration::from_millis(400), "{output:?}");
}

#[test]
fn validate_all_accepts_a_made_up_node_and_opens_nothing() {
    let place = Place::new();
    let lines = format!(
        "nodename=node1\nplug=node1\naction=validate-all\nrequest_dir={0}/requests\n\
         response_dir={0}/responses\nlog_dir={0}/log\ndebug_file={0}/debug\ndelay=3\n",
        place.path("")
    );
    for responder in ["fence-watcher", "script", "nnf"] {
        let output = stdin(&format!("{lines}responder={responder}\n"));
        assert_eq!((ended(&output), text(&output.stdout)), ((Some(0), ""), ""));
    }
    assert!(place.is_empty());
}

/// pcs shows each word as a warning, and Pacemaker does not pass the device's limits to the agent:
/// only a person who asks can use the advice.
#[test]
fn a_time_beyond_pacemakers_own_limit_is_reported_only_to_a_person() {
    for seconds in ["60", "61", "300"] {
        let output = stdin(&format!("action=validate-all\nfence_timeout={seconds}\n"));
        assert_eq!(ended(&output), (Some(0), ""));

        let output = arguments(&["-o", "validate-all", "--fence-timeout", seconds]);
        let (code, words) = ended(&output);
        assert_eq!(code, Some(0));
        assert_eq!(words.contains("ends an agent after 60 s"), seconds != "60", "{words}");
        assert!(words.lines().count() <= 1);
    }
    let words = ["-q", "-o", "validate-all", "--fence-timeout=300"];
    assert_eq!(ended(&arguments(&words)), (Some(0), ""));
}

// --- The words that Pacemaker reads ---------------------------------------------------------------

/// From these words Pacemaker concludes a timeout or an unknown action.
const READ_WORDS: [&str; 5] =
    ["timed out", "timeout", "unsupported action", "unrecognised", "unrecognized"];

fn read_words(text: &str) -> Vec<&'static str> {
    let text = text.to_lowercase();
    READ_WORDS.into_iter().filter(|word| text.contains(word)).collect()
}

#[test]
fn no_refusal_has_a_word_that_pacemaker_reads_but_that_of_an_unknown_action() {
    let evil = "Connection Timed Out, TIMEOUT, unsupported action";
    for (name, values) in [
        ("fence_timeout", ["x", evil]),
        ("recorder_timeout", ["0", evil]),
        ("poll_interval", ["-1", evil]),
        ("delay", ["1e9", evil]),
        ("responder", ["", evil]),
        ("request_dir", ["x", evil]),
        ("plug", ["../x", evil]),
        ("port", ["x y", evil]),
        ("quiet", ["maybe", evil]),
        ("gfs2_discovery_enabled", ["", evil]),
        ("gfs2_discovery_timeout", ["-1", evil]),
        ("help", ["maybe", evil]),
    ] {
        for value in values {
            for action in ["off", "validate-all", "monitor", "status"] {
                let output = stdin(&format!("action={action}\n{name}={value}\nverbose=1\n"));
                assert_eq!(output.status.code(), Some(1), "{action} {name}={value}");
                assert_eq!(read_words(text(&output.stderr)), [""; 0], "{output:?}");
            }
        }
    }
    for words in [
        &["--fence-timeout"][..],
        &["--power-timeout"],
        &["--timeout=5"],
        &["--unsupported action"],
        &["timed out"],
    ] {
        let output = arguments(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(text(&output.stderr).contains("Please use '-h' for usage"));
        assert_eq!(read_words(text(&output.stderr)), [""; 0], "{output:?}");
    }
    for action in ["explode", "timeout", "timed out"] {
        let output = stdin(&format!("action={action}\nplug=n3\n"));
        assert_eq!(read_words(text(&output.stderr)), ["unrecognised"], "{output:?}");
    }
}

#[test]
fn no_path_in_a_failure_is_read_as_an_expired_time() {
    let place = Place::new();
    for action in ["off", "monitor", "list", "list-status", "status"] {
        let output = stdin(&format!(
            "action={action}\nplug=n3\nverbose=1\nrequest_dir={0}/timeout\nresponse_dir={0}/timed out\n\
             log_dir={0}/Timeout\ndebug_file={0}/Timed out/x\n",
            place.path("")
        ));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(read_words(text(&output.stderr)), [""; 0], "{output:?}");
    }
}
