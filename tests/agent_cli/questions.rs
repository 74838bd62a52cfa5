//! Queries: to a watcher that runs, to a dead watcher, and to other responders.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use fence_spool::WatcherSpool;

use crate::rig::{
    Arrivals, MANY, Spool, Watcher, assert_failure, assert_success, ended_by_itself, places, text,
};

#[test]
fn a_responder_that_cannot_be_asked_is_not_asked() {
    for responder in ["script", "nnf"] {
        let spool = Spool::new();
        let run = |lines: &str| spool.run(&format!("{lines}\nresponder={responder}\n"));

        assert_success(&run("action=monitor"), "");
        let output = run("action=monitor\nverbose=1");
        assert!(text(&output.stderr).contains("cannot be asked"));
        assert_failure(&run("action=status\nplug=n3"));
        assert!(assert_failure(&run("action=list")).contains("pcmk_host_list"));
        assert!(assert_failure(&run("action=list-status")).contains("pcmk_host_list"));
        for directory in ["requests", "responses", "queries", "log"] {
            assert_eq!(spool.files(directory), [""; 0]);
        }
        fs::set_permissions(spool.path("requests"), Permissions::from_mode(0o777)).unwrap();
        assert!(assert_failure(&run("action=monitor")).contains("chmod go-w"));
        fs::remove_dir(spool.path("requests")).unwrap();
        fs::write(spool.path("requests"), "no directory").unwrap();
        assert!(assert_failure(&run("action=monitor")).contains("not a directory"));
    }
}

#[test]
fn questions_to_a_watcher_that_does_not_run_fail_at_once() {
    let spool = Spool::new();
    for never in [true, false] {
        if !never {
            let watcher = WatcherSpool::open(&places(&spool), false).unwrap();
            drop(watcher.lock().unwrap());
        }
        for lines in ["action=monitor\n", "action=status\nplug=n3\n", "action=list\n"] {
            let output = spool.run(lines);
            let stderr = assert_failure(&output);
            assert!(stderr.contains("no fence-watcher is running on this node"), "{stderr}");
            assert!(stderr.contains("systemctl start fence-watcher"), "{stderr}");
        }
    }
    assert_eq!(spool.files("queries"), [""; 0]);
}

#[test]
fn a_watcher_that_ends_while_a_question_waits_is_reported_as_gone() {
    for lines in ["action=monitor\n", "action=status\nplug=n3\n", "action=list\n"] {
        let spool = Spool::new();
        let lock = WatcherSpool::open(&places(&spool), false).unwrap().lock().unwrap();
        let arrivals = Arrivals::watch(&spool.path("queries"));
        let mut child = spool.start(&format!("{lines}fence_timeout=600\n"));
        arrivals.next();

        drop(lock);

        let status = ended_by_itself(&mut child);
        assert_eq!(status.and_then(|status| status.code()), Some(1), "it waited for the dead");
        let output = child.wait_with_output().unwrap();
        let stderr = text(&output.stderr);
        assert!(stderr.contains("no fence-watcher is running on this node (process "), "{stderr}");
        assert_eq!(spool.files("queries"), [""; 0]);
    }
}

#[test]
fn questions_to_a_living_watcher_give_its_answers_and_nothing_else() {
    let spool = Spool::new();
    let _watcher = Watcher::start(&spool);

    assert_success(&spool.run("action=monitor\n"), "");
    assert!(assert_failure(&spool.run("action=monitor\ndevice=dead\n")).contains("no route"));
    assert_success(&spool.run("action=status\nplug=on\n"), "Status: ON\n");
    let off = spool.run("action=status\nplug=off\n");
    assert_eq!(
        (off.status.code(), text(&off.stdout), text(&off.stderr)),
        (Some(2), "Status: OFF\n", "")
    );
    assert!(assert_failure(&spool.run("action=status\nplug=n9\n")).contains("unknown"));
    assert_success(&spool.run("action=list\n"), "on\noff\nn9\n");
    assert_success(&spool.run("action=list-status\n"), "on,,ON\noff,,OFF\nn9,,UNKNOWN\n");
    assert_success(
        &spool.run("action=list-status\nseparator=: \n"),
        "on::ON\noff::OFF\nn9::UNKNOWN\n",
    );
    assert_failure(&spool.run("action=list\ndevice=dead\n"));
    for fixed in ["plug=off", "port=off", "plug=off\nport=n9\nnodename=n9"] {
        assert_success(&spool.run(&format!("action=list\n{fixed}\n")), "off\n");
        assert_success(&spool.run(&format!("action=list-status\n{fixed}\n")), "off,,OFF\n");
    }
    assert_success(&spool.run("action=list\nplug=n10\n"), "");
    assert_success(&spool.run("action=list\nnodename=n9\n"), "on\noff\nn9\n");
    assert_eq!(spool.files("queries"), [""; 0], "questions leave nothing behind");
    assert_eq!(spool.files("responses"), [".started"], "and are no fences");
}

#[test]
fn a_watcher_that_lives_but_does_not_answer_is_an_expired_time() {
    let spool = Spool::new();
    let watcher = WatcherSpool::open(&places(&spool), false).unwrap();
    let _lock = watcher.lock().unwrap();

    let output = spool.run("action=monitor\nfence_timeout=1\n");

    assert!(assert_failure(&output).contains("timed out"));
    assert_eq!(spool.files("queries"), [""; 0]);
}

#[test]
fn a_monitor_reports_the_number_of_targets_that_it_does_not_name() {
    let spool = Spool::new();
    let _watcher = Watcher::start(&spool);

    for action in ["monitor", "list"] {
        let output = spool.run(&format!("action={action}\ndevice=many\n"));

        let stderr = assert_failure(&output);
        let named = stderr.matches(": no answer").count();
        let rest = format!("; and {} more; see 'fence-watcher check'\n", MANY - named);
        assert!(named > 30 && stderr.ends_with(&rest) && !stderr.contains('…'), "{stderr}");
    }
}
