//! `tests/install` on a private machine: a mount namespace whose `/etc`, `/run` and `/usr/sbin` are
//! copies, with an apt-get that enables the services that it installs, like a package that asks no
//! policy.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{Site, can_be_run_as_root, left_out, output_of};

const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/install");

/// Creates the machine, runs the script `before` on it, installs, and writes the remaining files to
/// `left`.
const MACHINE: &str = r#"
    set -e
    cd "$0"
    mkdir etc etc.work sbin sbin.work
    mount -t overlay -o lowerdir=/etc,upperdir=etc,workdir=etc.work etc /etc
    mount -t overlay -o lowerdir=/usr/sbin,upperdir=sbin,workdir=sbin.work sbin /usr/sbin
    mount -t tmpfs run /run
    rm -f /usr/sbin/policy-rc.d
    mkdir -p /etc/rc2.d /etc/systemd/system/a.target.wants
    ln -sf ../init.d/old /etc/rc2.d/S01old
    ln -sf /old.service /etc/systemd/system/a.target.wants/old.service
    . "$0/before"
    status=0
    PATH="$0/bin:$PATH" "$1" --packages there-is-no-such-package || status=$?
    {
        ls -d /usr/sbin/policy-rc.d /run/systemd || :
        cd /etc
        ls -d rc2.d/S01old rc2.d/S01new systemd/system/a.target.wants/*.service || :
    } >"$0/left" 2>/dev/null
    exit $status"#;

/// `$END` is the outcome of the installation.
const APT_GET: &str = r#"
    case "$*" in
    *--simulate*) echo "Inst there-is-no-such-package (1 Debian)"; exit ;;
    *update*) exit ;;
    esac
    {
        policy=0
        /usr/sbin/policy-rc.d new start || policy=$?
        echo "policy $policy"
        tail -qn 1 /run/systemd/system-preset/* /run/systemd/user-preset/*
        echo "$DEBIAN_FRONTEND $NEEDRESTART_SUSPEND $*"
    } >>"${0%/*/*}/seen" 2>&1
    ln -sf ../init.d/new /etc/rc2.d/S01new
    ln -sf /new.service /etc/systemd/system/a.target.wants/new.service
    . "${0%/*/*}/end""#;

const UPDATE_RC_D: &str = r#"echo "$*" >>"${0%/*/*}/seen"; rm "/etc/rc2.d/S01$1""#;

struct Machine(Site);

impl Machine {
    /// `None` if no such machine can be created; in CI it must be possible.
    fn new(name: &str) -> Option<Self> {
        if !Path::new("/var/lib/dpkg").is_dir() {
            left_out(name, "this is not Debian");
            return None;
        }
        if !can_be_run_as_root(name) {
            return None;
        }
        let site = Site::new();
        fs::create_dir(site.path("bin")).unwrap();
        for (name, body) in [("apt-get", APT_GET), ("update-rc.d", UPDATE_RC_D)] {
            site.program(&format!("bin/{name}"), body);
        }
        Some(Machine(site))
    }

    /// `before` prepares the machine, `end` runs at the end of apt-get.
    fn install(&self, before: &str, end: &str) -> Output {
        fs::write(self.0.path("before"), before).unwrap();
        fs::write(self.0.path("end"), end).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", MACHINE]).arg(self.0.path("")).arg(INSTALL);
        output_of(&mut command)
    }

    fn read(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.0.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn no_installed_service_is_started_or_enabled_however_the_installation_ends() {
    for (end, code) in [("exit 0", 0), ("exit 100", 77), ("kill -TERM $PPID", 1)] {
        let Some(machine) = Machine::new("the installation") else { return };

        let output = machine.install("", end);

        assert_eq!(output.status.code(), Some(code), "{end}: {output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("installing 1 packages") && said.contains("14 GB"), "{end}: {said}");
        let seen = machine.read("seen");
        assert_eq!(seen[..3], ["policy 101", "disable *", "disable *"], "{end}: {seen:?}");
        assert!(seen[3].starts_with("noninteractive 1 ") && seen[3].contains(" --no-upgrade "));
        assert_eq!(seen.last().unwrap(), "new disable", "{end}");
        let left = ["rc2.d/S01old", "systemd/system/a.target.wants/old.service"];
        assert_eq!(machine.read("left"), left, "{end}");
    }
}

#[test]
fn the_machines_own_policy_stays_and_one_that_permits_starts_stops_the_installation() {
    let write = |status: u8| {
        format!(
            "printf '#!/bin/sh\\nexit {status}\\n' >/usr/sbin/policy-rc.d\n\
             chmod 755 /usr/sbin/policy-rc.d\n"
        )
    };
    for (status, code) in [(101, 0), (0, 77), (104, 77)] {
        let Some(machine) = Machine::new("the machine's own policy") else { return };

        let output = machine.install(&write(status), "exit 0");

        assert_eq!(output.status.code(), Some(code), "{status}: {output:?}");
        assert_eq!(machine.read("seen").is_empty(), code == 77, "{status}");
        assert!(machine.read("left").contains(&"/usr/sbin/policy-rc.d".to_owned()), "{status}");
    }
}

#[test]
fn a_policy_that_a_killed_installation_left_is_removed_by_the_next() {
    let Some(machine) = Machine::new("what a killed installation left") else { return };

    let killed = machine.install("", "kill -KILL $PPID");
    let left = "cp \"$0/policy\" /usr/sbin/policy-rc.d\n";
    assert_eq!(killed.status.code(), Some(137), "{killed:?}");
    assert!(machine.read("left").contains(&"/usr/sbin/policy-rc.d".to_owned()));
    fs::copy(machine.0.path("sbin/policy-rc.d"), machine.0.path("policy")).unwrap();
    for directory in ["etc", "etc.work", "sbin", "sbin.work"] {
        fs::remove_dir_all(machine.0.path(directory)).unwrap();
    }
    let output = machine.install(left, "exit 0");

    assert!(output.status.success(), "{output:?}");
    assert!(!machine.read("left").contains(&"/usr/sbin/policy-rc.d".to_owned()));
}
