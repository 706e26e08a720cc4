//! The rooms that the account's client is in (XEP-0045), with its nicks. A room reflects the client's messages, and
//! [`Rooms`] recognizes them.

use std::collections::BTreeMap;

use super::address::{address, bare};
use super::mucsub::Subscriptions;
use crate::jid::{BareJid, Jid};
use crate::xml::{Node, ns};

/// The maximum number of rooms that are remembered. In further rooms, the client's own messages count as another's.
const ROOMS: usize = 1024;

/// The maximum bytes of the names of rooms and nicks that are remembered. Beyond it, the same applies as beyond
/// [`ROOMS`].
const BYTES: usize = 256 * 1024;

/// The bytes of a room in addition to its names.
const ROOM: usize = 96;

/// XEP-0421: the maximum length of an occupant id. A longer value is not one.
const OCCUPANT_ID_CHARS: usize = 128;

/// The rooms a client has joined.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Rooms {
    /// The client's occupant, by the bare JID of the room.
    occupants: BTreeMap<String, Occupant>,
    /// The bytes of their names.
    bytes: usize,
    /// The rooms that send their messages without being joined.
    subscriptions: Subscriptions,
}

/// The client as an occupant of a room.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Occupant {
    nick: String,
    id: Option<String>,
    /// True if the client itself joined. A stranger who only claims to be a room cannot displace such an entry.
    joined: bool,
}

/// The party that reports that the client is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OccupancySource {
    /// The client, by joining the room.
    Client,
    /// The address of the room.
    Room,
}

impl Rooms {
    /// Records directed presence of the client: it joins (XEP-0045 §7.2) or leaves (§7.14). `unavailable` without an
    /// address leaves all rooms, so call this only for presence that is sent to the server.
    pub fn sent(&mut self, presence: &Node<'_>) {
        let kind = presence.attr("type");
        let to = address(presence, "to");
        match (kind.as_deref(), to) {
            (Some("unavailable"), Some(to)) => self.forget(bare(&to)),
            (Some("unavailable"), None) => {
                let subscriptions = std::mem::take(&mut self.subscriptions);
                *self = Self { subscriptions, ..Self::default() };
            }
            (None, Some(to)) if presence.child("x", ns::MUC).is_some() => {
                self.learn(&to, None, OccupancySource::Client)
            }
            _ => {}
        }
    }

    /// Replaces the subscriptions of the account (MUC/Sub).
    pub fn subscribed(&mut self, subscriptions: &Subscriptions) {
        if self.subscriptions != *subscriptions {
            self.subscriptions.clone_from(subscriptions);
        }
    }

    /// Records presence in which a room describes the client itself (status 110, XEP-0045 §7.2): its real nick, its
    /// occupant id, or that it has left. Only presence with a `muc#user` element is read.
    pub fn received(&mut self, presence: &Node<'_>) {
        let Some(from) = address(presence, "from") else { return };
        let Some(x) = presence.child("x", ns::MUC_USER) else { return };
        let says = |code| x.children().any(|c| c.is("status", ns::MUC_USER) && c.attr("code").as_deref() == Some(code));
        match presence.attr("type").as_deref() {
            None if says("110") => {
                let id = presence.child("occupant-id", ns::OCCUPANT_ID).and_then(|id| id.attr("id"));
                let id = id.filter(|id| id.chars().count() <= OCCUPANT_ID_CHARS).map(|id| id.into_owned());
                self.learn(&from, id, OccupancySource::Room);
            }
            Some("unavailable") if says("110") || self.is_own(&from, None) => {
                // XEP-0045 §7.6: a client that changes its nick leaves under the old one.
                let nick = x.child("item", ns::MUC_USER).and_then(|item| item.attr("nick"));
                match nick.filter(|_| says("303")).map(|nick| Jid::new(&format!("{}/{nick}", bare(&from)))) {
                    Some(renamed) => self.learn(&renamed, None, OccupancySource::Room),
                    None => self.forget(bare(&from)),
                }
            }
            _ => {}
        }
    }

    /// Returns whether no room is known.
    pub fn is_empty(&self) -> bool {
        self.occupants.is_empty()
    }

    /// Returns the nick of the client in a room, in the form in which it is compared (RFC 7622 §3.4).
    pub fn nick(&self, room: &BareJid) -> Option<&str> {
        self.occupants.get(room.as_str()).map(|occupant| occupant.nick.as_str())
    }

    /// Returns whether the client itself joined a room. For other known rooms, only the room's address claims it.
    pub fn has_joined(&self, room: &BareJid) -> bool {
        self.occupants.get(room.as_str()).is_some_and(|occupant| occupant.joined)
    }

    /// Returns the id that marks the client's messages in a room, under any nick (XEP-0421).
    pub fn occupant_id(&self, room: &BareJid) -> Option<&str> {
        self.occupants.get(room.as_str())?.id.as_deref()
    }

