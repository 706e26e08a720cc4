//! Tests of requests as clients send them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::jid::BareJid;
use crate::push::settings::PushSettings;
use crate::session::tests::element;

const SISKIN: &str = "<enable xmlns='urn:xmpp:push:0' jid='push.tigase.im' node='n1' away='true'>\
    <ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/>\
    <groupchat xmlns='tigase:push:filter:groupchat:0'><room jid='coven@chat.example' allow='always'/>\
    <room jid='forres@chat.example' allow='mentioned' nick='Juliet'/></groupchat>\
    <muted xmlns='tigase:push:filter:muted:0'><item jid='romeo@example.com'/></muted>\
    <priority xmlns='tigase:push:priority:0'/>\
    <encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='3072'>AAECAwQFBgcICQoLDA0ODw==</encrypt>\
    <jingle xmlns='tigase:push:jingle:0'/></enable>";

fn bare(jid: &str) -> BareJid {
    BareJid::new(jid).unwrap()
}

fn all_allowed() -> PushSettings {
    PushSettings { extensions: true, jingle: true, ..PushSettings::default() }
}

fn all_but_jingle() -> PushSettings {
    PushSettings { jingle: false, ..all_allowed() }
}

fn no_extensions() -> PushSettings {
    PushSettings { extensions: false, ..all_but_jingle() }
}

fn parse(xml: &str, settings: &PushSettings) -> Result<Request, RequestError> {
    let own = FullJid::new("juliet@example.org/phone").unwrap();
    Request::parse(&element(xml).node(), &own, settings).expect("a request of push")
}

fn extensions(xml: &str, settings: &PushSettings) -> Extensions {
    match parse(xml, settings) {
        Ok(Request::Enable { extensions, .. }) => *extensions,
        other => panic!("{other:?} of {xml}"),
    }
}

fn enable(inner: &str) -> String {
    format!("<enable xmlns='urn:xmpp:push:0' jid='push.example'>{inner}</enable>")
}

fn siskin() -> Extensions {
    let rules = [
        (bare("coven@chat.example"), Allow::Always),
        (bare("forres@chat.example"), Allow::Mentioned { nick: Some("Juliet".to_owned()) }),
    ];
    Extensions {
        muted: BTreeSet::from([bare("romeo@example.com")]),
        ignore_unknown: true,
        groupchat: Some(BTreeMap::from(rules)),
        priority: true,
        encrypt: Some(Encrypt { key: Secret::new(std::array::from_fn(|n| u8::try_from(n).unwrap())), max_size: 3072 }),
        jingle: true,
        away: true,
    }
}

#[test]
fn the_requests_of_siskin_are_read_as_far_as_the_operator_allows() {
    assert_eq!(extensions(SISKIN, &all_allowed()), siskin());
    assert_eq!(extensions(SISKIN, &all_but_jingle()), Extensions { jingle: false, ..siskin() });
    assert_eq!(extensions(SISKIN, &no_extensions()), Extensions::default());
    // A request that is ignored cannot be invalid.
    let strange = enable("<encrypt xmlns='tigase:push:encrypt:0' alg='rot13'/>");
    assert_eq!(extensions(&strange, &no_extensions()), Extensions::default());
}

#[test]
fn the_form_is_kept_as_conversations_and_monal_send_it() {
    let form = |field: &str, value: &str| {
        enable(&format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
             <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
             <field var='{field}'><value>{value}</value></field></x>"
        ))
    };
    for (var, value) in [("secret", "s3"), ("pushModule", "monalProdiOS")] {
        let Ok(Request::Enable { target, options, extensions }) = parse(&form(var, value), &all_allowed()) else {
            panic!("no registration");
        };
        assert_eq!((target.service.as_str(), target.node), ("push.example", None));
        let options = options.unwrap();
        let read: Vec<_> =
            options.iter().map(|f| (f.var.as_str(), f.kind.as_deref(), f.values[0].expose().as_str())).collect();
        assert_eq!(read, [("FORM_TYPE", Some("hidden"), ns::PUBLISH_OPTIONS), (var, None, value)]);
        assert_eq!(*extensions, Extensions::default());
    }
}

