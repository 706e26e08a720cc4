//! Tags and their attributes (XML 1.0 §3.1), as offsets into the frame.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;
use quick_xml::XmlVersion;
use quick_xml::events::attributes::Attribute;
use quick_xml::name::QName;

use super::names;
use crate::hash;
use crate::xml::chars::{CHECK, NAME, START, check_value, class, plain_run, skip_space};
use crate::xml::error::{FrameError, Unfit};
use crate::xml::hash_table::Table;

/// The number of attributes of a tag that are kept and compared with one another. Further ones are read again on
/// demand.
const FEW: usize = 32;

/// A qualified name: `start..end`, with its colon at `colon`, or no colon when that equals `start`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TagName {
    pub(super) start: usize,
    pub(super) end: usize,
    colon: usize,
}

impl TagName {
    pub(super) fn has_prefix(&self) -> bool {
        self.colon != self.start
    }

    pub(super) fn prefix<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.start..self.colon).unwrap_or_default()
    }

    pub(super) fn local<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = if self.has_prefix() { self.colon + 1 } else { self.start };
        bytes.get(start..self.end).unwrap_or_default()
    }

    pub(super) fn whole<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.start..self.end).unwrap_or_default()
    }
}

/// An attribute as written.
#[derive(Clone, Debug)]
pub(super) struct Attr {
    pub(super) name: TagName,
    pub(super) value: Range<usize>,
    /// True if the value is printable ASCII without references, so it needs no decoding.
    pub(super) plain: bool,
}

impl Attr {
    /// Returns the value with references resolved and white space normalised (XML 1.0 §3.3.3).
    pub(super) fn value<'a>(&self, bytes: &'a [u8]) -> Cow<'a, str> {
        let raw = bytes.get(self.value.clone()).unwrap_or_default();
        let raw = std::str::from_utf8(raw).unwrap_or_default();
        if self.plain {
            return Cow::Borrowed(raw);
        }
        normalized(raw)
    }
}

/// Returns an attribute value with references resolved and white space normalised (XML 1.0 §3.3.3). `raw` has been
/// checked.
pub(crate) fn normalized(raw: &str) -> Cow<'_, str> {
    let attribute = Attribute { key: QName(""), value: Cow::Borrowed(raw) };
    attribute.normalized_value(XmlVersion::Explicit1_0).unwrap_or_default()
}

/// The attributes of a tag.
#[derive(Debug, Default)]
pub(super) struct Attrs {
    few: Vec<Attr>,
    /// The place of the further attributes; zero if there are none.
    rest: u32,
    /// True if an attribute has a prefix.
    prefixed: bool,
    /// True if an attribute may declare a namespace.
    declares: bool,
}

impl Attrs {
    /// Returns all attributes in their order.
    pub(super) fn iter<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = Attr> + 'a {
        let mut at = self.rest as usize;
        let rest = std::iter::from_fn(move || {
            let attr = next_attribute(bytes, at).ok().flatten().filter(|_| at > 0)?;
            at = attr.value.end + 1;
            Some(attr)
        });
        self.few.iter().cloned().chain(rest)
    }

    /// Returns whether an attribute may declare a namespace.
    pub(super) fn declares(&self) -> bool {
        self.declares
    }

    fn note(&mut self, bytes: &[u8], name: TagName) {
        self.prefixed |= name.has_prefix();
        self.declares |= name.whole(bytes).starts_with(b"xmlns");
    }

    /// Returns the bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.few.capacity() * size_of::<Attr>()
    }

    /// Reads at most `most` attributes from `at` on. Returns the offset after them and the following white space.
    #[inline]
    pub(super) fn read(&mut self, bytes: &[u8], mut at: usize, most: usize) -> Result<usize, FrameError> {
        self.few.clear();
        (self.rest, self.prefixed, self.declares) = (0, false, false);
        let mut lengths = 0u64;
        while self.few.len() < FEW {
            let Some(attr) = next_attribute(bytes, at)? else { return Ok(skip_space(bytes, at)) };
            at = attr.value.end + 1;
            // Equal names have the same mark, so most tags need no comparison.
            let own = attr.name.whole(bytes);
            let mark = 1u64 << ((own.len() + 7 * usize::from(own.first().copied().unwrap_or(0))) % 64);
            if lengths & mark != 0 && self.few.iter().any(|other| other.name.whole(bytes) == own) {
                return Err(given_twice(own, attr.name.start));
            }
            lengths |= mark;
            self.note(bytes, attr.name);
            if self.few.len() == most {
                return Err(FrameError::TooMany { what: "attributes", limit: most });
            }
            self.few.push(attr);
        }
        self.read_rest(bytes, at, most)
    }

    #[cold]
    fn read_rest(&mut self, bytes: &[u8], mut at: usize, most: usize) -> Result<usize, FrameError> {
        let (rest, mut count) = (u32::try_from(at).unwrap_or_default(), FEW);
        let mut names = Table::default();
        let name_at = |number: u32| name(bytes, number as usize).map(|name| name.whole(bytes)).unwrap_or_default();
        let mut add = |name: TagName| {
            let own = name.whole(bytes);
            let same = |number| own == name_at(number);
            let number = u32::try_from(name.start).unwrap_or_default();
            names.replace(hash::of_bytes(own), number, same, |number| hash::of_bytes(name_at(number))).is_some()
        };
        for attr in &self.few {
            add(attr.name);
        }
        while let Some(attr) = next_attribute(bytes, at)? {
            at = attr.value.end + 1;
            // A prefix that is declared twice is detected when its declaration is added.
            if attr.name.prefix(bytes) != b"xmlns" && add(attr.name) {
                return Err(given_twice(attr.name.whole(bytes), attr.name.start));
            }
            count += 1;
            if count > most {
                return Err(FrameError::TooMany { what: "attributes", limit: most });
            }
            self.rest = rest;
            self.note(bytes, attr.name);
        }
        Ok(skip_space(bytes, at))
    }
}

