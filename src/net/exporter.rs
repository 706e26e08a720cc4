//! The channel binding `tls-exporter` (RFC 9266) of connections of clients. [`ExporterLog`] computes the value during the
//! handshake, and [`with_channel_binding`] returns it.
//!
//! The TLS library exports keying material of its buffered connections only. Those of [`TlsStream`](super::tls_stream) have
//! no buffers, but the library passes their exporter secret to the key log, on the thread that processes the handshake.

use std::cell::Cell;

use aws_lc_rs::digest::{self, digest};
use aws_lc_rs::hkdf;
use rustls::KeyLog;

/// The label of the exporter (RFC 9266 §4.2).
const LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// The name of the exporter secret in a key log.
const SECRET: &str = "EXPORTER_SECRET";

thread_local! {
    /// The value of the handshake that this thread is processing.
    static VALUE: Cell<Option<[u8; 32]>> = const { Cell::new(None) };
}

/// A key log that writes nothing. It computes the channel binding from the exporter secret, which only TLS 1.3 has.
#[derive(Debug)]
pub(super) struct ExporterLog;

impl KeyLog for ExporterLog {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == SECRET {
            VALUE.set(value(secret));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == SECRET
    }
}

/// Processes a step of a handshake. Also returns the channel binding of its connection, if the step has computed it.
pub(super) fn with_channel_binding<T>(step: impl FnOnce() -> T) -> (T, Option<[u8; 32]>) {
    VALUE.set(None);
    let done = step();
    (done, VALUE.take())
}

/// A length of key material.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Computes the value: RFC 8446 §7.5 with an empty context.
fn value(secret: &[u8]) -> Option<[u8; 32]> {
    let (hkdf, digests) = match secret.len() {
        32 => (hkdf::HKDF_SHA256, &digest::SHA256),
        48 => (hkdf::HKDF_SHA384, &digest::SHA384),
        _ => return None,
    };
    let empty = digest(digests, b"");
    let mut derived = vec![0; secret.len()];
    expand_label(hkdf, secret, LABEL, empty.as_ref(), &mut derived)?;
    let mut value = [0; 32];
    expand_label(hkdf, &derived, b"exporter", empty.as_ref(), &mut value)?;
    Some(value)
}

/// HKDF-Expand-Label (RFC 8446 §7.1).
fn expand_label(hkdf: hkdf::Algorithm, secret: &[u8], label: &[u8], context: &[u8], into: &mut [u8]) -> Option<()> {
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(into.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let info = [&length[..], &label_length, PREFIX, label, &context_length, context];
    hkdf::Prk::new_less_safe(hkdf, secret).expand(&info, Length(into.len())).ok()?.fill(into).ok()
}
