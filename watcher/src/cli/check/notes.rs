//! The notes of a check: what is wrong, and what may surprise. What is true of many devices is said
//! once.

use std::path::Path;

use fence_device::{Called, TARGET, without_names};
use fence_log::one_line;
use fence_protocol::{NodeName, fold_hostlist};

use crate::config::{DeviceSettings, Targets};
use crate::probe::Findings;

/// One thing that is said, of a device or of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// The device; `None` where it concerns no single one.
    pub(super) device: Option<String>,
    /// What is said. It follows the device's name.
    pub(super) text: String,
    /// Whether all is not well because of it.
    pub(super) is_problem: bool,
}

impl Note {
    pub(super) fn of(device: &str, text: impl Into<String>) -> Self {
        Note { device: Some(device.to_owned()), text: text.into(), is_problem: false }
    }

    pub(super) fn general(text: impl Into<String>) -> Self {
        Note { device: None, text: text.into(), is_problem: false }
    }

    pub(super) fn into_problem(self) -> Self {
        Note { is_problem: true, ..self }
    }
}

/// What the findings say of `device`. Words that say no more than another note are left out.
pub(super) fn notes_of(device: &str, findings: &Findings, has_addresses: bool) -> Vec<Note> {
    let Findings { reachable, words, is_partial, problems, remarks, unlisted, .. } = findings;
    let mut notes = Vec::new();
    match reachable {
        Some(false) => {
            notes.push(Note::of(device, format!(" cannot be reached: {words}")).into_problem());
        }
        None if !words.is_empty() => {
            notes.push(Note::of(device, format!(" was not asked: {words}")));
        }
        Some(true) if *is_partial => {
            notes.push(Note::of(device, format!(": {words}")).into_problem());
        }
        Some(true) if has_addresses => notes.push(Note::of(device, format!(": {words}"))),
        _ => {}
    }
    if let Some(why) = unlisted {
        let text = format!(" gives no list of its targets: {why}");
        notes.push(Note::of(device, text).into_problem());
    }
    let is_said = |problem: &&String| *reachable == Some(false) && words.contains(*problem);
    let problems = problems.iter().filter(|problem| !is_said(problem));
    notes.extend(problems.map(|problem| Note::of(device, format!(": {problem}")).into_problem()));
    notes.extend(remarks.iter().map(|remark| Note::of(device, format!(": {remark}"))));
    notes
}

