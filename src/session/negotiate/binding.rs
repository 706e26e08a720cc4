//! Binding (RFC 6120 §7) and resumption (XEP-0198 §5). The full JID in the server's bind result identifies the new session.
//! The server must prove the account of a session before it is resumed (invariant 4).

use super::contract::{Ended, LoginOutput, ServerAnswer};
use super::end::LoginEnd;
use super::legs::Legs;
use super::login::AcceptedLogin;
use super::proof::HeldSession;
use super::streams::Streams;
use crate::jid::{self, BareJid, FullJid};
use crate::session::answer::unreadable;
use crate::session::mechanism_filter::UpstreamWarning;
use crate::session::rewrite::offers::{Offer, ServerFeatures};
use crate::session::sender::is_host;
use crate::session::sm::nonza;
use crate::session::{Bound, Resumption, ResumptionTokens};
use crate::xml::{Element, Kind, Node, StanzaCondition, XmlWriter, ns};

/// A login that was accepted. The client binds or resumes.
#[derive(Debug)]
pub(super) struct AwaitingBind {
    streams: Streams,
    login: AcceptedLogin,
    server: ServerFeatures,
    request: BindRequest,
    /// True if the stream to the server was bound by Pushward's own bind request.
    probed: bool,
}

/// The request of the client that waits for an answer.
#[derive(Debug)]
enum BindRequest {
    None,
    /// A bind with this iq id; empty if it has none.
    Bind(String),
    /// The registry is asked for the session.
    Find(nonza::Resume),
    /// The server is asked for the account by a bind of our own.
    Probe {
        /// Its iq id.
        id: String,
        resume: nonza::Resume,
        /// The account of the session.
        account: BareJid,
    },
    /// The session gets the connection.
    HandOver,
}

/// The result of an event.
#[derive(Debug)]
pub(super) enum BindStep {
    /// The client has not bound yet.
    Unbound(Box<AwaitingBind>),
    /// The session begins.
    Session(Box<Bound>),
}

impl AwaitingBind {
    /// Creates the state after the client got these features of the server.
    pub(super) fn new(streams: Streams, login: AcceptedLogin, offer: &Offer) -> Self {
        Self { streams, login, server: offer.server, request: BindRequest::None, probed: false }
    }

    /// Returns whether the client's next element can be taken now.
    pub(super) fn can_read_client(&self) -> bool {
        matches!(self.request, BindRequest::None)
    }

    /// The account of the login, as far as it is known.
    pub(super) fn account(&self) -> Option<BareJid> {
        self.login.likely_account()
    }

    /// The answer that the server has to send next, if any.
    pub(super) fn awaits(&self) -> Option<ServerAnswer> {
        match self.request {
            BindRequest::Bind(_) | BindRequest::Probe { .. } => Some(ServerAnswer::Bind),
            BindRequest::None | BindRequest::Find(_) | BindRequest::HandOver => None,
        }
    }

    /// Takes an element of the client.
    pub(super) fn on_client(&mut self, element: &Element, legs: &mut Legs) -> Result<(), LoginEnd> {
        if !self.can_read_client() {
            return Err(LoginEnd::OutOfOrder);
        }
        let node = element.node();
        if node.is("resume", ns::SM) {
            self.on_resume(&node, legs);
        } else if node.is("resume", ns::CLIENT) {
            // QXmpp 1.4 sends this before its first bind, with an empty `previd`, and continues once it is refused.
            legs.reply(nonza::failed(StanzaCondition::ItemNotFound, None));
        } else if node.is("enable", ns::SM) {
            legs.reply(nonza::failed(StanzaCondition::UnexpectedRequest, None));
        } else if node.is("r", ns::SM) || node.is("a", ns::SM) {
            // These have no effect before stream management is enabled.
        } else if element.kind() == Kind::Other {
            return Err(LoginEnd::not_forwarded(element.kind()));
        } else {
            self.on_stanza(element, &node, legs);
        }
        Ok(())
    }

