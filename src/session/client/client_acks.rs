//! The client's acknowledgements of written stanzas: by stream management (XEP-0198), or by answers to pings.

use bytes::Bytes;

use crate::session::identity::Identity;
use crate::session::liveness::AckCoverage;
use crate::session::sm::nonza;
use crate::session::sm::{ClientLeg, Handled, TooHigh, Tracking};
use crate::xml::{Element, Kind, Node, XmlWriter, ns};

/// The acknowledgements of a client.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Acknowledgements {
    tracking: Tracking,
    /// The number of stanzas written since the client was last asked for an acknowledgement.
    unasked: usize,
    /// True if a ping was sent to the client.
    was_pinged: bool,
}

/// The relation of a client's iq to the open ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum PingAnswer {
    /// It does not answer a request of Pushward.
    Not,
    /// It answers a request that has timed out or was replaced (invariant 5: it is still ours).
    Late,
    /// It acknowledges this many more stanzas.
    Acknowledges(usize),
}

impl Default for Acknowledgements {
    fn default() -> Self {
        Self { tracking: Tracking::None, unasked: 0, was_pinged: false }
    }
}

impl Acknowledgements {
    /// Returns whether the client counts stanzas.
    pub(super) fn counts(&self) -> bool {
        matches!(self.tracking, Tracking::Sm(_))
    }

    /// Returns whether the client acknowledges stanzas.
    pub(super) fn are_known(&self) -> bool {
        !matches!(self.tracking, Tracking::None)
    }

    /// The number of unacknowledged stanzas, if the client may enable stream management.
    pub(super) fn may_enable(&self) -> Option<usize> {
        match &self.tracking {
            Tracking::Sm(_) => None,
            Tracking::Ping(leg, _) => Some(leg.unacked()),
            Tracking::None => Some(0),
        }
    }

    /// Enables counting. `preceding` stanzas were sent before.
    pub(super) fn enable(&mut self, preceding: usize) {
        self.tracking = Tracking::Sm(ClientLeg::behind(preceding));
        self.unasked = preceding;
    }

    /// Enables tracking by pings.
    pub(super) fn track_by_ping(&mut self) {
        self.tracking = Tracking::Ping(ClientLeg::default(), None);
    }

    /// Counts a stanza that was written.
    pub(super) fn on_written(&mut self) {
        if let Tracking::Sm(leg) | Tracking::Ping(leg, _) = &mut self.tracking {
            leg.on_sent();
        }
        self.unasked += 1;
    }

    /// Notes that a new connection takes over the stream.
    pub(super) fn on_attached(&mut self) {
        self.unasked = 0;
    }

    /// The number of stanzas written since the client was last asked for an acknowledgement.
    pub(super) fn unasked(&self) -> usize {
        self.unasked
    }

    /// Returns whether a ping was sent to the client.
    pub(super) fn was_pinged(&self) -> bool {
        self.was_pinged
    }

    /// The questions that the last acknowledgement answers.
    pub(super) fn coverage(&self) -> AckCoverage {
        match &self.tracking {
            Tracking::Sm(leg) if leg.unacked() > self.unasked => AckCoverage::Oldest,
            // Each earlier ping is obsolete.
            Tracking::Sm(_) | Tracking::None | Tracking::Ping(..) => AckCoverage::All,
        }
    }

    /// Returns the `<r/>` or ping that asks what the client has read. `None` if it cannot be asked now.
    pub(super) fn ask(&mut self, identity: &Identity) -> Option<Bytes> {
        let question = match &mut self.tracking {
            // A ping that waits behind a long backlog would be obsolete before its answer comes.
            Tracking::None | Tracking::Ping(_, Some(_)) => return None,
            Tracking::Sm(_) => nonza::request(),
            Tracking::Ping(leg, open) => {
                let id = identity.new_request_id();
                self.was_pinged = true;
                let (from, to) = (identity.domain(), identity.jid().as_str());
                let mut xml = XmlWriter::new();
                xml.start("iq").attr("type", "get").attr("id", &id).attr("from", from).attr("to", to);
                *open = Some((id, leg.sent()));
                xml.start("ping").attr("xmlns", ns::PING);
                xml.finish()
            }
        };
        self.unasked = 0;
        Some(question)
    }

    /// Takes the client's `<a/>`. Returns the number of stanzas that it newly acknowledges, `None` if the client does not
    /// count.
    pub(super) fn on_ack(&mut self, h: Handled) -> Option<Result<usize, TooHigh>> {
        let Tracking::Sm(leg) = &mut self.tracking else { return None };
        Some(leg.acknowledge(h))
    }

    /// Checks the `h` of a client that wants to resume.
    pub(super) fn check(&self, h: Handled) -> Result<(), TooHigh> {
        match &self.tracking {
            Tracking::Sm(leg) => leg.check(h),
            Tracking::None | Tracking::Ping(..) => Ok(()),
        }
    }

    /// Takes the `h` of a client that resumes. Returns the number of stanzas that it acknowledges. All others are to be
    /// written again.
    pub(super) fn rewind(&mut self, h: Handled) -> Option<usize> {
        let Tracking::Sm(leg) = &mut self.tracking else { return None };
        let acked = leg.acknowledge(h).ok()?;
        leg.rewind();
        Some(acked)
    }

    /// Returns whether this is the client's answer to our open ping.
    pub(super) fn is_ping_answer(&self, element: &Element) -> bool {
        let Tracking::Ping(_, Some((ping, _))) = &self.tracking else { return false };
        element.kind() == Kind::Iq && element.node().attr("id").is_some_and(|id| id == ping.as_str())
    }

    /// Takes the client's answer to our ping.
    pub(super) fn on_ping_answer(&mut self, node: &Node<'_>, identity: &Identity) -> PingAnswer {
        if !matches!(node.attr("type").as_deref(), Some("result" | "error")) {
            return PingAnswer::Not;
        }
        let Some(id) = node.attr("id").filter(|id| identity.request_ids().is_ours(id)) else { return PingAnswer::Not };
        // An answer that came after the client's `<enable/>` is late as well.
        let Tracking::Ping(leg, open) = &mut self.tracking else { return PingAnswer::Late };
        let Some((_, covers)) = open.take_if(|(ping, _)| *ping == id) else { return PingAnswer::Late };
        PingAnswer::Acknowledges(leg.acknowledge(covers).unwrap_or_default())
    }
}
