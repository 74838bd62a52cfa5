//! The options of a fence agent: which may be written, and how each is passed on.

use std::collections::{BTreeMap, BTreeSet};

use fence_device::SecretSource;
use toml::Spanned;
use toml::de::DeValue;

use crate::config::reader::Parsed;
use crate::config::values::{NO_VARIABLE, is_variable, number, table, text, wrong};

/// The options that other keys of the device set.
pub(super) struct Reserved<'a> {
    pub(super) plug_option: &'a str,
    pub(super) secrets: &'a BTreeMap<String, SecretSource>,
}

impl Reserved<'_> {
    /// Why the table of options must not contain `name`.
    fn problem(&self, name: &str) -> Option<&'static str> {
        let spelling = spelling(name);
        let is = |other: &str| self::spelling(other) == spelling;
        let are_plugs = PLUGS.contains(&self.plug_option) && PLUGS.contains(&spelling.as_str());
        if is(self.plug_option) || are_plugs {
            return Some("it carries the target: write the device's own key 'plug'");
        }
        if self.secrets.keys().any(|secret| is(secret)) {
            return Some("it is also given as a secret");
        }
        set_otherwise(name).or_else(|| is_secret(&spelling).then_some(IN_CLEAR))
    }
}

/// Why `name` must not be configured.
pub(super) fn set_otherwise(name: &str) -> Option<&'static str> {
    match spelling(name).as_str() {
        "action" | "option" | "nodename" => Some("it is set for each call"),
        "delay" => Some(LATE),
        "method" => Some("write the device's own key 'method'"),
        "port_as_ip" => Some("write plug_option = \"ip\" for the device"),
        "help" | "version" => Some("with it the agent does nothing, and reports success"),
        _ => None,
    }
}

/// The one spelling of a name: agents accept `-` for `_`.
pub(in crate::config::device) fn spelling(name: &str) -> String {
    name.replace('-', "_")
}

/// The options, each in the form that the agent reads.
pub(super) fn options(
    value: &Spanned<DeValue>,
    reserved: &Reserved,
) -> Parsed<BTreeMap<String, String>> {
    let options = table(value, |name, value| match reserved.problem(name) {
        _ if !is_option_name(name) => wrong(value, NO_OPTION),
        Some(problem) => wrong(value, problem),
        None => option_value(value),
    })?;
    let mut spellings = BTreeSet::new();
    let again = options.keys().filter(|name| !spellings.insert(spelling(name)));
    let twice: Vec<String> = again.map(|name| format!("'{name}' is written twice")).collect();
    if twice.is_empty() { Ok(options) } else { wrong(value, twice.join(", ")) }
}

fn option_value(value: &Spanned<DeValue>) -> Parsed<String> {
    match value.get_ref() {
        DeValue::Boolean(true) => Ok("1".to_owned()),
        DeValue::Boolean(false) => wrong(
            value,
            "leave it out: for many agents every given option is true (\"0\" in quotes is passed \
             on)",
        ),
        DeValue::Integer(_) => Ok(number(i64::MIN..=i64::MAX)(value)?.to_string()),
        _ => line(value),
    }
}

/// A text that the agent receives unchanged: agents read lines, and cut blanks off their ends.
fn line(value: &Spanned<DeValue>) -> Parsed<String> {
    let text = text(value)?;
    if text.contains(char::is_control) {
        return wrong(value, "it has more than one line, or control characters");
    }
    if text.trim() != text {
        return wrong(value, "it begins or ends with a blank");
    }
    Ok(text)
}

pub(super) fn environment(value: &Spanned<DeValue>) -> Parsed<BTreeMap<String, String>> {
    table(value, |name, value| match is_secret(&name.to_ascii_lowercase()) {
        _ if !is_variable(name) => wrong(value, NO_VARIABLE),
        true => wrong(value, "a secret does not belong in this file"),
        false => line(value),
    })
}

/// The name of an option that carries a value of another key.
pub(super) fn option_name(value: &Spanned<DeValue>) -> Parsed<String> {
    let name = text(value)?;
    match set_otherwise(&name) {
        _ if !is_option_name(&name) => wrong(value, NO_OPTION),
        // Some agents have no other option for their target.
        Some(problem) if name != "nodename" => wrong(value, problem),
        _ => Ok(name),
    }
}

pub(super) fn is_option_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Whether an option or variable of this name, in small letters, holds a secret, and not the path
/// of one.
fn is_secret(name: &str) -> bool {
    let holds = |part: &&str| name.contains(part);
    let is_place = |end: &&str| name.ends_with(end);
    SECRETS.iter().any(holds) && !PLACES.iter().any(is_place)
}

const SECRETS: &[&str] =
    &["passw", "passphrase", "secret", "token", "apikey", "api_key", "community", "hexadecimal_kg"];
const PLACES: &[&str] = &["_file", "_script", "_path", "_uri", "_url"];

/// The two names of the usual option for a plug.
const PLUGS: &[&str] = &["plug", "port"];

const IN_CLEAR: &str = "a secret does not belong in this file: put it into a file that only root \
    can read, and name that in 'password_file' (with 'password_option', if the option is not \
    'password') or in 'secret_files'";

const LATE: &str = "the agent would carry out the order later, even if nobody waits for it any \
    more: a delay belongs to the cluster's resource (pcmk_delay_base, or the option 'delay' of \
    fence_gfs2_recorder)";

pub(super) const NO_OPTION: &str = "it is not the name of an option";
