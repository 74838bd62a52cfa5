//! The duration of a fence, compared alternately with ClusterLabs' fence agents on the same
//! simulators.
//!
//! It prints tables and checks no time. `SPEED_RUNS` is the number of measurements of each.

use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::common::{Site, wait_for};
use crate::ec2::rig as ec2;
use crate::fence_agent::rig::install_agents;
use crate::ipmi;
use crate::redfish::rig as redfish;

/// One fence device with one node, which both our programs and a fence agent can reach.
struct Bench<'a> {
    name: &'a str,
    site: &'a Site,
    target: &'a str,
    /// The fence agent, and its options except for the action.
    agent: PathBuf,
    options: String,
    environment: Vec<(&'static str, String)>,
    /// The simulator's lines about the power: `TIME STATE`, with this word for off.
    changes: &'a dyn Fn() -> Vec<String>,
    off: &'a str,
}

/// Seconds from the start to the end, and from the moment at which the target was off to the end.
type Taken = (f64, f64);

impl Bench<'_> {
    fn run(&self) {
        let runs = std::env::var("SPEED_RUNS").ok().map_or(1, |text| text.parse().unwrap());
        let (mut theirs, mut reboot, mut off) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            theirs.push(self.measured(|| self.their_reboot()));
            self.await_on();
            reboot.push(self.measured(|| self.ours("reboot")));
            self.site.assert_on_result(&self.site.last_request(), "on");
            self.await_on();
            off.push(self.measured(|| self.ours("off")));
            self.ours("on");
            self.await_on();
        }
        let agent = self.agent.file_name().unwrap().to_str().unwrap();
        // Bypasses the test harness: `tests/run` repeats these lines.
        let mut out = stdout().lock();
        for (what, taken) in [(agent, theirs), ("our reboot", reboot), ("our off", off)] {
            let (name, words) = (self.name, Self::words(taken));
            writeln!(out, "figures: devices: {name:26} {what:15} {words}").unwrap();
        }
    }

    fn words(mut taken: Vec<Taken>) -> String {
        taken.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (whole, after) = taken[taken.len() / 2];
        format!("{whole:5.2} s, {after:5.2} s after the target was off (median of {})", taken.len())
    }

    fn measured(&self, fence: impl FnOnce()) -> Taken {
        let begin = now();
        fence();
        let end = now();
        let off_since = || {
            let is_off = |line: &String| line.strip_suffix(self.off)?.trim().parse::<f64>().ok();
            (self.changes)().iter().filter_map(is_off).find(|at| *at > begin)
        };
        // The simulator records it a little later.
        wait_for("the moment at which it was off", || off_since().is_some());
        let off = off_since().unwrap();
        (end - begin, end - off)
    }

    fn ours(&self, action: &str) {
        let options = format!("action={action}\nplug={}", self.target);
        self.site.agent(&options).wait().assert_success();
    }

    fn their_reboot(&self) {
        let mut agent = Command::new(&self.agent);
        agent.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        let agent = agent.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut agent = agent.spawn().unwrap();
        let options = format!("action=reboot\n{}\n", self.options);
        agent.stdin.take().unwrap().write_all(options.as_bytes()).unwrap();
        let output = agent.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// The next measurement begins with a target that is on.
    fn await_on(&self) {
        wait_for("the target to be on", || {
            self.site.agent(&format!("action=status\nplug={}", self.target)).wait().code == Some(0)
        });
    }
}

/// One of ClusterLabs' agents.
fn agent(name: &str) -> PathBuf {
    install_agents();
    PathBuf::from("/usr/sbin").join(name)
}

fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs_f64()
}

