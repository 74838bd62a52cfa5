//! The drivers' log at its finest level: each program and each HTTP call, and no secret, whatever a
//! device answers.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::thread;

use common::{Directory, agents, bmc, ec2_settings, ipmi_settings, long, node, order_in};
use fence_core::execution::Order;
use fence_device::{
    Ec2Device, Ec2Settings, FenceAgentDevice, FenceAgentSettings, FenceDevice, IpmiDevice, Pin,
    RedfishDevice, RedfishLogin, RedfishSettings, Subject,
};
use log::{LevelFilter, Log, Metadata, Record};

const PASSWORD: &str = "s3cret";

/// The complete log.
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

/// Every order and question for a device; returns the results.
fn use_all(device: &dyn FenceDevice) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        order_in(&Pin::default(), device, Order::Off, long()),
        device.power(&node(), &Pin::default(), long()),
        device.reachable(long()),
        device.targets(long()),
        device.unknown_targets(long()),
        device.check(),
    )
}

/// A service that opens a session, and repeats its password and its token in all its answers.
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
    let agent = FenceAgentDevice::new(
        FenceAgentSettings {
            secrets: [("password".to_owned(), directory.password(PASSWORD))].into(),
            plug_option: Some("plug".into()),
            targets: [node()].into(),
            needed: BTreeSet::new(),
            ..agents::settings(directory.script("agent", "cat; cat >&2; exit 1"))
        },
        executor.clone(),
    );
    let ipmitool = directory.script("ipmitool", "echo $IPMI_PASSWORD; env >&2; exit 1");
    let ipmi = IpmiDevice::new(ipmi_settings(directory, ipmitool), executor.clone());
    let redfish = |login, token| {
        let settings = bmc::settings(directory, &service(token), Some("/redfish/v1/Systems/1"));
        RedfishDevice::new(RedfishSettings { login, ..settings })
    };
    let helper = format!(
        "printf '%s\\n' '{{\"outcome\":\"Failed\",\"text\":\"no \
         {PASSWORD}\",\"names\":[],\"instance\":null,\"calls\":[\"POST \\u0002{PASSWORD}\\u0003 \
         status 400\"]}}'"
    );
    let ec2 = Ec2Device::new(
        Ec2Settings {
            access_key: Some(("AKID".into(), directory.password(PASSWORD))),
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
    for line in
        ["/agent (an order, ", "/ipmitool -I lanplus", "/ec2 (a question, ", "exited with 1"]
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
