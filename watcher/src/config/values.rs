//! The forms of single values: durations, numbers, paths, words, command lines, node lists.
//!
//! Each form is a function from a TOML value to a checked value, or to the faults of the value.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use fence_core::PerTarget;
use fence_device::{SecretSource, placeholders};
use fence_log::shown_line;
use fence_protocol::{NodeName, expand_hostlist};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::{Fault, Parsed, Section};

/// A text.
pub(super) fn text(value: &Spanned<DeValue>) -> Parsed<String> {
    match value.get_ref() {
        // Neither a path nor an argument of a program can contain it.
        DeValue::String(text) if text.contains('\0') => wrong(value, "it contains a NUL character"),
        DeValue::String(text) => Ok(text.clone().into_owned()),
        _ => expected(value, "a text in quotes"),
    }
}

/// A text that `is_right`; `problem` says why others are not.
pub(super) fn checked(
    value: &Spanned<DeValue>,
    is_right: impl Fn(&str) -> bool,
    problem: &str,
) -> Parsed<String> {
    let text = text(value)?;
    if is_right(&text) { Ok(text) } else { wrong(value, problem) }
}

/// A name such as a device's: the rules of a node's name.
pub(super) fn name(value: &Spanned<DeValue>) -> Parsed<String> {
    let name = text(value)?;
    match name.parse::<NodeName>() {
        Ok(_) => Ok(name),
        Err(error) => wrong(value, format!("'{}' is not a name: {error}", name.escape_debug())),
    }
}

/// An absolute path.
pub(super) fn path(value: &Spanned<DeValue>) -> Parsed<PathBuf> {
    absolute(&text(value)?).or_else(|problem| wrong(value, problem))
}

/// An absolute path from any source.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    if Path::new(text).is_absolute() {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("'{}' is not an absolute path", text.escape_debug()))
    }
}

/// One of the given words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Spanned<DeValue>) -> Parsed<T> {
    move |value| {
        let text = text(value)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let words = words.join(", ");
        wrong(value, format!("\"{}\" is none of {words}", text.escape_debug()))
    }
}

/// Yes or no.
pub(super) fn boolean(value: &Spanned<DeValue>) -> Parsed<bool> {
    value.get_ref().as_bool().map_or_else(|| expected(value, "true or false"), Ok)
}

/// A whole number within bounds.
pub(super) fn number(range: RangeInclusive<i64>) -> impl Fn(&Spanned<DeValue>) -> Parsed<i64> {
    move |value| {
        let DeValue::Integer(integer) = value.get_ref() else {
            return expected(value, "a whole number");
        };
        match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => wrong(value, format!("must be {} to {}", range.start(), range.end())),
        }
    }
}

/// A duration such as "45s", in milliseconds, within bounds.
pub(super) fn duration(range: RangeInclusive<u64>) -> impl Fn(&Spanned<DeValue>) -> Parsed<u64> {
    move |value| match value.get_ref() {
        DeValue::String(text) => match milliseconds(text) {
            Some(duration) if range.contains(&duration) => Ok(duration),
            Some(_) => {
                let (least, most) = (in_words(*range.start()), in_words(*range.end()));
                wrong(value, format!("must be {least} to {most}"))
            }
            None => {
                let text = text.escape_debug();
                wrong(value, format!("\"{text}\" is not a duration such as \"45s\" ({UNITS_TEXT})"))
            }
        },
        DeValue::Integer(integer) => {
            let number = integer.as_str();
            wrong(value, format!("write a unit: \"{number}s\" for seconds ({UNITS_TEXT})"))
        }
        _ => expected(value, "a duration such as \"45s\""),
    }
}

/// A program and its arguments, one text each, with no placeholders but those of `known`.
pub(super) fn argv(value: &Spanned<DeValue>, known: &[&str]) -> Parsed<Vec<String>> {
    let Some(items) = value.get_ref().as_array() else {
        return expected(value, "a list such as [\"/usr/sbin/program\", \"{target}\"]");
    };
    let arguments = collect(items.iter().map(text))?;
    let Some(program) = arguments.first() else {
        return wrong(value, "the list is empty: it must start with a program");
    };
    absolute(program).or_else(|problem| wrong(value, format!("the program {problem}")))?;
    collect(items.iter().map(|item| template(item, known)))
}

