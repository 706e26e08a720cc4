//! The first offer to a client. Where logins by token are possible, it comes from memory, and the server is connected once something
//! arrives that it has to answer.

use std::sync::Arc;

use super::authenticating::Authenticating;
use super::contract::LoginOutput;
use super::legs::Legs;
use super::state::LoginState;
use super::streams::LoginClientStream;
use crate::jid::BareJid;
use crate::session::Settings;
use crate::session::fronting::KnownServer;
use crate::session::rewrite::FeaturesPhase;
use crate::xml::{self, Header};

/// Takes the stream of a client: offers what is known of the server, or connects to it.
pub(super) fn begin(client: LoginClientStream, settings: &Settings, legs: &mut Legs) -> LoginState {
    let known =
        settings.fronting.known(client.host(), client.header().lang()).filter(|_| may_have_token(&client, settings));
    let header = known.as_ref().and_then(|known| own_header(&client, known, legs));
    let (Some(known), Some(header)) = (known, header) else {
        legs.out(LoginOutput::Connect(client.host().to_owned()));
        return LoginState::Connecting(client);
    };
    legs.out(LoginOutput::Answered);
    legs.open_client(&header);
    let streams = client.answered(header, known.leg);
    let offer = streams.offer(&known.features, FeaturesPhase::Unauthenticated, settings);
    legs.write_client(offer.shown.clone());
    LoginState::Authenticating(Box::new(Authenticating::without_server(streams, offer)))
}

/// Returns whether the client may have a token: its header names its account (XEP-0484 §4.1).
fn may_have_token(client: &LoginClientStream, settings: &Settings) -> bool {
    let account = client.header().from().and_then(|from| BareJid::new(from).ok());
    let is_here = account.is_some_and(|account| account.node().is_some() && account.domain() == client.host());
    is_here && settings.fast.is_on() && settings.fronting.parts(client.host()).is_some()
}

/// Returns a header with a stream id of our own that stanzas of the server can follow unchanged.
fn own_header(client: &LoginClientStream, known: &KnownServer, legs: &Legs) -> Option<Arc<Header>> {
    let bytes = xml::stream_header_like(&known.header, client.host(), &legs.random_id());
    let header = Header::parse(bytes).ok()?;
    known.header.declares_the_same(&header).then(|| Arc::new(header))
}
