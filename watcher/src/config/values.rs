//! The forms of single values: durations, numbers, paths, words, command lines, node lists.
//!
//! Each form is a function from a TOML value to a checked value or to what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use fence_core::PerTarget;
use fence_device::{SecretSource, placeholders};
use fence_log::shown_line;
use fence_protocol::{NodeName, expand_hostlist};
use toml::Spanned;
use toml::de::DeValue;

use super::problems::Problems;
use super::reader::{Fault, Parsed, Section};

/// A text.
pub(super) fn text(value: &Spanned<DeValue>) -> Parsed<String> {
    match value.get_ref() {
        // No path and no argument of a program can hold one.
        DeValue::String(text) if text.contains('\0') => wrong(value, "it contains a NUL character"),
        DeValue::String(text) => Ok(text.clone().into_owned()),
        other => wrong(value, format!("expected a text in quotes, not {}", kind(other))),
    }
}

/// A name such as a device's: the rules of a node's name.
pub(super) fn name(value: &Spanned<DeValue>) -> Parsed<String> {
    let name = text(value)?;
    match name.parse::<NodeName>() {
        Ok(_) => Ok(name),
        Err(error) => wrong(value, format!("'{}' is no name: {error}", name.escape_debug())),
    }
}

/// An absolute path.
pub(super) fn path(value: &Spanned<DeValue>) -> Parsed<PathBuf> {
    absolute(&text(value)?).or_else(|problem| wrong(value, problem))
}

/// An absolute path, of wherever.
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
    match value.get_ref() {
        DeValue::Boolean(yes) => Ok(*yes),
        other => wrong(value, format!("expected true or false, not {}", kind(other))),
    }
}

/// A whole number within bounds.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&Spanned<DeValue>) -> Parsed<T>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    move |value| match value.get_ref() {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .map_or_else(
                || wrong(value, format!("must be {} to {}", range.start(), range.end())),
                Ok,
            ),
        other => wrong(value, format!("expected a whole number, not {}", kind(other))),
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
                wrong(value, format!("\"{text}\" is no duration such as \"45s\" ({UNITS_TEXT})"))
            }
        },
        DeValue::Integer(integer) => {
            let number = integer.as_str();
            wrong(value, format!("write a unit: \"{number}s\" for seconds ({UNITS_TEXT})"))
        }
        other => wrong(value, format!("expected a duration such as \"45s\", not {}", kind(other))),
    }
}

/// A program and its arguments, one text each. Of placeholders, it may hold those of `known`.
pub(super) fn argv(value: &Spanned<DeValue>, known: &[&str]) -> Parsed<Vec<String>> {
    let DeValue::Array(items) = value.get_ref() else {
        let found = kind(value.get_ref());
        return wrong(
            value,
            format!("expected a list such as [\"/usr/sbin/program\", \"{{target}}\"], not {found}"),
        );
    };
    let arguments = collect(items.iter().map(text))?;
    let Some(program) = arguments.first() else {
        return wrong(value, "the list is empty: it must start with a program");
    };
    absolute(program).or_else(|problem| wrong(value, format!("the program {problem}")))?;
    let all = items.iter().zip(&arguments);
    let faults: Vec<Fault> =
        all.flat_map(|(item, argument)| unknown_placeholders(item, argument, known)).collect();
    if faults.is_empty() { Ok(arguments) } else { Err(faults) }
}

/// A hostlist expression or a list of them.
pub(super) fn nodes(value: &Spanned<DeValue>) -> Parsed<BTreeSet<NodeName>> {
    let names = match value.get_ref() {
        DeValue::Array(items) if items.is_empty() => wrong(value, "the list is empty"),
        DeValue::Array(items) => collect(items.iter().map(hostlist)),
        DeValue::String(_) => hostlist(value).map(|names| vec![names]),
        other => wrong(
            value,
            format!(
                "expected node names such as \"n[1-4]\" or a list of them, not {}",
                kind(other)
            ),
        ),
    }?;
    Ok(names.into_iter().flatten().collect())
}

fn hostlist(value: &Spanned<DeValue>) -> Parsed<Vec<NodeName>> {
    let expression = text(value)?;
    expand_hostlist(&expression).or_else(|error| {
        wrong(value, format!("bad hostlist \"{}\": {error}", shown_line(&expression)))
    })
}

/// What a device calls its targets: a text with `{target}` for all of them, or a table with one for
/// each. `written` is what stands with the targets themselves.
pub(super) fn per_target(
    section: &mut Section,
    key: &str,
    written: Option<&BTreeMap<NodeName, String>>,
    problems: &Problems,
) -> Option<PerTarget> {
    let form = |value: &Spanned<DeValue>| match value.get_ref() {
        DeValue::Table(_) => names_of_targets(value).map(PerTarget::Map),
        _ => name_of_target(value).map(PerTarget::Pattern),
    };
    let Some(names) = written else { return section.get(key, form) };
    if section.has(key) {
        let offset = section.offset_of(key);
        section.get(key, form);
        problems.at(offset, format!("'{key}' is also written with the targets: keep one"));
        return None;
    }
    Some(PerTarget::Map(names.clone()))
}

