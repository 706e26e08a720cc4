//! Listeners that exclude each other.

use std::net::{Ipv6Addr, SocketAddr};

/// Returns whether two listeners cannot be bound at the same time on any system.
pub(super) fn overlaps(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let same_family = a.is_ipv4() == b.is_ipv4();
    same_port(one, other) && same_family && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// Returns whether one of two listeners is for all IPv6 addresses, and the other one for IPv4 at the same port. The first one
/// then takes IPv4 connections too, except where `net.ipv6.bindv6only` is set.
pub(crate) fn share_ipv4(one: SocketAddr, other: SocketAddr) -> bool {
    let all_and_ipv4 =
        |all: SocketAddr, other: SocketAddr| all.ip() == Ipv6Addr::UNSPECIFIED && other.ip().to_canonical().is_ipv4();
    same_port(one, other) && (all_and_ipv4(one, other) || all_and_ipv4(other, one))
}

/// Returns whether two listeners may exclude each other.
pub(crate) fn may_clash(one: SocketAddr, other: SocketAddr) -> bool {
    overlaps(one, other) || share_ipv4(one, other)
}

fn same_port(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0 && one.port() == other.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_one_family_overlap_and_all_of_ipv6_may_include_ipv4() {
        for (one, other, overlap, shared) in [
            ("0.0.0.0:5222", "192.0.2.1:5222", true, false),
            ("0.0.0.0:5222", "0.0.0.0:5222", true, false),
            ("0.0.0.0:5222", "192.0.2.1:5223", false, false),
            ("192.0.2.1:5222", "192.0.2.2:5222", false, false),
            ("[::]:5222", "[2001:db8::1]:5222", true, false),
            ("[::]:5222", "0.0.0.0:5222", false, true),
            ("[::]:5222", "127.0.0.1:5222", false, true),
            ("[::]:5222", "[::ffff:127.0.0.1]:5222", false, true),
            ("[::ffff:127.0.0.1]:5222", "127.0.0.1:5222", true, false),
            ("[::1]:5222", "0.0.0.0:5222", false, false),
            ("[::]:0", "0.0.0.0:0", false, false),
        ] {
            let [a, b] = [one, other].map(|address| address.parse().unwrap());
            for (a, b) in [(a, b), (b, a)] {
                assert_eq!((overlaps(a, b), share_ipv4(a, b)), (overlap, shared), "{a} {b}");
                assert_eq!(may_clash(a, b), overlap || shared, "{a} {b}");
            }
        }
    }
}