#[test]
fn a_refused_request_names_the_reason() {
    let encrypt =
        |alg: &str, key: &str| enable(&format!("<encrypt xmlns='tigase:push:encrypt:0'{alg}>{key}</encrypt>"));
    let aes = " alg='aes-128-gcm'";
    let rooms = |n: usize| -> String { (0..n).map(|n| format!("<room jid='{n}@r' allow='always'/>")).collect() };
    let groupchat = |n| enable(&format!("<groupchat xmlns='tigase:push:filter:groupchat:0'>{}</groupchat>", rooms(n)));
    let long = format!("<item jid='{}'/>", "x".repeat(64 * 1024));
    for (xml, error, condition) in [
        ("<enable xmlns='urn:xmpp:push:0'/>".to_owned(), RequestError::Jid, "bad-request"),
        ("<enable xmlns='urn:xmpp:push:0' jid='@'/>".to_owned(), RequestError::Jid, "bad-request"),
        ("<enable xmlns='urn:xmpp:push:0' jid='Juliet@example.org'/>".to_owned(), RequestError::OwnJid, "bad-request"),
        (
            "<enable xmlns='urn:xmpp:push:0' jid='juliet@example.org/x'/>".to_owned(),
            RequestError::OwnJid,
            "bad-request",
        ),
        ("<disable xmlns='urn:xmpp:push:0'/>".to_owned(), RequestError::Jid, "bad-request"),
        (encrypt("", "AAECAwQFBgcICQoLDA0ODw=="), RequestError::Algorithm, "feature-not-implemented"),
        (encrypt(" alg='aes-256-gcm'", "AAECAwQFBgcICQoLDA0ODw=="), RequestError::Algorithm, "feature-not-implemented"),
        (encrypt(aes, ""), RequestError::Key, "bad-request"),
        (encrypt(aes, "AAECAwQFBgcICQoLDA0O"), RequestError::Key, "bad-request"),
        (encrypt(aes, "AAECAwQFBgcICQoLDA0ODxA="), RequestError::Key, "bad-request"),
        (encrypt(aes, "not base64!"), RequestError::Key, "bad-request"),
        (groupchat(1_001), RequestError::TooLarge, "bad-request"),
        (
            enable(&format!("<muted xmlns='tigase:push:filter:muted:0'>{long}</muted>")),
            RequestError::TooLarge,
            "bad-request",
        ),
        (
            enable(&format!("<x xmlns='jabber:x:data'><field var='{}'/></x>", "x".repeat(8192))),
            RequestError::TooLarge,
            "bad-request",
        ),
    ] {
        assert_eq!(parse(&xml, &all_allowed()), Err(error), "{xml}");
        assert_eq!(error.condition().name(), condition);
    }
    assert_eq!(extensions(&groupchat(1_000), &all_allowed()).groupchat.unwrap().len(), 1_000);
}

#[test]
fn invalid_entries_are_skipped() {
    let asked = extensions(
        &enable(
            "<muted xmlns='tigase:push:filter:muted:0'><item/><item jid='@'/><item jid='A@x.org/y'/><x jid='b@x.org'/></muted>\
             <groupchat xmlns='tigase:push:filter:groupchat:0'><room jid='@' allow='always'/><room jid='a@x.org'/>\
             <room jid='b@x.org' allow='sometimes'/><room jid='c@x.org' allow='never'/>\
             <room jid='d@x.org' allow='mentioned' nick=''/></groupchat><muted xmlns='urn:x'/>\
             <encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='much'> AAEC\tAwQFBgcI\r\nCQoL DA0ODw= =\n</encrypt>",
        ),
        &all_allowed(),
    );
    assert_eq!(asked.muted, BTreeSet::from([bare("a@x.org")]));
    let rules = [(bare("c@x.org"), Allow::Never), (bare("d@x.org"), Allow::Mentioned { nick: None })];
    assert_eq!(asked.groupchat, Some(BTreeMap::from(rules)));
    let encrypt = asked.encrypt.unwrap();
    assert_eq!(encrypt.max_size, 3000);
    assert_eq!(*encrypt.key.expose(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], "white space is legal");
    let empty = extensions(&enable("<groupchat xmlns='tigase:push:filter:groupchat:0'/>"), &all_allowed());
    assert_eq!(empty.groupchat, Some(BTreeMap::new()));
}

#[test]
fn registrations_are_kept_with_what_they_ask_for_and_old_ones_are_read() {
    let target = Target { service: "push.example".parse().unwrap(), node: None };
    let registration = Registration {
        target,
        options: None,
        extensions: siskin().into(),
        device: DeviceId(1),
        last_seen: UnixSecs::new(1),
        errors: 0,
        last_success: None,
        undelivered_since: None,
    };
    let json = serde_json::to_string(&registration).unwrap();
    assert_eq!(serde_json::from_str::<Registration>(&json).unwrap(), registration);
    let old = r#"{"target":{"service":"push.example","node":null},"options":null,"device":1,"last_seen":1,"errors":0}"#;
    let plain = Registration { extensions: Box::default(), ..registration };
    assert_eq!(serde_json::from_str::<Registration>(old).unwrap(), plain);
    assert_eq!(serde_json::to_string(&plain).unwrap(), old);
}

/// Invariant 8.
#[test]
fn neither_keys_nor_chats_are_printed() {
    let printed = format!("{:?}", siskin());
    assert_eq!(
        printed,
        "Extensions { muted: 1, ignore_unknown: true, groupchat: Some(2), priority: true, \
         encrypt: Some(Encrypt { key: [redacted], max_size: 3072 }), jingle: true, away: true }"
    );
}

#[test]
fn the_extensions_are_offered_all_or_none() {
    assert_eq!(features(&PushSettings { jingle: true, ..no_extensions() }), [ns::PUSH]);
    let without = features(&all_but_jingle());
    assert_eq!(
        without,
        [
            "urn:xmpp:push:0",
            "tigase:push:encrypt:0",
            "tigase:push:encrypt:aes-128-gcm",
            "tigase:push:filter:muted:0",
            "tigase:push:filter:ignore-unknown:0",
            "tigase:push:filter:groupchat:0",
            "tigase:push:priority:0"
        ]
    );
    assert_eq!(features(&all_allowed()), [without.as_slice(), &["tigase:push:jingle:0"]].concat());
}
