//! [`NewServices`]: limits the new push services of each account. Users choose push services, and each causes a connection to
//! an address of the user's choice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::jid::BareJid;

/// The limit for new push services of an account within [`HOUR`].
const NEW_SERVICES: usize = 3;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// The limit for known push services. Over it, all are dropped and checked again.
const KNOWN: usize = 4096;
/// The limit for accounts with new push services. Over it, those are dropped whose hour has passed.
const ACCOUNTS: usize = 4096;

/// The known push services, and the accounts that have recently introduced others.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::publish) struct NewServices {
    known: BTreeSet<String>,
    introduced: BTreeMap<BareJid, Vec<(String, Instant)>>,
}

impl NewServices {
    /// Records that a push service could be connected.
    pub(super) fn on_connected(&mut self, domain: &str) {
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(domain.to_owned());
    }

    /// Returns whether a push service may be connected for an account. If so, and it is new, counts it for the account.
    pub(super) fn may_connect(&mut self, now: Instant, account: &BareJid, domain: &str) -> bool {
        if self.known.contains(domain) {
            return true;
        }
        let lately = |(_, at): &(String, Instant)| now.duration_since(*at) < HOUR;
        if self.introduced.len() >= ACCOUNTS {
            self.introduced.retain(|_, introduced| introduced.iter().any(lately));
        }
        let introduced = self.introduced.entry(account.clone()).or_default();
        introduced.retain(lately);
        let same = introduced.iter().any(|(other, _)| other == domain);
        if !same && introduced.len() < NEW_SERVICES {
            introduced.push((domain.to_owned(), now));
            return true;
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_may_connect_three_new_services_an_hour() {
        let (mut newcomers, now) = (NewServices::default(), Instant::now());
        let juliet = BareJid::new("juliet@example.org").unwrap();
        let romeo = BareJid::new("romeo@example.org").unwrap();
        for domain in ["a", "b", "c", "a"] {
            assert!(newcomers.may_connect(now, &juliet, domain), "{domain}");
        }
        assert!(!newcomers.may_connect(now, &juliet, "d"));
        assert!(newcomers.may_connect(now, &romeo, "d"));
        newcomers.on_connected("d");
        assert!(newcomers.may_connect(now, &juliet, "d"));
        assert!(!newcomers.may_connect(now + HOUR / 2, &juliet, "e"));
        assert!(newcomers.may_connect(now + HOUR, &juliet, "e"));
    }
}
