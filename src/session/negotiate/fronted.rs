//! The login after the server's `<success/>` if Pushward offers SASL2 in front of a server that lacks it.
//!
//! ```text
//!  proven <resume/> ─▶ HandingOver ─▶ handed over
//!                        │ gone
//!  otherwise ────────────┴─▶ Header ─▶ Features ─┬─▶ Bind ─▶ Extras ─▶ <success/> with <bound/>, features: bound
//!                                                └─▶ <success/>, features: the client binds
//! ```
//!
//! The stream to the server restarts, and the client's goes on. The client gets one `<success/>`, after everything that it asked
//! for inside its `<authenticate/>` is done. What Pushward writes there proves nothing: a resumption needs the proof that it needs
//! after SASL of RFC 6120 (`proof`).

mod early_frames;
mod extras;

use bytes::Bytes;

use super::binding::{AwaitingBind, BindQuestion, BindStep, bound_jid, is_bind_answer};
use super::contract::{Ended, LoginOutput, ServerAnswer};
use super::end::LoginEnd;
use super::inline::{BindRequests, Inline, InlineResume};
use super::legs::Legs;
use super::login::AcceptedLogin;
use super::streams::Streams;
use crate::jid::{self, BareJid, FullJid};
use crate::push::fast::IssuedToken;
use crate::session::rewrite::FeaturesPhase;
use crate::session::rewrite::fronted::{BoundParts, Success, bound, success, token};
use crate::session::sm::nonza;
use crate::session::{Resumption, ResumptionTokens, Settings, TokenWish};
use crate::xml::{Element, Frame, Header, Kind, Node, Skipped, StanzaCondition, XmlWriter, ns};
use early_frames::EarlyFrames;
use extras::Extras;

/// A login that the server has accepted. The client waits for its `<success/>`.
#[derive(Debug)]
pub(super) struct FrontedLogin {
    streams: Streams,
    login: AcceptedLogin,
    /// The data of the server's `<success/>`.
    additional_data: Option<String>,
    requests: BindRequests,
    wish: Option<TokenWish>,
    /// The token that was issued.
    token: Option<IssuedToken>,
    /// The `<failed/>` that answers a request to resume.
    failed: Option<Bytes>,
    phase: FrontedPhase,
    /// Frames for the client that the server has sent since the restart.
    early: EarlyFrames,
}

#[derive(Debug)]
enum FrontedPhase {
    /// A held session gets the connection.
    HandingOver,
    /// The server's header is awaited.
    Header,
    /// The server's features are awaited.
    Features,
    /// The result of our bind request is awaited.
    Bind {
        /// Its iq id.
        id: String,
        features: Element,
    },
    /// The answers to further requests are awaited.
    Extras { jid: FullJid, features: Element, extras: Extras },
    /// The client binds by itself. Its token is being issued.
    Unbound { features: Element },
}

/// The result of an event.
#[derive(Debug)]
pub(super) enum FrontedStep {
    /// The client still waits for its `<success/>`.
    GoesOn(Box<FrontedLogin>),
    /// The client has its `<success/>`.
    Welcomed(BindStep),
}

impl FrontedLogin {
    /// Resumes the requested session if this login proves its account. Otherwise restarts the stream to the server.
    pub(super) fn begin(
        streams: Streams,
        login: AcceptedLogin,
        additional_data: Option<String>,
        inline: Inline,
        legs: &mut Legs,
    ) -> Result<Box<Self>, LoginEnd> {
        let (phase, early) = (FrontedPhase::Header, EarlyFrames::default());
        let (requests, wish) = (inline.bind, inline.token);
        let mut fronted =
            Box::new(Self { streams, login, additional_data, requests, wish, token: None, failed: None, phase, early });
        match inline.resume {
            InlineResume::Held(resume, held) if fronted.login.is_proven(&held) => fronted.hand_over(resume, legs)?,
            InlineResume::None => fronted.restart(None, legs),
            InlineResume::Malformed => fronted.restart(Some(nonza::failed(StanzaCondition::BadRequest, None)), legs),
            InlineResume::Held(..) => fronted.restart(Some(fronted.login.not_found(None)), legs),
            InlineResume::Unknown(ended) => fronted.restart(Some(fronted.login.not_found(ended)), legs),
        }
        Ok(fronted)
    }

