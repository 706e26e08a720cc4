//! `[limits]`: bounds on what a peer may use. The module `limits` enforces them.

use std::time::Duration;

use super::section::{Section, display};
use super::units::{HOUR, MINUTE, MOMENT, SECOND};

/// RFC 6120 §13.12: an implementation must not limit stanzas to less.
const SMALLEST_STANZA: usize = 10_000;

/// `[limits]`: bounds on what a peer may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bounds of client connections.
    pub connections: ConnectionLimits,
    /// Bounds of each stanza.
    pub stanzas: StanzaLimits,
    /// Bounds of the stanzas that wait for clients in memory.
    pub queues: QueueLimits,
    /// Bounds of the stanzas that wait for clients on disk.
    pub spools: SpoolSizes,
    /// Bounds of the time that a peer may take.
    pub timeouts: PeerTimeouts,
    /// Bounds of rates per second or minute.
    pub rates: RateLimits,
    /// `held_per_account`: the most sessions of one account that are held without a client; one more ends the one that is held
    /// longest. Default: 16.
    pub held_per_account: usize,
}

/// Bounds of client connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `connections`: the most connections at once. Default: 100,000.
    pub all: usize,
    /// `connections_per_address`: the most connections at once from one address or IPv6 /64. Default: 1,000.
    pub per_address: usize,
    /// `unauthenticated`: the most connections at once that have not logged in; one more closes another one. Default: 10,000.
    pub unauthenticated: usize,
}

/// Bounds of each stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StanzaLimits {
    /// `unauthenticated_stanza`: the largest stanza of a client before authentication, in bytes. At least 10,000 (RFC 6120
    /// §13.12). Default: 16 KiB.
    pub unauthenticated: usize,
    /// `stanza`: the largest stanza of a client after authentication, in bytes. Default: 1 MiB.
    pub client: usize,
    /// `upstream_stanza`: the largest stanza of the server, in bytes; a larger one is skipped. Default: 64 MiB.
    pub upstream: usize,
    /// `depth`: the deepest nesting of elements in a stanza of a client. Default: 128.
    pub depth: usize,
}

/// Bounds of the stanzas that wait for clients in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// `session_queue`: the most bytes that wait for the client of one session. Default: 4 MiB.
    pub per_session: usize,
    /// `queue_memory`: the most bytes that wait in memory for all clients together; more is kept on disk only. Default: 1 GiB.
    pub memory: usize,
}

/// Bounds of the stanzas that wait for clients on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSizes {
    /// `spool_per_session`: the most bytes for one session. Default: 64 MiB.
    pub per_session: usize,
    /// `spool_per_account`: the most bytes for one account, never more than an eighth of `all`. Default: 512 MiB.
    pub per_account: usize,
    /// `spool`: the most bytes in all. Default: 10 GiB.
    pub all: usize,
}

/// Bounds of the time that a peer may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTimeouts {
    /// `handshake_timeout`: the time until TLS is established. Default: 30 s.
    pub handshake: Duration,
    /// `authentication_timeout`: the time until a client is logged in. Default: 5 min (RFC 6120 §6.4 leaves room for a user
    /// who types a password).
    pub authentication: Duration,
    /// `connect_timeout`: the time until the server is connected. Default: 10 s.
    pub connect: Duration,
    /// `server_timeout`: the time for each answer of the server during login. Default: 25 s.
    pub server: Duration,
}

/// Bounds of rates per second or minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// `failed_logins_per_address`: the most failed logins per minute from one address or IPv6 /64; 0 for no limit. Default:
    /// 30.
    pub failed_logins_per_address: usize,
    /// `stanza_rate`: the most stanzas that a session may send per second; 0 for no limit. Default: 0.
    pub stanzas: usize,
    /// `bandwidth`: the most bytes that a session may send per second; 0 for no limit. Default: 0.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits::default(),
            stanzas: StanzaLimits::default(),
            queues: QueueLimits::default(),
            spools: SpoolSizes::default(),
            timeouts: PeerTimeouts::default(),
            rates: RateLimits::default(),
            held_per_account: 16,
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { all: 100_000, per_address: 1_000, unauthenticated: 10_000 }
    }
}

impl Default for StanzaLimits {
    fn default() -> Self {
        Self { unauthenticated: 16 << 10, client: 1 << 20, upstream: 64 << 20, depth: 128 }
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { per_session: 4 << 20, memory: 1 << 30 }
    }
}

