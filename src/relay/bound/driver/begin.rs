//! The beginning of a session's task: it enters the registry, and the store is asked whose device it is.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::turn::{Turn, Wake};
use super::{Driver, Published};
use crate::limits::Throttle;
use crate::metrics::Wait;
use crate::publish::session::Carried;
use crate::relay::Relay;
use crate::relay::bound::membership::Membership;
use crate::relay::bound::predecessors::Predecessors;
use crate::relay::device::owner;
use crate::relay::jobs::Jobs;
use crate::relay::login::{self, Login};
use crate::relay::read_ahead::{Served, while_served};
use crate::relay::status::Seen;
use crate::relay::timer::Alarm;
use crate::session::{Bound, Clock, Session};
use crate::xml::{self, Framer, Header, HeaderCache};

/// How long the store may take to say whose device has logged in.
const STORE: Duration = Duration::from_secs(60);

impl Driver {
    /// The session, and what has become of its connections while the store was asked. `None` if the store was too late: the
    /// client was told.
    pub(super) async fn begin(relay: Arc<Relay>, login: Box<Login>) -> Option<(Box<Self>, Vec<Wake>)> {
        let Login { mut bound, mut client, peer, mut upstream } = *login;
        share_headers(&relay, &mut bound, client.framer(), upstream.framer());
        let resource = bound.jid.resource().to_owned();
        let (handle, commands) = relay.registry.enter(relay.store.next_login(), login::held(&bound), resource);
        let membership = Membership::new(Arc::clone(&relay), Arc::clone(&handle));
        if let Some(id) = bound.enabled.as_ref().and_then(|enabled| enabled.id.clone()) {
            // The client has it from its `<success/>`, and may come back with it before the store has answered.
            relay.registry.resumable(id, &handle);
        }
        let published = Published::new(&relay);
        let (mut near, mut far) = (Served::new(&mut *client), Served::new(&mut upstream));
        let asked = timeout(STORE, owner(&relay, &handle, &bound));
        let asked = while_served((&mut near, &mut far), asked).await;
        let (near, far) = (near.into_end(), far.into_end());
        let Ok(mut owner) = asked else {
            relay.metrics.deadline_passed(Wait::Login);
            tracing::error!(within = ?STORE, "the store has not answered a login: the client is closed");
            client.write(&xml::stream_error("internal-server-error", None, None));
            upstream.write(xml::STREAM_CLOSE);
            relay.farewell(*client);
            relay.farewell(upstream);
            return None;
        };
        let clock = Clock { now: Instant::now(), wall: SystemTime::now() };
        let predecessors = Predecessors::of(&relay, &handle);
        owner.older = !predecessors.are_settled();
        let mut session = Session::new(relay.settings(), bound, owner, rand::random, clock);
        session.share_memory(relay.guards.queues());
        let device_memory = relay.memories.share(&handle);
        session.share_device_memory(device_memory.memory());
        tracing::info!("bound");
        handle.note(|notes| (notes.peer, notes.services) = (Some(peer), session.services()));
        let seen = Seen::new(&relay.metrics);
        let jobs = Jobs::new(Arc::clone(&relay), Arc::clone(&handle));
        let driver = Box::new(Self {
            relay,
            session,
            device_memory,
            handle,
            membership,
            published,
            predecessors,
            commands,
            client: Some(client),
            throttle: Throttle::default(),
            upstream,
            jobs,
            carried: Carried::default(),
            seen,
            turn: Turn::default(),
            replies_wait: false,
            alarm: Alarm::new(clock.now),
            now: clock.now,
            ended: None,
        });
        let ends = near.map(Wake::Client).into_iter().chain(far.map(Wake::Upstream));
        Some((driver, ends.collect()))
    }
}

/// Lets the session share the headers of its legs with their framers, and namespace contexts with other sessions.
fn share_headers(relay: &Relay, bound: &mut Bound, client: &mut Framer, upstream: &mut Framer) {
    let mut headers = relay.headers.lock().unwrap_or_else(PoisonError::into_inner);
    bound.client_header = shared(&bound.client_header, client, &mut headers);
    bound.server_header = shared(&bound.server_header, upstream, &mut headers);
}

/// The header of a leg: the same that its framer has, unless its peer writes it in another style.
fn shared(header: &Arc<Header>, framer: &mut Framer, headers: &mut HeaderCache) -> Arc<Header> {
    let interned = framer.intern_header(headers);
    interned.filter(|interned| interned.means_the_same(header)).unwrap_or_else(|| header.interned(headers))
}
