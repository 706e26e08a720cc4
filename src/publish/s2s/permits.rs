//! [`StreamPermits`]: counts the streams to push services by the account that caused them. No account has more than a tenth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::jid::BareJid;
use crate::publish::error::NoPermit;
use crate::sync::lock;

/// The streams that are connected or being connected, by the account that caused them.
#[derive(Debug, Default)]
pub(super) struct StreamPermits(Mutex<TakenPermits>);

#[derive(Debug, Default)]
struct TakenPermits {
    all: usize,
    by_account: HashMap<BareJid, usize>,
}

/// The permit for one stream. Dropping it releases the permit.
#[derive(Debug)]
pub(super) struct StreamPermit {
    permits: Arc<StreamPermits>,
    account: BareJid,
}

impl StreamPermits {
    /// Gives an account a permit for one more stream, if the total stays within `most`.
    pub(super) fn take(self: &Arc<Self>, account: &BareJid, most: usize) -> Result<StreamPermit, NoPermit> {
        let mut taken = self.taken();
        if taken.all >= most {
            return Err(NoPermit::All);
        }
        let own = taken.by_account.get(account).copied().unwrap_or_default();
        if own >= (most / 10).max(1) {
            return Err(NoPermit::Account);
        }
        taken.all += 1;
        taken.by_account.insert(account.clone(), own + 1);
        Ok(StreamPermit { permits: Arc::clone(self), account: account.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, TakenPermits> {
        lock(&self.0)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut taken = self.permits.taken();
        taken.all = taken.all.saturating_sub(1);
        match taken.by_account.get_mut(&self.account) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => drop(taken.by_account.remove(&self.account)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_a_tenth_and_at_least_one() {
        let account = |name: &str| BareJid::new(&format!("{name}@example.org")).unwrap();
        for (most, tenth) in [(1, 1), (9, 1), (19, 1), (20, 2), (200, 20)] {
            let permits = Arc::new(StreamPermits::default());
            let mut own: Vec<_> = (0..tenth).map(|_| permits.take(&account("a"), most).unwrap()).collect();
            assert!(permits.take(&account("a"), most).is_err(), "{most}");
            assert_eq!(permits.take(&account("b"), most).is_ok(), most > tenth, "{most}");
            own.pop();
            assert!(permits.take(&account("a"), most).is_ok(), "{most}");
            drop(own);
            let taken = permits.taken();
            assert_eq!((taken.all, taken.by_account.len()), (0, 0));
        }
    }
}
