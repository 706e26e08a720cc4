//! Character classes for names, text and attribute values (XML 1.0 §2.2, §2.3, §4.1). Both paths use them.

use super::error::{FrameError, Restricted, Unfit};

/// Set for bytes that may start a name.
pub(super) const START: u8 = 1;
/// Set for bytes that may occur in a name. Includes `:` and bytes above ASCII, which `exact::names::check`
/// checks.
pub(super) const NAME: u8 = 2;
/// Set for `:` and bytes above ASCII.
pub(super) const CHECK: u8 = 4;
/// Set for white space (XML 1.0 §2.3 `S`).
pub(super) const SPACE: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0u8;
    loop {
        let class = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => START | NAME,
            b'0'..=b'9' | b'-' | b'.' => NAME,
            b':' | 0x80.. => START | NAME | CHECK,
            b' ' | b'\t' | b'\r' | b'\n' => SPACE,
            _ => 0,
        };
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
        {
            table[byte as usize] = class;
        }
        if byte == 255 {
            break table;
        }
        byte += 1;
    }
};

/// Returns the class of a byte: [`START`], [`NAME`], [`CHECK`], [`SPACE`] or nothing.
#[inline(always)]
pub(super) fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Returns the end of the white space that begins at `at`.
#[inline]
pub(super) fn skip_space(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| class(*b) & SPACE == 0).unwrap_or(rest.len())
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Returns the number of bytes from the start that are printable ASCII and none of `stops`.
#[inline]
pub(super) fn plain_run(bytes: &[u8], stops: [u8; 3]) -> usize {
    let [a, b, c] = stops.map(|stop| ONES * u64::from(stop));
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let x = u64::from_le_bytes(*word);
        // A set high bit marks a byte above ASCII, below 0x20, or equal to a stop; the lowest mark is exact.
        let (xa, xb, xc) = (x ^ a, x ^ b, x ^ c);
        let below = |x: u64, n: u64| x.wrapping_sub(ONES * n) & !x;
        let marks = (x | below(x, 0x20) | below(xa, 1) | below(xb, 1) | below(xc, 1)) & HIGH;
        if marks != 0 {
            return index * 8 + (marks.trailing_zeros() / 8) as usize;
        }
    }
    let special = |byte: &u8| *byte < 0x20 || *byte >= 0x80 || stops.contains(byte);
    bytes.len() - tail.len() + tail.iter().position(special).unwrap_or(tail.len())
}

/// Checks character data that begins at `at` of its frame (XML 1.0 §2.4).
pub(super) fn check_text(text: &[u8], at: usize) -> Result<(), FrameError> {
    check_chars(text, at)?;
    if let Some(found) = memchr::memmem::find(text, b"]]>") {
        return Err(FrameError::unfit(Unfit::Terminator, at + found));
    }
    check_references(text, at)
}

/// Checks the content of an attribute value or CDATA section. It may contain references.
pub(super) fn check_value(value: &[u8], at: usize) -> Result<(), FrameError> {
    check_chars(value, at)?;
    check_references(value, at)
}

/// Checks that all bytes are UTF-8 and XML characters (XML 1.0 §2.2 `Char`).
pub(super) fn check_chars(bytes: &[u8], at: usize) -> Result<(), FrameError> {
    let forbidden = |byte: &u8| *byte < 0x20 && class(*byte) & SPACE == 0;
    // A fold without an early exit, so that the compiler vectorises it.
    if bytes.iter().fold(false, |found, byte| found | (*byte < 0x20 && !matches!(*byte, b'\t' | b'\n' | b'\r'))) {
        let found = bytes.iter().position(forbidden).unwrap_or(0);
        return Err(FrameError::unfit(Unfit::Character, at + found));
    }
    if bytes.is_ascii() {
        return Ok(());
    }
    if simdutf8::basic::from_utf8(bytes).is_err() {
        return Err(FrameError::BadEncoding);
    }
    match noncharacter(bytes) {
        Some(found) => Err(FrameError::unfit(Unfit::Character, at + found)),
        None => Ok(()),
    }
}

/// Returns whether bytes without control characters are UTF-8 and XML characters (XML 1.0 §2.2 `Char`).
pub(super) fn is_plain_unicode(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok() && noncharacter(bytes).is_none()
}

/// Returns the place of U+FFFE or U+FFFF in UTF-8, the only non-control characters that XML excludes: EF BF BE, EF BF
/// BF.
fn noncharacter(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(0xEF, bytes).find(|found| matches!(bytes.get(found + 1..found + 3), Some([0xBF, 0xBE | 0xBF])))
}

fn check_references(bytes: &[u8], at: usize) -> Result<(), FrameError> {
    for found in memchr::memchr_iter(b'&', bytes) {
        check_reference(bytes.get(found + 1..).unwrap_or_default(), at + found)?;
    }
    Ok(())
}

/// Checks the reference after a `&` (XML 1.0 §4.1). Returns its length including the `;`. Only the five predefined
/// entities are allowed (RFC 6120 §11.1).
pub(super) fn check_reference(rest: &[u8], at: usize) -> Result<usize, FrameError> {
    let malformed = Err(FrameError::unfit(Unfit::Reference, at));
    let name_len = rest.iter().position(|b| class(*b) & NAME == 0 && *b != b'#').unwrap_or(rest.len());
    let Some((name, b';')) = rest.get(..name_len).zip(rest.get(name_len).copied()) else {
        return malformed;
    };
    let code = match name {
        b"lt" | b"gt" | b"amp" | b"apos" | b"quot" => return Ok(name_len + 1),
        [b'#', b'x', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        [first, rest @ ..] if class(*first) & START != 0 && !rest.contains(&b'#') => {
            return Err(FrameError::Restricted(Restricted::Entity));
        }
        _ => return malformed,
    };
    match code.and_then(char::from_u32) {
        Some('\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..) => Ok(name_len + 1),
        Some(_) => malformed,
        None => Err(FrameError::unfit(Unfit::NoCharacter, at)),
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |sum, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        sum.checked_mul(radix)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_the_first_byte_that_is_not_plain_however_long_it_is() {
        for len in 0..100 {
            let plain = vec![b'x'; len];
            assert_eq!(plain_run(&plain, *b"<&]"), len);
            for at in 0..len {
                let mut bytes = plain.clone();
                // The byte after the run makes no difference.
                bytes[len - 1] = b'<';
                for special in [b'<', b'&', b']', 0, 0x1F, b'\t', 0x80, 0xFF] {
                    bytes[at] = special;
                    assert_eq!(plain_run(&bytes, *b"<&]"), at, "{special} at {at} of {len}");
                }
                for ordinary in [b' ', b'>', b'~', 0x7F, b'"'] {
                    bytes[at] = ordinary;
                    let end = if at == len - 1 { len } else { len - 1 };
                    assert_eq!(plain_run(&bytes, *b"<&]"), end, "{ordinary} at {at} of {len}");
                }
            }
        }
    }
}
