//! Which known word a mistyped one was meant to be, for error messages.

/// The one of `known` that `written` was probably meant to be.
pub fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, word) = known.iter().map(|word| (distance(written, word), *word)).min()?;
    (distance <= 1 + word.len() / 4).then_some(word)
}

/// How many characters to change, add or remove to make `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let known = ["timeout", "targets", "off", "on"];

        assert_eq!(nearest("tiemout", &known), Some("timeout"));
        assert_eq!(nearest("target", &known), Some("targets"));
        assert_eq!(nearest("of", &known), Some("off"));
        assert_eq!(nearest("password", &known), None);
        assert_eq!(nearest("", &[]), None);
    }
}
