//! Addresses of push services from the DNS. Only addresses of the public internet are accepted.
//!
//! The resolver is on loopback, and so are all addresses in its records. Each is refused in turn, which shows the
//! order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{bob, goes_dark, routed};
use crate::support::{Authority, NameServer, Prosody, PushServer, PushServerOptions, Pushward, Record};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DIRECT: &str = "_xmpps-server._tcp.push.test";
const STARTTLS: &str = "_xmpp-server._tcp.push.test";

/// Returns the names that are queried if the DNS has these records of `push.test`, until a log line gives the reason
/// `why`.
async fn asked(records: &[Record], why: &str) -> Vec<String> {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let dns = NameServer::knowing(records).await;
    let elsewhere = "domain = 'other.test'\naddress = '127.0.0.1:1'\nca = 'ca.pem'";
    let setup = routed(&prosody, &authority, elsewhere).set("dns.servers", &format!("['{}']", dns.address));
    let pushward = Pushward::start(setup.set("push.transports", "['s2s']")).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    pushward.logged(&["push transport skipped", why]).await;
    let mut asked = dns.asked();
    // Both are queried at once, in any order.
    if asked.len() > 1 {
        asked[..2].sort();
    }
    asked
}

#[tokio::test]
async fn both_kinds_of_srv_records_are_resolved_and_tried_by_priority() {
    let hosts = ["d20.test", "d5.test", "s10.test", "s30.test"].map(|host| Record::Address(host, LOOPBACK));
    let services = [
        Record::Srv(DIRECT, 20, 5001, "d20.test"),
        Record::Srv(DIRECT, 5, 5002, "d5.test"),
        Record::Srv(STARTTLS, 30, 5003, "s30.test"),
        Record::Srv(STARTTLS, 10, 5004, "s10.test"),
    ];
    let asked = asked(&[&hosts[..], &services].concat(), "s30.test has no address on the public internet").await;
    assert_eq!(asked, [STARTTLS, DIRECT, "d5.test", "s10.test", "d20.test", "s30.test"]);
}

#[tokio::test]
async fn without_srv_records_the_domain_itself_is_connected() {
    let why = "push.test has no address on the public internet (127.0.0.1)";
    let asked = asked(&[Record::Address("push.test", LOOPBACK)], why).await;
    assert_eq!(asked, [STARTTLS, DIRECT, "push.test"]);
}

#[tokio::test]
async fn a_domain_may_have_only_ipv6_addresses() {
    let records = [Record::Address("push.test", IpAddr::V6(Ipv6Addr::LOCALHOST))];
    asked(&records, "push.test has no address on the public internet (::1)").await;
}

#[tokio::test]
async fn a_domain_that_declares_to_have_no_server_is_not_connected() {
    let records = [Record::Srv(STARTTLS, 0, 0, "."), Record::Address("push.test", LOOPBACK)];
    assert_eq!(asked(&records, "according to the DNS, push.test has no server").await, [STARTTLS, DIRECT]);
}

#[tokio::test]
async fn a_name_server_that_fails_does_not_mean_that_there_are_no_records() {
    let records = [Record::Broken(DIRECT), Record::Address("push.test", LOOPBACK)];
    let why = format!("cannot look up the name {DIRECT}: the name server answered server failure; correct");
    let asked = asked(&records, &why).await;
    assert!(!asked.contains(&"push.test".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn a_name_without_an_address_is_named_in_a_sentence() {
    let why = "cannot look up the name push.test: it has no address; correct the name resolution";
    assert_eq!(asked(&[], why).await, [STARTTLS, DIRECT, "push.test"]);
}

#[tokio::test]
async fn addresses_outside_the_public_internet_are_not_connected_unless_routed() {
    let authority = Authority::new("an authority");
    let peer = PushServer::start(PushServerOptions::new("push.test", &authority)).await;
    let port = peer.starttls.port();
    let records = [Record::Srv(STARTTLS, 0, port, "xmpp.test"), Record::Address("xmpp.test", LOOPBACK)];
    let asked = asked(&records, "xmpp.test has no address on the public internet (127.0.0.1)").await;
    assert_eq!(asked, [STARTTLS, DIRECT, "xmpp.test"]);
    assert_eq!(peer.streams(), 0);
}
