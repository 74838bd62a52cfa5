//! How many executions run at once: on one device, for one target, in total; and which requests
//! wait.

use serde_json::json;

use super::{await_queued, submit};
use crate::common::{Site, boot_id, boot_ms, instant, new_id, request, wait_for, with};

/// The maximum number of concurrent runs in a log of starts (`+ name`) and ends (`- name`), among
/// the names that `matches` accepts.
fn most_at_once(log: &[String], matches: impl Fn(&str) -> bool) -> usize {
    let (mut running, mut most) = (0, 0);
    for line in log {
        let (sign, name) = line.split_once(' ').unwrap();
        if matches(name) {
            running = if sign == "+" { running + 1 } else { running - 1 };
            most = most.max(running);
        }
    }
    assert_eq!(running, 0);
    most
}

/// A script that records its start and its end in the file `overlap`.
fn noting_overlap(site: &Site) -> String {
    let log = site.path("overlap");
    let (log, held) = (log.display(), site.held());
    format!(
        "echo \"+ $FENCE_DEVICE/$FENCE_TARGET\" >>'{log}'\n{held}\n\
         echo \"- $FENCE_DEVICE/$FENCE_TARGET\" >>'{log}'"
    )
}

#[test]
fn a_device_runs_as_much_at_once_as_it_may_and_never_two_for_one_target() {
    let site = Site::new();
    let device = site.recorder("power", "*", &noting_overlap(&site)) + "max_concurrent = 3\n";
    site.configure(&device);
    let _watcher = site.start();
    // The first place is free for each of three targets, but not for a second request of one
    // target.
    let targets = ["n1", "n1", "n1", "n2", "n2", "n3", "n4", "n5"];
    // Another request's execution never settles an `on`.
    let ids: Vec<String> = targets.iter().map(|target| submit(&site, "on", target)).collect();

    wait_for("three to run", || site.lines("overlap").len() == 3);
    await_queued(&site, 5);
    let state = site.state();
    assert_eq!(state["devices"][0]["running"], 3, "{state}");
    assert_eq!(state["devices"][0]["queued"], 5, "{state}");
    site.release();

    for id in &ids {
        site.spool.await_result(id, "success");
        assert_eq!(site.executions_of(id), 1);
    }
    let log = site.lines("overlap");
    assert_eq!(most_at_once(&log, |_| true), 3);
    for target in ["n1", "n2", "n3", "n4", "n5"] {
        assert_eq!(most_at_once(&log, |name| name.ends_with(target)), 1, "{target}: {log:?}");
    }
}

#[test]
fn a_device_executes_one_request_at_a_time_by_default_in_the_order_of_arrival() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &noting_overlap(&site)));
    let _watcher = site.start();
    let first = submit(&site, "off", "n0");
    site.await_execution(&first);
    let mut ids = vec![first];
    for number in 1..6 {
        ids.push(submit(&site, "off", &format!("n{number}")));
        await_queued(&site, number);
    }
    site.release();

    for id in &ids {
        site.spool.await_result(id, "success");
    }
    assert_eq!(most_at_once(&site.lines("overlap"), |_| true), 1);
    let order: Vec<String> =
        ids.iter().enumerate().map(|(number, id)| format!("off n{number} {id}")).collect();
    assert_eq!(site.executed(), order);
}

#[test]
fn one_target_is_not_fenced_by_two_devices_at_once() {
    let site = Site::new();
    let script = noting_overlap(&site);
    site.configure(&(site.recorder("a", "n1", &script) + &site.recorder("b", "n1", &script)));
    let _watcher = site.start();
    let ids: Vec<String> = ["a", "b"]
        .iter()
        .map(|device| {
            let id = new_id();
            let request = with(request(&id, "off", "n1"), json!({"device": device}));
            site.spool.submit(&id, &request);
            wait_for("it to be seen", || {
                let state = site.state();
                let count = |list: &str| state[list].as_array().unwrap().len();
                count("running") + count("queued") == if *device == "a" { 1 } else { 2 }
            });
            id
        })
        .collect();
    site.release();

    for id in &ids {
        site.spool.await_result(id, "success");
    }
    assert_eq!(most_at_once(&site.lines("overlap"), |_| true), 1);
}

