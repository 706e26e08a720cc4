//! Cached results of rewriting servers' features, because a server sends the same features to every client.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::fronted::{self, FrontedOffer};
use super::{FeaturesPhase, features, limits};
use crate::session::fronting::FrontedParts;
use crate::session::mechanism_filter::{HiddenOffers, Leg, MechanismFilter};
use crate::session::upgrade;
use crate::sync::lock;
use crate::xml::{Element, Header, ns};

/// The number of offers that are cached, the newest ones.
const MOST: usize = 32;
/// The maximum length of features that are cached, in bytes.
const LONGEST: usize = 16 * 1024;

/// The result of rewriting one `<stream:features/>`.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    /// The features as the client may see them.
    pub shown: Bytes,
    /// The SASL offers that are hidden.
    pub hidden: HiddenOffers,
    /// True if the server requires TLS.
    pub requires_tls: bool,
    /// The mechanisms of RFC 6120's profile that the client sees.
    pub sasl1: Box<[String]>,
    /// True if the server has SASL2 itself.
    pub has_sasl2: bool,
    /// SASL2 as Pushward offers it, if it does.
    pub fronted: Option<FrontedOffer>,
    /// The features that Pushward itself uses.
    pub server: ServerFeatures,
}

/// The features of a server that Pushward itself uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServerFeatures {
    /// Client state indication (XEP-0352).
    pub csi: bool,
    /// Stream management (XEP-0198).
    pub sm: bool,
}

impl Offer {
    fn new(element: &Element, terms: Terms) -> Self {
        let root = element.node();
        let limited = limits(element, terms.max_bytes);
        let limited = limited.and_then(|bytes| Element::parse(bytes, element.header()).ok());
        let filter = MechanismFilter::new(&root, terms.leg);
        let parts = terms.fronted.filter(|_| terms.phase == FeaturesPhase::Unauthenticated);
        let fronted = parts.and_then(|parts| FrontedOffer::new(&root, &filter, parts));
        Self {
            shown: features(limited.as_ref().unwrap_or(element), terms.phase, &filter, fronted.as_ref()),
            hidden: filter.hidden(),
            requires_tls: upgrade::requires_tls(element),
            sasl1: fronted::mechanisms(&root, &filter).collect(),
            has_sasl2: root.child("authentication", ns::SASL2).is_some(),
            fronted,
            server: ServerFeatures {
                csi: root.child("csi", ns::CSI).is_some(),
                sm: root.child("sm", ns::SM).is_some(),
            },
        }
    }
}

/// The parameters of the rewrite in addition to the bytes of the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The phase of the stream.
    pub phase: FeaturesPhase,
    /// The kind of connection to the server.
    pub leg: Leg,
    /// The maximum size of a client's stanza, in bytes.
    pub max_bytes: usize,
    /// The features to offer with SASL2 if the server lacks it; `None` if SASL2 is not offered for it.
    pub fronted: Option<FrontedParts>,
}

struct Known {
    bytes: Bytes,
    /// The header that declares the features' prefixes.
    header: Arc<Header>,
    terms: Terms,
    offer: Arc<Offer>,
}

/// A cache of recent offers.
#[derive(Default)]
pub struct Offers(Mutex<VecDeque<Known>>);

impl Offers {
    /// Returns the rewritten features, from the cache if possible.
    pub fn read(&self, features: &Element, terms: Terms) -> Arc<Offer> {
        let same = |known: &&Known| {
            known.bytes == features.bytes()
                && known.terms == terms
                && known.header.prefixes().eq(features.header().prefixes())
        };
        if let Some(known) = self.known().iter().find(same) {
            return Arc::clone(&known.offer);
        }
        let offer = Arc::new(Offer::new(features, terms));
        if features.bytes().len() <= LONGEST {
            let (bytes, header) = (Bytes::copy_from_slice(features.bytes()), Arc::clone(features.header()));
            let mut known = self.known();
            known.truncate(MOST - 1);
            known.push_front(Known { bytes, header, terms, offer: Arc::clone(&offer) });
        }
        offer
    }

    fn known(&self) -> std::sync::MutexGuard<'_, VecDeque<Known>> {
        lock(&self.0)
    }
}

impl fmt::Debug for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Offers").field(&self.known().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::mechanism_filter::ChannelBinding;

    const TERMS: Terms =
        Terms { phase: FeaturesPhase::Unauthenticated, leg: Leg::Plain, max_bytes: 10_000, fronted: None };
    const OFFER: &str = "<stream:features><x:mechanisms><x:mechanism>SCRAM-SHA-1-PLUS</x:mechanism>\
                         <x:mechanism>PLAIN</x:mechanism></x:mechanisms>\
                         <sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-server-end-point'/>\
                         </sasl-channel-binding></stream:features>";

    fn features(xml: &str, x: &str) -> Element {
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:x='{x}' id='1'>"
        );
        let header = Arc::new(Header::parse(Bytes::from(header)).unwrap());
        Element::parse(Bytes::copy_from_slice(xml.as_bytes()), &header).unwrap()
    }

    #[test]
    fn what_is_remembered_of_an_offer_is_what_reading_it_gives() {
        let offers = Offers::default();
        let legs = [Leg::Plain, Leg::Tls(ChannelBinding::Strip), Leg::Tls(ChannelBinding::ServerEndPoint)];
        let phases =
            [FeaturesPhase::Unauthenticated, FeaturesPhase::Authenticated, FeaturesPhase::Bound { managed: true }];
        let limits = |bytes| {
            format!(
                "<stream:features><limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>{bytes}</max-bytes></limits>\
                 <sm xmlns='urn:xmpp:sm:3'/><csi xmlns='urn:xmpp:csi:0'/></stream:features>"
            )
        };
        for _ in 0..2 {
            for xml in [OFFER, &limits(262_144), &limits(262_145)] {
                for (x, leg, phase, max_bytes) in [ns::SASL, "urn:other"]
                    .into_iter()
                    .flat_map(|x| legs.map(|leg| (x, leg)))
                    .flat_map(|(x, leg)| phases.map(|phase| (x, leg, phase)))
                    .flat_map(|(x, leg, phase)| [5_000, 10_000].map(|max_bytes| (x, leg, phase, max_bytes)))
                {
                    let fronted =
                        (max_bytes == 5_000).then_some(FrontedParts { carbons: true, metadata: true, tokens: None });
                    let (element, terms) = (features(xml, x), Terms { phase, leg, max_bytes, fronted });
                    assert_eq!(*offers.read(&element, terms), Offer::new(&element, terms), "{xml} {terms:?}");
                    assert!(Arc::ptr_eq(&offers.read(&element, terms), &offers.read(&features(xml, x), terms)));
                }
            }
        }
    }

    #[test]
    fn a_prefix_that_means_something_else_makes_another_offer() {
        let offers = Offers::default();
        let shown = |x| String::from_utf8(offers.read(&features(OFFER, x), TERMS).shown.to_vec()).unwrap();
        assert!(!shown(ns::SASL).contains("PLUS"));
        assert!(shown("urn:other").contains("PLUS"));
    }

    #[test]
    fn few_offers_are_remembered_and_no_long_ones() {
        let offers = Offers::default();
        for n in 0..2 * MOST {
            offers.read(&features(&format!("<stream:features><n{n}/></stream:features>"), ns::SASL), TERMS);
        }
        assert_eq!(offers.known().len(), MOST);
        let first = Offers::default();
        first.read(&features(&format!("<stream:features>{}</stream:features>", " ".repeat(LONGEST)), ns::SASL), TERMS);
        assert_eq!(first.known().len(), 0);
    }
}
