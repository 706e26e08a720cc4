//! Classification of a stanza on its way to a client: its meaning for the person who uses the account. [`read`] returns
//! a [`Classified`], which the filters and the pusher use.
//!
//! | file | holds |
//! |---|---|
//! | `class.rs`, `noise_reason.rs` | [`Class`], [`Noise`]: the classes |
//! | `importance.rs` | [`Importance`]: which classes notify |
//! | `classified.rs` | [`Classified`]: a stanza with its class |
//! | `message.rs` | messages, by author and payloads |
//! | `mucsub_event.rs` | messages inside events of MUC/Sub |
//! | `payloads.rs`, `call.rs` | the children of a message; call signalling |

mod call;
mod class;
mod classified;
mod importance;
mod message;
pub(super) mod mucsub_event;
mod noise_reason;
mod payloads;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verdicts;

use std::borrow::Cow;

pub use self::class::Class;
pub use self::classified::{Classified, Context};
pub use self::importance::Importance;
pub use self::noise_reason::Noise;
use super::address::{address, bare};
use super::encryption::Encryption;
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, Kind, Node, ns};

/// Returns whether a message has a body, or encrypted content.
pub fn has_text(message: &Node<'_>) -> bool {
    message.children().any(|child| child.is("body", ns::CLIENT) || Encryption::is_text(&child))
}

/// Classifies a stanza that is on its way to a client of the account.
pub fn read<'a>(element: &'a Element, context: Context<'_>) -> Classified<'a> {
    let stanza = element.node();
    match element.kind() {
        Kind::Message => message::read(stanza, context),
        Kind::Presence => presence(stanza, context),
        Kind::Iq => iq(stanza, context),
        Kind::Other => Classified::new(Class::Noise(Noise::Nonza), stanza),
    }
}

fn presence<'a>(stanza: Node<'a>, context: Context<'_>) -> Classified<'a> {
    let noise = Classified::new(Class::Noise(Noise::Presence), stanza);
    if stanza.attr("type").as_deref() != Some("subscribe") {
        return noise;
    }
    match others(&stanza, context) {
        Some(from) => Classified { chat: Some(from), ..Classified::new(Class::Subscribe, stanza) },
        None => noise,
    }
}

fn iq<'a>(stanza: Node<'a>, context: Context<'_>) -> Classified<'a> {
    let noise = Classified::new(Class::Noise(Noise::Iq), stanza);
    if stanza.attr("type").as_deref() != Some("set") {
        return noise;
    }
    if stanza.child("push", ns::UNIFIED_PUSH).is_some() {
        let chat = address(&stanza, "from").map(Jid::into_bare);
        return Classified { chat, ..Classified::new(Class::Message, stanza) };
    }
    match call::jingle(&stanza).zip(others(&stanza, context)) {
        Some(((class, sid), from)) => {
            Classified { chat: Some(from), call: sid.map(Cow::into_owned), ..Classified::new(class, stanza) }
        }
        None => noise,
    }
}

/// Returns the sender, unless it is the account itself.
fn others(stanza: &Node<'_>, context: Context<'_>) -> Option<BareJid> {
    let from = address(stanza, "from").filter(|from| bare(from) != context.account.as_str());
    from.map(Jid::into_bare)
}
