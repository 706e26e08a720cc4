//! The features of a server before the login.

use std::sync::Arc;

use super::contract::LoginOutput;
use super::end::LoginEnd;
use super::legs::Legs;
use super::streams::Streams;
use crate::session::Settings;
use crate::session::fronting::KnownServer;
use crate::session::mechanism_filter::{Leg, UpstreamWarning};
use crate::session::rewrite::FeaturesPhase;
use crate::session::rewrite::offers::Offer;
use crate::xml::Element;

/// Returns what the client may see of a server's features, if it can log in at all. The offer is remembered for clients that come
/// before the server is connected.
pub(super) fn admit(
    streams: &Streams,
    features: &Element,
    settings: &Settings,
    legs: &mut Legs,
) -> Result<Arc<Offer>, LoginEnd> {
    let offer = streams.offer(features, FeaturesPhase::Unauthenticated, settings);
    if streams.leg() == Leg::Plain && offer.requires_tls {
        let (host, warning) = (streams.host().to_owned(), UpstreamWarning::TlsRequired);
        settings.fronting.forget(&host);
        legs.out(LoginOutput::UpstreamWarning { host, warning });
        return Err(LoginEnd::ServerRequiresTls);
    }
    if offer.has_sasl2 {
        settings.fronting.on_own_sasl2(streams.host());
    }
    if offer.fronted.is_none() {
        settings.fronting.forget(streams.host());
    } else if streams.client_header().from().is_some() {
        // Only to such clients does ejabberd offer its own SASL2.
        let (header, features, leg) = (streams.server_header().clone(), features.clone(), streams.leg());
        let known = KnownServer { header, features, leg };
        settings.fronting.on_features(streams.host(), streams.client_header().lang(), known);
    }
    Ok(offer)
}
