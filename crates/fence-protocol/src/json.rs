//! The error in a JSON text, in words for people who do not know this program's types.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::Error;
use serde_json::error::Category;

use crate::bounded;
use crate::request::check_passed;

/// Reads a record. The error says what is wrong, and in which member.
pub(crate) fn read_record<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let place = Place::default();
    let mut text = serde_json::Deserializer::from_slice(bytes);
    let read = T::deserialize(Noted { inner: &mut text, place: &place });
    let read = read.and_then(|record| text.end().map(|()| record)).map_err(|error| {
        let why = json_problem(bytes, &error);
        let is_of_value = place.is_in_value.get() && error.is_data();
        if is_of_value { format!("member \"{}\": {why}", place.member.borrow()) } else { why }
    });
    let record = read?;
    check_passed(bytes)?;
    Ok(record)
}

/// The member of an object that the parser reads.
#[derive(Default)]
struct Place {
    member: RefCell<String>,
    is_in_value: Cell<bool>,
}

/// A reader of an object for `inner`, which notes the member that it reads.
struct Noted<'a, T> {
    inner: T,
    place: &'a Place,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Noted<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Noted { inner: visitor, place: self.place })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Noted<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Noted { inner: map, place: self.place })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Noted<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let Some(member) = self.inner.next_key::<String>()? else { return Ok(None) };
        let key = seed.deserialize(member.as_str().into_deserializer());
        self.place.member.replace(member);
        key.map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.place.is_in_value.set(true);
        let value = self.inner.next_value_seed(seed)?;
        self.place.is_in_value.set(false);
        Ok(value)
    }
}

/// The parser's error about `bytes`, which should be an object, in words.
pub fn json_problem(bytes: &[u8], error: &Error) -> String {
    let (line, column) = (error.line(), error.column());
    let is_object = bytes.trim_ascii_start().first() == Some(&b'{');
    match error.classify() {
        Category::Eof => "it is empty or ends too early".to_owned(),
        _ if !is_object => "it is not an object".to_owned(),
        Category::Data => of_data(&error.to_string()),
        Category::Syntax | Category::Io => format!("an error in line {line}, column {column}"),
    }
}

/// The words for a value that is JSON, but not of the required kind.
fn of_data(text: &str) -> String {
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    if let Some(member) = member_in(text, "duplicate field `") {
        return format!("the member \"{member}\" stands there twice");
    }
    if let Some(member) = member_in(text, "missing field `") {
        return format!("the member \"{member}\" is missing");
    }
    if let Some((word, known)) =
        text.strip_prefix("unknown variant `").and_then(|rest| rest.split_once("`, expected "))
    {
        let known = known.trim_start_matches("one of ").replace('`', "'");
        let word = bounded(word, FOUND_BYTES_MAX);
        return format!("'{}' is no known word; known: {known}", word.escape_debug());
    }
    let wrong =
        ["invalid type: ", "invalid value: "].iter().find_map(|start| text.strip_prefix(start));
    match wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, wanted)) => {
            let found = bounded(found, FOUND_BYTES_MAX);
            format!("{found} stands where {} is required", in_words(wanted))
        }
        None => text.replace('`', "'"),
    }
}

/// The longest wrong value that is shown, in bytes: a message must fit into a record.
const FOUND_BYTES_MAX: usize = 100;

fn member_in<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.strip_prefix(start)?.strip_suffix('`')
}

/// The value that the parser requires, without the names of types.
fn in_words(wanted: &str) -> &str {
    match wanted {
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        _ if wanted.starts_with("struct ") => "an object",
        _ if wanted.starts_with("enum ") || wanted.starts_with("variant ") => "a known word",
        _ if wanted.starts_with(['u', 'i']) && wanted[1..].parse::<u8>().is_ok() => {
            "a whole number"
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only what cannot be read matters here")]
    struct Raw {
        number: u64,
        yes: bool,
        names: Vec<String>,
        inner: Option<Box<Raw>>,
        word: Option<Word>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Good,
        Bad,
    }

    #[test]
    fn a_record_that_cannot_be_read_has_its_wrong_member_named_and_no_other() {
        let inner = "{\"number\": 1, \"yes\": true, \"names\": [7]}";
        for (text, words) in [
            ("{\"yes\": true, \"number\": \"x\"}", "member \"number\": string \"x\" stands where"),
            ("{\"names\": [1]}", "member \"names\": integer `1` stands where a string is required"),
            (&format!("{{\"inner\": {inner}}}"), "member \"inner\": integer `7` stands where"),
            ("{\"yes\": 1, \"yes\": true}", "member \"yes\": integer `1` stands where true or"),
            ("{\"number\": 1, \"number\": \"x\"}", "the member \"number\" stands there twice"),
            ("{\"other\": [], \"other\": {}, \"number\": 1}", "the member \"yes\" is missing"),
            ("", "it is empty or ends too early"),
            ("{\"number\": 1", "it is empty or ends too early"),
            ("{\"number\" 1}", "an error in line 1, column 11"),
            ("[1, true, []]", "it is not an object"),
            ("{} {}", "the member \"number\" is missing"),
        ] {
            let why = read_record::<Raw>(text.as_bytes()).unwrap_err();
            assert!(why.starts_with(words), "{text}: {why}");
        }
        let whole = "{\"number\": 1, \"yes\": true, \"names\": [], \"other\": 1, \"other\": 2}";
        assert_eq!(read_record::<Raw>(whole.as_bytes()).unwrap().number, 1);
        assert!(read_record::<Raw>(format!("{whole} x").as_bytes()).is_err());
    }

    #[test]
    fn a_wrong_value_is_shown_in_one_short_line_however_long_it_is() {
        let long = "x\u{1f}\n".repeat(1000).replace('\u{1f}', "\\u001f").replace('\n', "\\n");
        for (text, words) in [
            (format!("{{\"number\": \"{long}\"}}"), "stands where a whole number is required"),
            (format!("{{\"word\": \"{long}\"}}"), "is no known word; known: 'good' or 'bad'"),
        ] {
            let why = read_record::<Raw>(text.as_bytes()).unwrap_err();
            assert!(why.ends_with(words) && why.len() < 500, "{why}");
            assert!(!why.contains(char::is_control), "{why:?}");
        }
    }

    #[test]
    fn no_word_of_the_parsers_own_is_shown() {
        for (text, words) in [
            ("", "it is empty or ends too early"),
            ("{\"number\": 1", "it is empty or ends too early"),
            ("[1, true]", "it is not an object"),
            ("7", "it is not an object"),
            ("hello", "it is not an object"),
            ("{\"number\" 1}", "an error in line 1, column 11"),
            ("{\"number\": 1, \"number\": 2}", "the member \"number\" stands there twice"),
            ("{\"number\": 1}", "the member \"yes\" is missing"),
            ("{\"number\": \"x, y\"}", "string \"x, y\" stands where a whole number is required"),
            ("{\"number\": -1}", "integer `-1` stands where a whole number is required"),
            ("{\"yes\": 1}", "integer `1` stands where true or false is required"),
            ("{\"names\": 1}", "integer `1` stands where a list is required"),
            ("{\"inner\": 1}", "integer `1` stands where an object is required"),
        ] {
            let error = serde_json::from_str::<Raw>(text).unwrap_err();
            assert_eq!(json_problem(text.as_bytes(), &error), words, "{text}");
        }
    }
}
