//! The runner of questions to fence devices, for the queries of clients and for [`crate::findings`].
//!
//! The runner asks a bounded number of devices at the same time, for a bounded time, with the
//! threads that all questions share ([`fence_device::ask_some`]). A device that does not respond
//! delays the answer of no other device.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use fence_device::{HELPER_STACK_BYTES, Limit, Places, Subject, ask_some};

/// How many clients are served at the same time, and how many devices are asked for each.
pub(crate) const ASKING_MAX: usize = 64;

/// How long before its client gives up a question is answered, in milliseconds: the answer names
/// the devices that did not respond. If less than four times as long is left: a quarter of that.
const ANSWER_RESERVE_MS: u64 = 1_000;

/// How long a device may take for one question, in milliseconds, if its client does not set a shorter time.
const ASK_MS: u64 = 20_000;

/// How long one device may take, and how long all devices are waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// No device is asked after this, and each ends its question by then.
    pub(crate) device: Limit,
    /// No device is waited for after this.
    pub(crate) all: Limit,
}

impl Limits {
    /// For a client that gives up at `deadline_boot_ms`.
    pub(crate) fn before(deadline_boot_ms: u64) -> Self {
        let left_ms = Limit { not_after_boot_ms: deadline_boot_ms }.left_ms();
        let reserve_ms = ANSWER_RESERVE_MS.min(left_ms / 4);
        Limits {
            device: Limit::in_ms((left_ms - reserve_ms).min(ASK_MS)),
            all: Limit::in_ms(left_ms - reserve_ms / 2),
        }
    }

    /// For a client that does not say when it gives up.
    pub(crate) fn of_unknown_client() -> Self {
        Limits { device: Limit::in_ms(ASK_MS), all: Limit::in_ms(2 * ASK_MS) }
    }
}

/// The threads that ask, also those whose client has given up: a thread that hangs in the kernel
/// never ends.
static THREADS: Places = Places::new(2 * ASKING_MAX);

/// Puts `question` to each of `items`, to many at the same time. Returns the answers in the order
/// of `items`: `None` if an item was not asked, or did not answer in time.
pub(crate) fn ask<T: Clone + Send + Sync + 'static, A: Send + 'static>(
    items: &[T],
    limits: Limits,
    question: impl Fn(&T) -> A + Send + Sync + 'static,
) -> Vec<Option<A>> {
    let mut answers: Vec<Option<A>> = items.iter().map(|_| None).collect();
    let Some(place) = THREADS.take() else { return answers };
    let (sender, receiver) = mpsc::channel();
    let numbered: Vec<(usize, T)> = items.iter().cloned().enumerate().collect();
    let run = Arc::new(move || {
        ask_some(&numbered, ASKING_MAX, |(at, item)| {
            if !limits.device.has_passed() {
                // The receiver is gone when nobody waits any more.
                let _ = sender.send((*at, question(item)));
            }
        });
    });
    let (subject, running) = (Subject::of_this_thread(), Arc::clone(&run));
    let thread = thread::Builder::new().name("ask".to_owned()).stack_size(HELPER_STACK_BYTES);
    let asking = move || {
        let _place = place;
        subject.within(|| running());
    };
    if thread.spawn(asking).is_err() {
        // Without a thread, this thread asks one item after the other.
        run();
    }
    // The channel ends with the last question.
    drop(run);
    while let Ok((at, answer)) = receiver.recv_timeout(Duration::from_millis(limits.all.left_ms()))
    {
        answers[at] = Some(answer);
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn within(milliseconds: u64) -> Limits {
        Limits { device: Limit::in_ms(milliseconds), all: Limit::in_ms(milliseconds) }
    }

    #[test]
    fn an_item_that_does_not_answer_by_the_limit_takes_no_answer_from_the_others() {
        let (gate, opened) = mpsc::channel::<()>();
        let opened = Mutex::new(opened);
        let question = move |item: &u32| {
            if *item == 1 {
                let _ = opened.lock().unwrap().recv();
            }
            item * 2
        };

        assert_eq!(ask(&[0, 1, 2], within(3_000), question), [Some(0), None, Some(4)]);
        drop(gate);
    }

    #[test]
    fn nothing_is_asked_after_the_limit() {
        assert_eq!(ask(&[1, 2], within(0), |item: &u32| *item), [None, None]);
    }

    #[test]
    fn a_question_that_panics_takes_no_answer_from_the_others() {
        let question = |item: &u32| {
            assert!(*item != 1, "this item's question fails");
            *item
        };

        let answers = ask(&[0, 1, 2], within(60_000), question);

        assert_eq!(answers, [Some(0), None, Some(2)]);
    }
}
