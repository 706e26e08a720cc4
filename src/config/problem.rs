//! Problems of a configuration file: [`ConfigErrors`] lists them with their lines.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::unknown;
use crate::paths::PACKAGED_CONFIG;

/// A problem in the file, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as given by the user.
    pub file: PathBuf,
    /// The line, from 1; 0 if the file could not be read at all.
    pub line: usize,
    /// Section and key, `[push] max_devices`; empty for the file as a whole.
    pub key: String,
    /// The description of the problem.
    pub what: String,
    /// The remedy, for example what to write instead.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

/// All problems of a configuration file, for the operator to fix; displayed with one problem per line. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// Returns the problems, in the order of their lines.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let remedy = if error.kind() == ErrorKind::PermissionDenied {
            "run this command as root or as the daemon's user".to_owned()
        } else if error.kind() == ErrorKind::NotFound && path != Path::new(PACKAGED_CONFIG) {
            format!("name an existing file, such as {PACKAGED_CONFIG}, with --config FILE")
        } else {
            "name an existing file with --config FILE".to_owned()
        };
        Self(vec![Problem {
            file: path.to_owned(),
            line: 0,
            key: String::new(),
            what: format!("cannot read the file: {error}"),
            remedy,
        }])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects the problems of one file while its sections are read.
#[derive(Debug)]
pub(super) struct ProblemReport<'t> {
    path: &'t Path,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
    broken_lines: RefCell<BTreeSet<usize>>,
    known: RefCell<BTreeSet<(&'static str, &'static str)>>,
    unknown: RefCell<Vec<Unknown>>,
}

/// A key that no section has read. It is judged at the end, when all known keys have been collected.
#[derive(Debug)]
struct Unknown {
    line: usize,
    section: &'static str,
    key: String,
}

impl<'t> ProblemReport<'t> {
    pub(super) fn new(path: &'t Path, text: &'t str) -> Self {
        Self {
            path,
            text,
            problems: RefCell::default(),
            broken_lines: RefCell::default(),
            known: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// Returns the line, from 1, of a byte offset in the file.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    pub(super) fn add(
        &self,
        line: usize,
        section: &str,
        key: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let separator = if section.is_empty() || key.is_empty() { "" } else { " " };
        self.problems.borrow_mut().push(Problem {
            file: self.path.to_owned(),
            line,
            key: format!("{section}{separator}{key}"),
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn add_unknown(&self, line: usize, section: &'static str, key: String) {
        self.unknown.borrow_mut().push(Unknown { line, section, key });
    }

    /// Reports a syntax error. Other problems in the same line are ignored, since they depend on what the parser recovered.
    pub(super) fn add_syntax(&self, error: &toml::de::Error) {
        let line = self.line_at(error.span().map_or(0, |span| span.start));
        self.broken_lines.borrow_mut().insert(line);
        self.add(line, "", "", format!("not valid TOML: {}", error.message()), "see https://toml.io");
    }

    /// Returns whether the file has syntax errors. If so, a key that seems to be missing may only be misspelt.
    pub(super) fn is_broken(&self) -> bool {
        !self.broken_lines.borrow().is_empty()
    }

    pub(super) fn learn(&self, section: &'static str, key: &'static str) {
        self.known.borrow_mut().insert((section, key));
    }

    /// Returns every section and key that was read.
    #[cfg(test)]
    pub(super) fn known(&self) -> BTreeSet<(&'static str, &'static str)> {
        self.known.borrow().clone()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All reported problems.
    pub(super) fn finish(self) -> Result<(), ConfigErrors> {
        for Unknown { line, section, key } in self.unknown.take() {
            let remedy = unknown::suggestion(section, &key, &self.known.borrow());
            self.add(line, section, &key, "unknown key", remedy);
        }
        let broken = self.broken_lines.into_inner();
        let mut problems = self.problems.into_inner();
        problems.retain(|p| !broken.contains(&p.line) || p.key.is_empty());
        problems.sort_by_key(|p| p.line);
        problems.dedup();
        if problems.is_empty() { Ok(()) } else { Err(ConfigErrors(problems)) }
    }
}