    fn on_stanza(&mut self, element: &Element, node: &Node<'_>, legs: &mut Legs) {
        let bind = node.child("bind", ns::BIND).filter(|_| element.kind() == Kind::Iq);
        let resource = bind.and_then(|bind| bind.child("resource", ns::BIND));
        if let (Some(proof), Some(resource)) = (self.login.proof(), resource) {
            let resource = jid::resource(&resource.text()).into_owned();
            legs.out(LoginOutput::Release { proof, resource });
        }
        legs.pass_to_server(element);
        if bind.is_some() {
            self.request = BindRequest::Bind(node.attr("id").unwrap_or_default().into_owned());
        }
    }

    fn on_resume(&mut self, node: &Node<'_>, legs: &mut Legs) {
        let Some(resume) = nonza::Resume::read(node) else {
            return legs.reply(nonza::failed(StanzaCondition::BadRequest, None));
        };
        self.login.on_presented(&resume.previd);
        legs.find(&resume.previd);
        self.request = BindRequest::Find(resume);
    }

    /// Takes the answer to [`LoginOutput::Find`].
    pub(super) fn on_found(
        &mut self,
        found: Result<HeldSession, Option<Ended>>,
        legs: &mut Legs,
    ) -> Result<(), LoginEnd> {
        let BindRequest::Find(resume) = std::mem::replace(&mut self.request, BindRequest::None) else { return Ok(()) };
        match found {
            Err(ended) => self.fail_resume(ended, legs),
            Ok(held) if self.login.is_proven(&held) => {
                self.hand_over(resume, legs);
                Ok(())
            }
            Ok(held) if self.login.account().is_some() || self.streams.host() != held.account.domain() => {
                self.fail_resume(None, legs)
            }
            Ok(held) => {
                self.probe(resume, held.account, legs);
                Ok(())
            }
        }
    }

    fn probe(&mut self, resume: nonza::Resume, account: BareJid, legs: &mut Legs) {
        let id = legs.random_id();
        let mut xml = XmlWriter::new();
        xml.start("iq").attr("type", "set").attr("id", &id).start("bind").attr("xmlns", ns::BIND);
        legs.write_server(xml.finish());
        self.probed = true;
        self.request = BindRequest::Probe { id, resume, account };
    }

    fn hand_over(&mut self, resume: nonza::Resume, legs: &mut Legs) {
        let server_header = self.streams.server_header().clone();
        let resumption = Resumption { h: resume.h, server_header, success: None, tokens: ResumptionTokens::default() };
        legs.out(LoginOutput::HandOver { id: resume.previd, resumption });
        self.request = BindRequest::HandOver;
    }

    /// Takes the notice that the session ended before it got the connection.
    pub(super) fn on_gone(&mut self, ended: Option<Ended>, legs: &mut Legs) -> Result<(), LoginEnd> {
        self.fail_resume(ended, legs)
    }

    fn fail_resume(&mut self, ended: Option<Ended>, legs: &mut Legs) -> Result<(), LoginEnd> {
        legs.reply(self.login.not_found(ended));
        self.request = BindRequest::None;
        // The probe has bound the stream to the server, so the client cannot bind on it.
        if self.probed { Err(LoginEnd::ResumeRefused) } else { Ok(()) }
    }

    /// Takes an element of the server.
    pub(super) fn on_server(mut self: Box<Self>, element: &Element, legs: &mut Legs) -> Result<BindStep, LoginEnd> {
        let node = element.node();
        match &self.request {
            BindRequest::Bind(id) if self.is_bind_answer(element, &node, id) => {
                return self.on_bound(element, &node, legs);
            }
            BindRequest::Probe { id, .. } if self.is_bind_answer(element, &node, id) => self.on_probed(&node, legs)?,
            BindRequest::None | BindRequest::Bind(_) => legs.pass_to_client(element),
            // Stanzas that the server sends to the probe's resource are not for the client.
            BindRequest::Find(_) | BindRequest::Probe { .. } | BindRequest::HandOver => {}
        }
        Ok(BindStep::Unbound(self))
    }

