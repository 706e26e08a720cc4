//! Counting and logging who reaches a limit.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::limit::Limit;
use crate::metrics::LimitsReached;
use crate::sync::lock;

/// A limit is logged no more often than this; the lines between are counted.
const PAUSE: Duration = Duration::from_secs(10);

/// Refusals that somebody can cause as often as they like, so that they are not logged each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// No PROXY header came where one has to.
    NoProxyHeader,
    /// The connection is not from one of `trusted_proxies`.
    NotTrusted,
    /// The server cannot be reached.
    Unreachable,
    /// The server's bytes are no XML stream.
    ServerError,
    /// A stanza of the server is skipped.
    Skipped,
}

const REFUSALS: usize = 5;

/// The time of the last line, and the number of lines left out since.
#[derive(Debug, Default)]
struct Suppression {
    at: Option<Instant>,
    suppressed: u64,
}

impl Suppression {
    /// Returns the number of lines left out, if it is time for a line again.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            self.suppressed += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// A log line whose cause others can repeat without end: it is written at most once in ten seconds.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Suppression>);

impl Seldom {
    /// Returns how often the line was left out before, if it may be written now.
    pub fn next(&self) -> Option<u64> {
        lock(&self.0).next(Instant::now())
    }
}

/// Counts every limit that is reached, and logs some.
#[derive(Debug)]
pub struct Watch {
    counted: LimitsReached,
    said: Mutex<[Suppression; Limit::ALL.len()]>,
    refused: Mutex<[Suppression; REFUSALS]>,
}

impl Watch {
    /// All limits stand in the metrics from the start.
    pub fn new(counted: LimitsReached) -> Self {
        for limit in Limit::ALL {
            counted.get_or_create(&[("limit", limit.name())]).inc_by(0);
        }
        Self { counted, said: Mutex::default(), refused: Mutex::default() }
    }

    /// Returns how many such refusals were not logged before, if this one may be logged.
    pub fn refused(&self, refusal: ConnectionRefusal) -> Option<u64> {
        let mut said = lock(&self.refused);
        said.get_mut(refusal as usize).and_then(|said| said.next(Instant::now()))
    }

    /// Counts that a limit was reached. `who`: an address, or whatever the span does not contain already.
    pub fn reached(&self, limit: Limit, who: impl Display) {
        self.counted.get_or_create(&[("limit", limit.name())]).inc();
        let suppressed = {
            let mut said = lock(&self.said);
            said.get_mut(limit as usize).and_then(|said| said.next(Instant::now()))
        };
        if let Some(suppressed) = suppressed {
            let (limit, who, consequence) = (limit.name(), who.to_string(), limit.consequence());
            tracing::warn!(limit, who, suppressed, "limit reached: {consequence}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_logged_now_and_then_with_what_was_left_out() {
        let (start, mut said) = (Instant::now(), Suppression::default());
        assert_eq!(said.next(start), Some(0));
        for _ in 0..10_000 {
            assert_eq!(said.next(start + PAUSE / 2), None);
        }
        assert_eq!(said.next(start + PAUSE), Some(10_000));
        assert_eq!(said.next(start + 2 * PAUSE), Some(0));
    }

    #[test]
    fn connections_that_are_refused_are_logged_now_and_then_for_each_cause() {
        let watch = Watch::new(crate::metrics::Metrics::new().limits_reached());
        let all = [
            ConnectionRefusal::NoProxyHeader,
            ConnectionRefusal::NotTrusted,
            ConnectionRefusal::Unreachable,
            ConnectionRefusal::ServerError,
            ConnectionRefusal::Skipped,
        ];
        for refusal in all {
            assert_eq!(watch.refused(refusal), Some(0), "{refusal:?}");
            assert_eq!(watch.refused(refusal), None, "{refusal:?}");
        }
    }

    /// The default as docs/operating.md has it is the one that the shipped file shows, which another test holds against the code.
    #[test]
    fn the_docs_say_what_each_limit_is_and_its_default() {
        let (page, shipped) = (include_str!("../../docs/operating.md"), include_str!("../../config.toml"));
        for limit in Limit::ALL.map(Limit::name) {
            let shown = shipped.lines().find_map(|line| line.strip_prefix(&format!("#{limit} = ")));
            let default = shown.and_then(|shown| shown.split('#').next()).unwrap().trim();
            let row = format!("| `{limit}` | `{default}` | ");
            assert!(page.lines().any(|line| line.starts_with(&row)), "no row {row}");
        }
    }

    #[test]
    fn each_limit_has_a_place_of_its_own() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place, "{}", limit.name());
        }
    }
}
