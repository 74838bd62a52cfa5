//! Another process replaces a checked file or directory, as fast as the kernel can, while the spool
//! uses it: the spool always uses what it has checked.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fence_protocol::{RecordName, RequestId};
use fence_spool::{ClientSpool, Look, Places, TrustedFile};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// The number of uses. A check of another file than the used one fails after a handful.
const ROUNDS: usize = 5_000;

/// The limit of the wait for both outcomes.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn no_request_reaches_a_directory_that_is_exchanged_for_the_checked_one() {
    for through_links in [false, true] {
        let site = Site::new();
        let (trusted, open) = (site.spool("trusted", 0o700), site.spool("open", 0o777));
        let (mut at, mut other) = (trusted.clone(), open.clone());
        if through_links {
            (at, other) = (site.path("at"), site.path("other"));
            symlink(&trusted, &at).unwrap();
            symlink(&open, &other).unwrap();
        }

        let submitted = exchanging(&at, &other, || {
            let places = Places::new(at.join("requests"), at.join("responses"));
            let Ok(spool) = ClientSpool::open(&places) else { return false };
            let name = RecordName::of_id(&RequestId::random());
            spool.submit(&name, b"{}").unwrap();
            true
        });

        let mut counts = [0, 0];
        for requests in [trusted.join("requests"), open.join("requests")] {
            let is_open = fs::metadata(&requests).unwrap().permissions().mode() & 0o77 != 0;
            counts[usize::from(is_open)] = fs::read_dir(&requests).unwrap().count();
        }
        assert_eq!(counts, [submitted, 0], "trusted, open to others; links: {through_links}");
    }
}

#[test]
fn no_answer_that_replaces_the_checked_one_is_trusted() {
    let site = Site::new();
    let spool = site.spool("spool", 0o700);
    let places = Places::new(spool.join("requests"), spool.join("responses"));
    let spool = ClientSpool::open(&places).unwrap();
    let name = RecordName::of_id(&RequestId::random());
    let answer = places.responses.join(name.file_name());

    site.for_each_bad_file(&answer, || match spool.look(&name) {
        Look::Found(bytes) => Some(bytes),
        Look::Refused(_) | Look::Failed(_) => None,
        Look::Absent => panic!("one of the two is always there"),
    });
}

#[test]
fn no_configuration_or_secret_that_replaces_the_checked_one_is_read() {
    let site = Site::new();
    let path = site.path("secret");

    site.for_each_bad_file(&path, || TrustedFile::find(&path).and_then(|file| file.read(100)).ok());
}

/// Runs `deed` again and again while `first` and `second` change places without a pause. `deed`
/// returns whether it was allowed, and each outcome must occur. Returns the number of allowed runs.
fn exchanging(first: &Path, second: &Path, deed: impl Fn() -> bool) -> usize {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, first, AT_FDCWD, second, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        // Also ends after a failing `deed`: otherwise the test would hide the failure.
        let _end = End(&is_over);
        let began = Instant::now();
        let (mut refused, mut allowed) = (0, 0);
        while refused + allowed < ROUNDS || refused == 0 || allowed == 0 {
            *if deed() { &mut allowed } else { &mut refused } += 1;
            assert!(began.elapsed() < PATIENCE, "{refused} times refused, {allowed} times not");
        }
        allowed
    })
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A directory for one test.
struct Site(PathBuf);

impl Site {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("fence-races-{}", RequestId::random()));
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Site(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A spool in the directory `name`, whose directories have this mode.
    fn spool(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        for directory in [path.clone(), path.join("requests"), path.join("responses")] {
            fs::create_dir(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        }
        path
    }

    /// Replaces a good file at `path` by each kind of bad one while `read` reads it; `None` if
    /// `read` refuses.
    fn for_each_bad_file(&self, path: &Path, read: impl Fn() -> Option<Vec<u8>>) {
        let (bad, elsewhere) = (self.path("bad"), self.path("elsewhere"));
        write(&elsewhere, 0o666, "bad");
        for kind in ["open to others", "a link", "a FIFO"] {
            write(path, 0o600, "good");
            match kind {
                "a link" => symlink(&elsewhere, &bad).unwrap(),
                "a FIFO" => mkfifo(&bad, Mode::S_IRWXU).unwrap(),
                _ => write(&bad, 0o666, "bad"),
            }

            exchanging(path, &bad, || {
                let read = read();
                assert!(read.as_ref().is_none_or(|bytes| bytes == b"good"), "{kind}: {read:?}");
                read.is_some()
            });

            fs::remove_file(path).unwrap();
            fs::remove_file(&bad).unwrap();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(path: &Path, mode: u32, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
