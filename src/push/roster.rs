//! The contacts of an account (RFC 6121 §2), learned from the rosters sent to the client. The filters use [`Roster`].

use std::hash::{Hash, Hasher};

use crate::hash::keyed;
use crate::jid::{BareJid, Jid};
use crate::xml::{Node, ns};

/// The contacts of an account, as far as the roster was seen. Stores a hash of each address, not the address.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Roster {
    /// The secret key of the hashes. Without it nobody can choose addresses that collide.
    seed: u64,
    account: u64,
    server: u64,
    /// In ascending order.
    contacts: Vec<u64>,
    /// True if the list contains all contacts.
    complete: bool,
}

/// The maximum number of contacts that are kept. With more, no sender counts as unknown.
const CONTACTS: usize = 20_000;

impl Roster {
    /// Creates the roster of an account, not yet seen. `seed` is random.
    pub fn new(account: &BareJid, seed: u64) -> Self {
        let (account, server) = (hash(seed, account.as_str()), hash(seed, account.domain()));
        Self { seed, account, server, contacts: Vec::new(), complete: false }
    }

    /// Reads an iq on its way to the client: a roster or a roster push. Ignores rosters from other senders (RFC 6121
    /// §2.1.6).
    pub fn learn(&mut self, iq: &Node<'_>) {
        let Some(query) = iq.child("query", ns::ROSTER) else { return };
        let own = |from: &str| self.is_account(&Jid::new(from).into_bare());
        if !iq.attr("from").is_none_or(|from| own(&from)) {
            return;
        }
        match iq.attr("type").as_deref() {
            Some("result") => self.replace(&query),
            Some("set") => query.children().for_each(|item| self.update(&item)),
            _ => {}
        }
    }

    /// Returns the bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.contacts.capacity() * size_of::<u64>()
    }

    /// Returns whether the whole roster was seen.
    pub fn is_known(&self) -> bool {
        self.complete
    }

    /// Returns whether an address is a contact, the account itself or its server.
    pub fn has(&self, jid: &BareJid) -> bool {
        let jid = self.hash(jid);
        jid == self.account || jid == self.server || self.contacts.binary_search(&jid).is_ok()
    }

    /// Returns whether an address is the account itself.
    pub fn is_account(&self, jid: &BareJid) -> bool {
        self.hash(jid) == self.account
    }

    fn replace(&mut self, query: &Node<'_>) {
        let contacts = query.children().filter(is_contact).filter_map(|item| self.item(&item));
        let mut contacts: Vec<_> = contacts.take(CONTACTS + 1).collect();
        contacts.sort_unstable();
        contacts.dedup();
        self.complete = contacts.len() <= CONTACTS;
        contacts.truncate(if self.complete { CONTACTS } else { 0 });
        contacts.shrink_to_fit();
        self.contacts = contacts;
    }

    fn update(&mut self, item: &Node<'_>) {
        let Some(jid) = self.item(item) else { return };
        match (self.contacts.binary_search(&jid), is_contact(item)) {
            (Err(at), true) if self.contacts.len() < CONTACTS => self.contacts.insert(at, jid),
            (Err(_), true) => self.complete = false,
            (Ok(at), false) => {
                self.contacts.remove(at);
            }
            (Ok(_), true) | (Err(_), false) => {}
        }
    }

    fn item(&self, item: &Node<'_>) -> Option<u64> {
        let jid = item.attr("jid").filter(|_| item.is("item", ns::ROSTER))?;
        Some(hash(self.seed, Jid::new(&jid).bare()))
    }

    fn hash(&self, jid: &BareJid) -> u64 {
        hash(self.seed, jid.as_str())
    }
}

fn hash(seed: u64, jid: &str) -> u64 {
    let mut hasher = keyed(seed);
    jid.hash(&mut hasher);
    hasher.finish()
}

