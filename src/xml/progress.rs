//! [`ScanProgress`]: the state of an element while it is read, shared by both paths.

use super::kind::Kind;
use super::open_elements::{OpenElement, OpenElements, Spelled};
use super::scope::{Declared, ScopeId};

/// The progress in one top-level element. Offsets count from its `<`.
#[derive(Debug, Default)]
pub(super) struct ScanProgress {
    at: usize,
    open: OpenElements,
    /// The namespace declarations. Few elements have any.
    declared: Option<Box<Declared>>,
    kind: Kind,
    borrowed: u64,
}

/// The properties of a complete element.
#[derive(Debug, Default)]
pub(super) struct FoundElement {
    pub(super) kind: Kind,
    /// The namespace declarations inside the element.
    pub(super) decls: Option<Box<Declared>>,
    /// The prefixes of the stream header that are used, one bit each.
    pub(super) borrowed: u64,
}

impl ScanProgress {
    /// Returns the place of the next token.
    #[inline(always)]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Moves to this place. Everything before it is checked.
    #[inline(always)]
    pub(super) fn advance_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Returns the number of open elements.
    #[inline(always)]
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Returns whether no element is open: before the root, and after it.
    #[inline(always)]
    pub(super) fn is_outside(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns the innermost open element.
    #[inline(always)]
    pub(super) fn innermost(&self) -> Option<&OpenElement> {
        self.open.last()
    }

    /// Returns the namespace scope at this place.
    #[inline(always)]
    pub(super) fn scope(&self) -> ScopeId {
        self.open.last().map(|open| open.scope).unwrap_or_default()
    }

    /// Sets the kind of the top-level element.
    #[inline(always)]
    pub(super) fn set_kind(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// Opens an element that declares no namespace prefix.
    #[inline(always)]
    pub(super) fn open(&mut self, name: Spelled) {
        let scope = self.scope();
        self.open_with(name, scope);
    }

    /// Opens an element with this scope.
    #[inline(always)]
    pub(super) fn open_with(&mut self, name: Spelled, scope: ScopeId) {
        self.open.push(OpenElement { name, scope });
    }

    /// Closes the innermost element.
    #[inline(always)]
    pub(super) fn close(&mut self, bytes: &[u8]) {
        if let Some(OpenElement { name, scope }) = self.open.pop(bytes)
            && scope != ScopeId::default()
        {
            self.leave(bytes, name.start, scope);
        }
    }

    /// Ends the scope of an element whose name is at `start`.
    pub(super) fn leave(&mut self, bytes: &[u8], start: usize, scope: ScopeId) {
        let outer = self.scope();
        if let Some(declared) = self.declared.as_mut().filter(|_| scope != outer) {
            declared.leave(bytes, start, scope, outer);
        }
    }

    /// Returns the namespace declarations so far.
    pub(super) fn declared(&self) -> Option<&Declared> {
        self.declared.as_deref()
    }

    /// Returns the namespace declarations so far, for adding some.
    pub(super) fn declared_mut(&mut self) -> &mut Declared {
        self.declared.get_or_insert_default()
    }

    /// Records the prefixes of the stream header, one bit each, that a tag uses.
    pub(super) fn borrow_prefixes(&mut self, bits: u64) {
        self.borrowed |= bits;
    }

    /// Frees unused memory.
    pub(super) fn shrink(&mut self) {
        self.open.shrink();
    }

    /// Returns the bytes of memory in use in addition to the element's own.
    pub(super) fn memory(&self) -> usize {
        self.open.memory() + self.declared.as_ref().map_or(0, |declared| declared.memory())
    }

    /// Returns the properties of the element, and resets the state for the next one.
    pub(super) fn finish(&mut self) -> FoundElement {
        self.at = 0;
        let mut decls = self.declared.take().filter(|declared| !declared.is_empty());
        if let Some(declared) = &mut decls {
            declared.finish();
        }
        FoundElement { kind: std::mem::take(&mut self.kind), decls, borrowed: std::mem::take(&mut self.borrowed) }
    }
}
