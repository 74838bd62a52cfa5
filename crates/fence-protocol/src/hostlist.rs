//! Hostlist expressions: `compute-node-[1-16,20]`, `rack[1-2]-n[01-04]`, `a,b`.
//!
//! Users of pdsh, Slurm, PowerMan and ClusterShell write this form. A number with leading zeros
//! keeps its width. Each expansion is bounded, so that a mistyped digit does not exhaust the memory
//! of a daemon.

use std::fmt;

use crate::names::NODE_NAME_BYTES_MAX;
use crate::{NameError, NodeName, bounded};

/// The most nodes that one expression may name.
pub const NODES_MAX: usize = 65_536;

/// Why a text is not a hostlist expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostlistError {
    /// A bracket is not closed, not opened, or inside another one.
    Bracket,
    /// This part between the brackets is neither a number nor a range of numbers.
    Range(String),
    /// The expression names more than [`NODES_MAX`] nodes.
    TooMany,
    /// One of the resulting names is not a node name.
    Name(String, NameError),
}

impl fmt::Display for HostlistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostlistError::Bracket => f.write_str("its brackets do not match"),
            HostlistError::Range(part) => write!(f, "{part:?} is not a range such as 1-16"),
            HostlistError::TooMany => write!(f, "it names more than {NODES_MAX} nodes"),
            HostlistError::Name(name, error) => write!(f, "{name:?} is not a node name: {error}"),
        }
    }
}

impl std::error::Error for HostlistError {}

/// All node names that `expression` names, in its order.
pub fn expand_hostlist(expression: &str) -> Result<Vec<NodeName>, HostlistError> {
    let mut names = Vec::new();
    for part in split_outside_brackets(expression)? {
        for name in expand_one(part.trim())? {
            if names.len() == NODES_MAX {
                return Err(HostlistError::TooMany);
            }
            match name.parse() {
                Ok(node) => names.push(node),
                Err(error) => return Err(HostlistError::Name(name, error)),
            }
        }
    }
    Ok(names)
}

fn split_outside_brackets(expression: &str) -> Result<Vec<&str>, HostlistError> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (position, character) in expression.char_indices() {
        match (character, inside) {
            ('[', false) => inside = true,
            (']', true) => inside = false,
            ('[', true) | (']', false) => return Err(HostlistError::Bracket),
            (',', false) => {
                parts.push(&expression[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(HostlistError::Bracket);
    }
    parts.push(&expression[start..]);
    Ok(parts)
}

fn expand_one(part: &str) -> Result<Vec<String>, HostlistError> {
    let mut names = vec![String::new()];
    let mut rest = part;
    while let Some((literal, from_bracket)) = rest.split_once('[') {
        let (ranges, after) = from_bracket.split_once(']').ok_or(HostlistError::Bracket)?;
        let numbers = expand_ranges(ranges)?;
        if names.len() * numbers.len() > NODES_MAX {
            return Err(HostlistError::TooMany);
        }
        names = names
            .iter()
            .flat_map(|name| numbers.iter().map(move |number| format!("{name}{literal}{number}")))
            .map(short)
            .collect::<Result<_, _>>()?;
        rest = after;
    }
    names.into_iter().map(|name| short(name + rest)).collect()
}

/// Refuses a name that is too long as soon as it exists: thousands of such names would fill the
/// memory before the first check.
fn short(name: String) -> Result<String, HostlistError> {
    if name.len() > NODE_NAME_BYTES_MAX {
        let error = NameError::TooLong(NODE_NAME_BYTES_MAX);
        return Err(HostlistError::Name(bounded(&name, SHOWN_BYTES_MAX), error));
    }
    Ok(name)
}

/// The most bytes of a wrong part that are shown.
const SHOWN_BYTES_MAX: usize = 64;

fn expand_ranges(ranges: &str) -> Result<Vec<String>, HostlistError> {
    let mut numbers = Vec::new();
    for range in ranges.split(',') {
        let wrong = || HostlistError::Range(bounded(range, SHOWN_BYTES_MAX));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        // `parse` alone would accept "+1".
        let number = |digits: &str| {
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u32>().ok()).flatten()
        };
        let (from, to) = number(first).zip(number(last)).ok_or_else(wrong)?;
        // No name is so wide, and the formatter panics at 65,536.
        if from > to || first.len() > NODE_NAME_BYTES_MAX {
            return Err(wrong());
        }
        if (to - from) as usize >= NODES_MAX || numbers.len() + (to - from) as usize >= NODES_MAX {
            return Err(HostlistError::TooMany);
        }
        let width = if first.starts_with('0') { first.len() } else { 0 };
        numbers.extend((from..=to).map(|number| format!("{number:0width$}")));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Vec<String> {
        expand_hostlist(text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_lists_and_widths_are_expanded_in_order() {
        assert_eq!(expand("n3"), ["n3"]);
        assert_eq!(expand("a, b"), ["a", "b"]);
        assert_eq!(expand("n[1-3,7]"), ["n1", "n2", "n3", "n7"]);
        assert_eq!(
            expand("n[08-10].x"),
            ["n08", "n09", "n10.x"].map(|n| format!("{}.x", n.trim_end_matches(".x")))
        );
        assert_eq!(expand("r[1-2]-n[1-2]"), ["r1-n1", "r1-n2", "r2-n1", "r2-n2"]);
        assert_eq!(expand("a[0-1],b[5]"), ["a0", "a1", "b5"]);
        assert_eq!(expand("compute-node-[1-16]").len(), 16);
    }

    #[test]
    fn bad_expressions_are_errors_and_not_node_names() {
        for bad in
            ["", "n[1", "n1]", "n[[1]]", "n[]", "n[a-b]", "n[3-1]", "n[1-]", "a,,b", "n[1]/x"]
        {
            assert!(expand_hostlist(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_expression_cannot_eat_the_memory() {
        for big in ["n[1-4000000000]", "n[1-9999][1-9999]", "n[0-65536]", "n[1-40000],m[1-40000]"] {
            assert_eq!(expand_hostlist(big), Err(HostlistError::TooMany), "{big}");
        }
        assert_eq!(expand_hostlist("n[1-65536]").unwrap().len(), NODES_MAX);
    }

    #[test]
    fn a_part_that_is_wrong_is_shown_on_one_line() {
        for (bad, shown) in [("n[0\n1-3]", r#""0\n1-3" is"#), ("a\u{1b}b", r#""a\u{1b}b" is"#)] {
            let text = expand_hostlist(bad).unwrap_err().to_string();
            assert!(text.starts_with(shown), "{text}");
        }
    }

    #[test]
    fn a_number_wider_than_any_name_is_refused_in_few_words() {
        for zeros in [60_000, 70_000] {
            let text = format!("n[{}1-65535]", "0".repeat(zeros));
            let error = expand_hostlist(&text).unwrap_err();
            assert!(matches!(error, HostlistError::Range(_)), "{error}");
            assert!(error.to_string().len() < 200, "{error}");
        }
        assert!(expand_hostlist(&format!("[{}1]", "0".repeat(252))).is_ok());
    }

    #[test]
    fn names_that_are_too_long_are_refused_before_all_of_them_are_made() {
        let long = "x".repeat(1_000_000);
        for text in [
            format!("{long}[1-65536]"),
            format!("[1-65536]{long}"),
            format!("[1-9]{}", "[1]".repeat(300_000)),
        ] {
            let error = expand_hostlist(&text).unwrap_err();
            assert!(matches!(error, HostlistError::Name(_, NameError::TooLong(_))), "{error}");
            assert!(error.to_string().len() < 200, "{error}");
        }
    }
}
