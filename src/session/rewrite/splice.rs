//! Changes to the bytes of an element.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::xml::{Element, Node};

/// Bytes that replace a range of an element.
pub(super) type Splice = (Range<usize>, Vec<u8>);

/// Replaces ranges of an element's bytes, given in ascending order.
pub(super) fn splice(element: &Element, splices: &[Splice]) -> Bytes {
    let bytes = element.bytes();
    let grown: usize = splices.iter().map(|(_, with)| with.len()).sum();
    let mut out = BytesMut::with_capacity(bytes.len() + grown);
    let mut copied = 0;
    for (range, with) in splices {
        out.extend_from_slice(bytes.get(copied..range.start).unwrap_or_default());
        out.extend_from_slice(with);
        copied = range.end;
    }
    out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
    out.freeze()
}

/// Returns the splice that makes `child` the last child of `parent`.
pub(super) fn append(parent: &Node<'_>, child: &[u8]) -> Splice {
    if !parent.is_empty_tag() {
        let end = parent.inner().end;
        return (end..end, child.to_vec());
    }
    let raw = parent.raw();
    let name = raw.iter().skip(1).take_while(|b| !b.is_ascii_whitespace() && **b != b'/').copied();
    let mut with = vec![b'>'];
    with.extend_from_slice(child);
    with.extend_from_slice(b"</");
    with.extend(name);
    with.push(b'>');
    let end = parent.range().end;
    (end.saturating_sub(2)..end, with)
}
