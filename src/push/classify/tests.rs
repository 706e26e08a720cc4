//! Tests with stanzas as clients and servers send them, and their expected classes.

use proptest::prelude::*;

use super::Class::{Call, CallEnd, Invite, Message, ReadSync, Subscribe};
use super::*;
use crate::push::rooms::Rooms;
use crate::session::tests::element;

const ACCOUNT: &str = "juliet@capulet.lit";

/// The expected classification. `call` and `own` are unset unless a test sets them.
struct Expect {
    class: Class,
    chat: Option<&'static str>,
    call: Option<&'static str>,
    own: bool,
}

fn is(class: Class) -> Expect {
    Expect { class, chat: None, call: None, own: false }
}

fn noise(noise: Noise) -> Expect {
    is(Class::Noise(noise))
}

impl Expect {
    fn chat(self, chat: &'static str) -> Self {
        Self { chat: Some(chat), ..self }
    }

    fn call(self, call: &'static str) -> Self {
        Self { call: Some(call), ..self }
    }

    fn own(self) -> Self {
        Self { own: true, ..self }
    }
}

fn rooms() -> Rooms {
    let mut rooms = Rooms::default();
    rooms.sent(
        &element("<presence to='coven@chat.lit/juliet'><x xmlns='http://jabber.org/protocol/muc'/></presence>").node(),
    );
    rooms.received(
        &element(
            "<presence from='coven@chat.lit/juliet'><occupant-id xmlns='urn:xmpp:occupant-id:0' id='own-occupant'/>\
             <x xmlns='http://jabber.org/protocol/muc#user'><item/><status code='110'/></x></presence>",
        )
        .node(),
    );
    rooms.sent(
        &element("<presence to='forest@chat.lit/nurse'><x xmlns='http://jabber.org/protocol/muc'/></presence>").node(),
    );
    rooms
}

