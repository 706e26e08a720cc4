//! Clients that cannot run here. Each test sends what the client sends, in its order, and checks what the client
//! checks.

mod conversations;
mod dino;
mod inline;
mod monal;
mod siskin;

use std::time::{Duration, Instant};

use crate::support::{Client, Element, Enabled, PASSWORD, Prosody, PushService, Pushward, Setup, plain};

/// A server without any extension that these clients use, and the proxy in front of it.
struct Stage {
    service: PushService,
    pushward: Pushward,
    bob: Client,
    _prosody: Prosody,
}

impl Stage {
    async fn new() -> Self {
        let prosody = Prosody::start().await;
        let service = PushService::connect(&prosody).await;
        let setup = Setup::new(prosody.address).set("push.batch_delay", "'50ms'").set("push.min_interval", "'100ms'");
        let pushward = Pushward::start(setup).await;
        let mut bob = Client::plain(prosody.address).await;
        bob.login("bob", "desk").await;
        bob.available().await;
        Self { service, pushward, bob, _prosody: prosody }
    }

    /// Sends these messages from bob to the account.
    async fn say(&mut self, bodies: &[&str]) {
        for body in bodies {
            self.bob.say("alice@localhost", body).await;
        }
    }
}

/// A client of alice, with its stanza count.
struct Phone {
    client: Client,
    /// The header of its streams inside TLS.
    header: &'static str,
    /// The number of its stanzas since stream management began.
    sent: u32,
}

impl Phone {
    /// Authenticates by SASL1 with PLAIN on a new stream inside TLS, up to `<success/>`.
    async fn authenticated(client: Client, header: &'static str) -> Self {
        let mut phone = Self { client, header, sent: 0 };
        phone.client.send(header).await;
        let features = phone.client.expect("<stream:features").await;
        assert!(features.contains("<mechanism>PLAIN</mechanism>"), "{features}");
        phone.client.send(plain("alice", PASSWORD)).await;
        phone.client.expect("<success").await;
        phone
    }

    /// Binds as all these clients except Conversations do.
    async fn bind(&mut self, resource: &str) {
        let bind = format!(
            "<iq id='bind' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource>\
             </bind></iq>"
        );
        let answer = self.request("id='bind'", &bind).await;
        // Monal ends its process if this is another account.
        assert_eq!(answer.all("jid").first().unwrap().text, format!("alice@localhost/{resource}"));
    }

    /// Sends the header after authentication and, in the same write, what the client pipelines. Returns the features.
    async fn restarted(&mut self, pipelined: &str) -> Element {
        self.client.send(format!("{}{pipelined}", self.header)).await;
        let features = Element::parse(&self.client.expect("<stream:features").await);
        for (name, ns) in [("sm", "urn:xmpp:sm:3"), ("csi", "urn:xmpp:csi:0")] {
            let offered: Vec<_> = features.all(name).iter().map(|feature| feature.ns.as_str()).collect();
            assert_eq!(offered, [ns], "exactly one is offered: {features:?}");
        }
        assert!(features.all("starttls").is_empty() && features.all("compression").is_empty(), "{features:?}");
        features
    }

    /// Sends a stanza, and counts it.
    async fn stanza(&mut self, xml: &str) {
        self.sent += 1;
        self.client.send(xml).await;
    }

    /// Sends an iq. The answer must be one that every client accepts.
    async fn request(&mut self, id: &str, xml: &str) -> Element {
        self.stanza(xml).await;
        self.answer(id).await
    }

    /// Returns the answer to an iq. Conversations drops an answer from another sender, Monal one with another
    /// addressee.
    async fn answer(&mut self, id: &str) -> Element {
        let answer = Element::parse(&self.client.answer(id).await);
        assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
        let from = answer.attribute("from");
        let asked =
            |from: &str| from.starts_with("alice@localhost") || from.split('/').next().unwrap().ends_with("localhost");
        assert!(from.is_none_or(asked), "{answer:?}");
        let to = answer.attribute("to");
        assert!(to.is_none_or(|to| to.starts_with("alice@localhost")), "{answer:?}");
        answer
    }

