//! Ids of the iq requests that Pushward itself sends on a session's streams.

/// A generator of unguessable ids with a common prefix. Even a late answer is recognized by the prefix.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct RequestIds {
    prefix: String,
}

impl RequestIds {
    /// Creates a generator whose prefix is a random number.
    pub(super) fn new(random: u128) -> Self {
        Self { prefix: format!("{random:032x}") }
    }

    /// Creates an id with a random number.
    pub(super) fn next(&self, random: u128) -> String {
        let mut id = String::with_capacity(self.prefix.len() + 33);
        id.push_str(&self.prefix);
        id.push('-');
        for digit in (0..32).rev().map(|place| (random >> (4 * place)) & 0xf) {
            id.extend(u32::try_from(digit).ok().and_then(|digit| char::from_digit(digit, 16)));
        }
        id
    }

    /// Returns whether an answer with this id belongs to a request of Pushward.
    pub(super) fn is_ours(&self, id: &str) -> bool {
        id.starts_with(&self.prefix)
    }

    /// A key for hashes. Without it, no one can construct collisions.
    pub(super) fn key(&self) -> &str {
        &self.prefix
    }
}