/// Returns whether one of the two sees the other's presence, or the user has asked to.
fn is_contact(item: &Node<'_>) -> bool {
    let subscribed = matches!(item.attr("subscription").as_deref(), Some("to" | "from" | "both"));
    let removed = item.attr("subscription").as_deref() == Some("remove");
    subscribed || !removed && item.attr("ask").as_deref() == Some("subscribe")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    fn roster() -> Roster {
        Roster::new(&BareJid::new("juliet@example.org").unwrap(), 7)
    }

    fn learn(roster: &mut Roster, iq: &str) {
        roster.learn(&element(iq).node());
    }

    fn iq(attributes: &str, items: &str) -> String {
        format!("<iq {attributes}><query xmlns='jabber:iq:roster'>{items}</query></iq>")
    }

    fn knows(roster: &Roster, jid: &str) -> bool {
        roster.has(&BareJid::new(jid).unwrap())
    }

    const ITEMS: &str = "<item jid='Romeo@example.net' subscription='both'/><item jid='to@x.org' subscription='to'/>\
        <item jid='from@x.org' subscription='from'/><item jid='asked@x.org' subscription='none' ask='subscribe'/>\
        <item jid='none@x.org' subscription='none'/><item jid='none2@x.org'/><item jid='@' subscription='both'/><x/>";

    #[test]
    fn contacts_are_known_once_the_roster_was_seen() {
        let mut roster = roster();
        assert!(!roster.is_known());
        learn(&mut roster, &iq("type='result' id='1'", ITEMS));
        assert!(roster.is_known());
        for (jid, known) in [
            ("romeo@example.net", true),
            ("to@x.org", true),
            ("from@x.org", true),
            ("asked@x.org", true),
            ("none@x.org", false),
            ("none2@x.org", false),
            ("x.org", false),
            ("juliet@example.org", true),
            ("example.org", true),
        ] {
            assert_eq!(knows(&roster, jid), known, "{jid}");
        }
        learn(&mut roster, &iq("type='result' id='2'", ""));
        assert!(roster.is_known() && !knows(&roster, "romeo@example.net"));
    }

    #[test]
    fn a_push_changes_one_contact() {
        let mut roster = roster();
        learn(&mut roster, &iq("type='result' id='1' from='juliet@example.org'", ITEMS));
        learn(&mut roster, &iq("type='set' id='2'", "<item jid='new@x.org' subscription='from'/>"));
        learn(&mut roster, &iq("type='set' id='3'", "<item jid='to@x.org' subscription='remove'/>"));
        learn(&mut roster, &iq("type='set' id='4'", "<item jid='from@x.org' subscription='none'/>"));
        learn(&mut roster, &iq("type='set' id='5'", "<item jid='asked@x.org' subscription='remove' ask='subscribe'/>"));
        let jids = ["new@x.org", "to@x.org", "from@x.org", "asked@x.org", "romeo@example.net"];
        assert_eq!(jids.map(|jid| knows(&roster, jid)), [true, false, false, false, true]);
    }

    #[test]
    fn only_the_account_and_only_a_full_result_gives_the_roster() {
        let mut roster = roster();
        let mallory = "<item jid='mallory@evil.org' subscription='both'/>";
        learn(&mut roster, &iq("type='set' id='1' from='mallory@evil.org'", mallory));
        learn(&mut roster, &iq("type='result' id='1' from='mallory@evil.org'", mallory));
        learn(&mut roster, &iq("type='get' id='1'", mallory));
        // RFC 6121 §2.6.3: the client's cached roster is still valid.
        learn(&mut roster, "<iq type='result' id='1'/>");
        assert!(!roster.is_known() && !knows(&roster, "mallory@evil.org"));
    }

    #[test]
    fn a_roster_beyond_the_bound_is_as_if_it_was_not_seen() {
        let item = |n: usize| format!("<item jid='u{n}@x.org' subscription='both'/>");
        let full: String = (0..CONTACTS).map(item).collect();
        let mut roster = roster();
        learn(&mut roster, &iq("type='result' id='1'", &full));
        assert!(roster.is_known() && knows(&roster, "u0@x.org"));
        learn(&mut roster, &iq("type='set' id='2'", &item(CONTACTS)));
        assert!(!roster.is_known());
        assert_eq!(roster.contacts.len(), CONTACTS);
        learn(&mut roster, &iq("type='result' id='3'", &format!("{full}{}", item(CONTACTS))));
        assert!(!roster.is_known() && roster.contacts.is_empty());
    }
}
