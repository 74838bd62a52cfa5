//! Neither the programs nor their children touch a path on GFS2: strace sees each call that takes a
//! path, and the mount table shows the file system of each path.
//!
//! The test creates the table: a directory in it acts as a mounted GFS2 file system, the CIB has it
//! as a resource, and DLM has its lockspace. A real one would sometimes hang each process that
//! touches it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::PATIENT;
use crate::common::{SERVICE, Site, agent_program, can_trace, left_out, wait_for};
use crate::tree::Tree;

#[test]
fn a_fence_touches_no_path_on_gfs2() {
    let Some(traced) = Traced::new() else { return };
    traced.be_asked("");

    traced.fence();

    traced.expect_touched("trace-agent", &["sys/fs/gfs2", "proc/self/mountinfo", "cib.xml"]);
    traced.expect_touched(
        "trace-watcher",
        &["etc/corosync/corosync.conf", "usr/sbin/dlm_tool", "dlm.txt"],
    );
    assert_eq!(traced.violations(), [""; 0]);
}

#[test]
fn pacemakers_own_cibadmin_touches_no_path_on_gfs2_either() {
    let Some(traced) = Traced::new() else { return };
    if !Path::new("/usr/sbin/cibadmin").exists() {
        left_out("paths", "Pacemaker's tools are missing");
        return;
    }
    let cib = traced.tree.path("cib.xml");
    let script = format!("CIB_file='{}' exec /usr/sbin/cibadmin \"$@\"", cib.display());
    traced.tree.program("cibadmin", &script);

    traced.fence();

    traced.expect_touched("trace-agent", &["/usr/sbin/cibadmin", "cib.xml"]);
    assert_eq!(traced.violations(), [""; 0]);
}

#[test]
fn a_child_that_looks_at_a_mount_point_would_be_found() {
    for touch in
        ["[ -d \"$GFS2\" ] || :", "cd \"$GFS2\"; ls", "ls /../\"$GFS2\"/file", ": <\"$GFS2\"/file"]
    {
        let Some(traced) = Traced::new() else { return };
        traced.be_asked(&format!(
            "GFS2='{}'; {{ {touch}; }} >/dev/null 2>&1",
            traced.mount().display()
        ));

        traced.fence();

        assert!(!traced.violations().is_empty(), "{touch}");
    }
}

/// A site whose programs run under strace, with a directory that acts as a GFS2 file system.
struct Traced {
    site: Site,
    tree: Tree,
}

impl Traced {
    /// `None` if nothing can be traced.
    fn new() -> Option<Self> {
        if !can_trace("paths") {
            return None;
        }
        let site = Site::new();
        let tree = Tree::at(site.path("root")).with_capture("at-fence-node1");
        let traced = Traced { site, tree };
        let mount = traced.mount();
        fs::create_dir(&mount).unwrap();
        fs::write(mount.join("file"), "").unwrap();
        let mountinfo = format!("36 22 254:16 / {} rw - gfs2 /dev/vdb rw\n", mount.display());
        traced.tree.write("proc/self/mountinfo", &mountinfo);
        let cib = fs::read_to_string(traced.tree.path("cibadmin.xml")).unwrap();
        let cib = cib.replace("\"/mnt/gfs2-storage\"", &format!("\"{}\"", mount.display()));
        assert!(cib.contains(&format!("\"{}\"", mount.display())));
        traced.tree.write("cib.xml", &cib);
        traced.tree.write("dlm.txt", "");
        let text = traced.tree.path("dlm.txt");
        traced.tree.program("dlm_tool", &format!("cat '{}'", text.display()));
        Some(traced)
    }

    /// The directory that acts as a mounted GFS2 file system.
    fn mount(&self) -> PathBuf {
        self.site.path("gfs2")
    }

    /// A `cibadmin` that runs `script` before it prints the CIB.
    fn be_asked(&self, script: &str) {
        let cib = self.tree.path("cib.xml");
        self.tree.program("cibadmin", &format!("{script}\ncat '{}'", cib.display()));
    }

    /// Fences once, with a watcher and an agent that are traced with all their children.
    fn fence(&self) {
        let Traced { site, .. } = self;
        site.configure(&site.simulated("power", "acknowledge_dlm = true"));
        let service = site.watcher_command(SERVICE);
        let mut traced = self.strace("trace-watcher");
        traced.args(["-D", "--"]).arg(service.get_program()).args(service.get_args());
        let variables = service.get_envs().filter_map(|(name, value)| Some((name, value?)));
        traced.env_clear().envs(variables);
        let (watcher, _told) = site.start_as(traced);
        let pid = watcher.pid();
        let mut traced = self.strace("trace-agent");
        traced.arg("--").arg(agent_program());

        site.agent_as(traced, &format!("action=off\nplug=node2\n{PATIENT}"))
            .wait()
            .assert_success();
        let found = &site.audit()[0]["gfs2_discovery"];
        assert_eq!(found["sources"]["cib"]["state"], "answered", "{found}");
        watcher.await_log("told DLM that it is fenced");
        watcher.stop();
        wait_for("the whole trace", || {
            site.lines("trace-watcher")
                .iter()
                .any(|line| line.starts_with(&format!("{pid} ")) && line.contains("+++ exited"))
        });
    }

    fn strace(&self, name: &str) -> Command {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-q", "-e", "trace=%file,fchdir", "-o"]).arg(self.site.path(name));
        strace
    }

    fn touched(&self, trace: &str) -> Vec<PathBuf> {
        self.site.lines(trace).iter().flat_map(|line| paths(line)).collect()
    }

    /// The trace covers the right programs: they touched these paths.
    fn expect_touched(&self, trace: &str, ends: &[&str]) {
        let touched = self.touched(trace);
        for end in ends {
            let end = end.trim_start_matches('/');
            assert!(touched.iter().any(|path| path.ends_with(end)), "{end}: {touched:#?}");
        }
    }

    /// The touched paths on GFS2, by the test's own table and by this machine's.
    fn violations(&self) -> Vec<String> {
        let mut mounts = vec![self.mount()];
        let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let gfs2 = own.lines().filter(|line| line.contains(" - gfs2 "));
        mounts.extend(gfs2.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from));
        let touched = ["trace-agent", "trace-watcher"].iter().flat_map(|trace| self.touched(trace));
        let on_gfs2 = touched.filter(|path| mounts.iter().any(|mount| path.starts_with(mount)));
        on_gfs2.map(|path| path.display().to_string()).collect()
    }
}

/// The paths in a line of a trace: each text, and the target of each descriptor. A relative path
/// starts at the directory before it, otherwise at `/`, the working directory of all traced
/// programs.
fn paths(line: &str) -> Vec<PathBuf> {
    let Some((call, mut rest)) = line.split_once('(') else { return Vec::new() };
    let mut base = PathBuf::from("/");
    let mut paths = Vec::new();
    while let Some(start) = rest.find(['<', '"']) {
        let is_text = rest[start..].starts_with('"');
        let Some((inside, after)) = rest[start + 1..].split_once(if is_text { '"' } else { '>' })
        else {
            break;
        };
        if is_text {
            paths.push(normal(&base.join(inside)));
        } else {
            base = normal(Path::new(inside));
            paths.push(base.clone());
        }
        // The program's arguments follow; the kernel does not look at them as paths.
        if call.ends_with("execve") {
            break;
        }
        rest = after;
    }
    paths
}

/// `path` without `.`, `..` and doubled slashes, without a look at the disk.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, part| {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            other => normal.push(other),
        }
        normal
    })
}
