//! A stanza as it is written to the client.

use std::sync::Arc;

use bytes::Bytes;

use crate::session::queue::Queued;
use crate::session::rewrite;
use crate::xml::{Element, Header};

/// Returns a stanza as it is written on the stream with this header. A stanza that waited gets a delay stamp by `domain`.
pub(super) fn for_client(item: &Queued, domain: &str, header: &Arc<Header>) -> Bytes {
    let delayed = || {
        let bytes = rewrite::delayed(&item.element, domain, item.received)?;
        Element::parse(bytes, item.element.header()).ok()
    };
    let delayed = if item.waited { delayed() } else { None };
    delayed.as_ref().unwrap_or(&item.element).on_stream(header)
}
