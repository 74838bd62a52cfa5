//! Contact with many BMCs at once, for devices whose targets have one each.
//!
//! One dead BMC must not take all fencing away, so the device counts as reachable while one
//! answers, and the text names those that do not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use fence_protocol::{NodeName, bounded};

use crate::Reach;

/// Makes `contact` with the BMC of each of `targets`, many at the same time.
pub(crate) fn contact_all(
    targets: &[&NodeName],
    contact: impl Fn(&NodeName) -> Result<(), String> + Sync,
) -> Reach {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = contact(target) {
                let failure = (*target, why);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..targets.len().min(AT_ONCE_MAX) {
            // Where no more threads are to be had, those that are there do more.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_unstable();
    reach(targets.len(), &failures)
}

fn reach(all: usize, failures: &[(&NodeName, String)]) -> Reach {
    let reasons: Vec<String> =
        failures.iter().map(|(target, why)| format!("{target}: {why}")).collect();
    let reasons = bounded(&reasons.join("; "), TEXT_BYTES_MAX);
    match all - failures.len() {
        0 => Reach::Unreachable(format!("none of {all} BMCs can be asked: {reasons}")),
        answered if answered == all => Reach::Reachable(format!("{all} of {all} BMCs answered")),
        answered => Reach::Reachable(format!(
            "{answered} of {all} BMCs answered; cannot be asked: {reasons}"
        )),
    }
}

/// How many are asked at the same time.
const AT_ONCE_MAX: usize = 32;

/// How much of the reasons is passed on, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn nodes(names: &[&str]) -> Vec<NodeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn one_that_answers_is_enough_and_the_others_are_named() {
        let nodes = nodes(&["n3", "n1", "n2"]);
        let reach = |targets: &[usize], dead: &[&str]| {
            let targets: Vec<&NodeName> = targets.iter().map(|at| &nodes[*at]).collect();
            contact_all(&targets, |target| {
                if dead.contains(&target.as_str()) { Err("no answer".into()) } else { Ok(()) }
            })
        };
        let reachable = |text: &str| Reach::Reachable(text.into());
        let unreachable = |text: &str| Reach::Unreachable(text.into());

        assert_eq!(reach(&[0, 1, 2], &[]), reachable("3 of 3 BMCs answered"));
        assert_eq!(
            reach(&[0, 1, 2], &["n3", "n1"]),
            reachable("1 of 3 BMCs answered; cannot be asked: n1: no answer; n3: no answer")
        );
        assert_eq!(
            reach(&[0, 1], &["n3", "n1"]),
            unreachable("none of 2 BMCs can be asked: n1: no answer; n3: no answer")
        );
        assert!(matches!(reach(&[], &[]), Reach::Unreachable(_)));
    }

    #[test]
    fn all_are_asked_at_the_same_time() {
        let nodes: Vec<NodeName> =
            (0..AT_ONCE_MAX).map(|n| format!("n{n}").parse().unwrap()).collect();
        let targets: Vec<&NodeName> = nodes.iter().collect();
        let all_are_here = Barrier::new(targets.len());

        // It would never end if one had to wait for another's end.
        let reach = contact_all(&targets, |_| {
            all_are_here.wait();
            Ok(())
        });

        assert_eq!(reach, Reach::Reachable("32 of 32 BMCs answered".into()));
    }
}
