//! No driver orders anything for a client that is gone by the time that the device is ready for it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;

use common::{Directory, command};
use fence_core::PerTarget;
use fence_core::execution::{Order, OrderReport};
use fence_device::{
    Client, Command, CommandDevice, CommandSettings, Ec2Device, Ec2Settings, FenceAgentDevice,
    FenceAgentSettings, FenceDevice, IpmiDevice, IpmiPrivilege, IpmiSettings, Job, Limit, Outcome,
    Pin, RedfishDevice, RedfishLogin, RedfishSettings, RedfishTrust, SecretSource,
};
use fence_protocol::{FenceAction, NodeName, RequestId};

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
        fs::write(&claim, "{}").unwrap();
        fs::set_permissions(&claim, fs::Permissions::from_mode(0o600)).unwrap();
        Rig { directory, claim }
    }

    /// An order for a client that says that it holds the request; see [`Rig::hold`].
    fn order(&self, device: &dyn FenceDevice) -> OrderReport {
        let request_id: RequestId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        let client = Client::new(self.claim.clone(), true);
        let job = Job {
            target: &node(),
            action: FenceAction::Off,
            request_id: &request_id,
            gfs2_filesystems: &[],
            request_json: b"{}",
            client: Some(&client),
            pin: &Pin::default(),
        };
        device.order(Order::Off, &job, Limit::in_ms(60_000))
    }

    fn hold(&self) -> File {
        let file = File::open(&self.claim).unwrap();
        file.try_lock().unwrap();
        file
    }

    /// A program that notes how it is called, and answers.
    fn program(&self, answer: &str) -> String {
        let calls = self.directory.path("calls");
        self.directory.script("program", &format!("echo \"$*\" >>'{}'\n{answer}", calls.display()))
    }

    fn secret(&self) -> SecretSource {
        let path = self.directory.path("password");
        fs::write(&path, "s3cret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        SecretSource::File(path)
    }

    /// What a program does whose client is gone when it has ended: the claim is not held any more.
    fn client_dies(&self) -> String {
        let path = self.claim.display();
        format!("mv '{path}' '{path}.old'; cp '{path}.old' '{path}'")
    }
}

fn node() -> NodeName {
    "n1".parse().unwrap()
}

#[test]
fn a_program_is_started_only_while_its_client_waits() {
    let rig = Rig::new();
    let executor = rig.directory.executor();
    let run = |is_holder| {
        let client = Some(Client::new(rig.claim.clone(), is_holder));
        executor.run(Command { client, ..command(&["/bin/true"]) })
    };

    assert_eq!(run(true), Outcome::Withdrawn);
    // A client that never held anything waits until its deadline.
    assert!(matches!(run(false), Outcome::Exited { code: 0, .. }));
    let held = rig.hold();
    assert!(matches!(run(true), Outcome::Exited { code: 0, .. }));
    drop(held);
    assert_eq!(run(true), Outcome::Withdrawn);
    fs::remove_file(&rig.claim).unwrap();
    assert_eq!(run(false), Outcome::Withdrawn);
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
        agent: rig.program(""),
        options: BTreeMap::new(),
        secrets: BTreeMap::new(),
        env: BTreeMap::new(),
        plug: PerTarget::Pattern("{target}".into()),
        plug_option: Some("plug".into()),
        targets: [node()].into(),
        actions: Some([fence_device::AgentAction::Off].into()),
        needed: [].into(),
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
        agent: rig.program(&answer),
        options: BTreeMap::new(),
        secrets: BTreeMap::new(),
        env: BTreeMap::new(),
        plug: PerTarget::Pattern("{target}".into()),
        plug_option: Some("plug".into()),
        targets: [node()].into(),
        actions: Some([fence_device::AgentAction::Off, fence_device::AgentAction::List].into()),
        needed: [].into(),
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
    let device = IpmiDevice::new(
        IpmiSettings {
            address: PerTarget::Pattern("127.0.0.1".into()),
            known_targets: [node()].into(),
            username: "admin".into(),
            password: rig.secret(),
            cipher: 17,
            privilege: IpmiPrivilege::Operator,
            program: rig.program(&answer),
        },
        rig.directory.executor(),
    );
    let _held = rig.hold();

    assert_eq!(rig.order(&device), OrderReport::Withdrawn);

    let calls = rig.directory.read("calls");
    assert!(calls.ends_with("chassis power status\n") && calls.lines().count() == 1, "{calls}");
}

#[test]
fn a_client_that_dies_during_the_look_before_a_redfish_order_gets_none() {
    let rig = Rig::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let device = RedfishDevice::new(RedfishSettings {
        address: PerTarget::Pattern(format!("http://{}", listener.local_addr().unwrap())),
        system: Some(PerTarget::Pattern("/redfish/v1/Systems/1".into())),
        known_targets: [node()].into(),
        username: "admin".into(),
        password: rig.secret(),
        login: RedfishLogin::Basic,
        trust: RedfishTrust::Insecure,
        is_cycled: false,
    });
    let held = rig.hold();
    let service = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(&connection).read_line(&mut asked).unwrap();
        drop(held);
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
fn the_program_for_ec2_is_told_who_waits_because_it_asks_ec2_before_the_order() {
    let rig = Rig::new();
    let call = rig.directory.path("call");
    let answer = r#"{"outcome": "Withdrawn", "text": "", "names": []}"#;
    let script = format!("cat >'{}'\necho '{answer}'", call.display());
    let settings = Ec2Settings {
        helper: rig.directory.script("helper", &script).into(),
        instance: PerTarget::Pattern("i-1".into()),
        tag: "Name".into(),
        region: None,
        endpoint: None,
        profile: None,
        access_key: None,
        skip_os_shutdown: false,
    };
    let device = Ec2Device::new(settings, rig.directory.executor());

    assert_eq!(rig.order(&device), OrderReport::Withdrawn);
    assert_eq!(rig.directory.read("call"), "", "it was started for nobody");
    let _held = rig.hold();
    assert_eq!(rig.order(&device), OrderReport::Withdrawn);
    let call: serde_json::Value = serde_json::from_str(&rig.directory.read("call")).unwrap();
    assert_eq!(call["client"]["claim"], rig.claim.to_str().unwrap());
}
