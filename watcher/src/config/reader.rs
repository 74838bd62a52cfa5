//! TOML tables, taken apart key by key.
//!
//! A [`Section`] has a row for each of its keys, and hands out each value once, by its form. A key
//! that is left over when it is finished is unknown. A value of the wrong form is noted and counts
//! as absent, so that reading goes on.

use fence_protocol::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Problems;
use super::table::{Form, Key, Standing};
use super::values::{duration, number};

/// What is wrong with a value: where, and the words.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) text: String,
}

/// What a value turns out to be; a list may be wrong in several places.
pub(super) type Parsed<T> = Result<T, Vec<Fault>>;

/// Reads `text` as far as it is TOML, and notes where it is not.
pub(super) fn parse<'p>(text: &'p str, problems: &'p Problems) -> Section<'p> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.syntax(error.span().map_or(0, |span| span.start), error.message());
    }
    let complete = errors.is_empty();
    let (table, rows, known) = (table.into_inner(), Vec::new(), Vec::new());
    Section { offset: 0, table, rows, known, complete, problems }
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section<'p> {
    offset: usize,
    table: DeTable<'p>,
    /// The keys that can be read.
    rows: Vec<&'static Key>,
    /// The names that may be written here, for hints.
    known: Vec<&'static str>,
    /// The file is TOML throughout, so that what is absent was not written.
    complete: bool,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    /// The value of `key`, if `form` takes it, else the default of its row.
    pub(super) fn get<T>(
        &mut self,
        key: &str,
        form: impl Fn(&Spanned<DeValue>) -> Parsed<T>,
    ) -> Option<T> {
        let row = self.row(key)?;
        let written = self.table.remove(key);
        if written.is_none() && matches!(row.standing, Standing::Required(_)) {
            self.absent(format!("'{key}' is missing"));
        }
        let found = written.and_then(|value| self.noted(key, form(&value)));
        let Standing::Default(default) = row.standing else { return found };
        found.or_else(|| {
            let fault = |text: String| vec![Fault { offset: self.offset, text }];
            let default = DeValue::parse(default).map_err(|error| fault(error.to_string()));
            self.noted(key, default.and_then(|value| form(&value)))
        })
    }

    /// A duration in milliseconds, within the bounds of its row.
    pub(super) fn duration(&mut self, key: &str) -> Option<u64> {
        let Form::Duration(least, most) = self.row(key)?.form else { return self.unfit(key) };
        self.get(key, duration(least..=most))
    }

    /// A whole number, within the bounds of its row.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, key: &str) -> Option<T> {
        let Form::Number(least, most) = self.row(key)?.form else { return self.unfit(key) };
        T::try_from(self.get(key, number(least..=most))?).ok()
    }

    /// The table `[key]`, empty when it is not there, with its keys.
    pub(super) fn section(&mut self, key: &'static str, rows: &'static [Key]) -> Section<'p> {
        self.known.push(key);
        let Some(value) = self.table.remove(key) else {
            return self.part(self.offset, DeTable::new(), rows);
        };
        let offset = value.span().start;
        let DeValue::Table(table) = value.into_inner() else {
            self.problems.at(offset, format!("'{key}' must be a table: write [{key}]"));
            return self.part(offset, DeTable::new(), rows);
        };
        self.part(offset, table, rows)
    }

    /// The tables `[[key]]`, each with these keys.
    pub(super) fn sections(&mut self, key: &'static str, rows: &'static [Key]) -> Vec<Section<'p>> {
        self.known.push(key);
        let Some(value) = self.table.remove(key) else { return Vec::new() };
        let offset = value.span().start;
        let DeValue::Array(items) = value.into_inner() else {
            self.problems.at(offset, format!("'{key}' must be a list: write [[{key}]]"));
            return Vec::new();
        };
        let mut parts = Vec::new();
        for item in items {
            let offset = item.span().start;
            match item.into_inner() {
                DeValue::Table(table) => parts.push(self.part(offset, table, rows)),
                _ => self.problems.at(offset, format!("'{key}' must hold tables: write [[{key}]]")),
            }
        }
        parts
    }

    /// Has these keys as well.
    pub(super) fn allow(&mut self, rows: &'static [Key]) {
        self.rows.extend(rows);
        self.known.extend(rows.iter().map(|row| row.name));
    }

    /// Accepts these keys unread, where it is unknown what they should hold.
    pub(super) fn ignore(&mut self, rows: &'static [Key]) {
        for row in rows {
            self.known.push(row.name);
            self.table.remove(row.name);
        }
    }

    /// Notes what is wrong with the table as a whole.
    pub(super) fn wrong(&self, text: impl Into<String>) {
        self.problems.at(self.offset, text);
    }

    /// Notes that something is not there; in a file that is no TOML it may well be.
    pub(super) fn absent(&self, text: impl Into<String>) {
        if self.complete {
            self.wrong(text);
        }
    }

    /// Whether `key` is written and not yet taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the value of `key` stands, not yet taken; where it is absent, the table's place.
    pub(super) fn offset_of(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.offset, |value| value.span().start)
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in &self.table {
            let (name, offset) = (key.get_ref().as_ref(), key.span().start);
            let hint = nearest(name, &self.known)
                .map(|known| format!(" (did you mean '{known}'?)"))
                .unwrap_or_default();
            self.problems.at(offset, format!("unknown key '{}'{hint}", name.escape_debug()));
        }
    }

    fn row(&self, key: &str) -> Option<&'static Key> {
        let row = self.rows.iter().find(|row| row.name == key).copied();
        row.or_else(|| self.unfit(key))
    }

    /// Refuses a file whose reader asks for a key that has no row, or one of another form: a value that
    /// is lost here would count as right.
    fn unfit<T>(&self, key: &str) -> Option<T> {
        let text =
            format!("'{key}' is read in a form that its row does not have: report this fault");
        self.problems.at(self.offset, text);
        None
    }

    fn noted<T>(&self, key: &str, parsed: Parsed<T>) -> Option<T> {
        let note = |Fault { offset, text }| self.problems.at(offset, format!("'{key}': {text}"));
        parsed.map_err(|faults| faults.into_iter().for_each(note)).ok()
    }

    fn part(&self, offset: usize, table: DeTable<'p>, rows: &'static [Key]) -> Section<'p> {
        let (complete, problems) = (self.complete, self.problems);
        let mut part =
            Section { offset, table, rows: Vec::new(), known: Vec::new(), complete, problems };
        part.allow(rows);
        part
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::values::text;
    use super::*;

    #[test]
    fn a_key_without_a_row_cannot_be_read() {
        const ROWS: &[Key] = &[Key::new("known", Form::Text, Standing::Default("'x'"), "A text.")];
        let source = "[t]\nknown = 'a'\nknowm = 'b'";
        let problems = Problems::of(source);
        let mut root = parse(source, &problems);
        let mut section = root.section("t", ROWS);

        assert_eq!(section.get("known", text).as_deref(), Some("a"));
        assert_eq!(section.get("knowm", text), None);
        section.finish();

        let error = problems.into_result(Path::new("w.toml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "w.toml:1: 'knowm' is read in a form that its row does not have: report this fault\n\
             w.toml:3: unknown key 'knowm' (did you mean 'known'?)"
        );
    }
}
