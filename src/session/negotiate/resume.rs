//! Resumption (XEP-0198 §5): whose session it is must be proven by the server (invariant 4).

use bytes::Bytes;

use super::binding::bound_jid;
use super::{Claim, CloseReason, Ended, Held, Negotiation, Output, State};
use crate::jid::BareJid;
use crate::session::sm::nonza;
use crate::session::{Resumption, SmId, sm};
use crate::xml::{self, Element, StanzaCondition, XmlWriter, ns};

impl Claim {
    /// Reads a `<resume/>`; nothing if it lacks what it needs.
    pub(super) fn read(node: &xml::Node<'_>) -> Option<Self> {
        let h = node.attr("h").and_then(|h| sm::Handled::parse(&h))?;
        Some(Self { id: SmId::new(node.attr("previd")?), h })
    }
}

impl Negotiation {
    pub(super) fn client_resumes(&mut self, node: &xml::Node<'_>) {
        let Some(claim) = Claim::read(node) else {
            return self.reply(nonza::failed(StanzaCondition::BadRequest, None));
        };
        self.look_for(&claim);
        self.state = State::Finding(claim);
    }

    pub(super) fn look_for(&mut self, claim: &Claim) {
        self.presented = Some(claim.id.clone());
        self.out(Output::Find(claim.id.clone()));
    }

    pub(super) fn found(&mut self, held: Result<Held, Option<Ended>>) {
        let state = std::mem::replace(&mut self.state, State::Binding);
        if let State::Deciding(ask) = state {
            return self.decided(*ask, held);
        }
        let State::Finding(claim) = state else { return };
        match held {
            Err(ended) => self.resume_failed(ended),
            // Invariant 4: proven by the server, for the very exchange that it answered with <success/>.
            Ok(held) if self.is_proven(&held) => self.hand_over(claim, None),
            Ok(held) if self.account.is_some() || self.host != held.account.domain() => self.resume_failed(None),
            Ok(held) => {
                let id = format!("{:032x}", (self.dice)());
                let mut xml = XmlWriter::new();
                xml.start("iq").attr("type", "set").attr("id", &id).start("bind").attr("xmlns", ns::BIND);
                self.out(Output::ToUpstream(xml.finish()));
                self.probed = true;
                self.state = State::Probing(id, claim, held.account);
            }
        }
    }

    pub(super) fn probe_answered(&mut self, answer: &xml::Node<'_>) {
        let State::Probing(_, claim, account) = std::mem::replace(&mut self.state, State::Binding) else {
            return;
        };
        self.answered();
        if bound_jid(answer).is_some_and(|jid| jid.to_bare() == account) {
            self.hand_over(claim, None);
        } else {
            self.resume_failed(None);
        }
    }

    /// `success`: what is to tell the client, if it does not know yet that it is let in.
    pub(super) fn hand_over(&mut self, claim: Claim, success: Option<Element>) {
        if let Some(server_header) = self.server_header.clone() {
            self.out(Output::HandOver(claim.id, Resumption { h: claim.h, server_header, success }));
        }
    }

    fn is_proven(&self, held: &Held) -> bool {
        match &self.account {
            Some(account) => *account == held.account,
            None => held.identity.is_some() && held.identity == self.identity,
        }
    }

    /// Whether the login is known to be this account's.
    fn is_account(&self, account: &BareJid) -> bool {
        if let Some(own) = &self.account {
            return own == account;
        }
        let guess = self.identity.as_ref().and_then(|id| BareJid::of_user(&id.authcid, &id.host));
        guess.is_some_and(|guess| guess == *account)
    }

    /// The session was gone when it was to be handed over.
    pub(super) fn gone(&mut self, ended: Option<Ended>) {
        let State::HandingOver(success, inline) = std::mem::replace(&mut self.state, State::Binding) else {
            return self.resume_failed(ended);
        };
        let failed = self.not_found(ended);
        self.welcome(&success, *inline, Some(failed));
    }

    /// XEP-0198 §5: `h` is told only to the account whose session it was.
    pub(super) fn not_found(&self, ended: Option<Ended>) -> Bytes {
        let own = ended.filter(|ended| self.is_account(&ended.account));
        nonza::failed(StanzaCondition::ItemNotFound, own.map(|ended| ended.h))
    }

    fn resume_failed(&mut self, ended: Option<Ended>) {
        let failed = self.not_found(ended);
        self.reply(failed);
        self.state = State::Binding;
        if self.probed {
            // The upstream stream is bound by the probe, so the client cannot bind on it.
            self.out(Output::ToUpstream(Bytes::from_static(xml::STREAM_CLOSE)));
            self.reply(Bytes::from_static(xml::STREAM_CLOSE));
            self.close(CloseReason::ResumeRefused);
        }
    }
}
