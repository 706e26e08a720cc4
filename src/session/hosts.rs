//! The served hosts, and the check of stream headers against them.

use std::collections::HashSet;

use crate::jid;
use crate::xml::{Header, StreamCondition};

/// Returns the served domain that a header is addressed to, or the stream error condition (RFC 6120 §4.9.3.6).
pub(super) fn served_host(hosts: &HashSet<String>, header: &Header) -> Result<String, StreamCondition> {
    let host = header.to().and_then(jid::domain).ok_or(StreamCondition::ImproperAddressing)?;
    if hosts.contains(&host) { Ok(host) } else { Err(StreamCondition::HostUnknown) }
}
