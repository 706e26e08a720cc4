//! [`ByteWindow`]: sixty-four bytes, classified into bit maps. So the lengths of names, values and text are found
//! without checking each byte, and without unpredictable branches.

use std::num::NonZeroU64;

use fearless_simd::prelude::*;
use fearless_simd::{Simd, i8x64, mask8x64, u8x64};

/// The number of bytes classified together.
pub(super) const WIDTH: usize = 64;
/// The bytes of a window and of the words read from its end.
const SPAN: usize = WIDTH + 32;

/// The bytes from a place on, with zeros after the end. Positions count from that place. The lowest bit of a map stands
/// for the first byte.
pub(super) struct ByteWindow {
    bytes: [u8; SPAN],
    /// Bytes that may start an ASCII name.
    starts: u64,
    /// Bytes that cannot occur in an ASCII name without prefix.
    others: u64,
    /// Bytes that end an attribute value or text, or need an exact check there: `<`, `&`, `]`, quotes, control
    /// characters, bytes above ASCII.
    stops: u64,
}

impl ByteWindow {
    /// Returns the window on `bytes` from `at` on.
    #[inline(always)]
    pub(super) fn new<S: Simd>(simd: S, bytes: &[u8], at: usize) -> Self {
        let rest = bytes.get(at..).unwrap_or_default();
        // The block is not read from the copy, because it could be read only after the copy is written.
        let (bytes, block) = match rest.first_chunk() {
            Some(chunk) => (*chunk, block(simd, chunk)),
            None => {
                let span = last_span(rest);
                (span, block(simd, &span))
            }
        };
        let (starts, names) = names(block);
        Self { bytes, starts: starts.to_bitmask(), others: !names.to_bitmask(), stops: stops(block).to_bitmask() }
    }

    /// Returns the byte at `at`, or zero far outside the window.
    #[inline(always)]
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Returns the two bytes at `at`.
    #[inline(always)]
    pub(super) fn pair(&self, at: usize) -> [u8; 2] {
        self.bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
    }

    /// Returns the eight bytes at `at`, the first one lowest.
    #[inline(always)]
    pub(super) fn word(&self, at: usize) -> u64 {
        let word = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// Returns the end of the name that begins at `at`, or `None` if there is no name or it does not end in the window.
    #[inline(always)]
    pub(super) fn name_end(&self, at: usize) -> Option<usize> {
        let end = first(self.others & u64::MAX << (at % WIDTH))?;
        (self.starts & 1 << (at % WIDTH) != 0).then_some(end)
    }

    /// Returns the place of the first stop from `at + SKIP` on, if it is in the window. `at` is less than [`WIDTH`].
    #[inline(always)]
    pub(super) fn stop<const SKIP: usize>(&self, at: usize) -> Option<usize> {
        first(self.stops & u64::MAX << SKIP << (at % WIDTH))
    }
}

/// Returns the place of the lowest bit.
#[inline(always)]
fn first(map: u64) -> Option<usize> {
    NonZeroU64::new(map).map(|map| map.trailing_zeros() as usize)
}

/// Returns the number of bytes from `at` on that are printable or above ASCII, and none of `stops`. Returns also
/// whether some of them, or of the next bytes, are above ASCII.
#[inline(always)]
pub(super) fn run<S: Simd>(simd: S, bytes: &[u8], mut at: usize, stops: [u8; 3]) -> (usize, bool) {
    let [a, b, c] = stops;
    let mut above = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let block = match rest.first_chunk() {
            Some(chunk) => u8x64::load_array_ref(simd, chunk),
            None => block(simd, &last_span(rest)),
        };
        // As signed numbers, bytes above ASCII are less than all others.
        let found = block.simd_eq(a) | block.simd_eq(b) | block.simd_eq(c) | signed(block).simd_lt(0x20);
        let high = signed(block).simd_lt(0).to_bitmask();
        above |= high;
        match first(found.to_bitmask() & !high) {
            Some(found) => return (at + found, above != 0),
            None => at += WIDTH,
        }
    }
}

