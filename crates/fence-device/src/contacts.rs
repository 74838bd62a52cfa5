//! Contact with many BMCs at once, for devices whose targets have one each.
//!
//! One dead BMC must not take all fencing away, so the device counts as reachable while one
//! answers, and the text names those that do not.

use fence_protocol::{NodeName, bounded};

use crate::Reach;
use crate::pool::ask_all;

/// Makes `contact` with the BMC of each of `targets`, many at the same time.
pub(crate) fn contact_all(
    targets: &[&NodeName],
    contact: impl Fn(&NodeName) -> Result<(), String> + Sync,
) -> Reach {
    let answers = ask_all(targets, |target| contact(target).err().map(|why| (*target, why)));
    let mut failures: Vec<(&NodeName, String)> = answers.into_iter().flatten().collect();
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

/// How much of the reasons is passed on, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
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
}
