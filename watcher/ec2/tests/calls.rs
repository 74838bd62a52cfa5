//! The program against an EC2 of our own that answers as it is told: what is repeated, and what
//! never is.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use fence_device::{Ec2Answer, Ec2Ask, Ec2Call, Ec2Outcome, Limit};

const ID: &str = "i-0000000000000000a";

/// What a call is answered: the status and the body.
type Reply = (u16, String);

/// An EC2 that knows the instance [`ID`].
struct Ec2 {
    endpoint: String,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Ec2 {
    /// Each call goes through `answer`, with how often the same was asked before; `None` is done.
    fn start(
        state: &'static str,
        answer: impl Fn(&str, usize) -> Option<Reply> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        thread::spawn(move || {
            for connection in listener.incoming() {
                serve(connection.unwrap(), |form| {
                    let call = name_of(form);
                    let before =
                        seen.lock().unwrap().iter().filter(|other| **other == call).count();
                    seen.lock().unwrap().push(call.clone());
                    answer(&call, before).unwrap_or_else(|| done(&call, state))
                });
            }
        });
        Ec2 { endpoint, calls }
    }

    fn ask(&self, ask: Ec2Ask, limit_ms: u64) -> Ec2Answer {
        let call = Ec2Call {
            ask,
            instance: ID.to_owned(),
            tag: "Name".to_owned(),
            region: Some("eu-central-1".to_owned()),
            endpoint: Some(self.endpoint.clone()),
            profile: None,
            access_key: Some(("AKIA".to_owned(), "secret".to_owned())),
            skip_os_shutdown: true,
            limit: Limit::in_ms(limit_ms),
            client: None,
        };
        let mut program = Command::new(env!("CARGO_BIN_EXE_fence-watcher-ec2"))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        program.stdin.take().unwrap().write_all(&serde_json::to_vec(&call).unwrap()).unwrap();
        let output = program.wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

/// The action of a form, with `(dry)` where nothing is to be done.
fn name_of(form: &str) -> String {
    let value = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name));
    let dry = if value("DryRun=") == Some("true") { " (dry)" } else { "" };
    format!("{}{dry}", value("Action=").unwrap())
}

fn done(call: &str, state: &str) -> Reply {
    if call.ends_with("(dry)") {
        return error(412, "DryRunOperation");
    }
    let body = if call == "DescribeInstances" {
        format!(
            "<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>{ID}\
             </instanceId><instanceState><name>{state}</name></instanceState></item></instancesSet>\
             </item></reservationSet></DescribeInstancesResponse>"
        )
    } else {
        format!(
            "<{call}Response><instancesSet><item><instanceId>{ID}</instanceId><currentState>\
             <name>new</name></currentState></item></instancesSet></{call}Response>"
        )
    };
    (200, body)
}

fn error(status: u16, code: &str) -> Reply {
    let error = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
    (status, format!("<Response><Errors>{error}</Errors></Response>"))
}

fn serve(mut connection: TcpStream, answer: impl FnOnce(&str) -> Reply) {
    let (status, body) = answer(&form_of(&connection));
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
    write!(connection, "{head}Connection: close\r\n\r\n{body}").unwrap();
}

/// What the next call says.
fn form_of(connection: &TcpStream) -> String {
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut form = vec![0; length];
    reader.read_exact(&mut form).unwrap();
    String::from_utf8(form).unwrap()
}

#[test]
fn an_order_that_came_too_fast_is_given_again_and_one_that_may_have_been_done_is_not() {
    for code in ["ThrottledException", "SlowDown", "PriorRequestNotComplete"] {
        let once = move |call: &str, before| {
            (call == "StopInstances" && before == 0).then(|| error(400, code))
        };
        let ec2 = Ec2::start("running", once);
        let answer = ec2.ask(Ec2Ask::Off, 60_000);
        assert_eq!(answer.outcome, Ec2Outcome::Done, "{code}: {}", answer.text);
        assert_eq!(ec2.calls(), ["DescribeInstances", "StopInstances", "StopInstances"]);
    }
    for (status, code) in [(503, "ServiceUnavailable"), (400, "RequestTimeout"), (500, "New")] {
        let ec2 = Ec2::start("running", move |call, _| {
            (call == "StopInstances").then(|| error(status, code))
        });
        let answer = ec2.ask(Ec2Ask::Off, 60_000);
        assert_eq!(answer.outcome, Ec2Outcome::Unclear, "{code}: {}", answer.text);
        assert_eq!(ec2.calls(), ["DescribeInstances", "StopInstances"], "{code}");
    }
}

#[test]
fn an_order_that_is_never_let_through_did_not_reach_ec2() {
    for throttled in ["StopInstances", "DescribeInstances"] {
        let ec2 = Ec2::start("running", move |call, _| {
            (call == throttled).then(|| error(503, "RequestThrottledException"))
        });
        let answer = ec2.ask(Ec2Ask::Off, 3_000);
        assert_eq!(answer.outcome, Ec2Outcome::Unreachable, "{throttled}: {}", answer.text);
        assert!(ec2.calls().iter().filter(|call| *call == throttled).count() > 1);
    }
}

#[test]
fn a_question_is_repeated_while_its_refusal_may_pass() {
    for (status, code) in [(400, "RequestTimeout"), (503, "Unavailable"), (400, "SlowDown")] {
        let ec2 =
            Ec2::start("stopped", move |_, before| (before == 0).then(|| error(status, code)));
        let answer = ec2.ask(Ec2Ask::Power, 60_000);
        assert_eq!(answer.outcome, Ec2Outcome::Off, "{code}: {}", answer.text);
        assert_eq!(ec2.calls().len(), 2, "{code}");
    }
}

#[test]
fn a_terminated_instance_is_off_without_an_order() {
    let ec2 = Ec2::start("terminated", |_, _| None);
    assert_eq!(ec2.ask(Ec2Ask::Off, 60_000).outcome, Ec2Outcome::Unclear);
    assert_eq!(ec2.ask(Ec2Ask::Power, 60_000).outcome, Ec2Outcome::Off);
    assert_eq!(ec2.calls(), ["DescribeInstances", "DescribeInstances"]);
}

#[test]
fn a_rehearsal_finds_what_an_order_would_lack_and_changes_nothing() {
    let orders = ["StartInstances (dry)", "StopInstances (dry)"];
    let before = ["DescribeInstances", "DescribeInstances (dry)"];
    for (state, orders) in [("running", orders), ("stopped", [orders[1], orders[0]])] {
        let ec2 = Ec2::start(state, |_, _| None);
        let answer = ec2.ask(Ec2Ask::Rehearse, 60_000);
        assert_eq!(answer.outcome, Ec2Outcome::Done, "{}", answer.text);
        assert_eq!(ec2.calls(), [before, orders].concat());

        for refused in orders {
            let ec2 = Ec2::start(state, move |call, _| {
                (call == refused).then(|| error(403, "UnauthorizedOperation"))
            });
            let answer = ec2.ask(Ec2Ask::Rehearse, 60_000);
            assert_eq!(answer.outcome, Ec2Outcome::Failed, "{refused}: {}", answer.text);
            assert!(answer.text.contains("UnauthorizedOperation"), "{}", answer.text);
        }
    }
}

#[test]
fn a_service_without_dry_runs_is_told_nothing_that_changes_the_instance() {
    // It answers a dry run as if it had been meant: to the question, or to the orders alone.
    for knows in [&[][..], &["DescribeInstances (dry)"]] {
        for (state, harmless) in [("running", "StartInstances"), ("stopped", "StopInstances")] {
            let ec2 = Ec2::start(state, move |call, _| {
                let meant = call.strip_suffix(" (dry)").filter(|_| !knows.contains(&call))?;
                Some(done(meant, state))
            });
            let answer = ec2.ask(Ec2Ask::Rehearse, 60_000);
            assert_eq!(answer.outcome, Ec2Outcome::Done, "{}", answer.text);
            let calls = ec2.calls();
            let mut orders = calls.iter().filter(|call| !call.starts_with("Describe"));
            assert!(orders.all(|call| call.starts_with(harmless)), "{calls:?}");
        }
    }
}

#[test]
fn each_call_has_its_own_connection() {
    // It answers the first call of a connection, and does not even read the second.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut kept = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let call = name_of(&form_of(&connection));
            let (status, body) = done(&call, "running");
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
            write!(connection, "{head}\r\n{body}").unwrap();
            kept.push(connection);
        }
    });
    let ec2 = Ec2 { endpoint, calls: Arc::default() };

    let answer = ec2.ask(Ec2Ask::Off, 20_000);

    assert_eq!(answer.outcome, Ec2Outcome::Done, "{}", answer.text);
}

