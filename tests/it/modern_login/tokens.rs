//! Attacks on logins by token. Each is refused, costs no connection to the server, and leaves the password.

use std::time::{Duration, Instant};

use super::fast::{Enrolled, enrolled};
use super::{FEATURES, PHONE, SASL, SASL2, TABLET, assert_refused};
use crate::admin::ask;
use crate::support::{
    Device, EXPR, FAST, HEADER, NONE, PATIENCE, Success, Token, asks, authenticate, bodies, fast, header_from, message,
    opened, resume, with_password,
};

const OTHER: &str = "11111111-2222-4333-8444-555555555555";
const MALLORY: &str = "66666666-7777-4888-8999-aaaaaaaaaaaa";

/// Checks that the phone's session and its token are as they were.
async fn assert_untouched(phone: &mut Enrolled) {
    phone.server.assert_open();
    phone.server.send(message("for alice only"));
    phone.accepts("").await;
    assert_eq!(bodies(&phone.client.messages(1).await), ["for alice only"]);
    phone.device.handled = phone.client.handled;
}

#[tokio::test]
async fn a_token_of_another_user_agent_is_refused() {
    let mut phone = Enrolled::new().await;
    let own = phone.device.clone();
    let (_tablet, _tablet_server, tablet) = enrolled(&mut phone.stub, &phone.pushward, ("alice", TABLET), NONE).await;
    phone.dark().await;
    // The text is stolen, the user agent is the thief's own.
    for stolen in [
        Device { agent: OTHER, ..own.clone() },
        Device { agent: TABLET, ..own.clone() },
        Device { id: tablet.id.clone(), ..own.clone() },
        Device { id: own.id.clone(), ..tablet.clone() },
        Device { agent: TABLET, id: tablet.id.clone(), ..own.clone() },
        Device { token: Token { mechanism: EXPR, ..own.token.clone() }, ..own.clone() },
    ] {
        phone.refuses(&stolen, FAST).await;
    }
    let (client, _) = opened(&phone.pushward, "alice").await;
    let nameless = own.authenticate(&client, FAST).replace(&format!(" id='{PHONE}'"), "");
    phone.refuses_login(client, &nameless, "not-authorized").await;
    assert_untouched(&mut phone).await;
    phone.assert_secrets_stay(&own);
}

#[tokio::test]
async fn a_token_opens_no_session_of_another_account() {
    let mut phone = Enrolled::new().await;
    let alice = phone.device.clone();
    // The same user agent id, so that only the account differs.
    let (_client, mut mallory_server, mallory) =
        enrolled(&mut phone.stub, &phone.pushward, ("mallory", PHONE), NONE).await;
    phone.dark().await;
    for attack in [
        Device { id: alice.id.clone(), ..mallory.clone() },
        Device { user: "alice", ..mallory.clone() },
        Device { user: "alice", id: alice.id.clone(), ..mallory.clone() },
        Device { user: "mallory", ..alice.clone() },
        Device { id: mallory.id.clone(), ..alice.clone() },
        Device { user: "nobody", ..alice.clone() },
    ] {
        let (mut client, _) = opened(&phone.pushward, attack.user).await;
        let login = attack.authenticate(&client, FAST);
        client.send(&login).await;
        assert_refused(&client.next().await, SASL2, Some("not-authorized"));
        phone.stub.assert_not_connected();
        client.send(with_password("mallory", "")).await;
        assert_eq!(Success::of(client.next().await).jid(), "mallory@localhost");
        drop(phone.stub.connection().await);
    }
    assert_eq!(mallory_server.rest(), [""; 0]);
    assert_untouched(&mut phone).await;
}

#[tokio::test]
async fn the_header_has_to_name_the_account_of_the_token() {
    let mut phone = Enrolled::new().await;
    phone.dark().await;
    let from = |from: &str| header_from("alice").replace("alice@localhost", from);
    for header in [
        HEADER.to_owned(),
        from("bob@localhost"),
        from("localhost"),
        from("alice@elsewhere.example"),
        from("alice@@localhost"),
        from("alice@localhost/phone"),
        from(""),
    ] {
        let mut client = phone.pushward.connect().await;
        client.send(&header).await;
        client.expect(FEATURES).await;
        let login = phone.device.authenticate(&client, FAST);
        phone.refuses_login(client, &login, "not-authorized").await;
    }
    assert_untouched(&mut phone).await;
}

