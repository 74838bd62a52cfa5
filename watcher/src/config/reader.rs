//! TOML tables, read key by key.
//!
//! A [`Section`] has a row for each of its keys, and gives each value in the form of its row.
//! When the section is finished, each key that was not read is unknown. A value of a wrong form is
//! noted and counts as absent, so that reading goes on.

use std::collections::BTreeSet;

use fence_protocol::nearest;
use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Problems;
use super::table::{Form, Key, Standing};
use super::values::{duration, number, one_of};

/// What is wrong with a value, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) text: String,
}

/// A checked value, or its faults: a list may be wrong in several places.
pub(super) type Parsed<T> = Result<T, Vec<Fault>>;

/// Reads `text` as far as it is TOML, and notes where it is not.
pub(super) fn parse<'p>(text: &'p str, problems: &'p Problems) -> Section<'p> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.syntax(error.span().map_or(0, |span| span.start), error.message());
    }
    Section::new(0, table.into_inner(), &[], errors.is_empty(), problems)
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section<'p> {
    offset: usize,
    table: DeTable<'p>,
    /// The keys that were read.
    read: BTreeSet<&'static str>,
    /// The keys that can be read.
    rows: Vec<&'static Key>,
    /// The names of the tables in this one.
    tables: Vec<&'static str>,
    /// The whole file is TOML, so a key that is absent was not written.
    complete: bool,
    pub(super) problems: &'p Problems,
}

impl<'p> Section<'p> {
    fn new(
        offset: usize,
        table: DeTable<'p>,
        rows: &'static [Key],
        complete: bool,
        problems: &'p Problems,
    ) -> Self {
        let (read, tables) = (BTreeSet::new(), Vec::new());
        Section { offset, table, read, rows: rows.iter().collect(), tables, complete, problems }
    }

    /// The value of `key`, if `form` accepts it, else the default of its row.
    pub(super) fn get<T>(
        &mut self,
        key: &str,
        form: impl Fn(&Spanned<DeValue>) -> Parsed<T>,
    ) -> Option<T> {
        let row = self.row(key)?;
        self.read.insert(row.name);
        let written = self.table.get(key);
        if written.is_none() && matches!(row.standing, Standing::Required(_)) {
            self.absent(format!("'{key}' is missing"));
        }
        let found = written.and_then(|value| self.noted(key, form(value)));
        let Standing::Default(default) = row.standing else { return found };
        found.or_else(|| match DeValue::parse(default) {
            Ok(value) => self.noted(key, form(&value)),
            Err(_) => self.unfit(key),
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

    /// One of the words of its row, as the variant with this name.
    pub(super) fn word<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let Form::Words(words) = self.row(key)?.form else { return self.unfit(key) };
        let words: Vec<_> = words.iter().map(|word| (*word, *word)).collect();
        let word = self.get(key, one_of(&words))?;
        T::deserialize(StrDeserializer::<Error>::new(word)).ok().or_else(|| self.unfit(key))
    }

    /// The table `[key]` with these keys, empty if the file does not have it.
    pub(super) fn section(&mut self, key: &'static str, rows: &'static [Key]) -> Section<'p> {
        self.tables.push(key);
        let offset = self.offset_of(key);
        let table = match self.table.remove(key).map(Spanned::into_inner) {
            Some(DeValue::Table(table)) => table,
            None => DeTable::new(),
            Some(_) => {
                self.problems.at(offset, format!("'{key}' must be a table: write [{key}]"));
                DeTable::new()
            }
        };
        Section::new(offset, table, rows, self.complete, self.problems)
    }

    /// The tables `[[key]]`, each with these keys.
    pub(super) fn sections(&mut self, key: &'static str, rows: &'static [Key]) -> Vec<Section<'p>> {
        self.tables.push(key);
        let offset = self.offset_of(key);
        let items = match self.table.remove(key).map(Spanned::into_inner) {
            Some(DeValue::Array(items)) => items,
            None => return Vec::new(),
            Some(_) => {
                self.problems.at(offset, format!("'{key}' must be a list: write [[{key}]]"));
                return Vec::new();
            }
        };
        let section = |item: Spanned<DeValue<'p>>| {
            let offset = item.span().start;
            let DeValue::Table(table) = item.into_inner() else {
                self.problems.at(offset, format!("'{key}' must hold tables: write [[{key}]]"));
                return None;
            };
            Some(Section::new(offset, table, rows, self.complete, self.problems))
        };
        items.into_iter().filter_map(section).collect()
    }

    /// Adds keys that can be read.
    pub(super) fn allow(&mut self, rows: &'static [Key]) {
        self.rows.extend(rows);
    }

    /// Accepts these keys with any value.
    pub(super) fn ignore(&mut self, rows: &'static [Key]) {
        self.allow(rows);
        self.read.extend(rows.iter().map(|row| row.name));
    }

    /// Notes a problem of the table as a whole.
    pub(super) fn wrong(&self, text: impl Into<String>) {
        self.problems.at(self.offset, text);
    }

    /// Notes a problem in the line of `key`.
    pub(super) fn at(&self, key: &str, text: impl Into<String>) {
        self.problems.at(self.offset_of(key), text);
    }

    /// Notes a problem of the value of `key`.
    pub(super) fn note(&self, key: &str, text: impl std::fmt::Display) {
        self.at(key, format!("'{key}': {text}"));
    }

    /// Notes that something is absent, unless the file is not TOML: then it may exist.
    pub(super) fn absent(&self, text: impl Into<String>) {
        if self.complete {
            self.wrong(text);
        }
    }

    /// Whether the file has `key` here.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the value of `key` is; if it is absent, where the table is.
    pub(super) fn offset_of(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.offset, |value| value.span().start)
    }

    /// Notes every key that was not read.
    pub(super) fn finish(self) {
        let names = self.rows.iter().map(|row| row.name);
        let known: Vec<&str> = names.chain(self.tables).collect();
        for (key, _) in &self.table {
            let (name, offset): (&str, _) = (key.get_ref(), key.span().start);
            if self.read.contains(name) {
                continue;
            }
            let hint = nearest(name, &known)
                .map(|known| format!(" (did you mean '{known}'?)"))
                .unwrap_or_default();
            self.problems.at(offset, format!("unknown key '{}'{hint}", name.escape_debug()));
        }
    }

    fn row(&self, key: &str) -> Option<&'static Key> {
        let row = self.rows.iter().find(|row| row.name == key).copied();
        row.or_else(|| self.unfit(key))
    }

    /// Refuses the file if this program reads a key that has no row, or a row of another form: a
    /// lost value would count as right.
    fn unfit<T>(&self, key: &str) -> Option<T> {
        self.wrong(format!(
            "'{key}' is read in a form that its row does not have: report this fault"
        ));
        None
    }

    fn noted<T>(&self, key: &str, parsed: Parsed<T>) -> Option<T> {
        let note = |Fault { offset, text }| self.problems.at(offset, format!("'{key}': {text}"));
        parsed.map_err(|faults| faults.into_iter().for_each(note)).ok()
    }
}
