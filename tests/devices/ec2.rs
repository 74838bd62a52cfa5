//! `type = "ec2"` against moto, which simulates EC2, STS and the metadata service, checks
//! signatures and permissions, and logs each order that it executes; and through microburst, which
//! makes calls fail.
//!
//! Both need much time, so one test uses them for everything, each part with its own instances.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use serde_json::json;

use crate::common::{Site, names, output_of, wait_for};
use crate::sim::free_ports;

pub(crate) mod rig;

use rig::*;

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn instances_of_ec2_are_fenced_and_each_failure_is_reported_correctly() {
    let aws = Aws::start();

    each_order_is_carried_out_once_and_each_question_is_answered(&aws);
    credentials_come_from_wherever_aws_keeps_them(&aws);
    the_endpoint_has_to_show_who_it_is(&aws);
    who_is_not_allowed_does_nothing(&aws);
    exactly_one_instance_is_fenced_or_none(&aws);
    the_secret_is_nowhere_to_be_seen(&aws);

    // The proxy invalidates the signatures.
    aws.check_signatures(false);
    what_is_not_reached_is_told_nothing(&aws);
    a_throttled_order_is_sent_again_until_it_is_carried_out_once(&aws);
    an_order_whose_answer_is_lost_is_sent_once_and_looked_into(&aws);
    what_is_refused_or_only_said_is_no_success(&aws);
    a_tag_that_moves_to_another_instance_confirms_nothing(&aws);
    the_metadata_service_gives_region_and_credentials(&aws);
}

fn each_order_is_carried_out_once_and_each_question_is_answered(aws: &Aws) {
    let (site, _watcher) = site(&device("targets = 'node[1-2]'"), &aws.environment());
    let ask = |action: &str| site.agent(&format!("action={action}")).wait();

    assert_usable(&site);
    assert_eq!(ask("list").stdout, "node1\nnode2\n");
    assert_eq!(status(&site, "node1"), Some(0));
    // Stopping takes a second: a driver that took `stopping` for off would be too early.
    assert_fences(&site, "off", "node1", &["the device shows it", "from running to stopping"]);
    assert_eq!(status(&site, "node1"), Some(2));
    // A node that is off is fenced like any other.
    assert_fences(&site, "off", "node1", &["from stopped"]);
    assert_fences(&site, "on", "node1", &["StartInstances i-", "from stopped to pending"]);
    assert_eq!(status(&site, "node1"), Some(0));
    assert_fences(&site, "reboot", "node1", &["off: the device shows it"]);
    site.assert_on_result(&site.last_request(), "on");
    assert_eq!(status(&site, "node1"), Some(0));
    assert_eq!(aws.executed("node1"), ["stop", "stop", "start", "stop", "start"]);
    assert!(aws.executed("node2").is_empty());
}

