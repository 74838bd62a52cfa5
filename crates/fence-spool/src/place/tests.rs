//! The walk to a directory, and what it refuses.

use super::*;
use crate::testing::{Scratch, give_away, mode, set_mode, write};
use nix::sys::statfs::PROC_SUPER_MAGIC;
use nix::unistd::mkfifo;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};

fn walk(wanted: &Path, create: bool, forbidden: FsType) -> Result<OwnedFd, PlaceError> {
    Walk { wanted, use_as: Use::Spool, create, forbidden }.open()
}

#[test]
fn a_directory_is_reached_through_links_and_steps_up() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.join("real/requests")).unwrap();
    set_mode(&scratch.join("real"), 0o755);
    set_mode(&scratch.join("real/requests"), 0o700);
    symlink(scratch.join("real"), scratch.join("absolute")).unwrap();
    symlink("../real/./requests/", scratch.join("real/relative")).unwrap();
    let wanted = fs::metadata(scratch.join("real/requests")).unwrap().ino();

    for path in
        ["real/requests", "absolute/requests", "absolute/relative", "real/../real/requests/"]
    {
        let directory = File::from(open_dir(&scratch.join(path)).unwrap());
        assert_eq!(directory.metadata().unwrap().ino(), wanted, "{path}");
    }
}

#[test]
fn an_examination_refuses_what_a_walk_refuses_and_makes_nothing() {
    let scratch = Scratch::new();
    assert!(examine_dir(&scratch.join("a/b")).is_ok());
    assert!(!scratch.join("a").exists());
    fs::create_dir(scratch.join("open")).unwrap();
    set_mode(&scratch.join("open"), 0o777);
    write(&scratch.join("file"), b"");
    for path in ["open", "open/below", "file", "file/below"] {
        let path = scratch.join(path);
        for examine in [examine_dir, examine_log_dir] {
            let error = examine(&path).unwrap_err().to_string();
            assert_eq!(error, create_dir(&path).unwrap_err().to_string());
        }
    }
    // The group of a directory of logs may be trusted, as in /var/log.
    set_mode(&scratch.join("open"), 0o770);
    assert!(examine_log_dir(&scratch.join("open")).is_ok());
    assert!(examine_dir(&scratch.join("open")).is_err());

    let walk = |wanted, use_as| Walk { wanted, use_as, create: false, forbidden: PROC_SUPER_MAGIC };
    for path in ["/proc", "/proc/no-such-directory"] {
        for use_as in [Use::Spool, Use::Log] {
            let error = walk(Path::new(path), use_as).examine().unwrap_err();
            assert!(matches!(error, PlaceError::Gfs2 { .. }), "{error}");
        }
    }
}

#[test]
fn an_examination_finds_a_directory_in_which_nothing_can_be_made() {
    let scratch = Scratch::new();
    set_mode(&scratch.join(""), 0o500);
    // Root may write there all the same, so root needs a file system that is mounted for
    // reading.
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut read_only = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, options) = (words.next()?, words.nth(1)?);
        let is_read_only = options.split(',').any(|option| option == "ro");
        (is_read_only && open_log_dir(Path::new(path)).is_ok()).then(|| PathBuf::from(path))
    });
    let place = if geteuid().is_root() { read_only.next() } else { Some(scratch.join("")) };
    let Some(place) = place else { return };

    for path in [place.clone(), place.join("no-such-directory/below")] {
        let error = examine_dir(&path).unwrap_err();
        let expected = format!("cannot write to '{}", place.display());
        assert!(error.to_string().starts_with(expected.trim_end_matches('/')), "{error}");
    }
    set_mode(&scratch.join(""), 0o700);
}

#[test]
fn a_log_that_cannot_be_appended_to_is_found_without_making_one() {
    let scratch = Scratch::new();
    assert!(examine_log(&scratch.join("log")).is_ok());
    assert!(!scratch.join("log").exists());
    mkfifo(&scratch.join("fifo"), Mode::S_IRWXU).unwrap();
    write(&scratch.join("open"), b"");
    set_mode(&scratch.join("open"), 0o666);
    for name in ["fifo", "open"] {
        let path = scratch.join(name);
        let error = examine_log(&path).unwrap_err().to_string();
        assert_eq!(error, open_append(&path).unwrap_err().to_string());
    }
}

#[test]
fn links_in_a_circle_are_refused() {
    let scratch = Scratch::new();
    symlink("b", scratch.join("a")).unwrap();
    symlink("a", scratch.join("b")).unwrap();

    let error = open_dir(&scratch.join("a")).unwrap_err();

    assert!(matches!(error, PlaceError::Links { .. }), "{error}");
}