    fn hand_over(&mut self, resume: nonza::Resume, legs: &mut Legs) -> Result<(), LoginEnd> {
        let server_header = self.streams.server_header().clone();
        let success = Element::parse(self.success(None, None)?, &server_header).map_err(|_| LoginEnd::ServerError)?;
        let tokens = ResumptionTokens { proof: None, wish: self.wish.clone() };
        let resumption = Resumption { h: resume.h, server_header, success: Some(success), tokens };
        legs.out(LoginOutput::HandOver { id: resume.previd, resumption });
        self.phase = FrontedPhase::HandingOver;
        Ok(())
    }

    fn restart(&mut self, failed: Option<Bytes>, legs: &mut Legs) {
        self.failed = failed;
        legs.restart_server(self.streams.client_header());
        self.phase = FrontedPhase::Header;
    }

    /// Takes the token that was issued for this login.
    pub(super) fn on_token(
        mut self: Box<Self>,
        issued: Option<IssuedToken>,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<FrontedStep, LoginEnd> {
        self.token = issued;
        match &self.phase {
            FrontedPhase::Extras { extras, .. } if extras.are_done() => self.welcome_bound(settings, legs),
            FrontedPhase::Unbound { features } => {
                let features = features.clone();
                self.welcome_unbound(&features, settings, legs)
            }
            FrontedPhase::HandingOver
            | FrontedPhase::Header
            | FrontedPhase::Features
            | FrontedPhase::Bind { .. }
            | FrontedPhase::Extras { .. } => Ok(FrontedStep::GoesOn(self)),
        }
    }

    /// The account that the server has let in, as far as it is known.
    pub(super) fn account(&self) -> Option<&BareJid> {
        self.login.announced()
    }

    /// The answer that the server has to send next.
    pub(super) fn awaits(&self) -> Option<ServerAnswer> {
        match self.phase {
            FrontedPhase::HandingOver | FrontedPhase::Unbound { .. } => None,
            FrontedPhase::Header => Some(ServerAnswer::Header),
            FrontedPhase::Features => Some(ServerAnswer::Features),
            FrontedPhase::Bind { .. } => Some(ServerAnswer::Bind),
            FrontedPhase::Extras { .. } => Some(ServerAnswer::Extras),
        }
    }

    /// Takes the notice that the session ended before it got the connection.
    pub(super) fn on_gone(&mut self, ended: Option<Ended>, legs: &mut Legs) {
        if let FrontedPhase::HandingOver = self.phase {
            let failed = self.login.not_found(ended);
            self.restart(Some(failed), legs);
        }
    }

    /// Takes the server's header. The client has the first one: stanzas that depend on other declarations could not be passed on.
    pub(super) fn on_header(&mut self, header: &Header) -> Result<(), LoginEnd> {
        let (FrontedPhase::Header, true) = (&self.phase, self.streams.server_header().declares_the_same(header)) else {
            return Err(LoginEnd::ServerError);
        };
        self.phase = FrontedPhase::Features;
        Ok(())
    }

    /// Takes an element of the server.
    pub(super) fn on_server(
        mut self: Box<Self>,
        element: &Element,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<FrontedStep, LoginEnd> {
        let node = element.node();
        match &mut self.phase {
            FrontedPhase::HandingOver | FrontedPhase::Header | FrontedPhase::Unbound { .. } => {
                return Err(LoginEnd::ServerError);
            }
            FrontedPhase::Features if node.is("features", ns::STREAMS) => {
                return self.on_features(element, settings, legs);
            }
            FrontedPhase::Bind { id, .. }
                if is_bind_answer(
                    element,
                    &node,
                    &BindQuestion { id: id.as_str(), host: self.streams.host(), account: None },
                ) =>
            {
                let jid = bound_jid(&node);
                let is_error = node.attr("type").as_deref() == Some("error");
                return self.on_bind_answer(jid, is_error, settings, legs);
            }
            FrontedPhase::Extras { extras, jid, .. } => {
                if extras.on_answer(element, jid, self.streams.host(), settings) {
                    let are_done = extras.are_done();
                    return if are_done { self.welcome_bound(settings, legs) } else { Ok(FrontedStep::GoesOn(self)) };
                }
            }
            FrontedPhase::Features | FrontedPhase::Bind { .. } => {}
        }
        if element.kind() == Kind::Other {
            return Err(LoginEnd::ServerError);
        }
        self.keep(Frame::Element(element.clone()), settings, legs)
    }

    /// Takes a skipped element of the server. The login cannot continue without the answer to a bind.
    pub(super) fn on_skipped(
        self: Box<Self>,
        skipped: Box<Skipped>,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<FrontedStep, LoginEnd> {
        let element = &skipped.element;
        let is_answer = match &self.phase {
            FrontedPhase::HandingOver
            | FrontedPhase::Header
            | FrontedPhase::Features
            | FrontedPhase::Unbound { .. }
            | FrontedPhase::Extras { .. } => element.kind() == Kind::Other,
            FrontedPhase::Bind { id, .. } => {
                let question = BindQuestion { id, host: self.streams.host(), account: None };
                element.kind() == Kind::Other || is_bind_answer(element, &element.node(), &question)
            }
        };
        if is_answer {
            return Err(LoginEnd::ServerError);
        }
        self.keep(Frame::Skipped(skipped), settings, legs)
    }

    /// Keeps a frame for the client until it has its `<success/>`.
    fn keep(mut self: Box<Self>, frame: Frame, settings: &Settings, legs: &mut Legs) -> Result<FrontedStep, LoginEnd> {
        self.early.push(frame);
        match self.phase {
            FrontedPhase::Extras { .. } if self.early.is_full() => self.welcome_bound(settings, legs),
            _ if self.early.is_full() => Err(LoginEnd::ServerError),
            FrontedPhase::HandingOver
            | FrontedPhase::Header
            | FrontedPhase::Features
            | FrontedPhase::Bind { .. }
            | FrontedPhase::Unbound { .. }
            | FrontedPhase::Extras { .. } => Ok(FrontedStep::GoesOn(self)),
        }
    }

    /// Binds, if the client has asked for it and the server offers it.
    fn on_features(
        mut self: Box<Self>,
        features: &Element,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<FrontedStep, LoginEnd> {
        if !self.requests.is_present || features.node().child("bind", ns::BIND).is_none() {
            return self.leave_unbound(features, settings, legs);
        }
        let account = self.login.announced().ok_or(LoginEnd::ServerError)?;
        let (tag, agent) = (self.requests.tag.as_deref(), self.login.agent());
        let resource = settings.fronting.resource(tag, account, agent, legs.random());
        if let Some(proof) = self.login.proof() {
            legs.out(LoginOutput::Release { proof, resource: jid::resource(&resource).into_owned() });
        }
        let id = legs.random_id();
        let mut xml = XmlWriter::new();
        xml.start("iq").attr("type", "set").attr("id", &id).start("bind").attr("xmlns", ns::BIND);
        xml.start("resource").text(&resource);
        legs.write_server(xml.finish());
        self.phase = FrontedPhase::Bind { id, features: features.clone() };
        Ok(FrontedStep::GoesOn(self))
    }

    fn on_bind_answer(
        mut self: Box<Self>,
        jid: Option<FullJid>,
        is_error: bool,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<FrontedStep, LoginEnd> {
        let FrontedPhase::Bind { features, .. } = std::mem::replace(&mut self.phase, FrontedPhase::Features) else {
            return Err(LoginEnd::ServerError);
        };
        let jid = match jid {
            Some(jid) if !is_error => jid,
            _ if is_error => return self.leave_unbound(&features, settings, legs),
            _ => return Err(LoginEnd::ServerError),
        };
        let needs_session = requires_session(&features.node());
        let parts = settings.fronting.parts(self.streams.host());
        let extras = Extras::ask(&self.requests, needs_session, parts, legs);
        // The server has named the account now.
        let wish = self.wish.take();
        let are_done = extras.are_done() && wish.is_none();
        if let Some(wish) = wish {
            legs.out(LoginOutput::IssueToken { account: jid.to_bare(), wish, authcid: None });
        }
        self.phase = FrontedPhase::Extras { jid, features, extras };
        if are_done { self.welcome_bound(settings, legs) } else { Ok(FrontedStep::GoesOn(self)) }
    }

    /// Takes the notice that the server has not answered in time. It may leave requests unanswered that complete a bind.
    pub(super) fn on_late(self: Box<Self>, settings: &Settings, legs: &mut Legs) -> Result<FrontedStep, LoginEnd> {
        match self.phase {
            FrontedPhase::Extras { .. } => self.welcome_bound(settings, legs),
            FrontedPhase::HandingOver
            | FrontedPhase::Header
            | FrontedPhase::Features
            | FrontedPhase::Unbound { .. }
            | FrontedPhase::Bind { .. } => Err(LoginEnd::ServerSilent),
        }
    }

    /// Leaves the bind to the client. The server has not named the account, so a token opens only sessions of the same login.
    fn leave_unbound(
        mut self: Box<Self>,
        features: &Element,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<FrontedStep, LoginEnd> {
        let (account, authcid) = (self.login.announced().cloned(), self.login.authcid());
        let (Some(wish), Some(account), Some(authcid)) = (self.wish.take(), account, authcid) else {
            return self.welcome_unbound(features, settings, legs);
        };
        legs.out(LoginOutput::IssueToken { account, wish, authcid: Some(authcid) });
        self.phase = FrontedPhase::Unbound { features: features.clone() };
        Ok(FrontedStep::GoesOn(self))
    }

    /// Sends the client its `<success/>` and the features with which it binds.
    fn welcome_unbound(
        self: Box<Self>,
        features: &Element,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<FrontedStep, LoginEnd> {
        legs.write_client(self.success(None, None)?);
        legs.out(LoginOutput::RoundTripsSaved(1));
        let offer = self.streams.offer(features, FeaturesPhase::Authenticated, settings);
        legs.write_client(offer.shown.clone());
        for frame in &self.early.frames {
            match frame {
                Frame::Element(element) => legs.pass_to_client(element),
                Frame::Skipped(skipped) => {
                    super::binding::pass_skipped_answer(&skipped.element, &skipped.element.node(), legs);
                }
                Frame::Open(_) | Frame::Whitespace | Frame::Close => {}
            }
        }
        Ok(FrontedStep::Welcomed(BindStep::Unbound(Box::new(AwaitingBind::new(self.streams, self.login, &offer)))))
    }

    /// Sends the client its `<success/>` with `<bound/>`, and the features of a bound stream. The session begins.
    fn welcome_bound(self: Box<Self>, settings: &Settings, legs: &mut Legs) -> Result<FrontedStep, LoginEnd> {
        let FrontedPhase::Extras { jid, features, extras } = &self.phase else { return Err(LoginEnd::ServerError) };
        // XEP-0198 §4: both counters are zero from here on, because the features are not a stanza.
        let enabled = self.requests.enable.map(|enable| enable.grant(&settings.sm_ids, legs.random_source()));
        let nonza = enabled.as_ref().map(|enabled| enabled.nonza(settings.hibernation.max_timeout));
        let parts =
            BoundParts { carbons: extras.has_carbons(), metadata: extras.metadata(), enabled: nonza.as_deref() };
        legs.write_client(self.success(Some(jid), Some(&bound(parts)))?);
        let phase = FeaturesPhase::Bound { managed: enabled.is_some() };
        let offer = self.streams.offer(features, phase, settings);
        legs.write_client(offer.shown.clone());
        // The restart of the stream, the bind, and the requests that follow it.
        let saved = 2 + u32::from(enabled.is_some()) + u32::from(extras.has_carbons());
        legs.out(LoginOutput::RoundTripsSaved(saved));
        let (jid, asked) = (jid.clone(), extras.unanswered());
        let mut bound = self.login.bound(jid, &self.streams);
        (bound.enabled, bound.inactive, bound.server) = (enabled, self.requests.inactive, offer.server);
        (bound.early, bound.asked) = (self.early.frames, asked);
        Ok(FrontedStep::Welcomed(BindStep::Session(bound)))
    }

    /// Returns the `<success/>`: of a client with this JID, or of one that has not bound.
    fn success(&self, jid: Option<&FullJid>, bound: Option<&[u8]>) -> Result<Bytes, LoginEnd> {
        let announced = self.login.announced().ok_or(LoginEnd::ServerError)?;
        let identifier = jid.map_or(announced.as_str(), |jid| jid.as_str());
        let (additional_data, failed) = (self.additional_data.as_deref(), self.failed.as_deref());
        let token = self.token.as_ref().map(token);
        Ok(success(Success { additional_data, identifier, bound, failed, token: token.as_deref() }))
    }
}

/// Returns whether a server wants a session to be established after the bind (RFC 3921 §3).
fn requires_session(features: &Node<'_>) -> bool {
    let session = features.child("session", ns::SESSION);
    session.is_some_and(|session| session.child("optional", ns::SESSION).is_none())
}
