//! Counting and logging who reaches a limit.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::metrics::LimitsReached;
use crate::sync::lock;

/// A limit is logged no more often than this; the lines between are counted.
const PAUSE: Duration = Duration::from_secs(10);

/// The limits, by the names of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `connections`
    Connections,
    /// `connections_per_address`
    ConnectionsPerAddress,
    /// `unauthenticated`
    Unauthenticated,
    /// `unauthenticated_stanza`
    UnauthenticatedStanza,
    /// `stanza`
    Stanza,
    /// `depth`
    Depth,
    /// `handshake_timeout`
    HandshakeTimeout,
    /// `authentication_timeout`
    AuthenticationTimeout,
    /// `server_timeout`
    ServerTimeout,
    /// `failed_logins_per_address`
    FailedLoginsPerAddress,
    /// `stanza_rate`
    StanzaRate,
    /// `bandwidth`
    Bandwidth,
    /// `held_per_account`
    HeldPerAccount,
    /// `session_queue`
    SessionQueue,
    /// `queue_memory`
    QueueMemory,
    /// `spool_per_session`
    SpoolPerSession,
    /// `spool_per_account`
    SpoolPerAccount,
    /// `spool`
    Spool,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Unauthenticated,
        Self::UnauthenticatedStanza,
        Self::Stanza,
        Self::Depth,
        Self::HandshakeTimeout,
        Self::AuthenticationTimeout,
        Self::ServerTimeout,
        Self::FailedLoginsPerAddress,
        Self::StanzaRate,
        Self::Bandwidth,
        Self::HeldPerAccount,
        Self::SessionQueue,
        Self::QueueMemory,
        Self::SpoolPerSession,
        Self::SpoolPerAccount,
        Self::Spool,
    ];

    /// Its key in `[limits]`, which is its label too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::Unauthenticated => "unauthenticated",
            Self::UnauthenticatedStanza => "unauthenticated_stanza",
            Self::Stanza => "stanza",
            Self::Depth => "depth",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::AuthenticationTimeout => "authentication_timeout",
            Self::ServerTimeout => "server_timeout",
            Self::FailedLoginsPerAddress => "failed_logins_per_address",
            Self::StanzaRate => "stanza_rate",
            Self::Bandwidth => "bandwidth",
            Self::HeldPerAccount => "held_per_account",
            Self::SessionQueue => "session_queue",
            Self::QueueMemory => "queue_memory",
            Self::SpoolPerSession => "spool_per_session",
            Self::SpoolPerAccount => "spool_per_account",
            Self::Spool => "spool",
        }
    }

    /// What happens to whom reaches it.
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Connections | Self::ConnectionsPerAddress => "the connection is refused",
            Self::Unauthenticated => "a connection that has not logged in is closed for a newer one",
            Self::UnauthenticatedStanza | Self::Stanza | Self::Depth => "the stream is closed",
            Self::HandshakeTimeout | Self::AuthenticationTimeout => "the connection is closed",
            Self::ServerTimeout => "the client is told remote-connection-failed",
            Self::FailedLoginsPerAddress => "log-ins are answered temporary-auth-failure",
            Self::StanzaRate | Self::Bandwidth => "the client is read more slowly",
            Self::HeldPerAccount => "the session that is held longest ends",
            Self::SessionQueue | Self::QueueMemory => "what waits is on disk only",
            Self::SpoolPerSession | Self::SpoolPerAccount | Self::Spool => {
                "stanzas stay in memory, and what has no room there stays the server's or is returned"
            }
        }
    }
}

/// What somebody can make happen as often as they like, so that it is not logged each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
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

/// What was logged, and what was not.
#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    suppressed: u64,
}

impl Said {
    /// How many were left out before, if it is time for a line again.
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
pub struct Seldom(Mutex<Said>);

impl Seldom {
    /// Returns how often the line was left out before, if it may be written now.
    pub fn next(&self) -> Option<u64> {
        lock(&self.0).next(Instant::now())
    }
}

/// Counts all, logs some.
#[derive(Debug)]
pub struct Watch {
    counted: LimitsReached,
    said: Mutex<[Said; Limit::ALL.len()]>,
    refused: Mutex<[Said; REFUSALS]>,
}

impl Watch {
    /// All limits stand in the metrics from the start.
    pub fn new(counted: LimitsReached) -> Self {
        for limit in Limit::ALL {
            counted.get_or_create(&[("limit", limit.name())]).inc_by(0);
        }
        Self { counted, said: Mutex::default(), refused: Mutex::default() }
    }

    /// Decides whether such a thing is logged now; if so, how many were not logged before.
    pub fn refused(&self, refusal: Refusal) -> Option<u64> {
        let mut said = lock(&self.refused);
        said.get_mut(refusal as usize).and_then(|said| said.next(Instant::now()))
    }

    /// Somebody has reached a limit: `who` is an address, or whatever the span does not say already.
    pub fn reached(&self, limit: Limit, who: impl Display) {
        self.counted.get_or_create(&[("limit", limit.name())]).inc();
        let suppressed = {
            let mut said = lock(&self.said);
            said.get_mut(limit as usize).and_then(|said| said.next(Instant::now()))
        };
        if let Some(suppressed) = suppressed {
            let (limit, who, consequence) = (limit.name(), who.to_string(), limit.consequence());
            tracing::warn!(limit, who, suppressed, "limit_reached: {consequence}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_logged_now_and_then_with_what_was_left_out() {
        let (start, mut said) = (Instant::now(), Said::default());
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
        let all =
            [Refusal::NoProxyHeader, Refusal::NotTrusted, Refusal::Unreachable, Refusal::ServerError, Refusal::Skipped];
        for refusal in all {
            assert_eq!(watch.refused(refusal), Some(0), "{refusal:?}");
            assert_eq!(watch.refused(refusal), None, "{refusal:?}");
        }
    }

    /// The default as the README writes it is the one that the shipped file shows, which another test holds against the code.
    #[test]
    fn the_readme_says_what_each_limit_is_and_its_default() {
        let (readme, shipped) = (include_str!("../../README.md"), include_str!("../../config.toml"));
        for limit in Limit::ALL.map(Limit::name) {
            let shown = shipped.lines().find_map(|line| line.strip_prefix(&format!("#{limit} = ")));
            let default = shown.and_then(|shown| shown.split('#').next()).unwrap().trim();
            let row = format!("| `{limit}` | `{default}` | ");
            assert!(readme.lines().any(|line| line.starts_with(&row)), "no row {row}");
        }
    }

    #[test]
    fn each_limit_has_a_place_of_its_own() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place, "{}", limit.name());
        }
    }
}
