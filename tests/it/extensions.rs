//! Requests of iOS clients beyond XEP-0357, `tigase:push`, on a real server: encryption, filters, rooms, priority,
//! calls.

use serde_json::{Value, json};

use crate::support::{
    Client, Enabled, PATIENCE, Publish, QUIET, Setup, World, lost, push_enable, quick, request, resumed,
};

const PHONE: &str = "alice@localhost/phone";
const KEY: [u8; 16] = *b"sixteen byte key";
/// [`KEY`] in base64.
const KEY_TEXT: &str = "c2l4dGVlbiBieXRlIGtleQ==";
const ENCRYPT: &str =
    "<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='3072'>c2l4dGVlbiBieXRlIGtleQ==</encrypt>";
const PRIORITY: &str = "<priority xmlns='tigase:push:priority:0'/>";
const IGNORE_UNKNOWN: &str = "<ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/>";
const MUTED: &str = "<muted xmlns='tigase:push:filter:muted:0'><item jid='carol@localhost'/></muted>";
const ROOMS: &str = "<groupchat xmlns='tigase:push:filter:groupchat:0'>\
    <room jid='always@rooms.localhost' allow='always'/>\
    <room jid='mentioned@rooms.localhost' allow='mentioned' nick='Juliet'/></groupchat>";
const JINGLE: &str = "<jingle xmlns='tigase:push:jingle:0'/>";

/// Returns `<enable/>` as Siskin sends it, without publish-options.
fn siskin(extensions: &[&str]) -> String {
    let extensions = extensions.concat();
    format!("<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n' away='true'>{extensions}</enable>")
}

impl World {
    /// Opens alice's phone with these extensions and lets it go dark.
    async fn dark_phone(&self, extensions: &[&str]) -> Enabled {
        let (phone, enabled) = self.enabled("phone", &siskin(extensions)).await;
        lost(&self.pushward, phone, PHONE).await;
        enabled
    }

    async fn carol(&self) -> Client {
        self.straight("carol", "desk").await
    }
}

/// Makes alice and bob contacts who see each other's presence.
async fn befriend(alice: &mut Client, bob: &mut Client) {
    request(alice, "roster", "<query xmlns='jabber:iq:roster'><item jid='bob@localhost' name='Bob'/></query>").await;
    alice.send("<presence type='subscribe' to='bob@localhost'/>").await;
    alice.roundtrip().await;
    bob.send("<presence type='subscribed' to='alice@localhost'/>").await;
    bob.roundtrip().await;
    alice.expect("subscribed").await;
}

fn letter(publish: &Publish) -> Value {
    publish.decrypted(&KEY)
}

// Features

#[tokio::test]
async fn the_extensions_are_among_the_accounts_features_all_or_none_and_calls_only_where_configured() {
    let all = [
        "tigase:push:encrypt:0",
        "tigase:push:encrypt:aes-128-gcm",
        "tigase:push:filter:muted:0",
        "tigase:push:filter:ignore-unknown:0",
        "tigase:push:filter:groupchat:0",
        "tigase:push:priority:0",
    ];
    let calls = [&all[..], &["tigase:push:jingle:0"]].concat();
    let cases: [(&str, &str, &[&str]); 3] =
        [("true", "false", &all), ("true", "true", &calls), ("false", "false", &[])];
    for (extensions, jingle, expected) in cases {
        let world = World::with(|setup| setup.set("push.extensions", extensions).set("push.jingle", jingle)).await;
        let mut features = world.features().await;
        assert!(features.iter().any(|feature| feature == "urn:xmpp:push:0"), "{features:?}");
        features.retain(|feature| feature.starts_with("tigase:"));
        features.sort();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(features, expected, "extensions = {extensions}, jingle = {jingle}");
    }
}

#[tokio::test]
async fn an_unsupported_encryption_is_refused_and_not_ignored() {
    let world = World::with(quick).await;
    let (mut phone, _) = world.session("phone").await;
    for (encrypt, condition) in [
        (ENCRYPT.replace("aes-128-gcm", "rot13"), "feature-not-implemented"),
        (ENCRYPT.replace(KEY_TEXT, "dG9vIHNob3J0"), "bad-request"),
    ] {
        let answer = request(&mut phone, "push-enable", &siskin(&[&encrypt])).await;
        let error = answer.child("error").unwrap_or_else(|| panic!("accepted: {encrypt}"));
        assert_eq!(error.attribute("type"), Some("modify"), "{answer:?}");
        assert!(error.child(condition).is_some(), "{answer:?}");
    }
}