#[tokio::test]
async fn a_forgotten_account_has_no_tokens() {
    for dark in [true, false] {
        let mut phone = Enrolled::new().await;
        if dark {
            phone.dark().await;
        }
        let device = phone.device.clone();
        assert_eq!(ask(&phone.pushward, &["forget", "alice@localhost"]).await.code, Some(0));
        phone.refuses(&device, FAST).await;
        if dark {
            phone.server.footer(PATIENCE).await;
        }
        // A new session of the same user agent does not bring it back.
        phone.log_in_again().await;
        let device = phone.device.clone();
        phone.refuses(&device, FAST).await;
    }
}

#[tokio::test]
async fn a_session_that_has_ended_is_opened_by_no_token() {
    let mut phone = Enrolled::new().await;
    phone.client.send("</stream:stream>").await;
    phone.client.closed(PATIENCE).await;
    phone.server.footer(PATIENCE).await;
    let device = phone.device.clone();
    phone.refuses(&device, FAST).await;
    phone.refuses(&Device { id: "not-an-id".into(), ..device.clone() }, FAST).await;
    // Without a request to resume there is nothing to open.
    let (client, _) = opened(&phone.pushward, "alice").await;
    let login = device.without_session(&client, FAST);
    phone.refuses_login(client, &login, "not-authorized").await;
    // The token is valid, and the account has no session that it could open.
    assert_eq!((phone.outcomes("no_session").await, phone.outcomes("accepted").await), (3, 0));
}

#[tokio::test]
async fn a_count_is_taken_once() {
    let mut phone = Enrolled::new().await;
    let device = phone.device.clone();
    let count = |count: u64| fast(&format!("count='{count}'"));
    let take = async |phone: &mut Enrolled, more: String| {
        let (mut client, _) = opened(&phone.pushward, "alice").await;
        client.send(phone.device.authenticate(&client, &more)).await;
        phone.device.accepted(&mut client).await;
        phone.client = client;
    };
    take(&mut phone, count(5)).await;
    for old in [5, 4, 0] {
        phone.refuses(&device, &count(old)).await;
    }
    for malformed in ["-1", "6 7", "x", "99999999999999999999999"] {
        phone.refuses(&device, &fast(&format!("count='{malformed}'"))).await;
    }
    // A refusal changes nothing. A count that was refused may be used later.
    phone.refuses(&Device { id: "not-an-id".into(), ..device.clone() }, &count(6)).await;
    take(&mut phone, count(6)).await;
    phone.refuses(&device, &count(6)).await;
    take(&mut phone, FAST.to_owned()).await;
    phone.refuses(&device, &count(6)).await;
    take(&mut phone, count(u64::MAX)).await;
    phone.refuses(&device, &count(u64::MAX)).await;
    assert_eq!(phone.outcomes("replayed").await, 6);
    phone.assert_secrets_stay(&device);
}

#[tokio::test]
async fn one_of_two_concurrent_logins_with_the_same_count_wins() {
    let mut phone = Enrolled::new().await;
    for round in 1..=10 {
        let more = fast(&format!("count='{round}'"));
        let (mut first, _) = opened(&phone.pushward, "alice").await;
        let (mut second, _) = opened(&phone.pushward, "alice").await;
        let login = phone.device.authenticate(&first, &more);
        tokio::join!(first.send(&login), second.send(&login));
        let mut answers = [(first.next().await, first), (second.next().await, second)];
        answers.sort_by_key(|(answer, _)| answer.starts_with("<success"));
        let [(failure, mut loser), (success, winner)] = answers;
        Success::of(success).resumed(&phone.device.id, &phone.device.jid);
        assert_refused(&failure, SASL2, Some("not-authorized"));
        phone.stub.assert_not_connected();
        loser.send(with_password("alice", "")).await;
        Success::of(loser.next().await);
        drop(phone.stub.connection().await);
        phone.client = winner;
        phone.client.ping("localhost").await;
    }
}

