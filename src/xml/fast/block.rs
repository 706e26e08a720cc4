//! [`Block`]: small tags, all tags of a block at once. Their grammar is computed with arithmetic on bit maps.
//!
//! A block begins in content. Each bit of a map stands for a byte, the lowest bit for the first byte. Every map is
//! computed so that a bit does not depend on higher ones. So an error shows at its place or before, and the tags that
//! end below the first error are well-formed: ASCII names without prefix, one space between attributes, quotes of one
//! kind, plain values and text. Other tags may be well-formed too, but this module does not recognize them.

use fearless_simd::prelude::*;
use fearless_simd::{Simd, i8x64, u8x64};

use crate::xml::open_elements::Spelled;

/// The bytes of a block.
const WIDTH: usize = 64;
/// The maximum number of tags in a block. The shortest is `<a>`.
pub(super) const MOST: usize = WIDTH / 3 + 1;
/// The bytes of a block and of the words read from its end.
const SPAN: usize = WIDTH + 16;

/// The classes of the bytes of a block.
struct Classes {
    less: u64,
    greater: u64,
    slash: u64,
    equals: u64,
    space: u64,
    apostrophe: u64,
    quote: u64,
    /// The letter `h`.
    h: u64,
    /// Bytes that may start a name.
    start: u64,
    /// Bytes that may occur in a name.
    name: u64,
    /// `&`, `]`, control characters, and bytes above ASCII.
    special: u64,
}

/// The complete tags of a block.
struct Tags {
    /// The `<` of each.
    opens: u64,
    /// The `>` of each.
    closes: u64,
    slashes: u64,
    /// The ends of element names.
    name_ends: u64,
    /// The starts of attribute names.
    attributes: u64,
    /// The `=` after each attribute name.
    equals: u64,
    /// True if a tag has several attributes, or one whose value begins with `h`.
    notable: bool,
}

/// The bytes from a place on, and the complete tags in its block.
pub(super) struct Block<'a> {
    bytes: &'a [u8; SPAN],
    tags: Tags,
}

/// A tag of a block. Places count from the start of the block.
#[derive(Clone, Copy)]
pub(super) struct DenseTag {
    pub(super) kind: DenseKind,
    /// The place of its `<`.
    pub(super) start: usize,
    /// The start of its name.
    pub(super) name: usize,
    pub(super) name_len: usize,
    /// The place after its `>`.
    pub(super) end: usize,
    attributes: u64,
    equals: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DenseKind {
    Start,
    Empty,
    End,
}

impl<'a> Block<'a> {
    /// Reads the block at `at`, which must be in content. Returns `None` near the end of the bytes.
    #[inline(always)]
    pub(super) fn new<S: Simd>(simd: S, bytes: &'a [u8], at: usize) -> Option<Self> {
        let bytes: &[u8; SPAN] = bytes.get(at..)?.first_chunk()?;
        let block = u8x64::load_array_ref(simd, bytes.first_chunk()?);
        Some(Self { bytes, tags: Classes::new(block).tags() })
    }

    /// Returns the eight bytes at `at`, the first one lowest.
    #[inline(always)]
    pub(super) fn word(&self, at: usize) -> u64 {
        let word = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// Removes and returns the next tag.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<DenseTag> {
        let tags = &self.tags;
        if tags.opens == 0 {
            return None;
        }
        let (open, close) = (lowest(tags.opens), lowest(tags.closes));
        let end = close + 1;
        self.drop_first();
        let tags = &self.tags;
        if tags.slashes & 2 << open != 0 {
            let name = open + 2;
            let name_len = close - name;
            return Some(DenseTag { kind: DenseKind::End, start: open, name, name_len, end, attributes: 0, equals: 0 });
        }
        let kind = if tags.slashes << 1 & 1 << close != 0 { DenseKind::Empty } else { DenseKind::Start };
        let name = open + 1;
        let name_len = lowest(tags.name_ends & u64::MAX << open) - name;
        let within = (1 << close) - (1 << open);
        let (attributes, equals) = (tags.attributes & within, tags.equals & within);
        Some(DenseTag { kind, start: open, name, name_len, end, attributes, equals })
    }
}

impl Block<'_> {
    /// Removes the next tag if it is an end tag with this short name. Returns the place after it.
    #[inline(always)]
    pub(super) fn end_of(&mut self, name: &Spelled) -> Option<usize> {
        let tags = &self.tags;
        if tags.opens == 0 || !name.is_short() {
            return None;
        }
        let (open, close) = (lowest(tags.opens), lowest(tags.closes));
        if tags.slashes & 2 << open == 0 || open + 2 + name.len != close || !name.begins(self.word(open + 2)) {
            return None;
        }
        self.drop_first();
        Some(close + 1)
    }

    /// Returns whether the attributes must be checked: a tag has several, or one whose value begins with `h`.
    #[inline(always)]
    pub(super) fn is_notable(&self) -> bool {
        self.tags.notable
    }

    /// Returns the number of remaining tags.
    #[inline(always)]
    pub(super) fn len(&self) -> u32 {
        self.tags.opens.count_ones()
    }

    #[inline(always)]
    fn drop_first(&mut self) {
        self.tags.opens &= self.tags.opens.wrapping_sub(1);
        self.tags.closes &= self.tags.closes.wrapping_sub(1);
    }
}

