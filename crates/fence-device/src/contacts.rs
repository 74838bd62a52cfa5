//! Contact with many machines at once, for devices with a separate machine for each target.
//!
//! One dead machine must not prevent all fencing, so the device counts as reachable if at least one
//! machine answers. The text names every target whose machine does not answer.

use fence_protocol::NodeName;

use crate::pool::ask_all;
use crate::{Called, Reach, grouped};

/// The kind of machines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Contacted {
    /// The BMCs of the targets.
    Bmcs,
    /// The targets, through an agent.
    Targets,
}

/// Makes `contact` with many machines at the same time. Each of `places` has the targets of one
/// machine. `called` has the names of the targets in the texts.
pub(crate) fn contact_all(
    what: Contacted,
    places: &[Vec<&NodeName>],
    called: Called<'_>,
    contact: impl Fn(&[&NodeName]) -> Result<(), String> + Sync,
) -> Reach {
    let failures = ask_all(places, |targets| contact(targets).err());
    let answered = failures.iter().filter(|failure| failure.is_none()).count();
    let failed = places.iter().zip(&failures).filter_map(|(at, why)| Some((at, why.as_deref()?)));
    let each = failed.flat_map(|(targets, why)| targets.iter().map(move |target| (*target, why)));
    what.reach(places.len(), answered, &grouped(each, called))
}

impl Contacted {
    fn reach(self, all: usize, answered: usize, failed: &[(String, String)]) -> Reach {
        let reasons = listed(failed);
        let text = match self {
            Contacted::Bmcs if answered == 0 => {
                format!("none of {all} BMCs can be asked: {reasons}")
            }
            Contacted::Bmcs if answered == all => format!("{all} of {all} BMCs answered"),
            Contacted::Bmcs => {
                format!("{answered} of {all} BMCs answered; cannot be asked: {reasons}")
            }
            Contacted::Targets if answered == 0 => {
                let each = failed.iter().map(|(targets, why)| format!("({targets}): {why}"));
                format!("no target answers {}", each.collect::<Vec<_>>().join("; "))
            }
            Contacted::Targets if answered == all => format!("{all} of {all} targets answer"),
            Contacted::Targets => format!("{answered} of {all} targets answer, but not {reasons}"),
        };
        if answered == 0 { Reach::Unreachable(text) } else { Reach::Reachable(text) }
    }
}

/// `targets: text` for each group, all of them.
pub(crate) fn listed(groups: &[(String, String)]) -> String {
    let each = groups.iter().map(|(targets, text)| format!("{targets}: {text}"));
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_answers_is_enough_and_the_others_are_named() {
        let nodes: Vec<NodeName> = (1..=24).map(|n| format!("n{n}").parse().unwrap()).collect();
        let reach = |count: usize, dead: &(dyn Fn(usize) -> Option<&'static str> + Sync)| {
            let places: Vec<Vec<&NodeName>> = nodes.iter().take(count).map(|n| vec![n]).collect();
            contact_all(Contacted::Bmcs, &places, Called::default(), |targets| {
                let number = targets[0].as_str()[1..].parse().unwrap();
                dead(number).map_or(Ok(()), |why| Err(why.to_owned()))
            })
        };
        let reachable = |text: &str| Reach::Reachable(text.into());
        let unreachable = |text: &str| Reach::Unreachable(text.into());
        let no_answer = |wanted: bool| wanted.then_some("no answer");

        assert_eq!(reach(3, &|_| None), reachable("3 of 3 BMCs answered"));
        assert_eq!(
            reach(3, &|n| no_answer(n != 2)),
            reachable("1 of 3 BMCs answered; cannot be asked: n[1,3]: no answer")
        );
        let two = |n| Some(if n == 1 { "no answer" } else { "wrong password" });
        assert_eq!(
            reach(2, &two),
            unreachable("none of 2 BMCs can be asked: n1: no answer; n2: wrong password")
        );
        assert_eq!(
            reach(24, &|n| no_answer(n > 3)),
            reachable("3 of 24 BMCs answered; cannot be asked: n[4-24]: no answer")
        );
        assert!(matches!(reach(0, &|_| None), Reach::Unreachable(_)));
    }

    #[test]
    fn one_target_that_answers_is_enough_and_the_others_are_named() {
        let nodes = ["n1", "n2"].map(|name| name.parse::<NodeName>().unwrap());
        let places: Vec<Vec<&NodeName>> = nodes.iter().map(|node| vec![node]).collect();
        let reach = |failed: &[&str]| {
            contact_all(Contacted::Targets, &places, Called::default(), |targets| {
                let name = targets[0].as_str();
                if failed.contains(&name) { Err(format!("cause {}", &name[1..])) } else { Ok(()) }
            })
        };

        assert_eq!(reach(&[]), Reach::Reachable("2 of 2 targets answer".into()));
        let text = "1 of 2 targets answer, but not n2: cause 2";
        assert_eq!(reach(&["n2"]), Reach::Reachable(text.into()));
        assert_eq!(
            reach(&["n1", "n2"]),
            Reach::Unreachable("no target answers (n1): cause 1; (n2): cause 2".into())
        );
    }

    #[test]
    fn no_reason_is_cut_however_many_there_are() {
        let nodes: Vec<NodeName> = (1..=24).map(|n| format!("n{n}").parse().unwrap()).collect();
        let places: Vec<Vec<&NodeName>> = nodes.iter().map(|node| vec![node]).collect();

        let why = |node: &NodeName| format!("{}-{}", "x".repeat(100), node.as_str().len() * 7);
        let reach = contact_all(Contacted::Bmcs, &places, Called::default(), |targets| {
            Err(why(targets[0]) + &"y".repeat(targets[0].as_str()[1..].parse().unwrap()))
        });

        let Reach::Unreachable(text) = reach else { panic!("{reach:?}") };
        assert_eq!(text.matches("; n").count(), 23, "{text}");
        assert!(text.contains("n24: ") && !text.contains('…'), "{text}");
    }

    #[test]
    fn all_targets_of_a_chassis_that_does_not_answer_are_named() {
        let nodes = ["n1", "n2", "n3"].map(|name| name.parse::<NodeName>().unwrap());
        let places = [vec![&nodes[0], &nodes[1]], vec![&nodes[2]]];

        let reach = contact_all(Contacted::Bmcs, &places, Called::default(), |targets| {
            if targets.len() > 1 { Err("no answer".to_owned()) } else { Ok(()) }
        });

        let text = "1 of 2 BMCs answered; cannot be asked: n[1-2]: no answer";
        assert_eq!(reach, Reach::Reachable(text.into()));
    }
}
