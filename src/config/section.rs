//! Reading of the keys of one table: [`Section`] checks their values, collects problems and reports unknown keys.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::ProblemReport;
use super::value::Wrong;

/// A value and its line.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// A table of the file. Each key is taken once; [`Section::finish`] reports the others as unknown.
#[derive(Debug)]
pub(super) struct Section<'t> {
    report: &'t ProblemReport<'t>,
    name: &'static str,
    line: usize,
    entries: Vec<(String, At<DeValue<'t>>)>,
}

impl<'t> Section<'t> {
    /// Creates a section. `name` is the table's name as written in the file: `[push]`, `[[listen]]`, or empty for the top
    /// level.
    pub(super) fn new(report: &'t ProblemReport<'t>, name: &'static str, line: usize, table: DeTable<'t>) -> Self {
        let entries = table
            .into_iter()
            .map(|(key, value)| {
                let line = report.line_at(key.span().start);
                (key.into_inner().into_owned(), At { value: value.into_inner(), line })
            })
            .collect();
        Self { report, name, line, entries }
    }

    /// Returns the line of a key that was not taken yet, or of the table's header if there is none.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.entries.iter().find(|(k, _)| k == key).map_or(self.line, |(_, at)| at.line)
    }

    /// Returns whether a key is there and was not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, _)| k == key)
    }

    /// Reports a problem with a key of this table.
    pub(super) fn problem(&self, line: usize, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.report.add(line, self.name, key, what, remedy);
    }

    /// Takes a table inside this one. A missing table is an empty one.
    pub(super) fn table(&mut self, key: &'static str, name: &'static str) -> Section<'t> {
        let (line, table) = match self.take(key) {
            None => (self.line, DeTable::new()),
            Some(At { value: DeValue::Table(table), line }) => (line, table),
            Some(other) => {
                self.wrong_type(key, &other, "a table", &format!("write {name} on a line of its own"));
                (other.line, DeTable::new())
            }
        };
        Section::new(self.report, name, line, table)
    }

    /// Takes an array of tables. A missing array is empty.
    pub(super) fn tables(&mut self, key: &'static str, name: &'static str) -> Vec<Section<'t>> {
        let remedy = format!("write {name} on a line of its own");
        let array = match self.take(key) {
            None => return Vec::new(),
            Some(At { value: DeValue::Array(array), .. }) => array,
            Some(other) => {
                self.wrong_type(key, &other, "an array of tables", &remedy);
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for item in array {
            let line = self.report.line_at(item.span().start);
            let value = Spanned::into_inner(item);
            if let DeValue::Table(table) = value {
                sections.push(Section::new(self.report, name, line, table));
            } else {
                self.wrong_type(key, &At { value, line }, "an array of tables", &remedy);
            }
        }
        sections
    }

    /// Takes `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(At { value: DeValue::Boolean(value), .. }) => value,
            Some(other) => {
                self.wrong_type(key, &other, "a boolean", "write true or false, without quotes");
                default
            }
        }
    }

    /// Takes a string, if the key is there.
    pub(super) fn text(&mut self, key: &'static str) -> Option<At<String>> {
        match self.take(key)? {
            At { value: DeValue::String(value), line } => Some(At { value: value.into_owned(), line }),
            other => {
                self.wrong_type(key, &other, "a string", &format!("write {key} = \"…\""));
                None
            }
        }
    }

    /// Takes a string and parses it with `parse`, whose error names the problem and the remedy.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let At { value, line } = self.text(key)?;
        match parse(&value) {
            Ok(value) => Some(At { value, line }),
            Err(Wrong { what, remedy }) => {
                self.problem(line, key, what, remedy);
                None
            }
        }
    }

    /// Takes one of several words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &[(&str, T)]) -> T {
        let Some(At { value, line }) = self.text(key) else { return default };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == value) {
            return *choice;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.problem(line, key, format!("unknown value \"{value}\""), format!("write {}", names.join(" or ")));
        default
    }

    /// Takes a list of strings and parses them with `parse`; `None` if the key is missing or one of them is wrong.
    pub(super) fn list<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<Vec<T>> {
        let remedy = format!("write {key} = [\"…\", \"…\"]");
        let items = match self.take(key)? {
            At { value: DeValue::Array(items), .. } => items,
            other => {
                self.wrong_type(key, &other, "an array of strings", &remedy);
                return None;
            }
        };
        let mut list = Vec::new();
        let wanted = items.len();
        for item in items {
            let line = self.report.line_at(item.span().start);
            let at = At { value: item.into_inner(), line };
            let DeValue::String(text) = &at.value else {
                self.wrong_type(key, &at, "an array of strings", &remedy);
                continue;
            };
            match parse(text) {
                Ok(value) => list.push(value),
                Err(Wrong { what, remedy }) => self.problem(line, key, what, remedy),
            }
        }
        (list.len() == wanted).then_some(list)
    }

    /// Takes a whole number within bounds.
    pub(super) fn number<T>(&mut self, key: &'static str, default: T, bounds: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let remedy = format!("write a whole number from {} to {}", bounds.start(), bounds.end());
        match self.take(key) {
            None => default,
            Some(At { value: DeValue::Integer(written), line }) => {
                let value = i128::from_str_radix(written.as_str(), written.radix());
                match value.ok().and_then(|v| v.to_string().parse::<T>().ok()).filter(|v| bounds.contains(v)) {
                    Some(value) => value,
                    None => {
                        self.problem(line, key, format!("{written} is out of range"), remedy);
                        default
                    }
                }
            }
            Some(other) => {
                self.wrong_type(key, &other, "a whole number", &remedy);
                default
            }
        }
    }

    /// Takes a duration, `"30s"` or `"72h"`, within bounds.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let example = format!("such as \"{}\"", human(default));
        let Some(at) = self.take(key) else { return default };
        self.as_duration(key, &at, &bounds, &example).unwrap_or(default)
    }

    /// Takes at most ten durations, each longer than the one before: `["60s", "5m"]`. The list may be empty.
    pub(super) fn durations(
        &mut self,
        key: &'static str,
        default: Vec<Duration>,
        bounds: RangeInclusive<Duration>,
    ) -> Vec<Duration> {
        let remedy = format!("write {key} = [\"60s\", \"5m\"], or [] for none");
        let items = match self.take(key) {
            None => return default,
            Some(At { value: DeValue::Array(items), .. }) if items.len() <= 10 => items,
            Some(other) => {
                self.wrong_type(key, &other, "an array of at most ten durations", &remedy);
                return default;
            }
        };
        let mut durations: Vec<Duration> = Vec::new();
        for item in items {
            let line = self.report.line_at(item.span().start);
            let at = At { value: item.into_inner(), line };
            let Some(duration) = self.as_duration(key, &at, &bounds, &remedy) else { return default };
            if durations.last().is_some_and(|last| *last >= duration) {
                self.problem(line, key, format!("{} is not longer than the one before", human(duration)), remedy);
                return default;
            }
            durations.push(duration);
        }
        durations
    }

    fn as_duration(
        &self,
        key: &str,
        at: &At<DeValue<'_>>,
        bounds: &RangeInclusive<Duration>,
        example: &str,
    ) -> Option<Duration> {
        let (from, to) = (human(*bounds.start()), human(*bounds.end()));
        let remedy = format!("write a duration from \"{from}\" to \"{to}\", {example}");
        let At { value: DeValue::String(written), line } = at else {
            self.wrong_type(key, at, "a duration in quotes", &remedy);
            return None;
        };
        match humantime::parse_duration(written) {
            Ok(value) if bounds.contains(&value) => return Some(value),
            Ok(_) => self.problem(*line, key, format!("\"{written}\" is out of range"), remedy),
            Err(error) => self.problem(*line, key, format!("\"{written}\" is not a duration: {error}"), remedy),
        }
        None
    }

    /// Takes a number of bytes, `"16 KiB"` or plain `16384`, within bounds.
    pub(super) fn size(&mut self, key: &'static str, default: usize, bounds: RangeInclusive<usize>) -> usize {
        let remedy = format!("write a size from \"{}\" to \"{}\"", display(*bounds.start()), display(*bounds.end()));
        let Some(at) = self.take(key) else { return default };
        let (written, line) = match &at {
            At { value: DeValue::String(written), line } => (written.to_string(), *line),
            At { value: DeValue::Integer(written), line } => (written.to_string(), *line),
            other => {
                self.wrong_type(key, other, "a size", &remedy);
                return default;
            }
        };
        match written.parse::<ByteSize>().map(|size| usize::try_from(size.as_u64())) {
            Ok(Ok(value)) if bounds.contains(&value) => return value,
            Ok(_) => self.problem(line, key, format!("\"{written}\" is out of range"), remedy),
            Err(_) => self.problem(line, key, format!("\"{written}\" is not a size"), remedy),
        }
        default
    }

    /// Reports every key that was not taken as unknown.
    pub(super) fn finish(self) {
        for (key, at) in self.entries {
            self.report.add_unknown(at.line, self.name, key);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<At<DeValue<'t>>> {
        self.report.learn(self.name, key);
        let index = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.swap_remove(index).1)
    }

    fn wrong_type(&self, key: &str, at: &At<DeValue<'_>>, wanted: &str, remedy: &str) {
        self.problem(at.line, key, format!("expected {wanted}, found {}", type_name(&at.value)), remedy);
    }
}

fn human(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Formats a size as it can be written in the file: exactly, in the largest possible unit.
pub(super) fn display(bytes: usize) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(bits, _)| bytes > 0 && bytes.trailing_zeros() >= *bits);
    unit.map_or_else(|| format!("{bytes} B"), |(bits, unit)| format!("{} {unit}", bytes >> bits))
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
