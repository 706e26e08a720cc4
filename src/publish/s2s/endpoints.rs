//! The candidate endpoints of a push service and their order (RFC 6120 §3.2, RFC 2782, XEP-0368), and the addresses that are
//! never connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The port of servers that have no SRV records (RFC 6120 §3.2.2).
const PORT: u16 = 5269;

/// The TLS mode of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::publish) enum TlsMode {
    /// The connection starts with TLS (XEP-0368).
    Direct,
    /// TLS starts after `<starttls/>`.
    Starttls,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Srv {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// The host name, without the final dot. Empty: the domain states that the service is not available.
    pub(super) target: String,
}

/// The SRV records of a domain, by TLS mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SrvRecords {
    /// `_xmpps-server` (XEP-0368).
    pub(super) direct: Vec<Srv>,
    /// `_xmpp-server`
    pub(super) starttls: Vec<Srv>,
}

/// A name and a port to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: TlsMode,
}

/// Returns the candidates for a domain's server, in the order in which they are tried. Empty: there is none. `random(n)`
/// returns a number from 0 to `n`. Both kinds of records count as one set (XEP-0368 §3). Without any, the candidate is the
/// domain itself (RFC 6120 §3.2.2).
pub(super) fn order(
    domain: &str,
    SrvRecords { direct, starttls }: SrvRecords,
    mut random: impl FnMut(u32) -> u32,
) -> Vec<Candidate> {
    if direct.is_empty() && starttls.is_empty() {
        return vec![Candidate { host: domain.to_owned(), port: PORT, tls: TlsMode::Starttls }];
    }
    let both = direct
        .into_iter()
        .map(|srv| (TlsMode::Direct, srv))
        .chain(starttls.into_iter().map(|srv| (TlsMode::Starttls, srv)));
    let mut left: Vec<_> = both.filter(|(_, srv)| !srv.target.is_empty()).collect();
    // RFC 2782: records of weight 0 come first among equal priorities, so that they are seldom chosen but can be.
    left.sort_by_key(|(_, srv)| (srv.priority, srv.weight));
    let mut ordered = Vec::new();
    while let Some((_, first)) = left.first() {
        let priority = first.priority;
        let equals = left.iter().take_while(|(_, srv)| srv.priority == priority);
        let sum: u32 = equals.clone().map(|(_, srv)| u32::from(srv.weight)).sum();
        let mut rest = random(sum).min(sum);
        let chosen = equals.clone().position(|(_, srv)| {
            let weight = u32::from(srv.weight);
            let is_it = rest <= weight;
            rest = rest.saturating_sub(weight);
            is_it
        });
        let (tls, srv) = left.remove(chosen.unwrap_or_default());
        ordered.push(Candidate { host: srv.target, port: srv.port, tls });
    }
    ordered
}

/// Returns whether a port may belong to a push service. Ports below 1024 belong to other services, except for the HTTPS port,
/// which many services share (XEP-0368).
pub(super) fn is_open(port: u16) -> bool {
    port >= 1024 || port == 443
}

/// Returns the same for this machine, where only server ports may be reached: a push service may be a local component.
pub(super) fn is_open_here(port: u16) -> bool {
    matches!(port, 5269 | 5270)
}

/// Returns whether an address belongs to this machine: then a socket can be bound to it. If a socket can be bound to any
/// address (`ip_nonlocal_bind`), the test is whether a datagram to the address would have it as its source. No datagram is
/// sent.
pub(super) fn is_here(address: IpAddr) -> bool {
    // Addresses for documentation (RFC 5737, RFC 3849): no machine has them.
    let (any, nobody): (IpAddr, IpAddr) = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    };
    let takes = |address| UdpSocket::bind((address, 0)).is_ok();
    if !takes(nobody) {
        return takes(address);
    }
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, PORT))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

/// Returns whether an address belongs to the public internet. Users choose push services, and must not reach the internal
/// network.
pub(super) fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

/// Implements IANA's special-purpose registry.
fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224.., _, _)
    );
    !special
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_global_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // NAT64 (RFC 6052) and 6to4 addresses lead to IPv4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo and other special assignments, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 5269, target: target.to_owned() }
    }

    fn names(direct: &[Srv], starttls: &[Srv], random: impl FnMut(u32) -> u32) -> Vec<String> {
        let records = SrvRecords { direct: direct.to_vec(), starttls: starttls.to_vec() };
        let candidates = order("push.example", records, random);
        candidates
            .into_iter()
            .map(|t| format!("{}{}", t.host, if t.tls == TlsMode::Direct { "!" } else { "" }))
            .collect()
    }

    #[test]
    fn without_srv_records_the_domain_itself_is_the_candidate() {
        let fallback = Candidate { host: "push.example".to_owned(), port: 5269, tls: TlsMode::Starttls };
        assert_eq!(order("push.example", SrvRecords::default(), |_| 0), [fallback]);
    }

    #[test]
    fn both_kinds_of_records_are_one_set_ordered_by_priority() {
        let direct = [srv(20, 0, "d20"), srv(5, 0, "d5")];
        let starttls = [srv(10, 0, "s10"), srv(30, 0, "s30")];
        assert_eq!(names(&direct, &starttls, |_| 0), ["d5!", "s10", "d20!", "s30"]);
    }

    #[test]
    fn weights_decide_among_equals() {
        let all = [srv(1, 10, "light"), srv(1, 30, "heavy"), srv(1, 0, "zero")];
        assert_eq!(names(&[], &all, |_| 0), ["zero", "light", "heavy"]);
        assert_eq!(names(&[], &all, |n| n), ["heavy", "light", "zero"]);
        assert_eq!(names(&[], &all, |n| n.min(10)), ["light", "heavy", "zero"]);
        assert_eq!(names(&[], &all, |_| u32::MAX), ["heavy", "light", "zero"]);
    }

    #[test]
    fn a_domain_can_declare_that_it_has_no_server() {
        assert_eq!(names(&[], &[srv(0, 0, "")], |_| 0), [""; 0]);
        assert_eq!(names(&[srv(0, 0, "")], &[srv(1, 0, "s")], |_| 0), ["s"]);
    }

    #[test]
    fn the_ports_of_other_services_are_closed() {
        for (port, open, here) in [
            (0, false, false),
            (22, false, false),
            (25, false, false),
            (443, true, false),
            (1023, false, false),
            (1024, true, false),
            (5222, true, false),
            (5269, true, true),
            (5270, true, true),
            (6379, true, false),
        ] {
            assert_eq!((is_open(port), is_open_here(port)), (open, here), "{port}");
        }
    }

    #[test]
    fn an_address_of_this_machine_is_known() {
        assert!(is_here("127.0.0.1".parse().unwrap()) && is_here("127.3.2.1".parse().unwrap()));
        assert!(!is_here("192.0.2.1".parse().unwrap()) && !is_here("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn only_the_public_internet_is_global() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.1.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::1",
            "64:ff9b::10.0.0.1",
            "3fff::1",
            "100::1",
        ] {
            assert!(!is_global(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.9.9.9",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "2a01:4f8::1",
            "2001:4860:4860::8888",
            "2002:101:101::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(is_global(address.parse().unwrap()), "{address}");
        }
    }
}