/// A table of node names, hostlist expressions among them, with what a device calls each node.
pub(super) fn names_of_targets(value: &Spanned<DeValue>) -> Parsed<BTreeMap<NodeName, String>> {
    let DeValue::Table(table) = value.get_ref() else {
        return wrong(value, "expected a table such as { n1 = \"plug 1\" }");
    };
    let (mut names, mut faults) = (BTreeMap::new(), Vec::new());
    for (key, value) in table {
        let fault = |text| Fault { offset: key.span().start, text };
        let expression = key.get_ref().as_ref();
        match (expand_hostlist(expression), name_of_target(value)) {
            (Ok(nodes), Ok(pattern)) => {
                let pattern = PerTarget::Pattern(pattern);
                for node in nodes {
                    let name = pattern.of(&node).unwrap_or_default();
                    if names.insert(node.clone(), name).is_some() {
                        faults.push(fault(format!("'{node}' is written twice")));
                    }
                }
            }
            (Err(error), other) => {
                let shown = shown_line(expression);
                faults.push(fault(format!("bad hostlist \"{shown}\": {error}")));
                faults.extend(other.err().into_iter().flatten());
            }
            (_, Err(more)) => faults.extend(more),
        }
    }
    if names.is_empty() && faults.is_empty() {
        return wrong(value, "the table is empty");
    }
    if faults.is_empty() { Ok(names) } else { Err(faults) }
}

/// What a device calls a target, or all of them with `{target}` in it.
fn name_of_target(value: &Spanned<DeValue>) -> Parsed<String> {
    let name = text(value)?;
    if name.is_empty() || name.contains(char::is_control) {
        return wrong(value, "it is empty or has control characters");
    }
    let faults = unknown_placeholders(value, &name, &["target"]);
    if faults.is_empty() { Ok(name) } else { Err(faults) }
}

/// A secret: `password_file`, `password_env` or `password_credential`, at most one of them. The keys
/// are given, as some devices have several secrets.
pub(super) fn secret(
    section: &mut Section,
    keys: [&str; 3],
    problems: &Problems,
) -> Option<SecretSource> {
    let offset = section.offset_of(keys.into_iter().find(|key| section.has(key)).unwrap_or(""));
    let [file, environment, credential] = keys;
    let sources = [
        section.get(file, path).map(SecretSource::File),
        section.get(environment, variable).map(SecretSource::Environment),
        section.get(credential, name).map(SecretSource::Credential),
    ];
    let mut given = sources.into_iter().flatten();
    let source = given.next();
    if given.next().is_some() {
        let [first, second, third] = keys;
        problems.at(offset, format!("give only one of '{first}', '{second}', '{third}'"));
    }
    source
}

/// The name of an environment variable.
fn variable(value: &Spanned<DeValue>) -> Parsed<String> {
    let name = text(value)?;
    if is_variable(&name) { Ok(name) } else { wrong(value, NO_VARIABLE) }
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
    match value.get_ref() {
        DeValue::Array(items) => collect(items.iter().map(form)),
        other => wrong(value, format!("expected a list, not {}", kind(other))),
    }
}

/// A table of any keys whose values have this form, which is told the key as well.
pub(super) fn table<T>(
    value: &Spanned<DeValue>,
    form: impl Fn(&str, &Spanned<DeValue>) -> Parsed<T>,
) -> Parsed<BTreeMap<String, T>> {
    let DeValue::Table(entries) = value.get_ref() else {
        let found = kind(value.get_ref());
        return wrong(
            value,
            format!("expected a table such as {{ name = \"value\" }}, not {found}"),
        );
    };
    let entries = entries.iter().map(|(key, value)| {
        let key = key.get_ref().as_ref();
        let named = |fault: Fault| Fault {
            text: format!("'{}': {}", key.escape_debug(), fault.text),
            ..fault
        };
        match form(key, value) {
            Ok(parsed) => Ok((key.to_owned(), parsed)),
            Err(faults) => Err(faults.into_iter().map(named).collect()),
        }
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

/// The placeholders in `text`, which is `value`, that nothing will be put in for.
fn unknown_placeholders(value: &Spanned<DeValue>, text: &str, known: &[&str]) -> Vec<Fault> {
    let unknown = placeholders(text).into_iter().filter(|name| !known.contains(name));
    let fault = |name| Fault {
        offset: value.span().start,
        text: format!("unknown placeholder '{{{name}}}' (known: {{{}}})", known.join("} {")),
    };
    unknown.map(fault).collect()
}

/// The duration that `text` is, such as "45s", in milliseconds.
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
    let (unit, factor) = UNITS
        .iter()
        .rev()
        .find(|(_, factor)| milliseconds.is_multiple_of(*factor))
        .unwrap_or(&UNITS[0]);
    format!("{}{unit}", milliseconds / factor)
}

fn kind(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What is wrong with `value`.
pub(super) fn wrong<T>(value: &Spanned<DeValue>, text: impl Into<String>) -> Parsed<T> {
    Err(vec![Fault { offset: value.span().start, text: text.into() }])
}

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const UNITS_TEXT: &str = "units: ms, s, m, h, d";
/// What is said of a text that should be one.
pub(super) const NO_VARIABLE: &str = "it is no name of an environment variable";

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
        let value = DeValue::parse("''").unwrap();
        let unknown = |argument: &str| {
            let faults = unknown_placeholders(&value, argument, &["target"]);
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
