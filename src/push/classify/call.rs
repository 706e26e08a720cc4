//! Call signalling in messages and iqs.

use std::borrow::Cow;

use super::class::Class;
use super::noise_reason::Noise;
use crate::xml::{Node, ns};

/// A step of a call (XEP-0353, XEP-0482).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallStep {
    /// `propose` of audio or video.
    Offer,
    /// `invite`. The message identifies the call, not an `id` of the element.
    Invite,
    /// `propose` of something else, such as a file.
    OtherOffer,
    /// `retract`: the caller gives up.
    Retract,
    /// `finish`: either side has ended the call.
    Finish,
    /// `accept`, `proceed`, `reject`: the called party has decided.
    Answer,
    /// `left`: a participant has left the call.
    Left,
    /// `ringing`.
    Ringing,
}

impl CallStep {
    /// Returns the class of the stanza if the sender is not the account.
    pub(super) fn by_others(self) -> Class {
        match self {
            Self::Offer | Self::Invite => Class::Call,
            Self::OtherOffer => Class::Message,
            Self::Retract | Self::Finish => Class::CallEnd,
            Self::Answer | Self::Left => Class::Noise(Noise::CallAnswer),
            Self::Ringing => Class::Noise(Noise::Ringing),
        }
    }

    /// Returns whether this step, taken by another client of the account, ends the ringing of a call to the account.
    pub(super) fn settles(self) -> bool {
        matches!(self, Self::Answer | Self::Finish | Self::Left)
    }
}

/// The call signalling of a message.
pub(super) struct CallSignal<'a> {
    pub(super) step: CallStep,
    /// Its `id`, which identifies the call.
    pub(super) id: Option<Cow<'a, str>>,
}

impl<'a> CallSignal<'a> {
    /// Reads a child of a message in a namespace of XEP-0353 or XEP-0482.
    pub(super) fn read(child: &Node<'a>) -> Option<Self> {
        let invites = child.ns() == ns::CALL_INVITES;
        let step = match child.name() {
            "propose" if !invites && has_media(child) => CallStep::Offer,
            "propose" if !invites => CallStep::OtherOffer,
            "invite" if invites => CallStep::Invite,
            "retract" => CallStep::Retract,
            "finish" if !invites => CallStep::Finish,
            "accept" | "reject" => CallStep::Answer,
            "proceed" if !invites => CallStep::Answer,
            "ringing" if !invites => CallStep::Ringing,
            "left" if invites => CallStep::Left,
            _ => return None,
        };
        Some(Self { step, id: child.attr("id") })
    }
}

/// Reads the call signalling of an iq of type `set` from another sender. A `session-terminate` (XEP-0166) counts as the
/// end of a call, since a `session-initiate` counts as its beginning.
pub(super) fn jingle<'a>(iq: &Node<'a>) -> Option<(Class, Option<Cow<'a, str>>)> {
    let jingle = iq.child("jingle", ns::JINGLE)?;
    let class = match jingle.attr("action").as_deref() {
        Some("session-initiate") if jingle.children().any(|c| c.is("content", ns::JINGLE) && has_media(&c)) => {
            Class::Call
        }
        Some("session-terminate") => Class::CallEnd,
        _ => return None,
    };
    Some((class, jingle.attr("sid")))
}

fn has_media(node: &Node<'_>) -> bool {
    node.child("description", ns::JINGLE_RTP).is_some()
}
