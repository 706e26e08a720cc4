//! The XML streams of a login: the client's stream, and the stream to the server, opened with the same header.

use std::sync::Arc;

use crate::secret::Secret;
use crate::session::Settings;
use crate::session::fronting::{FrontedParts, TokenOffer};
use crate::session::mechanism_filter::Leg;
use crate::session::rewrite::FeaturesPhase;
use crate::session::rewrite::offers::{Offer, Terms};
use crate::xml::{Element, Header};

/// The stream of a client to a host that is served.
#[derive(Debug)]
pub(super) struct LoginClientStream {
    host: String,
    header: Arc<Header>,
    /// The channel binding of the client's TLS connection (RFC 9266), if it has one.
    channel: Option<Secret<[u8; 32]>>,
}

impl LoginClientStream {
    /// Creates the stream that this header opened.
    pub(super) fn new(host: String, header: Arc<Header>, channel: Option<[u8; 32]>) -> Self {
        Self { host, header, channel: channel.map(Secret::new) }
    }

    /// The served host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The header of the client.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// The streams of both legs, once the server has answered with its header.
    pub(super) fn answered(self, server_header: Arc<Header>, leg: Leg) -> Streams {
        let Self { host, header: client_header, channel } = self;
        Streams { host, client_header, server_header, leg, channel }
    }
}

/// The streams of both legs, open.
#[derive(Debug)]
pub(super) struct Streams {
    host: String,
    client_header: Arc<Header>,
    server_header: Arc<Header>,
    leg: Leg,
    channel: Option<Secret<[u8; 32]>>,
}

impl Streams {
    /// The served host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The header of the client.
    pub(super) fn client_header(&self) -> &Arc<Header> {
        &self.client_header
    }

    /// The header of the server.
    pub(super) fn server_header(&self) -> &Arc<Header> {
        &self.server_header
    }

    /// The leg to the server.
    pub(super) fn leg(&self) -> Leg {
        self.leg
    }

    /// Takes the leg over which the server is connected at last.
    pub(super) fn on_leg(&mut self, leg: Leg) {
        self.leg = leg;
    }

    /// The channel binding of the client's TLS connection (RFC 9266), if it has one.
    pub(super) fn channel(&self) -> Option<[u8; 32]> {
        self.channel.as_ref().map(|channel| *channel.expose())
    }

    /// Takes the header with which the client restarts its stream.
    pub(super) fn on_client_restart(&mut self, header: Arc<Header>) {
        self.client_header = header;
    }

    /// Takes the header with which the server restarts its stream.
    pub(super) fn on_server_restart(&mut self, header: Arc<Header>) {
        self.server_header = header;
    }

    /// Returns the server's features as the client may see them.
    pub(super) fn offer(&self, features: &Element, phase: FeaturesPhase, settings: &Settings) -> Arc<Offer> {
        let max_bytes = match phase {
            FeaturesPhase::Unauthenticated => settings.unauthenticated_stanza,
            FeaturesPhase::Authenticated | FeaturesPhase::Bound { .. } => settings.stanza,
        };
        let tokens = settings.fast.is_on().then_some(TokenOffer { with_binding: self.channel.is_some() });
        let fronted = settings.fronting.parts(&self.host).map(|parts| FrontedParts { tokens, ..parts });
        settings.offers.read(features, Terms { phase, leg: self.leg, max_bytes, fronted })
    }
}

/// Returns the element on a stream whose header is in the usual form. It is passed on unchanged.
pub(super) fn as_usual(element: Element) -> Element {
    let usual = element.header().usual();
    if Arc::ptr_eq(&usual, element.header()) {
        return element;
    }
    Element::parse(element.on_stream(&usual), &usual).unwrap_or(element)
}