#[inline(never)]
fn last_span(rest: &[u8]) -> [u8; SPAN] {
    let mut span = [0; SPAN];
    if let Some(start) = span.get_mut(..rest.len()) {
        start.copy_from_slice(rest);
    }
    span
}

#[inline(always)]
fn block<S: Simd>(simd: S, bytes: &[u8; SPAN]) -> u8x64<S> {
    match bytes.first_chunk() {
        Some(block) => u8x64::load_array_ref(simd, block),
        None => u8x64::splat(simd, 0),
    }
}

#[inline(always)]
fn signed<S: Simd>(block: u8x64<S>) -> i8x64<S> {
    block.bitcast()
}

/// Returns the bytes that may start a name, and those that may occur in one.
#[inline(always)]
fn names<S: Simd>(block: u8x64<S>) -> (mask8x64<S>, mask8x64<S>) {
    let letters = ((block | 0x20) - b'a').simd_le(b'z' - b'a') | block.simd_eq(b'_');
    let digits = (block - b'-').simd_le(b'9' - b'-') & block.simd_ne(b'/');
    (letters, letters | digits)
}

#[inline(always)]
fn stops<S: Simd>(block: u8x64<S>) -> mask8x64<S> {
    // `'` is the code point after `&`.
    let quotes = (block | 1).simd_eq(b'\'') | block.simd_eq(b'"');
    quotes | block.simd_eq(b'<') | block.simd_eq(b']') | signed(block).simd_lt(0x20)
}

#[cfg(test)]
mod tests {
    use fearless_simd::{Level, dispatch};

    use super::*;

    #[test]
    fn every_byte_is_classified_alike_in_every_place_and_on_every_processor() {
        for level in [Level::new(), Level::baseline()] {
            for byte in 0..=255 {
                let letter = byte == b'_' || byte.is_ascii_alphabetic();
                let name = letter || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
                let stop = matches!(byte, b'<' | b'&' | b']' | b'\'' | b'"' | 0..0x20 | 0x80..);
                for at in 0..WIDTH {
                    let mut bytes = [b'x'; 2 * SPAN];
                    bytes[at + 1] = byte;
                    let window = dispatch!(level, simd => ByteWindow::new(simd, &bytes, 1));
                    let bit = 1 << at;
                    let found = (window.starts & bit != 0, window.others & bit == 0, window.stops & bit != 0);
                    assert_eq!(found, (letter, name, stop), "{level:?}: {byte} at {at}");
                    assert_eq!((window.starts | bit, window.others & !bit, window.stops & !bit), (u64::MAX, 0, 0));
                    assert_eq!(window.byte(at), byte);
                }
            }
        }
    }

    #[test]
    fn a_run_ends_at_the_first_byte_that_is_not_plain_however_long_it_is() {
        for level in [Level::new(), Level::baseline()] {
            let run = |bytes: &[u8]| dispatch!(level, simd => run(simd, bytes, 0, *b"<&]"));
            for len in 0..200 {
                assert_eq!(run(&vec![b'x'; len]), (len, false));
                for at in 0..len {
                    let mut bytes = vec![b'x'; len];
                    // The byte after the run makes no difference.
                    bytes[len - 1] = b'<';
                    for special in [b'<', b'&', b']', 0, 0x1F, b'\t'] {
                        bytes[at] = special;
                        assert_eq!(run(&bytes).0, at, "{special} at {at} of {len}");
                    }
                    let end = if at == len - 1 { len } else { len - 1 };
                    for ordinary in [b' ', b'>', b'~', 0x7F, b'"', 0x80, 0xFF] {
                        bytes[at] = ordinary;
                        assert_eq!(run(&bytes), (end, ordinary >= 0x80), "{ordinary} at {at} of {len}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_ends_with_zeros_behind_the_bytes() {
        for len in 0..SPAN + 2 {
            let bytes = vec![b'x'; len];
            let window = dispatch!(Level::new(), simd => ByteWindow::new(simd, &bytes, 0));
            assert_eq!(window.name_end(0), (1..WIDTH).contains(&len).then_some(len));
            assert_eq!(window.stop::<0>(0).unwrap_or(WIDTH), len.min(WIDTH));
        }
    }
}
