//! Any text as one line.

use std::fmt::Write;

/// `text` as one line. Characters that are not plain, and the backslash, become escapes, so a value
/// from outside can neither begin a line nor imitate another value.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            c if is_plain(c) => line.push(c),
            c => write!(line, "\\u{{{:x}}}", u32::from(c)).expect("a String takes every text"),
        }
    }
    line
}

/// The same for people: the backslash stays unchanged. A text that quotes a value from outside
/// already has escapes, and a text may pass through this function several times.
pub fn shown_line(text: &str) -> String {
    text.split('\\').map(one_line).collect::<Vec<_>>().join("\\")
}

/// Whether `c` neither ends a line nor controls how a terminal shows the rest of the line.
///
/// Not plain are the control characters (C0, DEL, C1 with U+0085), the line and paragraph
/// separators, and the marks that change the direction of writing.
pub fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_can_begin_a_line_or_hide_one() {
        let hostile = "a\nb\rc\u{85}d\u{2028}e\u{2029}f\x1b[2Kg\0h\u{202e}i\u{7f}j\\n";

        let line = one_line(hostile);

        assert!(line.chars().all(is_plain), "{line:?}");
        assert_eq!(
            line,
            "a\\nb\\u{d}c\\u{85}d\\u{2028}e\\u{2029}f\\u{1b}[2Kg\\u{0}h\\u{202e}i\\u{7f}j\\\\n"
        );
    }

    #[test]
    fn what_people_are_shown_has_each_backslash_once() {
        let once = shown_line("a\nb 'C:\\x'\u{7}");
        assert_eq!(once, "a\\nb 'C:\\x'\\u{7}");
        assert_eq!(shown_line(&once), once);
    }

    #[test]
    fn an_ordinary_text_stays_as_it_is() {
        assert_eq!(one_line("fenced 'n3' – größer"), "fenced 'n3' – größer");
    }
}