#[tokio::test]
async fn wrong_hashes_lock_the_address_out() {
    let mut phone = Enrolled::with(NONE, |setup| setup.set("limits.failed_logins_per_address", "2")).await;
    phone.dark().await;
    let wrong = Token { text: "guessed".into(), ..phone.device.token.clone() };
    let guess = Device { token: wrong, ..phone.device.clone() };
    phone.refuses(&guess, FAST).await;
    let (mut client, _) = opened(&phone.pushward, "alice").await;
    client.send(guess.authenticate(&client, FAST)).await;
    assert_refused(&client.next().await, SASL2, Some("not-authorized"));
    // Right or wrong, it may be tried again later.
    client.send(phone.device.authenticate(&client, FAST)).await;
    assert_refused(&client.next().await, SASL2, Some("temporary-auth-failure"));
    client.send(with_password("alice", "")).await;
    assert_refused(&client.next().await, SASL2, Some("temporary-auth-failure"));
    phone.stub.assert_not_connected();
    assert_eq!(phone.outcomes("wrong_hash").await, 2);
}

/// After a restart, many phones behind one address bring their tokens.
#[tokio::test]
async fn valid_tokens_for_sessions_that_are_gone_lock_nobody_out() {
    let mut phone = Enrolled::with(NONE, |setup| setup.set("limits.failed_logins_per_address", "1")).await;
    let mut devices = vec![phone.device.clone()];
    for (user, agent) in [("alice", TABLET), ("bob", OTHER), ("mallory", MALLORY)] {
        devices.push(enrolled(&mut phone.stub, &phone.pushward, (user, agent), NONE).await.2);
    }
    for device in &devices {
        phone.pushward.stored(device.agent).await;
    }
    phone.pushward.restart().await;
    for device in &devices {
        for _ in 0..3 {
            let (mut client, _) = opened(&phone.pushward, device.user).await;
            client.send(device.authenticate(&client, FAST)).await;
            assert_refused(&client.next().await, SASL2, Some("not-authorized"));
            client.send(with_password(device.user, "")).await;
            Success::of(client.next().await);
            drop(phone.stub.connection().await);
        }
    }
    // Tokens that nobody has are no guesses either: there is nothing to guess.
    phone.refuses(&Device { agent: "unknown", ..devices[0].clone() }, FAST).await;
    phone.log_in_again().await;
    phone.accepts("").await;
    assert_eq!(phone.pushward.reached("failed_logins_per_address").await, 0);
}

