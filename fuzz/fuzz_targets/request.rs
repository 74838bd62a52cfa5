//! Request files, from whatever client: read without a panic, written again without a change.
#![no_main]

use chrono::{DateTime, Datelike, SubsecRound, Utc};
use fence_log::is_plain;
use fence_protocol::{Request, Requested};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match Request::parse(bytes) {
    Ok(request) => {
        assert!(str::from_utf8(bytes).is_ok());
        if let Requested::Unknown(word) = &request.action {
            assert!(word.len() <= 64, "{word}");
        }
        let is_inquiry = matches!(request.action, Requested::Inquiry(_));
        assert!(is_inquiry || request.target_node.is_some());
        let written = request.to_json();
        assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 1);
        if is_common(request.timestamp) && request.deadline.is_none_or(is_common) {
            assert_eq!(Request::parse(&written), Ok(in_milliseconds(request)));
        }
    }
    Err(rejection) => {
        let problem = rejection.error.to_string();
        assert!(problem.chars().all(is_plain) && problem.len() <= 300, "{problem:?}");
        assert!(rejection.action.is_none_or(|word| word.len() <= 64));
    }
});

/// Records hold milliseconds.
fn in_milliseconds(request: Request) -> Request {
    Request {
        timestamp: request.timestamp.trunc_subsecs(3),
        deadline: request.deadline.map(|deadline| deadline.trunc_subsecs(3)),
        ..request
    }
}

/// RFC 3339 has four digits for a year. At either end another zone's year can be one more.
fn is_common(instant: DateTime<Utc>) -> bool {
    (0..=9999).contains(&instant.year())
}
