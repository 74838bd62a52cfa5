//! Plain tables: columns as wide as their widest cell, no colours, one line for each row.

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
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        });
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                write!(line, "{cell:width$}  ").expect("a String takes every text");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A span of time for people: `17ms`, `4.2s`, `3m07s`, `2h05m`, `4d03h`.
pub(super) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        0 => format!("{milliseconds}ms"),
        1..60 => format!("{seconds}.{}s", milliseconds % 1_000 / 100),
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
    fn spans_are_short_and_never_rounded_up() {
        for (milliseconds, text) in [
            (0, "0ms"),
            (999, "999ms"),
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
