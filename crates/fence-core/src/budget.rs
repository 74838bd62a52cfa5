//! How the agent divides its time: how much of `fence_timeout` each part of a fence may use.

use std::time::Duration;

/// The time of one run of the agent, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    start_boot_ms: u64,
    time_max: Duration,
}

impl Budget {
    /// The time of an agent that started at `start_boot_ms` and must end within `time_max`.
    pub fn new(start_boot_ms: u64, time_max: Duration) -> Self {
        Budget { start_boot_ms, time_max }
    }

    /// The instant at which the agent must have ended.
    pub fn end_boot_ms(self) -> u64 {
        self.instant(self.time_max)
    }

    /// The deadline of the request: nothing starts after it. The time between the deadline and the
    /// end is reserved for the withdrawal and the audit.
    pub fn deadline_boot_ms(self) -> u64 {
        self.instant(patience(self.time_max))
    }

    /// The instant at which the agent stops waiting and withdraws its request: half-way between the
    /// deadline and the end, so that the last answer still arrives.
    pub fn stop_boot_ms(self) -> u64 {
        self.instant(self.time_max.saturating_sub(reserve(self.time_max) / 2))
    }

    /// The instant at which a delay ends.
    pub fn delayed_boot_ms(self, delay: Duration) -> u64 {
        self.instant(delay)
    }

    /// How long the agent has been running.
    pub fn elapsed(self, now_boot_ms: u64) -> Duration {
        Duration::from_millis(now_boot_ms.saturating_sub(self.start_boot_ms))
    }

    /// The total time for all searches for file systems and names that start now.
    pub fn search(self, now_boot_ms: u64) -> Duration {
        self.left(now_boot_ms) / 4
    }

    /// The time limit for a question that a monitor asks beside the watcher now.
    pub fn side_question(self, now_boot_ms: u64) -> Duration {
        self.left(now_boot_ms) / 2
    }

    /// How long a log may delay the agent's end now.
    pub fn log(self, now_boot_ms: u64) -> Duration {
        self.left(now_boot_ms).clamp(LOG_TIME_MIN, LOG_TIME_MAX)
    }

    fn left(self, now_boot_ms: u64) -> Duration {
        self.time_max.saturating_sub(self.elapsed(now_boot_ms))
    }

    /// The instant that lies `time` after the start.
    fn instant(self, time: Duration) -> u64 {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.start_boot_ms.saturating_add(milliseconds)
    }
}

/// Whether a delay leaves time to fence within `time_max`: the delay must end before the deadline.
pub fn admits_delay(time_max: Duration, delay: Duration) -> bool {
    delay < patience(time_max)
}

/// From the start to the deadline.
fn patience(time_max: Duration) -> Duration {
    time_max.saturating_sub(reserve(time_max))
}

/// The last part of `time_max`, reserved for the withdrawal and the audit.
fn reserve(time_max: Duration) -> Duration {
    (time_max / 10).clamp(RESERVE_MIN, RESERVE_MAX)
}

/// The shortest reserve.
const RESERVE_MIN: Duration = Duration::from_millis(200);

/// The longest reserve.
const RESERVE_MAX: Duration = Duration::from_secs(2);

/// How long a log may delay the agent's end.
const LOG_TIME_MAX: Duration = Duration::from_millis(500);

/// The same limit after the agent's time is over: as long as a log that does not hang needs.
const LOG_TIME_MIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000;

    /// The deadline, the end of the wait and the end, in milliseconds after the start.
    fn instants(time_max: Duration) -> [u64; 3] {
        let budget = Budget::new(START, time_max);
        [budget.deadline_boot_ms(), budget.stop_boot_ms(), budget.end_boot_ms()]
            .map(|instant| instant - START)
    }

    #[test]
    fn the_reserve_is_a_tenth_within_bounds() {
        for (time_max_ms, expected) in [
            (0, [0, 0, 0]),
            (1, [0, 0, 1]),
            (150, [0, 50, 150]),
            (200, [0, 100, 200]),
            (1_000, [800, 900, 1_000]),
            (2_000, [1_800, 1_900, 2_000]),
            (10_000, [9_000, 9_500, 10_000]),
            (20_000, [18_000, 19_000, 20_000]),
            (60_000, [58_000, 59_000, 60_000]),
            (86_400_000, [86_398_000, 86_399_000, 86_400_000]),
        ] {
            assert_eq!(instants(Duration::from_millis(time_max_ms)), expected, "{time_max_ms} ms");
        }
    }

    #[test]
    fn a_time_beyond_all_measure_ends_with_the_clock() {
        let budget = Budget::new(START, Duration::MAX);
        for instant in [budget.deadline_boot_ms(), budget.stop_boot_ms(), budget.end_boot_ms()] {
            assert_eq!(instant, u64::MAX);
        }
        assert_eq!(
            budget.search(u64::MAX),
            Duration::MAX.saturating_sub(budget.elapsed(u64::MAX)) / 4
        );
        assert_eq!(Budget::new(u64::MAX, Duration::from_secs(1)).deadline_boot_ms(), u64::MAX);
    }

    #[test]
    fn a_delay_ends_before_the_deadline() {
        let admits = |time_max_ms, delay_ms| {
            admits_delay(Duration::from_millis(time_max_ms), Duration::from_millis(delay_ms))
        };
        for (time_max_ms, first_refused_ms) in
            [(1_000, 800), (10_000, 9_000), (60_000, 58_000), (86_400_000, 86_398_000)]
        {
            assert!(admits(time_max_ms, first_refused_ms - 1), "{time_max_ms} ms");
            assert!(!admits(time_max_ms, first_refused_ms), "{time_max_ms} ms");
        }
        assert!(!admits(0, 0) && !admits(1, 0) && !admits(200, 0) && admits(201, 0));
        assert!(!admits_delay(Duration::MAX, Duration::MAX));
        assert!(admits_delay(Duration::MAX, Duration::from_hours(24)));
        let budget = Budget::new(START, Duration::from_secs(1));
        assert_eq!(budget.delayed_boot_ms(Duration::from_millis(800)), START + 800);
    }

    #[test]
    fn each_part_gets_its_share_of_what_is_left() {
        for (time_max_ms, elapsed_ms, search_ms, side_ms, log_ms) in [
            (0, 0, 0, 0, 50),
            (1, 0, 0, 0, 50),
            (1_000, 0, 250, 500, 500),
            (1_000, 600, 100, 200, 400),
            (1_000, 940, 15, 30, 60),
            (1_000, 951, 12, 24, 50),
            (1_000, 1_000, 0, 0, 50),
            (1_000, 5_000, 0, 0, 50),
            (60_000, 20_000, 10_000, 20_000, 500),
        ] {
            let budget = Budget::new(START, Duration::from_millis(time_max_ms));
            let now = START + elapsed_ms;
            let shares = [budget.search(now), budget.side_question(now), budget.log(now)];
            let shares = shares.map(|share| share.as_millis());
            assert_eq!(shares, [search_ms, side_ms, log_ms], "{elapsed_ms} of {time_max_ms} ms");
        }
        // A clock that shows an instant before the start, which no clock should.
        let budget = Budget::new(START, Duration::from_secs(1));
        assert_eq!((budget.elapsed(0), budget.search(0).as_millis()), (Duration::ZERO, 250));
    }
}
