//! One forward pass over a top-level element that checks all of XML 1.0 and its namespaces that XMPP allows.
//!
//! Ordinary tokens are read where they lie. Others, and one that is cut off, are left to [`Boundary`], which remembers how
//! far it looked, and are read once their end has come; so the work is linear in the bytes, however they are cut, and errors
//! are the same too.

use std::cell::Cell;

use fearless_simd::Level;

use super::chars::{check_chars, check_text};
use super::element::Kind;
use super::error::{FrameError, Restricted, Unfit};
use super::exact::boundary::{Boundary, Token};
use super::exact::tag::{Attrs, Name, Tag, end_tag, name, start_tag};
use super::hash_table::{Table, keyed};
use super::header::Header;
use super::limits::FrameLimits;
use super::ns;
use super::open_elements::{Open, Opens, Spelled};
use super::scope::{Binding, Declared, Scope, declared_prefix, lookup};

/// So many attributes with prefixes are compared each with each.
const FEW: usize = 16;

/// Progress in one top-level element. Offsets count from its `<`.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) at: usize,
    boundary: Boundary,
    pub(super) open: Opens,
    attrs: Attrs,
    /// Few elements have any.
    declared: Option<Box<Declared>>,
    pub(super) found: Found,
}

/// What a finished element was found to be.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) kind: Kind,
    /// The namespace declarations inside, once it is whole.
    pub(super) decls: Option<Box<Declared>>,
    /// One bit for each prefix of the stream header that is used.
    pub(super) borrowed: u64,
}

impl Scan {
    /// Reads on. Returns the length of the element once it is whole. `bytes` starts with the element's `<` and may have
    /// grown since the last call.
    pub(super) fn advance(
        &mut self,
        bytes: &[u8],
        header: &Header,
        limits: &FrameLimits,
    ) -> Result<Option<usize>, FrameError> {
        self.advance_with(Some(Level::new()), bytes, header, limits)
    }

    /// The same with what processors of this level have; with the careful way alone if there is none.
    #[inline(always)]
    pub(super) fn advance_with(
        &mut self,
        level: Option<Level>,
        bytes: &[u8],
        header: &Header,
        limits: &FrameLimits,
    ) -> Result<Option<usize>, FrameError> {
        loop {
            if let (Some(level), true) = (level, self.boundary.is_fresh())
                && self.ordinary(level, bytes, header, limits.depth)
            {
                return Ok(Some(self.at));
            }
            let rest = bytes.get(self.at..).unwrap_or_default();
            let Some((token, len)) = self.boundary.find(rest).map_err(|error| self.placed(error))? else {
                return Ok(None);
            };
            let whole = bytes.get(..self.at + len).unwrap_or_default();
            self.careful(whole, token, header, limits)?;
            if self.open.is_empty() {
                return Ok(Some(self.at));
            }
        }
    }

    /// Gives back room that is not in use.
    pub(super) fn shrink(&mut self) {
        self.open.shrink();
        self.attrs = Attrs::default();
    }

    /// What was found in the element, leaving the scan ready for the next one.
    pub(super) fn finish(&mut self) -> Found {
        self.at = 0;
        if let Some(mut declared) = self.declared.take().filter(|declared| !declared.is_empty()) {
            declared.finish();
            self.found.decls = Some(declared);
        }
        std::mem::take(&mut self.found)
    }

    /// Bytes of memory that it has beside the element's own.
    pub(super) fn memory(&self) -> usize {
        self.open.memory() + self.attrs.memory() + self.declared.as_ref().map_or(0, |declared| declared.memory())
    }

    /// The innermost element ends.
    #[inline(always)]
    pub(super) fn close(&mut self, bytes: &[u8]) {
        if let Some(Open { name, scope }) = self.open.pop(bytes)
            && scope != Scope::default()
        {
            self.leave(bytes, name.start, scope);
        }
    }

    /// What an element has declared whose tag begins before `start` is not in scope any more.
    fn leave(&mut self, bytes: &[u8], start: usize, scope: Scope) {
        let outer = self.scope();
        if let Some(declared) = self.declared.as_mut().filter(|_| scope != outer) {
            declared.leave(bytes, start, scope, outer);
        }
    }

    fn placed(&self, error: FrameError) -> FrameError {
        match error {
            FrameError::NotWellFormed { what, at } => FrameError::NotWellFormed { what, at: at + self.at },
            FrameError::Unfit { what, at } => FrameError::Unfit { what, at: at + self.at },
            FrameError::Restricted(_)
            | FrameError::TooLarge { .. }
            | FrameError::TooDeep { .. }
            | FrameError::TooMany { .. }
            | FrameError::BadNamespace
            | FrameError::BadEncoding
            | FrameError::BadFormat { .. } => error,
        }
    }

    /// What is in scope at this place.
    #[inline(always)]
    pub(super) fn scope(&self) -> Scope {
        self.open.last().map(|open| open.scope).unwrap_or_default()
    }

    fn careful(&mut self, bytes: &[u8], token: Token, header: &Header, limits: &FrameLimits) -> Result<(), FrameError> {
        let content = bytes.get(self.at..).unwrap_or_default();
        match token {
            Token::Start => {
                let tag = start_tag(bytes, self.at, &mut self.attrs, limits.attributes())?;
                self.enter(bytes, tag, header, limits)?;
            }
            Token::End => {
                let name = self.open.last().map(|open| open.name.bytes(bytes)).unwrap_or_default();
                self.at = end_tag(bytes, self.at, name)?;
                self.close(bytes);
            }
            Token::Text => {
                check_text(content, self.at)?;
                self.at = bytes.len();
            }
            Token::CData => {
                check_chars(content, self.at)?;
                self.at = bytes.len();
            }
            Token::Declaration => return Err(FrameError::Restricted(Restricted::ProcessingInstruction)),
        }
        Ok(())
    }

