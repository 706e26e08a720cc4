//! How many streams to push services there are, and who caused them: no account has more than a tenth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::jid::BareJid;

/// The streams that are connected or being connected, by the account that caused them.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_account: HashMap<BareJid, usize>,
}

/// The right to one stream, as long as it lives.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    account: BareJid,
}

impl Places {
    /// Gives an account the right to one more stream where `most` may be; the error says why there is none.
    pub(super) fn take(self: &Arc<Self>, account: &BareJid, most: usize) -> Result<Place, &'static str> {
        let mut taken = self.taken();
        if taken.all >= most {
            return Err("s2s_connections is reached");
        }
        let own = taken.by_account.get(account).copied().unwrap_or_default();
        if own >= (most / 10).max(1) {
            return Err("the account has caused a tenth of s2s_connections");
        }
        taken.all += 1;
        taken.by_account.insert(account.clone(), own + 1);
        Ok(Place { places: Arc::clone(self), account: account.clone() })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        // The counts are right also where another thread has panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
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
            let places = Arc::new(Places::default());
            let mut own: Vec<_> = (0..tenth).map(|_| places.take(&account("a"), most).unwrap()).collect();
            assert!(places.take(&account("a"), most).is_err(), "{most}");
            assert_eq!(places.take(&account("b"), most).is_ok(), most > tenth, "{most}");
            own.pop();
            assert!(places.take(&account("a"), most).is_ok(), "{most}");
            drop(own);
            let taken = places.taken();
            assert_eq!((taken.all, taken.by_account.len()), (0, 0));
        }
    }
}