/// A hostlist expression or a list of them.
pub(super) fn nodes(value: &Spanned<DeValue>) -> Parsed<BTreeSet<NodeName>> {
    let names = match value.get_ref() {
        DeValue::Array(items) if items.is_empty() => wrong(value, "the list is empty"),
        DeValue::Array(items) => collect(items.iter().map(hostlist)),
        DeValue::String(_) => hostlist(value).map(|names| vec![names]),
        _ => expected(value, "node names such as \"n[1-4]\" or a list of them"),
    }?;
    Ok(names.into_iter().flatten().collect())
}

fn hostlist(value: &Spanned<DeValue>) -> Parsed<Vec<NodeName>> {
    expand(&text(value)?).or_else(|problem| wrong(value, problem))
}

fn expand(expression: &str) -> Result<Vec<NodeName>, String> {
    expand_hostlist(expression)
        .map_err(|error| format!("bad hostlist \"{}\": {error}", shown_line(expression)))
}

/// The device's names for its targets: a text with `{target}` for all of them, or a table with one
/// name for each target. `written` are the names in the key `targets`.
pub(super) fn per_target(
    section: &mut Section,
    key: &str,
    written: Option<&BTreeMap<NodeName, String>>,
) -> Option<PerTarget> {
    let form = |value: &Spanned<DeValue>| match value.get_ref() {
        DeValue::Table(table) => names_of_targets(value, table).map(PerTarget::Map),
        _ => name_of_target(value).map(PerTarget::Pattern),
    };
    let Some(names) = written else { return section.get(key, form) };
    if section.has(key) {
        section.get(key, form);
        section.at(key, format!("'{key}' is also written with the targets: keep one"));
        return None;
    }
    Some(PerTarget::Map(names.clone()))
}

/// A table of node names or hostlist expressions, with the device's name for each node.
pub(super) fn names_of_targets(
    value: &Spanned<DeValue>,
    table: &DeTable,
) -> Parsed<BTreeMap<NodeName, String>> {
    let (mut names, mut faults) = (BTreeMap::new(), Vec::new());
    for (key, value) in table {
        let fault = |text| Fault { offset: key.span().start, text };
        let nodes = expand(key.get_ref()).map_err(|problem| vec![fault(problem)]);
        match (nodes, name_of_target(value)) {
            (Ok(nodes), Ok(pattern)) => {
                let pattern = PerTarget::Pattern(pattern);
                for node in nodes {
                    let name = pattern.of(&node).unwrap_or_default();
                    if names.insert(node.clone(), name).is_some() {
                        faults.push(fault(format!("'{node}' is written twice")));
                    }
                }
            }
            (nodes, name) => faults.extend(nodes.err().into_iter().chain(name.err()).flatten()),
        }
    }
    if names.is_empty() && faults.is_empty() {
        return wrong(value, "the table is empty");
    }
    if faults.is_empty() { Ok(names) } else { Err(faults) }
}

/// The device's name for a target, or for all of them with `{target}` in it.
fn name_of_target(value: &Spanned<DeValue>) -> Parsed<String> {
    let is_right = |name: &str| !name.is_empty() && !name.contains(char::is_control);
    checked(value, is_right, "it is empty or has control characters")?;
    template(value, &["target"])
}

/// A secret in a file, a variable or a credential, which the three `keys` name. At most one of them
/// may be written.
pub(super) fn secret(section: &mut Section, keys: [&str; 3]) -> Option<SecretSource> {
    let [file, environment, credential] = keys;
    let sources = [
        section.get(file, path).map(SecretSource::File),
        section.get(environment, variable).map(SecretSource::Environment),
        section.get(credential, name).map(SecretSource::Credential),
    ];
    let mut given = sources.into_iter().flatten();
    let source = given.next();
    if given.next().is_some() {
        let first = keys.into_iter().find(|key| section.has(key)).unwrap_or_default();
        section.at(first, format!("give only one of '{file}', '{environment}', '{credential}'"));
    }
    source
}

/// The name of an environment variable.
fn variable(value: &Spanned<DeValue>) -> Parsed<String> {
    checked(value, is_variable, NO_VARIABLE)
}

