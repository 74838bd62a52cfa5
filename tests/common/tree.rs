//! A directory that replaces `/`: a copy of a capture, or one made by hand, with substitutes for
//! the programs.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part of this module")]

#[allow(clippy::duplicate_mod, reason = "some test programs have it from `common` too")]
#[path = "executable.rs"]
mod executable;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gfs2_discovery::{Discovery, Kubernetes, Report, Search, Source, Target, discover};

use executable::write_executable;

/// Far more time than any of these programs needs.
pub const PLENTY: Duration = Duration::from_mins(1);

pub struct Tree(PathBuf);

impl Tree {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let unique = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(format!("gfs2-discovery-{unique}"));
        Tree::at(path)
    }

    pub fn at(path: PathBuf) -> Self {
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Tree(path)
    }

    /// A copy of a capture, with a `cibadmin` that prints the captured CIB.
    pub fn of_capture(name: &str) -> Self {
        Tree::new().with_capture(name)
    }

    pub fn with_capture(self, name: &str) -> Self {
        let tree = self;
        let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let captures = above.map(|directory| directory.join("tests/captures"));
        copy(&captures.filter(|path| path.is_dir()).last().unwrap().join(name), &tree.0);
        tree.program("cibadmin", &format!("cat '{}'", tree.path("cibadmin.xml").display()));
        tree
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let parents =
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path.parent().unwrap());
        parents.unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_dir_all(self.path(name)).unwrap();
    }

    /// A substitute for a program: a shell script.
    pub fn program(&self, name: &str, script: &str) {
        let name = format!("usr/sbin/{name}");
        // With its parent directories.
        self.write(&name, "");
        write_executable(&self.path(&name), format!("#!/bin/sh\n{script}\n"));
    }

    /// A part of a script: it records its own process.
    pub fn notes_pid(&self) -> String {
        format!("echo $$ >>'{}'", self.path("pids").display())
    }

    /// The recorded processes, once there are this many.
    pub fn await_pids(&self, count: usize) -> Vec<String> {
        let mut pids = Vec::new();
        await_that("noted processes", || {
            let text = fs::read_to_string(self.path("pids")).unwrap_or_default();
            pids = text.split_terminator('\n').map(str::to_owned).collect();
            pids.len() == count
        });
        pids
    }

    pub fn search(&self, time_max: Duration) -> Search {
        Search { root: self.0.clone(), time_max, kubernetes: Kubernetes::default() }
    }

    pub fn discover(&self, node: &str) -> Discovery {
        discover(Target { plug: node, nodename: None }, &self.search(PLENTY))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn report(discovery: &Discovery, source: Source) -> &Report {
    let report = discovery.reports().iter().find(|(found, _)| *found == source);
    &report.unwrap().1
}

/// Why a source returned nothing.
pub fn blindness(discovery: &Discovery, source: Source) -> &str {
    match report(discovery, source) {
        Report::Blind(why) => why,
        other => panic!("{other:?}"),
    }
}

pub fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PLENTY;
    while !condition() {
        assert!(Instant::now() < until, "in vain: {what}");
        // The condition can be anything: nothing announces it.
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Whether a process with this number runs, and is not a zombie.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// With explicit modes: a checkout may be writable by a group.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::DirBuilder::new().mode(0o755).create(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::write(&to, fs::read(entry.path()).unwrap()).unwrap();
            fs::set_permissions(&to, PermissionsExt::from_mode(0o644)).unwrap();
        }
    }
}
