//! What a stanza on its way to a client means to the person behind it.

mod call;
mod message;
mod noise;
mod payloads;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verdicts;

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

pub use self::noise::Noise;
use super::rooms::{Rooms, address, bare};
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, Kind, Node, ns};

/// Whether a message has a body, or encrypted content.
pub fn says_something(message: &Node<'_>) -> bool {
    message.children().any(|child| child.is("body", ns::CLIENT) || payloads::is_encrypted(&child))
}

/// What the classifier knows of the account beside the stanza.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The account that receives it.
    pub account: &'a BareJid,
    /// The rooms it is in, and as whom.
    pub rooms: &'a Rooms,
}

/// What a stanza means to the person behind the account.
#[derive(Debug)]
pub struct Reading<'a> {
    /// What it is.
    pub class: Class,
    /// What a person would read: what is inside a carbon, in either direction, else the stanza itself.
    pub stanza: Node<'a>,
    /// Whose conversation it belongs to: the bare JID of the other side, or of the room. An invitation by way of a room belongs to
    /// the room, a direct one to the inviter; [`Reading::inviter`] names the person in both. `None` for presence and iqs that
    /// are noise.
    pub chat: Option<BareJid>,
    /// The session of a call: of [`Class::Call`] and [`Class::CallEnd`] only.
    pub call: Option<String>,
    /// Another client of the account did it: its user is there. What clients do of their own accord does not count, such as
    /// receipts, keys and `ringing`, nor that a chat was left.
    pub own: bool,
    /// The id in the archive of the account, or of the room (XEP-0359).
    stanza_id: Option<Cow<'a, str>>,
}

impl<'a> Reading<'a> {
    fn new(class: Class, stanza: Node<'a>) -> Self {
        Self { class, stanza, chat: None, call: None, own: false, stanza_id: None }
    }

    /// Who invites, for [`Class::Invite`]: the sender (XEP-0249), or whom the room names (XEP-0045 §7.8.2), if it does.
    pub fn inviter(&self) -> Option<BareJid> {
        if self.class != Class::Invite {
            return None;
        }
        let mediated = self.stanza.child("x", ns::MUC_USER).and_then(|x| x.child("invite", ns::MUC_USER));
        address(&mediated.unwrap_or(self.stanza), "from").map(Jid::into_bare)
    }

    /// What tells the stanza from all others, however often and by whatever way it comes: the session of a call, with whom, and
    /// whether it begins or ends, else the id in the archive, else sender, id and text. Without the seed nobody can make two
    /// stanzas alike.
    pub fn key(&self, seed: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        if let Some(call) = &self.call {
            let caller = self.chat.as_ref().map(|chat| chat.as_str());
            (self.class.name(), call, caller).hash(&mut hasher);
            return hasher.finish();
        }
        self.stanza.attr("from").hash(&mut hasher);
        self.stanza_id.hash(&mut hasher);
        if self.stanza_id.is_none() {
            let id = self.stanza.attr("id");
            id.hash(&mut hasher);
            for child in self.stanza.children() {
                if child.is("body", ns::CLIENT) {
                    child.text().hash(&mut hasher);
                } else if id.is_none() && payloads::is_encrypted(&child) {
                    // All that tells one encrypted text from the next.
                    child.raw().hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }
}

/// The class of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Somebody calls (XEP-0353 `propose`, XEP-0482 `invite`, a Jingle `session-initiate` over RTP).
    Call,
    /// A call is over, or was taken or declined by another client of the account.
    CallEnd,
    /// Somebody wrote: this notifies.
    Message,
    /// An invitation to a room (XEP-0249, XEP-0045 §7.8.2).
    Invite,
    /// Somebody asks to see the user's presence (RFC 6121 §3.1).
    Subscribe,
    /// Another client of the account has read [`Reading::chat`] (XEP-0333 `displayed`, XEP-0490; of several chats, the last).
    ReadSync,
    /// Nothing that a person waits for.
    Noise(Noise),
}

impl Class {
    /// Whether a stanza of this class notifies.
    pub fn is_important(self) -> bool {
        match self {
            Self::Call | Self::Message | Self::Invite | Self::Subscribe => true,
            Self::CallEnd | Self::ReadSync | Self::Noise(_) => false,
        }
    }

    /// Its name in logs and metrics; [`Noise::name`] says more.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::CallEnd => "call_end",
            Self::Message => "message",
            Self::Invite => "invite",
            Self::Subscribe => "subscribe",
            Self::ReadSync => "read_sync",
            Self::Noise(_) => "noise",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads a stanza that is on its way to a client of the account.
pub fn read<'a>(element: &'a Element, context: Context<'_>) -> Reading<'a> {
    let stanza = element.node();
    match element.kind() {
        Kind::Message => message::read(stanza, context),
        Kind::Presence => presence(stanza, context),
        Kind::Iq => iq(stanza, context),
        Kind::Other => Reading::new(Class::Noise(Noise::Nonza), stanza),
    }
}

fn presence<'a>(stanza: Node<'a>, context: Context<'_>) -> Reading<'a> {
    let noise = Reading::new(Class::Noise(Noise::Presence), stanza);
    if stanza.attr("type").as_deref() != Some("subscribe") {
        return noise;
    }
    match others(&stanza, context) {
        Some(from) => Reading { chat: Some(from), ..Reading::new(Class::Subscribe, stanza) },
        None => noise,
    }
}

fn iq<'a>(stanza: Node<'a>, context: Context<'_>) -> Reading<'a> {
    let noise = Reading::new(Class::Noise(Noise::Iq), stanza);
    if stanza.attr("type").as_deref() != Some("set") {
        return noise;
    }
    if stanza.child("push", ns::UNIFIED_PUSH).is_some() {
        let chat = address(&stanza, "from").map(Jid::into_bare);
        return Reading { chat, ..Reading::new(Class::Message, stanza) };
    }
    match call::jingle(&stanza).zip(others(&stanza, context)) {
        Some(((class, sid), from)) => {
            Reading { chat: Some(from), call: sid.map(Cow::into_owned), ..Reading::new(class, stanza) }
        }
        None => noise,
    }
}

/// The sender, unless it is the account itself.
fn others(stanza: &Node<'_>, context: Context<'_>) -> Option<BareJid> {
    let from = address(stanza, "from").filter(|from| bare(from) != context.account.as_str());
    from.map(Jid::into_bare)
}
