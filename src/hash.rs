//! Hashes with a secret key, so that a peer cannot choose values that collide.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use siphasher::sip::SipHasher13;

/// Returns a hasher with this key. Without the key nobody can choose two values with the same hash. The algorithm is fixed,
/// because hashes travel in the records of sessions to another version of this program, which may be built with another
/// standard library.
pub fn keyed(key: impl Hash) -> SipHasher13 {
    let mut hasher = SipHasher13::new();
    key.hash(&mut hasher);
    hasher
}

/// Returns a hash for tables in memory. Its key is random and constant while the process runs. It affects only the
/// speed of a table, never the result of a lookup.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(bytes)
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    #[test]
    fn a_hash_depends_on_the_key_and_on_the_value() {
        let hash = |key: u64, value: &str| {
            let mut hasher = keyed(key);
            value.hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash(1, "a"), hash(1, "a"));
        assert_ne!(hash(1, "a"), hash(2, "a"));
        assert_ne!(hash(1, "a"), hash(1, "b"));
        assert_eq!(of_bytes(b"a"), of_bytes(b"a"));
        assert_ne!(of_bytes(b"a"), of_bytes(b"b"));
    }
}
