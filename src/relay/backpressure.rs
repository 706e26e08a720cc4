//! Backpressure: the one place that decides which peers of a connection are read.
//!
//! A peer is not read while what was relayed from it, or what answers it, waits over its mark ([`crate::net::conn`]). That a
//! peer reads slowly does not stop it from being read itself.

use crate::net::conn::{Conn, HIGH_WATER};
use crate::net::wire::Wire;

/// The bytes that wait for one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerBacklog {
    /// Relayed bytes are over their mark.
    full: bool,
    /// Replies are over theirs.
    owes_too_much: bool,
}

impl PeerBacklog {
    pub(super) fn of<S: Wire>(conn: &Conn<S>) -> Self {
        Self { full: conn.is_full(), owes_too_much: conn.replies_full() }
    }
}

/// Other reasons not to read a peer: the lock step of login, a resumption, unconfirmed stanzas, the rates, the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stops {
    pub(super) client: bool,
    pub(super) server: bool,
    /// Bytes of the client that wait to be relayed, and not at a connection.
    pub(super) held: usize,
}

/// The peers that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadableLegs {
    pub(super) client: bool,
    pub(super) server: bool,
}

impl ReadableLegs {
    /// `None`: there is no such connection, so nothing waits there.
    pub(super) fn decide(client: Option<PeerBacklog>, server: Option<PeerBacklog>, stops: Stops) -> Self {
        let (client, server) = (client.unwrap_or_default(), server.unwrap_or_default());
        Self {
            client: !stops.client && !client.owes_too_much && !server.full && stops.held < HIGH_WATER,
            server: !stops.server && !server.owes_too_much && !client.full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(client: (bool, bool), server: (bool, bool), stops: Stops, expect: (bool, bool)) {
        let waiting = |(full, owes_too_much)| Some(PeerBacklog { full, owes_too_much });
        let reading = ReadableLegs::decide(waiting(client), waiting(server), stops);
        assert_eq!((reading.client, reading.server), expect, "client {client:?} server {server:?} {stops:?}");
    }

    #[test]
    fn a_peer_is_not_read_while_what_it_causes_waits_over_its_mark() {
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
