//! The client's side of FAST (XEP-0484) with the mechanisms HT-SHA-256-NONE and HT-SHA-256-EXPR
//! (draft-schmaus-kitten-sasl-ht). [`Device`] is what a client keeps of a session and its token.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{CARBONS, Client, Pushward, SM, Success, authenticate, header_from, resume};

/// The mechanism without channel binding.
pub(crate) const NONE: &str = "HT-SHA-256-NONE";
/// The mechanism with `tls-exporter` (RFC 9266).
pub(crate) const EXPR: &str = "HT-SHA-256-EXPR";
/// Marks a login by token.
pub(crate) const FAST: &str = "<fast xmlns='urn:xmpp:fast:0'/>";

/// Returns the inline request for a token.
pub(crate) fn wish(mechanism: &str) -> String {
    format!("<request-token xmlns='urn:xmpp:fast:0' mechanism='{mechanism}'/>")
}

/// Returns `<fast/>` with these attributes.
pub(crate) fn fast(attributes: &str) -> String {
    format!("<fast xmlns='urn:xmpp:fast:0' {attributes}/>")
}

/// A token, as its client keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) mechanism: &'static str,
    pub(crate) text: String,
}

impl Token {
    /// Reads the token in a success, if there is one.
    pub(crate) fn of(success: &Success, mechanism: &'static str) -> Option<Self> {
        let token = success.root.child("token")?;
        assert_eq!(token.ns, "urn:xmpp:fast:0", "{}", success.xml);
        let expiry = token.attribute("expiry").expect("an expiry");
        assert!(expiry.len() == "2099-01-01T00:00:00Z".len() && expiry.ends_with('Z'), "{expiry}");
        let text = token.attribute("token").expect("a token").to_owned();
        Some(Self { mechanism, text })
    }

    /// Returns the client's message, for the data of its channel binding.
    pub(crate) fn initial(&self, user: &str, binding: &[u8]) -> String {
        BASE64.encode([user.as_bytes(), b"\0", &self.hmac(b"Initiator", binding)].concat())
    }

    fn hmac(&self, role: &[u8], binding: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.text.as_bytes());
        hmac::sign(&key, &[role, binding].concat()).as_ref().to_vec()
    }

    /// Returns the data of the channel binding on this connection.
    pub(crate) fn binding(&self, client: &Client) -> Vec<u8> {
        if self.mechanism == EXPR { client.exporter() } else { Vec::new() }
    }
}

/// The data that a client keeps: the session of a user agent, and a token.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) user: &'static str,
    pub(crate) agent: &'static str,
    /// The resumption id.
    pub(crate) id: String,
    pub(crate) jid: String,
    /// The number of stanzas that it has received.
    pub(crate) handled: u32,
    pub(crate) token: Token,
}

impl Device {
    /// Keeps what a login by password gave to the client.
    pub(crate) fn of(success: &Success, user: &'static str, agent: &'static str, mechanism: &'static str) -> Self {
        let token = Token::of(success, mechanism).unwrap_or_else(|| panic!("no token: {}", success.xml));
        Self { user, agent, id: success.id(), jid: success.jid().to_owned(), handled: 0, token }
    }

    /// Returns `<authenticate/>` by token with inline bind and resumption, as clients send it on this connection. `more` is
    /// `<fast/>` and what else they ask for.
    pub(crate) fn authenticate(&self, client: &Client, more: &str) -> String {
        self.bound_to(&self.token.binding(client), more)
    }

    /// The same with these data of the channel binding.
    pub(crate) fn bound_to(&self, binding: &[u8], more: &str) -> String {
        let inline = format!("{}{}{more}", asks(self.agent), resume(&self.id, self.handled));
        authenticate(self.token.mechanism, &self.token.initial(self.user, binding), &inline)
    }

    /// The same without a session.
    pub(crate) fn without_session(&self, client: &Client, more: &str) -> String {
        let initial = self.token.initial(self.user, &self.token.binding(client));
        authenticate(self.token.mechanism, &initial, &format!("{}{more}", asks(self.agent)))
    }

    /// Returns by token in one flight: the header and the login are in one write. Checks the success as clients do.
    pub(crate) async fn returns(&self, pushward: &Pushward, more: &str) -> (Client, Success) {
        let mut client = pushward.connect().await;
        let login = self.authenticate(&client, &format!("{FAST}{more}"));
        client.send(format!("{}{login}", header_from(self.user))).await;
        client.expect("<stream:features").await;
        let success = self.accepted(&mut client).await;
        (client, success)
    }

    /// Reads the success, verifies the server, and takes the session up.
    pub(crate) async fn accepted(&self, client: &mut Client) -> Success {
        let success = Success::of(client.next_item().await);
        let data = &success.root.child("additional-data").expect("the server's proof").text;
        assert_eq!(*data, BASE64.encode(self.token.hmac(b"Responder", &self.token.binding(client))));
        let h = success.resumed(&self.id, &self.jid);
        (client.handled, client.acked) = (self.handled, vec![h]);
        success
    }
}

/// Returns what a client asks for inside its login, apart from tokens and resumption.
pub(crate) fn asks(agent: &str) -> String {
    format!(
        "<user-agent id='{agent}'><software>Phone</software></user-agent><bind xmlns='urn:xmpp:bind:0'><tag>Phone</tag>\
         <enable xmlns='{CARBONS}'/><enable xmlns='{SM}' resume='true'/></bind>"
    )
}
