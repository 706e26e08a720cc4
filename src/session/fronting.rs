//! SASL2 in front of servers that lack it (XEP-0388): the hosts for which Pushward offers it, and what it has learned about their
//! servers.
//!
//! All logins of a host share this memory, see [`Fronting`]. `negotiate::fronted` logs the clients in, and
//! [`rewrite::fronted`](super::rewrite::fronted) translates between the two profiles of SASL.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::jid::BareJid;
use crate::secret::Secret;
use crate::session::mechanism_filter::Leg;
use crate::sync::lock;
use crate::xml::{Element, Header};

/// The length of the stable part of a resource, in bytes before it is encoded.
const STABLE: usize = 9;
/// The maximum length of a `<tag/>` that is used, in bytes. RFC 7622 §3.4 limits a resource to 1023.
const TAG: usize = 512;

/// The maximum length of features that are kept, in bytes.
const FEATURES: usize = 16 * 1024;

/// The number of languages of clients' streams for which the header of a server is kept.
const LANGUAGES: usize = 16;

/// The hosts with `modern_login`.
#[derive(Debug, Default)]
pub struct Fronting {
    hosts: HashMap<String, Mutex<ServerLimits>>,
    key: Secret<u128>,
}

/// The knowledge about servers, for another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FrontingRecord(BTreeMap<String, ServerLimits>);

impl FrontingRecord {
    /// Forgets the hosts for which `stays` returns false, because their servers may be others.
    pub fn retain(&mut self, stays: impl Fn(&str) -> bool) {
        self.0.retain(|host, _| stays(host));
    }
}

/// The limits of a server, as far as logins have met them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct ServerLimits {
    /// True if SCRAM depends on the server's own offers or on its TLS connection. Another list of offers would fail then.
    binds_offers: bool,
    /// True if the server has offered SASL2 itself, or another node does not offer it in front of the server. ejabberd offers it only
    /// to clients whose header has a `from`.
    has_sasl2: bool,
    refuses_carbons: bool,
    refuses_metadata: bool,
    /// Its headers and features, by the language of the client's stream: some servers answer in that language.
    known: Vec<(Option<Box<str>>, KnownServer)>,
}

/// The parts that are offered with SASL2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontedParts {
    /// The server has not refused message carbons (XEP-0280).
    pub carbons: bool,
    /// The server has not refused the metadata of its archive (XEP-0313 §7).
    pub metadata: bool,
    /// Logins by token (XEP-0484), if they are on.
    pub tokens: Option<TokenOffer>,
}

/// The offer of logins by token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenOffer {
    /// True if the client's connection has a channel binding.
    pub with_binding: bool,
}

/// The header and features that a server has sent to the last client that was connected to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KnownServer {
    /// Its header.
    pub header: Arc<Header>,
    /// Its features.
    pub features: Element,
    /// The kind of the connection to it.
    pub leg: Leg,
}

impl Fronting {
    /// Creates the memory for these hosts. The key makes resources unpredictable.
    pub fn new(hosts: impl IntoIterator<Item = String>, key: Secret<u128>) -> Self {
        Self { hosts: hosts.into_iter().map(|host| (host, Mutex::default())).collect(), key }
    }

    /// Returns what is known about servers, for another process.
    pub fn freeze(&self) -> FrontingRecord {
        FrontingRecord(self.hosts.iter().map(|(host, limits)| (host.clone(), lock(limits).clone())).collect())
    }

    /// Continues with the knowledge of another process.
    pub fn thaw(&self, record: FrontingRecord) {
        for (host, known) in record.0 {
            if let Some(mut limits) = self.limits(&host) {
                *limits = known;
            }
        }
    }

    /// Returns the parts to offer for a host if its server lacks SASL2. `None`: SASL2 is not offered.
    pub fn parts(&self, host: &str) -> Option<FrontedParts> {
        let limits = self.limits(host)?;
        (!limits.binds_offers && !limits.has_sasl2).then_some(FrontedParts {
            carbons: !limits.refuses_carbons,
            metadata: !limits.refuses_metadata,
            tokens: None,
        })
    }

    /// Notes that a challenge of the server depends on its own offers or on its TLS connection (XEP-0474, XEP-0515). Returns
    /// whether SASL2 was offered before and is not offered from now on.
    pub fn on_bound_offers(&self, host: &str) -> bool {
        self.limits(host).is_some_and(|mut limits| !std::mem::replace(&mut limits.binds_offers, true))
    }

    /// Notes that the server has SASL2 itself.
    pub fn on_own_sasl2(&self, host: &str) {
        if let Some(mut limits) = self.limits(host) {
            limits.has_sasl2 = true;
        }
    }

