//! An event with any strings is one line in each log, and the history reads it unchanged.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::DateTime;
use fence_audit::history::{Filter, read};
use fence_audit::{
    AuditEvent, AuditLog, DETAILED_LOG, DiscoveryOutcome, DiscoveryRecord, EVENTS_LOG,
    READABLE_LOG, SourceRecord, SourceState, Status,
};
use fence_log::is_plain;
use fence_protocol::AuditResult;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_an_event_holds_it_is_one_line_and_is_read_again(
        events in proptest::collection::vec(event(), 1..4),
    ) {
        let directory = Directory::new();
        let mut log = AuditLog::open(&directory.0);
        for event in &events {
            prop_assert_eq!(log.record(event), [""; 0]);
        }

        for name in [EVENTS_LOG, READABLE_LOG, DETAILED_LOG] {
            let text = fs::read_to_string(directory.0.join(name)).unwrap();
            prop_assert_eq!(text.matches('\n').count(), events.len(), "{}: {:?}", name, text);
            prop_assert!(text.ends_with('\n'));
            prop_assert!(text.chars().all(|c| c == '\n' || is_plain(c)), "{}: {:?}", name, text);
        }
        let again: Vec<AuditEvent> = read(&directory.0, Filter::default()).unwrap().collect();
        prop_assert_eq!(again, events);
    }

    #[test]
    fn no_value_can_forge_a_field_before_the_details_of_the_readable_log(event in event()) {
        let directory = Directory::new();
        AuditLog::open(&directory.0).record(&event);

        let text = fs::read_to_string(directory.0.join(READABLE_LOG)).unwrap();
        let names: Vec<&str> =
            text.split(' ').take(6).map(|field| field.split('=').next().unwrap()).collect();
        prop_assert_eq!(&names[1..], ["ACTION", "TARGET", "GFS2", "STATUS", "DETAILS"], "{}", text);
    }
}

/// Texts in which the characters that separate lines and fields are frequent.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "([\n\r\t \u{0}\u{1b}\u{7f}\u{85}\u{2028}\u{202e}\\\\\",=\\[\\]]|[a-c]| STATUS=){0,12}"
    ]
}

prop_compose! {
    fn event()(
        milliseconds in -62_167_219_200_000..253_402_300_800_000_i64,
        action in text(),
        target_node in text(),
        gfs2_filesystems in proptest::collection::vec(text(), 0..3),
        status in prop::sample::select(&[Status::Requested, Status::Completed, Status::Failed]),
        details in text(),
        recorder_node in text(),
        pacemaker_action in text(),
        request_id in proptest::option::of(text()),
        result in proptest::option::of(text().prop_map(AuditResult::from)),
        duration_ms: Option<u64>,
        gfs2_discovery in proptest::option::of(discovery()),
        on_result in proptest::option::of(text()),
    ) -> AuditEvent {
        AuditEvent {
            timestamp: DateTime::from_timestamp_millis(milliseconds).expect("a common year"),
            action, target_node, gfs2_filesystems, status, details, recorder_node,
            pacemaker_action, request_id, result, duration_ms, gfs2_discovery, on_result,
        }
    }
}

prop_compose! {
    fn discovery()(
        outcome in prop::sample::select(&[DiscoveryOutcome::Found, DiscoveryOutcome::Unknown]),
        learned in proptest::collection::btree_map(
            text(), proptest::collection::vec(text(), 0..3), 0..3,
        ),
        sources in proptest::collection::btree_map(text(), proptest::option::of(text()), 0..3),
    ) -> DiscoveryRecord {
        let source = |why| SourceRecord { state: SourceState::Blind, why };
        let sources = sources.into_iter().map(|(name, why)| (name, source(why))).collect();
        DiscoveryRecord { outcome, learned, sources }
    }
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fence-audit-properties-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o750).create(&path).expect("the directory is made");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