fn given_twice(name: &[u8], at: usize) -> FrameError {
    let what = if name.starts_with(b"xmlns") { Unfit::DeclaredTwice } else { Unfit::DuplicateAttribute };
    FrameError::unfit(what, at)
}

/// A start tag or empty-element tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    pub(super) name: TagName,
    /// The offset after the `>`.
    pub(super) end: usize,
    /// True if written as `<x/>`.
    pub(super) empty: bool,
    /// True if the element or an attribute has a prefix.
    pub(super) prefixed: bool,
}

/// Reads the start tag at `at`. Its attributes, at most `most`, replace the contents of `attrs`.
#[inline]
pub(super) fn start_tag(bytes: &[u8], at: usize, attrs: &mut Attrs, most: usize) -> Result<Tag, FrameError> {
    let name = name(bytes, at + 1)?;
    let close = attrs.read(bytes, name.end, most)?;
    let prefixed = name.has_prefix() || attrs.prefixed;
    match bytes.get(close..) {
        Some([b'>', ..]) => Ok(Tag { name, end: close + 1, empty: false, prefixed }),
        Some([b'/', b'>', ..]) => Ok(Tag { name, end: close + 2, empty: true, prefixed }),
        Some(_) | None => Err(FrameError::malformed("malformed tag", close)),
    }
}

#[inline]
pub(super) fn name(bytes: &[u8], start: usize) -> Result<TagName, FrameError> {
    let rest = bytes.get(start..).unwrap_or_default();
    let mut seen = 0;
    let end = rest.iter().position(|byte| {
        let class = class(*byte);
        seen |= class;
        class & NAME == 0
    });
    let (Some(len @ 1..), Some(first)) = (end, rest.first()) else {
        return Err(FrameError::malformed("missing name", start));
    };
    if class(*first) & START == 0 {
        return Err(FrameError::unfit(Unfit::Name, start));
    }
    let end = start + len;
    let colon = if seen & CHECK != 0 { names::check(bytes, start, end)? } else { start };
    Ok(TagName { start, end, colon })
}

/// Returns the attribute after the white space at `at`, if there is one.
#[inline]
fn next_attribute(bytes: &[u8], at: usize) -> Result<Option<Attr>, FrameError> {
    let start = skip_space(bytes, at);
    if bytes.get(start).is_none_or(|byte| class(*byte) & START == 0) {
        return Ok(None);
    }
    if start == at {
        return Err(FrameError::malformed("no space before attribute", at));
    }
    attribute(bytes, start).map(Some)
}

#[inline]
fn attribute(bytes: &[u8], start: usize) -> Result<Attr, FrameError> {
    let name = name(bytes, start)?;
    let equals = skip_space(bytes, name.end);
    if bytes.get(equals) != Some(&b'=') {
        return Err(FrameError::malformed("attribute without value", equals));
    }
    let open = skip_space(bytes, equals + 1);
    let Some(quote @ (b'"' | b'\'')) = bytes.get(open).copied() else {
        return Err(FrameError::malformed("attribute without quotes", open));
    };
    let start = open + 1;
    let rest = bytes.get(start..).unwrap_or_default();
    let run = plain_run(rest, [quote, b'<', b'&']);
    if rest.get(run) == Some(&quote) {
        return Ok(Attr { name, value: start..start + run, plain: true });
    }
    let tail = rest.get(run..).unwrap_or_default();
    let end = match memchr2(quote, b'<', tail) {
        Some(found) if tail.get(found) == Some(&quote) => start + run + found,
        Some(found) => {
            return Err(FrameError::malformed("< in attribute value", start + run + found));
        }
        None => return Err(FrameError::malformed("attribute without end", start)),
    };
    check_value(bytes.get(start..end).unwrap_or_default(), start)?;
    Ok(Attr { name, value: start..end, plain: false })
}

/// Checks that the end tag `bytes[at..]` closes an element of this name. Returns the offset after its `>`.
#[inline]
pub(in crate::xml) fn end_tag(bytes: &[u8], at: usize, name: &[u8]) -> Result<usize, FrameError> {
    let rest = bytes.get(at + 2..).unwrap_or_default();
    let Some(tail) = rest.strip_prefix(name) else {
        return Err(FrameError::malformed("end tag does not match", at));
    };
    if tail.first() == Some(&b'>') {
        return Ok(at + 2 + name.len() + 1);
    }
    let close = skip_space(bytes, at + 2 + name.len());
    match bytes.get(close) {
        Some(b'>') => Ok(close + 1),
        Some(_) | None => Err(FrameError::malformed("end tag does not match", at)),
    }
}
