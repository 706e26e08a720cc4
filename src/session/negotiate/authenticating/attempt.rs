//! One attempt to log in, and the party that it waits for.

use std::borrow::Cow;

use crate::jid::BareJid;
use crate::push::fast::TokenProof;
use crate::session::negotiate::contract::{Lockout, ServerAnswer};
use crate::session::negotiate::inline::{BindRequests, Inline, InlineResume, token_request};
use crate::session::negotiate::owner::OwnerLookup;
use crate::session::sasl::{Profile, SaslExchange};
use crate::session::sm::nonza;
use crate::session::{SmId, TokenWish};
use crate::xml::{Element, Node, ns};

/// The maximum length of a user agent's id that is kept: it should be a UUID (XEP-0388 §2.3).
const AGENT_ID: usize = 256;

/// The party that has to act next.
#[derive(Debug)]
pub(super) enum SaslTurn {
    /// The client.
    Client,
    /// The server: it has the client's last SASL message.
    Server,
    /// The registry: it is asked for the session that this `<authenticate/>` requests to resume.
    Registry(Box<(Element, nonza::Resume)>),
    /// The session that a token may open, or the record of its account.
    Session,
    /// The server, which is being connected.
    Late(Box<LateServer>),
    /// The directory of accounts: it is asked for the owner of the account for which this element begins a login.
    Directory(Box<Element>),
    /// Another node, to which the stream is passed on.
    OtherNode,
}

/// The conditions under which an element of the client is taken.
#[derive(Clone, Copy, Debug)]
pub(in crate::session::negotiate) struct AttemptTerms {
    pub(in crate::session::negotiate) lockout: Lockout,
    pub(in crate::session::negotiate) owner: OwnerLookup,
}

/// One attempt to log in, and the client's data beside the SASL messages.
#[derive(Debug, Default)]
pub(super) struct SaslAttempt {
    pub(super) exchange: SaslExchange,
    pub(super) inline: Inline,
    pub(super) agent: Option<String>,
    pub(super) presented: Option<SmId>,
    /// The condition with which Pushward itself refuses the attempt, once the server has aborted its exchange.
    pub(super) refusal: Option<&'static str>,
    /// The token that the client presents.
    pub(super) token: Option<TokenAttempt>,
}

/// A client that presents a token.
#[derive(Clone, Debug)]
pub(super) struct TokenAttempt {
    pub(super) account: BareJid,
    pub(super) proof: TokenProof,
}

/// The connection to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerLink {
    /// There is none yet.
    Absent,
    /// The server has the client's header.
    Open,
}

/// A server that is connected because of this element of the client.
#[derive(Debug)]
pub(super) struct LateServer {
    pub(super) element: Element,
    pub(super) awaits: Option<ServerAnswer>,
}

impl LateServer {
    /// The answer that the server has to send next, once it is connected.
    pub(super) fn awaits(&self) -> Option<ServerAnswer> {
        self.awaits
    }
}

impl SaslAttempt {
    /// Reads the element that begins an exchange. Earlier attempts have no effect on it.
    pub(super) fn begin(profile: Profile, node: &Node<'_>) -> Self {
        let mechanism = node.attr("mechanism").unwrap_or_default().into_owned();
        let mut exchange = SaslExchange::begin(profile, mechanism);
        match profile {
            Profile::Sasl => {
                exchange.client_message(&sasl_message(node));
                Self { exchange, ..Self::default() }
            }
            Profile::Sasl2 => {
                let initial = node.child("initial-response", ns::SASL2);
                exchange.client_message(&initial.map(|initial| initial.text()).unwrap_or_default());
                let agent = node.child("user-agent", ns::SASL2).and_then(|agent| agent.attr("id"));
                let agent = agent.map(|id| id.into_owned()).filter(|id| !id.is_empty() && id.len() <= AGENT_ID);
                let token = agent.as_ref().zip(token_request(node));
                let token = token.map(|(agent, mechanism)| TokenWish { agent: agent.clone(), mechanism });
                let inline = Inline { resume: InlineResume::None, bind: BindRequests::read(node), token };
                Self { exchange, inline, agent, ..Self::default() }
            }
        }
    }
}

/// Returns the data of a SASL message that is passed on unchanged. One with child elements is not read: a server may read it in another
/// way.
pub(super) fn sasl_message<'a>(message: &Node<'a>) -> Cow<'a, str> {
    if message.children().next().is_some() { Cow::Borrowed("<") } else { message.text() }
}
