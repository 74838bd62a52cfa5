//! A name whose address changes during an execution: the order and all questions go to one machine.
//! The names are in a private `/etc/hosts`, in a mount namespace, so these tests need root.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use common::bmc::{Asked, read_request};
use common::left_out::left_out;
use common::{Directory, agents, bmc, ipmi_settings, long, node, order_in};
use fence_core::PerTarget;
use fence_core::execution::{Order, OrderReport};
use fence_device::{
    AgentAction, FenceAgentDevice, FenceAgentSettings, FenceDevice, IpmiDevice, IpmiSettings, Pin,
    Reach, RedfishDevice,
};
use fence_protocol::PowerState;

/// The path of a test's private `/etc/hosts`.
const OWN_HOSTS: &str = "FENCE_TEST_HOSTS";

const A: Ipv4Addr = Ipv4Addr::LOCALHOST;
const B: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Runs `body` with a private `/etc/hosts`: in another process, which runs only the test `name`.
fn with_own_hosts(name: &str, body: impl FnOnce()) {
    if std::env::var_os(OWN_HOSTS).is_some() {
        return body();
    }
    if !nix::unistd::geteuid().is_root() {
        left_out(name, "it needs root");
        return;
    }
    let directory = Directory::new();
    let hosts = directory.path("hosts");
    fs::write(&hosts, "").unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
        .arg(&hosts)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(OWN_HOSTS, &hosts)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// From now on, the name `n1-bmc` has these addresses.
fn name(addresses: &[Ipv4Addr]) {
    let lines: Vec<String> =
        addresses.iter().map(|address| format!("{address} n1-bmc\n")).collect();
    fs::write(std::env::var_os(OWN_HOSTS).unwrap(), lines.concat()).unwrap();
}

fn order(device: &dyn FenceDevice, order: Order, pin: &Pin) -> OrderReport {
    order_in(pin, device, order, long())
}

/// A Redfish service whose only system is in this state; sends the first line of each request.
fn service(listener: TcpListener, power: &'static str) -> mpsc::Receiver<String> {
    let (asked, requests) = mpsc::channel();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            // A connection that is only a test brings no request.
            let Some(Asked { first, .. }) = read_request(&connection) else { continue };
            let body = if first.starts_with("POST") {
                "{}".to_owned()
            } else if first.contains("/Systems ") {
                r#"{"Members": [{"@odata.id": "/S/1"}]}"#.to_owned()
            } else {
                let reset = r##""#ComputerSystem.Reset": {"target": "/S/1/Reset"}"##;
                format!(r#"{{"PowerState": "{power}", "Actions": {{{reset}}}}}"#)
            };
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close");
            asked.send(first).unwrap();
            write!(connection, "{head}\r\n\r\n{body}").unwrap();
        }
    });
    requests
}

fn redfish(directory: &Directory, port: u16) -> RedfishDevice {
    let address = format!("http://{{target}}-bmc:{port}");
    RedfishDevice::new(bmc::settings(directory, &address, None))
}

#[test]
fn redfish_asks_where_it_ordered() {
    with_own_hosts("redfish_asks_where_it_ordered", || {
        let directory = Directory::new();
        let first = TcpListener::bind((A, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = TcpListener::bind((B, port)).unwrap();
        let (first, second) = (service(first, "On"), service(second, "Off"));
        let (device, pin) = (redfish(&directory, port), Pin::default());
        name(&[A]);
        assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));

        name(&[B]);

        assert_eq!(device.power(&node(), &pin, long()).state, PowerState::On);
        assert!(matches!(order(&device, Order::On, &pin), OrderReport::Acknowledged(_)));
        assert_eq!(first.try_iter().filter(|line| line.starts_with("POST")).count(), 2);
        assert_eq!(second.try_iter().count(), 0);
        // A question outside any execution uses the name.
        assert_eq!(device.power(&node(), &Pin::default(), long()).state, PowerState::Off);
    });
}

