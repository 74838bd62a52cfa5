//! Names in a short form for people: `n[1-3,5]`, in the order in which people count.
//!
//! The inverse of [`crate::expand_hostlist`]: the short form names the same nodes.

use std::cmp::Ordering;

/// The hostlist expression for `names`: `n[1-3,5]`. It folds a number before the first dot, also if
/// text follows the number: `n[1-3]-bmc`, `n[1-3].example.com`.
pub fn fold_hostlist<'a, T>(names: impl IntoIterator<Item = &'a T>) -> String
where
    T: AsRef<str> + ?Sized + 'a,
{
    let mut parts: Vec<Numbered> = names.into_iter().map(|name| split(name.as_ref())).collect();
    parts.sort_by_cached_key(Numbered::place);
    parts.dedup();
    parts
        .chunk_by(Numbered::goes_with)
        .map(|group| match group {
            [one] => format!("{}{}{}", one.prefix, one.digits, one.suffix),
            _ => format!("{}[{}]{}", group[0].prefix, ranges(group), group[0].suffix),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// Compares names as people count: `n9` before `n10`.
pub fn natural_order(one: &str, other: &str) -> Ordering {
    natural(one).cmp(&natural(other)).then_with(|| one.cmp(other))
}

/// A name as the text before a number, the number, and the text after it.
#[derive(PartialEq, Eq)]
struct Numbered<'a> {
    prefix: &'a str,
    number: Option<u32>,
    digits: &'a str,
    suffix: &'a str,
}

impl<'a> Numbered<'a> {
    /// The key that orders names as people do, and keeps names together that can be folded.
    fn place(&self) -> impl Ord + use<'a> {
        let natural = |text: &'a str| (natural(text), text);
        (natural(self.prefix), natural(self.suffix), self.number, self.digits)
    }

    fn goes_with(&self, other: &Self) -> bool {
        let is_numbered = self.number.is_some() && other.number.is_some();
        is_numbered && self.prefix == other.prefix && self.suffix == other.suffix
    }
}

fn split(name: &str) -> Numbered<'_> {
    let label = name.split('.').next().unwrap_or(name);
    let is_digit = |c: char| c.is_ascii_digit();
    let end = label.rfind(is_digit).map_or(0, |last| last + 1);
    let start = label[..end].trim_end_matches(is_digit).len();
    let digits = &name[start..end];
    match digits.parse() {
        Ok(number) => {
            Numbered { prefix: &name[..start], number: Some(number), digits, suffix: &name[end..] }
        }
        Err(_) => Numbered { prefix: name, number: None, digits: "", suffix: "" },
    }
}

/// A piece of a text. Numbers have the order of their values, and come before other text.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Piece<'a> {
    /// The length comes first: of two numbers without leading zeros the longer one is greater.
    Number(usize, &'a str),
    Text(&'a str),
}

fn natural(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_number = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push(if is_number {
            let value = piece.trim_start_matches('0');
            Piece::Number(value.len(), value)
        } else {
            Piece::Text(piece)
        });
        rest = after;
    }
    pieces
}

fn ranges(group: &[Numbered]) -> String {
    group
        .chunk_by(follows)
        .map(|range| match range {
            [one] => one.digits.to_owned(),
            _ => format!("{}-{}", range[0].digits, range[range.len() - 1].digits),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// Whether `b` continues a range that ends with `a`: the next number, written in the same way.
fn follows(a: &Numbered, b: &Numbered) -> bool {
    let width = if a.digits.starts_with('0') { a.digits.len() } else { 0 };
    let next = a.number.and_then(|number| number.checked_add(1));
    next.is_some_and(|next| format!("{next:0width$}") == b.digits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{NodeName, expand_hostlist};

    #[test]
    fn a_folded_list_names_the_same_nodes() {
        for (written, folded) in [
            ("n1,n2,n3,n5", "n[1-3,5]"),
            ("n[1-12]", "n[1-12]"),
            ("n[08-11]", "n[08-11]"),
            ("n9,n10,n010,n011", "n[9,010,10,011]"),
            ("b,a,n1", "a,b,n1"),
            ("rack1-n[1-2],rack2-n1", "rack1-n[1-2],rack2-n1"),
            ("n99999999999", "n99999999999"),
            ("7,8", "[7-8]"),
        ] {
            let nodes: BTreeSet<NodeName> = expand_hostlist(written).unwrap().into_iter().collect();
            let text = fold_hostlist(&nodes);

            assert_eq!(text, folded);
            let again: BTreeSet<NodeName> = expand_hostlist(&text).unwrap().into_iter().collect();
            assert_eq!(again, nodes, "{written}");
        }
    }

    #[test]
    fn names_stand_in_the_order_of_their_numbers_wherever_these_are() {
        for (written, folded) in [
            ("n10,n9,n2,n1", "n[1-2,9-10]"),
            ("rack10-n1,rack2-n1,rack2-n2", "rack2-n[1-2],rack10-n1"),
            ("n10-bmc,n9-bmc,n2-bmc", "n[2,9-10]-bmc"),
            ("n2.x.org,n10.x.org,n1.x.org", "n[1-2,10].x.org"),
            ("n1.site10,n1.site2", "n1.site2,n1.site10"),
            ("a10b,a9", "a9,a10b"),
            ("10.0.0.9,10.0.0.10", "10.0.0.9,10.0.0.10"),
            ("n1,n1", "n1"),
        ] {
            let names: Vec<&str> = written.split(',').collect();
            assert_eq!(fold_hostlist(names), folded);
        }
    }
}
