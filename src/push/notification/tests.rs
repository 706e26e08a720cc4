//! Tests of the content that app servers and devices read.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::{Value, json};

use super::*;
use crate::clock::UnixSecs;
use crate::jid::BareJid;
use crate::push::account::DeviceId;
use crate::push::classify::{self, Class, Context};
use crate::push::registration::Encrypt;
use crate::push::rooms::Rooms;
use crate::push::settings::PushSettings;
use crate::session::tests::element;
use crate::xml::{Element, Header};

const KEY: [u8; 16] = *b"sixteen bytes k.";
const RANDOM: u128 = u128::from_be_bytes(*b"....twelve bytes");
const IV: Iv = *b"twelve bytes";
const HI: &str = "<message from='romeo@example.net/x' type='chat'><body>Hi &lt;3</body></message>";
const OMEMO: &str = "<message from='romeo@example.net/x' type='chat'><body>I sent you an OMEMO message</body>\
    <encrypted xmlns='eu.siacs.conversations.axolotl'><payload>x</payload></encrypted></message>";
const ROOM: &str = "<message from='coven@rooms.org/Romeo' type='groupchat'><body>All</body></message>";
const CALL: &str = "<message from='romeo@example.net/x' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='c1'>\
    <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='video'/>\
    <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>\
    <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='smell'/></propose></message>";
const HUNG_UP: &str =
    "<message from='romeo@example.net/x' type='chat'><retract xmlns='urn:xmpp:jingle-message:0' id='c1'/></message>";

fn registration(extensions: Extensions) -> Registration {
    Registration {
        target: Target { service: "push.example".parse().unwrap(), node: Some("n".to_owned()) },
        options: None,
        extensions: extensions.into(),
        device: DeviceId(1),
        last_seen: UnixSecs::new(0),
        errors: 0,
        last_success: None,
        undelivered_since: None,
    }
}

fn counts(important: usize) -> WaitingCounts {
    WaitingCounts { important, subscriptions: 0 }
}

/// Builds the summary of a stanza, with a given class instead of the classifier's.
fn summary(settings: &PushSettings, counts: WaitingCounts, stanza: &str, class: Class) -> Summary {
    let element = element(stanza);
    let context = Context { account: &BareJid::new("juliet@example.org").unwrap(), rooms: &Rooms::default() };
    let mut reading = classify::read(&element, context);
    reading.class = class;
    Summary::new(settings, counts, Some(Detail::of(&reading)))
}

/// The children of `<notification/>`.
fn notification(extensions: &Extensions, summary: &Summary) -> String {
    let publish = Publish::new(&registration(extensions.clone()), summary.clone(), RANDOM);
    let iq = String::from_utf8(publish.iq("1", None).to_vec()).unwrap();
    let (_, behind) = iq.split_once("<notification xmlns='urn:xmpp:push:0'>").unwrap();
    behind.split_once("</notification>").unwrap().0.to_owned()
}

fn form(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>"));
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
         <value>urn:xmpp:push:summary</value></field>{}</x>",
        fields.collect::<String>()
    )
}

/// Returns the content of `<encrypted/>`, as decrypted by another implementation of AES-GCM, and its `type`.
fn decrypted(notification: &str) -> (Value, Option<String>) {
    let element = Element::parse(Bytes::from(notification.to_owned()), &Header::bare()).unwrap();
    let node = element.node();
    assert!(node.is("encrypted", "tigase:push:encrypt:0"), "{notification}");
    assert_eq!(STANDARD.decode(node.attr("iv").unwrap().as_bytes()).unwrap(), IV);
    let mut sealed = STANDARD.decode(node.text().as_bytes()).unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEY).unwrap());
    let json = key.open_in_place(Nonce::assume_unique_for_key(IV), Aad::empty(), &mut sealed).unwrap();
    (serde_json::from_slice(json).unwrap(), node.attr("type").map(|kind| kind.into_owned()))
}

fn encrypting(max_size: usize) -> Extensions {
    let encrypt = Some(Encrypt { key: Secret::new(KEY), max_size });
    Extensions { encrypt, ..Extensions::default() }
}

fn encrypting_calls() -> Extensions {
    Extensions { jingle: true, ..encrypting(3000) }
}