#[test]
fn the_bound_on_all_executions_holds_across_devices() {
    let site = Site::new();
    let script = noting_overlap(&site);
    let devices: String = ["a", "b", "c", "d"]
        .iter()
        .map(|name| site.recorder(name, &format!("{name}[1-4]"), &script))
        .collect();
    site.configure(&format!("[service]\nmax_running = 2\n{devices}"));
    let _watcher = site.start();
    let ids: Vec<String> =
        ["a1", "b1", "c1", "d1", "a2"].iter().map(|target| submit(&site, "off", target)).collect();

    wait_for("two to run", || site.lines("overlap").len() == 2);
    await_queued(&site, 3);
    site.release();

    for id in &ids {
        site.spool.await_result(id, "success");
    }
    assert_eq!(most_at_once(&site.lines("overlap"), |_| true), 2);
}

#[test]
fn a_slow_device_does_not_delay_the_request_of_another() {
    let site = Site::new();
    let slow = site.recorder("slow", "s[1-9]", &site.held());
    site.configure(&(slow + &site.recorder("quick", "q[1-9]", "")));
    let _watcher = site.start();
    let mut slow = vec![submit(&site, "off", "s1")];
    site.await_execution(&slow[0]);
    slow.extend(["s2", "s3", "s1"].map(|target| submit(&site, "off", target)));

    for number in 1..5 {
        let quick = submit(&site, "off", &format!("q{number}"));
        site.spool.await_result(&quick, "success");
    }

    assert!(slow.iter().all(|id| site.spool.answer(id).is_none()));
    site.release();
    for id in &slow {
        site.spool.await_result(id, "success");
    }
}

#[test]
fn a_request_expires_in_the_queue_behind_a_slow_device() {
    let site = Site::new();
    site.configure(&site.recorder("power", "*", &site.held()));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    site.await_execution(&first);
    let (same, other, wall, last) = (new_id(), new_id(), new_id(), new_id());
    let soon = || json!({"boot_id": boot_id(), "deadline_boottime_ms": boot_ms() + 700});
    site.spool.submit(&same, &with(request(&same, "off", "n1"), soon()));
    site.spool.submit(&other, &with(request(&other, "off", "n2"), soon()));
    site.spool.submit(&wall, &with(request(&wall, "off", "n3"), json!({"deadline": instant(1)})));
    site.spool.submit(&last, &request(&last, "off", "n4"));

    for id in [&same, &other, &wall] {
        let answer = site.spool.await_result(id, "expired");
        assert_eq!(answer["duration_ms"], 0, "{answer}");
    }
    assert_eq!(site.spool.answer(&first), None, "the device was not slow");
    site.release();

    site.spool.await_result(&last, "success");
    assert_eq!(site.executed(), [format!("off n1 {first}"), format!("off n4 {last}")]);
}

#[test]
fn a_device_with_addresses_is_used_at_each_of_them_at_the_same_time() {
    let site = Site::new();
    let (executed, held) = (site.path("executed"), site.held());
    let agent = site.program(
        "fence_x",
        &format!(
            "while IFS='=' read -r name value; do eval \"$name='$value'\"; done\n\
             case $action in status) [ -e '{on}' ] && exit 0; exit 2;; on) >'{on}';; esac\n\
             echo \"$action $ip\" >>'{}'\n[ $ip != one ] || {{ {held}; }}",
            executed.display(),
            on = site.path("on").display()
        ),
    );
    site.configure(&format!(
        "[[device]]\nname = 'bmcs'\ntype = 'fence-agent'\nagent = '{agent}'\n\
         targets = {{ n1 = 'one', N1 = 'one', n3 = 'other' }}\nplug_option = 'ip'\n\
         actions = ['off', 'on', 'status']\n"
    ));
    let _watcher = site.start();
    let first = submit(&site, "off", "n1");
    wait_for("it to run", || site.executed() == ["off one"]);

    let same = submit(&site, "on", "N1");
    let other = submit(&site, "off", "n3");

    site.spool.await_result(&other, "success");
    assert_eq!(site.executed(), ["off one", "off other"]);
    let state = site.state();
    assert_eq!(
        (&state["queued"][0]["target"], &state["queued"][0]["address"]),
        (&json!("N1"), &json!("one"))
    );
    site.release();
    for id in [&first, &same] {
        site.spool.await_result(id, "success");
    }
    assert_eq!(site.executed().len(), 3);
}
