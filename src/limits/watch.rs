//! Counting and logging of limits that are reached: [`Watch`]. [`RateLimitedLog`] suppresses repeated log lines in general.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::Duration;

use super::limit::Limit;
use crate::clock::Instant;
use crate::metrics::LimitsReached;
use crate::sync::lock;

/// The least time between two log lines about a limit. Lines in between are counted instead.
const PAUSE: Duration = Duration::from_secs(10);

/// Causes of refusal that a peer can repeat at will, so they are not logged each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// The PROXY header that is required is missing.
    NoProxyHeader,
    /// The connection is not from one of `trusted_proxies`.
    NotTrusted,
    /// The upstream server cannot be reached.
    Unreachable,
    /// The bytes of the upstream server are not an XML stream.
    ServerError,
    /// A stanza of the upstream server is skipped.
    Skipped,
    /// The stream is for a domain that no `[[host]]` has.
    HostUnknown,
    /// The upstream server refuses a login.
    LoginFailed,
    /// The node that owns an account could not be found out.
    OwnerUnknown,
    /// A stream could not be passed on to the node that owns its account.
    NotPassedOn,
    /// This node cannot become the owner of the account.
    NotClaimed,
    /// A connection to the listener for other nodes is not of a node.
    NotOfNode,
}

const REFUSALS: usize = 11;

/// The time of the last line, and the number of lines suppressed since.
#[derive(Debug, Default)]
struct Suppression {
    at: Option<Instant>,
    suppressed: u64,
}

impl Suppression {
    /// Returns the number of suppressed lines, if a line may be written now.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.at.is_some_and(|at| now.duration_since(at) < PAUSE) {
            self.suppressed += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// A log line whose cause a peer can repeat at will: it is written at most once in ten seconds.
#[derive(Debug, Default)]
pub struct RateLimitedLog(Mutex<Suppression>);

impl RateLimitedLog {
    /// Returns the number of suppressed lines, if a line may be written now.
    pub fn next(&self) -> Option<u64> {
        lock(&self.0).next(Instant::now())
    }
}

/// Counts every limit that is reached, and logs some of the hits.
#[derive(Debug)]
pub struct Watch {
    counted: LimitsReached,
    logged: Mutex<[Suppression; Limit::ALL.len()]>,
    refused: Mutex<[Suppression; REFUSALS]>,
}

impl Watch {
    /// Creates the counters, so that every limit is in the metrics from the start.
    pub fn new(counted: LimitsReached) -> Self {
        for limit in Limit::ALL {
            counted.get_or_create(&[("limit", limit.name())]).inc_by(0);
        }
        Self { counted, logged: Mutex::default(), refused: Mutex::default() }
    }

    /// Returns the number of refusals of this kind that were not logged, if this one may be logged.
    pub fn refused(&self, refusal: ConnectionRefusal) -> Option<u64> {
        let mut refused = lock(&self.refused);
        refused.get_mut(refusal as usize).and_then(|suppression| suppression.next(Instant::now()))
    }

    /// Counts a limit that was reached, and logs it if a line is due. `who`: the address, or another description of the peer
    /// that is not in the span already.
    pub fn reached(&self, limit: Limit, who: impl Display) {
        self.counted.get_or_create(&[("limit", limit.name())]).inc();
        let suppressed = {
            let mut logged = lock(&self.logged);
            logged.get_mut(limit as usize).and_then(|suppression| suppression.next(Instant::now()))
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
    fn a_limit_is_logged_at_intervals_with_the_number_of_suppressed_lines() {
        let (start, mut suppression) = (Instant::now(), Suppression::default());
        assert_eq!(suppression.next(start), Some(0));
        for _ in 0..10_000 {
            assert_eq!(suppression.next(start + PAUSE / 2), None);
        }
        assert_eq!(suppression.next(start + PAUSE), Some(10_000));
        assert_eq!(suppression.next(start + 2 * PAUSE), Some(0));
    }

    #[test]
    fn refused_connections_are_logged_at_intervals_for_each_cause() {
        let watch = Watch::new(crate::metrics::Metrics::new().limits_reached());
        let all = [
            ConnectionRefusal::NoProxyHeader,
            ConnectionRefusal::NotTrusted,
            ConnectionRefusal::Unreachable,
            ConnectionRefusal::ServerError,
            ConnectionRefusal::Skipped,
            ConnectionRefusal::HostUnknown,
            ConnectionRefusal::LoginFailed,
            ConnectionRefusal::OwnerUnknown,
            ConnectionRefusal::NotPassedOn,
            ConnectionRefusal::NotClaimed,
            ConnectionRefusal::NotOfNode,
        ];
        for refusal in all {
            assert_eq!(watch.refused(refusal), Some(0), "{refusal:?}");
            assert_eq!(watch.refused(refusal), None, "{refusal:?}");
        }
    }

    /// Checks docs/operating.md against the shipped file. Another test checks the shipped file against the code.
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