#[test]
fn every_known_app_server_accepts_the_publish() {
    let field = |var: &str, kind: Option<&str>, value: &str| Field {
        var: var.to_owned(),
        kind: kind.map(str::to_owned),
        values: vec![Secret::new(value.to_owned())],
    };
    let options = vec![field("FORM_TYPE", Some("hidden"), ns::PUBLISH_OPTIONS), field("secret", None, "s'3")];
    let extensions = Extensions { priority: true, ..Extensions::default() };
    let registration = Registration { options: Some(options), ..registration(extensions) };
    let summary = summary(&PushSettings::default(), counts(3), HI, Class::Message);
    let publish = Publish::new(&registration, summary, RANDOM);
    assert_eq!(
        publish.iq("sc-1", Some("example.org")),
        "<iq type='set' id='sc-1' to='push.example' from='example.org'>\
         <pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <publish node='n'><item>\
         <notification xmlns='urn:xmpp:push:0'>\
         <x xmlns='jabber:x:data' type='submit'>\
         <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>\
         <field var='message-count'><value>3</value></field>\
         <field var='last-message-body'><value>New Message!</value></field>\
         </x>\
         <priority xmlns='tigase:push:priority:0'>high</priority>\
         </notification>\
         </item></publish>\
         <publish-options><x xmlns='jabber:x:data' type='submit'>\
         <field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
         <field var='secret'><value>s&apos;3</value></field>\
         </x></publish-options>\
         </pubsub></iq>"
    );
    let bare = Registration { options: None, ..registration };
    let bare = Registration { target: Target { node: None, ..bare.target.clone() }, ..bare };
    let publish = Publish::new(&bare, Summary::wake(&PushSettings::default()), RANDOM);
    assert_eq!(
        publish.iq("sc-2", None),
        "<iq type='set' id='sc-2' to='push.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish><item>\
         <notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'>\
         <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>\
         <field var='message-count'><value>0</value></field></x>\
         <priority xmlns='tigase:push:priority:0'>low</priority></notification></item></publish></pubsub></iq>"
    );
}

#[test]
fn the_form_shows_as_much_as_the_operator_allows() {
    let silent = PushSettings { important_body: String::new(), ..PushSettings::default() };
    let open = PushSettings { with_body: true, with_sender: true, ..PushSettings::default() };
    let count = ("message-count", "1");
    let sender = ("last-message-sender", "romeo@example.net/x");
    let body = |body: &'static str| ("last-message-body", body);
    let two = WaitingCounts { important: 2, subscriptions: 1 };
    let subscribe = "<presence type='subscribe' from='romeo@example.net'/>";
    let plain = PushSettings::default();
    for (settings, counts, stanza, class, expect) in [
        (&plain, counts(1), HI, Class::Message, vec![count, body("New Message!")]),
        (&silent, counts(1), HI, Class::Message, vec![count]),
        (&open, counts(1), HI, Class::Message, vec![count, sender, body("Hi &lt;3")]),
        (&open, counts(1), OMEMO, Class::Message, vec![count, sender, body("New Message!")]),
        (&open, counts(1), CALL, Class::Call, vec![count, sender, body("New Message!")]),
        (&open, counts(1), HUNG_UP, Class::CallEnd, vec![count, sender]),
        (&open, counts(1), HI, Class::Noise(classify::Noise::NoText), vec![count]),
        (
            &plain,
            two,
            subscribe,
            Class::Subscribe,
            vec![("message-count", "2"), ("pending-subscription-count", "1"), body("New Message!")],
        ),
    ] {
        let summary = summary(settings, counts, stanza, class);
        assert_eq!(notification(&Extensions::default(), &summary), form(&expect), "{stanza}");
    }
    let waits = notification(&Extensions::default(), &Summary::wake_for_important(&open));
    assert_eq!(waits, form(&[count, body("New Message!")]));
    let nothing = notification(&Extensions::default(), &Summary::wake(&open));
    assert_eq!(nothing, form(&[("message-count", "0")]));
}