/// Whether an environment variable may have this name.
pub(super) fn is_variable(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// A list whose items have this form.
pub(super) fn list<T>(
    value: &Spanned<DeValue>,
    form: impl Fn(&Spanned<DeValue>) -> Parsed<T>,
) -> Parsed<Vec<T>> {
    match value.get_ref().as_array() {
        Some(items) => collect(items.iter().map(form)),
        None => expected(value, "a list"),
    }
}

/// A table with any keys. `form` checks each value, with its key.
pub(super) fn table<T>(
    value: &Spanned<DeValue>,
    form: impl Fn(&str, &Spanned<DeValue>) -> Parsed<T>,
) -> Parsed<BTreeMap<String, T>> {
    let Some(entries) = value.get_ref().as_table() else {
        return expected(value, "a table such as { name = \"value\" }");
    };
    let entries = entries.iter().map(|(key, value)| {
        let key: &str = key.get_ref();
        let named = |fault: Fault| Fault {
            text: format!("'{}': {}", key.escape_debug(), fault.text),
            ..fault
        };
        let parsed = form(key, value).map(|parsed| (key.to_owned(), parsed));
        parsed.map_err(|faults| faults.into_iter().map(named).collect())
    });
    Ok(collect(entries)?.into_iter().collect())
}

/// All values, or all faults.
fn collect<T>(items: impl Iterator<Item = Parsed<T>>) -> Parsed<Vec<T>> {
    let (mut values, mut faults) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Ok(value) => values.push(value),
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

/// A text with no placeholders but those of `known`.
fn template(value: &Spanned<DeValue>, known: &[&str]) -> Parsed<String> {
    let text = text(value)?;
    let unknown = placeholders(&text).into_iter().filter(|name| !known.contains(name));
    let known = known.join("} {");
    let problem = |name| format!("unknown placeholder '{{{name}}}' (known: {{{known}}})");
    collect(unknown.map(|name| wrong::<()>(value, problem(name))))?;
    Ok(text)
}

/// The milliseconds of a duration such as "45s".
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The duration in the largest unit that divides it.
pub fn in_words(milliseconds: u64) -> String {
    if milliseconds == 0 {
        return "0s".into();
    }
    let divides = |unit: &&(&str, u64)| milliseconds.is_multiple_of(unit.1);
    let (unit, factor) = UNITS.iter().rfind(divides).unwrap_or(&UNITS[0]);
    format!("{}{unit}", milliseconds / factor)
}

fn expected<T>(value: &Spanned<DeValue>, form: &str) -> Parsed<T> {
    let found = match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    wrong(value, format!("expected {form}, not {found}"))
}

/// The fault of `value`.
pub(super) fn wrong<T>(value: &Spanned<DeValue>, text: impl Into<String>) -> Parsed<T> {
    Err(vec![Fault { offset: value.span().start, text: text.into() }])
}

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const UNITS_TEXT: &str = "units: ms, s, m, h, d";

/// The problem of a text that is not the name of a variable.
pub(super) const NO_VARIABLE: &str = "it is not the name of an environment variable";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_do_not_overflow() {
        assert_eq!(milliseconds("45s"), Some(45_000));
        assert_eq!(milliseconds("0s"), Some(0));
        assert_eq!(milliseconds("250ms"), Some(250));
        assert_eq!(milliseconds("30d"), Some(30 * 86_400_000));
        for text in ["", "45", "s", "-1s", "+1s", "1.5s", "1 s", "1S", "99999999999999999999d"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
        assert_eq!(milliseconds(&format!("{}d", u64::MAX)), None);
    }

    proptest::proptest! {
        #[test]
        fn a_duration_is_read_as_it_was_written(duration: u64) {
            proptest::prop_assert_eq!(milliseconds(&in_words(duration)), Some(duration));
        }
    }

    #[test]
    fn only_words_in_braces_are_placeholders() {
        let unknown = |argument: &str| {
            let text = format!("'{argument}'");
            let read = template(&DeValue::parse(&text).unwrap(), &["target"]);
            let faults = read.err().unwrap_or_default();
            faults.into_iter().map(|fault| fault.text).collect::<Vec<_>>().join("; ")
        };

        assert_eq!(unknown("--plug={target}"), "");
        assert_eq!(
            unknown("{target}{tagret}{x}"),
            "unknown placeholder '{tagret}' (known: {target}); \
             unknown placeholder '{x}' (known: {target})"
        );
        assert_eq!(unknown("{\"a\": {}}"), "");
        assert_eq!(unknown("{target"), "");
    }
}
