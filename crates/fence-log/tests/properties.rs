//! Every text becomes one line of a log, and no two texts become the same line.

use fence_log::{is_plain, one_line};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_text_is_one_line_that_tells_which_text_it_was(text in text()) {
        let line = one_line(&text);

        prop_assert!(line.lines().count() <= 1, "{:?}", line);
        prop_assert!(line.chars().all(is_plain), "{:?}", line);
        prop_assert_eq!(read(&line), text);
    }
}

/// Texts with many characters that must be escaped, and many apparent escapes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "([\n\r\t\u{0}\u{1b}\u{7f}\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\\\\]|[nu{}0-9a-f]){0,12}",
    ]
}

/// The original text of a line.
fn read(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        text.push(match c {
            '\\' => match rest.next().expect("an escape is whole") {
                'u' => {
                    let digits: String = rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    let number = u32::from_str_radix(&digits, 16).expect("digits");
                    char::from_u32(number).expect("a character")
                }
                'n' => '\n',
                other => other,
            },
            c => c,
        });
    }
    text
}
