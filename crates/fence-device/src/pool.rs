//! Asks many items at once, with as many threads as are available, and makes calls without a limit.
//!
//! The caller always takes part. So all items are asked even if no thread can be started: one after
//! the other, each within its limit. All callers share one bound, so that many questions at once do
//! not use up the threads that executions need.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;
use std::{io, thread};

use crate::{Limit, Subject};

/// How many items one call of [`ask_all`] asks at the same time.
const AT_ONCE_MAX: usize = 32;

/// The stack of a thread that asks a device or drives it, in bytes. Many may run at once.
pub const HELPER_STACK_BYTES: usize = 256 * 1024;

/// The threads that help all callers together.
static HELPERS: Places = Places::new(192);

/// Asks each of `items`, many at the same time. Returns the answers in the order of `items`.
pub fn ask_all<T: Sync, A: Send>(items: &[T], ask: impl Fn(&T) -> A + Sync) -> Vec<A> {
    ask_some(items, AT_ONCE_MAX, ask)
}

/// The same with at most `at_once` at the same time.
pub fn ask_some<T: Sync, A: Send>(
    items: &[T],
    at_once: usize,
    ask: impl Fn(&T) -> A + Sync,
) -> Vec<A> {
    let subject = Subject::of_this_thread();
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let work = || {
        let take = || {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).map(|item| (at, item))
        };
        while let Some((at, item)) = take() {
            let answer = ask(item);
            lock(&answers).push((at, answer));
        }
    };
    thread::scope(|scope| {
        for _ in 1..items.len().min(at_once) {
            let Some(place) = HELPERS.take() else { break };
            let help = || {
                let _place = place;
                subject.within(work);
            };
            let thread =
                thread::Builder::new().name("ask".to_owned()).stack_size(HELPER_STACK_BYTES);
            if thread.spawn_scoped(scope, help).is_err() {
                break;
            }
        }
        work();
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_unstable_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Runs `ask` in a separate thread and waits for its answer until `limit`, for calls without a
/// limit. The thread ends with its call, even after the limit.
pub(crate) fn ask_until<A: Send + 'static>(
    limit: Limit,
    ask: impl FnOnce() -> io::Result<A> + Send + 'static,
) -> io::Result<A> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new().spawn(move || {
        // The receiver is gone when the limit has passed.
        let _ = sender.send(ask());
    })?;
    let answer = receiver.recv_timeout(Duration::from_millis(limit.left_ms()));
    answer.unwrap_or_else(|_| Err(io::Error::other("no answer in time")))
}

/// Locks `mutex`. No holder of the crate's locks panics, and the data would stay whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bounded number of places for threads.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    max: usize,
}

/// One of the places; it is free again when this value is dropped.
#[derive(Debug)]
pub struct Place(&'static Places);

impl Places {
    /// `max` places, all free.
    pub const fn new(max: usize) -> Self {
        Places { taken: AtomicUsize::new(0), max }
    }

    /// Takes a place, if one is free.
    pub fn take(&'static self) -> Option<Place> {
        let next = |taken| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok().map(|_| Place(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn all_are_asked_at_the_same_time_and_answers_keep_their_order() {
        let items: Vec<usize> = (0..AT_ONCE_MAX).collect();
        let all_are_here = Barrier::new(items.len());

        // It would never end if one had to wait for another's end.
        let answers = ask_all(&items, |item| {
            all_are_here.wait();
            item * 2
        });

        assert_eq!(answers, items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn the_number_of_places_is_bounded_and_a_place_that_is_given_back_is_taken_again() {
        static PLACES: Places = Places::new(2);
        let (first, second) = (PLACES.take(), PLACES.take());
        assert!(first.is_some() && second.is_some() && PLACES.take().is_none());

        drop(first);

        assert!(PLACES.take().is_some());
    }

    #[test]
    fn what_gives_no_answer_is_waited_for_until_the_limit() {
        let (gate, opened) = mpsc::channel::<()>();
        let waiting = ask_until(Limit::in_ms(20), move || opened.recv().map_err(io::Error::other));
        assert_eq!(waiting.unwrap_err().to_string(), "no answer in time");
        drop(gate);

        assert_eq!(ask_until(Limit::in_ms(60_000), || Ok(7)).unwrap(), 7);
        let failed = ask_until(Limit::in_ms(60_000), || Err::<(), _>(io::Error::other("broken")));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
    }

    #[test]
    fn those_who_ask_within_a_question_are_answered_however_many_they_are() {
        let many: Vec<usize> = (0..3 * AT_ONCE_MAX).collect();

        let sums = ask_all(&many, |one| ask_all(&many, |other| one + other).iter().sum::<usize>());

        let sum: usize = many.iter().sum();
        assert_eq!(sums, many.iter().map(|one| one * many.len() + sum).collect::<Vec<_>>());
    }
}