    /// Returns whether this occupant is the client, or another client of the account. If both occupant ids are known,
    /// they decide, since a nick may have passed to another person.
    pub fn is_own(&self, occupant: &Jid, id: Option<&str>) -> bool {
        let Some(own) = self.occupants.get(bare(occupant)) else { return self.subscriptions.is_own(occupant) };
        match (&own.id, id) {
            (Some(own), Some(id)) => own == id,
            _ => occupant.resource().is_some_and(|nick| nick == own.nick),
        }
    }

    fn learn(&mut self, occupant: &Jid, id: Option<String>, source: OccupancySource) {
        let joined = source == OccupancySource::Client;
        let Some(nick) = occupant.resource().map(|nick| nick.to_owned()) else { return };
        if let Some(mut known) = self.take(bare(occupant)) {
            known.nick = nick;
            known.id = id.or(known.id.take());
            known.joined |= joined;
            return self.remember(bare(occupant), known);
        }
        let (room, fresh) = (bare(occupant), Occupant { nick, id, joined });
        while joined && !self.has_room(fresh.bytes(room)) {
            let claimed = self.occupants.iter().find(|(_, occupant)| !occupant.joined).map(|(room, _)| room.clone());
            let Some(claimed) = claimed else { break };
            self.forget(&claimed);
        }
        self.remember(room, fresh);
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.occupants.len() < ROOMS && self.bytes + bytes <= BYTES
    }

    fn remember(&mut self, room: &str, occupant: Occupant) {
        let bytes = occupant.bytes(room);
        if self.has_room(bytes) {
            self.bytes += bytes;
            self.occupants.insert(room.to_owned(), occupant);
        }
    }

    fn forget(&mut self, room: &str) {
        drop(self.take(room));
    }

    fn take(&mut self, room: &str) -> Option<Occupant> {
        let occupant = self.occupants.remove(room)?;
        self.bytes = self.bytes.saturating_sub(occupant.bytes(room));
        Some(occupant)
    }

    /// Returns the bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.bytes + self.occupants.len() * ROOM + self.subscriptions.memory()
    }
}

