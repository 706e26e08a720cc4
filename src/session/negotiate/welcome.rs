//! What follows SASL2's `<success/>` (XEP-0388 §2.6): a held session, a bound one, or features to bind by.

use bytes::Bytes;

use super::inline::{Inline, Resume};
use super::{Negotiation, Phase, State};
use crate::jid::{FullJid, Jid};
use crate::session::sm::nonza;
use crate::session::{Bound, rewrite};
use crate::xml::{Element, StanzaCondition, ns};

impl Negotiation {
    pub(super) fn succeeded(&mut self, success: &Element) {
        // XEP-0388 §2.6.1: the server's word on who this is. Nothing else counts (invariant 4).
        self.account = authorized(success).map(|jid| jid.to_bare());
        let mut inline = std::mem::take(&mut self.inline);
        let failed = match std::mem::take(&mut inline.resume) {
            Resume::Unasked => None,
            Resume::Held(claim, account) if self.account.as_ref() == Some(&account) => {
                self.state = State::HandingOver(success.clone(), Box::new(inline));
                return self.hand_over(claim, Some(success.clone()));
            }
            Resume::Held(..) => Some(self.not_found(None)),
            Resume::Unknown(ended) => Some(self.not_found(ended)),
            Resume::Malformed => Some(nonza::failed(StanzaCondition::BadRequest, None)),
        };
        self.welcome(success, inline, failed);
    }

    /// The client is let in, and resumes nothing. Without a `<bound/>` it binds once it has seen the features.
    pub(super) fn welcome(&mut self, success: &Element, inline: Inline, failed: Option<Bytes>) {
        if success.node().child("bound", ns::BIND2).is_none() {
            self.write_client(rewrite::sasl2::welcome(success, None, failed));
            self.state = State::Welcomed(None);
            return;
        }
        let jid = authorized(success).and_then(|jid| FullJid::new(jid.as_str()).ok());
        let Some(mut bound) = jid.and_then(|jid| self.bound(jid)) else {
            return self.upstream_error();
        };
        // XEP-0198 §4: both counters are zero from here on, for the features are no stanza.
        bound.enabled = inline.enable.map(|enable| enable.grant(self.dice));
        bound.inactive = inline.inactive;
        let hold = self.settings.push.max_hibernation_timeout;
        let enabled = bound.enabled.as_ref().map(|enabled| enabled.nonza(hold));
        self.write_client(rewrite::sasl2::welcome(success, enabled, failed));
        self.state = State::Welcomed(Some(bound));
    }

    /// XEP-0388 §2.6.3: the features follow at once, without a restart.
    pub(super) fn features_follow(&mut self, features: &Element) {
        let State::Welcomed(bound) = std::mem::replace(&mut self.state, State::Binding) else { return };
        let bind2 = |bound: &Bound| Phase::Bound { managed: bound.enabled.is_some() };
        self.authenticated_features(features, bound.as_deref().map_or(Phase::Authenticated, bind2));
        if let Some(bound) = bound {
            self.become_session(bound);
        }
    }

    pub(super) fn authenticated_features(&mut self, element: &Element, phase: Phase) {
        self.answered();
        let offer = self.offer(element, phase, self.settings.stanza);
        (self.server_csi, self.server_sm) = (offer.csi, offer.sm);
        self.write_client(offer.shown.clone());
        self.state = State::Binding;
    }
}

/// Whom the server let in.
fn authorized(success: &Element) -> Option<Jid> {
    Some(Jid::new(&success.node().child("authorization-identifier", ns::SASL2)?.text()))
}