fn credentials_come_from_wherever_aws_keeps_them(aws: &Aws) {
    let files = Site::new();
    let (id, secret) = &aws.key;
    let config = private_file(
        &files,
        "config",
        &format!(
            "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/fencing\nsource_profile = keys\n\
             [profile process]\ncredential_process = /bin/sh {}\n",
            files.path("process").display()
        ),
    );
    let keys = format!("aws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    let credentials =
        private_file(&files, "credentials", &format!("[default]\n{keys}[keys]\n{keys}"));
    let members = json!({ "Version": 1, "AccessKeyId": id, "SecretAccessKey": secret });
    private_file(&files, "process", &format!("echo '{members}'"));
    private_file(&files, "key", secret);
    let at = files.path("key").display().to_string();
    let with = |more: &[(&'static str, &str)]| {
        let mut environment = aws.environment().split_off(2);
        environment.push(("AWS_CONFIG_FILE", config.clone()));
        environment.push(("AWS_SHARED_CREDENTIALS_FILE", credentials.clone()));
        environment.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        environment
    };
    let keyed = |more: &str| device(&format!("targets = 'node1'\n{more}"));

    assert_reachable(&keyed(""), &aws.environment());
    assert_reachable(&keyed(""), &with(&[]));
    assert_reachable(&keyed(""), &with(&[("AWS_PROFILE", "role")]));
    assert_reachable(&keyed("profile = 'keys'"), &with(&[]));
    assert_reachable(&keyed("profile = 'role'"), &with(&[]));
    assert_reachable(&keyed("profile = 'process'"), &with(&[]));
    let own = format!("access_key = '{id}'\nsecret_key_file = '{at}'");
    let url = aws.url();
    let own = keyed(&format!("{own}\nregion = 'us-east-1'\nendpoint = '{url}'"));
    assert_reachable(&own, &[]);
    let of_variable = format!("access_key = '{id}'\nsecret_key_env = 'KEY'");
    assert_reachable(&keyed(&of_variable), &with(&[("KEY", secret)]));
    // EC2's own endpoint overrides the one for all services, and the device's endpoint overrides
    // both.
    assert_reachable(
        &keyed(""),
        &with(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ENDPOINT_URL_EC2", &url)]),
    );
    assert_reachable(&own, &[("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:1".to_owned())]);

    // The environment does not override the configuration.
    let elsewhere = [("AWS_ACCESS_KEY_ID", id.as_str()), ("AWS_SECRET_ACCESS_KEY", secret)];
    assert_unreachable(&keyed("profile = 'none'"), &with(&elsewhere), "`none` was not defined");
    let nothing = aws.environment().split_off(2);
    assert_unreachable(&keyed(""), &nothing, "there are no credentials for AWS");
    let no_region = &with(&[])[1..];
    assert_unreachable(
        &keyed(""),
        &[no_region, &[("AWS_REGION", String::new())]].concat(),
        "no region",
    );
    fs::set_permissions(files.path("credentials"), PermissionsExt::from_mode(0o644)).unwrap();
    assert_unreachable(&keyed(""), &with(&[]), "others can read the keys in '");
}

fn the_endpoint_has_to_show_who_it_is(aws: &Aws) {
    let (id, secret) = &aws.key;
    let mut environment = Aws::environment_of(id, secret, aws.tls_url());
    let certificate = aws.moto.directory().join("ca.pem").display().to_string();

    assert_unreachable(&device("targets = 'node1'"), &environment, "certificate");
    environment.push(("SSL_CERT_FILE", certificate));
    assert_reachable(&device("targets = 'node1'"), &environment);
}

fn who_is_not_allowed_does_nothing(aws: &Aws) {
    let environment = Aws::environment_of(&aws.key.0, "not+the/secret", aws.url());
    let (wrong, _watcher) = site(&device("targets = 'node3'"), &environment);
    assert_fails(&wrong, "off", "node3", FAILED, &["AuthFailure"]);
    assert_unusable(&wrong, "aws", "AuthFailure");
    assert_eq!(status(&wrong, "node3"), Some(1));

    let looker = fs::read_to_string(aws.moto.directory().join("looker")).unwrap();
    let (id, secret) = looker.trim().split_once(' ').unwrap();
    let environment = Aws::environment_of(id, secret, aws.url());
    let (looking, _watcher) = site(&device("targets = 'node3'"), &environment);
    assert_fails(&looking, "off", "node3", FAILED, &["StopInstances i-", "not authorized"]);
    assert_eq!(status(&looking, "node3"), Some(0));
    assert!(aws.executed("node3").is_empty());
}

fn exactly_one_instance_is_fenced_or_none(aws: &Aws) {
    aws.check_signatures(false);
    let (first, second) = (aws.id_of("node4"), aws.id_of("node5"));
    aws.call(&format!("Action=CreateTags&ResourceId.1={second}&Tag.1.Key=Name&Tag.1.Value=node4"));
    let gone = aws.id_of("node6");
    aws.call(&format!("Action=TerminateInstances&InstanceId.1={gone}"));
    aws.call(&format!("Action=CreateTags&ResourceId.1={first}&Tag.1.Key=role&Tag.1.Value=db-1"));
    aws.check_signatures(true);

    let (by_name, _watcher) = site(&device("targets = 'node[4-6],nosuch'"), &aws.environment());
    let both =
        format!("2 instances have the tag Name=node4, one is needed: {first} (running), {second}");
    assert_fails(&by_name, "off", "node4", FAILED, &[&both]);
    assert_fails(&by_name, "off", "nosuch", FAILED, &["no instance has the tag Name=nosuch"]);
    // No running instance has its name.
    assert_fences(&by_name, "off", "node6", &[&gone, "terminated"]);
    assert_eq!(status(&by_name, "node6"), Some(2));
    assert!(aws.executed("node4").is_empty() && aws.executed("node5").is_empty());

    let unknown = "i-0123456789abcdef0";
    let by_id = format!("targets = {{ a = '{second}', b = '{gone}', c = '{unknown}' }}");
    let (by_id, _watcher) = site(&device(&by_id), &aws.environment());
    assert_fences(&by_id, "off", "a", &[&second]);
    assert_eq!(aws.executed("node5"), ["stop"]);
    // An instance id never changes.
    assert_eq!(status(&by_id, "b"), Some(2));
    assert_fails(&by_id, "off", "c", FAILED, &["InvalidInstanceID.NotFound"]);

    let discovering = "targets = 'discover'\ntag = 'role'\ninstance = 'db-{target}'";
    let (discovering, _watcher) = site(&device(discovering), &aws.environment());
    assert_eq!(discovering.agent("action=list").wait().stdout, "1\n");
    assert_fences(&discovering, "off", "1", &[&first]);
    assert_eq!(aws.executed("node4"), ["stop"]);
}

fn the_secret_is_nowhere_to_be_seen(aws: &Aws) {
    let (id, secret) = &aws.key;
    let files = Site::new();
    let at = private_file(&files, "key", secret);
    let own = device(&format!(
        "targets = 'node7'\naccess_key = '{id}'\nsecret_key_file = '{at}'\nregion = 'us-east-1'\n\
         endpoint = '{}'",
        aws.url()
    ));
    let (site, watcher) = site(&own, &[]);
    let agent = site.agent("action=off\nplug=node7");
    let mut seen = Vec::new();
    wait_for("the program at work", || {
        for pid in names(Path::new("/proc")) {
            let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            if line.contains("fence-watcher-ec2") {
                seen.push(line);
                seen.push(String::from_utf8_lossy(&read("environ")).into_owned());
            }
        }
        !seen.is_empty()
    });
    agent.wait().assert_success();
    seen.extend([
        format!("{:?}", output_of(&mut site.watcher_command(&["status"]))),
        watcher.log(),
    ]);
    seen.extend([site.state().to_string(), format!("{:?}", check(&own, &[]))]);
    for directory in ["log", "responses", "requests", "."] {
        for name in names(&site.path(directory)) {
            seen.push(site.read(&format!("{directory}/{name}")));
        }
    }
    assert!(seen.iter().any(|text| text.contains("\"result\":\"success\"")), "{seen:?}");
    for text in seen {
        assert!(!text.contains(secret), "{text}");
    }
}

fn what_is_not_reached_is_told_nothing(aws: &Aws) {
    let nobody = format!("http://127.0.0.1:{}", free_ports(1));
    let environment = Aws::environment_of(&aws.key.0, &aws.key.1, nobody);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let devices = [
        device("targets = 'node8'\ntimeout = '2s'"),
        format!("{}endpoint = '{silent}'\n", device("targets = 'node8'\ntimeout = '2s'"))
            .replace("'aws'", "'silent'"),
    ];
    let (site, _watcher) = site(&devices.concat(), &environment);

    for (name, words) in [("aws", "Connection refused"), ("silent", "no answer from http")] {
        let ended = site.agent(&format!("action=off\nplug=node8\ndevice={name}")).wait();
        ended.assert_failure(&["unreachable", words]);
        assert_unusable(&site, name, words);
    }

    let (site, _watcher) =
        self::site(&device("targets = 'node8'\ntimeout = '3s'"), &aws.environment_with_faults());
    aws.fault("DescribeInstances", &json!({ "reset": true }));
    assert_fails(&site, "off", "node8", UNREACHABLE, &["no whole answer from"]);
    aws.fault("DescribeInstances", &json!({ "timeout_ms": 30_000 }));
    assert_fails(&site, "off", "node8", UNREACHABLE, &["no answer from"]);
    let error = json!({ "error": { "code": "InternalError", "status": 500 } });
    aws.fault("DescribeInstances", &error);
    assert_fails(&site, "off", "node8", UNREACHABLE, &["InternalError"]);
    assert!(aws.executed("node8").is_empty());

    let twice = json!({ "times": 2, "error": { "code": "InternalError", "status": 500 } });
    aws.fault("DescribeInstances", &twice);
    assert_fences(&site, "off", "node8", &[]);
    assert_eq!(aws.executed("node8"), ["stop"]);
}

fn a_throttled_order_is_sent_again_until_it_is_carried_out_once(aws: &Aws) {
    let more = "targets = 'node9'\ntimeout = '4s'";
    let (site, _watcher) = site(&device(more), &aws.environment_with_faults());
    let error = json!({ "code": "RequestLimitExceeded", "status": 503 });

    let before = aws.fired();
    aws.fault("StopInstances", &json!({ "error": error }));
    let words = ["RequestLimitExceeded", "not carried out"];
    assert_fails(&site, "off", "node9", UNREACHABLE, &words);
    assert!(aws.fired() > before + 1);
    assert!(aws.executed("node9").is_empty());

    let before = aws.fired();
    aws.fault("StopInstances", &json!({ "error": error, "times": 2 }));
    assert_fences(&site, "off", "node9", &["from running to stopping"]);
    assert_eq!(aws.fired(), before + 2);
    assert_eq!(aws.executed("node9"), ["stop"]);
}

fn an_order_whose_answer_is_lost_is_sent_once_and_looked_into(aws: &Aws) {
    let more = "targets = 'node[10-11]'\ntimeout = '3s'";
    let (site, _watcher) = site(&device(more), &aws.environment_with_faults());

    for fault in [
        json!({ "reset": true }),
        json!({ "timeout_ms": 30_000 }),
        json!({ "error": { "code": "InternalError", "status": 500 } }),
    ] {
        let before = aws.fired();
        aws.fault("StopInstances", &fault);
        assert_fails(&site, "off", "node10", UNACKNOWLEDGED, &["not acknowledged"]);
        assert_eq!(aws.fired(), before + 1, "{fault}");
        assert!(aws.executed("node10").is_empty());
    }

    let before = aws.fired();
    aws.fault("StopInstances", &json!({ "response": { "abort_frac": 0.3 } }));
    assert_fences(&site, "off", "node11", &["learned by asking", "no whole answer from"]);
    assert_eq!(aws.fired(), before + 1);
    assert_eq!(aws.executed("node11"), ["stop"]);
}

fn what_is_refused_or_only_said_is_no_success(aws: &Aws) {
    let more = "targets = 'node[11-12]'\ntimeout = '3s'";
    let (site, _watcher) = site(&device(more), &aws.environment_with_faults());
    aws.fault("none", &json!({ "reset": true }));

    let lie = aws.moto.directory().join("lie");
    fs::write(&lie, "").unwrap();
    let words = ["acknowledged, but not confirmed"];
    assert_fails(&site, "off", "node12", UNACKNOWLEDGED, &words);
    fs::remove_file(&lie).unwrap();
    assert!(aws.executed("node12").is_empty());

    let error = json!({ "error": { "code": "OperationNotPermitted", "status": 400 } });
    aws.fault("StopInstances", &error);
    assert_fails(&site, "off", "node12", FAILED, &["OperationNotPermitted"]);
    assert!(aws.executed("node12").is_empty());

    // The cluster waits only for the off.
    let error = json!({ "error": { "code": "InsufficientInstanceCapacity", "status": 500 } });
    aws.fault("StartInstances", &error);
    assert_fences(&site, "reboot", "node12", &["off: the device shows it"]);
    let (result, details) = site.await_on_result(&site.last_request());
    assert!(result == "not confirmed" && details.contains("Insufficient"), "{result}: {details}");
    assert_eq!(aws.executed("node12"), ["stop"]);

    let error = json!({ "error": { "code": "IncorrectInstanceState", "status": 400 } });
    aws.fault("StartInstances", &error);
    assert_fails(&site, "on", "node12", UNACKNOWLEDGED, &["IncorrectInstanceState"]);
}

fn a_tag_that_moves_to_another_instance_confirms_nothing(aws: &Aws) {
    let more = "targets = 'node12'\ntimeout = '6s'";
    let (site, _watcher) = site(&device(more), &aws.environment());
    let (ordered, off) = (aws.id_of("node12"), aws.id_of("node11"));
    assert_fences(&site, "on", "node12", &[&ordered]);
    let tag = |id: &str, name: &str| {
        aws.call(&format!("Action=CreateTags&ResourceId.1={id}&Tag.1.Key=Name&Tag.1.Value={name}"));
    };
    // The order is accepted and not carried out.
    let lie = aws.moto.directory().join("lie");
    fs::write(&lie, "").unwrap();
    let before = aws.lies_about(&ordered);

    thread::scope(|scope| {
        scope.spawn(|| {
            wait_for("the order", || aws.lies_about(&ordered) > before);
            tag(&ordered, "other");
            tag(&off, "node12");
        });
        let words = ["acknowledged, but not confirmed: the device showed on", &*ordered];
        assert_fails(&site, "off", "node12", UNACKNOWLEDGED, &words);
    });

    // A separate question uses the tag.
    assert_eq!(status(&site, "node12"), Some(2));
    fs::remove_file(&lie).unwrap();
    tag(&off, "node11");
    tag(&ordered, "node12");
}

fn the_metadata_service_gives_region_and_credentials(aws: &Aws) {
    let metadata = |url: String| {
        vec![
            ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url),
            ("AWS_ENDPOINT_URL", aws.url()),
        ]
    };
    let log = || fs::read_to_string(aws.moto.directory().join("log")).unwrap();
    assert_reachable(&device("targets = 'node1'"), &metadata(aws.url()));
    assert!(log().contains("PUT /latest/api/token HTTP/1.1\" 200"), "{}", log());
    assert!(log().contains("/iam/security-credentials/default-role HTTP/1.1\" 200"), "{}", log());

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    assert_unreachable(&device("targets = 'node1'"), &metadata(silent), "instance metadata");
}
