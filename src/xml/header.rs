//! The stream header (RFC 6120 §4.7): what it says, and reading it as it arrives.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;

use super::boundary::{Boundary, Token};
use super::chars::{SPACE, class, skip_space};
use super::error::{FrameError, Restricted};
use super::limits::FrameLimits;
use super::ns;
use super::scan::check_prefixes;
use super::scope::{Declared, Scope, declared_prefix, lookup};
use super::tag::{Attrs, Tag, start_tag};

/// The bounds of a header's tag, on every leg.
const LIMITS: FrameLimits = FrameLimits::new(0, 1);
/// So many lean headers are kept for streams to come.
const LEAN: usize = 16;

/// A stream header, kept as it came.
pub struct Header {
    meaning: Arc<Meaning>,
    /// What its elements do not lean on; nothing of a lean one.
    said: Option<Box<Said>>,
}

/// What the elements of a stream lean on.
#[derive(PartialEq, Eq)]
struct Meaning {
    name: Box<[u8]>,
    default: Box<str>,
    prefixes: Box<[(Box<str>, Box<str>)]>,
    lang: Option<Box<str>>,
}

struct Said {
    bytes: Bytes,
    from: Option<Box<str>>,
    to: Option<Box<str>>,
    id: Option<Box<str>>,
    version: Option<Box<str>>,
}

impl Header {
    /// Reads a whole header: an optional XML declaration and the stream's start tag, with the default namespace
    /// `jabber:client`.
    pub fn parse(bytes: Bytes) -> Result<Header, FrameError> {
        let mut scan = HeaderScan::default();
        match scan.advance(&bytes, ns::CLIENT)? {
            Some(header) if header.bytes().len() == bytes.len() => Ok(header),
            Some(_) => Err(FrameError::BadFormat { what: "content behind the stream header" }),
            None => Err(FrameError::malformed("incomplete stream header", bytes.len())),
        }
    }

    /// A header that declares nothing but what every stream does: what is valid under it is self-contained.
    pub fn bare() -> Arc<Header> {
        static BARE: LazyLock<Arc<Header>> = LazyLock::new(|| {
            let bytes = format!("<stream:stream xmlns='{}' xmlns:stream='{}'>", ns::CLIENT, ns::STREAMS);
            #[expect(clippy::expect_used, reason = "a constant, read in the tests")]
            Arc::new(Header::parse(Bytes::from(bytes)).expect("a valid header"))
        });
        Arc::clone(&BARE)
    }

    /// What this header means for the elements of its stream, and no more of it: streams of late that are alike share that. The
    /// header itself is the stream's own, for each of its elements counts among those that hold it.
    pub fn lean(&self) -> Arc<Header> {
        static LATE: Mutex<Vec<Arc<Meaning>>> = Mutex::new(Vec::new());
        let mut late = LATE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = late.iter().find(|known| **known == self.meaning) {
            return Arc::new(Header { meaning: Arc::clone(known), said: None });
        }
        if late.len() == LEAN {
            late.remove(0);
        }
        late.push(Arc::clone(&self.meaning));
        Arc::new(Header { meaning: Arc::clone(&self.meaning), said: None })
    }

    /// Whether an element means the same under the other header.
    pub fn means_the_same(&self, other: &Header) -> bool {
        let (own, other) = (&self.meaning, &other.meaning);
        let same = || own.default == other.default && own.prefixes == other.prefixes && own.lang == other.lang;
        Arc::ptr_eq(own, other) || same()
    }

    /// Whether it is known without a closer look that an element means the same under the other header.
    pub(super) fn shares_meaning(&self, other: &Header) -> bool {
        Arc::ptr_eq(&self.meaning, &other.meaning)
    }

    /// The header byte for byte, with its XML declaration and white space between them.
    pub fn bytes(&self) -> &[u8] {
        self.said().map(|said| &*said.bytes).unwrap_or_default()
    }

    fn said(&self) -> Option<&Said> {
        self.said.as_deref()
    }

    /// Who opened the stream (RFC 6120 §4.7.1).
    pub fn from(&self) -> Option<&str> {
        self.said()?.from.as_deref()
    }

    /// Whom the stream is meant for (RFC 6120 §4.7.2).
    pub fn to(&self) -> Option<&str> {
        self.said()?.to.as_deref()
    }

    /// The stream id (RFC 6120 §4.7.3).
    pub fn id(&self) -> Option<&str> {
        self.said()?.id.as_deref()
    }

    /// The version of XMPP (RFC 6120 §4.7.5).
    pub fn version(&self) -> Option<&str> {
        self.said()?.version.as_deref()
    }

    /// The default language of the stream (`xml:lang`, RFC 6120 §4.7.4).
    pub fn lang(&self) -> Option<&str> {
        self.meaning.lang.as_deref()
    }

    /// The default namespace of the stream (RFC 6120 §4.8.2).
    pub fn default_namespace(&self) -> &str {
        &self.meaning.default
    }

    /// The namespaces it declares: prefix (empty for the default one) and name.
    pub fn prefixes(&self) -> impl Iterator<Item = (&str, &str)> {
        let prefixed = self.meaning.prefixes.iter().map(|(prefix, uri)| (prefix.as_ref(), uri.as_ref()));
        std::iter::once(("", self.default_namespace())).chain(prefixed)
    }

    /// The declarations without the default one; [`Header::prefix`] gives indices into these.
    pub(super) fn declared(&self, index: usize) -> Option<(&str, &str)> {
        self.meaning.prefixes.get(index).map(|(prefix, uri)| (prefix.as_ref(), uri.as_ref()))
    }

