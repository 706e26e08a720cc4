//! What servers offer and clients are shown of it, worked out once: a server says the same to everybody.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{FeaturesPhase, features, limits};
use crate::session::mechanism_filter::{HiddenOffers, Leg, MechanismFilter};
use crate::session::upgrade;
use crate::sync::lock;
use crate::xml::{Element, Header, ns};

/// How many offers are remembered, the newest ones.
const MOST: usize = 32;
/// The longest that is remembered, in bytes.
const LONGEST: usize = 16 * 1024;

/// What one `<stream:features/>` comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    /// As the client may see it.
    pub shown: Bytes,
    /// What is held back of the ways to log in.
    pub hidden: HiddenOffers,
    /// The server wants TLS.
    pub requires_tls: bool,
    /// What Pushward itself uses of the server.
    pub server: ServerFeatures,
}

/// The features of a server that Pushward itself uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        Self {
            shown: features(limited.as_ref().unwrap_or(element), terms.phase, terms.leg),
            hidden: MechanismFilter::new(&root, terms.leg).hidden(),
            requires_tls: upgrade::requires_tls(element),
            server: ServerFeatures {
                csi: root.child("csi", ns::CSI).is_some(),
                sm: root.child("sm", ns::SM).is_some(),
            },
        }
    }
}

/// What decides, beside the bytes of the features, what becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Which features these are.
    pub phase: FeaturesPhase,
    /// How the server is connected.
    pub leg: Leg,
    /// The most that a client's stanza may have, in bytes.
    pub max_bytes: usize,
}

struct Known {
    bytes: Bytes,
    /// Declares what the features' prefixes mean.
    header: Arc<Header>,
    terms: Terms,
    offer: Arc<Offer>,
}

/// The offers that were read of late.
#[derive(Default)]
pub struct Offers(Mutex<VecDeque<Known>>);

impl Offers {
    /// What these features come to.
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

    const TERMS: Terms = Terms { phase: FeaturesPhase::Unauthenticated, leg: Leg::Plain, max_bytes: 10_000 };
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
                    let (element, terms) = (features(xml, x), Terms { phase, leg, max_bytes });
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