#[test]
fn redfish_knows_no_state_where_the_address_of_the_order_is_silent() {
    with_own_hosts("redfish_knows_no_state_where_the_address_of_the_order_is_silent", || {
        let directory = Directory::new();
        let first = TcpListener::bind((A, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = TcpListener::bind((B, port)).unwrap();
        let (device, pin) = (redfish(&directory, port), Pin::default());
        // It accepts the order and disappears.
        let once = thread::spawn(move || {
            for body in [
                r#"{"Members": [{"@odata.id": "/S/1"}]}"#,
                r##"{"Actions": {"#ComputerSystem.Reset": {"target": "/S/1/Reset"}}}"##,
                "{}",
            ] {
                let (mut connection, _) = first.accept().unwrap();
                read_request(&connection).unwrap();
                let head = format!("Content-Length: {}\r\nConnection: close", body.len());
                write!(connection, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").unwrap();
            }
        });
        let second = service(second, "Off");
        name(&[A]);
        assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));
        once.join().unwrap();

        name(&[A, B]);

        assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Unknown);
        assert_eq!(second.try_iter().count(), 0);
    });
}

#[test]
fn redfish_passes_a_dead_address_over_before_it_orders() {
    with_own_hosts("redfish_passes_a_dead_address_over_before_it_orders", || {
        let directory = Directory::new();
        for (dead, alive) in [(A, B), (B, A)] {
            let alive = TcpListener::bind((alive, 0)).unwrap();
            let port = alive.local_addr().unwrap().port();
            // No service listens at the dead address.
            drop(TcpListener::bind((dead, port)).unwrap());
            let asked = service(alive, "On");
            let (device, pin) = (redfish(&directory, port), Pin::default());
            name(&[A, B]);

            assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));

            assert!(asked.try_iter().any(|line| line.starts_with("POST")));
        }
    });
}

/// An ipmitool whose BMC at `B` is off, and whose BMC at `A` has the state in the file `a`; each
/// call is a line in the file `calls`.
fn ipmi(directory: &Directory) -> IpmiDevice {
    let body = "cd \"${0%/*}\"; for word; do :; done; echo \"$4 $word\" >>calls\n\
         state=off; [ $4 = 127.0.0.1 ] && state=$(cat a)\n\
         if [ $state = dead ]; then\n\
         echo 'Get Auth Capabilities error' >&2\n\
         echo 'Error: Unable to establish IPMI v2 / RMCP+ session' >&2; exit 1; fi\n\
         case $word in status) echo \"Chassis Power is $state\";;\n\
         off) echo 'Chassis Power Control: Down/Off';; on) echo 'Chassis Power Control: Up/On';; \
         esac";
    let settings = IpmiSettings {
        address: PerTarget::Pattern("{target}-bmc".to_owned()),
        ..ipmi_settings(directory, directory.script("ipmitool", body))
    };
    IpmiDevice::new(settings, directory.executor())
}

#[test]
fn ipmi_asks_where_it_ordered() {
    with_own_hosts("ipmi_asks_where_it_ordered", || {
        let (directory, pin) = (Directory::new(), Pin::default());
        let device = ipmi(&directory);
        fs::write(directory.path("a"), "on").unwrap();
        name(&[A]);
        assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));

        name(&[B]);

        assert_eq!(device.power(&node(), &pin, long()).state, PowerState::On);
        assert!(matches!(order(&device, Order::On, &pin), OrderReport::Acknowledged(_)));
        fs::write(directory.path("a"), "dead").unwrap();
        assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Unknown);
        let calls = directory.read("calls");
        assert!(calls.lines().all(|call| call.starts_with("127.0.0.1 ")), "{calls}");
        assert_eq!(device.power(&node(), &Pin::default(), long()).state, PowerState::Off);
    });
}

#[test]
fn ipmi_passes_a_dead_address_over_before_it_orders() {
    with_own_hosts("ipmi_passes_a_dead_address_over_before_it_orders", || {
        let (directory, pin) = (Directory::new(), Pin::default());
        let device = ipmi(&directory);
        fs::write(directory.path("a"), "dead").unwrap();
        name(&[A, B]);

        assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));

        assert!(directory.read("calls").contains("127.0.0.2 off\n"));
        assert!(!directory.read("calls").contains("127.0.0.1 off\n"));
        // The first address responds again, and belongs to another machine.
        fs::write(directory.path("a"), "on").unwrap();
        assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Off);
        name(&[A]);
        assert!(matches!(device.reachable(long()), Reach::Reachable(_)));
    });
}

#[test]
fn ipmi_orders_nothing_where_the_name_leads_nowhere() {
    with_own_hosts("ipmi_orders_nothing_where_the_name_leads_nowhere", || {
        let directory = Directory::new();
        let device = ipmi(&directory);
        name(&[]);

        let report = order(&device, Order::Off, &Pin::default());

        let OrderReport::Unreachable(text) = report else { panic!("{report:?}") };
        assert!(text.contains("'n1-bmc' cannot be looked up"), "{text}");
        assert_eq!(directory.read("calls"), "");
    });
}

