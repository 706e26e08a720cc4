//! What a session asks of the store, and what comes of it.

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

/// What the store is asked.
#[derive(Debug)]
pub(in crate::relay) enum StoreRequest {
    Change(Option<Token>, Change),
    /// Stanzas, and the number of the last one: some may have been delivered since.
    Spool(Vec<Spooled>, Seq),
    /// Of the spool of this login, or of the own one.
    Unspool(Option<LoginId>, Vec<RangeInclusive<Seq>>),
    Load(Load),
    TakeOver,
    /// The orphans, and the numbers that they get.
    Adopt(Orphans, RangeInclusive<Seq>),
    Tombstone(SmId, sm::Handled),
    Wake(WakeReason),
    /// What the store was asked for already.
    Begun(Begun),
}

/// What came of it, as far as the session is told.
#[derive(Debug)]
pub(in crate::relay) enum Done {
    Changed(Option<Token>, Result<(Account, Option<DeviceId>), StoreError>),
    Spooled(Spooling),
    Loaded(Result<Vec<Spooled>, StoreError>),
    TookOver(Result<Vec<Inherited>, StoreError>),
    /// Nobody waits for it.
    Quiet(Result<(), StoreError>),
}

/// What came of stanzas that were handed to the spool.
#[derive(Debug)]
pub(in crate::relay) struct Spooling {
    /// The number of the last one.
    pub(in crate::relay) last: Seq,
    pub(in crate::relay) result: Result<(), StoreError>,
    /// How many the spool did not take that the client has not acknowledged.
    pub(super) refused: usize,
    /// Where they are, if they moved.
    pub(super) moved: Option<Renumbering>,
}

impl Spooling {
    pub(super) fn new(last: Seq, result: Result<(), StoreError>) -> Self {
        Self { last, result, refused: 0, moved: None }
    }
}

pub(super) type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A job that does not wait for those before it.
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

    /// Logs what failed, for a session that has ended.
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
    /// Whether something is waited for until it is done.
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

    /// Whether stanzas that come later may be spooled before it.
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

/// Whether a deletion names the beginning of a spool, which the client has.
pub(super) fn is_delivered(seqs: &RangeInclusive<Seq>) -> bool {
    *seqs.start() == Seq::ZERO
}