#[test]
fn a_path_that_depends_on_the_working_directory_is_refused() {
    for path in ["", "spool", "./spool", "../spool"] {
        let error = open_dir(Path::new(path)).unwrap_err();
        assert!(matches!(error, PlaceError::Relative { .. }), "{path}: {error}");
        let error = open_append(Path::new(path)).unwrap_err();
        assert!(error.to_string().starts_with(&format!("'{path}' is not absolute")), "{error}");
    }
}

#[test]
fn what_is_missing_is_named_together_with_the_mend() {
    let scratch = Scratch::new();
    let wanted = scratch.join("fencing/requests");

    let text = open_dir(&wanted).unwrap_err().to_string();

    let missing = scratch.join("fencing");
    assert!(text.starts_with(&format!("'{}' does not exist", missing.display())), "{text}");
    // A watcher that runs may serve another directory: to start one helps nobody then.
    assert!(text.contains("start fence-watcher") && text.contains("if it runs"), "{text}");

    let text = open_log_dir(&wanted).unwrap_err().to_string();
    assert!(text.ends_with(&format!("run `install -d -m 0750 '{}'`", wanted.display())), "{text}");
    let text = open_append(&wanted.join("x.log")).unwrap_err().to_string();
    assert!(text.ends_with(&format!("run `install -d -m 0750 '{}'`", wanted.display())), "{text}");
    assert!(!missing.exists());
}

#[test]
fn a_file_in_the_place_of_a_directory_is_refused() {
    let scratch = Scratch::new();
    write(&scratch.join("file"), b"");
    mkfifo(&scratch.join("fifo"), Mode::S_IRWXU).unwrap();

    for path in ["file", "file/below", "fifo", "fifo/below"] {
        let error = open_dir(&scratch.join(path)).unwrap_err();
        assert!(matches!(error, PlaceError::NotDirectory { .. }), "{path}: {error}");
    }
}

#[test]
fn a_directory_that_others_can_write_to_is_refused_wherever_it_stands() {
    let scratch = Scratch::new();
    let (above, last) = (scratch.join("above"), scratch.join("above/last"));
    fs::create_dir_all(&last).unwrap();
    let refused = |path: &Path| {
        let error = open_dir(&last).unwrap_err();
        assert!(matches!(&error, PlaceError::Writable { path: p, .. } if p == path), "{error}");
        assert!(error.to_string().contains("chmod go-w"), "{error}");
    };
    for mode in [0o770, 0o702, 0o777] {
        set_mode(&above, 0o700);
        set_mode(&last, mode);
        refused(&last);
        set_mode(&last, 0o700);
        set_mode(&above, mode);
        refused(&above);
    }
    // In a sticky directory nobody can replace what is ours; but the last one holds the
    // records.
    set_mode(&above, 0o1777);
    assert!(open_dir(&last).is_ok());
    set_mode(&last, 0o1777);
    refused(&last);
}

#[test]
fn a_directory_or_link_of_another_user_is_refused() {
    let scratch = Scratch::new();
    let (above, last) = (scratch.join("above"), scratch.join("above/last"));
    let link = scratch.join("link");
    fs::create_dir_all(&last).unwrap();
    set_mode(&last, 0o700);
    symlink(&last, &link).unwrap();
    let refused = |wanted: &Path, path: &Path| {
        let error = open_dir(wanted).unwrap_err();
        assert!(matches!(&error, PlaceError::Owner { path: p, .. } if p == path), "{error}");
        assert!(error.to_string().contains("chown root: '"), "{error}");
    };
    if !give_away(&link) {
        return;
    }
    refused(&link, &link);
    give_away(&last);
    refused(&last, &last);
    give_away(&above);
    refused(&last, &above);
}

#[test]
fn nothing_below_a_forbidden_file_system_is_touched() {
    let scratch = Scratch::new();
    symlink("/proc/self", scratch.join("link")).unwrap();

    // What does not exist below would be reported as missing, had anybody looked.
    for path in ["/proc", "/proc/no-such-thing", "/proc/self/cwd/x"]
        .map(PathBuf::from)
        .into_iter()
        .chain([scratch.join("link"), scratch.join("link/no-such-thing")])
    {
        for create in [false, true] {
            let error = walk(&path, create, PROC_SUPER_MAGIC).unwrap_err();
            let PlaceError::Gfs2 { path: named } = &error else { panic!("{error}") };
            assert_eq!(named, Path::new("/proc"), "{error}");
        }
        let log = path.join("log");
        assert!(matches!(append(&log, PROC_SUPER_MAGIC), Err(PlaceError::Gfs2 { .. })));
    }
    assert!(walk(Path::new("/"), false, PROC_SUPER_MAGIC).is_ok());
    // The log itself can be another file system's, too.
    let log = append(Path::new("/proc"), PROC_SUPER_MAGIC);
    assert!(matches!(log, Err(PlaceError::Gfs2 { .. })));
}