    /// Notes what the server has sent to a client with a stream of this language before its login. Features that are too long
    /// are not kept.
    pub fn on_features(&self, host: &str, lang: Option<&str>, server: KnownServer) {
        let Some(mut limits) = self.limits(host) else { return };
        let known = &mut limits.known;
        if server.features.bytes().len() > FEATURES {
            return known.clear();
        }
        // Other features replace those that clients of other languages would get.
        known.retain(|(_, known)| known.features.bytes() == server.features.bytes() && known.leg == server.leg);
        let same = |(of, _): &(Option<Box<str>>, _)| of.as_deref() == lang;
        if known.iter().find(|known| same(known)).is_some_and(|(_, known)| known.header.means_the_same(&server.header))
        {
            return;
        }
        known.retain(|known| !same(known));
        if known.len() == LANGUAGES {
            known.remove(0);
        }
        known.push((lang.map(Into::into), KnownServer { features: server.features.compact(), ..server }));
    }

    /// Forgets what the server sends: it has changed.
    pub fn forget(&self, host: &str) {
        if let Some(mut limits) = self.limits(host) {
            limits.known.clear();
        }
    }

    /// Returns what the server sends to a client with a stream of this language before its login, if it is known.
    pub fn known(&self, host: &str, lang: Option<&str>) -> Option<KnownServer> {
        let limits = self.limits(host)?;
        limits.known.iter().find(|(of, _)| of.as_deref() == lang).map(|(_, known)| known.clone())
    }

    /// Takes what another node offers to clients of this host in front of the server: it may have learned more than this one, which
    /// then offers no more. `carbons`: whether message carbons are part of it; `None` if SASL2 is not offered.
    pub fn on_other_node(&self, host: &str, carbons: Option<bool>) {
        if let Some(mut limits) = self.limits(host) {
            limits.known.clear();
            limits.has_sasl2 |= carbons.is_none();
            limits.refuses_carbons |= carbons == Some(false);
        }
    }

    /// Notes that the server refuses message carbons.
    pub fn on_carbons_refused(&self, host: &str) {
        if let Some(mut limits) = self.limits(host) {
            limits.refuses_carbons = true;
        }
    }

    /// Notes that the server has no metadata of its archive.
    pub fn on_metadata_refused(&self, host: &str) {
        if let Some(mut limits) = self.limits(host) {
            limits.refuses_metadata = true;
        }
    }

    /// The hosts for which SASL2 is not offered any more.
    pub fn ended(&self) -> Vec<String> {
        let ended = self.hosts.iter().filter(|(_, limits)| lock(limits).binds_offers);
        ended.map(|(host, _)| host.clone()).collect()
    }

