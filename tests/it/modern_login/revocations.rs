//! The end of an account's tokens: the server's own signs that its password or its trust has changed, and nothing else.

use super::fast::{Enrolled, enrolled};
use super::scripted::{asked, bound, error, result};
use super::{FEATURES, Legacy, PHONE, SASL2, Stage, TABLET, assert_refused, device};
use crate::support::{
    CARBONS, Client, Device, Element, FAST, NONE, PASSWORD, PATIENCE, Prosody, Setup, StubConnection, Success, Token,
    asks, opened, plain, request, wish, with_password,
};

const REGISTER: &str = "jabber:iq:register";

fn stream_error(condition: &str) -> String {
    format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
}

fn failure(condition: &str) -> String {
    format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/></failure>")
}

/// Checks whether the phone's token still opens its session.
async fn assert_token_works(phone: &mut Enrolled, works: bool) {
    if works {
        phone.accepts("").await;
    } else {
        let device = phone.device.clone();
        phone.refuses(&device, FAST).await;
    }
}

/// Gives the phone a session and a token.
async fn enrol_again(phone: &mut Enrolled) {
    (phone.client, phone.server, phone.device) =
        enrolled(&mut phone.stub, &phone.pushward, ("alice", PHONE), NONE).await;
}

#[tokio::test]
async fn a_server_that_ends_a_stream_for_want_of_trust_ends_the_tokens_and_no_other_end_does() {
    for (condition, survives) in [
        ("not-authorized", false),
        ("policy-violation", false),
        ("reset", false),
        ("conflict", true),
        ("system-shutdown", true),
        ("connection-timeout", true),
        ("internal-server-error", true),
        ("", true),
    ] {
        for dark in [false, true] {
            let mut phone = Enrolled::new().await;
            if dark {
                phone.dark().await;
            }
            if condition.is_empty() {
                phone.server.close();
            } else {
                phone.server.send(stream_error(condition));
            }
            phone.server.closed(PATIENCE).await;
            // A new session of the user agent, for which it needs its password.
            phone.log_in_again().await;
            assert_token_works(&mut phone, survives).await;
        }
    }
}

#[tokio::test]
async fn the_tokens_of_all_user_agents_of_the_account_end_and_of_no_other_account() {
    let mut phone = Enrolled::new().await;
    let (_tablet, tablet_server, _) = enrolled(&mut phone.stub, &phone.pushward, ("alice", TABLET), NONE).await;
    let (_bob, _bob_server, bob) = enrolled(&mut phone.stub, &phone.pushward, ("bob", TABLET), NONE).await;
    tablet_server.send(stream_error("reset"));
    tablet_server.closed(PATIENCE).await;
    phone.pushward.logged(&["FAST tokens revoked", "alice@localhost"]).await;
    // The session of the phone is still there. Its token is not.
    assert_token_works(&mut phone, false).await;
    bob.returns(&phone.pushward, "").await;
    enrol_again(&mut phone).await;
    assert_token_works(&mut phone, true).await;
    // It is the same after a restart.
    phone.server.send(stream_error("reset"));
    phone.server.closed(PATIENCE).await;
    phone.pushward.restart().await;
    phone.log_in_again().await;
    assert_token_works(&mut phone, false).await;
}

#[tokio::test]
async fn a_password_that_the_server_has_changed_ends_the_tokens() {
    let mut phone = Enrolled::new().await;
    let set = |id: &str, content: &str| {
        format!("<iq type='set' id='{id}' to='localhost'><query xmlns='{REGISTER}'>{content}</query></iq>")
    };
    let password = "<username>alice</username><password>new</password>";
    for (content, answer, survives) in [
        (password, error("change"), true),
        (password, result("other", "").replace("<iq ", "<iq from='localhost' "), true),
        // Anyone can send this.
        (password, result("change", "").replace("<iq ", "<iq from='mallory@localhost/x' "), true),
        (password, result("change", ""), false),
        (password, result("change", "").replace("<iq ", "<iq from='localhost' "), false),
        ("<remove/>", result("change", "").replace("<iq ", "<iq from='localhost' "), false),
    ] {
        enrol_again(&mut phone).await;
        phone.client.send(set("change", content)).await;
        phone.server.expect(REGISTER).await;
        phone.server.send(&*answer);
        phone.client.expect("<iq").await;
        // The account is known again with its next login.
        if content == "<remove/>" {
            phone.log_in_again().await;
        }
        assert_token_works(&mut phone, survives).await;
    }
    // A question changes nothing.
    enrol_again(&mut phone).await;
    phone.client.send(set("change", "").replace("'set'", "'get'")).await;
    phone.server.expect(REGISTER).await;
    phone.server.send(result("change", ""));
    phone.client.expect("<iq").await;
    assert_token_works(&mut phone, true).await;
    phone.pushward.assert_log_never_contains("<password>");
}

