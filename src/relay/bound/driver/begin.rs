//! The beginning of a session's task: it enters the registry, and the store returns its device.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::SessionDriver;
use crate::clock::{self, Instant};
use crate::metrics::Wait;
use crate::relay::bound::legs::SessionLegs;
use crate::relay::bound::place::Place;
use crate::relay::bound::siblings::Siblings;
use crate::relay::bound::turn::{FirstEvents, TaskEvent};
use crate::relay::bound::watched::WatchedValues;
use crate::relay::login::{self, Login};
use crate::relay::read_ahead::{ReadAhead, while_served};
use crate::relay::shared::Relay;
use crate::session::sasl::SaslIdentity;
use crate::session::{Bound, Clock, Session};
use crate::store::LoginKey;
use crate::xml::{self, Framer, Header, HeaderCache, StreamCondition};

/// The time that the store has to return the device of a login.
const STORE: Duration = Duration::from_secs(60);

/// Begins the session. `None` if the store was too late, or another node has the account: the client is closed.
pub(in crate::relay::bound) async fn begin(
    relay: Arc<Relay>,
    login: Box<Login>,
) -> Option<(Box<SessionDriver>, FirstEvents)> {
    let Login { mut bound, mut client, peer, mut upstream, method, ownership: kept } = *login;
    share_headers(&relay, &mut bound, client.framer(), upstream.framer());
    let resource = bound.jid.resource().to_owned();
    let held = login::held(&bound);
    let (mut near, mut far) = (ReadAhead::new(&mut *client), ReadAhead::new(&mut upstream));
    let claimed = timeout(STORE, relay.store().claim(&held.account));
    let ownership = match while_served(&mut near, &mut far, claimed).await {
        Ok(Ok(ownership)) => ownership,
        refused => {
            drop((near, far));
            match refused {
                Ok(Err(error)) => relay.reports().on_not_claimed(&error),
                Ok(Ok(_)) | Err(_) => report_late(&relay),
            }
            // Without an error: the client is to try again.
            upstream.write(xml::STREAM_CLOSE);
            relay.background().close_gracefully(*client);
            relay.background().close_gracefully(upstream);
            return None;
        }
    };
    drop(kept);
    if let Some(SaslIdentity { host, authcid }) = held.identity.clone() {
        relay.store().cluster().note_login_name(&held.account, LoginKey { host, authcid });
    }
    let place = Place::enter(&relay, held, resource, ownership);
    let handle = Arc::clone(&place.handle);
    if let Some(id) = bound.enabled.as_ref().and_then(|enabled| enabled.id.clone()) {
        // The client has the id from its `<success/>`, and may resume with it before the store has answered.
        relay.registry().resumable(id, &handle);
    }
    let watched = WatchedValues::new(relay.settings());
    let asked = timeout(STORE, relay.accounts().log_in(&handle, &bound, relay.background()));
    let asked = while_served(&mut near, &mut far, asked).await;
    let (near, far) = (near.into_end(), far.into_end());
    let Ok(mut owner) = asked else {
        report_late(&relay);
        client.write(&xml::stream_error(StreamCondition::InternalServerError, None, None));
        upstream.write(xml::STREAM_CLOSE);
        relay.background().close_gracefully(*client);
        relay.background().close_gracefully(upstream);
        return None;
    };
    relay.absent().on_device_back(handle.account(), owner.device);
    let clock = Clock { now: Instant::now(), wall: clock::unix_millis() };
    let siblings = Siblings::new(Arc::clone(&relay), Arc::clone(&handle));
    owner.older = !siblings.are_settled();
    let frames = std::mem::take(&mut bound.early);
    let mut session = Session::new(relay.settings(), bound, owner, rand::random, clock);
    session.share_memory(relay.guards().queues());
    session.share_device_memory(siblings.memory());
    tracing::info!("session bound");
    handle.note(|notes| (notes.peer, notes.login, notes.services) = (Some(peer), method, session.services()));
    let legs = SessionLegs::new(Some(client), upstream, relay.metrics().tap());
    let driver = Box::new(SessionDriver::new(relay, session, place, siblings, watched, legs, clock.now));
    let ends = near.map(TaskEvent::Client).into_iter().chain(far.map(TaskEvent::Upstream));
    Some((driver, FirstEvents { frames, events: ends.collect() }))
}

fn report_late(relay: &Relay) {
    relay.metrics().deadline_passed(Wait::Login);
    tracing::error!(within = ?STORE, "database did not answer during login: client closed");
}

/// Lets the session share the stream headers of its legs with their framers, and namespace contexts with other sessions.
fn share_headers(relay: &Relay, bound: &mut Bound, client: &mut Framer, upstream: &mut Framer) {
    let mut headers = relay.headers();
    bound.client_header = shared(&bound.client_header, client, &mut headers);
    bound.server_header = shared(&bound.server_header, upstream, &mut headers);
}

/// Returns the stream header of a leg: the one of its framer, unless the peer writes it in another style.
fn shared(header: &Arc<Header>, framer: &mut Framer, headers: &mut HeaderCache) -> Arc<Header> {
    let interned = framer.intern_header(headers);
    interned.filter(|interned| interned.means_the_same(header)).unwrap_or_else(|| header.interned(headers))
}
