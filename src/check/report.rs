//! [`Report`]: the findings of `pushward check`.

use std::fmt;
use std::path::Path;

use crate::config::{self, Host, Problem};
#[cfg(doc)]
use crate::exit;

/// The findings, in the order in which they are printed.
#[derive(Debug, Default)]
pub struct Report {
    pub(super) lines: Vec<String>,
    exit: u8,
}

impl Report {
    pub(super) fn fine(&mut self, line: impl fmt::Display) {
        self.lines.push(line.to_string());
    }

    pub(super) fn problem(&mut self, problem: &Problem, exit: u8) {
        self.lines.push(problem.to_string());
        self.exit = self.exit.max(exit);
    }

    /// Adds a problem that affects only some clients. The exit code is unchanged.
    pub(super) fn warning(&mut self, problem: &Problem) {
        self.lines.push(problem.to_string());
    }

    /// Returns 0, [`exit::CONFIG`] or [`exit::UNAVAILABLE`]. [`exit::CONFIG`] takes precedence.
    pub fn exit(&self) -> u8 {
        self.exit
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A host, and its position in the configuration file.
pub(super) struct HostEntry<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) index: usize,
    pub(super) host: &'a Host,
}

impl HostEntry<'_> {
    pub(super) fn problem(&self, key: &str, what: impl fmt::Display, remedy: &str) -> Problem {
        Problem {
            file: self.path.to_owned(),
            line: config::host_line(self.text, self.index, key),
            key: format!("[[host]] {} {key}", self.host.domain),
            what: what.to_string(),
            remedy: remedy.to_owned(),
        }
    }
}
