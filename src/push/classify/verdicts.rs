//! Every verdict of the classifier, with addresses of every kind. Each must equal the verdict for plain addresses.

use std::collections::HashSet;

use super::Class::{self, Call, CallEnd, Invite, Message, ReadSync, Subscribe};
use super::{Context, read};
use crate::jid::BareJid;
use crate::jid::addresses::{ALL, Addresses};
use crate::push::classify::Noise;
use crate::push::rooms::Rooms;
use crate::session::tests::element;

/// The user did it, on another client.
const OWN: bool = true;
/// Another account did it, or a client by itself.
const OTHERS: bool = false;

const CALL: &str = "<propose xmlns='urn:xmpp:jingle-message:0' id='c1'><description xmlns='urn:xmpp:jingle:apps:rtp:1' \
    media='audio'/></propose>";
const HISTORY: &str = "<body>hi</body><delay xmlns='urn:xmpp:delay' from='ROOM' stamp='2026-01-01T00:00:00Z'/>";
const INVITE: &str = "<invite xmlns='urn:xmpp:call-invites:0'><jingle sid='s'/></invite>\
    <stanza-id xmlns='urn:xmpp:sid:0' by='ROOM' id='r9'/>";
const MARKER: &str = "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>";
const PUSH: &str = "<push xmlns='http://gultsch.de/xmpp/drafts/unified-push' application='a' instance='b'>eA==</push>";
const MDS: &str = "<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:mds:displayed:0'>\
    <item id='BARE'/></items></event>";

fn from_other(inside: &str) -> String {
    format!("<message from='OTHER' to='ACCOUNT' type='chat' id='8f7d'>{inside}</message>")
}

fn in_room(nick: &str, inside: &str) -> String {
    format!("<message from='ROOM/{nick}' to='ACCOUNT/PHONE' type='groupchat' id='8f7d'>{inside}</message>")
}

fn by_other(inside: &str) -> String {
    in_room("HISNICK", inside)
}

fn by_self(inside: &str) -> String {
    in_room("MYNICK", inside)
}

fn carbon(direction: &str, inner: &str) -> String {
    let inner = inner.replacen("<message", "<message xmlns='jabber:client'", 1);
    format!(
        "<message from='ACCOUNT' to='ACCOUNT/PHONE' type='chat'><{direction} xmlns='urn:xmpp:carbons:2'>\
         <forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></{direction}></message>"
    )
}

fn sent(inside: &str) -> String {
    carbon("sent", &format!("<message from='ACCOUNT/other' to='BARE' type='chat' id='c1'>{inside}</message>"))
}

fn to_self(inside: &str) -> String {
    format!("<message from='ACCOUNT/PHONE' to='ACCOUNT' type='chat' id='c2'>{inside}</message>")
}

fn mediated(inviter: &str) -> String {
    format!(
        "<message from='ROOM'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='{inviter}'/></x></message>"
    )
}

fn jingle(action: &str) -> String {
    format!(
        "<iq from='OTHER' to='ACCOUNT/PHONE' id='1' type='set'><jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='c1'>\
         <content><description xmlns='urn:xmpp:jingle:apps:rtp:1'/></content></jingle></iq>"
    )
}

/// A stanza and its expected verdict: class, conversation, call, and whether the user did it.
type Verdict = (String, Class, &'static str, Option<&'static str>, bool);

