//! The faults that were found, by rule.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Number of findings of one rule that are printed.
const SHOWN: usize = 5;

/// The violations of the rules so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<BTreeMap<&'static str, (usize, Vec<String>)>>);

impl Findings {
    fn rules(&self) -> MutexGuard<'_, BTreeMap<&'static str, (usize, Vec<String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a violation of a rule.
    pub(crate) fn add(&self, rule: &'static str, detail: impl Into<String>) {
        let mut rules = self.rules();
        let (count, details) = rules.entry(rule).or_default();
        *count += 1;
        if details.len() < SHOWN {
            details.push(detail.into());
        }
    }

    /// Adds a violation if two values differ.
    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(&self, rule: &'static str, (seen, expected): (T, T), of: &str) {
        if seen != expected {
            self.add(rule, format!("{of}: {seen:?}, expected {expected:?}"));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules().is_empty()
    }

    /// Prints the violations. Returns whether there are none.
    pub(crate) fn print(&self) -> bool {
        let rules = self.rules();
        for (rule, (count, details)) in rules.iter() {
            println!("WRONG {count:6} × {rule}");
            for detail in details {
                println!("               {detail}");
            }
        }
        rules.is_empty()
    }
}