    /// Takes a skipped element of the server. The login cannot continue without the answer to a bind.
    pub(super) fn on_skipped(&self, element: &Element, legs: &mut Legs) -> Result<(), LoginEnd> {
        let node = element.node();
        match &self.request {
            BindRequest::Bind(id) | BindRequest::Probe { id, .. } if self.is_bind_answer(element, &node, id) => {
                return Err(LoginEnd::ServerError);
            }
            BindRequest::None | BindRequest::Bind(_) => pass_skipped_answer(element, &node, legs),
            BindRequest::Find(_) | BindRequest::Probe { .. } | BindRequest::HandOver => {}
        }
        Ok(())
    }

    fn on_bound(
        mut self: Box<Self>,
        element: &Element,
        node: &Node<'_>,
        legs: &mut Legs,
    ) -> Result<BindStep, LoginEnd> {
        let jid = bound_jid(node);
        if let (Some(jid), Some(announced)) = (&jid, self.login.announced())
            && jid.to_bare() != *announced
        {
            let (host, warning) = (self.streams.host().to_owned(), UpstreamWarning::OtherAccount);
            legs.out(LoginOutput::UpstreamWarning { host, warning });
            return Err(LoginEnd::OtherAccount);
        }
        legs.pass_to_client(element);
        let Some(jid) = jid else {
            self.request = BindRequest::None;
            return Ok(BindStep::Unbound(self));
        };
        let Self { streams, login, server, .. } = *self;
        let mut bound = login.bound(jid, &streams);
        bound.server = server;
        Ok(BindStep::Session(bound))
    }

    fn on_probed(&mut self, answer: &Node<'_>, legs: &mut Legs) -> Result<(), LoginEnd> {
        let BindRequest::Probe { resume, account, .. } = std::mem::replace(&mut self.request, BindRequest::None) else {
            return Ok(());
        };
        if bound_jid(answer).is_none_or(|jid| jid.to_bare() != account) {
            return self.fail_resume(None, legs);
        }
        self.hand_over(resume, legs);
        Ok(())
    }

    fn is_bind_answer(&self, element: &Element, node: &Node<'_>, id: &str) -> bool {
        is_bind_answer(element, node, &BindQuestion { id, host: self.streams.host(), account: self.login.account() })
    }
}

/// A bind request to the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct BindQuestion<'a> {
    /// Its iq id.
    pub(super) id: &'a str,
    /// The host of the stream.
    pub(super) host: &'a str,
    /// The account of the login, if the server has named it.
    pub(super) account: Option<&'a BareJid>,
}

/// Returns whether this is the server's answer to a bind request. RFC 6120 §8.1.3 requires an id, but some clients send none:
/// Prosody binds them, and copies the missing id.
pub(super) fn is_bind_answer(element: &Element, node: &Node<'_>, question: &BindQuestion<'_>) -> bool {
    let jid = bound_jid(node).map(|jid| jid.to_bare());
    element.kind() == Kind::Iq
        && node.attr("id").unwrap_or_default() == question.id
        && matches!(node.attr("type").as_deref(), Some("result" | "error"))
        && is_host(node.attr("from").as_deref(), question.host, jid.as_ref().or(question.account))
}

/// Sends the client an error in place of an answer that was skipped.
pub(super) fn pass_skipped_answer(element: &Element, node: &Node<'_>, legs: &mut Legs) {
    if element.kind() == Kind::Iq && matches!(node.attr("type").as_deref(), Some("result" | "error")) {
        legs.write_client(unreadable(node));
    }
}

/// Returns the full JID in a bind result.
pub(super) fn bound_jid(answer: &Node<'_>) -> Option<FullJid> {
    let jid = answer.child("bind", ns::BIND)?.child("jid", ns::BIND)?.text();
    FullJid::new(&jid).ok()
}
