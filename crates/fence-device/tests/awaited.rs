//! No driver gives an order for a client that has ended by the time the device is ready for it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use common::{Directory, agents, bmc, command, ec2_settings, give, ipmi_settings, long};
use fence_core::execution::{Order, OrderReport};
use fence_device::{
    AgentAction, Client, Command, CommandDevice, CommandSettings, Ec2Device, FenceAgentDevice,
    FenceAgentSettings, FenceDevice, IpmiDevice, Pin, RedfishDevice, RunOutcome,
};

/// A directory with a claimed request.
struct Rig {
    directory: Directory,
    claim: PathBuf,
}

impl Rig {
    fn new() -> Self {
        let directory = Directory::new();
        let claims = directory.path("claimed");
        fs::DirBuilder::new().mode(0o700).create(&claims).unwrap();
        let claim = claims.join("a.json");
        directory.private("claimed/a.json", "{}");
        Rig { directory, claim }
    }

    /// An order for a client that declares that it holds the request; see [`Rig::hold`].
    fn order(&self, device: &dyn FenceDevice) -> OrderReport {
        let client = Client::new(self.claim.clone(), true);
        give(device, Order::Off, &Pin::default(), Some(&client), long())
    }

    /// Holds the claim until the file is unlocked: a process that is just being started may keep
    /// the lock of a file that is only closed.
    fn hold(&self) -> File {
        let file = File::open(&self.claim).unwrap();
        file.try_lock().unwrap();
        file
    }

    /// A program that records its arguments, and answers.
    fn program(&self, answer: &str) -> String {
        let calls = self.directory.path("calls");
        self.directory.script("program", &format!("echo \"$*\" >>'{}'\n{answer}", calls.display()))
    }

    /// The end of a program whose client has ended meanwhile: the claim is no longer held.
    fn client_dies(&self) -> String {
        let path = self.claim.display();
        format!("mv '{path}' '{path}.old'; cp '{path}.old' '{path}'")
    }
}

#[test]
fn a_program_is_started_only_while_its_client_waits() {
    let rig = Rig::new();
    let executor = rig.directory.executor();
    let run = |is_holder| {
        let client = Some(Client::new(rig.claim.clone(), is_holder));
        executor.run(Command { client, ..command(&["/bin/true"]) })
    };

    assert_eq!(run(true), RunOutcome::Withdrawn);
    // A client that never held a lock waits until its deadline.
    assert!(matches!(run(false), RunOutcome::Exited { code: 0, .. }));
    let held = rig.hold();
    assert!(matches!(run(true), RunOutcome::Exited { code: 0, .. }));
    held.unlock().unwrap();
    assert_eq!(run(true), RunOutcome::Withdrawn);
    fs::remove_file(&rig.claim).unwrap();
    assert_eq!(run(false), RunOutcome::Withdrawn);
}

#[test]
fn a_command_is_not_run_for_a_client_that_is_gone() {
    let rig = Rig::new();
    let settings = CommandSettings {
        name: "power".into(),
        off: Some(vec![rig.program("")]),
        timeout_ms: 60_000,
        ..CommandSettings::default()
    };
    let device = CommandDevice::new(settings, rig.directory.executor());

    assert_eq!(rig.order(&device), OrderReport::Withdrawn);
    assert_eq!(rig.directory.read("calls"), "");
    let _held = rig.hold();
    assert!(matches!(rig.order(&device), OrderReport::Acknowledged(_)));
    assert_eq!(rig.directory.read("calls"), "\n");
}

#[test]
fn a_fence_agent_is_not_run_for_a_client_that_is_gone() {
    let rig = Rig::new();
    let settings = FenceAgentSettings {
        plug_option: Some("plug".into()),
        actions: Some([AgentAction::Off].into()),
        ..agents::settings(rig.program(""))
    };
    let device = FenceAgentDevice::new(settings, rig.directory.executor());

    assert_eq!(rig.order(&device), OrderReport::Withdrawn);
    assert_eq!(rig.directory.read("calls"), "");
    let _held = rig.hold();
    assert!(matches!(rig.order(&device), OrderReport::Acknowledged(_)));
}

#[test]
fn a_client_that_dies_while_an_agent_lists_its_plugs_gets_no_order() {
    let rig = Rig::new();
    let answer = format!(
        "input=$(cat); echo \"${{input##*=}}\" >>\"$0.told\"\n\
         case $input in *action=list) {}; echo n1;; esac",
        rig.client_dies()
    );
    let settings = FenceAgentSettings {
        plug_option: Some("plug".into()),
        actions: Some([AgentAction::Off, AgentAction::List].into()),
        ..agents::settings(rig.program(&answer))
    };
    let device = FenceAgentDevice::new(settings, rig.directory.executor());
    let _held = rig.hold();

    assert_eq!(rig.order(&device), OrderReport::Withdrawn);

    assert_eq!(rig.directory.read("program.told"), "list\n");
}

#[test]
fn a_client_that_dies_during_the_question_before_an_ipmi_order_gets_none() {
    let rig = Rig::new();
    let answer = format!(
        "case $* in *status) {}; echo 'Chassis Power is on';; *) echo unexpected;; esac",
        rig.client_dies()
    );
    let settings = ipmi_settings(&rig.directory, rig.program(&answer));
    let device = IpmiDevice::new(settings, rig.directory.executor());
    let _held = rig.hold();

    assert_eq!(rig.order(&device), OrderReport::Withdrawn);

    let calls = rig.directory.read("calls");
    assert!(calls.ends_with("chassis power status\n") && calls.lines().count() == 1, "{calls}");
}

#[test]
fn a_client_that_dies_during_the_look_before_a_redfish_order_gets_none() {
    let rig = Rig::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let system = Some("/redfish/v1/Systems/1");
    let device = RedfishDevice::new(bmc::settings(&rig.directory, &address, system));
    let held = rig.hold();
    let service = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(&connection).read_line(&mut asked).unwrap();
        held.unlock().unwrap();
        let body = r##"{"PowerState": "On", "Actions": {"#ComputerSystem.Reset":
            {"target": "/redfish/v1/Systems/1/Reset"}}}"##;
        let length = body.len();
        write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        drop(connection);
        listener.set_nonblocking(true).unwrap();
        (asked, listener)
    });

    assert_eq!(rig.order(&device), OrderReport::Withdrawn);

    let (asked, listener) = service.join().unwrap();
    assert!(asked.starts_with("GET /redfish/v1/Systems/1 "), "{asked}");
    assert!(listener.accept().is_err(), "something else was sent");
}

#[test]
fn the_program_for_ec2_learns_about_the_client_because_it_asks_ec2_before_the_order() {
    let rig = Rig::new();
    let call = rig.directory.path("call");
    let answer = r#"{"outcome": "Withdrawn", "text": "", "names": []}"#;
    let script = format!("cat >'{}'\necho '{answer}'", call.display());
    let settings = ec2_settings(rig.directory.script("helper", &script));
    let device = Ec2Device::new(settings, rig.directory.executor());

    assert_eq!(rig.order(&device), OrderReport::Withdrawn);
    assert_eq!(rig.directory.read("call"), "", "it was started without a client");
    let _held = rig.hold();
    assert_eq!(rig.order(&device), OrderReport::Withdrawn);
    let call: serde_json::Value = serde_json::from_str(&rig.directory.read("call")).unwrap();
    assert_eq!(call["client"]["claim"], rig.claim.to_str().unwrap());
}
