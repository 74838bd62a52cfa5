//! Plain tables: columns as wide as their widest cell, no colours, and one line for each row if it
//! fits. The free text in the last column wraps inside its column.

use std::ops::Range;

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

    /// Adds a row. Each cell becomes one line; an empty cell becomes "-".
    pub(super) fn row(&mut self, cells: [&str; COLUMNS]) {
        self.rows
            .push(cells.map(|cell| if cell.is_empty() { "-".into() } else { shown_line(cell) }));
    }

    /// Whether the table has no row below the headings.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The lines, each with its end.
    pub(super) fn text(&self) -> String {
        self.wrapped(usize::MAX)
    }

    /// The same, at most `width` characters wide. Columns without room beside the ones before them
    /// move below these, in every row; nothing is cut away.
    pub(super) fn wrapped(&self, width: usize) -> String {
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            self.rows.iter().map(|row| length(&row[column])).max().unwrap_or(0)
        });
        let shelves = self.shelves(widths, width);
        let mut text = String::new();
        for row in &self.rows {
            for shelf in &shelves {
                let mut line = " ".repeat(if shelf.start == 0 { 0 } else { INDENT });
                let last = shelf.end - 1;
                for (cell, width) in row[shelf.start..last].iter().zip(&widths[shelf.start..]) {
                    let gap = " ".repeat(width - length(cell) + GAP);
                    line.extend([cell.as_str(), &gap]);
                }
                let indent = length(&line);
                for part in lines(&row[last], width.saturating_sub(indent)) {
                    line.push_str(part);
                    text.push_str(line.trim_end());
                    text.push('\n');
                    line = " ".repeat(indent);
                }
            }
        }
        text
    }

    /// The columns that share a line. The last column is free text and needs less room than its
    /// width.
    fn shelves(&self, mut needed: [usize; COLUMNS], width: usize) -> Vec<Range<usize>> {
        let last = COLUMNS - 1;
        let words = self.rows.iter().flat_map(|row| words(&row[last])).map(length);
        let word = words.filter(|word| INDENT + word <= width).max().unwrap_or(0);
        needed[last] = needed[last].min(FREE_TEXT_MIN.max(word));
        let (mut shelves, mut begin, mut used) = (Vec::new(), 0, 0_usize);
        for (column, room) in needed.into_iter().enumerate() {
            if column > begin && used + room > width {
                shelves.push(begin..column);
                (begin, used) = (column, INDENT);
            }
            used += room + GAP;
        }
        shelves.push(begin..COLUMNS);
        shelves
    }
}

/// The width of the terminal, or the usual width.
pub(super) fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(std::io::stdout());
    let width = terminal.map(|(terminal_size::Width(width), _)| usize::from(width));
    // A terminal that does not know its width reports 0.
    width.filter(|width| *width > 0).unwrap_or(WIDTH)
}

/// `text` in lines of at most `width` characters, cut after a blank or after a comma of a list, if
/// possible outside brackets. Only a word that is longer than a line is cut itself.
pub(super) fn lines(text: &str, width: usize) -> Vec<&str> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((end, _)) = rest.char_indices().nth(width) {
        let commas = || rest[..end].rmatch_indices(',').map(|(comma, _)| comma);
        // A blank may follow the line directly.
        let blank = if rest[end..].starts_with(' ') { Some(end) } else { rest[..end].rfind(' ') };
        let cut = blank
            .or_else(|| commas().find(|comma| !is_in_brackets(rest, *comma)).map(|comma| comma + 1))
            .or_else(|| commas().next().map(|comma| comma + 1));
        let cut = cut.filter(|cut| *cut > 0).unwrap_or(end);
        lines.push(rest[..cut].trim_end());
        rest = rest[cut..].trim_start();
    }
    lines.push(rest);
    lines
}

/// A paragraph of at most `width` characters in a line, the second and later lines indented.
pub(super) fn paragraph(text: &str, width: usize) -> String {
    match lines(text, width)[..] {
        [only] => only.to_owned(),
        _ => lines(text, width.saturating_sub(GAP)).join("\n  "),
    }
}

/// The parts of `text` that stay on one line if they fit: words, and the members of a hostlist.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut begin = 0;
    let ends = text.char_indices().filter(|(at, character)| {
        *character == ' ' || *character == ',' && !is_in_brackets(text, *at)
    });
    ends.map(|(at, _)| at + 1).chain([text.len()]).map(move |end| {
        let word = text[begin..end].trim_end();
        begin = end;
        word
    })
}

/// Whether the next bracket after `at` is a closing one.
fn is_in_brackets(text: &str, at: usize) -> bool {
    text[at..].chars().find(|character| "[]".contains(*character)) == Some(']')
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// The width of the usual terminal, and of a text in a file.
const WIDTH: usize = 80;

/// The least room for free text beside the other columns.
const FREE_TEXT_MIN: usize = 24;

/// The indent of columns that move below others.
const INDENT: usize = 4;

/// The blanks between two columns.
const GAP: usize = 2;

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
    fn columns_without_room_stand_below_the_others_and_no_name_is_broken() {
        let name = "node-with-a-name-of-30-letters";
        let mut table = Table::new(["TIME", "TARGET", "ACTION", "TARGETS"]);
        table.row(["12:00", name, "reboot", &format!("discover: {name}-[1-3,5],{name}")]);

        assert_eq!(
            table.wrapped(52),
            format!(
                "\
TIME   TARGET                          ACTION
    TARGETS
12:00  {name}  reboot
    discover:
    {name}-[1-3,5],
    {name}
"
            )
        );
        assert_eq!(
            table.wrapped(40),
            format!(
                "\
TIME   TARGET
    ACTION
    TARGETS
12:00  {name}
    reboot
    discover:
    {name}-[1-3,
    5],{name}
"
            )
        );
        for width in 5..120 {
            let text = table.wrapped(width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            let no_blanks = |text: &str| text.replace([' ', '\n'], "");
            assert_eq!(no_blanks(&text), no_blanks(&table.text()), "{width}");
        }
    }

    #[test]
    fn a_paragraph_is_no_wider_in_its_later_lines() {
        assert_eq!(paragraph("one two", 7), "one two");
        for width in 8..30 {
            let text = paragraph("answers since the start: expired 3, success 4", width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert!(text.lines().skip(1).all(|line| line.starts_with("  ")), "{text}");
        }
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
