//! The known word that a mistyped word probably means, for error messages.

/// The word of `known` that `written` probably means: the first that begins with `written` or is
/// its beginning (`user` for `username`), else the most similar word, if it is similar enough.
pub fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let is_part = |word: &&&str| {
        word.len().min(written.len()) >= PART_BYTES_MIN
            && (word.starts_with(written) || written.starts_with(**word))
    };
    let by_part = known.iter().find(is_part).copied();
    by_part.or_else(|| {
        let (least, word) = known.iter().map(|word| (distance(written, word), *word)).min()?;
        (least <= 1 + word.len() / 4).then_some(word)
    })
}

/// The shortest word that counts as the beginning of another one, in bytes.
const PART_BYTES_MIN: usize = 3;

/// The number of characters to change, add or remove to make `a` into `b` (Levenshtein).
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

    #[test]
    fn a_part_of_a_name_is_completed() {
        let known = ["username", "password_file", "password_env", "address", "off"];

        assert_eq!(nearest("user", &known), Some("username"));
        assert_eq!(nearest("password", &known), Some("password_file"));
        assert_eq!(nearest("addr", &known), Some("address"));
        assert_eq!(nearest("address_of_the_bmc", &known), Some("address"));
        assert_eq!(nearest("us", &known), None);
        assert_eq!(nearest("name", &known), None);
    }
}
