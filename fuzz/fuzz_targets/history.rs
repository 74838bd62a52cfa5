//! The audit's JSON log, cut, mixed or written by hand: what is read is written again as one line
//! in each log, and reads the same.
#![no_main]

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use chrono::{Datelike, SubsecRound};
use fence_audit::history::{Filter, read};
use fence_audit::{AuditEvent, AuditLog, DETAILED_LOG, EVENTS_LOG, READABLE_LOG};
use fence_log::is_plain;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DIRECTORY: RefCell<Directory> = RefCell::new(Directory::new());
}

fuzz_target!(|bytes: &[u8]| DIRECTORY.with_borrow(|directory| check(directory, bytes)));

fn check(directory: &Directory, bytes: &[u8]) {
    fs::write(directory.0.join(DETAILED_LOG), bytes).expect("the log is written");
    let mut events = directory.events();
    // Several stand in one line where lines were cut; each begins with its time.
    let begins = bytes.windows(12).filter(|part| part == b"{\"timestamp\"").count();
    assert!(events.len() <= bytes.split(|byte| *byte == b'\n').count() + begins);
    // Years of more than four digits have no RFC 3339 form.
    events.retain(|event| (0..=9999).contains(&event.timestamp.year()));
    if events.is_empty() {
        return;
    }

    for name in [EVENTS_LOG, READABLE_LOG, DETAILED_LOG] {
        File::create(directory.0.join(name)).expect("the log is emptied");
    }
    let mut log = AuditLog::open(&directory.0);
    for event in &mut events {
        event.timestamp = event.timestamp.trunc_subsecs(3);
        assert_eq!(log.record(event), [""; 0]);
    }
    for name in [EVENTS_LOG, READABLE_LOG, DETAILED_LOG] {
        let text = fs::read_to_string(directory.0.join(name)).expect("the log is text");
        assert_eq!(text.matches('\n').count(), events.len(), "{name}: {text}");
        assert!(text.chars().all(|c| c == '\n' || is_plain(c)), "{name}: {text:?}");
    }
    assert_eq!(directory.events(), events);
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("fence-fuzz-history-{}", std::process::id()));
        DirBuilder::new().mode(0o750).create(&path).expect("the directory is made");
        Directory(path)
    }

    fn events(&self) -> Vec<AuditEvent> {
        read(&self.0, Filter::default()).expect("the log is opened").collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
