//! Stanzas that the server's archive has (XEP-0359).

use super::queue::ArchiveCopy;
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, Node, ns};

/// XEP-0359: only the own bare JID says that the own archive has it.
pub(super) fn is_archived(element: &Element, account: &BareJid) -> bool {
    stanza_id(element, account).is_some()
}

/// The same as what the queue notes of a message that is spilled.
pub(super) fn archive_copy(element: &Element, account: &BareJid) -> ArchiveCopy {
    if is_archived(element, account) { ArchiveCopy::Present } else { ArchiveCopy::Absent }
}

/// The id that the own archive has given a stanza.
pub(super) fn own_stanza_id(element: &Element, account: &BareJid) -> Option<String> {
    stanza_id(element, account)?.attr("id").map(|id| id.into_owned())
}

fn stanza_id<'a>(element: &'a Element, account: &BareJid) -> Option<Node<'a>> {
    let by_own = |id: &Node<'_>| id.attr("by").is_some_and(|by| Jid::new(&by) == *account);
    let is_own = |child: &Node<'_>| child.is("stanza-id", ns::STANZA_ID) && by_own(child);
    if element.mentions(ns::STANZA_ID) { element.node().children().find(is_own) } else { None }
}
