//! Small tags, all of a block at a time: their grammar as arithmetic on bit maps.
//!
//! A block begins in content. A bit of a map stands for a byte, the lowest for the first. Every map is computed so that a bit
//! depends on no higher ones; so whatever is wrong shows at its place or before, and the tags that end below the first error
//! are well-formed: names in ASCII without prefix, one space between attributes, quotes of one kind, plain values and text.
//! Other tags may be right as well; this does not know them.

use fearless_simd::prelude::*;
use fearless_simd::{Simd, i8x64, u8x64};

use crate::xml::open_elements::Spelled;

/// Bytes of a block.
const WIDTH: usize = 64;
/// Tags of a block at most: none is shorter than `<a>`.
pub(super) const MOST: usize = WIDTH / 3 + 1;
/// The same, and what is read together with the last of them.
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
    /// May start a name.
    start: u64,
    /// May stand in a name.
    name: u64,
    /// `&`, `]`, control characters, what is above ASCII.
    special: u64,
}

/// The whole tags of a block.
struct Tags {
    /// The `<` of each.
    opens: u64,
    /// The `>` of each.
    closes: u64,
    slashes: u64,
    /// The ends of the names of elements.
    name_ends: u64,
    /// The starts of the names of attributes.
    attributes: u64,
    /// The `=` behind each of them.
    equals: u64,
    /// Some tag has more than one attribute, or one whose value begins with `h`.
    notable: bool,
}

/// The bytes from one place on, and the whole tags among the first of them.
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
    /// Behind its `>`.
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
    /// The block at `at`, where there is content; `None` if it is not far from the end of the bytes.
    #[inline(always)]
    pub(super) fn new<S: Simd>(simd: S, bytes: &'a [u8], at: usize) -> Option<Self> {
        let bytes: &[u8; SPAN] = bytes.get(at..)?.first_chunk()?;
        let block = u8x64::load_array_ref(simd, bytes.first_chunk()?);
        Some(Self { bytes, tags: Classes::new(block).tags() })
    }

    /// The eight bytes at `at`, the first lowest.
    #[inline(always)]
    pub(super) fn word(&self, at: usize) -> u64 {
        let word = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// Takes the next tag.
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
    /// Takes the next tag if it is an end tag with this short name. Returns the place behind it.
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

    /// Returns whether attributes need a look: there is a tag that has more than one, or one whose value begins with `h`.
    #[inline(always)]
    pub(super) fn is_notable(&self) -> bool {
        self.tags.notable
    }

    /// The tags that are left.
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
    /// Takes the name of its next attribute: where it begins, and how long it is.
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

    /// Returns whether it has more than one.
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

    /// The tags below the first error.
    #[inline(always)]
    fn tags(self) -> Tags {
        let Self { less, greater, slash, equals, space, apostrophe, quote, h, start, name, special } = self;
        let mut wrong = special;

        // Content is from each `>` to the next `<`, and at the start.
        let begins = greater << 1 | 1;
        let (rises, falls) = (begins & !less, less & !begins);
        let content = falls.wrapping_sub(rises);
        wrong |= not_edges(content, rises, falls);

        // A value is from a quote behind `=`, which belongs to it, to the next quote.
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

        // All else is of tags, and each byte has to suit the one before it.
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
        // All bits up to the last whole tag's end.
        let whole = u64::MAX.checked_shr(closes.leading_zeros()).unwrap_or(0);
        Tags { opens: less & whole, closes, slashes: slash, name_ends, attributes: attribute, equals, notable }
    }
}

#[inline(always)]
fn equal<S: Simd>(block: u8x64<S>, byte: u8) -> u64 {
    block.simd_eq(byte).to_bitmask()
}

/// The bits that are wrong if `mask` has to begin at each of `rises` and to end at each of `falls`.
#[inline(always)]
fn not_edges(mask: u64, rises: u64, falls: u64) -> u64 {
    let edges = mask ^ mask << 1;
    (edges ^ (rises | falls)) | (edges & mask ^ rises)
}

/// The places behind those runs of `map` that begin with one of `starts`.
#[inline(always)]
fn behind(map: u64, starts: u64) -> u64 {
    // The carry goes through the run.
    map.wrapping_add(starts) & !map
}

/// The place of the lowest bit, of which there is one.
#[inline(always)]
fn lowest(map: u64) -> usize {
    map.trailing_zeros() as usize
}
