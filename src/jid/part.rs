//! The parts of an address (RFC 7622 §3.2–§3.4). A part that cannot be parsed stays unchanged.

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Write};

use ::jid::{DomainPart, NodePart, ResourcePart};
use idna::uts46::{AsciiDenyList, Hyphens, Uts46};

/// The maximum bytes of a part (RFC 7622 §3.1).
pub(super) const LONGEST: usize = 1023;

/// Normalises a local part.
pub(super) fn node(text: &str) -> Cow<'_, str> {
    NodePart::new(text).ok().map(plain).filter(|normal| is_one_part(normal)).unwrap_or(Cow::Borrowed(text))
}

/// Normalises a resource.
pub fn resource(text: &str) -> Cow<'_, str> {
    ResourcePart::new(text).ok().map(plain).unwrap_or(Cow::Borrowed(text))
}

/// Normalises a domain. Returns `None` if it is neither a name nor an IP literal.
pub fn domain(text: &str) -> Option<String> {
    parsed_domain(text).map(Cow::into_owned)
}

pub(super) fn domain_or_text(text: &str) -> Cow<'_, str> {
    parsed_domain(text).unwrap_or(Cow::Borrowed(text))
}

fn parsed_domain(text: &str) -> Option<Cow<'_, str>> {
    let normal = DomainPart::new(text).ok().map(plain).or_else(|| name(text))?;
    is_one_part(&normal).then_some(normal)
}

/// Returns a domain name that the `jid` crate rejects, but that servers have and the DNS resolves. IDNA rejects some
/// for their hyphens or for `xn--`, stringprep rejects characters newer than Unicode 3.2.
fn name(text: &str) -> Option<Cow<'_, str>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let name = match Uts46::new().to_unicode(text.as_bytes(), AsciiDenyList::URL, Hyphens::Allow) {
        _ if is_ascii_name(text) => Cow::Owned(text.to_ascii_lowercase()),
        (name, Ok(())) => name,
        (_, Err(_)) => return None,
    };
    let complete = name.len() <= LONGEST && name.split('.').all(|label| !label.is_empty());
    complete.then_some(name)
}

/// Returns a domain in the form of the DNS and TLS (RFC 5890 §2.3), or `None` if it is not a name.
pub fn ascii(domain: &str) -> Option<String> {
    let encoded = idna::domain_to_ascii(domain).ok();
    encoded.or_else(|| is_ascii_name(domain).then(|| domain.to_ascii_lowercase()))
}

fn is_ascii_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn plain<T: ToOwned + AsRef<str> + ?Sized>(part: Cow<'_, T>) -> Cow<'_, str> {
    match part {
        Cow::Borrowed(part) => Cow::Borrowed(part.as_ref()),
        Cow::Owned(part) => Cow::Owned(part.borrow().as_ref().to_owned()),
    }
}

/// Returns whether the text is still one part after it is inserted into an address.
fn is_one_part(normal: &str) -> bool {
    !normal.contains(['@', '/'])
}

/// Writes a text in one line. Escapes control characters and characters that change the direction of text.
pub(super) fn write_plain(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for c in text.chars() {
        let turns =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            write!(f, "{}", c.escape_default())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}
