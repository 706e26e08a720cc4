//! The main scenario with real clients: they log in, exchange messages, enable push, lose the network, are notified,
//! return, and miss nothing.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Client, Element, Library, PASSWORD, PATIENCE, Peer, Process, Prosody, PushService, Pushward, Security, Setup, Wire,
    eventually, numbered,
};

/// Returns bob's next chat message.
async fn received(bob: &mut Client) -> String {
    Element::parse(&bob.expect("<body>").await).child("body").unwrap().text.clone()
}

async fn loses_its_network_is_pushed_for_once_and_gets_every_message_once(
    prosody: Prosody,
    library: Library,
    security: Security,
) {
    let mut service = PushService::connect(&prosody).await;
    let pushward = Pushward::start(Setup::new(prosody.address).with_metrics()).await;
    let wire = Wire::to(if security == Security::DirectTls { pushward.direct } else { pushward.starttls }).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.available().await;

    let mut alice = Peer::trusting(&pushward, library, "alice@localhost/phone", (security, wire.address));
    alice.order(&json!({"do": "connect"}));
    let online = alice.event("online").await;
    // Bind 2 derives the resource from the client's tag.
    let jid = online["jid"].as_str().filter(|jid| jid.starts_with("alice@localhost/phone")).unwrap();
    let enable = "<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'/>";
    assert_eq!(alice.request(("push", "set", None), enable).await["type"], "result");
    alice.send("<message xmlns='jabber:client' type='chat' to='bob@localhost' id='m'><body>to bob</body></message>");
    assert_eq!(received(&mut bob).await, "to bob");
    bob.say("alice@localhost", "to alice").await;
    assert_eq!(alice.event("message").await["body"], "to alice");

    // A server that has SASL2 gives tokens of its own.
    let by_token = library == Library::XmppJs && !prosody.has_sasl2();
    let connects = "pushward_upstream_connects_total{host=\"localhost\",outcome=\"connected\"}";
    let before = pushward.metric(connects).await;
    wire.cut();
    pushward.logged(&["dark", jid]).await;
    for body in numbered("dark", 1..=3) {
        bob.say("alice@localhost", &body).await;
    }
    let publish = service.publish(PATIENCE).await;
    assert_eq!(publish.node.as_deref(), Some("n"));

    wire.mend();
    if !library.reconnects() {
        alice.event("disconnected").await;
        alice.order(&json!({"do": "connect"}));
    }
    alice.event("resumed").await;
    // A duplicate would have come before the last message.
    bob.say("alice@localhost", "live").await;
    assert_eq!(alice.bodies_until("live").await, ["to alice", "dark 1", "dark 2", "dark 3", "live"]);
    service.assert_quiet(Duration::from_millis(300)).await;
    let returned = pushward.metric("pushward_fast_logins_total{outcome=\"accepted\"}").await;
    assert_eq!(returned, u64::from(by_token));
    if by_token {
        assert_eq!(pushward.metric(connects).await, before, "a token needs no server");
    }
}

macro_rules! stories {
    ($($library:ident: $name:ident;)*) => {$(
        mod $name {
            use super::{Library, Prosody, Security};

            #[tokio::test]
            async fn over_starttls_it_loses_its_network_is_pushed_for_once_and_gets_every_message_once() {
                super::loses_its_network_is_pushed_for_once_and_gets_every_message_once(
                    Prosody::start().await, Library::$library, Security::StartTls,
                ).await;
            }

            #[tokio::test]
            async fn over_direct_tls_it_loses_its_network_is_pushed_for_once_and_gets_every_message_once() {
                super::loses_its_network_is_pushed_for_once_and_gets_every_message_once(
                    Prosody::start().await, Library::$library, Security::DirectTls,
                ).await;
            }
        }
    )*};
}

stories! {
    Slixmpp: slixmpp;
    Aioxmpp: aioxmpp;
    XmppJs: xmppjs;
    TokioXmpp: tokio_xmpp;
}

#[tokio::test]
async fn xmppjs_with_sasl2_loses_its_network_is_pushed_for_once_and_gets_every_message_once() {
    let prosody = Prosody::sasl2(&[]).await;
    loses_its_network_is_pushed_for_once_and_gets_every_message_once(prosody, Library::XmppJs, Security::StartTls)
        .await;
}

/// go-sendxmpp, a command line for scripts, which has neither stream management nor push.
struct GoSendxmpp(Process);

impl GoSendxmpp {
    fn start(pushward: &Pushward, user: &str, direct: bool, arguments: &[&str]) -> Self {
        let address = if direct { pushward.direct } else { pushward.starttls };
        let mut command = Command::new("go-sendxmpp");
        command
            .args(["--username", &format!("{user}@localhost"), "--password", PASSWORD])
            .args(["--jserver", &address.to_string()])
            .args(direct.then_some("--tls"))
            .args(arguments)
            .env("SSL_CERT_FILE", pushward.file("certs/localhost.pem"))
            .env("HOME", pushward.file("."));
        Self(Process::spawn("go-sendxmpp", "apt-get install go-sendxmpp", &mut command))
    }

    /// Waits until it has printed a line that ends with this.
    async fn printed(&self, end: &str) {
        let log = self.0.log();
        let what = || format!("{end:?} in\n{}", log.lines().join("\n"));
        eventually(PATIENCE, what, || log.lines().iter().any(|line| line.ends_with(end)).then_some(())).await;
    }
}

#[tokio::test]
async fn go_sendxmpp_logs_in_and_talks_over_starttls_and_direct_tls() {
    let prosody = Prosody::start().await;
    let pushward = Pushward::start(Setup::new(prosody.address)).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.available().await;
    for (direct, user) in [(false, "alice"), (true, "carol")] {
        let listener = GoSendxmpp::start(&pushward, user, direct, &["--listen"]);
        bob.say(&format!("{user}@localhost"), "to the listener").await;
        listener.printed("to the listener").await;
        let file = pushward.file("message");
        fs::write(&file, "from a script\n").unwrap();
        let sender =
            GoSendxmpp::start(&pushward, user, direct, &["--message", file.to_str().unwrap(), "bob@localhost"]);
        assert_eq!(received(&mut bob).await, "from a script");
        drop(sender);
    }
}