impl DenseTag {
    /// Removes the name of its next attribute. Returns its start and length.
    #[inline(always)]
    pub(super) fn next_attribute(&mut self) -> Option<(usize, usize)> {
        if self.equals == 0 {
            return None;
        }
        let start = lowest(self.attributes);
        let len = lowest(self.equals) - start;
        self.attributes &= self.attributes.wrapping_sub(1);
        self.equals &= self.equals - 1;
        Some((start, len))
    }

    /// Returns whether it has several attributes.
    #[inline(always)]
    pub(super) fn has_many(&self) -> bool {
        self.equals & self.equals.wrapping_sub(1) != 0
    }
}

impl Classes {
    #[inline(always)]
    fn new<S: Simd>(block: u8x64<S>) -> Self {
        // As signed numbers, bytes above ASCII are below the printable ones.
        let signed: i8x64<S> = block.bitcast();
        let letters = ((block | 0x20) - b'a').simd_le(b'z' - b'a') | block.simd_eq(b'_');
        let digits = (block - b'-').simd_le(b'9' - b'-');
        let special = block.simd_eq(b'&') | block.simd_eq(b']') | signed.simd_lt(0x20);
        let slash = equal(block, b'/');
        Self {
            less: equal(block, b'<'),
            greater: equal(block, b'>'),
            slash,
            equals: equal(block, b'='),
            space: equal(block, b' '),
            apostrophe: equal(block, b'\''),
            quote: equal(block, b'"'),
            h: equal(block, b'h'),
            start: letters.to_bitmask(),
            name: (letters | digits).to_bitmask() & !slash,
            special: special.to_bitmask(),
        }
    }

    /// Returns the tags below the first error.
    #[inline(always)]
    fn tags(self) -> Tags {
        let Self { less, greater, slash, equals, space, apostrophe, quote, h, start, name, special } = self;
        let mut wrong = special;

        // Content extends from each `>` to the next `<`, and is at the start.
        let begins = greater << 1 | 1;
        let (rises, falls) = (begins & !less, less & !begins);
        let content = falls.wrapping_sub(rises);
        wrong |= not_edges(content, rises, falls);

        // A value extends from a quote after `=`, inclusive, to the next quote.
        let quotes = (apostrophe | quote) & !content;
        let (rises, falls) = (quotes & equals << 1, quotes & !(equals << 1));
        let values = falls.wrapping_sub(rises);
        wrong |= not_edges(values, rises, falls) | values & content;
        // Neither ends at a `<` directly behind a `>`, which both may have.
        wrong |= less & (content | values);
        let (apostrophe, quote) = (apostrophe & !content, quote & !content);
        if apostrophe != 0 && quote != 0 {
            wrong |= (apostrophe & apostrophe.wrapping_neg()).max(quote & quote.wrapping_neg());
        }
        let opened = rises;
        let closed = falls;

        // All other bytes belong to tags, and each must be allowed after the byte before it.
        let syntax = !(content | values);
        let (name, slash, space) = (name & syntax, slash & syntax, space & syntax);
        let (equals, greater) = (equals & syntax, greater & syntax);
        let behind_less = less << 1;
        let of_end = slash & behind_less;
        let (element, ending, attribute) = (name & behind_less, name & of_end << 1, name & space << 1);
        let next = space | slash | greater;
        let name_ends = behind(name, element) | behind(name, ending);
        wrong |= syntax & !(name | less | next | equals | closed);
        wrong |= (name & !(name << 1)) & !(start & (element | ending | attribute));
        wrong |= (behind_less | space << 1) & !(start | slash);
        wrong |= of_end << 1 & !start;
        wrong |= behind(name, attribute) ^ equals;
        wrong |= equals << 1 & !opened;
        wrong |= (behind(name, element) | closed << 1) & !next;
        wrong |= (behind(name, ending) | (slash & !of_end) << 1) & !greater;

        let notable = (attribute & closed << 2) | (h & opened << 1) != 0;
        let right = (wrong & wrong.wrapping_neg()).wrapping_sub(1);
        let closes = greater & right;
        // All bits up to the end of the last complete tag.
        let whole = u64::MAX.checked_shr(closes.leading_zeros()).unwrap_or(0);
        Tags { opens: less & whole, closes, slashes: slash, name_ends, attributes: attribute, equals, notable }
    }
}

#[inline(always)]
fn equal<S: Simd>(block: u8x64<S>, byte: u8) -> u64 {
    block.simd_eq(byte).to_bitmask()
}

/// Returns the bits that are wrong if `mask` must begin at each of `rises` and end at each of `falls`.
#[inline(always)]
fn not_edges(mask: u64, rises: u64, falls: u64) -> u64 {
    let edges = mask ^ mask << 1;
    (edges ^ (rises | falls)) | (edges & mask ^ rises)
}

/// Returns the places after those runs of `map` that begin at one of `starts`.
#[inline(always)]
fn behind(map: u64, starts: u64) -> u64 {
    // The carry propagates through the run.
    map.wrapping_add(starts) & !map
}

/// Returns the place of the lowest bit. There must be one.
#[inline(always)]
fn lowest(map: u64) -> usize {
    map.trailing_zeros() as usize
}
