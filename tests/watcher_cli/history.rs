//! `fence-watcher history`: which fences it shows, and how.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{Scratch, ran, simulated};

#[test]
fn the_history_has_one_row_for_each_fence() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let log = scratch.path("log");
    fs::DirBuilder::new().mode(0o750).create(&log).unwrap();
    let event = |time: &str, id: &str, target: &str, end: &str| {
        format!(
            "{{\"timestamp\":\"{time}\",\"action\":\"off\",\"target_node\":\"{target}\",\
             \"pacemaker_action\":\"off\",\"request_id\":\"{id}\",{end}}}\n"
        )
    };
    let requested = r#""status":"requested""#;
    let lines = [
        event("2026-01-31T12:00:00Z", "a", "n1", requested),
        "half a li\n".to_owned(),
        event("2026-01-31T12:00:01Z", "b", "n2", requested),
        event(
            "2026-01-31T12:00:02Z",
            "a",
            "n1",
            r#""status":"completed","result":"success","duration_ms":2100,"details":"n1 is off""#,
        ),
    ];
    fs::write(log.join("fence-events-detailed.jsonl"), lines.concat()).unwrap();

    let all = scratch.run(&["history"]);
    assert_eq!(
        all.stdout,
        "\
TIME                  TARGET  ACTION  RESULT           DURATION  DETAILS
2026-01-31T12:00:00Z  n1      off     success          2.1s      n1 is off
2026-01-31T12:00:01Z  n2      off     no end recorded  -         -
"
    );
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""));

    for (arguments, targets) in [
        (&["--node", "n2"][..], &["n2"][..]),
        (&["--result", "success"], &["n1"]),
        (&["--since", "2026-01-31T12:00:01Z"], &["n2"]),
        (&["--result", "no-end"], &["n2"]),
        (&["--result", "no end recorded"], &["n2"]),
        (&["--result", "running"], &[]),
        (&["--since", "2026-01-31"], &["n1", "n2"]),
        (&["--since", "2026-01-31 14:00:01"], &["n2"]),
        (&["--since", "2026-01-31T13:00:01+01:00"], &["n2"]),
        (&["--since", "2026-02-01"], &[]),
        (&["--action", "on"], &[]),
        (&["--since", "1m"], &[]),
    ] {
        let mut command = scratch.command(&[&["history", "--json"], arguments].concat());
        let ran = ran(command.env("TZ", "HERE-2"));
        let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
        let found: Vec<&Value> =
            rows.as_array().unwrap().iter().map(|row| &row["target_node"]).collect();
        assert_eq!(found, targets, "{arguments:?}");
    }
}