// Encryption

#[tokio::test]
async fn siskin_enables_all_extensions_at_once_and_only_the_phone_can_decrypt_the_text() {
    let mut world =
        World::with(|setup| quick(setup).set("push.with_body", "true").set("push.with_sender", "true")).await;
    let everything = siskin(&[IGNORE_UNKNOWN, ROOMS, MUTED, PRIORITY, ENCRYPT, JINGLE]);
    let (mut phone, _) = world.enabled("phone", &everything).await;
    befriend(&mut phone, &mut world.bob).await;
    lost(&world.pushward, phone, PHONE).await;
    let mut vectors = Vec::new();
    for (unread, text) in [(1, "Wherefore art thou"), (2, "Wherefore still")] {
        world.bob.say("alice@localhost", text).await;
        let publish = world.service.publish(PATIENCE).await;
        let expected = json!({"unread": unread, "sender": "bob@localhost", "type": "chat", "message": text});
        assert_eq!(letter(&publish), expected);
        assert_eq!(publish.priority.as_deref(), Some("high"));
        assert_eq!((publish.node.as_deref(), &publish.options), (Some("n"), &None));
        for plain in ["Wherefore", "bob@", "message-count", "New Message"] {
            assert!(!publish.xml.contains(plain), "{plain} in {}", publish.xml);
        }
        vectors.push(publish.encrypted.as_ref().unwrap().attribute("iv").unwrap().to_owned());
    }
    assert_ne!(vectors[0], vectors[1]);
    for secret in ["Wherefore", KEY_TEXT] {
        world.pushward.assert_log_never_contains(secret);
    }
}

#[tokio::test]
async fn the_key_survives_a_crash_of_the_proxy() {
    let mut world = World::with(quick).await;
    drop(world.enabled("phone", &siskin(&[ENCRYPT])).await);
    world.pushward.kill();
    world.pushward.start_again().await;
    let (phone, _) = world.session("phone").await;
    lost(&world.pushward, phone, PHONE).await;
    world.bob.say("alice@localhost", "hello").await;
    let publish = world.service.publish(PATIENCE).await;
    assert_eq!(letter(&publish)["message"], json!("hello"));
}

#[tokio::test]
async fn a_long_message_is_cut_to_the_size_that_the_phone_accepts() {
    let mut world = World::with(quick).await;
    world.dark_phone(&[&ENCRYPT.replace("3072", "400")]).await;
    let text = "Wherefore? ".repeat(100);
    world.bob.say("alice@localhost", &text).await;
    let publish = world.service.publish(PATIENCE).await;
    assert!(publish.encrypted.as_ref().unwrap().text.len() <= 400, "{}", publish.xml);
    let letter = letter(&publish);
    let message = letter["message"].as_str().unwrap();
    assert!(text.starts_with(message) && message.len() > 100, "{message}");
}

// Filters

#[tokio::test]
async fn a_muted_chat_does_not_push_and_does_not_count() {
    let mut world = World::with(quick).await;
    let mut carol = world.carol().await;
    world.dark_phone(&[MUTED]).await;
    carol.say("alice@localhost", "muted").await;
    world.service.assert_quiet(QUIET).await;
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(world.service.publish(PATIENCE).await.count(), Some(1));
}

#[tokio::test]
async fn an_unknown_sender_does_not_push_and_a_contact_does() {
    let mut world = World::with(quick).await;
    let mut carol = world.carol().await;
    let (mut phone, _) = world.enabled("phone", &siskin(&[IGNORE_UNKNOWN])).await;
    befriend(&mut phone, &mut world.bob).await;
    lost(&world.pushward, phone, PHONE).await;
    carol.say("alice@localhost", "buy this").await;
    world.service.assert_quiet(QUIET).await;
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(world.service.publish(PATIENCE).await.count(), Some(1));
}

