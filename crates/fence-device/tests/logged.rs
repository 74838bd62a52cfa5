//! What the drivers write into a log at its finest level: each program and each HTTP call, and no secret,
//! whatever a device says.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::thread;

use common::Directory;
use fence_core::PerTarget;
use fence_core::execution::Order;
use fence_device::{
    Ec2Device, Ec2Settings, FenceAgentDevice, FenceAgentSettings, FenceDevice, IpmiDevice,
    IpmiPrivilege, IpmiSettings, Job, Limit, Pin, RedfishDevice, RedfishLogin, RedfishSettings,
    RedfishTrust, SecretSource, Subject,
};
use fence_protocol::{FenceAction, NodeName};
use log::{LevelFilter, Log, Metadata, Record};

const PASSWORD: &str = "s3cret";

/// Everything that was logged.
struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("fence_")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn node() -> NodeName {
    "n1".parse().unwrap()
}

fn password(directory: &Directory) -> SecretSource {
    let path = directory.path("password");
    fs::write(&path, PASSWORD).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    SecretSource::File(path)
}

/// Everything that a device can be asked and told; gives what it says.
fn use_all(device: &dyn FenceDevice) -> String {
    let limit = || Limit::in_ms(20_000);
    let request_id = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    let job = Job {
        target: &node(),
        action: FenceAction::Off,
        request_id: &request_id,
        pin: &Pin::default(),
        gfs2_filesystems: &[],
        request_json: b"{}",
        client: None,
    };
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        device.order(Order::Off, &job, limit()),
        device.power(&node(), &Pin::default(), limit()),
        device.reachable(limit()),
        device.targets(limit()),
        device.unknown_targets(limit()),
        device.check(),
    )
}

/// A service that gives a session, and repeats its password and its token in all that it says.
fn service(token: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut lines = BufReader::new(&connection).lines().map(Result::unwrap);
            let first = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let (status, body) = match first.split(' ').collect::<Vec<_>>()[..] {
                ["POST", path, _] if path.ends_with("/Sessions") => ("201 Yes", "{}".to_owned()),
                ["GET", "/redfish/v1/Systems/1", _] => ("307 There", String::new()),
                _ => ("400 No", format!(r#"{{"error": {{"message": "{PASSWORD} {token}"}}}}"#)),
            };
            let _ = write!(
                connection,
                "HTTP/1.1 {status}\r\nX-Auth-Token: {token}\r\nLocation: /x/{token}/{PASSWORD}\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}

/// A device of each type that has a secret.
fn devices(directory: &Directory) -> Vec<Box<dyn FenceDevice>> {
    let executor = directory.executor();
    let targets: BTreeSet<NodeName> = [node()].into();
    let agent = FenceAgentDevice::new(
        FenceAgentSettings {
            agent: directory.script("agent", "cat; cat >&2; exit 1"),
            options: BTreeMap::new(),
            secrets: [("password".to_owned(), password(directory))].into(),
            env: BTreeMap::new(),
            plug: PerTarget::Pattern("{target}".into()),
            plug_option: Some("plug".into()),
            targets: targets.clone(),
            actions: None,
            needed: BTreeSet::new(),
        },
        executor.clone(),
    );
    let ipmi = IpmiDevice::new(
        IpmiSettings {
            address: PerTarget::Pattern("127.0.0.1".into()),
            known_targets: targets.clone(),
            username: "fence".into(),
            password: password(directory),
            cipher: 17,
            privilege: IpmiPrivilege::Operator,
            program: directory.script("ipmitool", "echo $IPMI_PASSWORD; env >&2; exit 1"),
        },
        executor.clone(),
    );
    let redfish = |login, token| {
        RedfishDevice::new(RedfishSettings {
            address: PerTarget::Pattern(service(token)),
            system: Some(PerTarget::Pattern("/redfish/v1/Systems/1".into())),
            known_targets: targets.clone(),
            username: "admin".into(),
            password: password(directory),
            login,
            trust: RedfishTrust::Insecure,
            is_cycled: false,
        })
    };
    let helper = format!(
        "printf '%s\\n' '{{\"outcome\":\"Failed\",\"text\":\"no {PASSWORD}\",\"names\":[],\"instance\":null,\
         \"calls\":[\"POST \\u0002{PASSWORD}\\u0003 status 400\"]}}'"
    );
    let ec2 = Ec2Device::new(
        Ec2Settings {
            access_key: Some(("AKID".into(), password(directory))),
            ..ec2_settings(directory.script("ec2", &helper))
        },
        executor,
    );
    vec![
        Box::new(agent),
        Box::new(ipmi),
        Box::new(redfish(RedfishLogin::Basic, "none")),
        Box::new(redfish(RedfishLogin::Session, "t0ken")),
        Box::new(ec2),
    ]
}

#[test]
fn each_program_and_each_call_is_logged_and_no_secret() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let directory = Directory::new();
    for device in devices(&directory) {
        let said = Subject::new("request", "r-1").within(|| use_all(device.as_ref()));
        for secret in [PASSWORD, "t0ken", "YWRtaW46czNjcmV0"] {
            assert!(!said.contains(secret), "{said}");
        }
        assert!(said.contains("***"), "{said}");
    }

    let lines = LINES.0.lock().unwrap().join("\n");
    for secret in [PASSWORD, "t0ken", "YWRtaW46czNjcmV0"] {
        assert!(!lines.contains(secret), "{lines}");
    }
    for line in lines.lines().filter(|line| line.starts_with("program ") || line.contains("HTTP: "))
    {
        assert!(line.contains(": request=r-1 "), "{line}");
    }
    for line in ["/agent (an order, ", "/ipmitool -I lanplus", "/ec2 (a question, ", "exit code 1"]
    {
        assert!(lines.contains(line), "{line}: {lines}");
    }
    for line in [
        "GET http://127.0.0.1:",
        "/redfish/v1/Systems/1 at 127.0.0.1:",
        ": status 307 after ",
        "/x/***/*** at 127.0.0.1:",
        "POST http://127.0.0.1:",
        "DELETE http://127.0.0.1:",
        "HTTP: request=r-1 POST *** status 400",
    ] {
        assert!(lines.contains(line), "{line}: {lines}");
    }
}

fn ec2_settings(helper: String) -> Ec2Settings {
    Ec2Settings {
        helper: helper.into(),
        instance: PerTarget::Pattern("i-1".into()),
        tag: "Name".into(),
        region: None,
        endpoint: None,
        profile: None,
        access_key: None,
        skip_os_shutdown: false,
    }
}
