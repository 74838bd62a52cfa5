//! The valid values of each kind of parameter.

use std::time::Duration;

use crate::input::yes_or_no;
use crate::parameters::Kind;

pub(super) fn seconds(text: &str) -> Option<Duration> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = text.parse().ok().filter(|_| is_plain)?;
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    (time <= Duration::from_secs(TIME_SECONDS_MAX)).then_some(time)
}

pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains('\0')
}

/// Whether `value` is of this kind.
pub(super) fn is_of_kind(kind: Kind, value: &str) -> bool {
    match kind {
        Kind::Seconds => seconds(value).is_some(),
        Kind::Path => is_path(value),
        Kind::Boolean | Kind::Flag => yes_or_no(value).is_some(),
        Kind::Select(words) => words.contains(&value),
        Kind::Text | Kind::Integer => true,
    }
}

/// The valid values of this kind, in words.
pub(super) fn should_be(kind: Kind) -> &'static str {
    match kind {
        Kind::Seconds => "a number of seconds from 0 to 86400",
        Kind::Path => "a path that starts with '/'",
        Kind::Boolean | Kind::Flag => "yes or no",
        Kind::Select(_) => "one of the known words",
        Kind::Text | Kind::Integer => "a value of another kind",
    }
}

/// The longest time that an option may give, in seconds: a day.
pub(super) const TIME_SECONDS_MAX: u64 = 86_400;
