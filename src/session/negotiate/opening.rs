//! The opening of the server's stream: its header, then its features.

use std::sync::Arc;

use super::authenticating::Authenticating;
use super::contract::{LoginOutput, ServerAnswer};
use super::end::LoginEnd;
use super::legs::Legs;
use super::streams::{LoginClientStream, Streams};
use crate::session::Settings;
use crate::session::fronting::KnownServer;
use crate::session::mechanism_filter::{Leg, UpstreamWarning};
use crate::session::rewrite::FeaturesPhase;
use crate::session::rewrite::offers::Offer;
use crate::xml::{Element, Header};

/// The client's header was passed on: the server's header and features are awaited.
#[derive(Debug)]
pub(super) struct OpeningLogin {
    client: LoginClientStream,
    leg: Leg,
    server_header: Option<Arc<Header>>,
}

impl OpeningLogin {
    /// Passes the client's header on to the server, over this leg.
    pub(super) fn new(client: LoginClientStream, leg: Leg, legs: &mut Legs) -> Self {
        legs.open_server(client.header());
        Self { client, leg, server_header: None }
    }

    /// The answer that the server has to send next.
    pub(super) fn awaits(&self) -> ServerAnswer {
        if self.server_header.is_none() { ServerAnswer::Header } else { ServerAnswer::Features }
    }

    /// Takes the server's header.
    pub(super) fn on_header(&mut self, header: Arc<Header>, legs: &mut Legs) {
        legs.open_client(&header);
        self.server_header = Some(header);
    }

    /// Takes the server's features: SASL can begin.
    pub(super) fn on_features(
        self,
        features: &Element,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<Authenticating, LoginEnd> {
        let Some(server_header) = self.server_header else { return Err(LoginEnd::ServerError) };
        let streams = self.client.answered(server_header, self.leg);
        let offer = admit_features(&streams, features, settings, legs)?;
        legs.write_client(offer.shown.clone());
        Ok(Authenticating::new(streams, offer))
    }
}

/// Returns what the client may see of a server's features, if it can log in at all. The offer is remembered for clients that come
/// before the server is connected.
pub(super) fn admit_features(
    streams: &Streams,
    features: &Element,
    settings: &Settings,
    legs: &mut Legs,
) -> Result<Arc<Offer>, LoginEnd> {
    let offer = streams.offer(features, FeaturesPhase::Unauthenticated, settings);
    if streams.leg() == Leg::Plain && offer.requires_tls {
        let (host, warning) = (streams.host().to_owned(), UpstreamWarning::TlsRequired);
        legs.out(LoginOutput::UpstreamWarning { host, warning });
        return Err(LoginEnd::ServerRequiresTls);
    }
    if offer.has_sasl2 {
        settings.fronting.on_own_sasl2(streams.host());
    } else if offer.fronted.is_some() {
        let (header, features, leg) = (streams.server_header().clone(), features.clone(), streams.leg());
        let known = KnownServer { header, features, leg };
        settings.fronting.on_features(streams.host(), streams.client_header().lang(), known);
    }
    Ok(offer)
}