    fn limits(&self, host: &str) -> Option<MutexGuard<'_, ServerLimits>> {
        self.hosts.get(host).map(lock)
    }

    /// Returns the resource of a user agent (XEP-0386 §3.1): its `<tag/>` and a part that stays the same for the same account and
    /// agent, without showing the agent's id. Without an agent, that part is this random number.
    pub fn resource(&self, tag: Option<&str>, account: &BareJid, agent: Option<&str>, random: u128) -> String {
        let stable = match agent {
            Some(agent) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key.expose().to_be_bytes());
                let hash = hmac::sign(&key, format!("{account}\0{agent}").as_bytes());
                URL_SAFE_NO_PAD.encode(hash.as_ref().get(..STABLE).unwrap_or_default())
            }
            None => URL_SAFE_NO_PAD.encode(random.to_be_bytes().get(..STABLE).unwrap_or_default()),
        };
        match tag.map(str::trim).filter(|tag| !tag.is_empty() && tag.len() <= TAG) {
            Some(tag) => format!("{tag}/{stable}"),
            None => stable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fronting() -> Fronting {
        Fronting::new(["example.org".to_owned()], Secret::new(7))
    }

    #[test]
    fn what_a_server_refused_is_not_offered_for_its_host_again() {
        let fronting = fronting();
        assert_eq!(fronting.parts("example.net"), None);
        assert_eq!(fronting.parts("example.org"), Some(FrontedParts { carbons: true, metadata: true, tokens: None }));
        fronting.on_carbons_refused("example.org");
        fronting.on_carbons_refused("example.net");
        assert_eq!(fronting.parts("example.org"), Some(FrontedParts { carbons: false, metadata: true, tokens: None }));
        fronting.on_metadata_refused("example.org");
        assert_eq!(fronting.parts("example.org"), Some(FrontedParts { carbons: false, metadata: false, tokens: None }));
    }

    #[test]
    fn a_server_whose_challenges_depend_on_its_offers_is_not_fronted_from_then_on() {
        let fronting = fronting();
        assert!(fronting.on_bound_offers("example.org"));
        assert!(!fronting.on_bound_offers("example.org"), "it is reported once");
        assert!(!fronting.on_bound_offers("example.net"));
        assert_eq!(fronting.parts("example.org"), None);
        assert_eq!(fronting.ended(), ["example.org"]);
    }

    #[test]
    fn a_server_that_has_offered_sasl2_itself_is_not_fronted() {
        let fronting = fronting();
        fronting.on_own_sasl2("example.org");
        assert_eq!(fronting.parts("example.org"), None);
        assert_eq!(fronting.ended(), [""; 0], "that is no fault");
    }

    #[test]
    fn no_more_is_offered_than_another_node_offers() {
        let fronting = fronting();
        fronting.on_other_node("example.org", Some(true));
        fronting.on_other_node("example.net", None);
        assert_eq!(fronting.parts("example.org"), Some(FrontedParts { carbons: true, metadata: true, tokens: None }));
        fronting.on_other_node("example.org", Some(false));
        assert_eq!(fronting.parts("example.org"), Some(FrontedParts { carbons: false, metadata: true, tokens: None }));
        fronting.on_other_node("example.org", None);
        assert_eq!(fronting.parts("example.org"), None);
    }

    #[test]
    fn a_resource_is_the_same_for_the_same_agent_of_an_account_and_does_not_show_the_agent() {
        let fronting = fronting();
        let [juliet, romeo] = ["juliet@example.org", "romeo@example.org"].map(|jid| BareJid::new(jid).unwrap());
        let resource = |account, agent, random| fronting.resource(Some("Phone"), account, agent, random);
        let first = resource(&juliet, Some("d4565fa7-4d72-4749"), 1);
        assert_eq!(first, resource(&juliet, Some("d4565fa7-4d72-4749"), 2));
        assert!(first.starts_with("Phone/") && first.len() == "Phone/".len() + 12, "{first}");
        assert!(!first.contains("d4565fa7"), "{first}");
        for other in [
            resource(&romeo, Some("d4565fa7-4d72-4749"), 1),
            resource(&juliet, Some("other"), 1),
            resource(&juliet, None, 1 << 100),
            resource(&juliet, None, 2 << 100),
            Fronting::new([], Secret::new(8)).resource(Some("Phone"), &juliet, Some("d4565fa7-4d72-4749"), 1),
        ] {
            assert_ne!(first, other);
        }
        assert_ne!(resource(&juliet, None, 1 << 100), resource(&juliet, None, 2 << 100));
        for none in [None, Some(""), Some("  "), Some("x".repeat(TAG + 1).as_str())] {
            assert_eq!(fronting.resource(none, &juliet, Some("a"), 1).len(), 12, "{none:?}");
        }
    }

    #[test]
    fn the_next_process_knows_the_server() {
        let (fronting, after) = (fronting(), fronting());
        let header = Arc::new(Header::parse(crate::xml::stream_header("example.org", "1", Some("en"))).unwrap());
        let features = Element::parse("<stream:features><x xmlns='y'/></stream:features>".into(), &header).unwrap();
        let known = KnownServer { header, features, leg: Leg::Plain };
        fronting.on_features("example.org", Some("en"), known.clone());
        fronting.on_carbons_refused("example.org");
        let bytes = rmp_serde::to_vec_named(&fronting.freeze()).unwrap();
        let record: FrontingRecord = rmp_serde::from_slice(&bytes).unwrap();
        after.thaw(record);
        assert_eq!(after.parts("example.org"), fronting.parts("example.org"));
        let again = after.known("example.org", Some("en")).unwrap();
        assert_eq!((again.header.bytes(), again.features.bytes()), (known.header.bytes(), known.features.bytes()));
        assert!(again.features.is("features", crate::xml::ns::STREAMS) && again.leg == Leg::Plain);
        let mut record = after.freeze();
        record.retain(|host| host != "example.org");
        after.forget("example.org");
        after.thaw(record);
        assert!(after.known("example.org", Some("en")).is_none(), "another server");
        assert!(rmp_serde::from_slice::<FrontingRecord>(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn the_number_of_languages_is_limited() {
        let fronting = fronting();
        let header = Arc::new(Header::parse(crate::xml::stream_header("example.org", "1", None)).unwrap());
        let features = Element::parse("<features xmlns='jabber:client'/>".into(), &header).unwrap();
        let learn = |lang: Option<&str>| {
            let known = KnownServer { header: Arc::clone(&header), features: features.clone(), leg: Leg::Plain };
            fronting.on_features("example.org", lang, known);
        };
        learn(None);
        (0..LANGUAGES).for_each(|lang| learn(Some(&lang.to_string())));
        learn(Some("1"));
        assert!(fronting.known("example.org", None).is_none(), "the oldest is forgotten");
        assert!((0..LANGUAGES).all(|lang| fronting.known("example.org", Some(&lang.to_string())).is_some()));
        assert!(fronting.known("example.org", Some("other")).is_none());
    }
}
