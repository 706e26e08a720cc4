//! The data that a stanza gets when it comes: its time, and the clients that were online.

use super::incoming::Incoming;
use crate::clock::UnixMillis;
use crate::push::rooms::Rooms;
use crate::seq::Seq;
use crate::session::kind::is_durable;
use crate::session::queue::{OnlineClients, Queued};
use crate::session::stamp::Stamps;
use crate::session::travel::is_from_room;

/// The state from which stanzas that come get their data.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Arrivals {
    stamps: Stamps,
    /// The presence of other clients of the account.
    online_clients: OnlineClients,
}

impl Arrivals {
    /// Notes whether other clients of the account are online.
    pub(super) fn note_other_clients(&mut self, has_other_clients: bool) {
        self.online_clients = if has_other_clients { OnlineClients::Others } else { OnlineClients::None };
    }

    /// Returns a stanza that comes now in the form in which it waits.
    pub(super) fn item(&mut self, now: UnixMillis, stanza: Incoming, seq: Seq, rooms: &Rooms) -> Queued {
        let Incoming { element, server_seq, .. } = stanza;
        let stamp = self.stamps.next(now);
        let online_clients = if is_from_room(&element, rooms) { OnlineClients::Room } else { self.online_clients };
        let durable = is_durable(&element);
        let item = Queued::new(element, seq, stamp.received).ahead_by(stamp.ahead);
        let item = item.with_online_clients(online_clients).of_leg(server_seq);
        if durable { item.durable() } else { item }
    }
}
