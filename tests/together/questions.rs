//! The agent's queries: `monitor`, `list` and `status`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::{await_pending, orders, running, simulated};
use crate::common::{Site, boot_ms, names, new_id, request, wait_for};

/// A device with a fixed plug would pass the monitor, and each fence would be refused.
#[test]
fn a_monitor_with_a_plug_that_no_device_covers_fails_and_names_it() {
    let site = Site::new();
    let mute = site.recorder("mute", "*", "").replace("'*'", "'m1'");
    let simulated = site.simulated("sim", "").replace("'*'", "'n[1-2]'");
    site.configure(&format!("{simulated}{mute}"));
    let _watcher = site.start();

    for (lines, target) in [
        ("plug=n9", "'n9'"),
        ("port=n9", "'n9'"),
        ("plug=n1\ndevice=mute", "'n1'"),
        ("plug=m1\ndevice=sim", "'m1'"),
        ("plug=n1\ndevice=nobody", "nobody"),
    ] {
        site.agent(&format!("action=monitor\n{lines}")).wait().assert_failure(&[target]);
        site.agent(&format!("action=off\nnodename=n1\n{lines}")).wait().assert_failure(&[]);
    }
    // A device that cannot show the state is still a working fence device.
    for lines in ["", "plug=n2", "port=n1", "plug=m1", "plug=n1\ndevice=sim", "device=mute"] {
        site.agent(&format!("action=monitor\n{lines}")).wait().assert_success();
    }
}

#[test]
fn questions_are_answered_while_a_fence_runs_and_start_nothing() {
    let site = Site::new();
    let slow = site.recorder("slow", "s[1-2]", &site.held());
    site.configure(&(slow + &site.simulated("demo", "").replace("'*'", "'n[1-2]'")));
    let _watcher = site.start();
    let (agent, _) = running(&site, "s1");

    let ask = |options: &str| site.agent(options).wait();
    ask("action=monitor").assert_success();
    let list = ask("action=list");
    list.assert_success();
    assert_eq!(list.stdout.split_whitespace().count(), 4, "{list:?}");
    assert_eq!(ask("action=status\nplug=n1").code, Some(0));
    assert_eq!(ask("action=status\nplug=s1").code, Some(1), "it cannot be asked");
    ask("action=off\nplug=n1").assert_success();
    assert_eq!(ask("action=status\nplug=n1").code, Some(2));
    fs::write(site.path("state.behave"), "unreachable").unwrap();
    assert_eq!(ask("action=monitor").code, Some(1));
    assert_eq!(ask("action=monitor\ndevice=slow").code, Some(0));

    assert_eq!((site.executed().len(), orders(&site).len()), (1, 1));
    assert_eq!(names(&site.path("queries")), [""; 0]);
    site.release();
    agent.wait().assert_success();
    assert_eq!(site.agent("action=monitor").wait().code, Some(1));
}

#[test]
fn a_monitor_contacts_a_device_whose_order_is_running() {
    let site = Site::new();
    let calls = site.path("calls");
    let monitor = site.program("monitor", &format!("echo x >>'{}'", calls.display()));
    let busy = site.recorder("busy", "*", &site.held());
    site.configure(&busy.replace("type = ", &format!("monitor = ['{monitor}']\ntype = ")));
    let _watcher = site.start();
    let (agent, _) = running(&site, "n1");
    let waiting = site.agent("action=off\nplug=n2");
    await_pending(&site);

    for count in 1..5 {
        site.agent("action=monitor\ndevice=busy").wait().assert_success();
        assert_eq!(site.lines("calls").len(), count, "the device was not asked");
    }

    assert_eq!(site.executed().len(), 1, "the order did not run all the time");
    site.release();
    agent.wait().assert_success();
    waiting.wait().assert_success();
}

