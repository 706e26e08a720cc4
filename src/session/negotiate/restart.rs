//! The restart of both streams after a `<success/>` of RFC 6120's SASL profile (§6.4.6).

use std::sync::Arc;

use super::binding::AwaitingBind;
use super::contract::ServerAnswer;
use super::legs::Legs;
use super::login::AcceptedLogin;
use super::streams::Streams;
use crate::jid::BareJid;
use crate::session::Settings;
use crate::session::rewrite::FeaturesPhase;
use crate::xml::{Element, Header};

/// `<success/>` was passed on: the client's header is awaited.
#[derive(Debug)]
pub(super) struct Restarting {
    streams: Streams,
    login: AcceptedLogin,
}

impl Restarting {
    /// Creates the restart of these streams, for this login.
    pub(super) fn new(streams: Streams, login: AcceptedLogin) -> Self {
        Self { streams, login }
    }

    /// The host of the stream. The client has to name it again.
    pub(super) fn host(&self) -> &str {
        self.streams.host()
    }

    /// The account of the login, as far as it is known.
    pub(super) fn account(&self) -> Option<BareJid> {
        self.login.likely_account()
    }

    /// Passes the client's header on to the server.
    pub(super) fn on_header(mut self, header: Arc<Header>, legs: &mut Legs) -> Reopening {
        legs.reopen_server(&header);
        self.streams.on_client_restart(header);
        Reopening { streams: self.streams, login: self.login, awaits: ServerAnswer::Header }
    }
}

/// The client's second header was passed on: the server's header and features are awaited.
#[derive(Debug)]
pub(super) struct Reopening {
    streams: Streams,
    login: AcceptedLogin,
    awaits: ServerAnswer,
}

impl Reopening {
    /// The answer that the server has to send next.
    pub(super) fn awaits(&self) -> ServerAnswer {
        self.awaits
    }

    /// The account of the login, as far as it is known.
    pub(super) fn account(&self) -> Option<BareJid> {
        self.login.likely_account()
    }

    /// Takes the server's header.
    pub(super) fn on_header(&mut self, header: Arc<Header>, legs: &mut Legs) {
        legs.open_client(&header);
        self.streams.on_server_restart(header);
        self.awaits = ServerAnswer::Features;
    }

    /// Takes the server's features: the client can bind.
    pub(super) fn on_features(self, features: &Element, settings: &Settings, legs: &mut Legs) -> AwaitingBind {
        let offer = self.streams.offer(features, FeaturesPhase::Authenticated, settings);
        legs.write_client(offer.shown.clone());
        AwaitingBind::new(self.streams, self.login, &offer)
    }
}