    fn enter(&mut self, bytes: &[u8], tag: Tag, header: &Header, limits: &FrameLimits) -> Result<(), FrameError> {
        if self.open.len() >= limits.depth {
            return Err(FrameError::TooDeep { limit: limits.depth });
        }
        let scope = self.namespaces(bytes, tag, header, limits)?;
        if self.open.is_empty() {
            self.found.kind = self.kind(bytes, tag, header);
        }
        if tag.empty {
            self.leave(bytes, tag.name.start, scope);
        } else {
            let name = Spelled::new(bytes, tag.name.start, tag.name.end);
            self.open.push(Open { name, scope });
        }
        self.at = tag.end;
        Ok(())
    }

    /// Takes up declarations, and checks that every prefix is bound and no attribute is given twice under two prefixes
    /// (Namespaces in XML 1.0 §5, §6.3). Returns what is in scope within the element.
    fn namespaces(
        &mut self,
        bytes: &[u8],
        tag: Tag,
        header: &Header,
        limits: &FrameLimits,
    ) -> Result<Scope, FrameError> {
        let mut scope = self.scope();
        if self.attrs.declares() {
            let declared = self.declared.get_or_insert_default();
            scope = declared.declare(bytes, &self.attrs, scope, limits)?;
        }
        if !tag.prefixed {
            return Ok(scope);
        }
        let declared = self.declared.as_deref();
        let borrowed = Cell::new(self.found.borrowed);
        check_prefixes(tag, &self.attrs, bytes, |name| {
            let binding = lookup(declared, bytes, name.prefix(bytes), Some(header))?;
            if let Binding::Header(index, _) = binding {
                borrowed.set(borrowed.get() | 1 << index);
            }
            Some(binding)
        })?;
        self.found.borrowed = borrowed.get();
        Ok(scope)
    }

    fn kind(&self, bytes: &[u8], tag: Tag, header: &Header) -> Kind {
        let kind = kind(tag.name.local(bytes));
        let content = header.content_namespace().as_bytes();
        let stanza = if tag.name.has_prefix() {
            lookup(self.declared.as_deref(), bytes, tag.name.prefix(bytes), Some(header))
                .is_some_and(|binding| binding.uri() == content)
        } else {
            let own = self.attrs.iter(bytes).find(|attr| attr.name.whole(bytes) == b"xmlns");
            own.map_or(header.default_namespace().as_bytes() == content, |attr| attr.value(bytes).as_bytes() == content)
        };
        if stanza { kind } else { Kind::Other }
    }
}

/// The kind of stanza with this local name.
pub(super) fn kind(name: &[u8]) -> Kind {
    match name {
        b"message" => Kind::Message,
        b"presence" => Kind::Presence,
        b"iq" => Kind::Iq,
        _ => Kind::Other,
    }
}

/// Checks the prefixes of a tag with `resolve`, which finds what a prefixed name stands for.
pub(super) fn check_prefixes<'a>(
    tag: Tag,
    attrs: &Attrs,
    bytes: &[u8],
    resolve: impl Fn(Name) -> Option<Binding<'a>>,
) -> Result<(), FrameError> {
    let unbound = |name: Name| FrameError::unfit(Unfit::Unbound, name.start);
    if tag.name.has_prefix() && resolve(tag.name).is_none_or(|binding| binding.uri() == ns::XMLNS.as_bytes()) {
        return Err(unbound(tag.name));
    }
    let (mut few, mut many) = (Vec::<(Name, Binding<'_>)>::new(), Table::default());
    let prefixed = attrs.iter(bytes).filter(|attr| attr.name.has_prefix() && declared_prefix(bytes, attr).is_none());
    let mut prefixed = prefixed.peekable();
    while let Some(attr) = prefixed.next() {
        let binding = resolve(attr.name).ok_or_else(|| unbound(attr.name))?;
        let local = attr.name.local(bytes);
        let same = |name: Name, other: Binding<'_>| {
            // Namespaces can be long: they are compared only if they are likely to be the same.
            name.local(bytes) == local && other.hash() == binding.hash() && other.uri() == binding.uri()
        };
        let mut twice = few.iter().any(|(name, other)| same(*name, *other));
        if few.len() < FEW && prefixed.peek().is_some() {
            few.push((attr.name, binding));
        } else if few.len() == FEW {
            let read = |number: u32| {
                let name = name(bytes, number as usize).ok()?;
                Some((name, resolve(name)?))
            };
            let hash = |(name, binding): (Name, Binding<'_>)| keyed(name.local(bytes)) ^ u64::from(binding.hash());
            let number = u32::try_from(attr.name.start).unwrap_or_default();
            let is_same = |number| read(number).is_some_and(|(name, other)| same(name, other));
            let before = many.replace(hash((attr.name, binding)), number, is_same, |n| read(n).map_or(0, hash));
            twice |= before.is_some();
        }
        if twice {
            return Err(FrameError::unfit(Unfit::DuplicateAttribute, attr.name.start));
        }
    }
    Ok(())
}