/// The phone logs in without resumption and does not request the roster, because it has stored it.
#[tokio::test]
async fn an_old_contact_is_known_after_a_crash_of_the_proxy() {
    let mut world = World::with(quick).await;
    let mut carol = world.carol().await;
    let (mut phone, _) = world.enabled("phone", &siskin(&[IGNORE_UNKNOWN])).await;
    befriend(&mut phone, &mut world.bob).await;
    world.pushward.kill();
    world.pushward.start_again().await;
    let (phone, _) = world.session("phone").await;
    lost(&world.pushward, phone, PHONE).await;
    carol.say("alice@localhost", "buy this").await;
    world.service.assert_quiet(QUIET).await;
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(world.service.publish(PATIENCE).await.count(), Some(1));
}

// Rooms

/// Lets bob create the room and alice enter it.
async fn meet(bob: &mut Client, alice: &mut Client, room: &str) {
    enter(bob, room, "bob").await;
    // A new room is locked until it is configured. This form accepts the defaults (XEP-0045 §10.1.2).
    let defaults =
        "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>";
    bob.send(format!("<iq type='set' to='{room}@rooms.localhost' id='defaults'>{defaults}</iq>")).await;
    bob.expect("id='defaults'").await;
    enter(alice, room, "Juliet").await;
}

/// Enters a room, and reads up to its subject, which comes last (XEP-0045 §7.1).
async fn enter(client: &mut Client, room: &str, nick: &str) {
    let join = "<x xmlns='http://jabber.org/protocol/muc'/>";
    client.send(format!("<presence to='{room}@rooms.localhost/{nick}'>{join}</presence>")).await;
    client.expect("<subject").await;
}

async fn says_in(bob: &mut Client, room: &str, text: &str) {
    bob.send(format!(
        "<message type='groupchat' to='{room}@rooms.localhost' id='{text}'><body>{text}</body></message>"
    ))
    .await;
    bob.roundtrip().await;
}

#[tokio::test]
async fn only_listed_rooms_notify_of_all_messages_or_of_mentions() {
    let mut world = World::with(quick).await;
    let (mut phone, _) = world.enabled("phone", &siskin(&[ROOMS, ENCRYPT])).await;
    for room in ["always", "mentioned", "unlisted"] {
        meet(&mut world.bob, &mut phone, room).await;
    }
    lost(&world.pushward, phone, PHONE).await;
    says_in(&mut world.bob, "unlisted", "Juliet, where are you").await;
    says_in(&mut world.bob, "mentioned", "she is away").await;
    world.service.assert_quiet(QUIET).await;
    let expected = |unread: u32, room: &str, text: &str| {
        let sender = format!("{room}@rooms.localhost");
        json!({"unread": unread, "sender": sender, "type": "groupchat", "nickname": "bob", "message": text})
    };
    says_in(&mut world.bob, "always", "anybody here").await;
    assert_eq!(letter(&world.service.publish(PATIENCE).await), expected(1, "always", "anybody here"));
    says_in(&mut world.bob, "mentioned", "juliet: tonight?").await;
    assert_eq!(letter(&world.service.publish(PATIENCE).await), expected(2, "mentioned", "juliet: tonight?"));
}

/// A room ends the stay of a client whose session ends, so this shows that the session is the same one for the server.
#[tokio::test]
async fn a_room_still_notifies_after_the_process_was_replaced() {
    let mut world = World::with(quick).await;
    let (mut phone, enabled) = world.enabled("phone", &siskin(&[ROOMS, ENCRYPT])).await;
    meet(&mut world.bob, &mut phone, "always").await;
    lost(&world.pushward, phone, PHONE).await;
    for round in 1..=2 {
        world.pushward.replaced().await;
        let text = format!("round {round}");
        says_in(&mut world.bob, "always", &text).await;
        let expected = json!({
            "unread": round, "sender": "always@rooms.localhost", "type": "groupchat", "nickname": "bob", "message": text,
        });
        assert_eq!(letter(&world.service.publish(PATIENCE).await), expected);
    }
    assert!(!world.bob.transcript().contains("type='unavailable'"), "alice has left the room");
    let (mut phone, _) = resumed(&world.pushward, &enabled, 0).await;
    phone.expect("round 1").await;
    phone.expect("round 2").await;
    phone.send("<message type='groupchat' to='always@rooms.localhost' id='back'><body>back</body></message>").await;
    world.bob.expect("<body>back</body>").await;
}

// Priority

