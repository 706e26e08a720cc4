//! [`Legacy`]: everything that a process leaves to the next one, and its form between them.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Instant;
use crate::relay::FrozenSession;
use crate::service::handover::{Parcel, SealedParcel};

/// The reason why the state of the previous process cannot be used.
#[derive(Debug, Error)]
pub(super) enum LegacyError {
    /// The description is damaged, or of another version.
    #[error("cannot read the state of the previous process: {0}")]
    Unreadable(#[from] rmp_serde::decode::Error),
    /// The parts are fewer or more than described.
    #[error("the state of the previous process is incomplete")]
    Incomplete,
}

/// Everything that a process leaves to the next one.
#[derive(Debug)]
pub(super) struct Legacy {
    pub(super) about: AboutHandover,
    /// The state beside the sessions ([`RelayRecord`](crate::relay::handover::RelayRecord)).
    pub(super) rest: Vec<u8>,
    pub(super) sessions: Vec<FrozenSession>,
}

/// The description of a handover.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AboutHandover {
    /// The number of the handover, which is also in the database.
    pub(super) number: NonZeroU64,
    /// The time of the request.
    pub(super) began: Instant,
    /// The numbers of sessions that ended, by reason.
    pub(super) ended: BTreeMap<String, usize>,
}

impl Legacy {
    /// Seals it, with listeners: the description, the rest, then a record and a socket for each session.
    pub(super) fn seal(self, listeners: Vec<OwnedFd>) -> io::Result<SealedParcel> {
        let about = rmp_serde::to_vec_named(&self.about).map_err(io::Error::other)?;
        let mut blobs = vec![about, self.rest];
        let mut sockets = Vec::with_capacity(self.sessions.len());
        for FrozenSession { record, socket } in self.sessions {
            blobs.push(record);
            sockets.push(socket);
        }
        Parcel { blobs, listeners, sockets }.seal()
    }

    /// Reads what the previous process has left.
    pub(super) fn of(parcel: Parcel) -> Result<Self, LegacyError> {
        let Parcel { blobs, sockets, .. } = parcel;
        let mut blobs = blobs.into_iter();
        let about = rmp_serde::from_slice(&blobs.next().ok_or(LegacyError::Incomplete)?)?;
        let rest = blobs.next().ok_or(LegacyError::Incomplete)?;
        if blobs.len() != sockets.len() {
            return Err(LegacyError::Incomplete);
        }
        let sessions = blobs.zip(sockets).map(|(record, socket)| FrozenSession { record, socket }).collect();
        Ok(Self { about, rest, sessions })
    }
}