impl Default for SpoolSizes {
    fn default() -> Self {
        Self { per_session: 64 << 20, per_account: 512 << 20, all: 10 << 30 }
    }
}

impl Default for PeerTimeouts {
    fn default() -> Self {
        Self { handshake: 30 * SECOND, authentication: 5 * MINUTE, connect: 10 * SECOND, server: 25 * SECOND }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { failed_logins_per_address: 30, stanzas: 0, bytes: 0 }
    }
}

impl ConnectionLimits {
    fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            all: s.number("connections", d.all, 1..=10_000_000),
            per_address: s.number("connections_per_address", d.per_address, 1..=10_000_000),
            unauthenticated: s.number("unauthenticated", d.unauthenticated, 1..=10_000_000),
        }
    }
}

impl StanzaLimits {
    fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        let stanzas = SMALLEST_STANZA..=64 << 20;
        Self {
            unauthenticated: s.size("unauthenticated_stanza", d.unauthenticated, stanzas.clone()),
            client: s.size("stanza", d.client, stanzas),
            upstream: s.size("upstream_stanza", d.upstream, SMALLEST_STANZA..=1 << 30),
            depth: s.number("depth", d.depth, 16..=10_000),
        }
    }
}

impl QueueLimits {
    fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            per_session: s.size("session_queue", d.per_session, SMALLEST_STANZA..=1 << 30),
            memory: s.size("queue_memory", d.memory, SMALLEST_STANZA..=1 << 50),
        }
    }
}

impl SpoolSizes {
    fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            per_session: s.size("spool_per_session", d.per_session, SMALLEST_STANZA..=1 << 40),
            per_account: s.size("spool_per_account", d.per_account, SMALLEST_STANZA..=1 << 50),
            all: s.size("spool", d.all, SMALLEST_STANZA..=1 << 50),
        }
    }
}

impl PeerTimeouts {
    fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            handshake: s.duration("handshake_timeout", d.handshake, MOMENT..=HOUR),
            authentication: s.duration("authentication_timeout", d.authentication, MOMENT..=HOUR),
            connect: s.duration("connect_timeout", d.connect, MOMENT..=10 * MINUTE),
            server: s.duration("server_timeout", d.server, MOMENT..=10 * MINUTE),
        }
    }
}

impl RateLimits {
    fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            failed_logins_per_address: s.number(
                "failed_logins_per_address",
                d.failed_logins_per_address,
                0..=1_000_000,
            ),
            stanzas: s.number("stanza_rate", d.stanzas, 0..=1_000_000_000),
            bytes: s.size("bandwidth", d.bytes, 0..=1 << 40),
        }
    }
}

pub(super) fn read(mut s: Section<'_>) -> Limits {
    let [per_address, unauthenticated, upstream, queue] =
        ["connections_per_address", "unauthenticated_stanza", "upstream_stanza", "session_queue"]
            .map(|key| (key, s.line_of(key)));
    let read = Limits {
        connections: ConnectionLimits::read(&mut s),
        stanzas: StanzaLimits::read(&mut s),
        queues: QueueLimits::read(&mut s),
        spools: SpoolSizes::read(&mut s),
        timeouts: PeerTimeouts::read(&mut s),
        rates: RateLimits::read(&mut s),
        held_per_account: s.number("held_per_account", Limits::default().held_per_account, 1..=1_000_000),
    };
    let stanza = display(read.stanzas.client);
    let smaller = |what: &str| format!("smaller than stanza ({stanza}): {what}");
    let contradiction = |(key, line): (&str, usize), wrong: bool, what: &str, remedy: &str| {
        if wrong {
            s.problem(line, key, what, remedy);
        }
    };
    contradiction(
        per_address,
        read.connections.per_address > read.connections.all,
        "larger than connections",
        "set it to the value of connections or less",
    );
    contradiction(
        unauthenticated,
        read.stanzas.unauthenticated > read.stanzas.client,
        "larger than stanza",
        "set it to the value of stanza or less",
    );
    contradiction(
        upstream,
        read.stanzas.upstream < read.stanzas.client,
        &smaller("some stanzas that clients may send could not be delivered"),
        "set it to that value or more",
    );
    contradiction(
        queue,
        read.queues.per_session < read.stanzas.client,
        &smaller("the largest stanza would not fit"),
        "set it to that value or more",
    );
    s.finish();
    read
}
