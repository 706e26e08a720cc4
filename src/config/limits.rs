//! `[limits]`: what a peer may ask of this process.

use std::time::Duration;

use super::section::{Section, display};
use super::units::{HOUR, MINUTE, MOMENT, SECOND};

/// RFC 6120 §13.12: an implementation must not limit stanzas to less.
const SMALLEST_STANZA: usize = 10_000;

/// `[limits]`: bounds on what a peer may ask of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once: 100,000.
    pub connections: usize,
    /// Client connections at once from one address, or one IPv6 /64: 1,000.
    pub connections_per_address: usize,
    /// Client connections at once that have not logged in: 10,000. One more closes another one.
    pub unauthenticated: usize,
    /// Bytes of a stanza before authentication: 16 KiB. RFC 6120 §13.12 wants 10,000 at least.
    pub unauthenticated_stanza: usize,
    /// Bytes of a client's stanza after authentication: 1 MiB.
    pub stanza: usize,
    /// Bytes of a stanza of the server: 64 MiB. A longer one is skipped.
    pub upstream_stanza: usize,
    /// Nested elements in a client's stanza: 128.
    pub depth: usize,
    /// Bytes that may wait for the client of one session: 4 MiB.
    pub session_queue: usize,
    /// Bytes that may wait for all clients together in memory: 1 GiB. More is on disk only.
    pub queue_memory: usize,
    /// Bytes that may wait on disk for one session: 64 MiB.
    pub spool_per_session: usize,
    /// Bytes that may wait on disk for one account: 512 MiB, and never more than an eighth of `spool`.
    pub spool_per_account: usize,
    /// Bytes that may wait on disk in all: 10 GiB.
    pub spool: usize,
    /// How long TLS may take to be established: 30 s.
    pub handshake_timeout: Duration,
    /// How long a client may take to log in: 5 min (RFC 6120 §6.4 leaves room for a user who types a password).
    pub authentication_timeout: Duration,
    /// Failed log-ins in a minute from one address, or one IPv6 /64: 30; 0 for no limit.
    pub failed_logins_per_address: usize,
    /// Sessions of one account that are held without their client: 16. One more ends the one that is held longest.
    pub held_per_account: usize,
    /// Stanzas that a session may send in a second: 0 for no limit.
    pub stanza_rate: usize,
    /// Bytes that a session may send in a second: 0 for no limit.
    pub bandwidth: usize,
    /// How long connecting to the server may take: 10 s.
    pub connect_timeout: Duration,
    /// How long each answer of the server may take during login: 25 s.
    pub server_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_address: 1_000,
            unauthenticated: 10_000,
            unauthenticated_stanza: 16 << 10,
            stanza: 1 << 20,
            upstream_stanza: 64 << 20,
            depth: 128,
            session_queue: 4 << 20,
            queue_memory: 1 << 30,
            spool_per_session: 64 << 20,
            spool_per_account: 512 << 20,
            spool: 10 << 30,
            handshake_timeout: 30 * SECOND,
            authentication_timeout: 5 * MINUTE,
            failed_logins_per_address: 30,
            held_per_account: 16,
            stanza_rate: 0,
            bandwidth: 0,
            connect_timeout: 10 * SECOND,
            server_timeout: 25 * SECOND,
        }
    }
}

pub(super) fn read(mut s: Section<'_>) -> Limits {
    let d = Limits::default();
    let [per_address, unauthenticated, upstream, queue] =
        ["connections_per_address", "unauthenticated_stanza", "upstream_stanza", "session_queue"]
            .map(|key| (key, s.line_of(key)));
    let stanzas = SMALLEST_STANZA..=64 << 20;
    let read = Limits {
        connections: s.number("connections", d.connections, 1..=10_000_000),
        connections_per_address: s.number("connections_per_address", d.connections_per_address, 1..=10_000_000),
        unauthenticated: s.number("unauthenticated", d.unauthenticated, 1..=10_000_000),
        unauthenticated_stanza: s.size("unauthenticated_stanza", d.unauthenticated_stanza, stanzas.clone()),
        stanza: s.size("stanza", d.stanza, stanzas),
        upstream_stanza: s.size("upstream_stanza", d.upstream_stanza, SMALLEST_STANZA..=1 << 30),
        depth: s.number("depth", d.depth, 16..=10_000),
        session_queue: s.size("session_queue", d.session_queue, SMALLEST_STANZA..=1 << 30),
        queue_memory: s.size("queue_memory", d.queue_memory, SMALLEST_STANZA..=1 << 50),
        spool_per_session: s.size("spool_per_session", d.spool_per_session, SMALLEST_STANZA..=1 << 40),
        spool_per_account: s.size("spool_per_account", d.spool_per_account, SMALLEST_STANZA..=1 << 50),
        spool: s.size("spool", d.spool, SMALLEST_STANZA..=1 << 50),
        handshake_timeout: s.duration("handshake_timeout", d.handshake_timeout, MOMENT..=HOUR),
        authentication_timeout: s.duration("authentication_timeout", d.authentication_timeout, MOMENT..=HOUR),
        failed_logins_per_address: s.number("failed_logins_per_address", d.failed_logins_per_address, 0..=1_000_000),
        held_per_account: s.number("held_per_account", d.held_per_account, 1..=1_000_000),
        stanza_rate: s.number("stanza_rate", d.stanza_rate, 0..=1_000_000_000),
        bandwidth: s.size("bandwidth", d.bandwidth, 0..=1 << 40),
        connect_timeout: s.duration("connect_timeout", d.connect_timeout, MOMENT..=10 * MINUTE),
        server_timeout: s.duration("server_timeout", d.server_timeout, MOMENT..=10 * MINUTE),
    };
    let stanza = display(read.stanza);
    let smaller = |what: &str| format!("smaller than stanza ({stanza}), so {what}");
    let contradiction = |(key, line): (&str, usize), wrong: bool, what: &str, remedy: &str| {
        if wrong {
            s.problem(line, key, what, remedy);
        }
    };
    contradiction(
        per_address,
        read.connections_per_address > read.connections,
        "more than connections",
        "make it as large as connections, or smaller",
    );
    contradiction(
        unauthenticated,
        read.unauthenticated_stanza > read.stanza,
        "more than stanza",
        "make it as large as stanza, or smaller",
    );
    contradiction(
        upstream,
        read.upstream_stanza < read.stanza,
        &smaller("some stanzas that clients may send could not be delivered"),
        "set it to at least that",
    );
    contradiction(
        queue,
        read.session_queue < read.stanza,
        &smaller("the largest stanza could not wait"),
        "set it to at least that",
    );
    s.finish();
    read
}
