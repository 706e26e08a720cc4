//! [`RecentRevocations`]: the accounts whose tokens were revoked a short time ago. A token that is issued in a login which
//! began before the revocation is not valid either.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Instant;
use crate::jid::BareJid;
use crate::sync::lock;

/// The time for which a revocation is remembered: longer than a login may take (`authentication_timeout` is 1 h at most).
const LOGIN: Duration = Duration::from_secs(2 * 60 * 60);
/// The number of accounts that are remembered.
const ACCOUNTS: usize = 16 * 1024;

/// The times of the last revocations, by account.
#[derive(Debug, Default)]
pub(super) struct RecentRevocations(Mutex<RememberedRevocations>);

#[derive(Debug, Default)]
struct RememberedRevocations {
    accounts: HashMap<BareJid, Instant>,
    /// The time of the last revocation that was forgotten. What came before is unknown.
    forgotten: Option<Instant>,
    /// The time of the last search for old revocations.
    pruned: Option<Instant>,
}

impl RecentRevocations {
    /// Notes that the tokens of an account are revoked.
    pub(super) fn note(&self, account: &BareJid, now: Instant) {
        let mut remembered = lock(&self.0);
        remembered.accounts.insert(account.clone(), now);
        let is_due = remembered.pruned.is_none_or(|pruned| now.duration_since(pruned) > LOGIN);
        if is_due || remembered.accounts.len() > ACCOUNTS {
            remembered.prune(now);
        }
    }

    /// Returns whether the tokens of an account were revoked at this time or since. `true` also if that is not known.
    pub(super) fn since(&self, account: &BareJid, began: Instant) -> bool {
        let remembered = lock(&self.0);
        let revoked = remembered.accounts.get(account).copied().max(remembered.forgotten);
        revoked.is_some_and(|revoked| revoked >= began)
    }
}

impl RememberedRevocations {
    /// Forgets revocations that are older than a login, and the older half beyond the limit.
    fn prune(&mut self, now: Instant) {
        self.pruned = Some(now);
        let mut times: Vec<Instant> = self.accounts.values().copied().collect();
        let last = if times.len() > ACCOUNTS {
            times.sort_unstable();
            times.get(times.len() / 2).copied()
        } else {
            None
        };
        let is_old = |at: Instant| now.duration_since(at) > LOGIN || last.is_some_and(|last| at <= last);
        let forgotten = times.iter().copied().filter(|at| is_old(*at)).max();
        self.forgotten = self.forgotten.max(forgotten);
        self.accounts.retain(|_, at| !is_old(*at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(number: usize) -> BareJid {
        format!("a{number}@example.org").parse().unwrap()
    }

    #[test]
    fn a_login_that_began_before_a_revocation_is_recognized() {
        let (revocations, start) = (RecentRevocations::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!revocations.since(&account(1), at(0)));
        revocations.note(&account(1), at(10));
        for (began, expected) in [(9, true), (10, true), (11, false)] {
            assert_eq!(revocations.since(&account(1), at(began)), expected, "{began}");
        }
        assert!(!revocations.since(&account(2), at(0)));
        // A revocation that is older than any login concerns nobody.
        revocations.note(&account(2), at(10 + 2 * 60 * 60 + 1));
        assert_eq!(lock(&revocations.0).accounts.len(), 1);
        assert!(!revocations.since(&account(3), at(11)));
    }

    #[test]
    fn revocations_that_are_forgotten_early_count_for_every_login_before_them() {
        let (revocations, start) = (RecentRevocations::default(), Instant::now());
        for number in 0..=ACCOUNTS {
            revocations.note(&account(number), start + Duration::from_millis(number as u64));
        }
        assert!(lock(&revocations.0).accounts.len() <= ACCOUNTS / 2);
        assert!((0..=ACCOUNTS).all(|number| revocations.since(&account(number), start)));
        let last = start + Duration::from_millis(ACCOUNTS as u64);
        assert!(revocations.since(&account(ACCOUNTS), last) && !revocations.since(&account(1), last));
    }
}