#[test]
fn an_unknown_result_or_action_is_refused_with_the_known_ones() {
    let scratch = Scratch::new();
    let log = scratch.0.to_str().unwrap();
    for (arguments, known) in [
        (["--result", "sucess"], &["success", "timed-out", "no-end", "did you mean"][..]),
        (["--result", "SUCCESS"], &["unreachable"]),
        (["--result", ""], &["interrupted", "waiting", "running"]),
        (["--action", "of"], &["off", "on", "reboot"]),
        (["--action", "status"], &["off", "on", "reboot"]),
    ] {
        let ran = scratch.run(&[&["history", "--log-dir", log], &arguments[..]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
        let said = ran.stderr.replace("similar value exists", "did you mean");
        assert!(known.iter().all(|word| said.contains(word)), "{ran:?}");
    }
}

#[test]
fn the_history_wraps_free_text_under_itself_at_the_width_of_the_terminal_or_at_80() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let log = scratch.path("log");
    fs::DirBuilder::new().mode(0o750).create(&log).unwrap();
    let event = json!({
        "timestamp": "2026-01-31T12:00:00Z", "action": "off", "target_node": "node-with-a-name",
        "request_id": "a", "status": "failed", "result": "unreachable", "duration_ms": 2100,
        "details": "unreachable: no way to the device; check the way to the device: fence-watcher \
                    check",
    });
    fs::write(log.join("fence-events-detailed.jsonl"), format!("{event}\n")).unwrap();

    let written = scratch.run(&["history"]);

    assert_eq!(
        written.stdout,
        "\
TIME                  TARGET            ACTION  RESULT       DURATION
    DETAILS
2026-01-31T12:00:00Z  node-with-a-name  off     unreachable  2.1s
    no way to the device; check the way to the device: fence-watcher check
"
    );

    let (program, file) = (env!("CARGO_BIN_EXE_fence-watcher"), scratch.path("w.toml"));
    let line = format!("stty rows 24 cols 110; '{program}' --config '{}' history", file.display());
    let mut terminal = Command::new("script");
    terminal.args(["-q", "-c", &line, "/dev/null"]);
    let shown = ran(&mut terminal).stdout.replace('\r', "");
    assert!(
        shown.contains("2.1s      no way to the device; check the way to\n")
            && shown.contains("DURATION  DETAILS\n"),
        "{shown}"
    );
}

#[test]
fn the_history_of_nodes_with_long_names_is_as_wide_as_the_usual_terminal() {
    let scratch = Scratch::new();
    scratch.configure(&simulated(&scratch));
    let log = scratch.path("log");
    fs::DirBuilder::new().mode(0o750).create(&log).unwrap();
    let name = "gfs2-compute-node-of-rack-07-number-0042";
    let event = json!({
        "timestamp": "2026-01-31T12:00:00Z", "action": "reboot", "target_node": name,
        "request_id": "a", "status": "failed", "result": "unacknowledged", "duration_ms": 2100,
        "details": format!("unacknowledged: '{name}' shows on: check the target"),
    });
    fs::write(log.join("fence-events-detailed.jsonl"), format!("{event}\n")).unwrap();

    let ran = scratch.run(&["history"]);

    assert_eq!(
        ran.stdout,
        format!(
            "\
TIME                  TARGET                                    ACTION
    RESULT          DURATION  DETAILS
2026-01-31T12:00:00Z  {name}  reboot
    unacknowledged  2.1s      '{name}' shows
                              on: check the target
"
        )
    );
}

#[test]
fn the_history_goes_back_into_the_logs_that_were_put_aside() {
    let scratch = Scratch::new();
    let event = |second: u32, id: &str, status: &str| {
        format!(
            "{{\"timestamp\":\"2026-01-31T12:00:0{second}Z\",\"action\":\"off\",\"target_node\":\"{id}\",\
             \"pacemaker_action\":\"off\",\"request_id\":\"{id}\",\"status\":\"{status}\"}}\n"
        )
    };
    let logs = [
        (".2", event(0, "n1", "requested")),
        (".1", event(1, "n1", "completed") + &event(2, "n2", "requested")),
        ("", event(3, "n2", "failed") + &event(4, "n3", "completed")),
        (".3.gz", "no text".to_owned()),
    ];
    for ((suffix, text), age) in logs.iter().zip([2, 1, 0, 3]) {
        let path = scratch.path(&format!("fence-events-detailed.jsonl{suffix}"));
        fs::write(&path, text).unwrap();
        let written = SystemTime::now() - Duration::from_secs(3600 * age);
        fs::File::options().append(true).open(path).unwrap().set_modified(written).unwrap();
    }

    let log_dir = scratch.0.to_str().unwrap();
    let ran = scratch.run(&["history", "--json", "--log-dir", log_dir]);

    let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
    let found: Vec<(&str, &str)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["target_node"].as_str().unwrap(), row["result"].as_str().unwrap()))
        .collect();
    assert_eq!(found, [("n1", "completed"), ("n2", "failed"), ("n3", "completed")]);
}

#[test]
fn the_history_of_a_named_directory_needs_no_configuration() {
    let scratch = Scratch::new();
    let log = scratch.0.to_str().unwrap();

    let ran = scratch.run(&["history", "--log-dir", log]);

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.starts_with("no matching fence is recorded in "), "{ran:?}");
}
