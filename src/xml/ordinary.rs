//! The short way through what nearly all stanzas are made of: ASCII names without prefixes, plain attribute values, text.
//!
//! Eight bytes are classified at a time, because the lengths of names and values are what a branch predictor cannot guess.
//! Whatever is not ordinary, malformed or cut off is declined with `None`, with nothing changed, and left to the careful
//! way; so this decides nothing but speed.

use std::ops::Range;

use super::chars::{CHECK, NAME, START, check_reference, class, long_plain_run, plain_run};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
const XMLNS: u64 = u64::from_le_bytes(*b"xmlns\0\0\0");

/// An ASCII name without prefix.
#[derive(Clone, Copy, Debug)]
struct Name {
    /// Its bytes, if there are at most eight; else a hash of them.
    key: u64,
    end: usize,
}

/// A start tag.
pub(super) struct PlainTag {
    /// Offset behind the name.
    pub(super) name_end: usize,
    /// Offset behind the `>`.
    pub(super) end: usize,
    /// Written as `<x/>`.
    pub(super) empty: bool,
    /// Where the default namespace that it declares is spelled.
    pub(super) xmlns: Option<Range<usize>>,
}

/// Reads the start tag at `at`.
#[inline(always)]
pub(super) fn start_tag(bytes: &[u8], at: usize) -> Option<PlainTag> {
    let name = name(bytes, at + 1)?;
    let (close, xmlns) = match bytes.get(name.end)? {
        b' ' => attributes(bytes, name.end)?,
        _ => (name.end, None),
    };
    match bytes.get(close)? {
        b'>' => Some(PlainTag { name_end: name.end, end: close + 1, empty: false, xmlns }),
        b'/' if bytes.get(close + 1) == Some(&b'>') => {
            Some(PlainTag { name_end: name.end, end: close + 2, empty: true, xmlns })
        }
        _ => None,
    }
}

/// Reads the end tag at `at`, which has to repeat the name at `name`; returns the offset behind it.
#[inline(always)]
pub(super) fn end_tag(bytes: &[u8], at: usize, name: Range<usize>) -> Option<usize> {
    let start = at + 2;
    let len = name.len();
    let same = if len <= 8 {
        // Nothing is shifted out but what the two words have in common.
        let differing = word(bytes, start) ^ word(bytes, name.start);
        differing << (64 - 8 * len) == 0
    } else {
        bytes.get(start..start + len)? == bytes.get(name)?
    };
    (same && bytes.get(start + len) == Some(&b'>')).then_some(start + len + 1)
}

/// Reads text from `at` on; returns the offset of the `<` behind it.
#[inline(always)]
pub(super) fn text(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let rest = bytes.get(at..)?;
        at += long_plain_run(rest, *b"<&]");
        match bytes.get(at)? {
            b'<' => return Some(at),
            b'\t' | b'\n' | b'\r' => at += 1,
            b']' => match bytes.get(at..at + 3)? {
                b"]]>" => return None,
                _ => at += 1,
            },
            b'&' => at += 1 + check_reference(bytes.get(at + 1..)?, at).ok()?,
            _ => return None,
        }
    }
}

/// Reads attributes from the space at `at` on; returns the offset behind them, and where the value of `xmlns` is.
#[inline(always)]
fn attributes(bytes: &[u8], mut at: usize) -> Option<(usize, Option<Range<usize>>)> {
    let mut marks = (0u64, 0u64);
    let mut xmlns = None;
    while bytes.get(at) == Some(&b' ') {
        if bytes.get(at + 1) == Some(&b'/') {
            return Some((at + 1, xmlns));
        }
        let name = name(bytes, at + 1)?;
        let [b'=', quote @ (b'"' | b'\'')] = *bytes.get(name.end..)?.first_chunk()? else {
            return None;
        };
        let value = bytes.get(name.end + 2..)?;
        let len = plain_run(value, [quote, b'<', b'&']);
        if value.get(len) != Some(&quote) {
            return None;
        }
        if name.key == XMLNS {
            // The names of the namespaces that must not be declared are of these lengths.
            if len == super::ns::XML.len() || len == super::ns::XMLNS.len() {
                return None;
            }
            xmlns = Some(name.end + 2..name.end + 2 + len);
        }
        // Equal names have equal marks, and each name adds one: no duplicate gets through, nor more than MAX_ATTRIBUTES.
        let hash = mix(name.key);
        let (first, second) = (1 << (hash >> 58), 1 << (hash >> 52 & 63));
        if marks.0 & first != 0 && marks.1 & second != 0 {
            return None;
        }
        marks = (marks.0 | first, marks.1 | second);
        at = name.end + 2 + len + 1;
    }
    Some((at, xmlns))
}

#[inline(always)]
fn name(bytes: &[u8], start: usize) -> Option<Name> {
    let word = word(bytes, start);
    let [first, second, third, ..] = word.to_le_bytes();
    if class(first) & (START | CHECK) != START {
        return None;
    }
    // Very short names are common, and quicker told by branches.
    if class(second) & (NAME | CHECK) != NAME {
        return Some(Name { key: word & 0xFF, end: start + 1 });
    }
    if class(third) & (NAME | CHECK) != NAME {
        return Some(Name { key: word & 0xFFFF, end: start + 2 });
    }
    let others = others(word);
    if others == 0 {
        return long_name(bytes, start, word);
    }
    // All bits up to the mark of the first other byte, less that byte.
    let within = (others ^ (others - 1)) >> 8;
    let end = start + (others.trailing_zeros() / 8) as usize;
    Some(Name { key: word & within, end })
}

/// The name at `start`, whose first eight bytes are `key`.
#[inline(never)]
fn long_name(bytes: &[u8], start: usize, mut key: u64) -> Option<Name> {
    let mut end = start + 8;
    loop {
        let word = word(bytes, end);
        let others = others(word);
        if others != 0 {
            key = mix(key) ^ word & (others ^ (others - 1)) >> 8;
            return Some(Name { key, end: end + (others.trailing_zeros() / 8) as usize });
        }
        key = mix(key) ^ word;
        end += 8;
    }
}

fn mix(key: u64) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Marks, in the high bit of each of eight bytes, those that cannot stand in an ASCII name without prefix.
#[inline(always)]
fn others(word: u64) -> u64 {
    let low = word & !HIGH;
    // The high bit of each byte of `at_least(w, n)` says whether that byte, below 0x80, is at least n.
    let at_least = |w: u64, n: u8| w + ONES * u64::from(0x80 - n);
    let within = |w: u64, first: u8, last: u8| at_least(w, first) & !at_least(w, last + 1);
    let letters = within(low | (ONES * 0x20), b'a', b'z') | within(low, b'_', b'_');
    let rest = within(low, b'0', b'9') | within(low, b'-', b'.');
    (!(letters | rest) | word) & HIGH
}

/// The eight bytes at `at`, the first lowest; zeros behind the end.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => last_word(bytes, at),
    }
}

#[cold]
#[inline(never)]
fn last_word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