#[test]
fn an_encrypted_notification_is_for_the_device_alone() {
    let invite = "<message from='romeo@example.net/x'><x xmlns='jabber:x:conference' jid='coven@rooms.org'/></message>";
    let subscribe = "<presence type='subscribe' from='romeo@example.net'/>";
    let invited_call =
        "<message from='romeo@example.net/x'><invite xmlns='urn:xmpp:call-invites:0' id='c1'/></message>";
    let romeo = "romeo@example.net";
    let chat = |message: &str| json!({"unread": 2, "sender": romeo, "type": "chat", "message": message});
    let room =
        json!({"unread": 2, "sender": "coven@rooms.org", "type": "groupchat", "nickname": "Romeo", "message": "All"});
    for (stanza, class, expect) in [
        (HI, Class::Message, chat("Hi <3")),
        (OMEMO, Class::Message, chat("New encrypted message")),
        (ROOM, Class::Message, room),
        (invite, Class::Invite, chat("Invitation to a group chat")),
        (subscribe, Class::Subscribe, chat("Contact request")),
        (CALL, Class::Call, chat("Incoming call")),
        (invited_call, Class::Call, chat("Incoming call")),
    ] {
        let summary = summary(&PushSettings::default(), counts(2), stanza, class);
        assert_eq!(decrypted(&notification(&encrypting(3000), &summary)), (expect, None), "{stanza}");
    }
    // A wake push has no sender to name, so it shows only numbers, unencrypted.
    let wake = Summary::wake(&PushSettings { with_body: true, with_sender: true, ..PushSettings::default() });
    assert_eq!(notification(&encrypting_calls(), &wake), form(&[("message-count", "0")]));
}

#[test]
fn calls_ring_on_devices_that_asked_for_them() {
    let settings = PushSettings { jingle: true, ..PushSettings::default() };
    let initiate = "<iq type='set' from='romeo@example.net/x'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' \
        sid='c1'><content><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></content></jingle></iq>";
    let call = |media: &[&str]| json!({"unread": 1, "sender": "romeo@example.net/x", "type": "call", "sid": "c1", "media": media});
    let over = json!({"unread": 1, "sender": "romeo@example.net/x", "type": "call", "sid": "c1"});
    for (stanza, class, expect) in [
        (CALL, Class::Call, call(&["audio", "video"])),
        (initiate, Class::Call, call(&["audio"])),
        (HUNG_UP, Class::CallEnd, over),
    ] {
        let summary = summary(&settings, counts(1), stanza, class);
        let voip = Some("voip".to_owned());
        assert_eq!(decrypted(&notification(&encrypting_calls(), &summary)), (expect, voip), "{stanza}");
    }

    let extensions = Extensions { jingle: true, priority: true, ..Extensions::default() };
    let rings = notification(&extensions, &summary(&settings, counts(1), CALL, Class::Call));
    let high = "<priority xmlns='tigase:push:priority:0'>high</priority>";
    let text = form(&[("message-count", "1"), ("last-message-body", "New Message!")]);
    let jingle = "<jingle xmlns='tigase:push:jingle:0' action='propose' sid='c1'><media>audio</media><media>video</media></jingle>";
    assert_eq!(rings, format!("{text}{jingle}{high}"));
    let ends = notification(&extensions, &summary(&settings, counts(0), HUNG_UP, Class::CallEnd));
    let jingle = "<jingle xmlns='tigase:push:jingle:0' action='retract' sid='c1'/>";
    assert_eq!(ends, format!("{}{jingle}{high}", form(&[("message-count", "0")])));
    let message = notification(&extensions, &summary(&settings, counts(1), HI, Class::Message));
    assert_eq!(message, format!("{text}{high}"));
}

/// Devices that asked while `jingle` was on keep the request in their registrations.
#[test]
fn no_call_rings_after_the_operator_turned_it_off() {
    let settings = PushSettings::default();
    let extensions = Extensions { jingle: true, priority: true, ..Extensions::default() };
    for (stanza, class) in [(CALL, Class::Call), (HUNG_UP, Class::CallEnd)] {
        let summary = summary(&settings, counts(1), stanza, class);
        assert!(!notification(&extensions, &summary).contains("jingle"), "{stanza}");
        let (json, kind) = decrypted(&notification(&encrypting_calls(), &summary));
        assert_eq!((json.get("sid"), kind), (None, None), "{stanza}");
    }
}

