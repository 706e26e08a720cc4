//! Backpressure: the one place that decides which peers of a connection are read.
//!
//! A peer is not read while too many bytes that were relayed from it, or replies to it, wait to be written
//! ([`crate::net::conn`]). A peer that reads slowly is still read itself. [`ReadableLegs::decide`] is used by the login
//! driver and the session driver.

use crate::net::conn::{Conn, HIGH_WATER};
use crate::net::wire::Wire;

/// The bytes that wait for one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerBacklog {
    /// True if the relayed bytes are over their limit.
    full: bool,
    /// True if the replies are over their limit.
    replies_full: bool,
}

impl PeerBacklog {
    pub(super) fn of<S: Wire>(conn: &Conn<S>) -> Self {
        Self { full: conn.is_full(), replies_full: conn.replies_full() }
    }
}

/// Other reasons for not reading a peer: the lock step of login, a resumption, unconfirmed stanzas, rate limits, a slow disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stops {
    pub(super) client: bool,
    pub(super) server: bool,
    /// The bytes received from the client that wait to be relayed and are not yet written to a connection.
    pub(super) held: usize,
}

/// The peers that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadableLegs {
    pub(super) client: bool,
    pub(super) server: bool,
}

impl ReadableLegs {
    /// Decides which peers are read. `None`: there is no such connection, so nothing waits there.
    pub(super) fn decide(client: Option<PeerBacklog>, server: Option<PeerBacklog>, stops: Stops) -> Self {
        let (client, server) = (client.unwrap_or_default(), server.unwrap_or_default());
        Self {
            client: !stops.client && !client.replies_full && !server.full && stops.held < HIGH_WATER,
            server: !stops.server && !server.replies_full && !client.full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(client: (bool, bool), server: (bool, bool), stops: Stops, expect: (bool, bool)) {
        let waiting = |(full, replies_full)| Some(PeerBacklog { full, replies_full });
        let reading = ReadableLegs::decide(waiting(client), waiting(server), stops);
        assert_eq!((reading.client, reading.server), expect, "client {client:?} server {server:?} {stops:?}");
    }

    #[test]
    fn a_peer_is_not_read_while_bytes_that_it_caused_are_over_their_limit() {
        let (none, held) = (Stops::default(), |held| Stops { held, ..Stops::default() });
        let (idle, full, owed, both) = ((false, false), (true, false), (false, true), (true, true));
        check(idle, idle, none, (true, true));
        // A client that reads slowly is still read, since its `<a/>` comes that way; its server is not.
        check(full, idle, none, (true, false));
        // A server that reads slowly is still read, since messages come that way; its client is not.
        check(idle, full, none, (false, true));
        check(owed, idle, none, (false, true));
        check(idle, owed, none, (true, false));
        check(full, full, none, (false, false));
        check(both, idle, none, (false, false));
        check(idle, idle, Stops { client: true, ..none }, (false, true));
        check(idle, idle, Stops { server: true, ..none }, (true, false));
        check(idle, idle, held(HIGH_WATER - 1), (true, true));
        check(idle, idle, held(HIGH_WATER), (false, true));
    }

    #[test]
    fn where_there_is_no_connection_nothing_waits() {
        assert_eq!(ReadableLegs::decide(None, None, Stops::default()), ReadableLegs { client: true, server: true });
    }
}