#[test]
fn a_list_a_missing_list_and_an_unreached_device_differ() {
    let site = Site::new();
    let device = |name: &str, script: &str| {
        let list = site.program(&format!("list-{name}"), script);
        let device = site.recorder(name, "discover", "");
        device.replace("type = ", &format!("list = ['{list}']\ntype = "))
    };
    let elsewhere = site.recorder("elsewhere", "n9", "") + "nodes = 'n7'\n";
    let devices = device("good", "echo n1; echo n2") + &device("garbled", "echo '../x'");
    site.configure(&(devices + &device("lost", "exit 1") + &elsewhere));
    let _watcher = site.start();
    let code = |query: &str, device: &str| {
        let id = new_id();
        let query = json!({
            "query_id": id, "query": query, "device": device,
            "deadline_boottime_ms": boot_ms() + 60_000,
        });
        let queries = site.path("queries");
        fs::write(queries.join(".new.tmp"), query.to_string()).unwrap();
        fs::set_permissions(queries.join(".new.tmp"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(queries.join(".new.tmp"), queries.join(format!("{id}.json"))).unwrap();
        let answer = queries.join(format!("{id}.answer"));
        wait_for("an answer", || answer.exists());
        let answer: Value = serde_json::from_slice(&fs::read(answer).unwrap()).unwrap();
        (answer["code"].as_u64().unwrap(), answer["targets"].clone())
    };

    assert_eq!(code("targets", "good"), (0, json!(["n1", "n2"])));
    assert_eq!(code("targets", "lost"), (1, Value::Null));
    assert_eq!(code("targets", "garbled"), (2, Value::Null));
    for name in ["elsewhere", "nosuch"] {
        assert_eq!(code("targets", name).0, 3);
        assert_eq!(code("reachable", name).0, 3);
    }
    assert_eq!(code("reachable", "lost").0, 1);
    assert_eq!(code("reachable", "good").0, 0);
}

#[test]
fn a_device_without_a_list_does_not_hide_the_lists_of_the_others() {
    let site = Site::new();
    let listing = |name: &str, targets: &str, script: &str| {
        let list = site.program(&format!("list-{name}"), script);
        let device = site.recorder(name, targets, "");
        device.replace("type = ", &format!("list = ['{list}']\ntype = "))
    };
    let lost = listing("lost", "discover", "echo no route >&2; exit 1");
    let garbled = listing("garbled", "discover", "echo '../x'");
    let demo = site.simulated("demo", "").replace("'*'", "'n[1-2]'");
    site.configure(&[&*lost, &garbled, &demo, &listing("good", "discover", "echo n3")].concat());
    let watcher = site.start();
    let ask = |options: &str| site.agent(&format!("action={options}")).wait();

    for (options, listed) in [
        ("list", "n1\nn2\nn3\n"),
        ("list\nplug=n1", "n1\n"),
        ("list-status", "n1,,ON\nn2,,ON\nn3,,UNKNOWN\n"),
        ("list\ndevice=good", "n3\n"),
    ] {
        let ended = ask(options);
        ended.assert_success();
        assert_eq!(ended.stdout, listed, "{options}");
    }
    for name in ["lost", "garbled"] {
        watcher.await_log(&format!("fence device '{name}' gave no list of its targets"));
        let ended = ask(&format!("list\ndevice={name}"));
        ended.assert_failure(&[&format!("fence device '{name}'")]);
    }
    // An older client asks.
    let id = new_id();
    let mut question = request(&id, "list", "n1");
    question.as_object_mut().unwrap().remove("target_node");
    site.spool.submit(&id, &question);
    assert_eq!(site.spool.await_result(&id, "success")["message"], "n1\nn2\nn3");
    watcher.stop();

    site.configure(&(lost.clone() + &garbled));
    let watcher = site.start();
    ask("list").assert_failure(&["fence device 'lost'"]);
    watcher.stop();

    // A device that can fence any target without a list leaves no complete list: Pacemaker must ask
    // for each target.
    site.configure(&(demo + &site.recorder("any", "*", "")));
    let _watcher = site.start();
    ask("list").assert_failure(&["fence device 'any'"]);
}

#[test]
fn a_target_that_a_device_got_after_its_list_is_fenced_and_asked_for_its_state() {
    let site = Site::new();
    let list = site.program("list", "cat \"$(dirname \"$0\")/list.txt\"");
    fs::write(site.path("list.txt"), "n1\n").unwrap();
    let status = site.program("status", "exit 2");
    let device = site.recorder("chassis", "discover", "");
    let keys = format!("list = ['{list}']\nstatus = ['{status}']\ntype = ");
    site.configure(&device.replace("type = ", &keys));
    let _watcher = site.start();
    site.agent("action=off\nplug=n1").wait().assert_success();

    fs::write(site.path("list.txt"), "n1\nn2\nn3\n").unwrap();

    assert_eq!(site.agent("action=status\nplug=n3").wait().code, Some(2));
    site.agent("action=off\nplug=n2").wait().assert_success();
    site.agent("action=off\nplug=n2\ndevice=chassis").wait().assert_success();
    site.agent("action=off\nplug=n4").wait().assert_failure(&["covers this target"]);
}

#[test]
fn the_state_is_asked_of_the_device_that_a_fence_would_use() {
    let site = Site::new();
    let device = |name: &str, target: &str, state: &str| {
        let list = site.program(&format!("list-{name}"), &format!("echo {target}"));
        let status = site.program(&format!("status-{name}"), state);
        site.recorder(name, "discover", "")
            .replace("type = ", &format!("list = ['{list}']\nstatus = ['{status}']\ntype = "))
    };
    site.configure(&(device("first", "n1", "exit 0") + &device("second", "n2", "exit 2")));
    let _watcher = site.start();

    // The lists of these devices are requested when they are needed.
    let status = |target: &str| site.agent(&format!("action=status\nplug={target}")).wait().code;
    assert_eq!(status("n2"), Some(2));
    assert_eq!(status("n1"), Some(0));
    assert_eq!(status("n3"), Some(1), "no device covers it");
}

#[test]
fn a_monitor_fails_when_the_watcher_is_gone() {
    let (site, watcher) = simulated("");
    site.agent("action=monitor").wait().assert_success();

    watcher.crash();

    site.agent("action=monitor").wait().assert_failure(&["fence-watcher"]);
}