#[tokio::test]
async fn an_expired_token_is_refused_as_such() {
    let mut phone = Enrolled::with(NONE, |setup| setup.set("fast.ttl", "'1s'")).await;
    let until = Instant::now() + PATIENCE;
    let (client, failure) = loop {
        let (mut client, _) = opened(&phone.pushward, "alice").await;
        client.send(phone.device.authenticate(&client, FAST)).await;
        let answer = client.next().await;
        if answer.starts_with("<failure") {
            break (client, answer);
        }
        Success::of(answer).resumed(&phone.device.id, &phone.device.jid);
        assert!(Instant::now() < until, "the token does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_refused(&failure, SASL2, Some("credentials-expired"));
    let login = phone.device.authenticate(&client, FAST);
    phone.refuses_login(client, &login, "credentials-expired").await;
    assert_eq!(phone.outcomes("expired").await, 2);
    // A wrong hash does not learn that there was one.
    let (client, _) = opened(&phone.pushward, "alice").await;
    let wrong =
        Device { token: Token { text: "guessed".into(), ..phone.device.token.clone() }, ..phone.device.clone() };
    let login = wrong.authenticate(&client, FAST);
    phone.refuses_login(client, &login, "not-authorized").await;
    // The session itself is still there for a password.
    let (mut client, _) = opened(&phone.pushward, "alice").await;
    let request = format!("{}{}", asks(PHONE), resume(&phone.device.id, 0));
    client.send(with_password("alice", &request)).await;
    Success::of(client.next().await).resumed(&phone.device.id, &phone.device.jid);
}

#[tokio::test]
async fn a_client_ends_its_token_with_and_without_a_session() {
    let invalidate = fast("invalidate='true'");
    let wrong =
        |device: &Device| Device { token: Token { text: "guessed".into(), ..device.token.clone() }, ..device.clone() };
    // With the session, which the client gets.
    let mut phone = Enrolled::new().await;
    let device = phone.device.clone();
    phone.refuses(&wrong(&device), &invalidate).await;
    let (mut client, _) = opened(&phone.pushward, "alice").await;
    client.send(device.authenticate(&client, &invalidate)).await;
    device.accepted(&mut client).await;
    phone.refuses(&device, FAST).await;
    drop(client);

    // Without.
    let mut phone = Enrolled::new().await;
    let device = phone.device.clone();
    phone.pushward.stored(PHONE).await;
    phone.refuses(&wrong(&device), &invalidate).await;
    phone.refuses(&Device { id: "not-an-id".into(), ..device.clone() }, FAST).await;
    phone.accepts("").await;
    phone.refuses(&Device { id: "not-an-id".into(), ..device.clone() }, &invalidate).await;
    phone.refuses(&device, FAST).await;

    // After a restart, when nothing of the account is in memory.
    let mut phone = Enrolled::new().await;
    phone.pushward.stored(PHONE).await;
    phone.pushward.restart().await;
    let device = phone.device.clone();
    phone.refuses(&device, &invalidate).await;
    phone.log_in_again().await;
    let device = phone.device.clone();
    phone.refuses(&device, FAST).await;
}

#[tokio::test]
async fn what_is_no_message_of_the_mechanism_is_refused() {
    let mut phone = Enrolled::new().await;
    let inline = format!("{}{}{FAST}", asks(PHONE), resume(&phone.device.id, 0));
    let right = phone.device.token.initial("alice", &[]);
    for initial in ["", "=", "%%%", "YWxpY2U=", "YWxpY2UA", &right[..right.len() - 8], &format!("{right}AAAA")] {
        let (client, _) = opened(&phone.pushward, "alice").await;
        let login = authenticate(NONE, initial, &inline);
        phone.refuses_login(client, &login, "not-authorized").await;
    }
    let (client, _) = opened(&phone.pushward, "alice").await;
    let empty = format!("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{NONE}'>{inline}</authenticate>");
    phone.refuses_login(client, &empty, "not-authorized").await;
    // By RFC 6120's profile there are no tokens: the server is asked, and does not know the mechanism.
    phone.stub.change(|options| options.leaves = &["<auth "]);
    let (mut client, _) = opened(&phone.pushward, "alice").await;
    client.send(format!("<auth xmlns='{SASL}' mechanism='{NONE}'>{right}</auth>")).await;
    let mut server = phone.stub.connection().await;
    server.expect("<auth ").await;
    server.send(format!("<failure xmlns='{SASL}'><invalid-mechanism/></failure>"));
    assert!(client.next().await.contains("<invalid-mechanism"));
    assert_untouched(&mut phone).await;
}

#[tokio::test]
async fn a_count_that_is_too_high_ends_the_stream_and_neither_session_nor_token() {
    let mut phone = Enrolled::new().await;
    let (mut client, _) = opened(&phone.pushward, "alice").await;
    let too_high = Device { handled: 99, ..phone.device.clone() };
    client.send(too_high.authenticate(&client, FAST)).await;
    let seen = client.closed(PATIENCE).await;
    assert!(seen[0].contains("handled-count-too-high"), "{seen:?}");
    // Without the token, nothing is said about the count.
    let thief = Device { agent: OTHER, ..too_high };
    phone.refuses(&thief, FAST).await;
    assert_untouched(&mut phone).await;
}
