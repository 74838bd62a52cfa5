//! What the tests share: a directory, an executor, commands, orders, devices, and waits.

// `expect` would fail in a binary that uses all of it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of this module")]

pub mod agents;
pub mod bmc;
#[path = "../../../../tests/common/left_out.rs"]
pub mod left_out;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use fence_core::PerTarget;
use fence_core::execution::{Order, OrderReport};
use fence_device::{
    Client, Command, Ec2Settings, ExecutorClient, FenceDevice, IpmiPrivilege, IpmiSettings, Limit,
    OrderContext, Pin, SecretSource, boot_ms_now,
};
use fence_protocol::{FenceAction, NodeName};
use nix::unistd::{Pid, getsid};

/// A process that is just being started holds all our open files, and the kernel does not run a
/// script that is open for writing. So no process starts while a script is being written.
static STARTING: Mutex<()> = Mutex::new(());

/// A directory that is removed with the value.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("fence-device-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A shell script in it.
    pub fn script(&self, name: &str, body: &str) -> String {
        let _no_start = STARTING.lock();
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    /// The content of one of its files; empty if the file does not exist.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The lines of its file `calls`, in which programs of tests record their arguments.
    pub fn calls(&self) -> Vec<String> {
        self.read("calls").lines().map(str::to_owned).collect()
    }

    /// Its file `password` with this content, which only the owner can read.
    pub fn password(&self, words: &str) -> SecretSource {
        self.private("password", words);
        SecretSource::File(self.path("password"))
    }

    /// A file that only its owner can read.
    pub fn private(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn executor(&self) -> ExecutorClient {
        let _no_writing = STARTING.lock();
        ExecutorClient::start(&executor_program(), &[], &self.path("lock")).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A directory, and the executor that runs its programs.
pub struct Rig {
    pub directory: Directory,
    pub executor: ExecutorClient,
}

impl Rig {
    pub fn new() -> Self {
        let directory = Directory::new();
        let executor = directory.executor();
        Rig { directory, executor }
    }
}

/// The example `executor`, which cargo builds for these tests beside them.
pub fn executor_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/executor")
}

pub fn command(argv: &[&str]) -> Command {
    Command {
        env: vec![("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())],
        ..Command::new(argv.iter().map(|&argument| argument.to_owned()).collect(), long())
    }
}

pub fn shell(script: &str) -> Command {
    command(&["/bin/sh", "-c", script])
}

/// The target of all orders.
pub fn node() -> NodeName {
    "n1".parse().unwrap()
}

/// A limit that no test reaches.
pub fn long() -> Limit {
    Limit::in_ms(60_000)
}

/// Gives an order for [`node`] in the execution of `pin`.
pub fn order_in(pin: &Pin, device: &dyn FenceDevice, order: Order, limit: Limit) -> OrderReport {
    give(device, order, pin, None, limit)
}

/// The same for a client that may have to wait for it.
pub fn give(
    device: &dyn FenceDevice,
    order: Order,
    pin: &Pin,
    client: Option<&Client>,
    limit: Limit,
) -> OrderReport {
    let job = OrderContext {
        target: &node(),
        action: FenceAction::Off,
        request_id: &"67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
        pin,
        gfs2_filesystems: &[],
        request_json: b"{}",
        client,
    };
    device.order(order, &job, limit)
}

/// A BMC behind this ipmitool.
pub fn ipmi_settings(directory: &Directory, program: String) -> IpmiSettings {
    IpmiSettings {
        address: PerTarget::Pattern("127.0.0.1".to_owned()),
        known_targets: [node()].into(),
        username: "admin".to_owned(),
        password: directory.password("s3cret"),
        cipher: 17,
        privilege: IpmiPrivilege::Operator,
        program,
    }
}

/// An instance behind this program.
pub fn ec2_settings(helper: String) -> Ec2Settings {
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

/// Waits until `condition` holds, for states that no event announces to us.
pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = boot_ms_now() + 20_000;
    while !condition() {
        assert!(boot_ms_now() < until, "in vain: {what}");
        std::thread::yield_now();
    }
}

/// Whether a process with this number runs, and is not a zombie.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// The executor of this directory: the process whose arguments name its lock file and that leads a
/// session, which a process about to be started does not.
pub fn executor_pid(directory: &Directory) -> Pid {
    let lock = directory.path("lock").into_os_string().into_string().unwrap();
    let found = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let arguments = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
        let is_it = arguments.split('\0').nth(1) == Some(&lock) && getsid(Some(pid)) == Ok(pid);
        is_it.then_some(pid)
    });
    let found: Vec<Pid> = found.collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

/// The living children of `parent`.
pub fn children_of(parent: Pid) -> Vec<Pid> {
    let is_child = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let found = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        found == Some(&parent.to_string()) && is_alive(pid)
    };
    let processes = fs::read_dir("/proc").unwrap();
    let names = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit())).filter(is_child);
    pids.map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}
