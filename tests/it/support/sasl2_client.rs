//! SASL2 with inline requests (XEP-0388, XEP-0386) as a client sends it, and SCRAM-SHA-1 (RFC 5802).

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Client, Element, HEADER, PASSWORD, Pushward};

pub(crate) const SM: &str = "urn:xmpp:sm:3";
pub(crate) const CARBONS: &str = "urn:xmpp:carbons:2";

/// Returns the header of a client that sends its own address.
pub(crate) fn header_from(user: &str) -> String {
    HEADER.replace("version='1.0'>", &format!("from='{user}@localhost' version='1.0' xml:lang='en'>"))
}

pub(crate) fn authenticate(mechanism: &str, initial: &str, inline: &str) -> String {
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{initial}</initial-response>\
         {inline}</authenticate>"
    )
}

/// Returns `<authenticate/>` with PLAIN and the right password.
pub(crate) fn with_password(user: &str, inline: &str) -> String {
    authenticate("PLAIN", &BASE64.encode(format!("\0{user}\0{PASSWORD}")), inline)
}

/// Returns an inline request to resume.
pub(crate) fn resume(previd: &str, h: u32) -> String {
    format!("<resume xmlns='{SM}' previd='{previd}' h='{h}'/>")
}

/// The content of a `<success/>`.
#[derive(Debug)]
pub(crate) struct Success {
    pub(crate) xml: String,
    pub(crate) root: Element,
}

impl Success {
    pub(crate) fn of(xml: String) -> Self {
        let root = Element::parse(&xml);
        assert_eq!((root.name.as_str(), root.ns.as_str()), ("success", "urn:xmpp:sasl:2"), "{xml}");
        Self { xml, root }
    }

    /// Returns the JID that the server authenticated.
    pub(crate) fn jid(&self) -> &str {
        &self.root.child("authorization-identifier").expect("a JID").text
    }

    pub(crate) fn managed(&self, name: &str) -> Option<&Element> {
        self.root.all(name).into_iter().find(|element| element.ns == SM)
    }

    /// Returns the resumption id in `<bound/>`.
    pub(crate) fn id(&self) -> String {
        let enabled = self.in_bound(SM).unwrap_or_else(|| panic!("no stream management: {}", self.xml));
        assert_eq!(enabled.attribute("resume"), Some("true"));
        assert!(enabled.attribute("max").is_some_and(|max| max.parse::<u32>().is_ok()), "{}", self.xml);
        enabled.attribute("id").expect("an id").to_owned()
    }

    /// Returns whether message carbons are on.
    pub(crate) fn carbons(&self) -> bool {
        self.in_bound(CARBONS).is_some()
    }

    /// Returns the `<enabled/>` of a namespace in `<bound/>`.
    fn in_bound(&self, ns: &str) -> Option<&Element> {
        let bound = self.root.child("bound").unwrap_or_else(|| panic!("not bound: {}", self.xml));
        bound.children.iter().find(|child| child.name == "enabled" && child.ns == ns)
    }

    /// Returns the `h` of `<resumed/>`, after all the checks that clients make.
    pub(crate) fn resumed(&self, previd: &str, jid: &str) -> u32 {
        let resumed = self.managed("resumed").unwrap_or_else(|| panic!("not resumed: {}", self.xml));
        // Conversations starts over if it is another id, and gives up if both elements are there.
        assert_eq!(resumed.attribute("previd"), Some(previd));
        assert!(self.root.child("bound").is_none(), "{}", self.xml);
        // Dino and xmpp.js use this JID as their own from now on, including the resource.
        assert_eq!(self.jid(), jid);
        resumed.attribute("h").and_then(|h| h.parse().ok()).expect("an h")
    }

    /// Returns the `h` of the `<failed/>` beside `<bound/>`.
    pub(crate) fn failed(&self) -> Option<u32> {
        let failed = self.root.children.iter().find(|child| child.name == "failed" && child.ns == SM);
        let failed = failed.unwrap_or_else(|| panic!("not failed: {}", self.xml));
        assert!(failed.child("item-not-found").is_some(), "{}", self.xml);
        failed.attribute("h").map(|h| h.parse().unwrap())
    }
}

/// Opens a connection up to the features inside TLS.
pub(crate) async fn opened(pushward: &Pushward, user: &str) -> (Client, String) {
    let mut client = pushward.connect().await;
    client.send(header_from(user)).await;
    let features = client.expect("<stream:features").await;
    (client, features)
}

/// Logs in and returns the success. The features, if they follow, are not read yet.
pub(crate) async fn logged_in(pushward: &Pushward, user: &str, authenticate: &str) -> (Client, Success) {
    let (mut client, _) = opened(pushward, user).await;
    client.send(authenticate).await;
    let success = Success::of(client.next().await);
    (client, success)
}

/// The client's side of one exchange of SCRAM-SHA-1 without channel binding. It verifies the server.
pub(crate) struct Scram {
    /// The GS2 header (RFC 5802 §7).
    gs2: &'static str,
    password: &'static str,
    /// The client's first message without its GS2 header.
    first: String,
    /// The data that the server's last message must have.
    verdict: Option<String>,
}

impl Scram {
    pub(crate) fn new(user: &str, password: &'static str) -> Self {
        let first = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
        Self { gs2: "n,,", password, first, verdict: None }
    }

    /// The same from a client that supports channel binding and was offered none.
    pub(crate) fn missing_channel_binding(self) -> Self {
        Self { gs2: "y,,", ..self }
    }

    /// Returns the first message.
    pub(crate) fn first(&self) -> String {
        BASE64.encode(format!("{}{}", self.gs2, self.first))
    }

    /// Returns the second message, for the server's challenge.
    pub(crate) fn last(&mut self, challenge: &str) -> String {
        let challenge = String::from_utf8(BASE64.decode(challenge).unwrap()).unwrap();
        let field = |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
        let (nonce, salt) = (field("r="), BASE64.decode(field("s=")).unwrap());
        assert!(nonce.starts_with("fyko+d2lbbFgONRv9qkxdawL"), "{challenge}");
        let mut salted = [0; 20];
        let rounds: NonZeroU32 = field("i=").parse().unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, rounds, &salt, self.password.as_bytes(), &mut salted);
        let end = format!("c={},r={nonce}", BASE64.encode(self.gs2));
        let message = format!("{},{challenge},{end}", self.first);
        let client_key = sign(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &client_key);
        let signature = sign(stored.as_ref(), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
        let server = sign(&sign(&salted, b"Server Key"), message.as_bytes());
        self.verdict = Some(BASE64.encode(format!("v={}", BASE64.encode(server))));
        BASE64.encode(format!("{end},p={}", BASE64.encode(proof)))
    }

    /// Checks the data of the server's success: it knows the password too.
    pub(crate) fn verify(&self, data: &str) {
        assert_eq!(Some(data), self.verdict.as_deref());
    }

    /// Logs in by SASL2 on an opened stream with these inline requests.
    pub(crate) async fn log_in(mut self, client: &mut Client, inline: &str) -> Success {
        client.send(authenticate("SCRAM-SHA-1", &self.first(), inline)).await;
        let challenge = Element::parse(&client.next().await);
        assert_eq!((challenge.name.as_str(), challenge.ns.as_str()), ("challenge", "urn:xmpp:sasl:2"));
        let response = self.last(&challenge.text);
        client.send(format!("<response xmlns='urn:xmpp:sasl:2'>{response}</response>")).await;
        let success = Success::of(client.next().await);
        self.verify(&success.root.child("additional-data").expect("the server's proof").text);
        success
    }
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key), message).as_ref().to_vec()
}
