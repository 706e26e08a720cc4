//! Requests inside `<authenticate/>` (XEP-0388 §2.3): to resume, or to bind with stream management.

use super::contract::Ended;
use super::proof::HeldSession;
use crate::push::fast::TokenMechanism;
use crate::session::TokenWish;
use crate::session::sm::nonza;
use crate::xml::{Node, ns};

/// The requests that are answered here and not forwarded.
#[derive(Debug, Default)]
pub(super) struct Inline {
    /// The request to resume.
    pub(super) resume: InlineResume,
    /// The requests for the session that is bound.
    pub(super) bind: BindRequests,
    /// `<request-token/>` (XEP-0484 §3.3).
    pub(super) token: Option<TokenWish>,
}

/// The requests inside `<bind/>` (XEP-0386 §3).
#[derive(Debug, Default)]
pub(super) struct BindRequests {
    /// True if there is a `<bind/>`.
    pub(super) is_present: bool,
    /// The text of `<tag/>`.
    pub(super) tag: Option<String>,
    /// `<enable/>` of message carbons (XEP-0280 §4).
    pub(super) carbons: bool,
    /// `<enable/>`.
    pub(super) enable: Option<nonza::Enable>,
    /// `<inactive/>`.
    pub(super) inactive: bool,
}

/// The request to resume, and the result of the lookup that precedes the login.
#[derive(Debug, Default)]
pub(super) enum InlineResume {
    /// There is no request.
    #[default]
    None,
    /// The session exists. A login of its account resumes it.
    Held(nonza::Resume, HeldSession),
    /// The session does not exist. If it ended in order, contains the count of stanzas that it had handled.
    Unknown(Option<Ended>),
    /// The request does not name a session.
    Malformed,
}

/// Returns the mechanism for which an `<authenticate/>` requests a token.
pub(super) fn token_request(authenticate: &Node<'_>) -> Option<TokenMechanism> {
    TokenMechanism::parse(&authenticate.child("request-token", ns::FAST)?.attr("mechanism")?)
}

impl BindRequests {
    /// Reads the requests in an `<authenticate/>`.
    pub(super) fn read(authenticate: &Node<'_>) -> Self {
        let bind = authenticate.child("bind", ns::BIND2);
        let enable = bind.and_then(|bind| bind.child("enable", ns::SM)).map(|enable| nonza::Enable::read(&enable));
        let has = |name, ns| bind.is_some_and(|bind| bind.child(name, ns).is_some());
        let tag = bind.and_then(|bind| bind.child("tag", ns::BIND2)).map(|tag| tag.text().into_owned());
        let (carbons, inactive) = (has("enable", ns::CARBONS), has("inactive", ns::CSI));
        Self { is_present: bind.is_some(), tag, carbons, enable, inactive }
    }
}
