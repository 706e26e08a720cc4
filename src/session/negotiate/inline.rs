//! What a client asks for inside `<authenticate/>` beside being let in (XEP-0388 §2.3): to resume, or to bind with stream
//! management.

use super::{Claim, Ended, Held, Negotiation, Output, State};
use crate::jid::{BareJid, Jid};
use crate::session::rewrite::sasl2::{InlineBind, authenticate};
use crate::session::sasl::Profile;
use crate::session::sm;
use crate::xml::{Element, Node, ns};

/// Bytes of a user agent's id that are worth keeping: it should be a UUID (XEP-0388 §2.3).
const AGENT_ID: usize = 256;

/// What is asked for, and was not forwarded.
#[derive(Debug, Default)]
pub(super) struct Inline {
    pub(super) resume: Resume,
    /// XEP-0386 §3: `<enable/>` inside `<bind/>`.
    pub(super) enable: Option<sm::nonza::Enable>,
    /// XEP-0386 §3: `<inactive/>` inside `<bind/>`.
    pub(super) inactive: bool,
}

/// What became of the wish to resume, before the server is asked who this is.
#[derive(Debug, Default)]
pub(super) enum Resume {
    #[default]
    Unasked,
    /// The session is there; whose login resumes it.
    Held(Claim, BareJid),
    /// It is not; what it had handled, if it ended in order.
    Unknown(Option<Ended>),
    /// It was not said what to resume.
    Malformed,
}

/// An `<authenticate/>` that waits for the answer to whether its session is there.
#[derive(Debug)]
pub(super) struct Ask {
    element: Element,
    claim: Claim,
    inline: Inline,
}

impl Inline {
    fn read(node: &Node<'_>) -> Self {
        let bind = node.child("bind", ns::BIND2);
        let enable = bind.and_then(|bind| bind.child("enable", ns::SM)).map(|enable| sm::nonza::Enable::read(&enable));
        let inactive = bind.is_some_and(|bind| bind.child("inactive", ns::CSI).is_some());
        Self { resume: Resume::Unasked, enable, inactive }
    }
}

impl Negotiation {
    /// An `<authenticate/>`. Whether it resumes is decided before the server gets it: a bind for a session that is going to be
    /// resumed would make the server end it.
    pub(super) fn client_asks(&mut self, element: &Element) {
        let node = element.node();
        self.begin(Profile::Sasl2, &node);
        let id = node.child("user-agent", ns::SASL2).and_then(|agent| agent.attr("id"));
        self.agent = id.map(|id| id.into_owned()).filter(|id| !id.is_empty() && id.len() <= AGENT_ID);
        let mut inline = Inline::read(&node);
        let Some(resume) = node.child("resume", ns::SM) else {
            return self.forward_authenticate(element, inline);
        };
        let Some(claim) = Claim::read(&resume) else {
            inline.resume = Resume::Malformed;
            return self.forward_authenticate(element, inline);
        };
        self.look_for(&claim);
        self.state = State::Deciding(Box::new(Ask { element: element.clone(), claim, inline }));
    }

    pub(super) fn decided(&mut self, ask: Ask, held: Result<Held, Option<Ended>>) {
        let Ask { element, claim, mut inline } = ask;
        inline.resume = match held {
            Ok(held) if self.may_be(&held.account) => Resume::Held(claim, held.account),
            // It proves nothing yet, but it is no use either to come for the session of somebody else.
            Ok(_) => Resume::Unknown(None),
            Err(ended) => Resume::Unknown(ended),
        };
        self.forward_authenticate(&element, inline);
    }

    /// Whether the client claims to be this account, or nobody in particular.
    fn may_be(&self, account: &BareJid) -> bool {
        let from = self.client_header.as_ref().and_then(|header| header.from());
        let same = |from: &str| Jid::new(from).bare() == account.as_str();
        self.host == account.domain() && from.is_none_or(same)
    }

    fn forward_authenticate(&mut self, element: &Element, inline: Inline) {
        let bind = match inline.resume {
            Resume::Held(..) => InlineBind::Withhold,
            Resume::Unasked | Resume::Unknown(_) | Resume::Malformed => InlineBind::Forward,
        };
        self.out(Output::ToUpstream(authenticate(element, bind)));
        self.inline = inline;
        self.state = State::Authenticating { answer_due: true };
    }
}
