//! [`Cursor`]: the fast path for the tokens of nearly all stanzas: ASCII names without prefixes, attribute values,
//! text.
//!
//! It declines tokens that are unusual, malformed or incomplete with `None` and leaves them to the exact path. So it
//! affects only speed. All functions must be inlined into the function that is compiled for the actual processor, so
//! most are `inline(always)`.

use std::ops::Range;

use fearless_simd::Simd;

use super::window::{ByteWindow, WIDTH, run};
use crate::xml::chars::{check_reference, is_plain_unicode};
use crate::xml::ns;
use crate::xml::open_elements::Spelled;

const XMLNS: u64 = u64::from_le_bytes(*b"xmlns\0\0\0");

/// A place in the bytes, and the window at this place.
pub(super) struct Cursor<'a, S> {
    simd: S,
    bytes: &'a [u8],
    window: ByteWindow,
    /// The start of the window.
    base: usize,
    /// The place relative to `base`. It may be outside the window.
    at: usize,
}

/// A start tag.
pub(super) struct PlainTag {
    pub(super) name: Spelled,
    /// Written as `<x/>`.
    pub(super) empty: bool,
    /// The place of the default namespace declared by the tag.
    pub(super) xmlns: Option<Range<usize>>,
}

/// The kind of token that probably follows.
pub(super) enum LookAhead {
    Start,
    End,
    Text,
}

impl<'a, S: Simd> Cursor<'a, S> {
    #[inline(always)]
    pub(super) fn new(simd: S, bytes: &'a [u8], at: usize) -> Self {
        Self { simd, bytes, window: ByteWindow::new(simd, bytes, at), base: at, at: 0 }
    }

    /// The current place.
    #[inline(always)]
    pub(super) fn place(&self) -> usize {
        self.base + self.at
    }

    /// Returns the kind of token that probably follows.
    #[inline(always)]
    pub(super) fn ahead(&self) -> LookAhead {
        match self.bytes.get(self.place()..).unwrap_or_default() {
            [b'<', b'/', ..] => LookAhead::End,
            [b'<', ..] => LookAhead::Start,
            [..] => LookAhead::Text,
        }
    }

    /// Reads a start tag.
    #[inline(always)]
    pub(super) fn start_tag(&mut self) -> Option<PlainTag> {
        self.make_room();
        let end = self.name()?;
        let from = self.at + 1;
        let name = Spelled { start: self.base + from, len: end - from, word: self.window.word(from) };
        self.at = end;
        let xmlns = if self.window.byte(end) == b' ' { self.attributes()? } else { None };
        let (length, empty) = match self.window.pair(self.at) {
            [b'>', _] => (1, false),
            [b'/', b'>'] => (2, true),
            [_, _] => return None,
        };
        self.at += length;
        Some(PlainTag { name, empty, xmlns })
    }

    /// Reads the remaining part of a short element without children: text and the end tag. Returns whether the element
    /// is one.
    #[inline(always)]
    pub(super) fn rest_of_leaf(&mut self, name: &Spelled) -> bool {
        if self.at >= WIDTH || !name.is_short() {
            return false;
        }
        let Some(end) = self.window.stop::<0>(self.at) else { return false };
        let close = end + 2 + name.len;
        let closed = self.window.pair(end) == *b"</"
            && name.begins(self.window.word(end + 2))
            && self.window.byte(close) == b'>';
        if closed {
            self.at = close + 1;
        }
        closed
    }

    /// Reads an end tag with this name. It does not need the window, because the length is known.
    #[inline(always)]
    pub(super) fn end_tag(&mut self, name: &Spelled) -> Option<()> {
        let rest = self.bytes.get(self.place() + 2..)?;
        let same = match rest.first_chunk() {
            Some(word) if name.is_short() => name.begins(u64::from_le_bytes(*word)),
            Some(_) | None => rest.starts_with(name.bytes(self.bytes)),
        };
        self.at += 2 + name.len + 1;
        (same && rest.get(name.len) == Some(&b'>')).then_some(())
    }

    /// Reads text up to the next `<`.
    #[inline(always)]
    pub(super) fn text(&mut self) -> Option<()> {
        let stop = if self.at < WIDTH { self.window.stop::<0>(self.at) } else { None };
        self.at = match stop {
            Some(stop) if self.window.byte(stop) == b'<' => stop,
            // The window is not moved, because an end tag probably follows.
            Some(_) | None => text(self.simd, self.bytes, self.place())? - self.base,
        };
        Some(())
    }

