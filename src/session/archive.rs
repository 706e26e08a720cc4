//! Stanzas that the server's archive has (XEP-0359).

use super::queue::ArchiveCopy;
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, Node, ns};

/// Returns whether the account's archive has a stanza. XEP-0359: only a `<stanza-id/>` by the own bare JID proves it.
pub(super) fn is_archived(element: &Element, account: &BareJid) -> bool {
    stanza_id(element, account).is_some()
}

/// The same as [`is_archived`], in the type that the queue notes of a spilled message.
pub(super) fn archive_copy(element: &Element, account: &BareJid) -> ArchiveCopy {
    if is_archived(element, account) { ArchiveCopy::Present } else { ArchiveCopy::Absent }
}

/// The id that the account's archive has given a stanza.
pub(super) fn own_stanza_id(element: &Element, account: &BareJid) -> Option<String> {
    stanza_id(element, account)?.attr("id").map(|id| id.into_owned())
}

fn stanza_id<'a>(element: &'a Element, account: &BareJid) -> Option<Node<'a>> {
    let by_own = |id: &Node<'_>| id.attr("by").is_some_and(|by| Jid::new(&by) == *account);
    let is_own = |child: &Node<'_>| child.is("stanza-id", ns::STANZA_ID) && by_own(child);
    if element.mentions(ns::STANZA_ID) { element.node().children().find(is_own) } else { None }
}
