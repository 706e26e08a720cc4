//! The secret of a token: its text, which only the client keeps, and the key of the HMACs.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mechanism::TokenBinding;
use crate::secret::Secret;

/// The number of random 128-bit numbers in a token.
const NUMBERS: usize = 4;

/// The text of a token, which is sent to the client. It has 86 characters.
#[derive(Debug)]
pub struct TokenText(Secret<String>);

impl TokenText {
    /// Creates a token from random numbers.
    pub(super) fn new(mut random: impl FnMut() -> u128) -> Self {
        let mut bytes = Vec::with_capacity(NUMBERS * size_of::<u128>());
        for _ in 0..NUMBERS {
            bytes.extend_from_slice(&random().to_be_bytes());
        }
        Self(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Returns the text, for the wire only.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Returns the key with which the client computes its HMACs. RFC 2104 §2: a key that is longer than a block of 64 bytes,
    /// as this text is, is replaced by its hash.
    pub(super) fn key(&self) -> TokenKey {
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(digest(&SHA256, self.expose().as_bytes()).as_ref()) {
            *to = *from;
        }
        TokenKey(Secret::new(key))
    }
}

/// The key of a token's HMACs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenKey(Secret<[u8; 32]>);

impl TokenKey {
    /// Returns a key that belongs to no token. With it, a proof for which there is no token costs the same work.
    pub(super) fn of_nothing() -> Self {
        Self(Secret::new([0; 32]))
    }

    /// Returns whether this is the client's HMAC. The time does not depend on the answer.
    pub(super) fn is_proven_by(&self, hash: &[u8; 32], binding: &TokenBinding) -> bool {
        verify_slices_are_equal(&self.hash(b"Initiator", binding), hash).is_ok()
    }

    /// Returns the HMAC by which the server proves that it knows the token.
    pub(super) fn responder(&self, binding: &TokenBinding) -> [u8; 32] {
        self.hash(b"Responder", binding)
    }

    pub(super) fn hash(&self, role: &[u8], binding: &TokenBinding) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose());
        let mut context = hmac::Context::with_key(&key);
        context.update(role);
        context.update(binding.data());
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        hash
    }
}

impl Serialize for TokenKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0.expose()))
    }
}

impl<'de> Deserialize<'de> for TokenKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The error does not quote the text, which is a secret.
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::custom("not base64url"))?;
        let key = bytes.try_into().map_err(|_| Error::custom("not 32 bytes"))?;
        Ok(Self(Secret::new(key)))
    }
}
