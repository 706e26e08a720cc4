//! SCRAM-SHA-1 (RFC 5802) without channel binding, both sides. All accounts have one password and one salt, and both sides
//! keep the keys, as clients and servers do: nothing is derived from the password during a login.

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::link::PASSWORD;

pub(crate) const MECHANISM: &str = "SCRAM-SHA-1";

/// Number of iterations of PBKDF2.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
const SALT: &[u8] = b"salt of the benchmark";
const GS2: &str = "n,,";

/// The keys that follow from the password.
struct Keys {
    client: Vec<u8>,
    server: Vec<u8>,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let mut salted = [0; digest::SHA1_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, ITERATIONS, SALT, PASSWORD.as_bytes(), &mut salted);
        Keys { client: sign(&salted, b"Client Key"), server: sign(&salted, b"Server Key") }
    })
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key), message).as_ref().to_vec()
}

/// Returns the client's proof for the text of the exchange.
fn proof(text: &str) -> String {
    let client = &keys().client;
    let stored = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, client);
    let signature = sign(stored.as_ref(), text.as_bytes());
    BASE64.encode(client.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect::<Vec<u8>>())
}

/// Returns the server's proof for the text of the exchange.
fn verdict(text: &str) -> String {
    format!("v={}", BASE64.encode(sign(&keys().server, text.as_bytes())))
}

fn nonce() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("nonce{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn decode(message: &str) -> String {
    String::from_utf8(BASE64.decode(message).unwrap()).unwrap()
}

fn field<'a>(message: &'a str, name: &str) -> &'a str {
    message.split(',').find_map(|field| field.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// The client's side of one login.
pub(crate) struct Client {
    /// Its first message without the GS2 header.
    first: String,
    /// The text of the exchange, once it is complete.
    text: String,
}

impl Client {
    pub(crate) fn new(user: &str) -> Self {
        Self { first: format!("n={user},r={}", nonce()), text: String::new() }
    }

    /// Returns the first message.
    pub(crate) fn first(&self) -> String {
        BASE64.encode(format!("{GS2}{}", self.first))
    }

    /// Returns the answer to a challenge.
    pub(crate) fn last(&mut self, challenge: &str) -> String {
        let challenge = decode(challenge);
        let end = format!("c={},r={}", BASE64.encode(GS2), field(&challenge, "r="));
        self.text = format!("{},{challenge},{end}", self.first);
        BASE64.encode(format!("{end},p={}", proof(&self.text)))
    }

    /// Checks that the server knows the password.
    pub(crate) fn verify(&self, data: &str) {
        assert_eq!(decode(data), verdict(&self.text), "the server does not know the password");
    }
}

/// The server's side of one login.
pub(crate) struct Server {
    pub(crate) user: String,
    /// The text of the exchange so far.
    text: String,
}

impl Server {
    /// Takes the client's first message. Returns the challenge too.
    pub(crate) fn begin(initial: &str) -> (Self, String) {
        let initial = decode(initial);
        let first = initial.strip_prefix(GS2).expect("no channel binding");
        let salt = BASE64.encode(SALT);
        let challenge = format!("r={}{},s={salt},i={ITERATIONS}", field(first, "r="), nonce());
        let server = Self { user: field(first, "n=").to_owned(), text: format!("{first},{challenge}") };
        (server, BASE64.encode(challenge))
    }

    /// Takes the client's proof. Returns the data of the success.
    pub(crate) fn finish(&self, response: &str) -> String {
        let response = decode(response);
        let (end, own) = response.split_once(",p=").expect("a proof");
        let text = format!("{},{end}", self.text);
        assert_eq!(own, proof(&text), "the client does not know the password");
        BASE64.encode(verdict(&text))
    }
}