/// An agent that acknowledges and shows off; each call is a line in the file `calls`. The address
/// of its device is the plug, or the common name of all its plugs.
fn agent(directory: &Directory, is_shared: bool, options: &[(&str, &str)]) -> FenceAgentDevice {
    let body = "cd \"${0%/*}\"; input=$(cat); value() { echo \"$input\" | sed -n \"s/^$1=//p\"; }\n\
         action=$(value action); echo \"$action $(value ip) $(value plug)\" >>calls\n\
         case $action in list) echo 7;; status) exit 2;; esac";
    let mut all: Vec<(&str, &str)> = options.to_vec();
    all.extend(is_shared.then_some(("ip", "n1-bmc")));
    let settings = FenceAgentSettings {
        options: all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        plug: PerTarget::Pattern(if is_shared { "7" } else { "{target}-bmc" }.to_owned()),
        plug_option: Some(if is_shared { "plug" } else { "ip" }.to_owned()),
        targets: [node()].into(),
        actions: Some([AgentAction::Off, AgentAction::On, AgentAction::Status].into()),
        ..agents::settings(directory.script("agent", body))
    };
    FenceAgentDevice::new(settings, directory.executor())
}

/// The agent's option for the address of its device, call by call.
fn hosts(directory: &Directory) -> Vec<String> {
    let calls = directory.read("calls");
    calls.lines().map(|call| call.split(' ').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn a_fence_agent_gets_one_numeric_address_of_a_name_with_several() {
    with_own_hosts("a_fence_agent_gets_one_numeric_address_of_a_name_with_several", || {
        for is_shared in [false, true] {
            let (directory, pin) = (Directory::new(), Pin::default());
            let device = agent(&directory, is_shared, &[]);
            name(&[A, B]);
            assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));
            assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Off);
            // Neither another order of the addresses nor another address changes the result.
            for now in [&[B, A][..], &[B], &[]] {
                name(now);
                assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Off);
            }
            assert!(matches!(order(&device, Order::On, &pin), OrderReport::Acknowledged(_)));

            assert_eq!(hosts(&directory), ["127.0.0.1"; 6]);
        }
    });
}

#[test]
fn a_fence_agent_gets_the_name_while_it_leads_to_one_address() {
    with_own_hosts("a_fence_agent_gets_the_name_while_it_leads_to_one_address", || {
        for is_shared in [false, true] {
            let (directory, pin) = (Directory::new(), Pin::default());
            let device = agent(&directory, is_shared, &[]);
            name(&[A]);
            assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));
            assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Off);
            name(&[B]);
            assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Off);

            assert_eq!(hosts(&directory), ["n1-bmc", "n1-bmc", "127.0.0.1"]);
        }
        // A name that only the agent can resolve, and a name that has several addresses by the time
        // of the question.
        let (directory, pin) = (Directory::new(), Pin::default());
        let device = agent(&directory, false, &[]);
        name(&[]);
        assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));
        assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Off);
        name(&[A, B]);
        assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Unknown);
        assert_eq!(hosts(&directory), ["n1-bmc"; 2]);
    });
}

#[test]
fn a_fence_agent_that_verifies_a_name_gets_the_name_whatever_addresses_it_has() {
    let own = "a_fence_agent_that_verifies_a_name_gets_the_name_whatever_addresses_it_has";
    with_own_hosts(own, || {
        for options in [&[("ssl_secure", "1")][..], &[("ssl-secure", "yes")], &[("ssl", "1")]] {
            let (directory, pin) = (Directory::new(), Pin::default());
            let device = agent(&directory, false, options);
            name(&[A, B]);
            assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));
            assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Off);
            name(&[B]);
            assert_eq!(device.power(&node(), &pin, long()).state, PowerState::Off);
            assert_eq!(hosts(&directory), ["n1-bmc"; 3]);
        }
        let (directory, pin) = (Directory::new(), Pin::default());
        let device =
            agent(&directory, false, &[("ssl_secure", "0"), ("ssl", "1"), ("ssl-insecure", "1")]);
        name(&[B, A]);
        assert!(matches!(order(&device, Order::Off, &pin), OrderReport::Acknowledged(_)));
        let first = &hosts(&directory)[0];
        assert!(first.parse::<Ipv4Addr>().is_ok(), "{first}");
    });
}
