//! The time after SASL2's `<success/>` (XEP-0388 §2.6): it leads to a held session, to one that was bound with it, or to
//! features to bind by.

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
use crate::session::{Bound, Resumption, Settings, rewrite};
use crate::xml::{Element, StanzaCondition, ns};

/// A `<success/>` of SASL2 that the client has not got yet.
#[derive(Debug)]
pub(super) struct Sasl2Success {
    streams: Streams,
    login: AcceptedLogin,
    element: Element,
    resume: InlineResume,
    bind: BindRequests,
}

/// What follows a `<success/>`.
#[derive(Debug)]
pub(super) enum LoginSuccess {
    /// A held session gets the connection.
    HandingOver(HandingOver),
    /// The client has its `<success/>`.
    Welcomed(Welcomed),
}

impl Sasl2Success {
    /// The answer to an `<authenticate/>` with these requests. The account is the one that the server names: nothing else
    /// counts (XEP-0388 §2.6.1, invariant 4).
    pub(super) fn new(streams: Streams, login: AcceptedLogin, element: Element, inline: Inline) -> Self {
        let login = login.of_account(authorized(&element).map(|jid| jid.to_bare()));
        Self { streams, login, element, resume: inline.resume, bind: inline.bind }
    }

    /// Resumes the session that was asked for, if it is the login's; else welcomes the client.
    pub(super) fn admit(mut self, settings: &Settings, legs: &mut Legs) -> Result<LoginSuccess, LoginEnd> {
        let failed = match std::mem::take(&mut self.resume) {
            InlineResume::None => None,
            InlineResume::Held(resume, account) if self.login.account() == Some(&account) => {
                legs.out(LoginOutput::HandOver {
                    id: resume.previd,
                    resumption: Resumption {
                        h: resume.h,
                        server_header: self.streams.server_header().clone(),
                        success: Some(self.element.clone()),
                    },
                });
                return Ok(LoginSuccess::HandingOver(HandingOver(self)));
            }
            InlineResume::Held(..) => Some(self.login.not_found(None)),
            InlineResume::Unknown(ended) => Some(self.login.not_found(ended)),
            InlineResume::Malformed => Some(nonza::failed(StanzaCondition::BadRequest, None)),
        };
        self.welcome(failed, settings, legs).map(LoginSuccess::Welcomed)
    }

    /// The client is let in, and resumes nothing. Without a `<bound/>` it binds once it has the features.
    fn welcome(self, failed: Option<Bytes>, settings: &Settings, legs: &mut Legs) -> Result<Welcomed, LoginEnd> {
        let Self { streams, login, element, bind, .. } = self;
        if element.node().child("bound", ns::BIND2).is_none() {
            legs.write_client(rewrite::sasl2::welcome(&element, None, failed));
            return Ok(Welcomed { streams, next: AfterWelcome::Bind(login) });
        }
        let jid = authorized(&element).and_then(|jid| FullJid::new(jid.as_str()).ok()).ok_or(LoginEnd::ServerError)?;
        let mut bound = login.bound(jid, &streams);
        // XEP-0198 §4: both counters are zero from here on, for the features are no stanza.
        bound.enabled = bind.enable.map(|enable| enable.grant(legs.random_source()));
        bound.inactive = bind.inactive;
        let hold = settings.hibernation.max_timeout;
        let enabled = bound.enabled.as_ref().map(|enabled| enabled.nonza(hold));
        legs.write_client(rewrite::sasl2::welcome(&element, enabled, failed));
        Ok(Welcomed { streams, next: AfterWelcome::Session(bound) })
    }
}

/// A held session gets the connection. If that fails, the `<success/>` is for the client.
#[derive(Debug)]
pub(super) struct HandingOver(Sasl2Success);

impl HandingOver {
    /// The session is not there any more.
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

/// The client has its `<success/>`: the server's features follow at once, without a restart (XEP-0388 §2.6.3).
#[derive(Debug)]
pub(super) struct Welcomed {
    streams: Streams,
    next: AfterWelcome,
}

#[derive(Debug)]
enum AfterWelcome {
    /// The client binds.
    Bind(AcceptedLogin),
    /// The session begins that was bound with the login.
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

/// The JID that the server let in.
fn authorized(success: &Element) -> Option<Jid> {
    Some(Jid::new(&success.node().child("authorization-identifier", ns::SASL2)?.text()))
}