#[tokio::test]
async fn prosody_a_password_that_the_server_has_changed_ends_the_tokens() {
    let stage = Stage::with(Legacy::Prosody(Prosody::open().await), Setup::with_metrics).await;
    let inline = format!("{}{}", device(PHONE), wish(NONE));
    let (mut alice, success) = stage.logged_in("PLAIN", &inline).await;
    alice.expect(FEATURES).await;
    let phone = Device::of(&success, "alice", PHONE, NONE);
    (alice, _) = phone.returns(&stage.pushward, "").await;
    let payload = format!("<query xmlns='{REGISTER}'><username>alice</username><password>second</password></query>");
    assert_eq!(request(&mut alice, "change", &payload).await.attribute("type"), Some("result"));
    let (mut client, _) = opened(&stage.pushward, "alice").await;
    client.send(phone.authenticate(&client, FAST)).await;
    assert_refused(&client.next().await, SASL2, Some("not-authorized"));
    client.send(with_password("alice", "")).await;
    assert_refused(&client.next().await, SASL2, Some("not-authorized"));
    assert_ne!(PASSWORD, "second");
    alice.roundtrip().await;
}

#[tokio::test]
async fn a_server_that_lets_the_account_in_no_more_ends_the_tokens() {
    for (user, condition, survives) in [
        ("alice", "account-disabled", false),
        ("alice", "credentials-expired", false),
        // Strangers can cause these.
        ("alice", "not-authorized", true),
        ("alice", "temporary-auth-failure", true),
        ("alice", "mechanism-too-weak", true),
        ("bob", "account-disabled", true),
    ] {
        for sasl2 in [true, false] {
            let mut phone = Enrolled::new().await;
            phone.stub.change(|options| options.leaves = &["<auth "]);
            let (mut other, _) = opened(&phone.pushward, user).await;
            other.send(if sasl2 { with_password(user, "") } else { plain(user, PASSWORD) }).await;
            let mut server = phone.stub.connection().await;
            server.expect("<auth ").await;
            server.send(failure(condition));
            let refused = other.next().await;
            assert!(refused.starts_with("<failure") && refused.contains(condition), "{refused}");
            phone.stub.change(|options| options.leaves = &[]);
            assert_token_works(&mut phone, survives).await;
        }
    }
}

/// A login of the phone whose answer the server keeps back.
async fn waiting_login(phone: &mut Enrolled, leaves: &'static [&'static str]) -> (Client, StubConnection) {
    phone.stub.change(|options| options.leaves = leaves);
    let (mut client, _) = opened(&phone.pushward, "alice").await;
    client.send(with_password("alice", &format!("{}{}", asks(TABLET), wish(NONE)))).await;
    let server = phone.stub.connection().await;
    phone.stub.change(|options| options.leaves = &[]);
    (client, server)
}

#[tokio::test]
async fn a_login_that_began_before_a_revocation_gives_no_valid_token() {
    for before_success in [true, false] {
        let mut phone = Enrolled::new().await;
        let leaves: &[&str] = if before_success { &["<auth ", "<iq"] } else { &["<iq"] };
        let (mut client, mut server) = waiting_login(&mut phone, leaves).await;
        let first = if before_success { "<auth " } else { "xmpp-bind" };
        let awaited = server.expect(first).await;
        phone.server.send(stream_error("not-authorized"));
        phone.pushward.logged(&["FAST tokens revoked"]).await;
        let bind = if before_success {
            server.let_in("alice", "");
            server.expect("xmpp-bind").await
        } else {
            awaited
        };
        let bind = Element::parse(&bind);
        let jid = format!("alice@localhost/{}", bind.all("resource")[0].text);
        server.send(bound(bind.attribute("id").unwrap(), &jid));
        for needle in [CARBONS, "metadata"] {
            // The archive was asked for already, and has answered.
            let id = asked(&mut server, needle).await;
            server.send(result(&id, ""));
        }
        let success = Success::of(client.next().await);
        let token = Token::of(&success, NONE);
        if before_success {
            assert!(token.is_none(), "{}", success.xml);
        }
        // The session is good. A token for it is not.
        client.expect(FEATURES).await;
        client.send("<presence/>").await;
        server.expect("<presence").await;
        if let Some(token) = token {
            let late = Device { user: "alice", agent: TABLET, id: success.id(), jid, handled: 0, token };
            phone.refuses(&late, FAST).await;
        }
    }
}
