//! [`Header`]: a stream header (RFC 6120 §4.7), and the namespace context that it gives to the elements of its stream.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::ns;

/// A stream header, kept as received.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Header {
    context: Arc<NamespaceContext>,
    /// `None` in an interned header.
    own: Option<Box<OwnHeader>>,
}

/// The part of a header on which the meaning of its elements depends.
#[derive(PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct NamespaceContext {
    pub(super) name: Box<[u8]>,
    pub(super) default: Box<str>,
    #[serde(deserialize_with = "declarations")]
    pub(super) prefixes: Box<[Declaration]>,
    pub(super) lang: Option<Box<str>>,
}

/// A prefix, and its namespace.
type Declaration = (Box<str>, Box<str>);

/// Reads the declarations of a context. An element notes in 64 bits which of them it uses.
fn declarations<'de, D: Deserializer<'de>>(context: D) -> Result<Box<[Declaration]>, D::Error> {
    let prefixes = Box::<[Declaration]>::deserialize(context)?;
    if prefixes.len() <= 64 { Ok(prefixes) } else { Err(D::Error::custom("too many prefixes")) }
}

/// The part of a header that belongs to one stream.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct OwnHeader {
    pub(super) bytes: Bytes,
    pub(super) from: Option<Box<str>>,
    pub(super) to: Option<Box<str>>,
    pub(super) id: Option<Box<str>>,
    pub(super) version: Option<Box<str>>,
}

/// The namespace contexts of recent streams. Streams with an identical context share one allocation.
///
/// The code that opens streams keeps one cache for all of them.
#[derive(Default)]
pub struct HeaderCache {
    recent: Vec<Arc<NamespaceContext>>,
}

impl HeaderCache {
    /// The number of contexts that are kept.
    const SIZE: usize = 16;

    fn intern(&mut self, context: &Arc<NamespaceContext>) -> Arc<NamespaceContext> {
        if let Some(known) = self.recent.iter().find(|known| *known == context) {
            return Arc::clone(known);
        }
        if self.recent.len() == Self::SIZE {
            self.recent.remove(0);
        }
        self.recent.push(Arc::clone(context));
        Arc::clone(context)
    }
}

impl std::fmt::Debug for HeaderCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeaderCache").field("len", &self.recent.len()).finish_non_exhaustive()
    }
}

impl Header {
    pub(super) fn new(context: NamespaceContext, own: OwnHeader) -> Self {
        Header { context: Arc::new(context), own: Some(Box::new(own)) }
    }

    /// Returns a header that keeps only the namespace context. Recent streams with an identical context share one
    /// allocation of it. The returned header itself is not shared, because each of its elements counts as a reference.
    pub fn interned(&self, cache: &mut HeaderCache) -> Arc<Header> {
        Arc::new(Header { context: cache.intern(&self.context), own: None })
    }

    /// Returns whether this is an interned header.
    pub(super) fn is_interned(&self) -> bool {
        self.own.is_none()
    }

    /// Returns whether an element has the same meaning under the other header.
    pub fn means_the_same(&self, other: &Header) -> bool {
        let (own, other) = (&self.context, &other.context);
        let is_equal = || own.default == other.default && own.prefixes == other.prefixes && own.lang == other.lang;
        Arc::ptr_eq(own, other) || is_equal()
    }

    /// Returns whether both declare the same namespaces. They may differ in their default language.
    pub fn declares_the_same(&self, other: &Header) -> bool {
        let (own, other) = (&self.context, &other.context);
        Arc::ptr_eq(own, other) || own.default == other.default && own.prefixes == other.prefixes
    }

    /// Returns whether both share one allocation of the same context. Cheaper than [`Header::means_the_same`].
    pub(super) fn shares_context(&self, other: &Header) -> bool {
        Arc::ptr_eq(&self.context, &other.context)
    }

    /// Returns the header byte for byte, including its XML declaration and the white space after that.
    pub fn bytes(&self) -> &[u8] {
        self.own().map(|own| &*own.bytes).unwrap_or_default()
    }

    fn own(&self) -> Option<&OwnHeader> {
        self.own.as_deref()
    }

    /// Returns the `from` of the stream (RFC 6120 §4.7.1).
    pub fn from(&self) -> Option<&str> {
        self.own()?.from.as_deref()
    }

    /// Returns the `to` of the stream (RFC 6120 §4.7.2).
    pub fn to(&self) -> Option<&str> {
        self.own()?.to.as_deref()
    }

    /// Returns the stream id (RFC 6120 §4.7.3).
    pub fn id(&self) -> Option<&str> {
        self.own()?.id.as_deref()
    }

    /// Returns the version of XMPP (RFC 6120 §4.7.5).
    pub fn version(&self) -> Option<&str> {
        self.own()?.version.as_deref()
    }

    /// Returns the default language of the stream (`xml:lang`, RFC 6120 §4.7.4).
    pub fn lang(&self) -> Option<&str> {
        self.context.lang.as_deref()
    }

    /// Returns the default namespace of the stream (RFC 6120 §4.8.2).
    pub fn default_namespace(&self) -> &str {
        &self.context.default
    }

    /// Returns the namespace of the stream's stanzas (RFC 6120 §4.8.2): the default namespace, unless that is the
    /// streams namespace.
    pub fn content_namespace(&self) -> &str {
        match self.default_namespace() {
            ns::STREAMS => ns::CLIENT,
            default => default,
        }
    }

    /// Returns the declared namespaces: prefix (empty for the default namespace) and name.
    pub fn prefixes(&self) -> impl Iterator<Item = (&str, &str)> {
        let prefixed = self.context.prefixes.iter().map(|(prefix, uri)| (prefix.as_ref(), uri.as_ref()));
        std::iter::once(("", self.default_namespace())).chain(prefixed)
    }

    /// Returns a declaration other than the default one. [`Header::prefix`] returns its index.
    pub(super) fn declared(&self, index: usize) -> Option<(&str, &str)> {
        self.context.prefixes.get(index).map(|(prefix, uri)| (prefix.as_ref(), uri.as_ref()))
    }

    /// Returns the index and the namespace of a prefix.
    pub(super) fn prefix(&self, prefix: &[u8]) -> Option<(usize, &str)> {
        let index = self.context.prefixes.iter().position(|(own, _)| own.as_bytes() == prefix)?;
        self.declared(index).map(|(_, uri)| (index, uri))
    }

    /// Returns the qualified name of the start tag, which the end tag repeats.
    pub(super) fn name(&self) -> &[u8] {
        &self.context.name
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header").field("len", &self.bytes().len()).finish_non_exhaustive()
    }
}
