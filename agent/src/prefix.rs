//! Abbreviated long options: `--act=off`, as getopt accepts them in the fence-agents library.
//!
//! An abbreviation means the one parameter whose name begins with it. If the names of two
//! parameters do, it is an error: half a word must not choose between them.

use std::ffi::OsString;

use crate::parameters::{Kind, PARAMETERS, Parameter};

/// `words` with their long options in full. The error names an abbreviation of several parameters.
pub(crate) fn completed(words: &[OsString]) -> Result<Vec<OsString>, String> {
    let mut completed = Vec::with_capacity(words.len());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (word, takes_next) = match word.to_str() {
            Some("--") => {
                completed.push(word.clone());
                break;
            }
            Some(text) if text.starts_with("--") => long(text)?,
            Some(text) if text.starts_with('-') => (word.clone(), takes_next(text)),
            _ => (word.clone(), false),
        };
        completed.push(word);
        if takes_next {
            completed.extend(words.next().cloned());
        }
    }
    completed.extend(words.cloned());
    Ok(completed)
}

/// The long option in full, and whether the next word is its value.
fn long(text: &str) -> Result<(OsString, bool), String> {
    let (name, value) =
        text[2..].split_once('=').map_or((&text[2..], None), |(name, value)| (name, Some(value)));
    let Some((row, spelling)) = meant(&name.replace('-', "_"))? else {
        return Ok((text.into(), false));
    };
    let option = format!("--{}", spelling.replace('_', "-"));
    Ok(match value {
        Some(value) => (format!("{option}={value}").into(), false),
        None => (option.into(), row.kind != Kind::Flag),
    })
}

/// The parameter that `name` is or abbreviates, and its spelling.
fn meant(name: &str) -> Result<Option<(&'static Parameter, &'static str)>, String> {
    let spellings =
        || PARAMETERS.iter().flat_map(|row| row.spellings().map(move |name| (row, name)));
    if let Some(exact) = spellings().find(|(_, spelling)| *spelling == name) {
        return Ok(Some(exact));
    }
    let mut beginning =
        spellings().filter(|(_, spelling)| !name.is_empty() && spelling.starts_with(name));
    let Some(first) = beginning.next() else { return Ok(None) };
    match beginning.find(|(row, _)| row.name != first.0.name) {
        None => Ok(Some(first)),
        Some(other) => {
            let shown = |spelling: &str| spelling.replace('_', "-");
            Err(format!(
                "'--{}' could be '--{}' or '--{}'",
                shown(name),
                shown(first.1),
                shown(other.1)
            ))
        }
    }
}

/// Whether the value of these short options is the next word.
fn takes_next(word: &str) -> bool {
    let takes_value = |letter: char| {
        PARAMETERS.iter().any(|row| row.short == Some(letter) && row.kind != Kind::Flag)
    };
    // The rest of the word is the value of the first option that takes a value.
    let mut letters = word.chars().skip(1);
    letters.any(takes_value) && letters.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Vec<String>, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let completed = completed(&words)?;
        Ok(completed.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn a_beginning_that_one_name_has_is_that_name() {
        for (given, meant) in [
            (&["--act=off"][..], &["--action=off"][..]),
            (&["--act", "off", "--plug", "n3"], &["--action", "off", "--plug", "n3"]),
            (&["--request=/x"], &["--request-dir=/x"]),
            (&["--request-p", "/x"], &["--request-path", "/x"]),
            (&["--request_p", "/x"], &["--request-path", "/x"]),
            (&["--qui"], &["--quiet"]),
            (&["--plug-s=,"], &["--plug-separator=,"]),
            (&["--fence=9"], &["--fence-timeout=9"]),
            (&["--verbose", "--dev", "--dev"], &["--verbose", "--device", "--dev"]),
            (&["-n", "--act", "--dela=1"], &["-n", "--act", "--delay=1"]),
            (&["-vo", "--act"], &["-vo", "--act"]),
            (&["-nx", "--act=off"], &["-nx", "--action=off"]),
            (&["-ov", "--act=off"], &["-ov", "--action=off"]),
            (&["-v", "--act=off"], &["-v", "--action=off"]),
            (&["-", "--act=off"], &["-", "--action=off"]),
            (&["--", "--act=off"], &["--", "--act=off"]),
            (&["--nonsense=1", "--=1", "x"], &["--nonsense=1", "--=1", "x"]),
        ] {
            assert_eq!(of(given).unwrap(), meant, "{given:?}");
        }
    }

    #[test]
    fn a_beginning_that_several_names_have_is_none_of_them() {
        for word in ["--ver", "--plu", "--po", "--no", "--response", "--re=1", "--p"] {
            let is_unique = word == "--response";
            assert_eq!(of(&[word]).is_err(), !is_unique, "{word}");
        }
        assert_eq!(
            of(&["--plu=x"]).unwrap_err(),
            "'--plu' could be '--plug' or '--plug-separator'"
        );
    }

    /// A complete name is never an abbreviation of another name.
    #[test]
    fn each_name_in_full_means_itself() {
        for spelling in PARAMETERS.iter().flat_map(Parameter::spellings) {
            assert_eq!(meant(spelling).unwrap().unwrap().1, spelling);
        }
    }
}
