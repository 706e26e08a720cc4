//! The requests of a session to the store ([`StoreRequest`]) and their results ([`Done`]).

use std::fmt;
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;

use super::renumbering::Renumbering;
use crate::push::account::{Account, Change, DeviceId, LoginId};
use crate::relay::shared::Relay;
use crate::seq::Seq;
use crate::session::queue::{Inherited, Load, Spooled};
use crate::session::{Orphans, SmId, Token, WakeReason, sm};
use crate::store::StoreError;

/// A request to the store.
#[derive(Debug)]
pub(in crate::relay) enum StoreRequest {
    Change(Option<Token>, Change),
    /// Stanzas, and the number of the last one. Some of them may have been delivered since.
    Spool(Vec<Spooled>, Seq),
    /// Deletes stanzas from the spool of this login, or with `None` from the session's own.
    Unspool(Option<LoginId>, Vec<RangeInclusive<Seq>>),
    Load(Load),
    TakeOver,
    /// The kind of orphans, and the numbers that they get.
    Adopt(Orphans, RangeInclusive<Seq>),
    Tombstone(SmId, sm::Handled),
    Wake(WakeReason),
    /// A request that was already passed to the store.
    Begun(Begun),
}

/// The result of a request, as far as the session uses it.
#[derive(Debug)]
pub(in crate::relay) enum Done {
    Changed(Option<Token>, Result<(Account, Option<DeviceId>), StoreError>),
    Spooled(Spooling),
    Loaded(Result<Vec<Spooled>, StoreError>),
    TookOver(Result<Vec<Inherited>, StoreError>),
    /// A result that the session does not use.
    Quiet(Result<(), StoreError>),
}

/// The result of spooling stanzas.
#[derive(Debug)]
pub(in crate::relay) struct Spooling {
    /// The number of the last stanza.
    pub(in crate::relay) last: Seq,
    pub(in crate::relay) result: Result<(), StoreError>,
    /// The number of stanzas that were refused and that the client has not acknowledged.
    pub(super) refused: usize,
    /// The new mapping of sequence numbers, if it has changed.
    pub(super) moved: Option<Renumbering>,
}

impl Spooling {
    pub(super) fn new(last: Seq, result: Result<(), StoreError>) -> Self {
        Self { last, result, refused: 0, moved: None }
    }
}

pub(super) type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A job that runs already and does not wait for earlier ones.
pub(in crate::relay) struct Begun(pub(super) Job);

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}

impl Done {
    /// Returns whether the store stopped waiting for its database.
    pub(super) fn is_late(&self) -> bool {
        let error = match self {
            Self::Changed(_, result) => result.as_ref().err(),
            Self::Spooled(Spooling { result, .. }) | Self::Quiet(result) => result.as_ref().err(),
            Self::Loaded(result) => result.as_ref().err(),
            Self::TookOver(result) => result.as_ref().err(),
        };
        matches!(error, Some(StoreError::NoAnswer { .. }))
    }

    /// Logs a failure, for a session that has ended.
    pub(in crate::relay) fn report(self, relay: &Relay) {
        match self {
            Self::Spooled(Spooling { result: Err(StoreError::AccountRemoved { .. }), .. }) => {}
            Self::Spooled(Spooling { result: Err(error), refused, .. }) => {
                relay.overload().on_spool_error(&error);
                relay.metrics().lost(refused as u64);
                tracing::error!(%error, stanzas = refused, "spool failed: stanzas of an ended session lost");
            }
            Self::Changed(_, Err(error))
            | Self::Loaded(Err(error))
            | Self::TookOver(Err(error))
            | Self::Quiet(Err(error)) => tracing::error!(%error, "database failed at the end of a session"),
            Self::Changed(_, Ok(_))
            | Self::Spooled(Spooling { result: Ok(()), .. })
            | Self::Loaded(Ok(_))
            | Self::TookOver(Ok(_))
            | Self::Quiet(Ok(())) => {}
        }
    }
}

impl StoreRequest {
    /// Returns whether something waits for the completion of the request.
    pub(super) fn is_urgent(&self) -> bool {
        match self {
            Self::Spool(..) | Self::Unspool(..) => false,
            Self::Change(None, change) => {
                !matches!(change, Change::Succeeded { .. } | Change::Resumable { .. } | Change::Guarded { .. })
            }
            Self::Change(Some(_), _)
            | Self::Load(_)
            | Self::TakeOver
            | Self::Adopt(..)
            | Self::Tombstone(..)
            | Self::Wake(_)
            | Self::Begun(_) => true,
        }
    }

    /// Returns whether stanzas that come later may be spooled before this request.
    pub(super) fn may_be_passed(&self) -> bool {
        match self {
            Self::Unspool(_, seqs) => seqs.iter().all(is_delivered),
            Self::Adopt(..) => false,
            Self::Spool(..)
            | Self::Change(..)
            | Self::Load(_)
            | Self::TakeOver
            | Self::Tombstone(..)
            | Self::Wake(_)
            | Self::Begun(_) => true,
        }
    }
}

/// Returns whether a deletion starts at the beginning of a spool. The client has received those stanzas.
pub(super) fn is_delivered(seqs: &RangeInclusive<Seq>) -> bool {
    *seqs.start() == Seq::ZERO
}
