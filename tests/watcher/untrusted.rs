//! Untrusted files: links, pipes, files of other users. None blocks the watcher.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::mkfifo;

use super::{assert_only_a_good_request_is_executed, good_text, serving, set_mode};
use crate::common::{Site, can_be_run_as_root, new_id, request, wait_for};

/// A file under the name of a request that must not be read.
fn place_untrusted(site: &Site, what: &str, name: &str) {
    let path = site.spool.request(name);
    let request = request(&new_id(), "off", "n1");
    let outside = site.path("outside.json");
    match what {
        "a link to a request" => symlink(&outside, &path).unwrap(),
        "a link to a hidden request" => {
            fs::write(site.spool.requests.join(".hidden"), request.to_string()).unwrap();
            symlink(".hidden", &path).unwrap();
        }
        "a link to nothing" => symlink(site.path("nothing"), &path).unwrap(),
        "a link to a FIFO" => {
            mkfifo(&site.path("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
            symlink(site.path("pipe"), &path).unwrap();
        }
        "a link to a directory" => symlink(&site.spool.responses, &path).unwrap(),
        "a link to itself" => symlink(&path, &path).unwrap(),
        "a FIFO" => mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap(),
        "an empty directory" => fs::create_dir(&path).unwrap(),
        "a full directory" => {
            let made = site.spool.requests.join(".made");
            fs::create_dir_all(made.join("inner.json")).unwrap();
            fs::rename(made, path).unwrap();
        }
        "a socket" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
        "a device" => {
            let zero = nix::sys::stat::makedev(1, 5);
            mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, zero).unwrap();
        }
        _ => {
            // Completed elsewhere, so that it arrives with the owner and the mode.
            let made = site.spool.requests.join(".made");
            fs::write(&made, request.to_string()).unwrap();
            match what {
                "writable by its group" => set_mode(&made, 0o620),
                "writable by others" => set_mode(&made, 0o602),
                "another user's" => chown(&made, Some(65534), Some(65534)).unwrap(),
                other => unreachable!("{other}"),
            }
            fs::rename(made, path).unwrap();
        }
    }
}

#[test]
fn an_untrusted_file_is_refused_without_blocking() {
    let (site, watcher) = serving();
    let outside = request(&new_id(), "off", "n1").to_string();
    fs::write(site.path("outside.json"), &outside).unwrap();
    let mut cases = vec![
        "a link to a request",
        "a link to a hidden request",
        "a link to nothing",
        "a link to a FIFO",
        "a link to a directory",
        "a link to itself",
        "a FIFO",
        "an empty directory",
        "a full directory",
        "a socket",
        "writable by its group",
        "writable by others",
    ];
    if can_be_run_as_root("a device and another user's file") {
        cases.extend(["a device", "another user's"]);
    }

    for what in cases {
        let name = new_id();
        place_untrusted(&site, what, &name);
        let place = site.spool.request(&name);
        wait_for(&format!("{what} to be out of the way"), || place.symlink_metadata().is_err());
        watcher.await_log(&name);
        assert_eq!(site.spool.answer(&name), None, "{what}");
    }
    assert_eq!(site.read("outside.json"), outside);
    assert_only_a_good_request_is_executed(&site);
}

#[test]
fn a_good_request_that_an_untrusted_user_could_write_to_is_never_executed_at_a_start_either() {
    let site = Site::new();
    site.configure(&site.recorder("power", "n[1-9]", ""));
    site.start().stop();
    let (open, linked) = (new_id(), new_id());
    site.spool.submit(&open, &request(&open, "off", "n1"));
    set_mode(&site.spool.request(&open), 0o666);
    fs::write(site.path("outside.json"), good_text()).unwrap();
    symlink(site.path("outside.json"), site.spool.request(&linked)).unwrap();

    let _watcher = site.start();

    site.spool.await_quiet();
    assert_only_a_good_request_is_executed(&site);
}