#[test]
fn on_a_forbidden_file_system_no_directory_is_made() {
    let scratch = Scratch::new();
    let wanted = scratch.join("new/requests");
    let here = fstatfs(File::open(scratch.join(".")).unwrap()).unwrap().filesystem_type();

    let error = walk(&wanted, true, here).unwrap_err();

    assert!(matches!(error, PlaceError::Gfs2 { .. }), "{error}");
    assert!(!scratch.join("new").exists());
    assert!(append(&scratch.join("log"), here).is_err());
    assert!(!scratch.join("log").exists());
}

#[test]
fn gfs2_is_known_by_its_number_and_the_error_says_what_to_do() {
    assert_eq!(GFS2, FsType(18_225_520));
    let text = PlaceError::Gfs2 { path: "/mnt/shared".into() }.to_string();
    assert!(text.starts_with("'/mnt/shared' is on GFS2"), "{text}");
    assert!(text.ends_with("use a directory on a local file system"), "{text}");
}

#[test]
fn missing_directories_are_made_with_their_modes_whatever_the_umask() {
    // The umask belongs to the whole process, so this test runs again in one of its own.
    if std::env::var_os("FENCE_SPOOL_UMASK").is_none() {
        let script = "umask 0777 && exec \"$0\" --exact \"$1\"";
        let test = "place::tests::missing_directories_are_made_with_their_modes_whatever_the_umask";
        let status = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env("FENCE_SPOOL_UMASK", "0777")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.join("a/b/requests");

    create_dir(&path).unwrap();

    assert_eq!(mode(&scratch.join("a")), 0o755);
    assert_eq!(mode(&scratch.join("a/b")), 0o755);
    assert_eq!(mode(&path), 0o700);
    set_mode(&path, 0o750);
    create_dir(&path).unwrap();
    assert_eq!(mode(&path), 0o750, "what is there keeps the mode that its owner gave it");
    let file = crate::dir::Dir::open(&path).unwrap().write_new("record", b"x").unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_log_is_made_once_and_then_appended_to() {
    let scratch = Scratch::new();
    let path = scratch.join("events.log");

    open_append(&path).unwrap().write_all(b"one\n").unwrap();
    open_append(&path).unwrap().write_all(b"two\n").unwrap();

    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    assert_eq!(mode(&path) & !0o640, 0);
}

#[test]
fn a_log_directory_may_be_open_to_its_group_or_sticky() {
    let scratch = Scratch::new();
    let (directory, path) = (scratch.join("log"), scratch.join("log/events.log"));
    fs::create_dir(&directory).unwrap();

    for mode in [0o700, 0o750, 0o775, 0o1777] {
        set_mode(&directory, mode);
        assert!(open_append(&path).is_ok(), "{mode:o}");
        assert!(open_log_dir(&directory).is_ok(), "{mode:o}");
    }
    set_mode(&directory, 0o777);
    assert!(matches!(open_log_dir(&directory), Err(PlaceError::Writable { .. })));
    assert!(matches!(open_append(&path), Err(PlaceError::Writable { .. })));
}

#[test]
fn what_is_no_log_of_ours_is_refused_and_never_blocks() {
    let scratch = Scratch::new();
    let path = scratch.join("events.log");
    let refused = || {
        let error = open_append(&path).unwrap_err();
        assert!(matches!(error, PlaceError::NotRegular { .. }), "{error}");
        fs::remove_file(&path).unwrap();
    };
    write(&scratch.join("precious"), b"precious");
    symlink(scratch.join("precious"), &path).unwrap();
    refused();
    fs::hard_link(scratch.join("precious"), &path).unwrap();
    refused();
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    refused();
    assert_eq!(fs::read(scratch.join("precious")).unwrap(), b"precious");
    write(&path, b"");
    set_mode(&path, 0o666);
    assert!(matches!(open_append(&path), Err(PlaceError::Writable { .. })));
    set_mode(&path, 0o640);
    if give_away(&path) {
        assert!(matches!(open_append(&path), Err(PlaceError::Owner { .. })));
    }
    assert!(matches!(open_append(Path::new("/")), Err(PlaceError::NotRegular { .. })));
    assert!(matches!(open_append(Path::new("log")), Err(PlaceError::Relative { .. })));
}
