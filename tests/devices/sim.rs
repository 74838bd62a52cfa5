//! Simulators: the scripts beside this file start them, each in its own directory and on its own
//! ports.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// A simulator that is stopped with this value.
#[derive(Debug)]
pub(crate) struct Simulator {
    name: &'static str,
    directory: PathBuf,
}

impl Simulator {
    /// Runs `NAME-sim-up` with these variables and waits until it answers.
    pub(crate) fn start(name: &'static str, variables: &[(&str, &str)]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let unique = format!("fence-sim-{name}-{}-{number}", std::process::id());
        let simulator = Simulator { name, directory: std::env::temp_dir().join(unique) };
        fs::create_dir(&simulator.directory).unwrap();
        let output = simulator.script("up").envs(variables.iter().copied()).output().unwrap();
        assert!(
            output.status.success(),
            "{name}-sim-up: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        simulator
    }

    /// The directory of its state and logs: `NAME` in the directory of this value.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.join(self.name)
    }

    fn script(&self, direction: &str) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/devices");
        let mut command = Command::new(scripts.join(format!("{}-sim-{direction}", self.name)));
        command.env("DEVSIM", &self.directory);
        command
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.script("down").output();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The first of `count` consecutive ports that no process uses and no other test gets.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(17_000);
    for _ in 0..1000 {
        let first = NEXT.fetch_add(count, Ordering::Relaxed);
        let is_free = |port| {
            let place = ("127.0.0.1", port);
            TcpListener::bind(place).is_ok() && UdpSocket::bind(place).is_ok()
        };
        if (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("no {count} free ports");
}