    /// Reads attributes from the space at this place on. Returns the place of the value of `xmlns`.
    #[inline(always)]
    fn attributes(&mut self) -> Option<Option<Range<usize>>> {
        let mut names = Names::default();
        let mut xmlns = None;
        loop {
            self.make_room();
            let Some(name_end) = self.name() else {
                let end = self.window.byte(self.at + 1) == b'/';
                self.at += 1;
                return end.then_some(xmlns);
            };
            let [b'=', quote @ (b'"' | b'\'')] = self.window.pair(name_end) else {
                return None;
            };
            let from = self.at + 1;
            let key = Key { word: self.window.word(from), len: name_end - from };
            let start = self.base + name_end + 2;
            // The closing quote is a stop itself.
            match self.window.stop::<2>(name_end).filter(|end| self.window.byte(*end) == quote) {
                Some(end) => self.at = end,
                // The quote may be in the next window. Otherwise the value is longer than a window.
                None if self.at > WIDTH / 4 => {
                    self.go_to(self.base + self.at);
                    continue;
                }
                None => {
                    let references = if key.is_xmlns() { References::Refused } else { References::Decoded };
                    let end = value(self.simd, self.bytes, start, quote, references)?;
                    names.add(&key, self.window.word(name_end.saturating_sub(8)))?;
                    self.go_to(end);
                }
            }
            if key.is_xmlns() {
                let value = start..self.base + self.at;
                // The reserved namespaces have these lengths.
                if value.len() == ns::XML.len() || value.len() == ns::XMLNS.len() {
                    return None;
                }
                xmlns = Some(value);
            }
            let next = self.window.byte(self.at + 1);
            // A single attribute needs no comparison.
            if self.at != 0 && (next == b' ' || !names.is_empty()) {
                names.add(&key, self.window.word(name_end.saturating_sub(8)))?;
            }
            self.at += 1;
            if next != b' ' {
                return Some(xmlns);
            }
        }
    }

    /// Returns the end of the name after the byte at this place.
    #[inline(always)]
    fn name(&mut self) -> Option<usize> {
        let end = self.window.name_end(self.at + 1);
        if end.is_some() || self.at < WIDTH / 4 {
            return end;
        }
        self.go_to(self.base + self.at);
        self.window.name_end(1)
    }

    /// Moves the window if its remaining part is small.
    #[inline(always)]
    fn make_room(&mut self) {
        if self.at > WIDTH - 2 {
            self.go_to(self.base + self.at);
        }
    }

    /// Moves the place and the window to `at`.
    #[inline(always)]
    pub(super) fn go_to(&mut self, at: usize) {
        self.window = ByteWindow::new(self.simd, self.bytes, at);
        self.base = at;
        self.at = 0;
    }
}

/// The name of an attribute.
pub(super) struct Key {
    /// Its first eight bytes.
    pub(super) word: u64,
    pub(super) len: usize,
}

impl Key {
    #[inline(always)]
    fn is_xmlns(&self) -> bool {
        self.len == 5 && self.word << 24 == XMLNS << 24
    }
}

/// The attribute names of one tag. Equal names have equal marks, and each name adds a mark. So neither a duplicate nor
/// too many names are accepted: there are as many marks as the strictest [`crate::xml::FrameLimits`] allow names.
#[derive(Default)]
pub(super) struct Names(u64, u64);

impl Names {
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Adds a name. `last` is its last word, used if the name is long. Returns `None` if the name may be present
    /// already.
    #[inline(always)]
    pub(super) fn add(&mut self, key: &Key, last: u64) -> Option<()> {
        let word = if key.len <= 8 { key.word << ((64 - 8 * key.len) % 64) } else { key.word ^ mix(last) };
        let hash = mix(word);
        let (first, second) = (1 << (hash >> 58), 1 << (hash >> 52 & 63));
        if self.0 & first != 0 && self.1 & second != 0 {
            return None;
        }
        *self = Self(self.0 | first, self.1 | second);
        Some(())
    }
}

#[inline(always)]
fn mix(key: u64) -> u64 {
    key.wrapping_mul(0xFF51_AFD7_ED55_8CCD)
}

/// Reads text from `start` on. Returns the place of the next `<`.
#[inline(never)]
fn text<S: Simd>(simd: S, bytes: &[u8], start: usize) -> Option<usize> {
    simd.vectorize(
        #[inline(always)]
        || {
            let (mut at, mut unicode) = (start, false);
            loop {
                let (stop, above) = run(simd, bytes, at, *b"<&]");
                unicode |= above;
                at = stop;
                match bytes.get(at)? {
                    b'<' => break,
                    b'\t' | b'\n' | b'\r' => at += 1,
                    b']' => match bytes.get(at..at + 3)? {
                        b"]]>" => return None,
                        _ => at += 1,
                    },
                    b'&' => at += 1 + check_reference(bytes.get(at + 1..)?, at).ok()?,
                    _ => return None,
                }
            }
            (!unicode || is_plain_unicode(bytes.get(start..at)?)).then_some(at)
        },
    )
}

/// The treatment of a reference in an attribute value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum References {
    /// It is checked now and decoded later.
    Decoded,
    /// The value is left to the exact path, because namespaces are compared as written.
    Refused,
}

/// Reads an attribute value from `start` on. Returns the place of its closing quote.
#[inline(never)]
fn value<S: Simd>(simd: S, bytes: &[u8], start: usize, quote: u8, references: References) -> Option<usize> {
    let plain = references == References::Refused;
    simd.vectorize(
        #[inline(always)]
        || {
            let (mut at, mut unicode) = (start, false);
            loop {
                let (stop, above) = run(simd, bytes, at, [quote, b'<', b'&']);
                unicode |= above;
                at = stop;
                match bytes.get(at)? {
                    b'&' if !plain => at += 1 + check_reference(bytes.get(at + 1..)?, at).ok()?,
                    byte if *byte == quote => break,
                    _ => return None,
                }
            }
            let value = bytes.get(start..at)?;
            let checked = !unicode || if plain { value.is_ascii() } else { is_plain_unicode(value) };
            checked.then_some(at)
        },
    )
}