fn of_people() -> Vec<Verdict> {
    let noise = Class::Noise;
    let ringing = "<ringing xmlns='urn:xmpp:jingle-message:0' id='c1'/>";
    let accept = "<accept xmlns='urn:xmpp:jingle-message:0' id='c1'/>";
    let retract = "<retract xmlns='urn:xmpp:jingle-message:0' id='c1'/>";
    let forwarded = "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='BARE'/></forwarded>";
    vec![
        (from_other("<body>hi</body>"), Message, "BARE", None, OTHERS),
        (carbon("received", &from_other("<body>hi</body>")), Message, "BARE", None, OTHERS),
        (from_other(CALL), Call, "BARE", Some("c1"), OTHERS),
        (carbon("received", &from_other(CALL)), Call, "BARE", Some("c1"), OTHERS),
        (jingle("session-initiate"), Call, "BARE", Some("c1"), OTHERS),
        (jingle("session-terminate"), CallEnd, "BARE", Some("c1"), OTHERS),
        (jingle("session-initiate").replace("OTHER", "ACCOUNT/x"), noise(Noise::Iq), "", None, OTHERS),
        (from_other(retract), CallEnd, "BARE", Some("c1"), OTHERS),
        (from_other(accept), noise(Noise::CallAnswer), "BARE", None, OTHERS),
        (from_other(ringing), noise(Noise::Ringing), "BARE", None, OTHERS),
        (sent(accept), CallEnd, "BARE", Some("c1"), OWN),
        (to_self(accept), CallEnd, "ACCOUNT", Some("c1"), OWN),
        (sent("<body>hi</body>"), noise(Noise::SentCarbon), "BARE", None, OWN),
        (sent(MARKER), ReadSync, "BARE", None, OWN),
        (to_self("<body>milk</body>"), noise(Noise::NoteToSelf), "ACCOUNT", None, OWN),
        (to_self("<body>milk</body>").replace("/PHONE", ""), noise(Noise::NoteToSelf), "ACCOUNT", None, OWN),
        (format!("<message from='ACCOUNT' type='headline'>{MDS}</message>"), ReadSync, "BARE", None, OWN),
        (format!("<message type='headline'>{MDS}</message>"), ReadSync, "BARE", None, OWN),
        (
            format!("<message from='ACCOUNT/x' type='headline'>{MDS}</message>"),
            noise(Noise::PubsubEvent),
            "",
            None,
            OTHERS,
        ),
        (from_other(MDS).replace("chat", "headline"), noise(Noise::PubsubEvent), "BARE", None, OTHERS),
        (from_other("<x xmlns='jabber:x:conference' jid='ROOM'/>"), Invite, "BARE", None, OTHERS),
        ("<presence from='BARE' type='subscribe'/>".to_owned(), Subscribe, "BARE", None, OTHERS),
        ("<presence from='ACCOUNT' type='subscribe'/>".to_owned(), noise(Noise::Presence), "", None, OTHERS),
        ("<presence from='OTHER'/>".to_owned(), noise(Noise::Presence), "", None, OTHERS),
        (format!("<iq type='set' id='1' from='OTHER'>{PUSH}</iq>"), Message, "BARE", None, OTHERS),
        ("<iq type='result' id='1' from='OTHER'/>".to_owned(), noise(Noise::Iq), "", None, OTHERS),
        ("<a xmlns='urn:xmpp:sm:3' h='1'/>".to_owned(), noise(Noise::Nonza), "", None, OTHERS),
        (from_other("<body>x</body>").replace("chat", "error"), noise(Noise::Error), "BARE", None, OTHERS),
        (from_other("<body>x</body>").replace("chat", "headline"), noise(Noise::Headline), "BARE", None, OTHERS),
        (from_other(forwarded), noise(Noise::Forward), "BARE", None, OTHERS),
        (
            carbon("received", &from_other("<body>x</body>")).replace("from='ACCOUNT'", "from='OTHER'"),
            noise(Noise::Forward),
            "BARE",
            None,
            OTHERS,
        ),
        (
            "<message from='ACCOUNT'><result xmlns='urn:xmpp:mam:2'/></message>".to_owned(),
            noise(Noise::Archive),
            "",
            None,
            OTHERS,
        ),
    ]
}

fn of_texts() -> Vec<Verdict> {
    [
        ("<body>x</body><replace xmlns='urn:xmpp:message-correct:0' id='1'/>", Noise::Correction),
        ("<reactions xmlns='urn:xmpp:reactions:0' id='1'/>", Noise::Reaction),
        ("<retract xmlns='urn:xmpp:message-retract:1' id='1'/>", Noise::Retraction),
        ("<body>x</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:receipts'/>", Noise::Fallback),
        ("<encrypted xmlns='urn:xmpp:omemo:2'><header/></encrypted>", Noise::KeyTransport),
        ("<subject>x</subject>", Noise::Subject),
        ("<composing xmlns='http://jabber.org/protocol/chatstates'/>", Noise::ChatState),
        ("<received xmlns='urn:xmpp:receipts' id='1'/>", Noise::Receipt),
        (MARKER, Noise::Marker),
        ("", Noise::NoText),
    ]
    .into_iter()
    .flat_map(|(text, noise)| {
        let class = Class::Noise(noise);
        [(from_other(text), class, "BARE", None, OTHERS), (by_other(text), class, "ROOM", None, OTHERS)]
    })
    .collect()
}