fn lines(path: PathBuf) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn ipmi_beside_fence_ipmilan() {
    for (name, seconds) in [("IPMI, BMC at once", None), ("IPMI, BMC takes 2 s", Some("2"))] {
        let bmcs = ipmi::Bmcs::start(1, "program");
        let (site, _watcher) = bmcs.site(1, "");
        if let Some(seconds) = seconds {
            bmcs.fault(1, "slow-set", seconds);
        }
        let options = format!(
            "ip=127.0.0.1\nipport={}\nusername=admin\npassword={}\nlanplus=1\ncipher=3",
            bmcs.port,
            ipmi::PASSWORD
        );
        let (agent, changes) = (agent("fence_ipmilan"), || lines(bmcs.path(1, "changes")));
        let (environment, target) = (Vec::new(), "node1");
        let off = " off";
        Bench { name, site: &site, target, agent, options, environment, changes: &changes, off }
            .run();
    }
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn redfish_beside_fence_redfish() {
    let bmcs = redfish::Bmcs::start(1);
    let site = redfish::site();
    let more = format!(
        "address = '{}'\ntargets = 'node1'\nauth = 'basic'\nfingerprint = '{}'",
        bmcs.address(1),
        bmcs.fingerprint(1)
    );
    site.configure(&redfish::device(&site, "bmc", &more));
    let _watcher = site.start();
    let options = format!(
        "ip=127.0.0.1\nipport={}\nusername=admin\npassword={}\nssl_insecure=1\n\
         systems_uri=/redfish/v1/Systems/1",
        bmcs.port,
        redfish::PASSWORD
    );
    let changes = || lines(bmcs.directory(1).join("changes"));
    Bench {
        name: "Redfish, BMC takes 0.3 s",
        site: &site,
        target: "node1",
        agent: agent("fence_redfish"),
        options,
        environment: Vec::new(),
        changes: &changes,
        off: " off",
    }
    .run();
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn ec2_beside_fence_aws() {
    install_agents();
    let aws = ec2::Aws::start();
    let id = aws.id_of("node1");
    let (site, _watcher) = ec2::site(&ec2::device("targets = 'node1'"), &aws.environment());
    let off = format!(" stopped {id}");
    let changes = || {
        let log = lines(aws.moto.directory().join("log"));
        log.iter().filter_map(|line| Some(line.strip_prefix("changed ")?.to_owned())).collect()
    };
    Bench {
        name: "EC2, a stop takes 1 s",
        site: &site,
        target: "node1",
        agent: aws.moto.directory().join("fence_aws"),
        options: format!(
            "plug={id}\nregion=us-east-1\naccess_key={}\nsecret_key={}",
            aws.key.0, aws.key.1
        ),
        environment: aws.environment(),
        changes: &changes,
        off: &off,
    }
    .run();
}

#[test]
#[ignore = "needs a simulator: tests/devices/run"]
fn fence_ipmilan_through_the_watcher_beside_itself() {
    let bmcs = ipmi::Bmcs::start(1, "program");
    bmcs.fault(1, "slow-set", "2");
    let site = Site::new();
    let file = ipmi::secret(&site, "password", ipmi::PASSWORD);
    site.configure(&format!(
        "[[device]]\nname = 'd'\ntype = 'fence-agent'\nagent = 'fence_ipmilan'\n\
         plug_option = 'ipport'\ntargets = {{ node1 = '{}' }}\npassword_file = '{file}'\n\
         [device.options]\nip = '127.0.0.1'\nusername = 'admin'\nlanplus = true\ncipher = 3\n\
         power_wait = 0\n",
        bmcs.port
    ));
    let _watcher = site.start();
    let options = format!(
        "ip=127.0.0.1\nipport={}\nusername=admin\npassword={}\nlanplus=1\ncipher=3",
        bmcs.port,
        ipmi::PASSWORD
    );
    let changes = || lines(bmcs.path(1, "changes"));
    Bench {
        name: "fence-agent, BMC takes 2 s",
        site: &site,
        target: "node1",
        agent: agent("fence_ipmilan"),
        options,
        environment: Vec::new(),
        changes: &changes,
        off: " off",
    }
    .run();
}
