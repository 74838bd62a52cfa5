//! The texts on standard output and standard error, and their readers.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::rig::{
    AGENT, Arrivals, Responder, Spool, Watcher, assert_failure, assert_success, ended_by_itself,
    start, text,
};

/// A pipe whose reader does not read accepts no more than it holds.
fn full_pipe() -> (io::PipeReader, io::PipeWriter) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (reader, mut writer) = io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[test]
fn a_reader_that_reads_nothing_delays_no_fence() {
    let (reader, writer) = full_pipe();
    for (verbose, is_answered) in [(1, true), (1, false), (0, true), (0, false)] {
        let spool = Spool::new();
        let arrivals = Arrivals::watch(&spool.path("requests"));
        let mut child = Command::new(AGENT)
            .env_clear()
            .env("GFS2_DISCOVERY_ROOT", spool.path("root"))
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer.try_clone().unwrap())
            .spawn()
            .unwrap();
        let lines = format!("action=off\nplug=n3\nverbose={verbose}\nfence_timeout=20\n");
        child.stdin.take().unwrap().write_all((spool.lines() + &lines).as_bytes()).unwrap();
        let responder = Responder::new(&spool, &arrivals.next());
        let mut answer = responder.success();
        answer["success"] = json!(is_answered);
        responder.answer(&answer);

        let status = ended_by_itself(&mut child);
        assert_eq!(status.and_then(|status| status.code()), Some(i32::from(!is_answered)));
    }
    drop(reader);
}

/// The result did not reach its reader: a caller must not take the silence for an empty list.
#[test]
fn a_query_result_that_cannot_be_written_is_a_failure_but_not_a_finished_fence() {
    let spool = Spool::new();
    let watcher = Watcher::start(&spool);
    let ways = [("full", "exec \"$@\" >/dev/full"), ("closed", "exec \"$@\" >&-")];
    let run = |way: &str, words: &[&str]| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", way, "sh", AGENT]).args(words);
        command.env_clear().env("GFS2_DISCOVERY_ROOT", spool.path("root"));
        command
    };
    for (name, way) in ways {
        for words in [&["-o", "metadata"][..], &["-o", "manpage"], &["-h"], &["-V"]] {
            let output = run(way, words).output().unwrap();
            assert!(assert_failure(&output).contains("standard output"), "{name} {words:?}");
        }
        for lines in [
            "action=list\n",
            "action=list-status\n",
            "action=status\nplug=on\n",
            "action=status\nplug=off\n",
        ] {
            let output = start(&mut run(way, &[]), &(spool.lines() + lines)).wait_with_output();
            assert!(assert_failure(&output.unwrap()).contains("standard output"), "{name} {lines}");
        }
        let output = start(&mut run(way, &[]), &(spool.lines() + "action=monitor\n"));
        assert_success(&output.wait_with_output().unwrap(), "");

        let arrivals = Arrivals::watch(&spool.path("requests"));
        let lines = spool.lines() + "action=off\nplug=n3\nresponder=nnf\n";
        let child = start(&mut run(way, &[]), &lines);
        let responder = Responder::new(&spool, &arrivals.next());
        responder.answer(&responder.success());
        assert_success(&child.wait_with_output().unwrap(), "");
    }
    drop(watcher);
}

/// A pipe into `head` is not a failure, and neither is a shell's `>/dev/null`.
#[test]
fn a_reader_that_stops_early_and_one_that_reads_nothing_are_not_failures() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let metadata = || {
        let mut command = Command::new(AGENT);
        command.args(["-o", "metadata"]).stdin(Stdio::null());
        command
    };
    assert_eq!(metadata().stdout(writer).status().unwrap().code(), Some(0));
    assert_eq!(metadata().stdout(Stdio::null()).status().unwrap().code(), Some(0));
}

#[test]
fn a_message_cannot_forge_a_line_of_a_log() {
    let spool = Spool::new();
    let forged = "x\n[2026-01-01T00:00:00Z] ACTION=off TARGET=n4 GFS2=[] STATUS=completed DETAILS=\
                  \u{85}y\u{2028}z\r{\"status\":\"completed\"}";
    let output =
        spool.run_answered("action=off\nplug=n3\nnodename=a\u{2028}b\u{85}c\n", |responder| {
            let mut answer = responder.success();
            answer["message"] = json!(forged);
            responder.answer(&answer);
        });
    assert_success(&output, "Success: Powered OFF\n");
    for log in ["fence-events.log", "fence-events-readable.log", "fence-events-detailed.jsonl"] {
        let text = fs::read_to_string(spool.path("log").join(log)).unwrap();
        assert_eq!(text.split(is_line_end).count(), 3, "{log}: {text:?}");
        assert!(text.ends_with('\n'));
    }
    assert!(spool.audit()[1]["details"].as_str().unwrap().contains(forged));
}

#[test]
fn quiet_keeps_standard_error_empty_and_verbose_shows_the_steps() {
    let spool = Spool::new();
    let output = spool.run("action=off\nplug=n3\nfence_timeout=1\nquiet=yes\n");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), ""));

    let debug = spool.path("log/debug");
    let lines = format!("action=off\nplug=n3\nverbose=1\ndebug_file={}\n", debug.display());
    let output = spool.run_answered(&lines, |responder| responder.answer(&responder.success()));
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("completed: target=n3 action=off"));
    assert!(fs::read_to_string(debug).unwrap().contains("completed: target=n3 action=off"));
}

#[test]
fn a_terminal_sees_the_waiting_and_afterwards_only_the_result() {
    let spool = Spool::new();
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut child = Command::new(AGENT)
        .env_clear()
        .env("GFS2_DISCOVERY_ROOT", spool.path("root"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::from(pty.slave))
        .spawn()
        .unwrap();
    let lines = spool.lines() + "action=off\nplug=n3\nfence_timeout=1\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let mut shown = Vec::new();
    // The terminal ends with an error when its last program has ended.
    let _ = File::from(pty.master).read_to_end(&mut shown);

    assert_eq!(child.wait().unwrap().code(), Some(1));
    let shown = text(&shown);
    assert!(shown.contains("waiting for fence-watcher: off of 'n3' (0 s of "), "{shown:?}");
    let (_, last) = shown.rsplit_once("\r\x1b[K").unwrap();
    assert!(last.starts_with("fence_gfs2_recorder: off of 'n3' timed out"), "{shown:?}");
}
