//! Namespace declarations and their scopes (Namespaces in XML 1.0 §6): [`Declared`] during reading, [`Decls`] afterwards.
//!
//! While an element is read, a table holds the current declaration of each prefix. Afterwards the declarations of each
//! tag are adjacent, sorted by prefix, and refer to those of the enclosing tag. A lookup takes at most logarithmic time.

use std::cmp::Ordering;
use std::ops::Range;

use super::error::{FrameError, Unfit};
use super::hash_table::Table;
use super::header::Header;
use super::limits::FrameLimits;
use super::ns;
use crate::hash;

/// Marks the place of a normalised namespace.
const NORMALIZED: u32 = 1 << 31;
/// Marks a declaration, or its number in the table, that is no longer in scope.
const CLOSED: u32 = 1 << 31;
/// The maximum number of declarations that are searched linearly.
const FEW: usize = 8;

/// A namespace declaration inside an element. A default declaration is kept only if its name needs normalising, because
/// others can be read from the tag. The struct is small, because a peer can create many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decl {
    /// The place of the prefix (empty for the default namespace). Marked with [`CLOSED`] after the scope ended.
    prefix: u32,
    /// The place of the namespace in the element's bytes, or in the normalised names if marked with [`NORMALIZED`].
    uri: u32,
    uri_len: u32,
    /// While in scope: a hash of the namespace. Afterwards: the first declaration of its tag.
    hash_or_first: u32,
    /// While in scope: the declaration that it hides, if there are many. Afterwards: the scope around its tag.
    hides_or_outer: u32,
}

/// The number of declarations up to and including the innermost tag that has some. Zero means no declarations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ScopeId(u32);

impl ScopeId {
    /// Returns the number of declarations between an outer scope and this one.
    pub(super) fn since(self, outer: ScopeId) -> usize {
        self.0.saturating_sub(outer.0) as usize
    }

    /// Returns the scope with `count` fewer declarations.
    pub(super) fn before(self, count: usize) -> ScopeId {
        ScopeId(self.0 - u32::try_from(count).unwrap_or_default())
    }

    #[cfg(test)]
    pub(super) fn after(self, count: usize) -> ScopeId {
        ScopeId(self.0 + u32::try_from(count).unwrap())
    }
}

/// The declarations of one element, in the order of their tags, and of each tag in the order of their prefixes.
#[derive(Debug, Default)]
pub(super) struct Decls {
    list: Vec<Decl>,
    /// The names that had to be normalised.
    normalized: String,
}

/// The declarations of an element that is being read.
#[derive(Debug, Default)]
pub(super) struct Declared {
    decls: Decls,
    /// The current declaration of each prefix, counted from one. Used if there are many.
    current: Table,
    /// The number of declarations in scope.
    in_scope: usize,
}

/// A namespace that a tag declares.
pub(super) struct Namespace<'a> {
    pub(super) uri: &'a str,
    /// The place of the same bytes in the element; `None` if the name had to be normalised.
    pub(super) at: Option<usize>,
}

fn ends_prefix(byte: u8) -> bool {
    matches!(byte, b'=' | b' ' | b'\t' | b'\r' | b'\n')
}

fn offset(at: usize) -> u32 {
    // The framer limits elements to this range.
    u32::try_from(at).unwrap_or_default()
}

impl Decl {
    fn at(&self) -> usize {
        (self.prefix & !CLOSED) as usize
    }

    fn place(&self) -> Range<usize> {
        let start = (self.uri & !NORMALIZED) as usize;
        start..start + self.uri_len as usize
    }

    fn is_closed(&self) -> bool {
        self.prefix & CLOSED != 0
    }

    fn prefix_on<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.at()..).unwrap_or_default()
    }

    fn prefix<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let rest = self.prefix_on(bytes);
        let end = rest.iter().position(|byte| ends_prefix(*byte));
        end.and_then(|end| rest.get(..end)).unwrap_or_default()
    }

    /// Returns whether this is its prefix. Its own prefix may be much longer.
    fn has_prefix(&self, bytes: &[u8], prefix: &[u8]) -> bool {
        self.compare(bytes, prefix) == Ordering::Equal
    }

    /// Compares its prefix with this one, in time proportional to the shorter one.
    fn compare(&self, bytes: &[u8], prefix: &[u8]) -> Ordering {
        self.prefix_on(bytes).iter().take_while(|byte| !ends_prefix(**byte)).cmp(prefix)
    }

    /// Compares its prefix with that of another declaration.
    fn compare_with(&self, other: &Decl, bytes: &[u8]) -> Ordering {
        let prefix = |decl: &Decl| decl.prefix_on(bytes).iter().take_while(|byte| !ends_prefix(**byte));
        prefix(self).cmp(prefix(other))
    }
}

