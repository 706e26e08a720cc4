//! Per-registration filters (`tigase:push`): muted chats, unknown senders, rooms that notify of mentions only.
//! [`verdict`] applies them.
//!
//! *Muted* blocks everything from a chat. An invitation into a room counts also as coming from the inviter. *Ignore
//! unknown* applies to messages, invitations and calls from people. It does not apply to rooms: messages in rooms, and
//! private messages from occupants of a joined room, pass. Requests to see the presence normally come from strangers
//! and always pass. *Groupchat* applies to messages in rooms.

mod mention;

use std::fmt;

use super::address::address;
use super::classify::{Class, Classified};
use super::registration::{Allow, Extensions};
use super::rooms::Rooms;
use super::roster::Roster;
use crate::jid::{BareJid, Jid};
use crate::xml::{Node, ns};
use mention::OwnOccupant;

/// The reason why a stanza does not notify a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The chat is muted.
    Muted,
    /// The sender is not in the roster.
    UnknownSender,
    /// The client listed the rooms that notify, and this room is not listed.
    UnlistedRoom,
    /// The room never notifies.
    SilentRoom,
    /// The room notifies only of mentions, and this is not a mention.
    NotMentioned,
}

impl Blocked {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::Muted, Self::UnknownSender, Self::UnlistedRoom, Self::SilentRoom, Self::NotMentioned];

    /// Returns the name in the log field and in the metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Muted => "muted",
            Self::UnknownSender => "unknown_sender",
            Self::UnlistedRoom => "unlisted_room",
            Self::SilentRoom => "silent_room",
            Self::NotMentioned => "not_mentioned",
        }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Applies the filters of a registration to a stanza.
///
/// # Errors
/// Returns the reason if the registration does not want to be notified of it.
pub fn verdict(
    reading: &Classified<'_>,
    extensions: &Extensions,
    roster: &Roster,
    rooms: &Rooms,
) -> Result<(), Blocked> {
    if extensions.muted.is_empty() && extensions.groupchat.is_none() && !extensions.ignore_unknown {
        return Ok(());
    }
    let stanza = &reading.stanza;
    // RFC 6120 §8.1.2.1: a stanza without `from` comes from the account itself.
    let Some(chat) = reading.chat.clone().or_else(|| address(stanza, "from").map(Jid::into_bare)) else {
        return Ok(());
    };
    let inviter = inviter(stanza);
    if extensions.muted.contains(&chat) || inviter.as_ref().is_some_and(|inviter| extensions.muted.contains(inviter)) {
        return Err(Blocked::Muted);
    }
    if stanza.name() == "message" && stanza.attr("type").as_deref() == Some("groupchat") {
        let Some(rules) = &extensions.groupchat else { return Ok(()) };
        return match rules.get(&chat) {
            None => Err(Blocked::UnlistedRoom),
            Some(Allow::Never) => Err(Blocked::SilentRoom),
            Some(Allow::Always) => Ok(()),
            Some(Allow::Mentioned { nick }) => {
                // The nick stored in the registration may be out of date.
                let nicks = [nick.as_deref(), rooms.nick(&chat)];
                let mentioned = OwnOccupant { roster, room: &chat, nicks }.is_mentioned(stanza);
                if mentioned { Ok(()) } else { Err(Blocked::NotMentioned) }
            }
        };
    }
    let asked = extensions.ignore_unknown && roster.is_known() && reading.class != Class::Subscribe;
    let known = |jid: &BareJid| roster.has(jid) || rooms.has_joined(jid);
    if asked && !known(&chat) && !inviter.as_ref().is_some_and(known) {
        return Err(Blocked::UnknownSender);
    }
    Ok(())
}

