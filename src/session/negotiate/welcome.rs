//! The phase after SASL2's `<success/>` (XEP-0388 §2.6). It leads to a held session, to a session that was bound inside the
//! login, or to features for binding.

use bytes::Bytes;

use super::binding::{AwaitingBind, BindStep};
use super::contract::{Ended, LoginOutput};
use super::end::LoginEnd;
use super::inline::{BindRequests, Inline, InlineResume};
use super::legs::Legs;
use super::login::AcceptedLogin;
use super::streams::Streams;
use crate::jid::{FullJid, Jid};
use crate::session::rewrite::FeaturesPhase;
use crate::session::sm::nonza;
use crate::session::{Bound, Resumption, ResumptionTokens, Settings, rewrite};
use crate::xml::{Element, StanzaCondition, ns};

/// A `<success/>` of SASL2 that has not been sent to the client.
#[derive(Debug)]
pub(super) struct Sasl2Success {
    streams: Streams,
    login: AcceptedLogin,
    element: Element,
    resume: InlineResume,
    bind: BindRequests,
}

/// The result of a `<success/>`.
#[derive(Debug)]
pub(super) enum LoginSuccess {
    /// A held session gets the connection.
    HandingOver(Box<HandingOver>),
    /// The `<success/>` was sent to the client.
    Welcomed(Box<Welcomed>),
}

impl Sasl2Success {
    /// Creates the answer to an `<authenticate/>` with these requests. Only the account named by the server counts
    /// (XEP-0388 §2.6.1, invariant 4).
    pub(super) fn new(streams: Streams, login: AcceptedLogin, element: Element, inline: Inline) -> Self {
        let login = login.of_account(authorized(&element).map(|jid| jid.to_bare()));
        Self { streams, login, element, resume: inline.resume, bind: inline.bind }
    }

    /// Resumes the requested session if it belongs to the login's account. Otherwise welcomes the client.
    pub(super) fn admit(mut self, settings: &Settings, legs: &mut Legs) -> Result<LoginSuccess, LoginEnd> {
        self.login.claim(legs);
        let failed = match std::mem::take(&mut self.resume) {
            InlineResume::None => None,
            InlineResume::Held(resume, held) if self.login.account() == Some(&held.account) => {
                legs.out(LoginOutput::HandOver {
                    id: resume.previd,
                    resumption: Resumption {
                        h: resume.h,
                        server_header: self.streams.server_header().clone(),
                        success: Some(self.element.clone()),
                        tokens: ResumptionTokens::default(),
                    },
                });
                return Ok(LoginSuccess::HandingOver(Box::new(HandingOver(self))));
            }
            InlineResume::Held(..) => Some(self.login.not_found(None)),
            InlineResume::Unknown(ended) => Some(self.login.not_found(ended)),
            InlineResume::Malformed => Some(nonza::failed(StanzaCondition::BadRequest, None)),
        };
        let welcomed = self.welcome(failed, settings, legs)?;
        Ok(LoginSuccess::Welcomed(Box::new(welcomed)))
    }

    /// Sends the client its `<success/>` without a resumption. Without a `<bound/>`, the client binds once it has the
    /// features.
    fn welcome(self, failed: Option<Bytes>, settings: &Settings, legs: &mut Legs) -> Result<Welcomed, LoginEnd> {
        let Self { streams, login, element, bind, .. } = self;
        if element.node().child("bound", ns::BIND2).is_none() {
            legs.write_client(rewrite::sasl2::welcome(&element, None, failed));
            return Ok(Welcomed { streams, next: AfterWelcome::Bind(login) });
        }
        let jid = authorized(&element).and_then(|jid| FullJid::new(jid.as_str()).ok()).ok_or(LoginEnd::ServerError)?;
        let mut bound = login.bound(jid, &streams);
        // XEP-0198 §4: both counters are zero from here on, because the features are not a stanza.
        bound.enabled = bind.enable.map(|enable| enable.grant(&settings.sm_ids, legs.random_source()));
        bound.inactive = bind.inactive;
        let hold = settings.hibernation.max_timeout;
        let enabled = bound.enabled.as_ref().map(|enabled| enabled.nonza(hold));
        legs.write_client(rewrite::sasl2::welcome(&element, enabled, failed));
        Ok(Welcomed { streams, next: AfterWelcome::Session(bound) })
    }
}

/// A held session gets the connection. If that fails, the client gets the `<success/>`.
#[derive(Debug)]
pub(super) struct HandingOver(Sasl2Success);

impl HandingOver {
    /// Takes the notice that the session has ended. The client is welcomed without it.
    pub(super) fn on_gone(
        self,
        ended: Option<Ended>,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<Welcomed, LoginEnd> {
        let failed = self.0.login.not_found(ended);
        self.0.welcome(Some(failed), settings, legs)
    }
}

/// The `<success/>` was sent to the client. The server's features follow at once, without a restart (XEP-0388 §2.6.3).
#[derive(Debug)]
pub(super) struct Welcomed {
    streams: Streams,
    next: AfterWelcome,
}

#[derive(Debug)]
enum AfterWelcome {
    /// The client binds.
    Bind(AcceptedLogin),
    /// The session that was bound inside the login begins.
    Session(Box<Bound>),
}

impl Welcomed {
    /// Takes the server's features.
    pub(super) fn on_features(self, features: &Element, settings: &Settings, legs: &mut Legs) -> BindStep {
        let phase = match &self.next {
            AfterWelcome::Bind(_) => FeaturesPhase::Authenticated,
            AfterWelcome::Session(bound) => FeaturesPhase::Bound { managed: bound.enabled.is_some() },
        };
        let offer = self.streams.offer(features, phase, settings);
        legs.write_client(offer.shown.clone());
        match self.next {
            AfterWelcome::Bind(login) => BindStep::Unbound(Box::new(AwaitingBind::new(self.streams, login, &offer))),
            AfterWelcome::Session(mut bound) => {
                bound.server = offer.server;
                BindStep::Session(bound)
            }
        }
    }
}

/// The JID that the server names as the client's.
fn authorized(success: &Element) -> Option<Jid> {
    Some(Jid::new(&success.node().child("authorization-identifier", ns::SASL2)?.text()))
}
