//! The spool operations of a session's jobs: on its own spool, those of earlier sessions, and those of other devices.

use std::ops::RangeInclusive;

use super::renumbering::Renumbering;
use super::request::is_delivered;
use crate::push::account::DeviceId;
use crate::seq::Seq;
use crate::session::Orphans;
use crate::session::queue::{Load, Spooled};
use crate::store::{Slot, SpoolId, Store, StoreError};

/// Stores stanzas under their sequence numbers. If a number is taken by another stanza, this one and all later ones get other
/// numbers. Returns the new mapping in that case.
pub(super) async fn spool(
    store: &Store,
    own: &SpoolId,
    device: DeviceId,
    items: Vec<Spooled>,
    mut renumbering: Renumbering,
) -> (Result<(), StoreError>, Option<Renumbering>) {
    let renumbered = |renumbering: &Renumbering| -> Vec<Spooled> {
        items.iter().map(|item| Spooled { seq: renumbering.seq(item.seq), ..item.clone() }).collect()
    };
    let result = store.spool(own, device, renumbered(&renumbering)).await;
    let Err(StoreError::SequenceTaken { seq, last_seq }) = result else { return (result, None) };
    if !renumbering.avoid(seq, last_seq) {
        return (result, None);
    }
    tracing::warn!(
        place = seq.get(),
        last_seq = last_seq.get(),
        "spool sequence number taken: stanzas moved behind the last one"
    );
    (store.spool(own, device, renumbered(&renumbering)).await, Some(renumbering))
}

/// Reads stanzas. Skips those that do not belong to the session.
pub(super) async fn load(
    store: &Store,
    spool: &SpoolId,
    load: &Load,
    renumbering: &Renumbering,
) -> Result<Vec<Spooled>, StoreError> {
    let mut after = renumbering.behind(load.after);
    loop {
        let read = store.spooled(spool, after, load.weight).await?;
        let Some(last) = read.last().map(|item| item.seq) else { return Ok(read) };
        let own = read.into_iter().filter_map(|item| Some(Spooled { seq: renumbering.number(item.seq)?, ..item }));
        let own: Vec<_> = own.collect();
        if !own.is_empty() {
            return Ok(own);
        }
        after = last;
    }
}

/// Deletes stanzas. Waits until they are gone from the disk, unless all of them were delivered.
pub(super) async fn unspool(store: &Store, spool: &SpoolId, seqs: Vec<RangeInclusive<Seq>>) -> Result<(), StoreError> {
    match seqs.as_slice() {
        [delivered] if is_delivered(delivered) => store.unspool(spool, *delivered.end()).await,
        _ => store.discard(spool, seqs).await,
    }
}

/// Moves stanzas that were addressed to the account and wait for devices without a session to the session's spool, while the
/// session itself stays. Stanzas that cannot be moved stay where they are.
pub(super) async fn adopt(
    store: &Store,
    slot: &Slot,
    own: &SpoolId,
    which: Orphans,
    stays: impl Fn() -> bool,
    seqs: RangeInclusive<Seq>,
) {
    if let Err(error) = orphans(store, slot, own, which, stays, seqs).await {
        tracing::error!(%error, "cannot adopt stanzas of other devices");
    }
}

async fn orphans(
    store: &Store,
    slot: &Slot,
    own: &SpoolId,
    which: Orphans,
    stays: impl Fn() -> bool,
    mut seqs: RangeInclusive<Seq>,
) -> Result<(), StoreError> {
    if !stays() {
        return Ok(());
    }
    let account = store.account_now(&slot.account).await?;
    for (device, _) in store.orphans(&slot.account, slot.device).await? {
        // An unknown device belonged to an account that was removed. No session may have its stanzas.
        let Some(known) = account.device(device) else { continue };
        let is_registered = account.owned(device).next().is_some();
        if known.is_open() || is_registered != (which == Orphans::OfRegistered) {
            continue;
        }
        // A few at a time, so that the store can serve other requests in between.
        while stays() && !seqs.is_empty() {
            let moved = store.adopt_shared(&slot.account, device, own, slot.device, seqs.clone()).await?;
            if moved == 0 {
                break;
            }
            seqs = seqs.start().plus(moved)..=*seqs.end();
        }
    }
    Ok(())
}