impl Decls {
    /// Returns the bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.list.capacity() * size_of::<Decl>() + self.normalized.capacity()
    }

    fn get(&self, number: u32) -> Option<&Decl> {
        (number as usize).checked_sub(1).and_then(|index| self.list.get(index))
    }

    fn uri<'a>(&'a self, decl: &Decl, bytes: &'a [u8]) -> &'a [u8] {
        let within = if decl.uri & NORMALIZED == 0 { bytes } else { self.normalized.as_bytes() };
        within.get(decl.place()).unwrap_or_default()
    }

    /// Returns the namespace as text. The element was checked.
    fn uri_in<'a>(&'a self, decl: &Decl, document: &'a str) -> &'a str {
        let within = if decl.uri & NORMALIZED == 0 { document } else { &self.normalized };
        within.get(decl.place()).unwrap_or_default()
    }

    /// Returns the namespace of `prefix` in this scope of a complete element; `None` if only the header may declare it.
    fn resolve<'a>(&'a self, document: &'a str, mut scope: ScopeId, prefix: &[u8]) -> Option<&'a str> {
        let bytes = document.as_bytes();
        while let Some(last) = self.get(scope.0) {
            let tag = self.list.get(last.hash_or_first as usize..scope.0 as usize)?;
            if let Ok(at) = tag.binary_search_by(|decl| decl.compare(bytes, prefix)) {
                return tag.get(at).map(|decl| self.uri_in(decl, document));
            }
            scope = ScopeId(last.hides_or_outer);
        }
        None
    }

    /// Returns the declarations of the tag at this place.
    fn of_tag(&self, tag: &Range<usize>) -> Range<usize> {
        let before = |at: usize| self.list.partition_point(|decl| decl.at() < at);
        if self.list.is_empty() { 0..0 } else { before(tag.start)..before(tag.end) }
    }

    /// Returns the scope within the element with this start tag, whose outer scope is `outer`. Returns also the default
    /// namespace that the tag declares, if it had to be normalised.
    pub(super) fn enter<'a>(
        &'a self,
        document: &'a str,
        tag: &Range<usize>,
        outer: ScopeId,
    ) -> (ScopeId, Option<&'a str>) {
        let own = self.of_tag(tag);
        if own.is_empty() {
            return (outer, None);
        }
        let first = self.list.get(own.start);
        let default = first.filter(|decl| decl.has_prefix(document.as_bytes(), b""));
        (ScopeId(offset(own.end)), default.map(|decl| self.uri_in(decl, document)))
    }
}

impl Declared {
    /// Returns the bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.decls.memory() + self.current.memory()
    }

    /// Frees memory that is needed only for reading, after the element is complete.
    pub(super) fn finish(&mut self) {
        self.current = Table::default();
        let Decls { list, normalized } = &mut self.decls;
        if list.capacity() - list.len() > FEW {
            list.shrink_to_fit();
        }
        normalized.shrink_to_fit();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.decls.list.is_empty()
    }

    /// Returns the declarations of a complete element.
    pub(super) fn decls(&self) -> &Decls {
        &self.decls
    }

    /// Returns the number of declarations so far.
    pub(super) fn len(&self) -> usize {
        self.decls.list.len()
    }

    /// Adds a declaration of the tag that is being read: the place of its prefix, and the namespace.
    pub(super) fn add(
        &mut self,
        prefix: Range<usize>,
        namespace: &Namespace<'_>,
        limits: &FrameLimits,
    ) -> Result<(), FrameError> {
        self.in_scope += 1;
        if self.in_scope > limits.prefixes() {
            return Err(FrameError::TooMany { what: "namespace prefixes", limit: limits.prefixes() });
        }
        let Decls { list, normalized } = &mut self.decls;
        if list.len() == limits.declarations() {
            return Err(FrameError::TooMany { what: "namespace declarations", limit: limits.declarations() });
        }
        let place = match namespace.at {
            Some(at) => offset(at),
            None => {
                let place = offset(normalized.len()) | NORMALIZED;
                normalized.push_str(namespace.uri);
                place
            }
        };
        if list.len() == list.capacity() {
            list.reserve_exact(list.len() / 8 + 4);
        }
        list.push(Decl {
            prefix: offset(prefix.start),
            uri: place,
            uri_len: offset(namespace.uri.len()),
            hash_or_first: short(hash::of_bytes(namespace.uri.as_bytes())),
            hides_or_outer: 0,
        });
        Ok(())
    }

    /// Brings the declarations from number `first` on into scope. They belong to one tag with the outer scope `outer`.
    /// Returns the scope within the tag's element.
    pub(super) fn enter(&mut self, bytes: &[u8], first: usize, outer: ScopeId) -> Result<ScopeId, FrameError> {
        let own = self.decls.list.get_mut(first..).unwrap_or_default();
        if own.is_empty() {
            return Ok(outer);
        }
        own.sort_unstable_by(|a, b| a.compare_with(b, bytes));
        let mut pairs = own.iter().zip(own.iter().skip(1));
        if let Some((twice, _)) = pairs.find(|(a, b)| a.compare_with(b, bytes) == Ordering::Equal) {
            return Err(FrameError::unfit(Unfit::DeclaredTwice, twice.at()));
        }
        let len = self.decls.list.len();
        if len > FEW {
            // Earlier declarations are in the table, unless there were few.
            let first = if first > FEW { first } else { 0 };
            (first..len).for_each(|index| self.bring_into_scope(bytes, index));
        }
        Ok(ScopeId(offset(self.decls.list.len())))
    }

    fn bring_into_scope(&mut self, bytes: &[u8], index: usize) {
        if self.decls.list.get(index).is_none_or(Decl::is_closed) {
            return;
        }
        let before = self.set_current(bytes, index, offset(index + 1));
        if let Some(decl) = self.decls.list.get_mut(index) {
            decl.hides_or_outer = before.filter(|number| number & CLOSED == 0).unwrap_or_default();
        }
    }

    /// Makes this number the current one of the declaration's prefix. Returns the previous one.
    fn set_current(&mut self, bytes: &[u8], index: usize, number: u32) -> Option<u32> {
        let decls = &self.decls;
        let prefix_of = |number: u32| decls.get(number & !CLOSED).map(|decl| decl.prefix(bytes)).unwrap_or_default();
        let prefix = decls.list.get(index).map(|decl| decl.prefix(bytes)).unwrap_or_default();
        let same = |number: u32| decls.get(number & !CLOSED).is_some_and(|decl| decl.has_prefix(bytes, prefix));
        self.current.replace(hash::of_bytes(prefix), number, same, |n| hash::of_bytes(prefix_of(n)))
    }

    /// Ends the scope `own` of an element whose tag begins at `tag`; `outer` is the scope around it.
    #[cold]
    pub(super) fn leave(&mut self, bytes: &[u8], tag: usize, own: ScopeId, outer: ScopeId) {
        let last = own.0 as usize;
        let declared = self.decls.list.get(..last).unwrap_or_default();
        let first = declared.partition_point(|decl| decl.at() < tag);
        let many = self.decls.list.len() > FEW;
        for index in first..last {
            let Some(decl) = self.decls.list.get_mut(index) else { return };
            let hidden = std::mem::replace(&mut decl.hides_or_outer, outer.0);
            decl.hash_or_first = offset(first);
            decl.prefix |= CLOSED;
            if !many {
                continue;
            }
            let current = if hidden == 0 { offset(index + 1) | CLOSED } else { hidden };
            self.set_current(bytes, index, current);
        }
        self.in_scope -= last - first;
    }

    fn resolve<'a>(&'a self, bytes: &'a [u8], prefix: &[u8]) -> Option<PrefixBinding<'a>> {
        let Self { decls, current, .. } = self;
        let same = |number: u32| decls.get(number & !CLOSED).is_some_and(|decl| decl.has_prefix(bytes, prefix));
        let decl = if decls.list.len() > FEW {
            decls.get(current.find(hash::of_bytes(prefix), same)?)?
        } else {
            let mut open = decls.list.iter().rev().filter(|decl| !decl.is_closed());
            open.find(|decl| decl.has_prefix(bytes, prefix))?
        };
        Some(PrefixBinding::Own { uri: decls.uri(decl, bytes), hash: decl.hash_or_first })
    }
}

