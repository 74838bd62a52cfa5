//! What is wrong with a text of JSON, in words for people who do not know this program's types.

use serde_json::Error;
use serde_json::error::Category;

/// What the parser says of `bytes`, which should be an object.
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

/// The words for a value that is JSON, and not what it should be.
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
        return format!("'{word}' is no known word; known: {known}");
    }
    let wrong =
        ["invalid type: ", "invalid value: "].iter().find_map(|start| text.strip_prefix(start));
    match wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, wanted)) => format!("{found} stands where {} is required", in_words(wanted)),
        None => text.replace('`', "'"),
    }
}

fn member_in<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.strip_prefix(start)?.strip_suffix('`')
}

/// What the parser wants, without the names of types.
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