    /// Sends `<enable/>`. No client handles a `location` correctly, and some use an id although resumption is not
    /// offered.
    async fn enable(&mut self, nonza: &str) -> Enabled {
        self.client.send(nonza).await;
        let answer = Element::parse(&self.client.answer("urn:xmpp:sm:3").await);
        assert_eq!(answer.name, "enabled", "{answer:?}");
        assert_eq!(answer.attribute("resume"), Some("true"), "{answer:?}");
        assert_eq!(answer.attribute("location"), None, "{answer:?}");
        let id = answer.attribute("id").unwrap().to_owned();
        assert!(!id.is_empty());
        self.sent = 0;
        Enabled { id, resume: Some("true".into()), max: None }
    }

    /// Checks `<resumed/>` as the strictest client does: the right id, and a valid count.
    fn check_resumed(&self, answer: &Element, enabled: &Enabled) {
        assert_eq!(answer.name, "resumed", "{answer:?}");
        assert_eq!(answer.attribute("previd"), Some(enabled.id.as_str()));
        let h: u32 = answer.attribute("h").unwrap().parse().unwrap();
        assert_eq!(h, self.sent, "Monal ends a session whose h goes back or too far");
    }

    /// Checks `<failed/>` after the session has ended. All of these clients use its count and bind on the same stream.
    async fn check_failed(&mut self, enabled: &Enabled, handled: u32) -> u32 {
        let answer = self.client.resume(&enabled.id, handled).await;
        assert_eq!(answer.name, "failed", "{answer:?}");
        assert!(answer.child("item-not-found").is_some(), "{answer:?}");
        answer.attribute("h").unwrap_or_else(|| panic!("no count in {answer:?}")).parse().unwrap()
    }

    /// Requests acknowledgements until everything is acknowledged, each within `patience`.
    async fn acked(&mut self, patience: Duration) {
        while self.client.acked.last() != Some(&self.sent) {
            let asked = Instant::now();
            self.client.send("<r xmlns='urn:xmpp:sm:3'/>").await;
            let h = self.client.next_ack().await;
            assert!(asked.elapsed() < patience, "<r/> was answered after {:?}", asked.elapsed());
            assert!(h <= self.sent, "{h} of {}", self.sent);
        }
    }

    /// Returns the features of the account itself.
    async fn account_features(&mut self) -> Vec<String> {
        let answer = self
            .request(
                "account",
                "<iq type='get' id='account' to='alice@localhost'>\
                 <query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
            )
            .await;
        let vars = answer.all("feature").into_iter().filter_map(|feature| feature.attribute("var"));
        vars.map(str::to_owned).collect()
    }

    /// Checks what holds for every connection: nothing between the elements, and a header that the strictest parser
    /// accepts.
    fn check_stream(&self) {
        assert_eq!(self.client.whitespace(), 0, "Conversations gives up on whitespace");
        let transcript = self.client.transcript();
        let header = transcript.lines().rev().find(|line| line.starts_with("Header")).unwrap();
        let attributes = [
            "from='localhost'",
            "version='1.0'",
            "xmlns='jabber:client'",
            "xmlns:stream='http://etherx.jabber.org/streams'",
        ];
        for attribute in attributes.into_iter().chain([" id='"]) {
            assert!(header.contains(attribute), "no {attribute} in {header}");
        }
    }
}

/// Checks the delay stamp. Conversations expects it from the domain or the account.
fn assert_delayed(message: &str) {
    let message = Element::parse(message);
    let delay = message.child("delay").unwrap_or_else(|| panic!("no delay in {message:?}"));
    assert!(matches!(delay.attribute("from"), Some("localhost" | "alice@localhost")), "{delay:?}");
    assert!(delay.attribute("stamp").is_some(), "{delay:?}");
}