#[test]
fn a_message_is_cut_to_the_size_that_the_device_accepts() {
    let settings = PushSettings::default();
    for text in ["x", "é", "🦀", "\"", "a\nb\\", "x\u{301}"] {
        let body = text.repeat(5_000 / text.len());
        let mut xml = XmlWriter::new();
        xml.start("message").attr("from", "romeo@example.net/x").start("body").text(&body);
        let stanza = String::from_utf8(xml.finish().to_vec()).unwrap();
        let summary = summary(&settings, counts(1), &stanza, Class::Message);
        for max_size in [0, 100, 200, 201, 202, 203, 1_000, 3_000, 5_120] {
            let notification = notification(&encrypting(max_size), &summary);
            let (json, _) = decrypted(&notification);
            let message = json.get("message").map(|message| message.as_str().unwrap());
            assert!(body.starts_with(message.unwrap_or_default()));
            let json = json.to_string().len();
            let room = max_size.saturating_sub(64) * 6 / 8;
            match message {
                None => assert!(max_size < 200, "{text} in {max_size}"),
                // The unused space is at most one escaped character, and at most 4 KiB of text are used.
                Some(message) => {
                    assert!(json <= room && (json + 4 > room || message.len() > 4_092), "{json} of {room}")
                }
            }
            let text = Element::parse(Bytes::from(notification), &Header::bare()).unwrap().node().text().len();
            assert!(message.is_none() || text <= max_size, "{text} of {max_size}");
        }
    }
}

/// Invariant 8.
#[test]
fn secrets_are_not_printed() {
    let settings = PushSettings { with_body: true, ..PushSettings::default() };
    let secret = "<message from='romeo@example.net/x' type='groupchat'><body>hunter2</body></message>";
    let summary = summary(&settings, counts(1), secret, Class::Message);
    let publish = Publish::new(&registration(encrypting_calls()), summary.clone(), RANDOM);
    let printed = format!("{summary:?}{publish:?}");
    assert!(printed.contains("redacted") && !printed.contains("hunter2"), "{printed}");
    assert_eq!(publish.summary.newest, None);
}

#[test]
fn a_registration_that_shows_only_counts_needs_no_details() {
    let context = Context { account: &BareJid::new("juliet@example.org").unwrap(), rooms: &Rooms::default() };
    let plain = PushSettings::default();
    let jingle = PushSettings { jingle: true, ..PushSettings::default() };
    let priority = Extensions { priority: true, ..Extensions::default() };
    let unheard = Extensions { jingle: true, ..Extensions::default() };
    for (settings, extensions) in
        [(&plain, Extensions::default()), (&plain, priority.clone()), (&jingle, priority), (&plain, unheard)]
    {
        assert!(!extensions.shows_details(settings));
        for stanza in [ROOM, CALL, HUNG_UP] {
            let element = element(stanza);
            let reading = classify::read(&element, context);
            let shown = |detail| notification(&extensions, &Summary::new(settings, counts(1), Some(detail)));
            assert_eq!(shown(Detail::brief(&reading)), shown(Detail::of(&reading)), "{stanza}");
        }
    }
}

#[test]
fn a_registration_that_shows_more_needs_details() {
    let quiet = PushSettings::default();
    let check = |settings: &PushSettings, extensions: Extensions| assert!(extensions.shows_details(settings));
    check(&PushSettings { with_sender: true, ..quiet.clone() }, Extensions::default());
    check(&PushSettings { with_body: true, ..quiet.clone() }, Extensions::default());
    check(&PushSettings { jingle: true, ..quiet.clone() }, Extensions { jingle: true, ..Extensions::default() });
    check(
        &quiet,
        Extensions { encrypt: Some(Encrypt { key: Secret::new(KEY), max_size: 3072 }), ..Extensions::default() },
    );
}

#[test]
fn the_log_shows_nothing_of_the_initialization_vector() {
    let summary = Summary::wake(&PushSettings::default());
    let id = |random| Publish::new(&registration(Extensions::default()), summary.clone(), random).id;
    assert_eq!(id(RANDOM).to_string(), "2e2e2e2e");
    assert_eq!(id(u128::from_be_bytes(*b"....another text")), id(RANDOM));
    assert_eq!(id(7 << 96).to_string(), "00000007");
}
