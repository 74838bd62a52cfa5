//! The other implementations of the protocol: older agents against our watcher, older watchers and
//! nnf-sos against our agent. Each is a script in `peers` that does what the original is known to
//! do, good or bad, and no more.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;
#[path = "common/tree.rs"]
mod tree;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::process::{Child, Command, Stdio};

use common::{
    Site, boot_ms, instant, left_out, names, new_id, our_request, output_of, request, wait_for,
    with,
};
use serde_json::{Value, json};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers");

/// The clients, and the action in the request when they are asked for a `reboot`.
const CLIENTS: [(&str, &str); 3] = [("first", "reboot"), ("second", "reboot"), ("dummy", "off")];

/// Whether Python is installed; if not, this reports it, or fails if no test may be left out.
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        left_out("the exchange with a peer", "python3 is not installed");
    }
    found
}

/// A client that waits `seconds` for its answer.
fn client(site: &Site, version: &str, action: &str, target: &str, seconds: &str) -> Command {
    let mut command = Command::new(format!("{PEERS}/client"));
    command.args([version, action, target]);
    command.arg(&site.spool.requests).arg(&site.spool.responses).arg(seconds);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a client that receives its answer; returns its exit code and the answer's message.
fn run(site: &Site, version: &str, action: &str, target: &str) -> (Option<i32>, String) {
    let output = output_of(&mut client(site, version, action, target, "50"));
    let message = String::from_utf8(output.stdout).unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{version} {action}");
    (output.status.code(), message)
}

/// The names of the answers.
fn answers(site: &Site) -> Vec<String> {
    let mut names = names(&site.spool.responses);
    names.retain(|name| !name.starts_with('.'));
    names
}

#[test]
fn each_older_agent_fences_through_our_watcher() {
    if !has_python() {
        return;
    }
    for (version, sent_reboot) in CLIENTS {
        let site = Site::new();
        site.configure(&site.recorder("power", "*", ""));
        let _watcher = site.start();

        for (action, sent) in [("off", "off"), ("reboot", sent_reboot)] {
            let (code, message) = run(&site, version, action, "n3");

            assert_eq!(code, Some(0), "{version} {action}: {message}");
            let executed = site.executed().pop().unwrap();
            assert!(executed.starts_with(&format!("{sent} n3 ")), "{version} {action}: {executed}");
        }

        assert_eq!(site.executed().len(), 2);
        site.spool.await_quiet();
        let kept = if version == "first" { 0 } else { 2 };
        assert_eq!(answers(&site).len(), kept, "only the first version removes what it read");
        assert!(answers(&site).iter().all(|name| name.starts_with("n3-")));
    }
}

#[test]
fn each_older_agent_fails_when_the_device_fails() {
    if !has_python() {
        return;
    }
    for (version, _) in CLIENTS {
        let site = Site::new();
        site.configure(&site.recorder("power", "n3", "echo the relay is stuck >&2; exit 1"));
        let _watcher = site.start();

        let (code, message) = run(&site, version, "off", "n3");
        assert_eq!(code, Some(1), "{version}");
        assert!(message.contains("the relay is stuck"), "{message}");
        assert_eq!(run(&site, version, "off", "n4").0, Some(1), "no device covers n4");
        assert_eq!(site.executed().len(), 1);
    }
}

/// They send their questions as requests, and a responder that takes each for a fence reads the
/// answers.
#[test]
fn the_questions_of_older_agents_fence_nobody_and_are_never_answered_with_success() {
    if !has_python() {
        return;
    }
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    let _watcher = site.start();
    for version in ["first", "second"] {
        for action in ["status", "list", "monitor", "metadata"] {
            let (code, message) = run(&site, version, action, "n3");
            assert_eq!(code, Some(1), "{version} {action}: {message}");
        }
    }
    assert_eq!(site.executed(), [""; 0]);
    for name in answers(&site) {
        let answer = site.spool.answer(name.trim_end_matches(".json")).unwrap();
        assert_ne!(answer["success"], json!(true), "{answer}");
        assert_ne!(answer["status"], json!("success"), "{answer}");
    }
}

/// Two of them fail at once on an answer that they cannot parse.
#[test]
fn many_older_agents_at_once_never_see_half_an_answer() {
    if !has_python() {
        return;
    }
    let site = Site::new();
    site.configure(&(site.recorder("power", "*", "") + "max_concurrent = 8\n"));
    let _watcher = site.start();

    let clients: Vec<Child> = (0..24)
        .map(|number| {
            let version = CLIENTS[number % 3].0;
            client(&site, version, "off", &format!("n{number}"), "50").spawn().unwrap()
        })
        .collect();
    for child in clients {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(site.executed().len(), 24);
}

#[test]
fn a_request_that_an_older_agent_left_is_not_executed() {
    if !has_python() {
        return;
    }
    for (version, _) in CLIENTS {
        let site = Site::new();
        site.configure(&site.recorder("power", "*", ""));
        let text =
            site.read("w.toml").replace("default_deadline = '300s'", "default_deadline = '1s'");
        fs::write(site.path("w.toml"), text).unwrap();
        drop(site.start());

        let output = output_of(&mut client(&site, version, "off", "n3", "1.5"));
        assert_eq!(output.status.code(), Some(1));
        let left: Vec<String> =
            names(&site.spool.requests).into_iter().filter(|name| !name.starts_with('.')).collect();
        assert_eq!(left.len(), 1, "{version} leaves its request behind");

        let _watcher = site.start();
        site.spool.await_result(left[0].trim_end_matches(".json"), "expired");
        assert_eq!(site.executed(), [""; 0]);
    }
}

/// A responder that runs until it is dropped.
struct Responder(Child);

impl Responder {
    fn start(site: &Site, kind: &str) -> Self {
        for directory in [&site.spool.requests, &site.spool.responses] {
            fs::DirBuilder::new().mode(0o700).recursive(true).create(directory).unwrap();
        }
        let mut child = Command::new(format!("{PEERS}/responder"))
            .arg(kind)
            .args([&site.spool.requests, &site.spool.responses, &site.path("done")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(site.path("responder.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{}", site.read("responder.log"));
        Responder(child)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn our_agent_fences_through_the_older_watchers() {
    if !has_python() {
        return;
    }
    for kind in ["first", "second"] {
        for responder in ["script", "fence-watcher"] {
            let site = Site::new();
            let _responder = Responder::start(&site, kind);
            let options = format!("responder={responder}\npoll_interval=0.05");

            for (action, words) in [
                ("off", "Success: Powered OFF\n"),
                ("on", "Success: Powered ON\n"),
                ("reboot", "Success: Rebooted\n"),
            ] {
                let ended = site.agent(&format!("action={action}\nplug=n3\n{options}")).wait();
                ended.assert_success();
                assert_eq!(ended.stdout, words);
                assert_eq!(site.lines("done").pop().unwrap(), format!("{action} n3"));
            }
            let ended = site.agent(&format!("action=off\nplug=bad\n{options}")).wait();
            ended.assert_failure(&["'bad'", "done by the storage"]);

            assert_eq!(answers(&site).len(), 4, "the agent removes no answer");
            assert_eq!(site.lines("done").len(), 4, "each request was seen once");
        }
    }
}

/// Its script repeats a failed step without end; only the end of the request stops it.
#[test]
fn our_agent_takes_its_request_back_from_a_watcher_that_never_answers() {
    if !has_python() {
        return;
    }
    let site = Site::new();
    let _responder = Responder::start(&site, "broken");

    let ended = site.agent("action=off\nplug=n3\nresponder=script\nfence_timeout=1").wait();

    ended.assert_failure(&["timed out", "may have begun it"]);
    assert_eq!(names(&site.spool.requests), [""; 0]);
    assert!(!site.lines("done").is_empty(), "it was tried before");
}

/// Whether nnf-sos blocks this node from its storage: its answers are its memory of this.
fn is_fenced(site: &Site, target: &str) -> bool {
    answers(site).iter().any(|name| {
        let answer: Value =
            serde_json::from_slice(&fs::read(site.spool.responses.join(name)).unwrap()).unwrap();
        answer["target_node"] == target && answer["success"] == true
    })
}

#[test]
fn our_agent_fences_through_nnf_and_its_questions_never_do() {
    if !has_python() {
        return;
    }
    let site = Site::new();
    let _responder = Responder::start(&site, "nnf");
    let run = |lines: &str| site.agent(&format!("{lines}\nresponder=nnf")).wait();

    for (lines, code) in [
        ("action=monitor", 0),
        ("action=status\nplug=n3", 1),
        ("action=list", 1),
        ("action=list-status", 1),
        ("action=validate-all\nplug=n3", 0),
        ("action=on\nplug=n3", 0),
    ] {
        assert_eq!(run(lines).code, Some(code), "{lines}");
    }
    run("action=reboot\nplug=n3").assert_success();
    assert_eq!(site.lines("done"), ["fenced n3"], "nothing before the reboot");
    assert!(is_fenced(&site, "n3"));

    run("action=on\nplug=n3").assert_success();
    assert!(is_fenced(&site, "n3"), "to give the storage back is the operator's part");
    run("action=off\nplug=n3").assert_success();
    run("action=off\nplug=n4").assert_success();
    assert_eq!(site.lines("done"), ["fenced n3", "fenced n3", "fenced n4"]);
    run("action=off\nplug=bad").assert_failure(&["'bad'"]);
    assert!(!is_fenced(&site, "bad"));
    assert_eq!(answers(&site).len(), 4, "the agent removes no answer");
}

#[test]
fn our_agent_waits_for_the_whole_of_an_answer_that_nnf_writes_in_place() {
    if !has_python() {
        return;
    }
    let site = Site::new();
    let _responder = Responder::start(&site, "nnf-empty");
    for _ in 0..5 {
        site.agent("action=off\nplug=n3\nresponder=nnf\npoll_interval=0.01")
            .wait()
            .assert_success();
    }
    assert_eq!(site.lines("done"), ["fenced n3"; 5]);
}

/// nnf-sos looks at a file once, when it appears: a file that is incomplete then is lost.
#[test]
fn no_file_that_our_agent_makes_is_lost_on_a_responder_that_looks_once() {
    if !has_python() {
        return;
    }
    let site = Site::new();
    let _responder = Responder::start(&site, "nnf");
    let agents: Vec<_> = (0..12)
        .map(|number| site.agent(&format!("action=off\nplug=n{number}\nresponder=nnf")))
        .collect();
    for agent in agents {
        agent.wait().assert_success();
    }

    let done = site.lines("done");
    assert_eq!(done.len(), 12);
    assert!(done.iter().all(|line| line.starts_with("fenced ")), "{done:?}");
    wait_for("an empty directory", || names(&site.spool.requests).is_empty());
}

/// The arguments of the README's command for nnf-sos, `name=value`.
fn readme_parameters() -> Vec<(String, String)> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once("<!-- tested: nnf -->\n```sh\n").unwrap();
    let (block, _) = rest.split_once("\n```").unwrap();
    let create = block.replace("\\\n", " ");
    let create = create.lines().next().unwrap();
    assert!(create.starts_with("pcs stonith create fence-rabbit fence_gfs2_recorder "), "{create}");
    let words = create.split_whitespace().filter_map(|word| word.split_once('='));
    words.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

#[test]
fn the_readmes_example_for_nnf_fences_by_kubernetes_names_and_by_no_others() {
    if !has_python() {
        return;
    }
    let parameters = readme_parameters();
    let value = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.as_str()
    };
    // nnf-sos' own defaults.
    assert_eq!(value("request_dir"), "/localdisk/fence-recorder/requests");
    assert_eq!(value("response_dir"), "/localdisk/fence-recorder/responses");
    let seconds = |name| value(name).trim_end_matches('s').parse::<u32>().unwrap();
    assert!(seconds("pcmk_reboot_timeout") > seconds("fence_timeout"));
    assert!(seconds("pcmk_off_timeout") > seconds("fence_timeout"));
    let nodes: Vec<(&str, &str)> =
        value("pcmk_host_map").split(';').map(|pair| pair.split_once(':').unwrap()).collect();
    let computes: Vec<Value> = nodes.iter().map(|(_, name)| json!({"name": name})).collect();
    let site = Site::new();
    let tree = tree::Tree::at(site.path("root"));
    let storage = json!({"kind": "Storage", "status": {"access": {"computes": computes}}});
    tree.write("list", &json!({"items": [storage]}).to_string());
    tree.program("kubectl", &format!("cat '{}'", tree.path("list").display()));
    let _responder = Responder::start(&site, "nnf");
    // As Pacemaker passes them, except for the directories, which are the site's.
    let passed = parameters.iter().filter(|(name, _)| !name.starts_with("pcmk_"));
    let passed = passed.filter(|(name, _)| !name.ends_with("_dir"));
    let passed: Vec<String> = passed.map(|(name, value)| format!("{name}={value}")).collect();
    let passed = passed.join("\n");
    let reboot = |node: &str, plug: &str| {
        site.agent(&format!("action=reboot\nnodename={node}\nplug={plug}\n{passed}")).wait()
    };

    for (node, name) in &nodes {
        reboot(node, node).assert_failure(&["Kubernetes has no compute node"]);
        reboot(node, name).assert_success();
    }

    let fenced: Vec<String> = nodes.iter().map(|(_, name)| format!("fenced {name}")).collect();
    assert_eq!(site.lines("done"), fenced);
}

// --- The watcher in shell that PROTOCOL.md describes -----------------------------------------------

/// `examples/watcher.sh`, until it is dropped.
struct ShellWatcher(Child);

impl ShellWatcher {
    /// Starts it; `None` if its tools are missing.
    fn start(site: &Site) -> Option<Self> {
        let has = |program| Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if has("jq").is_err() {
            left_out("the watcher in shell", "jq is not installed");
            return None;
        }
        let program = site.program(
            "fence-node",
            &format!(
                "echo \"$1 $2\" >>'{}'\ncase $2 in far) echo 'no route'; exit 1;; esac\necho \"$2 is $1\"",
                site.path("done").display()
            ),
        );
        let child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/watcher.sh"))
            .args([&site.spool.requests, &site.spool.responses])
            .arg(program)
            .stdin(Stdio::null())
            .spawn();
        Some(ShellWatcher(child.unwrap()))
    }
}

impl Drop for ShellWatcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn our_agent_fences_through_the_watcher_in_shell() {
    let site = Site::new();
    let Some(_watcher) = ShellWatcher::start(&site) else { return };
    for (action, words) in [("off", "Success: Powered OFF\n"), ("reboot", "Success: Rebooted\n")] {
        let ended = site.agent(&format!("action={action}\nplug=n3\nresponder=script")).wait();
        ended.assert_success();
        assert_eq!(ended.stdout, words);
        assert_eq!(site.lines("done").pop().unwrap(), format!("{action} n3"));
    }
    let ended = site.agent("action=off\nplug=far\nresponder=script").wait();
    ended.assert_failure(&["unreachable", "no route"]);
    assert_eq!(names(&site.spool.requests.join(".claimed")), [""; 0]);
}

#[test]
fn the_watcher_in_shell_answers_what_must_not_be_executed() {
    let site = Site::new();
    let Some(_watcher) = ShellWatcher::start(&site) else { return };
    wait_for("its lock", || site.spool.requests.join(".script.lock").exists());
    let of = |members: Value| with(request(&new_id(), "off", "n1"), members);
    let ours = |members: Value| with(our_request(&new_id(), "off", "n1"), members);
    let late = json!({"deadline_boottime_ms": boot_ms() - 1});
    let injected = site.path("injected");
    let command = format!("a[$(touch {})]", injected.display());

    for (request, result) in [
        (of(json!({"action": "status"})), "rejected"),
        (of(json!({"target_node": "../n1"})), "rejected"),
        (of(json!({"target_node": "-n1"})), "rejected"),
        (of(json!({"timestamp": instant(-61)})), "expired"),
        (of(json!({"timestamp": instant(3600)})), "expired"),
        (of(json!({"timestamp": "tomorrow"})), "expired"),
        (of(json!({"deadline": instant(-1)})), "expired"),
        (ours(late), "expired"),
        (ours(json!({"boot_id": "00000000-0000-4000-8000-000000000000"})), "expired"),
        (ours(json!({})), "withdrawn"),
    ] {
        let id = request["request_id"].as_str().unwrap();
        site.spool.submit(id, &request);
        let answer = site.spool.await_result(id, result);
        assert_eq!(answer["success"], false, "{answer}");
        assert_eq!(answer["target_node"], request["target_node"], "{answer}");
        assert_eq!(answer["recorder_node"], request["recorder_node"], "{answer}");
    }
    // An invalid file may be a half-written request, so the watcher looks at it until it is old.
    let id = new_id();
    let text = of(json!({"deadline_boottime_ms": command, "boot_id": "x"})).to_string();
    let file = site.spool.requests.join(".made");
    fs::write(&file, text).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(10);
    File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    fs::rename(file, site.spool.request(&id)).unwrap();
    site.spool.await_result(&id, "rejected");

    assert_eq!(site.read("done"), "");
    assert!(!injected.exists(), "a member was executed");
}

#[test]
fn a_request_claimed_by_a_watcher_in_shell_is_answered_interrupted_and_never_executed() {
    let site = Site::new();
    let claimed = site.spool.requests.join(".claimed");
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&claimed).unwrap();
    let id = new_id();
    fs::write(site.spool.claimed(&id), request(&id, "off", "n1").to_string()).unwrap();
    let Some(_watcher) = ShellWatcher::start(&site) else { return };

    let answer = site.spool.await_result(&id, "interrupted");
    assert_eq!((&answer["success"], &answer["target_node"]), (&json!(false), &json!("n1")));
    wait_for("its removal", || names(&claimed).is_empty());
    assert_eq!(site.read("done"), "");
}
