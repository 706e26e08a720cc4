//! Logins by token (FAST, XEP-0484) in front of a server that lacks SASL2. A token opens only a session that is held: the session
//! itself decides, and the server is not asked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Authenticating;
use super::attempt::{SaslTurn, TokenAttempt};
use crate::jid::BareJid;
use crate::push::fast::{InitiatorMessage, TokenMechanism, TokenProof};
use crate::session::negotiate::contract::{Ended, LoginOutput, TokenRefusal};
use crate::session::negotiate::legs::Legs;
use crate::session::negotiate::proof::HeldSession;
use crate::session::rewrite::fronted;
use crate::session::sm::nonza;
use crate::session::{Resumption, ResumptionTokens, SmId};
use crate::xml::{Element, Node, ns};

impl Authenticating {
    /// Returns the mechanism of an `<authenticate/>` by token, if it is one. The others go to the server.
    pub(super) fn token_mechanism(&self, authenticate: &Node<'_>) -> Option<TokenMechanism> {
        let is_offered = self.offer.fronted.as_ref().is_some_and(|fronted| fronted.parts.tokens.is_some());
        let mechanism = authenticate.attr("mechanism").and_then(|name| TokenMechanism::parse(&name));
        mechanism.filter(|_| is_offered && authenticate.is("authenticate", ns::SASL2))
    }

    /// Takes an `<authenticate/>` by token. Its session is looked up first.
    pub(super) fn on_token(&mut self, mechanism: TokenMechanism, element: &Element, legs: &mut Legs) {
        let node = element.node();
        self.attempt.exchange.end();
        let Some(token) = self.token(mechanism, &node) else { return refuse(TokenRefusal::NotAuthorized, legs) };
        let resume = node.child("resume", ns::SM).and_then(|resume| nonza::Resume::read(&resume));
        let Some(resume) = resume else {
            self.attempt.token = Some(token);
            return self.check_token(legs);
        };
        self.attempt.token = Some(token);
        self.attempt.presented = Some(resume.previd.clone());
        legs.find(&resume.previd);
        self.turn = SaslTurn::Registry(Box::new((element.clone(), resume)));
    }

    /// Reads what the client presents. XEP-0484 §4.1: the header names the account.
    fn token(&self, mechanism: TokenMechanism, authenticate: &Node<'_>) -> Option<TokenAttempt> {
        let message = authenticate.child("initial-response", ns::SASL2)?.text();
        let message = InitiatorMessage::parse(&STANDARD.decode(message.trim()).ok()?)?;
        let account = BareJid::of_user(&message.authcid, self.streams.host())?;
        let from = BareJid::new(self.streams.client_header().from()?).ok()?;
        let fast = authenticate.child("fast", ns::FAST);
        let attribute = |name| fast.and_then(|fast| fast.attr(name));
        let count = attribute("count").map(|count| count.trim().parse::<u64>());
        let proof = TokenProof {
            agent: self.attempt.agent.clone()?,
            hash: message.hash,
            binding: mechanism.bind(self.streams.channel())?,
            count: count.transpose().ok()?,
            invalidate: attribute("invalidate").is_some_and(|value| matches!(value.trim(), "true" | "1")),
        };
        (from == account).then_some(TokenAttempt { account, proof })
    }

    /// Takes the answer to the lookup. The session gets the connection if it is that of the account.
    pub(super) fn on_token_found(
        &mut self,
        found: Result<HeldSession, Option<Ended>>,
        resume: &nonza::Resume,
        legs: &mut Legs,
    ) {
        let Some(token) = &self.attempt.token else { return };
        let own = found.is_ok_and(|held| held.account == token.account);
        let server_header = self.streams.server_header();
        let bare = fronted::success(fronted::Success { identifier: token.account.as_str(), ..Default::default() });
        let success = Element::parse(bare, server_header).ok().filter(|_| own);
        let Some(success) = success else { return self.check_token(legs) };
        let tokens =
            ResumptionTokens { proof: Some(Box::new(token.proof.clone())), wish: self.attempt.inline.token.clone() };
        let resumption =
            Resumption { h: resume.h, server_header: server_header.clone(), success: Some(success), tokens };
        self.hand_over_token(resume.previd.clone(), resumption, legs);
    }

    fn hand_over_token(&mut self, id: SmId, resumption: Resumption, legs: &mut Legs) {
        legs.out(LoginOutput::HandOver { id, resumption });
        self.turn = SaslTurn::Session;
    }

    /// Has the token checked for which there is no session: only a wrong one counts as a failed login.
    pub(in crate::session::negotiate) fn check_token(&mut self, legs: &mut Legs) {
        let Some(TokenAttempt { account, proof }) = self.attempt.token.take() else { return };
        legs.out(LoginOutput::CheckToken { account, proof: Box::new(proof) });
        self.turn = SaslTurn::Session;
    }

    /// Takes the refusal of a token. The client may go on with its password.
    pub(in crate::session::negotiate) fn on_token_refused(&mut self, refusal: TokenRefusal, legs: &mut Legs) {
        if let SaslTurn::Session = self.turn {
            self.attempt.token = None;
            self.turn = SaslTurn::Client;
            refuse(refusal, legs);
        }
    }
}

fn refuse(refusal: TokenRefusal, legs: &mut Legs) {
    let condition = match refusal {
        TokenRefusal::NotAuthorized => "not-authorized",
        TokenRefusal::Expired => "credentials-expired",
    };
    legs.reply(fronted::refusal(ns::SASL2, condition));
}
