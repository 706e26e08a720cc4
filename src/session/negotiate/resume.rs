//! Resumption (XEP-0198 §5): whose session it is must be proven by the server (invariant 4).

use std::sync::Arc;

use bytes::Bytes;

use super::bind::bound_jid;
use super::{Claim, CloseReason, Ended, Held, Negotiation, Output, State};
use crate::jid::BareJid;
use crate::session::{SmId, sm};
use crate::xml::{self, Element, XmlWriter, ns};

impl Negotiation {
    pub(super) fn client_resumes(&mut self, node: &xml::Node<'_>) {
        let h = node.attr("h").and_then(|h| sm::Handled::parse(&h));
        let (Some(previd), Some(h)) = (node.attr("previd"), h) else {
            return self.write_client(sm::failed("bad-request", None));
        };
        let id = SmId::new(previd);
        self.presented = Some(id.clone());
        self.out(Output::Find(id.clone()));
        self.state = State::Finding(Claim { id, h });
    }

    pub(super) fn found(&mut self, held: Result<Held, Option<Ended>>) {
        let State::Finding(claim) = std::mem::replace(&mut self.state, State::Binding) else {
            return;
        };
        match held {
            Err(ended) => {
                self.resume_failed(ended.filter(|ended| self.is_account(&ended.account)).map(|ended| ended.h))
            }
            // Invariant 4: proven by the server, for the very exchange that it answered with <success/>.
            Ok(held) if held.identity.is_some() && held.identity == self.identity => self.hand_over(claim),
            Ok(held) if self.host != held.account.domain().as_str() => self.resume_failed(None),
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

    pub(super) fn probe_answered(&mut self, element: &Element) {
        let State::Probing(_, claim, account) = std::mem::replace(&mut self.state, State::Binding) else {
            return;
        };
        if bound_jid(element).is_some_and(|jid| jid.to_bare() == account) {
            self.hand_over(claim);
        } else {
            self.resume_failed(None);
        }
    }

    fn hand_over(&mut self, claim: Claim) {
        if let Some(header) = &self.server_header {
            self.outputs.push_back(Output::HandOver(claim.id, claim.h, Arc::clone(header)));
        }
    }

    /// Whether the login is known to be this account's.
    fn is_account(&self, account: &BareJid) -> bool {
        let guess = self.identity.as_ref().map(|id| BareJid::new(&format!("{}@{}", id.authcid, id.host)));
        guess.is_some_and(|guess| guess.is_ok_and(|guess| guess == *account))
    }

    pub(super) fn resume_failed(&mut self, h: Option<sm::Handled>) {
        self.write_client(sm::failed("item-not-found", h));
        self.state = State::Binding;
        if self.probed {
            // The upstream stream is bound by the probe, so the client cannot bind on it.
            self.out(Output::ToUpstream(Bytes::from_static(xml::STREAM_CLOSE)));
            self.write_client(Bytes::from_static(xml::STREAM_CLOSE));
            self.close(CloseReason::ResumeRefused);
        }
    }
}
