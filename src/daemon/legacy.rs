//! [`Legacy`]: everything that a process leaves to the next one, and its form between them.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Instant;
use crate::relay::FrozenSession;
use crate::secret::Secret;
use crate::service::handover::Parcel;

/// The reason for the end of sessions whose sockets this process may not open.
const TOO_FEW: &str = "too few descriptors";

/// The reason why the state of the previous process cannot be used.
#[derive(Debug, Error)]
pub(super) enum LegacyError {
    /// The description is damaged, or of another version.
    #[error("cannot read the description of a handover")]
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
    /// [`Settings::seed`](crate::session::Settings::seed): the key of all hashes in the records.
    pub(super) seed: Secret<u64>,
}

impl Legacy {
    /// Packs it, with listeners: the description, the rest, then a record and a socket for each session.
    pub(super) fn into_parcel(self, listeners: Vec<OwnedFd>) -> Parcel {
        let about = rmp_serde::to_vec_named(&self.about).expect("numbers and names can be written");
        let mut blobs = vec![about, self.rest];
        let mut sockets = Vec::with_capacity(self.sessions.len());
        for FrozenSession { record, socket } in self.sessions {
            blobs.push(record);
            sockets.push(socket);
        }
        Parcel { blobs, listeners, sockets }
    }

    /// Reads what the previous process has left. Sessions whose sockets are missing are left out.
    ///
    /// # Errors
    /// Returns an error if the description or the rest cannot be read.
    pub(super) fn of(parcel: Parcel) -> Result<Self, LegacyError> {
        let Parcel { blobs, sockets, .. } = parcel;
        let mut blobs = blobs.into_iter();
        let mut about: AboutHandover = rmp_serde::from_slice(&blobs.next().ok_or(LegacyError::Incomplete)?)?;
        let rest = blobs.next().ok_or(LegacyError::Incomplete)?;
        if blobs.len() < sockets.len() {
            return Err(LegacyError::Incomplete);
        }
        if blobs.len() > sockets.len() {
            let missing = blobs.len() - sockets.len();
            about.ended.insert(TOO_FEW.to_owned(), missing);
            tracing::error!(
                missing,
                "too few file descriptors for the sessions of the previous process: raise LimitNOFILE"
            );
        }
        let sessions = blobs.zip(sockets).map(|(record, socket)| FrozenSession { record, socket }).collect();
        Ok(Self { about, rest, sessions })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn legacy(sessions: &[&[u8]]) -> Legacy {
        let socket = || OwnedFd::from(UnixStream::pair().unwrap().0);
        let sessions = sessions.iter().map(|record| FrozenSession { record: record.to_vec(), socket: socket() });
        let about = AboutHandover {
            number: NonZeroU64::MIN,
            began: Instant::now(),
            ended: BTreeMap::new(),
            seed: Secret::new(1),
        };
        Legacy { about, rest: b"rest".to_vec(), sessions: sessions.collect() }
    }

    #[test]
    fn sessions_without_sockets_are_left_out_and_counted() {
        let mut parcel = legacy(&[b"one", b"two", b"three"]).into_parcel(Vec::new());
        parcel.sockets.pop();
        let read = Legacy::of(parcel).unwrap();
        let records: Vec<_> = read.sessions.iter().map(|session| session.record.as_slice()).collect();
        assert_eq!((records, read.rest.as_slice()), (vec![b"one".as_slice(), b"two"], b"rest".as_slice()));
        assert_eq!(read.about.ended, BTreeMap::from([(TOO_FEW.to_owned(), 1)]));
    }

    #[test]
    fn more_sockets_than_sessions_are_refused() {
        let mut parcel = legacy(&[b"one"]).into_parcel(Vec::new());
        parcel.blobs.pop();
        assert!(matches!(Legacy::of(parcel), Err(LegacyError::Incomplete)));
    }
}