fn reading<T>(stanza: &str, then: impl FnOnce(Classified<'_>) -> T) -> T {
    let (account, rooms) = (BareJid::new(ACCOUNT).unwrap(), rooms());
    then(read(&element(stanza), Context { account: &account, rooms: &rooms }))
}

fn check(stanza: &str, expect: Expect) {
    reading(stanza, |reading| {
        assert_eq!(reading.class, expect.class, "{stanza}");
        assert_eq!(reading.call.as_deref(), expect.call, "{stanza}");
        assert_eq!(reading.own, expect.own, "{stanza}");
        if let Some(chat) = expect.chat {
            assert_eq!(reading.chat.as_ref().map(|chat| chat.as_str()), Some(chat), "{stanza}");
        }
    });
}

fn from_romeo(inside: &str) -> String {
    format!("<message from='romeo@montague.lit/orchard' to='{ACCOUNT}' type='chat' id='8f7d'>{inside}</message>")
}

fn in_room(nick: &str, inside: &str) -> String {
    format!("<message from='coven@chat.lit/{nick}' to='{ACCOUNT}/phone' type='groupchat' id='8f7d'>{inside}</message>")
}

fn carbon(outer: &str, direction: &str, inner: &str) -> String {
    format!(
        "<message from='{outer}' to='{ACCOUNT}/phone' type='chat'><{direction} xmlns='urn:xmpp:carbons:2'>\
         <forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></{direction}></message>"
    )
}

/// A message that another client of the account sent to Romeo.
fn sent(inside: &str) -> String {
    let inner = format!(
        "<message xmlns='jabber:client' from='{ACCOUNT}/desktop' to='romeo@montague.lit' type='chat' id='c1'>\
         {inside}</message>"
    );
    carbon(ACCOUNT, "sent", &inner)
}

fn received(inside: &str) -> String {
    let inner = from_romeo(inside).replacen("<message", "<message xmlns='jabber:client'", 1);
    carbon(ACCOUNT, "received", &inner)
}

/// A message that another client of the account sent to the account.
fn to_self(inside: &str) -> String {
    format!("<message from='{ACCOUNT}/desktop' to='{ACCOUNT}' type='chat' id='c2'>{inside}</message>")
}

const OMEMO_HEADER: &str = "<header sid='1461841909'><key rid='31415'>MwohBT</key><key prekey='true' rid='27183'>AAAA</key>\
    <iv>8zCNXFlGPMsFZYzo</iv></header>";

#[test]
fn what_somebody_wrote_is_a_message() {
    for text in [
        // Conversations
        "<body>Wherefore art thou?</body><markable xmlns='urn:xmpp:chat-markers:0'/>\
         <origin-id xmlns='urn:xmpp:sid:0' id='8f7d'/><request xmlns='urn:xmpp:receipts'/>\
         <stanza-id xmlns='urn:xmpp:sid:0' by='juliet@capulet.lit' id='2024-1'/>",
        // Gajim
        "<active xmlns='http://jabber.org/protocol/chatstates'/><origin-id xmlns='urn:xmpp:sid:0' id='8f7d'/>\
         <request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/><body>Hi</body>\
         <thread>0c1ec9a4</thread>",
        // Psi, with rich text
        "<body>Hi</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>\
         <p>Hi</p></body></html><nick xmlns='http://jabber.org/protocol/nick'>Romeo</nick>\
         <active xmlns='http://jabber.org/protocol/chatstates'/>",
        // Monal
        "<body>Hi</body><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>\
         <store xmlns='urn:xmpp:hints'/><origin-id xmlns='urn:xmpp:sid:0' id='8F7D'/>",
        // Siskin
        "<body>Hi</body><thread>t</thread><markable xmlns='urn:xmpp:chat-markers:0'/><origin-id id='8' xmlns='urn:xmpp:sid:0'/>",
        // In two languages, the first of them empty
        "<body xml:lang='en'/><body xml:lang='de'>Hallo</body>",
        // A reply with a quotation (XEP-0461)
        "<reply xmlns='urn:xmpp:reply:0' to='juliet@capulet.lit' id='1'/><body>&gt; Hi\nHi yourself</body>\
         <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='5'/></fallback>",
        // From the server's offline storage
        "<body>Hi</body><delay xmlns='urn:xmpp:delay' from='capulet.lit' stamp='2026-01-01T00:00:00Z'/>",
        "<body><![CDATA[x]]></body>",
    ] {
        check(&from_romeo(text), is(Message).chat("romeo@montague.lit"));
        check(&received(text), is(Message).chat("romeo@montague.lit"));
        check(&in_room("firstwitch", text), is(Message).chat("coven@chat.lit"));
    }
}

#[test]
fn messages_of_every_kind_but_error_and_headline_notify() {
    for kind in ["", "type='normal'", "type='chat'", "type='groupchat'", "type='spam'"] {
        check(
            &format!("<message {kind} from='friar@verona.lit/x'><body>hi</body></message>"),
            is(Message).chat("friar@verona.lit"),
        );
    }
    // slixmpp, without anything else; a server to its user, with and without its name
    check("<message to='juliet@capulet.lit' from='bot@capulet.lit/1' id='a'><body>x</body></message>", is(Message));
    check(
        "<message from='capulet.lit' to='juliet@capulet.lit'><body>Maintenance</body></message>",
        is(Message).chat("capulet.lit"),
    );
    check("<message><body>Maintenance</body></message>", is(Message));
    // A private message from an occupant (XEP-0045 §7.5)
    check(
        "<message from='coven@chat.lit/firstwitch' type='chat'><body>hi</body><x xmlns='http://jabber.org/protocol/muc#user'/>\
         <occupant-id xmlns='urn:xmpp:occupant-id:0' id='other'/></message>",
        is(Message).chat("coven@chat.lit"),
    );
    check("<message from='a@b@c' xmlns:c='jabber:client'><c:body>hi</c:body></message>", is(Message));
    check(
        "<message type='error' from='romeo@montague.lit'><body>hi</body><error type='cancel'/></message>",
        noise(Noise::Error),
    );
    check("<message type='headline' from='news@montague.lit'><body>hi</body></message>", noise(Noise::Headline));
}

#[test]
fn what_is_encrypted_is_a_message() {
    for ns in ["eu.siacs.conversations.axolotl", "urn:xmpp:omemo:0", "urn:xmpp:omemo:1", "urn:xmpp:omemo:2"] {
        let eme = format!(
            "<encryption xmlns='urn:xmpp:eme:0' name='OMEMO' namespace='{ns}'/><store xmlns='urn:xmpp:hints'/>"
        );
        let text = format!(
            "<encrypted xmlns='{ns}'>{OMEMO_HEADER}<payload>4Jy2</payload></encrypted>{eme}\
             <body>I sent you an OMEMO encrypted message but your client doesn't seem to support that.</body>"
        );
        check(&from_romeo(&text), is(Message));
        check(&in_room("firstwitch", &text), is(Message));
        let keys = format!("<encrypted xmlns='{ns}'>{OMEMO_HEADER}</encrypted>{eme}");
        check(&from_romeo(&keys), noise(Noise::KeyTransport));
        check(&from_romeo(&format!("<body>Install OMEMO</body>{eme}{keys}")), noise(Noise::KeyTransport));
    }
    for text in [
        // Gajim and Psi with OpenPGP
        "<body>[This message is *encrypted* (See :XEP:`27`)]</body><x xmlns='jabber:x:encrypted'>hQEMA</x>\
         <encryption xmlns='urn:xmpp:eme:0' namespace='jabber:x:encrypted'/>",
        "<openpgp xmlns='urn:xmpp:openpgp:0'>BASE64</openpgp><store xmlns='urn:xmpp:hints'/>",
        // OTR
        "<body>?OTR:AAMC</body><encryption xmlns='urn:xmpp:eme:0' namespace='urn:xmpp:otr:0'/>",
        "<encryption xmlns='urn:xmpp:eme:0' namespace='urn:xmpp:mls:0'/><welcome xmlns='urn:xmpp:mls:0'/>",
    ] {
        check(&from_romeo(text), is(Message));
    }
}

#[test]
fn a_body_that_stands_in_for_a_file_or_for_encryption_is_a_message() {
    for text in [
        // Conversations, Dino, Gajim: HTTP upload
        "<body>https://upload.montague.lit/1/a.jpg</body><x xmlns='jabber:x:oob'><url>https://upload.montague.lit/1/a.jpg</url></x>",
        // Dino: XEP-0447
        "<body>https://upload.montague.lit/1/a.jpg</body><file-sharing xmlns='urn:xmpp:sfs:0' disposition='inline' id='1'>\
         <file xmlns='urn:xmpp:file:metadata:0'><name>a.jpg</name></file></file-sharing>\
         <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:sfs:0'><body/></fallback>",
        // Kaidan: XEP-0385
        "<body>https://upload.montague.lit/1/a.jpg</body><reference xmlns='urn:xmpp:reference:0' type='data' begin='0' end='39'>\
         <media-sharing xmlns='urn:xmpp:sims:1'/></reference><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:sims:1'/>",
        "<body>This is encrypted</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:omemo:2'/>\
         <encrypted xmlns='urn:xmpp:omemo:2'><payload>x</payload></encrypted>",
        "<body>https://x</body><x xmlns='jabber:x:oob'><url>https://x</url></x><fallback xmlns='urn:xmpp:fallback:0'/>",
        "<body>Where shall we meet?</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:example:poll'/>",
        "<body>&gt; Hi</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'/><reply xmlns='urn:xmpp:reply:0' id='1'/>",
    ] {
        check(&from_romeo(text), is(Message));
    }
    for text in [
        "<body>Delivered</body><received xmlns='urn:xmpp:receipts' id='1'/>\
         <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:receipts'><subject/><body/></fallback>",
        "<body>Seen</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:chat-markers:0'/>",
    ] {
        check(&from_romeo(text), noise(Noise::Fallback));
    }
    let part = "<body>Seen, and agreed</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:chat-markers:0'>\
        <body start='0' end='4'/></fallback>";
    check(&from_romeo(part), is(Message));
}

#[test]
fn changes_to_earlier_messages_are_noise_with_and_without_a_body() {
    for (text, expect) in [
        ("<body>Hi!</body><replace xmlns='urn:xmpp:message-correct:0' id='1'/>", Noise::Correction),
        (
            "<replace xmlns='urn:xmpp:message-correct:0' id='1'/><encrypted xmlns='eu.siacs.conversations.axolotl'>\
             <payload>x</payload></encrypted>",
            Noise::Correction,
        ),
        (
            "<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>❤</reaction></reactions><store xmlns='urn:xmpp:hints'/>",
            Noise::Reaction,
        ),
        ("<reactions xmlns='urn:xmpp:reactions:0' id='1'/>", Noise::Reaction),
        (
            "<body>&gt; Hi\n❤</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reactions:0'><body/></fallback>\
             <reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>❤</reaction></reactions>",
            Noise::Reaction,
        ),
        (
            "<retract id='1' xmlns='urn:xmpp:message-retract:1'/><fallback xmlns='urn:xmpp:fallback:0' \
             for='urn:xmpp:message-retract:1'/><body>/me retracted a message</body><store xmlns='urn:xmpp:hints'/>",
            Noise::Retraction,
        ),
        (
            "<apply-to id='1' xmlns='urn:xmpp:fasten:0'><retract xmlns='urn:xmpp:message-retract:0'/></apply-to>\
             <fallback xmlns='urn:xmpp:fallback:0'/><body>This person attempted to retract a message</body>",
            Noise::Retraction,
        ),
        (
            "<apply-to xmlns='urn:xmpp:fasten:0' id='1'><moderated by='coven@chat.lit/firstwitch' xmlns='urn:xmpp:message-moderate:0'>\
             <retract xmlns='urn:xmpp:message-retract:0'/><reason>Spam</reason></moderated></apply-to>",
            Noise::Retraction,
        ),
        (
            "<retract id='1' xmlns='urn:xmpp:message-retract:1'><moderated by='coven@chat.lit/m' xmlns='urn:xmpp:message-moderate:1'/>\
             </retract><body>A moderator retracted a message</body>",
            Noise::Retraction,
        ),
    ] {
        check(&from_romeo(text), noise(expect));
        check(&in_room("firstwitch", text), noise(expect));
        check(&received(text), noise(expect));
    }
    let previews =
        "<body>https://x</body><apply-to xmlns='urn:xmpp:fasten:0' id='1'><external name='body'/></apply-to>";
    check(&from_romeo(previews), is(Message));
}

#[test]
fn what_clients_say_to_each_other_is_noise() {
    for (text, expect) in [
        (
            "<composing xmlns='http://jabber.org/protocol/chatstates'/><no-store xmlns='urn:xmpp:hints'/>",
            Noise::ChatState,
        ),
        ("<gone xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread>", Noise::ChatState),
        ("<received xmlns='urn:xmpp:receipts' id='1'/><store xmlns='urn:xmpp:hints'/>", Noise::Receipt),
        (
            "<received xmlns='urn:xmpp:receipts' id='1'/><received xmlns='urn:xmpp:chat-markers:0' id='1'/>",
            Noise::Receipt,
        ),
        ("<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/><store xmlns='urn:xmpp:hints'/>", Noise::Marker),
        ("<acknowledged xmlns='urn:xmpp:chat-markers:0' id='1'/>", Noise::Marker),
        ("<subject>Weather</subject>", Noise::Subject),
        ("<markable xmlns='urn:xmpp:chat-markers:0'/>", Noise::NoText),
        ("<body/>", Noise::NoText),
        ("<body> \n\t</body>", Noise::NoText),
        ("<body xmlns='urn:x'>hi</body>", Noise::NoText),
        ("<attention xmlns='urn:xmpp:attention:0'/>", Noise::NoText),
        ("", Noise::NoText),
    ] {
        check(&from_romeo(text), noise(expect).chat("romeo@montague.lit"));
        check(&received(text), noise(expect).chat("romeo@montague.lit"));
    }
}

#[test]
fn notices_of_services_are_noise() {
    let event = |from: &str, kind: &str, node: &str| {
        format!(
            "<message from='{from}' type='{kind}'><event xmlns='http://jabber.org/protocol/pubsub#event'>\
             <items node='{node}'><item id='romeo@montague.lit'><x xmlns='u'/></item></items></event></message>"
        )
    };
    check(&event(ACCOUNT, "headline", "eu.siacs.conversations.axolotl.devicelist"), noise(Noise::PubsubEvent));
    check(&event("romeo@montague.lit", "headline", "http://jabber.org/protocol/mood"), noise(Noise::PubsubEvent));
    check(&event("romeo@montague.lit", "headline", "urn:xmpp:mds:displayed:0"), noise(Noise::PubsubEvent));
    check(&event(&format!("{ACCOUNT}/evil"), "headline", "urn:xmpp:mds:displayed:0"), noise(Noise::PubsubEvent));
    // MUC/Sub of ejabberd
    check(&event("coven@chat.lit", "normal", "urn:xmpp:mucsub:nodes:messages"), noise(Noise::PubsubEvent));
    for status in ["<status code='104'/>", "<status code='172'/><status code='100'/>"] {
        let notice = format!(
            "<message type='groupchat' from='coven@chat.lit'><x xmlns='http://jabber.org/protocol/muc#user'>{status}</x></message>"
        );
        check(&notice, noise(Noise::RoomNotice).chat("coven@chat.lit"));
    }
    check(
        "<message from='coven@chat.lit'><x xmlns='http://jabber.org/protocol/muc#user'><decline from='hecate@shakespeare.lit'/></x></message>",
        noise(Noise::Decline),
    );
    check(
        "<message from='coven@chat.lit'><x xmlns='jabber:x:data' type='form'><title>Voice request</title></x></message>",
        noise(Noise::NoText),
    );
}

#[test]
fn archives_and_forwards_are_noise() {
    let forwarded = "<forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>\
        <message xmlns='jabber:client' from='romeo@montague.lit/x' type='chat'><body>hi</body></message></forwarded>";
    for version in 0..3 {
        let result = format!("<result xmlns='urn:xmpp:mam:{version}' queryid='q' id='1'>{forwarded}</result>");
        check(&format!("<message to='{ACCOUNT}/phone'>{result}</message>"), noise(Noise::Archive));
        check(&format!("<message from='{ACCOUNT}' to='{ACCOUNT}/phone'>{result}</message>"), noise(Noise::Archive));
        check(&format!("<message from='coven@chat.lit'>{result}</message>"), noise(Noise::Archive));
    }
    check(&from_romeo(forwarded), noise(Noise::Forward));
    check(&format!("<message from='{ACCOUNT}'>{forwarded}</message>"), noise(Noise::Forward));
    check(&from_romeo(&format!("<body>Look what he wrote</body>{forwarded}")), is(Message));
}

#[test]
fn carbons_count_only_from_the_own_account() {
    let inner = "<message xmlns='jabber:client' from='tybalt@capulet.lit/x' type='chat'><body>hi</body></message>";
    check(&carbon(ACCOUNT, "received", inner), is(Message).chat("tybalt@capulet.lit"));
    check(&carbon("Juliet@CAPULET.lit", "received", inner), is(Message).chat("tybalt@capulet.lit"));
    for direction in ["sent", "received"] {
        for stranger in ["mallory@evil.lit", "mallory@capulet.lit", "juliet@capulet.lit/other", "capulet.lit"] {
            check(&carbon(stranger, direction, inner), noise(Noise::Forward));
        }
        let with_text = carbon("mallory@evil.lit", direction, inner).replacen("><", "><body>Look</body><", 1);
        check(&with_text, is(Message).chat("mallory@evil.lit"));
        check(&carbon(ACCOUNT, direction, ""), noise(Noise::Forward));
        let bounced = carbon(ACCOUNT, direction, inner).replacen("type='chat'", "type='error'", 1);
        check(&bounced, noise(Noise::Error));
    }
    let nested = carbon(
        ACCOUNT,
        "received",
        &carbon("mallory@evil.lit", "received", inner).replacen("<message", "<message xmlns='jabber:client'", 1),
    );
    check(&nested, noise(Noise::Forward).chat("mallory@evil.lit"));
    let unnamed = carbon(ACCOUNT, "sent", inner).replacen(" from='juliet@capulet.lit'", "", 1);
    check(&unnamed, noise(Noise::SentCarbon).own());
}

#[test]
fn what_another_client_of_the_account_does_is_noise_and_shows_that_its_user_is_there() {
    for text in [
        "<body>It is the east</body><active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>",
        "<encrypted xmlns='eu.siacs.conversations.axolotl'><header/><payload>x</payload></encrypted>",
        "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
        "<active xmlns='http://jabber.org/protocol/chatstates'/>",
        "<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>❤</reaction></reactions>",
        "<propose xmlns='urn:xmpp:jingle-message:0' id='a73'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose>",
        "<propose xmlns='urn:xmpp:jingle-message:0' id='a73'><description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/></propose>",
        "<retract xmlns='urn:xmpp:jingle-message:0' id='a73'/>",
        "<invite xmlns='urn:xmpp:call-invites:0'><jingle sid='s'/></invite>",
        "<x xmlns='jabber:x:conference' jid='coven@chat.lit'/>",
    ] {
        check(&sent(text), noise(Noise::SentCarbon).own().chat("romeo@montague.lit"));
    }
    for text in [
        "<received xmlns='urn:xmpp:receipts' id='1'/>",
        "<received xmlns='urn:xmpp:chat-markers:0' id='1'/>",
        "<inactive xmlns='http://jabber.org/protocol/chatstates'/>",
        "<gone xmlns='http://jabber.org/protocol/chatstates'/>",
        "<encrypted xmlns='eu.siacs.conversations.axolotl'><header/></encrypted><body>Keys</body>",
        "<ringing xmlns='urn:xmpp:jingle-message:0' id='a73'/>",
    ] {
        check(&sent(text), noise(Noise::SentCarbon).chat("romeo@montague.lit"));
    }
}

#[test]
fn notes_to_self_are_noise() {
    check(&to_self("<body>Buy milk</body>"), noise(Noise::NoteToSelf).own().chat(ACCOUNT));
    check(&to_self("<body>Buy milk</body>").replace("/desktop", ""), noise(Noise::NoteToSelf).own());
    check(
        &to_self("<encrypted xmlns='urn:xmpp:omemo:2'><payload>x</payload></encrypted>"),
        noise(Noise::NoteToSelf).own(),
    );
    check(&to_self("<x xmlns='jabber:x:conference' jid='coven@chat.lit'/>"), noise(Noise::NoteToSelf).own());
    check(
        &to_self("<replace xmlns='urn:xmpp:message-correct:0' id='1'/><body>Buy beer</body>"),
        noise(Noise::Correction).own(),
    );
    check(&to_self("<received xmlns='urn:xmpp:receipts' id='1'/>"), noise(Noise::Receipt));
    let propose =
        "<propose xmlns='urn:xmpp:jingle-message:0' id='1'><description xmlns='urn:xmpp:jingle:apps:rtp:1'/></propose>";
    check(&to_self(propose), noise(Noise::NoteToSelf).own());
    let inner = to_self("<body>Buy milk</body>").replacen("<message", "<message xmlns='jabber:client'", 1);
    check(&carbon(ACCOUNT, "received", &inner), noise(Noise::NoteToSelf).own().chat(ACCOUNT));
    check(&carbon(ACCOUNT, "sent", &inner), noise(Noise::SentCarbon).own().chat(ACCOUNT));
}

#[test]
fn the_accounts_own_messages_in_a_room_are_noise() {
    let text = "<body>Double, double</body><origin-id xmlns='urn:xmpp:sid:0' id='1'/>\
        <stanza-id xmlns='urn:xmpp:sid:0' by='coven@chat.lit' id='9'/>";
    let occupant = |id: &str| format!("{text}<occupant-id xmlns='urn:xmpp:occupant-id:0' id='{id}'/>");
    let reflection = || noise(Noise::Reflection).own().chat("coven@chat.lit");
    check(&in_room("juliet", text), reflection());
    check(&in_room("juliet", &occupant("own-occupant")), reflection());
    check(&in_room("juliet-desktop", &occupant("own-occupant")), reflection());
    check(&in_room("juliet", "<composing xmlns='http://jabber.org/protocol/chatstates'/>"), reflection());
    check(&in_room("juliet", &occupant("other")), is(Message));
    check(&in_room("firstwitch", &occupant("other")), is(Message));
    check(&in_room("Juliet", text), is(Message));
    check(&in_room("juliet", text).replace("coven", "heath"), is(Message));
    check(
        "<message from='forest@chat.lit/nurse' type='groupchat'><body>hi</body></message>",
        noise(Noise::Reflection).own(),
    );
    check(&in_room("juliet", "<received xmlns='urn:xmpp:receipts' id='1'/>"), noise(Noise::Reflection));
    check(&in_room("juliet", "<subject>Toil</subject>"), noise(Noise::Reflection));
}

#[test]
fn room_history_and_subjects_are_noise() {
    let delay = |from: &str| {
        format!("<body>Fair is foul</body><delay xmlns='urn:xmpp:delay' {from} stamp='2026-01-01T00:00:00Z'/>")
    };
    check(&in_room("firstwitch", &delay("from='coven@chat.lit'")), noise(Noise::RoomHistory).chat("coven@chat.lit"));
    check(&in_room("juliet", &delay("from='coven@chat.lit'")), noise(Noise::RoomHistory));
    check(&in_room("firstwitch", &delay("from='coven@chat.lit/firstwitch'")), noise(Noise::RoomHistory));
    check(&in_room("firstwitch", &delay("from='capulet.lit'")), is(Message));
    check(&in_room("firstwitch", &delay("")), is(Message));
    check(&in_room("firstwitch", "<subject>Fire burn</subject>"), noise(Noise::Subject));
    check("<message type='groupchat' from='coven@chat.lit'><subject/></message>", noise(Noise::Subject));
    // XEP-0045 §7.2: a subject with a body is not a change of the subject.
    check(&in_room("firstwitch", "<subject>Fire burn</subject><body>and cauldron bubble</body>"), is(Message));
    check("<message type='groupchat' from='coven@chat.lit'><body>This room is logged</body></message>", is(Message));
}

const PROPOSE: &str = "<propose xmlns='urn:xmpp:jingle-message:0' id='ca3cf894'><description \
    xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='video'/></propose>\
    <request xmlns='urn:xmpp:receipts'/><store xmlns='urn:xmpp:hints'/>";

#[test]
fn a_call_rings() {
    check(&from_romeo(PROPOSE), is(Call).call("ca3cf894").chat("romeo@montague.lit"));
    check(&received(PROPOSE), is(Call).call("ca3cf894").chat("romeo@montague.lit"));
    check(&from_romeo(&PROPOSE.replace("message:0", "message:1")), is(Call).call("ca3cf894"));
    check(&from_romeo(&PROPOSE.replace(" id='ca3cf894'", "")), is(Call));
    check(&from_romeo(PROPOSE).replace("type='chat'", "type='error'"), noise(Noise::Error));
    let file = "<propose xmlns='urn:xmpp:jingle-message:0' id='1'><description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/></propose>";
    check(&from_romeo(file), is(Message));
    let invite = "<invite xmlns='urn:xmpp:call-invites:0' video='true'><jingle sid='s1'/></invite><store xmlns='urn:xmpp:hints'/>";
    check(&from_romeo(invite), is(Call).call("8f7d"));
    check(&from_romeo(&format!("{invite}<origin-id xmlns='urn:xmpp:sid:0' id='o'/>")), is(Call).call("o"));
    let ids = "<stanza-id xmlns='urn:xmpp:sid:0' by='evil.lit' id='0'/><stanza-id xmlns='urn:xmpp:sid:0' by='coven@chat.lit' id='9'/>";
    check(&in_room("firstwitch", &format!("{invite}{ids}")), is(Call).call("9").chat("coven@chat.lit"));
    check(&in_room("juliet", &format!("{invite}{ids}")), noise(Noise::Reflection).own());
    let history = "<delay xmlns='urn:xmpp:delay' from='coven@chat.lit' stamp='2026-01-01T00:00:00Z'/>";
    check(&in_room("firstwitch", &format!("{invite}{ids}{history}")), noise(Noise::RoomHistory));
}

fn jingle(from: &str, action: &str, description: &str) -> String {
    format!(
        "<iq from='{from}' to='{ACCOUNT}/phone' id='ih28' type='set'><jingle xmlns='urn:xmpp:jingle:1' action='{action}' \
         initiator='{from}' sid='ca3cf894'><content creator='initiator' name='0'><description xmlns='{description}' \
         media='audio'/><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1'/></content></jingle></iq>"
    )
}

#[test]
fn a_jingle_session_rings_if_it_is_a_call() {
    let romeo = "romeo@montague.lit/orchard";
    let rtp = "urn:xmpp:jingle:apps:rtp:1";
    check(&jingle(romeo, "session-initiate", rtp), is(Call).call("ca3cf894").chat("romeo@montague.lit"));
    check(&jingle(romeo, "session-terminate", rtp), is(CallEnd).call("ca3cf894").chat("romeo@montague.lit"));
    check(&jingle(romeo, "session-initiate", "urn:xmpp:jingle:apps:file-transfer:5"), noise(Noise::Iq));
    check(&jingle(romeo, "transport-info", rtp), noise(Noise::Iq));
    check(&jingle("juliet@capulet.lit/desktop", "session-initiate", rtp), noise(Noise::Iq));
    check(&jingle(romeo, "session-initiate", rtp).replace("type='set'", "type='result'"), noise(Noise::Iq));
}

#[test]
fn a_call_ends_when_the_caller_or_another_client_of_the_account_says_so() {
    let id = "id='ca3cf894'";
    let reason = "<reason xmlns='urn:xmpp:jingle:1'><cancel/><text>Retracted</text></reason>";
    for step in [
        format!("<retract xmlns='urn:xmpp:jingle-message:0' {id}>{reason}</retract><store xmlns='urn:xmpp:hints'/>"),
        format!("<finish xmlns='urn:xmpp:jingle-message:0' {id}>{reason}</finish>"),
        format!("<retract xmlns='urn:xmpp:call-invites:0' {id}/>"),
        format!("<retract xmlns='urn:xmpp:jingle-message:0' {id}/><body>Missed call</body>"),
    ] {
        check(&from_romeo(&step), is(CallEnd).call("ca3cf894").chat("romeo@montague.lit"));
    }
    for step in ["accept", "proceed", "reject"].map(|step| format!("<{step} xmlns='urn:xmpp:jingle-message:0' {id}/>"))
    {
        check(&sent(&step), is(CallEnd).call("ca3cf894").own().chat("romeo@montague.lit"));
        check(&to_self(&step), is(CallEnd).call("ca3cf894").own());
        check(&to_self(&step).replace("/desktop", ""), is(CallEnd).call("ca3cf894").own());
        check(&from_romeo(&step), noise(Noise::CallAnswer).chat("romeo@montague.lit"));
        check(&received(&step), noise(Noise::CallAnswer));
    }
    for step in ["accept", "reject", "left"].map(|step| format!("<{step} xmlns='urn:xmpp:call-invites:0' {id}/>")) {
        check(&sent(&step), is(CallEnd).call("ca3cf894").own());
        check(&in_room("juliet", &step), is(CallEnd).call("ca3cf894").own().chat("coven@chat.lit"));
        check(&from_romeo(&step), noise(Noise::CallAnswer));
        check(&in_room("firstwitch", &step), noise(Noise::CallAnswer));
    }
    check(&from_romeo(&format!("<ringing xmlns='urn:xmpp:jingle-message:0' {id}/>")), noise(Noise::Ringing));
    check(&to_self(&format!("<ringing xmlns='urn:xmpp:jingle-message:0' {id}/>")), noise(Noise::Ringing));
}

#[test]
fn invitations_to_rooms_notify() {
    let direct = "<x xmlns='jabber:x:conference' jid='darkcave@macbeth.lit' reason='Hey' password='x'/>";
    check(&from_romeo(direct), is(Invite).chat("romeo@montague.lit"));
    check(&received(direct), is(Invite).chat("romeo@montague.lit"));
    check(&from_romeo(&format!("<body>Come</body>{direct}")), is(Invite));
    check(&in_room("firstwitch", &format!("<body>Come</body>{direct}")), is(Message));
    // Prosody and ejabberd add the old form and a text.
    let mediated = |inviter: &str| {
        format!(
            "<message from='darkcave@macbeth.lit' to='{ACCOUNT}'><x xmlns='http://jabber.org/protocol/muc#user'>\
             <invite from='{inviter}'><reason>Hey</reason></invite></x><x xmlns='jabber:x:conference' \
             jid='darkcave@macbeth.lit'/><body>You are invited</body></message>"
        )
    };
    check(&mediated("crone1@shakespeare.lit/desktop"), is(Invite).chat("darkcave@macbeth.lit"));
    check(&mediated("juliet@capulet.lit/desktop"), noise(Noise::NoteToSelf));
    let inviter = |stanza: &str| reading(stanza, |r| r.inviter().map(|jid| jid.to_string()));
    assert_eq!(inviter(&mediated("crone1@shakespeare.lit/desktop")).as_deref(), Some("crone1@shakespeare.lit"));
    assert_eq!(inviter(&mediated("")).as_deref(), Some(""));
    assert_eq!(inviter(&from_romeo(direct)).as_deref(), Some("romeo@montague.lit"));
    assert_eq!(inviter(&from_romeo("<body>Come</body>")), None);
}

#[test]
fn the_only_presence_that_notifies_is_a_subscription_request() {
    check(
        "<presence from='romeo@montague.lit' type='subscribe' id='1'><status>Hi</status></presence>",
        is(Subscribe).chat("romeo@montague.lit"),
    );
    check("<presence from='juliet@capulet.lit' type='subscribe'/>", noise(Noise::Presence));
    check("<presence type='subscribe'/>", noise(Noise::Presence));
    for kind in ["", "type='subscribed'", "type='unsubscribe'", "type='unavailable'", "type='error'", "type='probe'"] {
        check(&format!("<presence from='romeo@montague.lit' {kind}/>"), noise(Noise::Presence));
    }
}

#[test]
fn the_only_iqs_that_notify_are_calls_and_unifiedpush() {
    let push =
        "<push xmlns='http://gultsch.de/xmpp/drafts/unified-push' application='YXBw' instance='aW5z'>SGVsbG8=</push>";
    check(
        &format!("<iq type='set' id='1' from='up.montague.lit' to='{ACCOUNT}/phone'>{push}</iq>"),
        is(Message).chat("up.montague.lit"),
    );
    check(&format!("<iq type='result' id='1' from='up.montague.lit'>{push}</iq>"), noise(Noise::Iq));
    check("<iq type='get' id='1' from='capulet.lit'><ping xmlns='urn:xmpp:ping'/></iq>", noise(Noise::Iq));
    check("<iq type='result' id='1'/>", noise(Noise::Iq));
    check("<iq type='set' id='push'><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>", noise(Noise::Iq));
    check("<a xmlns='urn:xmpp:sm:3' h='1'/>", noise(Noise::Nonza));
}

#[test]
fn a_chat_read_on_another_client_is_recognized() {
    let marker = "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/><store xmlns='urn:xmpp:hints'/>";
    check(&sent(marker), is(ReadSync).own().chat("romeo@montague.lit"));
    check(&in_room("juliet", marker), is(ReadSync).own().chat("coven@chat.lit"));
    check(&in_room("firstwitch", marker), noise(Noise::Marker));
    check(&from_romeo(marker), noise(Noise::Marker));
    let displayed =
        "<displayed xmlns='urn:xmpp:mds:displayed:0'><stanza-id xmlns='urn:xmpp:sid:0' by='x' id='0f71'/></displayed>";
    let mds = |items: &str| {
        format!(
            "<message from='{ACCOUNT}' to='{ACCOUNT}/phone' type='headline' id='pep'><event \
             xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:mds:displayed:0'>{items}</items></event></message>"
        )
    };
    let item = |id: &str| format!("<item id='{id}' publisher='{ACCOUNT}/desktop'>{displayed}</item>");
    check(&mds(&item("romeo@montague.lit")), is(ReadSync).own().chat("romeo@montague.lit"));
    check(&mds(&item("coven@chat.lit/firstwitch")), is(ReadSync).own().chat("coven@chat.lit"));
    check(
        &mds(&[item("tybalt@capulet.lit"), item("nurse@capulet.lit")].concat()),
        is(ReadSync).own().chat("nurse@capulet.lit"),
    );
    check(&mds(&item("@")), is(ReadSync).own());
    check(&mds("<retract id='romeo@montague.lit'/>"), noise(Noise::PubsubEvent));
}

#[test]
fn the_same_stanza_has_the_same_key_on_every_path() {
    let key = |stanza: &str| reading(stanza, |r| r.key(7));
    let archived = |id: &str| format!("<body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' by='{ACCOUNT}' id='{id}'/>");
    for text in [archived("1"), "<body>hi</body>".into(), PROPOSE.into()] {
        assert_eq!(key(&from_romeo(&text)), key(&received(&text)), "{text}");
        assert_ne!(key(&from_romeo(&text)), reading(&from_romeo(&text), |r| r.key(8)), "{text}");
    }
    assert_ne!(key(&from_romeo(&archived("1"))), key(&from_romeo(&archived("2"))));
    assert_eq!(key(&from_romeo(&archived("1"))), key(&from_romeo(&archived("1").replace("hi", "ho"))));
    let spelled = archived("1").replace(ACCOUNT, "Juliet@Capulet.LIT").replace("hi", "ho");
    assert_eq!(
        key(&from_romeo(&archived("1"))),
        key(&from_romeo(&spelled)),
        "its archive is the same in capital letters"
    );
    let foreign = |id: &str| format!("<body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' by='evil.lit' id='{id}'/>");
    assert_eq!(key(&from_romeo(&foreign("1"))), key(&from_romeo(&foreign("2"))));
    let by_room = |id: &str| {
        in_room("a", &format!("<body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' by='coven@chat.lit' id='{id}'/>"))
    };
    assert_ne!(key(&by_room("1")), key(&by_room("2")));
    assert_ne!(key(&from_romeo("<body>hi</body>")), key(&from_romeo("<body>ho</body>")));
    assert_ne!(key(&from_romeo("<body>hi</body>")), key(&from_romeo("<body>hi</body>").replace("8f7d", "8f7e")));
    assert_ne!(key(&from_romeo("<body>hi</body>")), key(&from_romeo("<body>hi</body>").replace("romeo", "paris")));
    let secret = |text: &str| {
        from_romeo(&format!("<body>Encrypted</body><x xmlns='jabber:x:encrypted'>{text}</x>")).replace(" id='8f7d'", "")
    };
    assert_ne!(key(&secret("a")), key(&secret("b")));
}

#[test]
fn a_call_is_one_call_however_it_is_signalled() {
    let key = |stanza: &str| reading(stanza, |r| r.key(7));
    let initiate = jingle("romeo@montague.lit/orchard", "session-initiate", "urn:xmpp:jingle:apps:rtp:1");
    assert_eq!(key(&from_romeo(PROPOSE)), key(&initiate));
    let retract = from_romeo("<retract xmlns='urn:xmpp:jingle-message:0' id='ca3cf894'/>");
    assert_ne!(key(&from_romeo(PROPOSE)), key(&retract));
}

#[test]
fn every_class_has_a_name() {
    let names =
        [Call, CallEnd, Message, Invite, Subscribe, ReadSync, Class::Noise(Noise::Iq)].map(|class| class.to_string());
    assert_eq!(names, ["call", "call_end", "message", "invite", "subscribe", "read_sync", "noise"]);
    assert!([Call, Message, Invite, Subscribe].into_iter().all(Class::is_important));
    assert!(![CallEnd, ReadSync, Class::Noise(Noise::Iq)].into_iter().any(Class::is_important));
}

/// Names, namespaces and attributes that the classifier looks for.
const NAMES: &[&str] = &[
    "message",
    "body",
    "received",
    "forwarded",
    "x",
    "encrypted",
    "apply-to",
    "retract",
    "jingle",
    "content",
    "description",
    "fallback",
    "event",
    "items",
    "item",
    "propose",
    "invite",
    "accept",
    "stanza-id",
    "delay",
    "displayed",
    "push",
];
const URIS: &[&str] = &[
    ns::CLIENT,
    ns::CARBONS,
    ns::FORWARD,
    ns::MUC_USER,
    ns::OMEMO2,
    ns::FASTEN,
    ns::JINGLE,
    ns::FALLBACK,
    ns::PUBSUB_EVENT,
    ns::JINGLE_MESSAGE0,
    ns::CALL_INVITES,
    ns::STANZA_ID,
    ns::DELAY,
    ns::CHAT_MARKERS,
    "urn:xmpp:mam:9",
    "",
];
const ATTRIBUTES: &[&str] = &[
    "",
    "from='juliet@capulet.lit'",
    "from='coven@chat.lit/juliet'",
    "id='1' by='x'",
    "type='set'",
    "type='groupchat'",
    "node='urn:xmpp:mds:displayed:0'",
    "from='@' to='//'",
    "action='session-initiate' sid=''",
    "for='urn:xmpp:receipts' start='x'",
];

/// Elements with any nesting.
fn tree() -> impl Strategy<Value = String> {
    let tag = (prop::sample::select(NAMES), prop::sample::select(URIS), prop::sample::select(ATTRIBUTES));
    let tag = tag.prop_map(|(name, uri, attribute)| (name.to_owned(), format!("xmlns='{uri}' {attribute}")));
    let leaf = (tag.clone(), "[a-z ]{0,3}").prop_map(|((name, rest), text)| format!("<{name} {rest}>{text}</{name}>"));
    leaf.prop_recursive(6, 48, 5, move |inner| {
        (tag.clone(), prop::collection::vec(inner, 0..5))
            .prop_map(|((name, rest), inner)| format!("<{name} {rest}>{}</{name}>", inner.concat()))
    })
}

proptest! {
    #[test]
    fn whatever_comes_has_a_meaning(
        stanza in prop::sample::select(&["message", "presence", "iq"][..]),
        kind in prop::sample::select(&["", "type='set'", "type='groupchat'", "type='headline'", "from='juliet@capulet.lit'"][..]),
        inside in prop::collection::vec(tree(), 0..4),
    ) {
        let stanza = format!("<{stanza} {kind}>{}</{stanza}>", inside.concat());
        let (class, call) = reading(&stanza, |r| {
            r.key(1);
            r.inviter();
            (r.class, r.call)
        });
        prop_assert!(call.is_none() || matches!(class, Call | CallEnd));
    }
}
