//! Signals, crashes, and what the next watcher does with the remaining files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{
    SERVICE, Site, instant, is_alive, new_id, our_request, output_of, request, wait_for, with,
};

fn submit(site: &Site, target: &str) -> String {
    let id = new_id();
    site.spool.submit(&id, &request(&id, "off", target));
    id
}

#[test]
fn a_stopping_watcher_finishes_running_executions_and_leaves_the_rest_to_the_next() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let site = Site::new();
        site.configure(&site.recorder("power", "*", &site.held()));
        let mut watcher = site.start();
        let running = submit(&site, "n1");
        site.await_execution(&running);
        let queued = submit(&site, "n2");
        wait_for("it to be queued", || site.state()["queued"][0]["request_id"] == json!(queued));

        watcher.signal(signal);
        watcher.await_log("what runs is finished");
        let late = submit(&site, "n3");
        site.release();

        assert_eq!(watcher.wait().code(), Some(0), "{}", watcher.log());
        site.spool.await_result(&running, "success");
        for id in [&queued, &late] {
            assert!(site.spool.request(id).exists(), "a pending request is gone");
            assert_eq!(site.spool.answer(id), None);
        }
        assert_eq!(site.spool.all_claimed(), [""; 0]);
        let _next = site.start();
        for id in [&queued, &late] {
            site.spool.await_result(id, "success");
        }
        for id in [&running, &queued, &late] {
            assert_eq!(site.executions_of(id), 1);
        }
    }
}

#[test]
fn a_stopping_watcher_serves_free_devices_while_it_waits() {
    let site = Site::new();
    let (slow, quick) = (site.recorder("slow", "n1", &site.held()), site.simulated("quick", ""));
    site.configure(&format!("{slow}\n{quick}"));
    let mut watcher = site.start();
    let running = submit(&site, "n1");
    site.await_execution(&running);

    watcher.signal(Signal::SIGTERM);
    watcher.await_log("what runs is finished");
    let meanwhile = submit(&site, "n2");

    site.spool.await_result(&meanwhile, "success");
    site.release();
    assert_eq!(watcher.wait().code(), Some(0), "{}", watcher.log());
    site.spool.await_result(&running, "success");
}

#[test]
fn a_stopping_watcher_does_not_wait_without_end() {
    let site = Site::new();
    let device = site.recorder("power", "*", &site.endless("setsid"));
    site.configure(&format!("[service]\nstop_limit = '1s'\n{device}"));
    let mut watcher = site.start();
    let id = submit(&site, "n1");
    wait_for("it to run", || site.lines("pids").len() == 3);

    watcher.signal(Signal::SIGTERM);

    assert_eq!(watcher.wait().code(), Some(0), "{}", watcher.log());
    site.spool.await_result(&id, "interrupted");
    let pids = site.lines("pids");
    wait_for("the end of all that ran", || !pids.iter().any(|pid| is_alive(pid)));
    let _next = site.start();
    assert_eq!(site.spool.await_answer(&id)["result"], "interrupted");
    assert_eq!(site.executions_of(&id), 1);
}

#[test]
fn nothing_that_a_program_started_runs_when_its_answer_is_there() {
    for (end, result) in
        [("", "success"), ("exit 1", "unacknowledged"), ("sleep 1000", "unacknowledged")]
    {
        let site = Site::new();
        let pids = site.path("pids");
        let pids = pids.display();
        // An orphan in its own group, and an orphan in its own session.
        let script = format!(
            "for way in 'timeout 1000' setsid; do\n( $way sh -c \"echo \\$\\$ >>'{pids}'; sleep 1000\" & )\n\
             done\nwhile [ $(wc -l <'{pids}') -lt 2 ]; do sleep 0.01; done\n{end}"
        );
        fs::write(site.path("pids"), "").unwrap();
        site.configure(&(site.recorder("power", "*", &script) + "timeout = '2s'\n"));
        let _watcher = site.start();

        let id = submit(&site, "n1");

        site.spool.await_result(&id, result);
        let pids = site.lines("pids");
        assert_eq!(pids.len(), 2, "the test sees nothing end");
        assert!(!pids.iter().any(|pid| is_alive(pid)), "{end}: {pids:?}");
    }
}