#[tokio::test]
async fn the_priority_is_sent_only_to_devices_that_asked_for_it() {
    let mut world = World::with(|setup| quick(setup).set("push.unimportant", "true")).await;
    let (mut phone, _) = world.enabled("phone", &siskin(&[PRIORITY])).await;
    let answer = request(&mut phone, "other", &push_enable("plain")).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    lost(&world.pushward, phone, PHONE).await;
    let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
    for (inside, urgency) in [(composing, "low"), ("<body>hello</body>", "high")] {
        world.bob.send(format!("<message type='chat' to='alice@localhost' id='{urgency}'>{inside}</message>")).await;
        for _ in 0..2 {
            let publish = world.service.publish(PATIENCE).await;
            let expected = (publish.node.as_deref() == Some("n")).then_some(urgency);
            assert_eq!(publish.priority.as_deref(), expected, "{}", publish.xml);
        }
    }
}

// Calls

fn calls(setup: Setup) -> Setup {
    quick(setup).set("push.jingle", "true")
}

fn propose(sid: &str) -> String {
    format!(
        "<message type='chat' to='alice@localhost' id='{sid}-propose'>\
         <propose xmlns='urn:xmpp:jingle-message:0' id='{sid}'>\
         <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>\
         <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='video'/></propose></message>"
    )
}

fn retract(sid: &str) -> String {
    format!(
        "<message type='chat' to='alice@localhost' id='{sid}-retract'>\
         <retract xmlns='urn:xmpp:jingle-message:0' id='{sid}'/></message>"
    )
}

/// Checks a push about a call. With `media` it rings; without, the call is over.
fn assert_call(publish: &Publish, sid: &str, media: &[&str]) {
    assert_eq!(publish.node.as_deref(), Some("n"), "{}", publish.xml);
    assert_eq!(publish.encrypted.as_ref().unwrap().attribute("type"), Some("voip"), "{}", publish.xml);
    let letter = letter(publish);
    assert_eq!((&letter["type"], &letter["sid"]), (&json!("call"), &json!(sid)), "{letter}");
    assert_eq!(letter["sender"], json!("bob@localhost/desk"), "{letter}");
    let kinds = letter.get("media").cloned().unwrap_or(json!([]));
    assert_eq!(kinds, json!(media), "{letter}");
}

#[tokio::test]
async fn a_connected_phone_that_gets_calls_only_by_push_gets_one_push_to_ring_and_one_to_stop() {
    let mut world = World::with(calls).await;
    let (mut phone, _) = world.enabled("phone", &siskin(&[ENCRYPT, JINGLE])).await;
    // A tablet that did not request calls by push receives them on its stream.
    let (mut tablet, _) = world.phone("tablet", "tablet").await;
    world.bob.send(propose("sid").repeat(2)).await;
    assert_call(&world.service.publish(PATIENCE).await, "sid", &["audio", "video"]);
    phone.expect("<propose").await;
    let ((), ..) = tokio::join!(world.service.assert_quiet(QUIET), phone.live_for(QUIET), tablet.live_for(QUIET));
    world.bob.send(retract("sid").repeat(2)).await;
    assert_call(&world.service.publish(PATIENCE).await, "sid", &[]);
    phone.expect("<retract").await;
    let ((), ..) = tokio::join!(world.service.assert_quiet(QUIET), phone.live_for(QUIET), tablet.live_for(QUIET));
}

#[tokio::test]
async fn a_dark_phone_gets_a_push_to_ring_and_one_to_stop() {
    let mut world = World::with(calls).await;
    world.dark_phone(&[ENCRYPT, JINGLE]).await;
    world.bob.send(propose("sid")).await;
    assert_call(&world.service.publish(PATIENCE).await, "sid", &["audio", "video"]);
    world.bob.send(retract("sid")).await;
    assert_call(&world.service.publish(PATIENCE).await, "sid", &[]);
}

#[tokio::test]
async fn where_calls_by_push_are_not_offered_a_live_phone_gets_them_only_on_its_stream() {
    let mut world = World::with(quick).await;
    let (mut phone, _) = world.enabled("phone", &siskin(&[ENCRYPT, JINGLE])).await;
    world.bob.send(propose("sid")).await;
    phone.expect("<propose").await;
    let ((), _) = tokio::join!(world.service.assert_quiet(QUIET), phone.live_for(QUIET));
}