impl Occupant {
    fn bytes(&self, room: &str) -> usize {
        room.len() + self.nick.len() + self.id.as_ref().map_or(0, String::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;
    use crate::xml::{Element, Header};

    const JOIN: &str = "<presence to='coven@chat.shakespeare.lit/thirdwitch' id='n13mt3l'>\
        <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://conversations.im' ver='x'/>\
        <x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='20'/></x></presence>";

    fn joined(occupant: &str) -> String {
        format!(
            "<presence from='{occupant}' to='hag66@shakespeare.lit/pda'>\
             <occupant-id xmlns='urn:xmpp:occupant-id:0' id='dd72603deec90a38'/>\
             <x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='member' role='participant'/>\
             <status code='100'/><status code='110'/><status code='210'/></x></presence>"
        )
    }

    fn left(occupant: &str, inside: &str) -> String {
        format!(
            "<presence from='{occupant}' type='unavailable'>\
             <x xmlns='http://jabber.org/protocol/muc#user'>{inside}</x></presence>"
        )
    }

    fn room() -> BareJid {
        BareJid::new("coven@chat.shakespeare.lit").unwrap()
    }

    fn check(sent: &[&str], received: &[&str], nick: Option<&str>, occupant_id: Option<&str>) {
        let mut rooms = Rooms::default();
        sent.iter().for_each(|xml| rooms.sent(&element(xml).node()));
        received.iter().for_each(|xml| rooms.received(&element(xml).node()));
        assert_eq!((rooms.nick(&room()), rooms.occupant_id(&room())), (nick, occupant_id), "{sent:?} {received:?}");
    }

    #[test]
    fn the_requested_nick_counts_until_the_room_reports_another() {
        let given = &joined("coven@chat.shakespeare.lit/ThirdWitch2");
        check(&[JOIN], &[], Some("thirdwitch"), None);
        check(&[JOIN], &[given], Some("ThirdWitch2"), Some("dd72603deec90a38"));
        check(&[], &[given], Some("ThirdWitch2"), Some("dd72603deec90a38"));
        check(&["<presence to='coven@chat.shakespeare.lit/thirdwitch'/>"], &[], None, None);
        check(
            &["<presence to='coven@chat.shakespeare.lit'><x xmlns='http://jabber.org/protocol/muc'/></presence>"],
            &[],
            None,
            None,
        );
    }

    #[test]
    fn others_in_the_room_are_not_the_client() {
        let other = "<presence from='coven@chat.shakespeare.lit/firstwitch'><x xmlns='http://jabber.org/protocol/muc#user'>\
            <item affiliation='owner' role='moderator'/></x></presence>";
        check(&[JOIN], &[other], Some("thirdwitch"), None);
        check(&[JOIN], &[&left("coven@chat.shakespeare.lit/firstwitch", "<item/>")], Some("thirdwitch"), None);
        let error = "<presence type='error' from='coven@chat.shakespeare.lit/thirdwitch'>\
            <x xmlns='http://jabber.org/protocol/muc#user'/><error type='cancel'/></presence>";
        check(&[JOIN], &[error], Some("thirdwitch"), None);
    }

    #[test]
    fn a_room_is_forgotten_when_the_client_leaves_it() {
        let given = &joined("coven@chat.shakespeare.lit/thirdwitch");
        check(&[JOIN, "<presence to='coven@chat.shakespeare.lit/thirdwitch' type='unavailable'/>"], &[], None, None);
        check(&[JOIN, "<presence type='unavailable'/>"], &[], None, None);
        check(&[JOIN, "<presence to='nurse@capulet.lit' type='unavailable'/>"], &[], Some("thirdwitch"), None);
        for inside in ["<item/><status code='110'/>", "<item><reason>Avaunt</reason></item><status code='307'/>"] {
            check(&[JOIN], &[given, &left("coven@chat.shakespeare.lit/thirdwitch", inside)], None, None);
        }
    }

    #[test]
    fn a_new_nick_is_followed() {
        let inside =
            "<item nick='oldhag' affiliation='member' role='participant'/><status code='303'/><status code='110'/>";
        let given = &joined("coven@chat.shakespeare.lit/thirdwitch");
        let renamed = &left("coven@chat.shakespeare.lit/thirdwitch", inside);
        check(&[JOIN], &[given, renamed], Some("oldhag"), Some("dd72603deec90a38"));
    }

    #[test]
    fn an_occupant_id_outweighs_a_nick() {
        let mut rooms = Rooms::default();
        rooms.received(&element(&joined("coven@chat.shakespeare.lit/thirdwitch")).node());
        let own = |nick: &str, id| rooms.is_own(&Jid::new(&format!("coven@chat.shakespeare.lit/{nick}")), id);
        assert!(own("thirdwitch", None));
        assert!(own("oldhag", Some("dd72603deec90a38")));
        assert!(!own("oldhag", None));
        assert!(!own("thirdwitch", Some("another")));
        assert!(!rooms.is_own(&Jid::new("other@chat.shakespeare.lit/thirdwitch"), Some("dd72603deec90a38")));
    }

    #[test]
    fn strangers_cannot_displace_the_rooms_that_the_client_joins() {
        let mut rooms = Rooms::default();
        for n in 0..2 * ROOMS {
            rooms.received(&element(&joined(&format!("room{n}@evil.example/x"))).node());
        }
        assert_eq!(rooms.occupants.len(), ROOMS);
        rooms.sent(&element(JOIN).node());
        assert_eq!((rooms.nick(&room()), rooms.occupants.len()), (Some("thirdwitch"), ROOMS));
        for n in 0..2 * ROOMS {
            rooms.sent(&element(&JOIN.replace("coven", &format!("coven{n}"))).node());
        }
        assert_eq!((rooms.nick(&room()), rooms.occupants.len()), (Some("thirdwitch"), ROOMS));
    }

    #[test]
    fn an_occupant_id_has_a_bound() {
        let long = joined("coven@chat.shakespeare.lit/thirdwitch").replace("dd72603deec90a38", &"x".repeat(129));
        check(&[], &[&long], Some("thirdwitch"), None);
    }

    #[test]
    fn the_names_of_rooms_are_bounded_in_bytes_and_claims_are_displaced_first() {
        let (long, mut rooms) = ("x".repeat(900), Rooms::default());
        for n in 0..1000 {
            let x = "<x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x>";
            let xml = format!("<presence from='{n}@a.example/{long}'>{x}</presence>");
            rooms.received(&Element::parse(xml.into(), &Header::bare()).unwrap().node());
        }
        assert!(rooms.memory() <= BYTES + ROOMS * ROOM && rooms.bytes > BYTES / 2);
        let own = BareJid::new("mine@room.example").unwrap();
        let join = "<presence to='mine@room.example/me'><x xmlns='http://jabber.org/protocol/muc'/></presence>";
        rooms.sent(&Element::parse(join.into(), &Header::bare()).unwrap().node());
        assert!(rooms.has_joined(&own), "what others claim gives way");
        let leave = join.replace("<presence", "<presence type='unavailable'");
        rooms.sent(&Element::parse(leave.into(), &Header::bare()).unwrap().node());
        rooms.sent(&Element::parse("<presence type='unavailable'/>".into(), &Header::bare()).unwrap().node());
        assert_eq!((rooms.bytes, rooms.memory()), (0, 0));
    }
}
