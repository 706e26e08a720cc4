//! The limit of new push services for each account: users choose them, and each is a connection to wherever they like.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::jid::BareJid;

/// New push services of an account within [`HOUR`].
const BRINGS: usize = 3;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Push services that are known; of more, all are looked at anew.
const KNOWN: usize = 4096;
/// Accounts that have brought some; of more, those are forgotten whose hour is over.
const ACCOUNTS: usize = 4096;

/// The push services that are known, and who has lately brought others.
#[derive(Debug, Default)]
pub(super) struct NewServices {
    known: HashSet<String>,
    brought: HashMap<BareJid, Vec<(String, Instant)>>,
}

impl NewServices {
    /// A push service could be connected.
    pub(super) fn is_there(&mut self, domain: &str) {
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(domain.to_owned());
    }

    /// Whether an account may have a push service connected; if so, it has brought it.
    pub(super) fn may_bring(&mut self, now: Instant, account: &BareJid, domain: &str) -> bool {
        if self.known.contains(domain) {
            return true;
        }
        let lately = |(_, at): &(String, Instant)| now.duration_since(*at) < HOUR;
        if self.brought.len() >= ACCOUNTS {
            self.brought.retain(|_, brought| brought.iter().any(lately));
        }
        let brought = self.brought.entry(account.clone()).or_default();
        brought.retain(lately);
        let same = brought.iter().any(|(other, _)| other == domain);
        if !same && brought.len() < BRINGS {
            brought.push((domain.to_owned(), now));
            return true;
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_brings_three_new_services_an_hour() {
        let (mut newcomers, now) = (NewServices::default(), Instant::now());
        let juliet = BareJid::new("juliet@example.org").unwrap();
        let romeo = BareJid::new("romeo@example.org").unwrap();
        for domain in ["a", "b", "c", "a"] {
            assert!(newcomers.may_bring(now, &juliet, domain), "{domain}");
        }
        assert!(!newcomers.may_bring(now, &juliet, "d"));
        assert!(newcomers.may_bring(now, &romeo, "d"));
        newcomers.is_there("d");
        assert!(newcomers.may_bring(now, &juliet, "d"));
        assert!(!newcomers.may_bring(now + HOUR / 2, &juliet, "e"));
        assert!(newcomers.may_bring(now + HOUR, &juliet, "e"));
    }
}
