//! [`Classified`]: a stanza with its class, and the other properties that the push rules need.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use super::class::Class;
use crate::hash;
use crate::jid::{BareJid, Jid};
use crate::push::address::address;
use crate::push::encryption::Encryption;
use crate::push::rooms::Rooms;
use crate::xml::{Node, ns};

/// The account, as far as the class of a stanza depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The account that receives the stanza.
    pub account: &'a BareJid,
    /// The rooms that the account is in, with its nicks.
    pub rooms: &'a Rooms,
}

/// A stanza, classified from the viewpoint of the person who uses the account.
#[derive(Debug)]
pub struct Classified<'a> {
    /// Its class.
    pub class: Class,
    /// The stanza that a person would read: the one inside a carbon, in either direction, otherwise the stanza itself.
    pub stanza: Node<'a>,
    /// The conversation that it belongs to: the bare JID of the other side, or of the room. An invitation sent by a
    /// room belongs to the room, a direct one to the inviter. [`Classified::inviter`] names the person in both cases.
    /// `None` for presence and iqs that are noise.
    pub chat: Option<BareJid>,
    /// The id of the call, for [`Class::Call`] and [`Class::CallEnd`] only.
    pub call: Option<String>,
    /// True if another client of the account did it, so the user is there. Actions that clients take by themselves,
    /// such as receipts, keys and `ringing`, do not count. Neither does leaving a chat.
    pub own: bool,
    /// The id in the archive of the account, or of the room (XEP-0359).
    pub(super) stanza_id: Option<Cow<'a, str>>,
}

impl<'a> Classified<'a> {
    pub(super) fn new(class: Class, stanza: Node<'a>) -> Self {
        Self { class, stanza, chat: None, call: None, own: false, stanza_id: None }
    }

    /// Returns the inviter of a [`Class::Invite`]: the sender (XEP-0249), or the person named by the room (XEP-0045
    /// §7.8.2), if the room names one.
    pub fn inviter(&self) -> Option<BareJid> {
        if self.class != Class::Invite {
            return None;
        }
        let mediated = self.stanza.child("x", ns::MUC_USER).and_then(|x| x.child("invite", ns::MUC_USER));
        address(&mediated.unwrap_or(self.stanza), "from").map(Jid::into_bare)
    }

    /// Returns a hash that identifies the stanza, however often and on whichever path it arrives. The hash covers the
    /// call, its peer, and whether the call begins or ends; otherwise the id in the archive; otherwise sender, id and
    /// text. A sender cannot make two stanzas collide without knowing the seed.
    pub fn key(&self, seed: u64) -> u64 {
        let mut hasher = hash::keyed(seed);
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
                } else if id.is_none() && Encryption::is_text(&child) {
                    // Two encrypted texts differ in nothing else.
                    child.raw().hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }
}