/// Returns the inviter that a room names (XEP-0045 §7.8.2). Only a room sends from its bare JID; people cannot. So a
/// person cannot pass the filter under the name of a contact.
fn inviter(stanza: &Node<'_>) -> Option<BareJid> {
    address(stanza, "from").filter(|from| from.resource().is_none())?;
    address(&stanza.child("x", ns::MUC_USER)?.child("invite", ns::MUC_USER)?, "from").map(Jid::into_bare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::FullJid;
    use crate::jid::addresses::{ALL, Addresses};
    use crate::push::classify::{self, Context};
    use crate::push::registration::Request;
    use crate::push::settings::PushSettings;
    use crate::session::tests::element;

    fn jid(jid: &str) -> BareJid {
        BareJid::new(jid).unwrap()
    }

    fn roster() -> Roster {
        let mut roster = Roster::new(&jid("juliet@example.org"), 7);
        let items = "<item jid='romeo@example.net' subscription='both'/>";
        let iq = format!("<iq type='result' id='1'><query xmlns='jabber:iq:roster'>{items}</query></iq>");
        roster.learn(&element(&iq).node());
        roster
    }

    /// The client is in two rooms. A third address only claims that the client is its occupant.
    fn rooms() -> Rooms {
        let mut rooms = Rooms::default();
        for room in ["all@rooms.org/jule", "nameless@rooms.org/jule"] {
            let join = format!("<presence to='{room}'><x xmlns='{}'/></presence>", ns::MUC);
            rooms.sent(&element(&join).node());
        }
        let claim = "<presence from='paris@example.net/jule'><x xmlns='http://jabber.org/protocol/muc#user'>\
            <status code='110'/></x></presence>";
        rooms.received(&element(claim).node());
        rooms
    }

    fn judge(extensions: &Extensions, roster: &Roster, stanza: &str) -> Result<(), Blocked> {
        let context = Context { account: &jid("juliet@example.org"), rooms: &rooms() };
        verdict(&classify::read(&element(stanza), context), extensions, roster, context.rooms)
    }

    /// Checks with a registration that uses every filter.
    fn check(stanza: &str, expect: Result<(), Blocked>) {
        let rules = [
            ("all@rooms.org", Allow::Always),
            ("none@rooms.org", Allow::Never),
            ("some@rooms.org", Allow::Mentioned { nick: Some("Juliet".to_owned()) }),
            ("nameless@rooms.org", Allow::Mentioned { nick: None }),
        ];
        let extensions = Extensions {
            muted: [jid("tybalt@example.net"), jid("loud@rooms.org")].into(),
            ignore_unknown: true,
            groupchat: Some(rules.into_iter().map(|(room, allow)| (jid(room), allow)).collect()),
            ..Extensions::default()
        };
        assert_eq!(judge(&extensions, &roster(), stanza), expect, "{stanza}");
        assert_eq!(judge(&Extensions::default(), &roster(), stanza), Ok(()), "{stanza}");
    }

    fn message(attributes: &str, body: &str) -> String {
        format!("<message {attributes}><body>{body}</body></message>")
    }

    #[test]
    fn people_are_filtered_by_mute_and_by_the_roster() {
        check(&message("from='romeo@example.net/x' type='chat'", "hi"), Ok(()));
        check(&message("from='Tybalt@example.net/x' type='chat'", "hi"), Err(Blocked::Muted));
        check(&message("from='paris@example.net/x' type='chat'", "hi"), Err(Blocked::UnknownSender));
        check(&message("from='paris@example.net/x'", "hi"), Err(Blocked::UnknownSender));
        check(&message("from='juliet@example.org/balcony'", "hi"), Ok(()));
        check(&message("from='example.org'", "Down at noon"), Ok(()));
        check(&message("id='1'", "hi"), Ok(()));
        check("<presence type='subscribe' from='paris@example.net'/>", Ok(()));
        check("<presence type='subscribe' from='tybalt@example.net'/>", Err(Blocked::Muted));
        let propose = |from: &str| {
            format!("<message from='{from}' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>")
        };
        check(&propose("romeo@example.net/x"), Ok(()));
        check(&propose("tybalt@example.net/x"), Err(Blocked::Muted));
        check(&propose("paris@example.net/x"), Err(Blocked::UnknownSender));
    }

    #[test]
    fn a_carbon_is_filtered_by_the_message_inside() {
        let carbon = |from: &str| {
            format!(
                "<message from='juliet@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' from='{from}' type='chat'><body>hi</body></message></forwarded></received></message>"
            )
        };
        check(&carbon("romeo@example.net/x"), Ok(()));
        check(&carbon("tybalt@example.net/x"), Err(Blocked::Muted));
        check(&carbon("paris@example.net/x"), Err(Blocked::UnknownSender));
    }

    #[test]
    fn an_invitation_counts_as_the_rooms_and_the_inviters() {
        let mediated = |room: &str, inviter: &str| {
            format!("<message from='{room}'><x xmlns='{}'><invite from='{inviter}'/></x></message>", ns::MUC_USER)
        };
        check(&mediated("new@rooms.org", "romeo@example.net/x"), Ok(()));
        check(&mediated("new@rooms.org", "paris@example.net/x"), Err(Blocked::UnknownSender));
        check(&mediated("new@rooms.org", "tybalt@example.net/x"), Err(Blocked::Muted));
        check(&mediated("loud@rooms.org", "romeo@example.net/x"), Err(Blocked::Muted));
        check(&mediated("paris@example.net/x", "romeo@example.net/x"), Err(Blocked::UnknownSender));
        let direct = |from: &str| {
            format!("<message from='{from}'><x xmlns='{}' jid='new@rooms.org'/></message>", ns::CONFERENCE)
        };
        check(&direct("romeo@example.net/x"), Ok(()));
        check(&direct("paris@example.net/x"), Err(Blocked::UnknownSender));
    }

    #[test]
    fn rooms_are_filtered_by_their_rules_and_not_by_the_roster() {
        let groupchat =
            |room: &str, body: &str| message(&format!("from='{room}@rooms.org/romeo' type='groupchat'"), body);
        check(&groupchat("all", "hi"), Ok(()));
        check(&groupchat("none", "hi Juliet"), Err(Blocked::SilentRoom));
        check(&groupchat("other", "hi Juliet"), Err(Blocked::UnlistedRoom));
        check(&groupchat("loud", "hi Juliet"), Err(Blocked::Muted));
        check(&groupchat("some", "hi"), Err(Blocked::NotMentioned));
        check(&groupchat("some", "hi, juliet!"), Ok(()));
        check(&groupchat("nameless", "hi Juliet"), Err(Blocked::NotMentioned));
        check(&groupchat("nameless", "hi Jule"), Ok(()));
        check(&message("from='all@rooms.org/romeo' type='chat'", "psst"), Ok(()));
        check(&message("from='other@rooms.org/romeo' type='chat'", "psst"), Err(Blocked::UnknownSender));
    }

    /// Returns the extensions that a client requests with `<enable/>`.
    fn asked(at: &Addresses, inside: &str) -> Extensions {
        let own = FullJid::new(&at.fill("ACCOUNT/PHONE")).unwrap();
        let xml = format!("<enable xmlns='urn:xmpp:push:0' jid='SERVICE' node='n'>{inside}</enable>");
        let settings = PushSettings { services: vec![jid(at.service).domain().to_owned()], ..PushSettings::default() };
        match Request::parse(&element(&at.fill(&xml)).node(), &own, &settings) {
            Some(Ok(Request::Enable { target, extensions, .. })) => {
                assert!(target.service.as_str() == at.service && target.is_from(at.service), "{}", at.name);
                assert!(!target.is_from(at.other), "{}", at.name);
                *extensions
            }
            other => panic!("{}: {other:?}", at.name),
        }
    }

    /// Returns an address as written in a URI (RFC 5122 §2), with every character escaped that may be.
    fn escaped(address: &str) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'@' | b'/' | b'.');
        let escape = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        address.bytes().map(escape).collect()
    }

    #[test]
    fn filters_know_people_and_rooms_whatever_their_addresses() {
        const STRANGERS: &str = "<ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/>";
        let rule = |rule| format!("<groupchat xmlns='tigase:push:filter:groupchat:0'>{rule}</groupchat>");
        let mute = |jid| format!("<muted xmlns='tigase:push:filter:muted:0'><item jid='{jid}'/></muted>");
        let groupchat =
            |inside| format!("<message from='ROOM/HISNICK' type='groupchat'><body>x</body>{inside}</message>");
        let mention = "<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:URI'/>";
        let (hi, known) = ("<message from='OTHER'><body>hi</body></message>", "<item jid='BARE' subscription='both'/>");
        let private = "<message from='ROOM/HISNICK' type='chat'><body>psst</body></message>";
        let mentioned = rule("<room jid='ROOM' allow='mentioned'/>");
        for at in ALL {
            let mut rooms = Rooms::default();
            let join = format!("<presence to='ROOM/MYNICK'><x xmlns='{}'/></presence>", ns::MUC);
            rooms.sent(&element(&at.fill(&join)).node());
            let check = |request: &str, contacts: &str, stanza: &str, expect| {
                let account = jid(at.account);
                let mut roster = Roster::new(&account, 7);
                let iq = format!("<iq type='result'><query xmlns='jabber:iq:roster'>{contacts}</query></iq>");
                roster.learn(&element(&at.fill(&iq)).node());
                let uri = escaped(&at.fill("ROOM/MYNICK"));
                let stanza = element(&at.fill(stanza).replace("URI", &uri));
                let reading = classify::read(&stanza, Context { account: &account, rooms: &rooms });
                let found = verdict(&reading, &asked(&at, request), &roster, &rooms);
                assert_eq!(found, expect, "{}: {request} {stanza:?}", at.name);
            };
            check(&mute("BARE"), known, hi, Err(Blocked::Muted));
            check(&mute("ROOM"), known, hi, Ok(()));
            check(&mute("ROOM"), known, &groupchat(""), Err(Blocked::Muted));
            check(STRANGERS, known, hi, Ok(()));
            check(STRANGERS, "", hi, Err(Blocked::UnknownSender));
            check(STRANGERS, "", private, Ok(()));
            check(STRANGERS, "", "<message from='ACCOUNT/x' type='chat'><body>hi</body></message>", Ok(()));
            check(&rule("<room jid='ROOM' allow='always'/>"), "", &groupchat(""), Ok(()));
            check(&rule("<room jid='ROOM' allow='never'/>"), "", &groupchat(""), Err(Blocked::SilentRoom));
            check(&rule("<room jid='BARE' allow='always'/>"), "", &groupchat(""), Err(Blocked::UnlistedRoom));
            check(&mentioned, "", &groupchat(""), Err(Blocked::NotMentioned));
            check(&mentioned, "", &groupchat(mention), Ok(()));
            check(&mentioned, "", &groupchat("<reply xmlns='urn:xmpp:reply:0' to='ROOM/MYNICK'/>"), Ok(()));
            check(&mentioned, "", &groupchat("<reply xmlns='urn:xmpp:reply:0' to='ACCOUNT'/>"), Ok(()));
            check(
                &mentioned,
                "",
                &groupchat("<reply xmlns='urn:xmpp:reply:0' to='ROOM/HISNICK'/>"),
                Err(Blocked::NotMentioned),
            );
        }
    }

    #[test]
    fn a_roster_that_was_not_seen_blocks_nobody() {
        let extensions = Extensions { ignore_unknown: true, ..Extensions::default() };
        let unseen = Roster::new(&jid("juliet@example.org"), 7);
        let stanza = message("from='paris@example.net/x' type='chat'", "hi");
        assert_eq!(judge(&extensions, &unseen, &stanza), Ok(()));
        assert_eq!(judge(&extensions, &roster(), &stanza), Err(Blocked::UnknownSender));
    }

    #[test]
    fn every_reason_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = Blocked::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), Blocked::ALL.len());
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    }
}
