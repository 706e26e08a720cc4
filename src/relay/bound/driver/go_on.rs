//! The first steps of a session's task in a process that goes on with it.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::SessionDriver;
use crate::clock::Instant;
use crate::publish::session::{SessionPublishes, SessionPublishesRecord};
use crate::push::account::LoginId;
use crate::relay::bound::legs::SessionLegs;
use crate::relay::bound::place::Place;
use crate::relay::bound::record::SessionRecord;
use crate::relay::bound::siblings::{Siblings, SiblingsRecord};
use crate::relay::bound::turn::FirstEvents;
use crate::relay::bound::watched::{WatchedRecord, WatchedValues};
use crate::relay::frozen::FrozenSession;
use crate::relay::jobs::{Jobs, Renumbering};
use crate::relay::shared::Relay;
use crate::session::{Input, Session};
use crate::xml::MemoryShare;

/// A session of a previous process whose place in the registry is taken.
pub(in crate::relay) struct ThawedSession {
    place: Place,
    session: Session,
    legs: SessionLegs,
    siblings: SiblingsRecord,
    watched: WatchedRecord,
    has_client: bool,
    publishes: SessionPublishesRecord,
    renumbering: Renumbering,
}

impl ThawedSession {
    /// Reads a session, and enters it into the registry. Nothing is read from or written to its connection yet.
    ///
    /// # Errors
    /// Returns an error if the record or its socket cannot be used.
    pub(in crate::relay) fn thaw(relay: &Arc<Relay>, frozen: FrozenSession) -> io::Result<Self> {
        let FrozenSession { record, socket } = frozen;
        // The error may have a part of the record, which has secrets.
        let record: SessionRecord = rmp_serde::from_slice(&record).map_err(|_| damaged("record cannot be decoded"))?;
        let SessionRecord { handle, siblings, watched, has_client, session, upstream, publishes, renumbering } = record;
        let thawed = Session::thaw_sharing(&session, relay.settings(), rand::random, &mut relay.headers());
        let mut session = thawed.map_err(damaged)?;
        session.share_memory(relay.guards().queues());
        let current = relay.current();
        let share = MemoryShare { free: current.config.limits.stanzas.client, memory: relay.guards().large() };
        let upstream = upstream.thaw(socket, current.upstream_limits(), share)?;
        let legs = SessionLegs::new(None, upstream, relay.metrics().tap());
        let place = Place::enter_again(relay, handle);
        Ok(Self { place, session, legs, siblings, watched, has_client, publishes, renumbering })
    }

    /// Returns the current or last address of the client.
    pub(in crate::relay) fn peer(&self) -> Option<SocketAddr> {
        self.place.handle.notes().peer
    }

    /// Returns the full JID.
    pub(in crate::relay) fn jid(&self) -> String {
        format!("{}/{}", self.place.handle.account(), self.place.handle.resource())
    }

    /// Returns the login of the session.
    pub(in crate::relay) fn login(&self) -> LoginId {
        self.place.handle.login()
    }

    /// Drives the session until it ends. All sessions of the previous process must be in the registry.
    pub(in crate::relay) async fn run(self, relay: Arc<Relay>) {
        let Self { place, mut session, legs, siblings, watched, has_client, publishes, renumbering, .. } = self;
        let handle = Arc::clone(&place.handle);
        match Box::pin(relay.store().claim(handle.account())).await {
            Ok(ownership) => handle.own(ownership),
            Err(error) => tracing::error!(%error, "account not claimed: session cannot store anything"),
        }
        let siblings = Siblings::thaw(Arc::clone(&relay), Arc::clone(&handle), siblings);
        session.share_device_memory(siblings.memory());
        let watched = WatchedValues::thaw(relay.settings(), watched);
        handle.note(|notes| notes.services = session.services());
        let jobs = Jobs::thaw(Arc::clone(&relay), handle, renumbering);
        let now = Instant::now();
        let mut driver = Box::new(SessionDriver::new(relay, session, place, siblings, watched, legs, now));
        (driver.jobs, driver.publishes) = (jobs, SessionPublishes::thaw(publishes));
        if has_client {
            driver.take(Input::ClientLost(driver.session.attachment()));
        }
        driver.go_on(FirstEvents::default()).await;
    }
}

fn damaged(error: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