/// Returns the part of a hash that fits into a declaration.
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The namespace of a prefix, and the place of its declaration.
#[derive(Clone, Copy)]
pub(super) enum PrefixBinding<'a> {
    /// A declaration within the element.
    Own {
        /// The namespace.
        uri: &'a [u8],
        /// The stored part of its hash.
        hash: u32,
    },
    /// The prefix `xml`.
    Xml,
    /// The declaration with this index in [`Header::declared`].
    Header(usize, &'a [u8]),
}

impl<'a> PrefixBinding<'a> {
    pub(super) fn uri(self) -> &'a [u8] {
        match self {
            PrefixBinding::Own { uri, .. } | PrefixBinding::Header(_, uri) => uri,
            PrefixBinding::Xml => ns::XML.as_bytes(),
        }
    }

    /// Returns a hash of the namespace. Two namespaces are compared only if their hashes are equal.
    pub(super) fn hash(self) -> u32 {
        match self {
            PrefixBinding::Own { hash, .. } => hash,
            PrefixBinding::Xml | PrefixBinding::Header(..) => short(hash::of_bytes(self.uri())),
        }
    }
}

/// Looks a non-empty prefix up where an element is being read, then in the stream header.
pub(super) fn lookup<'a>(
    declared: Option<&'a Declared>,
    bytes: &'a [u8],
    prefix: &[u8],
    header: Option<&'a Header>,
) -> Option<PrefixBinding<'a>> {
    if prefix == b"xml" {
        return Some(PrefixBinding::Xml);
    }
    if let Some(binding) = declared.and_then(|declared| declared.resolve(bytes, prefix)) {
        return Some(binding);
    }
    let (index, uri) = header?.prefix(prefix)?;
    Some(PrefixBinding::Header(index, uri.as_bytes()))
}

/// Looks a non-empty prefix up in a scope of a whole element, then in the stream header.
pub(super) fn lookup_in<'a>(
    decls: Option<&'a Decls>,
    document: &'a str,
    scope: ScopeId,
    prefix: &[u8],
    header: &'a Header,
) -> Option<&'a str> {
    if prefix == b"xml" {
        return Some(ns::XML);
    }
    let own = decls.and_then(|decls| decls.resolve(document, scope, prefix));
    own.or_else(|| header.prefix(prefix).map(|(_, uri)| uri))
}
