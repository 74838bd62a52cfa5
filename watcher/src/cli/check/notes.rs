//! The notes of a check: the problems, and what may surprise. A text about many devices is shown
//! once.

use std::path::Path;

use fence_device::{Called, TARGET, without_names};
use fence_log::one_line;
use fence_protocol::{NodeName, fold_hostlist};

use crate::config::DeviceSettings;
use crate::findings::Findings;

/// One note, about a device or in general.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// The device, if the note is about one.
    pub(super) device: Option<String>,
    /// The text after the name of the device.
    pub(super) text: String,
    /// Whether the check fails because of it.
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

/// The notes about the findings for `device`. A text that repeats another note is left out.
pub(super) fn notes_of(device: &str, findings: &Findings, has_addresses: bool) -> Vec<Note> {
    let Findings { reachable, words, is_partial, problems, remarks, unlisted, .. } = findings;
    let note = |text: String| Note::of(device, text);
    let mut notes = Vec::new();
    match reachable {
        Some(false) => notes.push(note(format!(" cannot be reached: {words}")).into_problem()),
        None if !words.is_empty() => notes.push(note(format!(" was not asked: {words}"))),
        Some(true) if *is_partial => notes.push(note(format!(": {words}")).into_problem()),
        Some(true) if has_addresses => notes.push(note(format!(": {words}"))),
        _ => {}
    }
    if let Some(why) = unlisted {
        notes.push(note(format!(" gives no list of its targets: {why}")).into_problem());
    }
    let is_said = |problem: &&String| *reachable == Some(false) && words.contains(*problem);
    let problems = problems.iter().filter(|problem| !is_said(problem));
    notes.extend(problems.map(|problem| note(format!(": {problem}")).into_problem()));
    notes.extend(remarks.iter().map(|remark| note(format!(": {remark}"))));
    notes
}

/// The notes as lines, each text once with all its `devices`. The texts of devices with one target
/// each are the same if only the names of the target differ.
pub(super) fn lines<'a>(
    notes: impl IntoIterator<Item = &'a Note>,
    devices: &[DeviceSettings],
) -> Vec<String> {
    let notes = notes.into_iter().map(|note| {
        let named = |device: &&DeviceSettings| Some(&device.name) == note.device.as_ref();
        let settings = devices.iter().find(named);
        let target = settings.and_then(only_target);
        let called = settings.map(called).unwrap_or_default();
        let common = match target {
            Some(target) => without_names(target, &note.text, called),
            None => note.text.clone(),
        };
        ((common, note.device.is_some()), (note, target))
    });
    let groups = grouped(notes).into_iter();
    groups.map(|((common, _), members)| one_line(&line(&common, &members))).collect()
}

/// The items with equal keys, in the order of their first ones.
pub(super) fn grouped<K: PartialEq, T>(
    items: impl IntoIterator<Item = (K, T)>,
) -> Vec<(K, Vec<T>)> {
    let mut groups: Vec<(K, Vec<T>)> = Vec::new();
    for (key, item) in items {
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(item),
            None => groups.push((key, vec![item])),
        }
    }
    groups
}

/// The problems of places, each with its introduction. Problems with one cause, such as a user
/// without permissions, are one text with the cause and all places.
pub(super) fn once_for_each_cause(problems: &[(&str, String)]) -> Vec<String> {
    let by_cause = problems.iter().enumerate().map(|(index, problem)| {
        let cause = place_and_cause(&problem.1).map(|(_, cause)| cause);
        (cause.ok_or(index), problem)
    });
    let said = |(cause, group): (Result<&str, usize>, Vec<&(&str, String)>)| {
        let (Ok(cause), true) = (cause, group.len() > 1) else {
            return group.iter().map(|(intro, text)| (*intro).to_owned() + text).collect();
        };
        let mut places: Vec<&str> = Vec::new();
        for (place, _) in group.iter().filter_map(|(_, text)| place_and_cause(text)) {
            if !places.iter().any(|above| Path::new(place).starts_with(above)) {
                places.push(place);
            }
        }
        let intros = group.iter().map(|(intro, _)| intro.trim_end_matches(": "));
        let mut follows: Vec<&str> = intros.filter(|intro| !intro.is_empty()).collect();
        follows.dedup();
        let text = format!("cannot use '{}': {cause}", places.join("', '"));
        if follows.is_empty() { text } else { format!("{text} ({})", follows.join("; ")) }
    };
    grouped(by_cause).into_iter().map(said).collect()
}

/// The parts of "cannot do something with 'place': cause".
fn place_and_cause(problem: &str) -> Option<(&str, &str)> {
    problem.strip_prefix("cannot ")?.split_once(" '")?.1.split_once("': ")
}

/// A note, and the target of its device if the device has one target.
type Member<'a> = (&'a Note, Option<&'a NodeName>);

fn line(common: &str, members: &[Member<'_>]) -> String {
    let text = match members {
        [(only, _)] => only.text.clone(),
        several => {
            let targets: Vec<_> = several.iter().filter_map(|(_, target)| *target).collect();
            common.replace(TARGET, &fold_hostlist(targets))
        }
    };
    let devices: Vec<_> = members.iter().filter_map(|(note, _)| note.device.as_deref()).collect();
    if devices.is_empty() { text } else { format!("'{}'{text}", fold_hostlist(devices)) }
}

fn only_target(device: &DeviceSettings) -> Option<&NodeName> {
    device.targets.nodes().filter(|nodes| nodes.len() == 1)?.first()
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