#[test]
fn an_order_without_a_connection_was_not_given() {
    // Nobody listens any more when the order is to be sent.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (connection, _) = listener.accept().unwrap();
        drop(listener);
        serve(connection, |form| done(&name_of(form), "running"));
    });
    let ec2 = Ec2 { endpoint, calls: Arc::default() };

    let answer = ec2.ask(Ec2Ask::Off, 20_000);

    assert_eq!(answer.outcome, Ec2Outcome::Unreachable, "{}", answer.text);
    assert!(answer.text.contains("(not sent)"), "{}", answer.text);
}

#[test]
fn an_order_that_is_refused_in_a_state_that_passes_is_given_again() {
    for (ask, order, passing) in
        [(Ec2Ask::Off, "StopInstances", "pending"), (Ec2Ask::On, "StartInstances", "stopping")]
    {
        let ec2 = Ec2::start(passing, move |call, before| {
            (call == order && before < 2).then(|| error(400, "IncorrectInstanceState"))
        });
        let answer = ec2.ask(ask, 60_000);
        assert_eq!(answer.outcome, Ec2Outcome::Done, "{}", answer.text);
        assert_eq!(ec2.calls().iter().filter(|call| *call == order).count(), 3);
    }
    // Where EC2 refuses in the state in which it takes the order, it is asked once more.
    let ec2 = Ec2::start("running", |call, _| {
        (call == "StopInstances").then(|| error(400, "IncorrectInstanceState"))
    });
    assert_eq!(ec2.ask(Ec2Ask::Off, 60_000).outcome, Ec2Outcome::Unclear);
    assert_eq!(ec2.calls().iter().filter(|call| *call == "StopInstances").count(), 2);
    // What does not pass, or is reached already, is for the caller to find out.
    for (ask, order, state) in [
        (Ec2Ask::Off, "StopInstances", "shutting-down"),
        (Ec2Ask::Off, "StopInstances", "stopped"),
        (Ec2Ask::On, "StartInstances", "terminated"),
        (Ec2Ask::On, "StartInstances", "running"),
    ] {
        let ec2 = Ec2::start(state, move |call, _| {
            (call == order).then(|| error(400, "IncorrectInstanceState"))
        });
        let answer = ec2.ask(ask, 60_000);
        assert_eq!(answer.outcome, Ec2Outcome::Unclear, "{state}: {}", answer.text);
        assert_eq!(ec2.calls(), ["DescribeInstances", order, "DescribeInstances"], "{state}");
    }
}
