//! A Redfish service with the answers of a test, and devices and orders for it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use fence_core::PerTarget;
use fence_core::execution::{Order, OrderReport};
use fence_device::{
    Client, Limit, Pin, RedfishDevice, RedfishLogin, RedfishSettings, RedfishTrust,
};

use super::{Directory, give, long, node};

pub const SYSTEMS: &str = "GET /redfish/v1/Systems";
pub const ONE: &str = "GET /redfish/v1/Systems/1";
pub const TWO: &str = "GET /redfish/v1/Systems/2";
pub const RESET: &str = "POST /redfish/v1/Systems/1/Reset";

/// A service that answers each request (`METHOD PATH`) with the next of its answers; it repeats the
/// last one. It closes each connection after the answer, without announcing this.
pub struct Bmc {
    pub address: String,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Bmc {
    pub fn start(answers: &[(&str, &[String])]) -> Self {
        Self::start_with(answers, |_| {})
    }

    /// The same; `before` runs before each answer.
    pub fn start_with(
        answers: &[(&str, &[String])],
        mut before: impl FnMut(&str) + Send + 'static,
    ) -> Self {
        let answers: HashMap<String, Vec<String>> =
            answers.iter().map(|(what, all)| ((*what).to_owned(), all.to_vec())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let Some((what, head)) = request(&connection) else { continue };
                let count = {
                    let mut seen = seen.lock().unwrap();
                    let count =
                        seen.iter().filter(|one: &&String| one.starts_with(&format!("{what}\n")));
                    let count = count.count();
                    seen.push(format!("{what}\n{head}"));
                    count
                };
                before(&what);
                let all = answers.get(&what);
                let answer = all.map(|all| &all[count.min(all.len() - 1)]);
                let answer = answer.cloned().unwrap_or_else(|| answer_of("404 No", "{}"));
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        Bmc { address, asked }
    }

    /// The requests that it received, each as `METHOD PATH`.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|one| one.split('\n').next().unwrap().to_owned()).collect()
    }

    pub fn count(&self, what: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == what).count()
    }

    pub fn orders(&self) -> usize {
        self.asked().iter().filter(|asked| asked.starts_with("POST ")).count()
    }
}

/// A request as it was read.
pub struct Asked {
    /// Its first line.
    pub first: String,
    /// The other lines of its head.
    pub head: String,
    pub body: String,
}

/// The request on a connection; `None` if the connection brings none.
pub fn read_request(connection: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(connection);
    let mut line = || {
        let mut line = String::new();
        let count = reader.read_line(&mut line).ok()?;
        (count > 0).then_some(line)
    };
    let first = line()?;
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let line = line()?;
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Asked { first: first.trim_end().to_owned(), head, body })
}

/// `METHOD PATH` of a request, and the whole request without its body in small letters.
pub fn request(connection: &TcpStream) -> Option<(String, String)> {
    let Asked { first, head, body } = read_request(connection)?;
    let words: Vec<&str> = first.split(' ').collect();
    let what = format!("{} {}", words[0], words[1]);
    Some((what, format!("{first}\r\n{head}").to_lowercase() + &body))
}

pub fn answer_of(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub fn with(status: &str, header: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{header}\r\nContent-Length: {length}\r\n\r\n{body}")
}

pub fn ok(body: &str) -> String {
    answer_of("200 OK", body)
}

/// A system in this state, with these members of its action.
pub fn system(power: &str, action: &str) -> String {
    let action = format!(r#"{{"target": "/redfish/v1/Systems/1/Reset"{action}}}"#);
    ok(&format!(
        r##"{{"@odata.id": "/redfish/v1/Systems/1", "Id": "1", "PowerState": "{power}",
            "Actions": {{"#ComputerSystem.Reset": {action}}}}}"##
    ))
}

pub fn allowing(types: &str) -> String {
    format!(r#", "ResetType@Redfish.AllowableValues": {types}"#)
}

pub fn list(members: &[&str]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|id| format!(r#"{{"@odata.id": "/redfish/v1/Systems/{id}"}}"#))
        .collect();
    ok(&format!(r#"{{"Members": [{}]}}"#, members.join(", ")))
}

pub fn settings(directory: &Directory, address: &str, system: Option<&str>) -> RedfishSettings {
    RedfishSettings {
        address: PerTarget::Pattern(address.into()),
        system: system.map(|system| PerTarget::Pattern(system.into())),
        known_targets: [node()].into(),
        username: "admin".into(),
        password: directory.password("s3cret"),
        login: RedfishLogin::Basic,
        trust: RedfishTrust::Insecure,
        is_cycled: false,
    }
}

pub fn device(directory: &Directory, bmc: &Bmc) -> RedfishDevice {
    RedfishDevice::new(settings(directory, &bmc.address, Some("/redfish/v1/Systems/1")))
}

pub fn order_for(
    device: &RedfishDevice,
    order: Order,
    client: Option<&Client>,
    limit: Limit,
) -> OrderReport {
    give(device, order, &Pin::default(), client, limit)
}

pub fn order(bmc: &Bmc, order: Order) -> OrderReport {
    order_for(&device(&Directory::new(), bmc), order, None, long())
}

pub fn assert_text(text: &str, words: &str) {
    assert!(text.contains(words), "no {words:?}: {text}");
}

pub fn assert_acknowledged(report: &OrderReport, words: &str) {
    let OrderReport::Acknowledged(text) = report else { panic!("{report:?}") };
    assert_text(text, words);
}

pub fn assert_unacknowledged(report: &OrderReport, words: &str) {
    let OrderReport::Unacknowledged(text) = report else { panic!("{report:?}") };
    assert_text(text, words);
}
