//! Plain tables: columns as wide as their widest cell, no colours, one line for each row; free text in
//! the last column wraps under itself.

use std::fmt::Write;

use fence_log::shown_line;

/// A table under construction.
#[derive(Debug)]
pub(super) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with these headings.
    pub(super) fn new(headings: [&str; COLUMNS]) -> Self {
        Table { rows: vec![headings.map(str::to_owned)] }
    }

    /// Adds a row. Whatever a cell holds, it stays on its line; an empty one shows as "-".
    pub(super) fn row(&mut self, cells: [&str; COLUMNS]) {
        self.rows
            .push(cells.map(|cell| if cell.is_empty() { "-".into() } else { shown_line(cell) }));
    }

    /// Whether there is nothing below the headings.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The lines, each with its end.
    pub(super) fn text(&self) -> String {
        self.wrapped(usize::MAX)
    }

    /// The same, at most `width` characters wide as far as the last column's text alone decides about
    /// that. Where no room is left beside the others, it stands below them.
    pub(super) fn wrapped(&self, width: usize) -> String {
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        });
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row[..COLUMNS - 1].iter().zip(widths) {
                write!(line, "{cell:width$}  ").expect("a String takes every text");
            }
            let mut indent = line.chars().count();
            if width < indent.saturating_add(FREE_TEXT_MIN.min(widths[COLUMNS - 1])) {
                text.push_str(line.trim_end());
                text.push('\n');
                indent = INDENT;
                line = " ".repeat(indent);
            }
            for part in lines(&row[COLUMNS - 1], width.saturating_sub(indent)) {
                line.push_str(part);
                text.push_str(line.trim_end());
                text.push('\n');
                line = " ".repeat(indent);
            }
        }
        text
    }
}

/// How wide a text may be: as the terminal, or as the usual one.
pub(super) fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(std::io::stdout());
    let width = terminal.map(|(terminal_size::Width(width), _)| usize::from(width));
    // A terminal that does not know its width says 0.
    width.filter(|width| *width > 0).unwrap_or(WIDTH)
}

/// `text` in lines of at most `width` characters: cut after a blank, or after a comma of a list; in a
/// word only if it is longer than a line.
pub(super) fn lines(text: &str, width: usize) -> Vec<&str> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((end, _)) = rest.char_indices().nth(width) {
        // A blank may stand right behind the line.
        let blank = if rest[end..].starts_with(' ') { Some(end) } else { rest[..end].rfind(' ') };
        let cut = blank.or_else(|| rest[..end].rfind(',').map(|comma| comma + 1));
        let cut = cut.filter(|cut| *cut > 0).unwrap_or(end);
        lines.push(rest[..cut].trim_end());
        rest = rest[cut..].trim_start();
    }
    lines.push(rest);
    lines
}

/// The width of the usual terminal, and of what is written to a file.
const WIDTH: usize = 80;

/// How much room free text needs beside the other columns.
const FREE_TEXT_MIN: usize = 24;

/// How far free text is moved to the right where it stands below the other columns.
const INDENT: usize = 4;

/// A span of time for people: `0.0s`, `4.2s`, `3m07s`, `2h05m`, `4d03h`.
pub(super) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        0..60 => format!("{seconds}.{}s", milliseconds % 1_000 / 100),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_no_cell_leaves_its_line() {
        let mut table = Table::new(["A", "LONG"]);
        assert!(table.is_empty());
        table.row(["wider", "x\ny"]);
        table.row(["", "z"]);

        assert_eq!(table.text(), "A      LONG\nwider  x\\ny\n-      z\n");
    }

    #[test]
    fn free_text_wraps_under_itself_and_below_the_others_where_there_is_no_room() {
        let mut table = Table::new(["NAME", "DETAILS"]);
        table.row(["n1", "one two three four five six seven"]);
        table.row(["n2", "n1,n2,n3,n4,n5,n6,n7,n8,n9,n10"]);
        table.row(["n3", &"x".repeat(30)]);

        assert_eq!(
            table.wrapped(30),
            "\
NAME  DETAILS
n1    one two three four five
      six seven
n2    n1,n2,n3,n4,n5,n6,n7,n8,
      n9,n10
n3    xxxxxxxxxxxxxxxxxxxxxxxx
      xxxxxx
"
        );
        table.row(["a very long name", "short"]);
        let text = table.wrapped(30);
        assert!(text.contains("\nn1\n    one two three four five\n    six seven\n"), "{text}");
        assert!(text.ends_with("\na very long name\n    short\n"), "{text}");
        assert_eq!(table.text().lines().count(), 5);
    }

    #[test]
    fn no_line_is_too_long_and_no_character_is_lost() {
        let text = "Ö, the device (at ä.ö) showed  on,off\u{2014}and a_word_that_is_long";
        for width in 1..80 {
            let lines = lines(text, width);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:?}");
            let no_blanks = |text: &str| text.replace(' ', "");
            assert_eq!(no_blanks(&lines.concat()), no_blanks(text));
        }
    }

    #[test]
    fn spans_are_short_and_never_rounded_up() {
        for (milliseconds, text) in [
            (0, "0.0s"),
            (999, "0.9s"),
            (1_000, "1.0s"),
            (59_999, "59.9s"),
            (60_000, "1m00s"),
            (3_599_999, "59m59s"),
            (7_500_000, "2h05m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(span(milliseconds), text);
        }
    }
}
