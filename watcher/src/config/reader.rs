//! TOML tables, taken apart key by key.
//!
//! A [`Section`] hands out each value once, by its form; what is left over when it is finished is an
//! unknown key. A value of the wrong form is noted and counts as absent, so that reading goes on.

use fence_protocol::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Problems;

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
    Section { offset: 0, table: table.into_inner(), known: Vec::new(), complete, problems }
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section<'p> {
    offset: usize,
    table: DeTable<'p>,
    known: Vec<&'static str>,
    /// The file is TOML throughout, so that what is absent was not written.
    complete: bool,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    /// The value of `key`, if it is there and `form` takes it.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        form: impl FnOnce(&Spanned<DeValue>) -> Parsed<T>,
    ) -> Option<T> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        match form(&value) {
            Ok(parsed) => Some(parsed),
            Err(faults) => {
                for fault in faults {
                    self.problems.at(fault.offset, format!("'{key}': {}", fault.text));
                }
                None
            }
        }
    }

    /// The value of `key`, which has to be written.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        form: impl FnOnce(&Spanned<DeValue>) -> Parsed<T>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.absent(format!("'{key}' is missing"));
        }
        self.get(key, form)
    }

    /// The table `[key]`, empty when it is not there.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'p> {
        self.known.push(key);
        let Some(value) = self.table.remove(key) else {
            return self.part(self.offset, DeTable::new());
        };
        let offset = value.span().start;
        let DeValue::Table(table) = value.into_inner() else {
            self.problems.at(offset, format!("'{key}' must be a table: write [{key}]"));
            return self.part(offset, DeTable::new());
        };
        self.part(offset, table)
    }

    /// The tables `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'p>> {
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
                DeValue::Table(table) => parts.push(self.part(offset, table)),
                _ => self.problems.at(offset, format!("'{key}' must hold tables: write [[{key}]]")),
            }
        }
        parts
    }

    /// Accepts these keys unread, where it is unknown what they should hold.
    pub(super) fn ignore(&mut self, keys: &[&'static str]) {
        for key in keys {
            self.known.push(key);
            self.table.remove(*key);
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

    fn part(&self, offset: usize, table: DeTable<'p>) -> Section<'p> {
        let (complete, problems) = (self.complete, self.problems);
        Section { offset, table, known: Vec::new(), complete, problems }
    }
}