#[test]
fn an_execution_dies_with_a_killed_watcher_and_is_answered_interrupted_by_the_next() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.endless("setsid")));
    let watcher = site.start();
    let id = new_id();
    let client = site.spool.submit_held(&id, &our_request(&id, "off", "n1"));
    wait_for("it to run", || site.lines("pids").len() == 3);
    let queued = submit(&site, "n2");
    assert!(site.spool.claimed(&id).exists());
    let pids = site.lines("pids");
    assert!(pids.iter().all(|pid| is_alive(pid)), "the test sees nothing die");

    watcher.crash();

    wait_for("the end of all that ran", || !pids.iter().any(|pid| is_alive(pid)));
    assert!(site.spool.claimed(&id).exists() && site.spool.answer(&id).is_none());
    site.program("power.sh", &format!("echo n2 {queued} >>'{}'", site.path("executed").display()));
    let _next = site.start();
    let answer = site.spool.await_result(&id, "interrupted");
    assert_eq!((&answer["target_node"], &answer["request_id"]), (&json!("n1"), &json!(id)));
    site.spool.await_result(&queued, "success");
    site.spool.await_quiet();
    drop(client);
    assert_eq!((site.executions_of(&id), site.executions_of(&queued)), (1, 1));
}

#[test]
fn the_end_of_an_interrupted_fence_has_its_true_time_or_none() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    site.start().stop();
    let earlier_boot = |id: &str, written: i64| {
        let members = json!({
            "timestamp": instant(written), "deadline": instant(written + 60),
            "boot_id": "an earlier one", "deadline_boottime_ms": 1, "held": true,
        });
        with(request(id, "off", "n1"), members)
    };
    // On a clock that was set back since, the request lies ahead.
    let (known, unknown) = (new_id(), new_id());
    for (id, written) in [(&known, -90), (&unknown, 3_600)] {
        let path = site.spool.claimed(id);
        fs::write(&path, earlier_boot(id, written).to_string()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    let watcher = site.start();

    for id in [&known, &unknown] {
        site.spool.await_result(id, "interrupted");
    }
    wait_for("both ends", || site.audit().len() == 2);
    let end = |id: &str| site.audit().into_iter().find(|event| event["request_id"] == id).unwrap();
    assert!(end(&known)["duration_ms"].as_u64().unwrap() >= 90_000, "{}", end(&known));
    assert!(end(&unknown)["duration_ms"].is_null(), "{}", end(&unknown));
    watcher.stop();
    assert_eq!(site.executed().len(), 0);
}

#[test]
fn a_request_of_any_name_is_answered_interrupted_after_a_crash_and_never_executed_again() {
    let site = Site::new();
    site.configure(&(site.recorder("power", "*", &site.held()) + "max_concurrent = 3\n"));
    let watcher = site.start();
    let ids = [new_id(), new_id(), new_id()];
    let requests = [ids[0].clone(), format!("n1-{}", ids[1]), "a name of its own".to_owned()];
    for (number, (name, id)) in requests.iter().zip(&ids).enumerate() {
        site.spool.submit(name, &request(id, "off", &format!("n{number}")));
        site.await_execution(id);
    }

    watcher.crash();
    site.release();
    let _next = site.start();

    for (number, (name, id)) in requests.iter().zip(&ids).enumerate() {
        assert_eq!(site.spool.await_result(name, "interrupted")["request_id"], json!(id));
        // A client that repeats its request in another form.
        let twin = format!("twin of {id}");
        site.spool.submit(&twin, &request(id, "off", &format!("n{number}")));
        wait_for("the twin to be removed", || !site.spool.request(&twin).exists());
    }
    site.spool.await_quiet();
    assert_eq!(site.executed().len(), 3);
}

#[test]
fn nothing_is_started_before_the_last_child_of_a_killed_watcher_is_gone() {
    let site = Site::new();
    // Each program records its number and checks whether the previous one still lives.
    let script = format!(
        "for pid in $(cat '{0}'); do\ncase $(cat /proc/$pid/stat) in *') Z '*|*') X '*|'') ;; \
         *) touch '{1}' ;; esac\ndone\necho $$ >'{0}'\n\
         while [ $FENCE_TARGET = n1 ]; do sleep 0.01; done",
        site.path("last").display(),
        site.path("met").display()
    );
    site.configure(&site.recorder("power", "*", &script));
    for _ in 0..5 {
        let watcher = site.start();
        let first = submit(&site, "n1");
        wait_for("its number", || !site.read("last").is_empty());
        let second = submit(&site, "n2");

        watcher.crash();
        let next = site.start();

        site.spool.await_result(&first, "interrupted");
        site.spool.await_result(&second, "success");
        next.stop();
        fs::remove_file(site.path("last")).unwrap();
    }
    assert!(!site.path("met").exists(), "two executions met");
}

#[test]
fn a_watcher_that_is_killed_again_and_again_executes_each_request_at_most_once() {
    let site = Site::new();
    site.configure(&(site.recorder("power", "*", "sleep 0.02") + "max_concurrent = 4\n"));
    site.start().stop();
    let ids: Vec<String> = (0..60).map(|number| submit(&site, &format!("n{number}"))).collect();
    let answered = || ids.iter().filter(|id| site.spool.answer(id).is_some()).count();

    let mut crashes = 0;
    while answered() < ids.len() && crashes < 8 {
        let watcher = site.start();
        let before = answered();
        wait_for("some more answers", || answered() > (before + 5).min(ids.len() - 1));
        watcher.crash();
        crashes += 1;
    }
    let _watcher = site.start();
    site.spool.await_quiet();

    assert!(crashes >= 3, "it was hardly ever killed");
    for id in &ids {
        let answer = site.spool.await_answer(id);
        let executions = site.executions_of(id);
        match answer["result"].as_str().unwrap() {
            "success" => assert_eq!(executions, 1, "{answer}"),
            // The watcher may have been killed between the claim and the start.
            "interrupted" => assert!(executions <= 1, "{answer}"),
            _ => panic!("{answer}"),
        }
    }
}

/// Creates a claimed request, as a dead watcher leaves it.
fn leave_claimed(site: &Site, name: &str, text: &str) {
    fs::write(site.spool.claimed(name), text).unwrap();
    fs::set_permissions(site.spool.claimed(name), PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn whatever_a_dead_watcher_left_claimed_is_answered_once_and_never_executed() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    site.start().stop();
    let (whole, empty, half, done, also_pending) =
        (new_id(), new_id(), new_id(), new_id(), new_id());
    let text = |id: &str| request(id, "off", "n1").to_string();
    leave_claimed(&site, &whole, &text(&whole));
    leave_claimed(&site, &empty, "");
    leave_claimed(&site, &half, &text(&half)[..40]);
    leave_claimed(&site, &done, &text(&done));
    let answer = json!({"request_id": done, "success": true}).to_string();
    fs::write(site.spool.responses.join(format!("{done}.json")), &answer).unwrap();
    leave_claimed(&site, &also_pending, &text(&also_pending));
    site.spool.submit_bytes(&also_pending, text(&also_pending).as_bytes());
    site.spool.submit_bytes("twin", text(&also_pending).as_bytes());

    let _watcher = site.start();

    for name in [&whole, &empty, &half, &also_pending] {
        let answer = site.spool.await_result(name, "interrupted");
        assert_eq!(answer["request_id"], json!(name));
    }
    site.spool.await_quiet();
    assert_eq!(site.spool.answer(&done).unwrap().to_string(), answer, "an answer was replaced");
    assert_eq!(site.executed(), [""; 0]);
}

#[test]
fn a_request_that_exists_at_a_start_is_treated_by_its_deadline() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", ""));
    site.start().stop();
    let (good, late, dead, other_boot) = (new_id(), new_id(), new_id(), new_id());
    let members = json!({"timestamp": crate::common::instant(-301)});
    site.spool.submit(&good, &request(&good, "off", "n1"));
    site.spool.submit(&late, &with(request(&late, "off", "n2"), members));
    drop(site.spool.submit_held(&dead, &our_request(&dead, "off", "n3")));
    let members = json!({"boot_id": "00000000-0000-4000-8000-000000000000", "held": false});
    let request = with(our_request(&other_boot, "off", "n4"), members);
    site.spool.submit(&other_boot, &request);

    let _watcher = site.start();

    site.spool.await_result(&good, "success");
    site.spool.await_result(&late, "expired");
    site.spool.await_result(&dead, "withdrawn");
    site.spool.await_result(&other_boot, "expired");
    assert_eq!(site.executed(), [format!("off n1 {good}")]);
}

#[test]
fn a_second_watcher_on_the_same_spool_refuses_and_names_the_first() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let first = site.start();
    let id = submit(&site, "n1");
    site.await_execution(&id);

    let second = output_of(&mut site.watcher_command(SERVICE));

    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert!(stderr.contains(&format!("process {} ", first.pid())), "{stderr}");
    assert!(stderr.contains(site.spool.requests.to_str().unwrap()), "{stderr}");
    assert_eq!(site.spool.answer(&id), None, "the second one meddled");
    site.release();
    site.spool.await_result(&id, "success");
    assert_eq!(site.executions_of(&id), 1);
}