fn of_rooms() -> Vec<Verdict> {
    let noise = Class::Noise;
    let accept = "<accept xmlns='urn:xmpp:call-invites:0' id='c1'/>";
    let occupant = |id| format!("<body>hi</body><occupant-id xmlns='urn:xmpp:occupant-id:0' id='{id}'/>");
    vec![
        (by_other("<body>hi</body>"), Message, "ROOM", None, OTHERS),
        (by_other("<body>hi</body>").replace("groupchat", "chat"), Message, "ROOM", None, OTHERS),
        (by_self("<body>hi</body>"), noise(Noise::Reflection), "ROOM", None, OWN),
        (by_self(&occupant("mine")), noise(Noise::Reflection), "ROOM", None, OWN),
        (by_other(&occupant("mine")), noise(Noise::Reflection), "ROOM", None, OWN),
        (by_self(&occupant("his")), Message, "ROOM", None, OTHERS),
        (by_other(HISTORY), noise(Noise::RoomHistory), "ROOM", None, OTHERS),
        (
            by_other(HISTORY).replace("from='ROOM' stamp", "from='ROOM/HISNICK' stamp"),
            noise(Noise::RoomHistory),
            "ROOM",
            None,
            OTHERS,
        ),
        (by_other(HISTORY).replace("from='ROOM' stamp", "from='BARE' stamp"), Message, "ROOM", None, OTHERS),
        (by_other(INVITE), Call, "ROOM", Some("r9"), OTHERS),
        (by_self(INVITE), noise(Noise::Reflection), "ROOM", None, OWN),
        (by_self(accept), CallEnd, "ROOM", Some("c1"), OWN),
        (by_other(accept), noise(Noise::CallAnswer), "ROOM", None, OTHERS),
        (by_self(MARKER), ReadSync, "ROOM", None, OWN),
        (mediated("OTHER"), Invite, "ROOM", None, OTHERS),
        (mediated("ACCOUNT/PHONE"), noise(Noise::NoteToSelf), "ROOM", None, OTHERS),
        (mediated("OTHER").replace("invite", "decline"), noise(Noise::Decline), "ROOM", None, OTHERS),
        (mediated("OTHER").replace("invite", "status"), noise(Noise::RoomNotice), "ROOM", None, OTHERS),
        // A room that the client has left.
        (by_self("<body>hi</body>").replace("ROOM", "leftROOM"), Message, "leftROOM", None, OTHERS),
        (by_self("<body>hi</body>").replace("ROOM", "reportedROOM"), Message, "reportedROOM", None, OTHERS),
    ]
}

/// Returns rooms of which the client has joined one and left two. It left one of the two itself; the room reported the
/// other leave.
fn rooms(at: &Addresses) -> Rooms {
    let mut rooms = Rooms::default();
    for room in ["ROOM", "leftROOM", "reportedROOM"] {
        let join = format!("<presence to='{room}/MYNICK'><x xmlns='http://jabber.org/protocol/muc'/></presence>");
        rooms.sent(&element(&at.fill(&join)).node());
    }
    let report = |room: &str, kind: &str, inside: &str| {
        at.fill(&format!(
            "<presence from='{room}/MYNICK' {kind}><occupant-id xmlns='urn:xmpp:occupant-id:0' id='mine'/>\
             <x xmlns='http://jabber.org/protocol/muc#user'>{inside}<status code='110'/></x></presence>"
        ))
    };
    rooms.received(&element(&report("ROOM", "", "<item/>")).node());
    rooms.received(&element(&report("reportedROOM", "type='unavailable'", "<item/>")).node());
    rooms.sent(&element(&at.fill("<presence to='leftROOM/MYNICK' type='unavailable'/>")).node());
    rooms
}

#[test]
fn every_verdict_is_the_same_whatever_the_addresses() {
    for at in ALL {
        let (account, rooms) = (BareJid::new(at.account).unwrap(), rooms(&at));
        for (stanza, class, chat, call, own) in of_people().into_iter().chain(of_texts()).chain(of_rooms()) {
            let stanza = element(&at.fill(&stanza));
            let reading = read(&stanza, Context { account: &account, rooms: &rooms });
            let found = (reading.class, reading.call.as_deref(), reading.own);
            assert_eq!(found, (class, call, own), "{}: {stanza:?}", at.name);
            if !chat.is_empty() {
                assert_eq!(
                    reading.chat.map(|chat| chat.as_str().to_owned()),
                    Some(at.fill(chat)),
                    "{}: {stanza:?}",
                    at.name
                );
            }
        }
    }
}

#[test]
fn the_table_has_every_verdict() {
    let all: HashSet<Class> = of_people().into_iter().chain(of_texts()).chain(of_rooms()).map(|row| row.1).collect();
    let noises = Noise::ALL.map(Class::Noise);
    for class in [Call, CallEnd, Message, Invite, Subscribe, ReadSync].into_iter().chain(noises) {
        assert!(all.contains(&class), "{class:?}");
    }
}

#[test]
fn a_new_nick_is_followed_whatever_it_is() {
    for at in ALL {
        let mut rooms = rooms(&at);
        let renamed = "<presence from='ROOM/MYNICK' type='unavailable'><x xmlns='http://jabber.org/protocol/muc#user'>\
            <item nick='HISNICK'/><status code='303'/><status code='110'/></x></presence>";
        rooms.received(&element(&at.fill(renamed)).node());
        assert_eq!(rooms.nick(&BareJid::new(at.room).unwrap()), Some(at.other_nick), "{}", at.name);
    }
}
