//! What messages and iqs say of calls.

use std::borrow::Cow;

use super::{Class, Noise};
use crate::xml::{Node, ns};

/// A step in the life of a call, as a message tells of it (XEP-0353, XEP-0482).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// `propose` of audio or video.
    Offer,
    /// `invite`, which the message names and not an `id` of its own.
    Invite,
    /// `propose` of something else, such as a file.
    OtherOffer,
    /// `retract`: the caller gives up.
    Retract,
    /// `finish`: it is over, says either side.
    Finish,
    /// `accept`, `proceed`, `reject`: whoever was called has decided.
    Answer,
    /// `left`: somebody left it.
    Left,
    /// `ringing`.
    Ringing,
}

impl Step {
    /// What it means when somebody else took it.
    pub(super) fn by_others(self) -> Class {
        match self {
            Self::Offer | Self::Invite => Class::Call,
            Self::OtherOffer => Class::Message,
            Self::Retract | Self::Finish => Class::CallEnd,
            Self::Answer | Self::Left => Class::Noise(Noise::CallAnswer),
            Self::Ringing => Class::Noise(Noise::Ringing),
        }
    }

    /// Whether a call to the account needs no further ringing when another of its clients took it.
    pub(super) fn settles(self) -> bool {
        matches!(self, Self::Answer | Self::Finish | Self::Left)
    }
}

/// What a message says of a call.
pub(super) struct Signal<'a> {
    pub(super) step: Step,
    /// Its `id`, which names the call.
    pub(super) id: Option<Cow<'a, str>>,
}

impl<'a> Signal<'a> {
    /// Reads a child of a message in a namespace of XEP-0353 or XEP-0482.
    pub(super) fn read(child: &Node<'a>) -> Option<Self> {
        let invites = child.ns() == ns::CALL_INVITES;
        let step = match child.name() {
            "propose" if !invites && has_media(child) => Step::Offer,
            "propose" if !invites => Step::OtherOffer,
            "invite" if invites => Step::Invite,
            "retract" => Step::Retract,
            "finish" if !invites => Step::Finish,
            "accept" | "reject" => Step::Answer,
            "proceed" if !invites => Step::Answer,
            "ringing" if !invites => Step::Ringing,
            "left" if invites => Step::Left,
            _ => return None,
        };
        Some(Self { step, id: child.attr("id") })
    }
}

/// What an iq of type `set` from somebody else says of a call. A `session-terminate` (XEP-0166) counts as the end
/// of a call, since a `session-initiate` counts as its beginning.
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
