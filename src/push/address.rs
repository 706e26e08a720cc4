//! The addresses of a stanza.

use crate::jid::Jid;
use crate::xml::Node;

/// Returns the address in this attribute of a stanza.
pub(super) fn address(stanza: &Node<'_>, attribute: &str) -> Option<Jid> {
    stanza.attr(attribute).map(|text| Jid::new(&text))
}

/// Returns the bare JID of an address, as text.
pub(super) fn bare(jid: &Jid) -> &str {
    jid.bare()
}