/// The notes as lines, each text once with all of `devices` of which it is true. Devices with one
/// target each have the same text where nothing but what the target is called differs.
pub(super) fn lines<'a>(
    notes: impl IntoIterator<Item = &'a Note>,
    devices: &[DeviceSettings],
) -> Vec<String> {
    let mut groups: Vec<(String, Vec<Member<'_>>)> = Vec::new();
    for note in notes {
        let settings =
            note.device.as_deref().and_then(|name| devices.iter().find(|d| d.name == name));
        let target = settings.and_then(only_target);
        let called = settings.map(called).unwrap_or_default();
        let common = match target {
            Some(target) => without_names(target, &note.text, called),
            None => note.text.clone(),
        };
        let is_same = |(text, members): &&mut (String, Vec<Member<'_>>)| {
            *text == common && members[0].0.device.is_some() == note.device.is_some()
        };
        match groups.iter_mut().find(is_same) {
            Some((_, members)) => members.push((note, target)),
            None => groups.push((common, vec![(note, target)])),
        }
    }
    groups.iter().map(|(common, members)| one_line(&line(common, members))).collect()
}

/// The problems of places, each with its introduction. Of those that have one cause, such as a user
/// who may do nothing, the cause is said once with all places.
pub(super) fn once_for_each_cause(problems: &[(&str, String)]) -> Vec<String> {
    let mut groups: Vec<Vec<&(&str, String)>> = Vec::new();
    for problem in problems {
        let cause = place_and_cause(&problem.1).map(|(_, cause)| cause);
        let has_it = |group: &&mut Vec<&(&str, String)>| {
            cause.is_some() && place_and_cause(&group[0].1).map(|(_, cause)| cause) == cause
        };
        match groups.iter_mut().find(has_it) {
            Some(group) => group.push(problem),
            None => groups.push(vec![problem]),
        }
    }
    let said = |group: Vec<&(&str, String)>| {
        let mut places: Vec<&str> = Vec::new();
        for (place, _) in group.iter().filter_map(|(_, text)| place_and_cause(text)) {
            if !places.iter().any(|above| Path::new(place).starts_with(above)) {
                places.push(place);
            }
        }
        match (&group[..], place_and_cause(&group[0].1)) {
            ([_, _, ..], Some((_, cause))) => {
                let intros = group.iter().map(|(intro, _)| intro.trim_end_matches(": "));
                let mut follows: Vec<&str> = intros.filter(|intro| !intro.is_empty()).collect();
                follows.dedup();
                let follows = match &follows[..] {
                    [] => String::new(),
                    _ => format!(" ({})", follows.join("; ")),
                };
                format!("cannot use '{}': {cause}{follows}", places.join("', '"))
            }
            _ => group[0].0.to_owned() + &group[0].1,
        }
    };
    groups.into_iter().map(said).collect()
}

/// The parts of "cannot do something with 'place': cause".
fn place_and_cause(problem: &str) -> Option<(&str, &str)> {
    problem.strip_prefix("cannot ")?.split_once(" '")?.1.split_once("': ")
}

/// A note, and the target of its device where that has no other.
type Member<'a> = (&'a Note, Option<&'a NodeName>);

fn line(common: &str, members: &[Member<'_>]) -> String {
    let text = match members {
        [(only, _)] => only.text.clone(),
        several => {
            let targets: Vec<&NodeName> =
                several.iter().filter_map(|(_, target)| *target).collect();
            common.replace(TARGET, &fold_hostlist(targets))
        }
    };
    let devices: Vec<&str> =
        members.iter().filter_map(|(note, _)| note.device.as_deref()).collect();
    if devices.is_empty() { text } else { format!("'{}'{text}", fold_hostlist(devices)) }
}

fn only_target(device: &DeviceSettings) -> Option<&NodeName> {
    match &device.targets {
        Targets::Nodes(nodes) if nodes.len() == 1 => nodes.first(),
        _ => None,
    }
}

fn called(device: &DeviceSettings) -> Called<'_> {
    Called { address: device.kind.addresses(), plug: device.kind.plugs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_true_of_many_devices_is_said_once_in_the_order_of_their_numbers() {
        let of = |name: &str, text: &str| Note::of(name, text.to_owned());
        let notes = [
            of("bmc10", ": no file"),
            Note::general("the spool is lost"),
            of("bmc2", ": no file"),
            of("bmc9", " is simulated"),
            of("bmc1", ": no file"),
        ];

        assert_eq!(
            lines(&notes, &[]),
            ["'bmc[1-2,10]': no file", "the spool is lost", "'bmc9' is simulated"]
        );
    }

    #[test]
    fn one_cause_is_said_once_with_the_places_that_it_concerns() {
        let (denied, full) = ("Permission denied for user 1: run as root (sudo)", "No space");
        let of = |prefix, operation: &str, place: &str, cause: &str| {
            (prefix, format!("cannot {operation} '{place}': {cause}"))
        };
        let problems = [
            of("", "write to", "/r", denied),
            ("", "'/q' is not a directory: remove it".to_owned()),
            of("", "open", "/r/.claimed", denied),
            of("no answer: ", "write to", "/a", full),
            of("no log: ", "open", "/l", denied),
        ];

        assert_eq!(
            once_for_each_cause(&problems),
            [
                &format!("cannot use '/r', '/l': {denied} (no log)"),
                "'/q' is not a directory: remove it",
                "no answer: cannot write to '/a': No space",
            ]
        );
    }

    #[test]
    fn a_fault_that_keeps_the_device_from_being_reached_is_said_once() {
        let problem = "cannot read the secret in '/p': there is no such file".to_owned();
        let findings = Findings {
            reachable: Some(false),
            words: format!("none of 16 BMCs can be asked: n[1-16]: {problem}"),
            problems: vec![problem.clone()],
            ..Findings::default()
        };

        let notes = notes_of("bmc", &findings, true);

        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].is_problem && notes[0].text.ends_with(&problem), "{notes:?}");
        // One that answers by now had the fault in a file that is read no more: both are said.
        let reached = Findings { reachable: Some(true), ..findings };
        assert_eq!(notes_of("bmc", &reached, true).len(), 2);
    }
}