    /// The index and namespace of a prefix.
    pub(super) fn prefix(&self, prefix: &[u8]) -> Option<(usize, &str)> {
        let index = self.meaning.prefixes.iter().position(|(own, _)| own.as_bytes() == prefix)?;
        self.declared(index).map(|(_, uri)| (index, uri))
    }

    /// The qualified name of the start tag, which the end tag repeats.
    pub(super) fn name(&self) -> &[u8] {
        &self.meaning.name
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header").field("len", &self.bytes().len()).finish_non_exhaustive()
    }
}

/// Progress in a stream header. Offsets count from its `<`.
#[derive(Debug, Default)]
pub(super) struct HeaderScan {
    at: usize,
    declared: bool,
    boundary: Boundary,
}

impl HeaderScan {
    /// Reads on. Returns the header once it is whole; its bytes are a copy, so that it does not keep a buffer alive.
    /// `bytes` may have grown since the last call. `default`: the default namespace it must declare.
    pub(super) fn advance(&mut self, bytes: &[u8], default: &str) -> Result<Option<Header>, FrameError> {
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            if self.declared && rest.first().is_some_and(|byte| class(*byte) & SPACE != 0) {
                self.at = skip_space(bytes, self.at);
                continue;
            }
            if rest.first().is_some_and(|byte| *byte >= 0x80) {
                return Err(FrameError::BadEncoding);
            }
            if rest.first().is_some_and(|byte| *byte != b'<') {
                return Err(FrameError::malformed("text before the stream header", self.at));
            }
            let Some((token, len)) = self.boundary.find(rest)? else {
                return Ok(None);
            };
            let whole = bytes.get(..self.at + len).unwrap_or_default();
            match token {
                Token::Declaration if !self.declared && is_declaration(whole) => {
                    check_declaration(whole)?;
                    self.declared = true;
                    self.at = whole.len();
                }
                Token::Declaration => {
                    return Err(FrameError::Restricted(Restricted::ProcessingInstruction));
                }
                Token::Start => return self.header(whole, default).map(Some),
                Token::End | Token::Text | Token::CData => {
                    return Err(FrameError::malformed("no stream header", self.at));
                }
            }
        }
    }

    fn header(&self, bytes: &[u8], default: &str) -> Result<Header, FrameError> {
        let mut attrs = Attrs::default();
        let tag = start_tag(bytes, self.at, &mut attrs, LIMITS.attributes())?;
        let mut declared = Declared::default();
        declared.declare(bytes, &attrs, Scope::default(), &LIMITS)?;
        check_prefixes(tag, &attrs, bytes, |name| lookup(Some(&declared), bytes, name.prefix(bytes), None))?;
        let header = describe(bytes, tag, &attrs);
        let root = tag.name.has_prefix() && tag.name.local(bytes) == b"stream";
        let streams = header.prefix(tag.name.prefix(bytes)).is_some_and(|(_, uri)| uri == ns::STREAMS);
        if !root || !streams || header.default_namespace() != default {
            return Err(FrameError::BadNamespace);
        }
        if tag.empty {
            return Err(FrameError::BadFormat { what: "empty stream" });
        }
        Ok(header)
    }
}

fn describe(bytes: &[u8], tag: Tag, attrs: &Attrs) -> Header {
    let text = |range| String::from_utf8_lossy(bytes.get(range).unwrap_or_default()).into();
    let value = |name: &[u8]| {
        let attr = attrs.iter(bytes).find(|attr| attr.name.whole(bytes) == name);
        attr.map(|attr| attr.value(bytes).into())
    };
    let declared = attrs.iter(bytes).filter_map(|attr| declared_prefix(bytes, &attr).map(|prefix| (attr, prefix)));
    let prefixes = declared.filter(|(_, prefix)| !prefix.is_empty());
    let meaning = Meaning {
        name: tag.name.whole(bytes).into(),
        default: value(b"xmlns").unwrap_or_default(),
        prefixes: prefixes.map(|(attr, prefix)| (text(prefix), attr.value(bytes).into())).collect(),
        lang: value(b"xml:lang"),
    };
    let said = Said {
        from: value(b"from"),
        to: value(b"to"),
        id: value(b"id"),
        version: value(b"version"),
        bytes: Bytes::copy_from_slice(bytes),
    };
    Header { meaning: Arc::new(meaning), said: Some(Box::new(said)) }
}

fn is_declaration(token: &[u8]) -> bool {
    matches!(token, [b'<', b'?', b'x', b'm', b'l', next, ..] if class(*next) & SPACE != 0)
}

/// Checks `<?xml … ?>` (XML 1.0 §2.8, §4.3.3).
fn check_declaration(token: &[u8]) -> Result<(), FrameError> {
    let malformed = FrameError::malformed("invalid XML declaration", 0);
    let mut attrs = Attrs::default();
    let end = attrs.read(token, "<?xml".len(), LIMITS.attributes())?;
    if token.get(end..) != Some(b"?>") {
        return Err(malformed);
    }
    let mut attrs =
        attrs.iter(token).map(|attr| (attr.name.whole(token), token.get(attr.value.clone()).unwrap_or_default()));
    let mut next = attrs.next();
    match next {
        Some((b"version", [b'1', b'.', digits @ ..])) if is_number(digits) => next = attrs.next(),
        Some(_) | None => return Err(malformed),
    }
    if let Some((b"encoding", encoding)) = next {
        if !encoding.eq_ignore_ascii_case(b"utf-8") {
            return Err(FrameError::BadEncoding);
        }
        next = attrs.next();
    }
    if let Some((b"standalone", b"yes" | b"no")) = next {
        next = attrs.next();
    }
    if next.is_some() { Err(malformed) } else { Ok(()) }
}

fn is_number(digits: &[u8]) -> bool {
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}
