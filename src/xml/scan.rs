//! One forward pass over a top-level element that checks all of XML 1.0 and its namespaces that XMPP allows.
//!
//! Ordinary tokens are read where they lie. Others, and one that is cut off, are left to [`Boundary`], which remembers how
//! far it looked, and are read once their end has come; so the work is linear in the bytes, however they are cut, and errors
//! are the same too.

use fearless_simd::Level;

use super::boundary::{Boundary, Token};
use super::chars::{check_chars, check_text};
use super::element::Kind;
use super::error::{FrameError, Restricted};
use super::header::Header;
use super::ns;
use super::open::{Open, Spelled};
use super::scope::{Binding, Decl, Scope, declare, declared_prefix, lookup};
use super::tag::{Attr, Name, Tag, end_tag, start_tag};

/// Progress in one top-level element. Offsets count from its `<`.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) at: usize,
    boundary: Boundary,
    pub(super) open: Vec<Open>,
    attrs: Vec<Attr>,
    pub(super) found: Found,
}

/// What a finished element was found to be.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) kind: Kind,
    /// The namespace declarations inside.
    pub(super) decls: Vec<Decl>,
    /// One bit for each prefix of the stream header that is used.
    pub(super) borrowed: u64,
}

impl Scan {
    /// Reads on. Returns the length of the element once it is whole. `bytes` starts with the element's `<` and may have
    /// grown since the last call. `depth`: nested elements allowed.
    pub(super) fn advance(&mut self, bytes: &[u8], header: &Header, depth: usize) -> Result<Option<usize>, FrameError> {
        self.advance_with(Some(Level::new()), bytes, header, depth)
    }

    /// The same with what processors of this level have; with the careful way alone if there is none.
    #[inline(always)]
    pub(super) fn advance_with(
        &mut self,
        level: Option<Level>,
        bytes: &[u8],
        header: &Header,
        depth: usize,
    ) -> Result<Option<usize>, FrameError> {
        loop {
            if let (Some(level), true) = (level, self.boundary.is_fresh())
                && self.ordinary(level, bytes, header, depth)
            {
                return Ok(Some(self.at));
            }
            let rest = bytes.get(self.at..).unwrap_or_default();
            let Some((token, len)) = self.boundary.find(rest).map_err(|error| self.placed(error))? else {
                return Ok(None);
            };
            let whole = bytes.get(..self.at + len).unwrap_or_default();
            self.careful(whole, token, header, depth)?;
            if self.open.is_empty() {
                return Ok(Some(self.at));
            }
        }
    }

    /// Gives back room that is not in use.
    pub(super) fn shrink(&mut self) {
        self.open.shrink_to_fit();
        self.attrs = Vec::new();
    }

    /// What was found in the element, leaving the scan ready for the next one.
    pub(super) fn finish(&mut self) -> Found {
        self.at = 0;
        std::mem::take(&mut self.found)
    }

    fn placed(&self, error: FrameError) -> FrameError {
        match error {
            FrameError::NotWellFormed { what, at } => FrameError::NotWellFormed { what, at: at + self.at },
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

    fn careful(&mut self, bytes: &[u8], token: Token, header: &Header, depth: usize) -> Result<(), FrameError> {
        let content = bytes.get(self.at..).unwrap_or_default();
        match token {
            Token::Start => {
                let tag = start_tag(bytes, self.at, &mut self.attrs)?;
                self.enter(bytes, tag, header, depth)?;
            }
            Token::End => {
                let name = self.open.last().map(|open| open.name.bytes(bytes)).unwrap_or_default();
                self.at = end_tag(bytes, self.at, name)?;
                self.open.pop();
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

    fn enter(&mut self, bytes: &[u8], tag: Tag, header: &Header, depth: usize) -> Result<(), FrameError> {
        if self.open.len() >= depth {
            return Err(FrameError::TooDeep { limit: depth });
        }
        let scope = self.namespaces(bytes, tag, header)?;
        if self.open.is_empty() {
            self.found.kind = self.kind(bytes, tag, scope, header);
        }
        if !tag.empty {
            let name = Spelled::new(bytes, tag.name.start, tag.name.end);
            self.open.push(Open { name, scope });
        }
        self.at = tag.end;
        Ok(())
    }

    /// Takes up declarations, and checks that every prefix is bound and no attribute is given twice under two prefixes
    /// (Namespaces in XML 1.0 §5, §6.3). Returns what is in scope within the element.
    fn namespaces(&mut self, bytes: &[u8], tag: Tag, header: &Header) -> Result<Scope, FrameError> {
        let mut scope = self.scope();
        for attr in &self.attrs {
            scope = declare(&mut self.found.decls, bytes, self.at, scope, attr)?;
        }
        if !tag.prefixed {
            return Ok(scope);
        }
        let decls = &self.found.decls;
        let borrowed = &mut self.found.borrowed;
        check_prefixes(tag, &self.attrs, bytes, |name| {
            let binding = lookup(decls, bytes, scope, name.prefix(bytes), Some(header))?;
            if let Binding::Header(index, _) = binding {
                *borrowed |= 1 << index;
            }
            Some(binding.uri())
        })?;
        Ok(scope)
    }

    fn kind(&self, bytes: &[u8], tag: Tag, scope: Scope, header: &Header) -> Kind {
        let kind = kind(tag.name.local(bytes));
        let content = header.content_namespace().as_bytes();
        let stanza = if tag.name.has_prefix() {
            lookup(&self.found.decls, bytes, scope, tag.name.prefix(bytes), Some(header))
                .is_some_and(|binding| binding.uri() == content)
        } else {
            let own = self.attrs.iter().find(|attr| attr.name.whole(bytes) == b"xmlns");
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

/// Checks the prefixes of a tag with `resolve`, which finds the namespace of a prefixed name.
pub(super) fn check_prefixes<'a>(
    tag: Tag,
    attrs: &[Attr],
    bytes: &[u8],
    mut resolve: impl FnMut(Name) -> Option<&'a [u8]>,
) -> Result<(), FrameError> {
    let unbound = |name: Name| FrameError::malformed("unbound prefix", name.start);
    if tag.name.has_prefix() && resolve(tag.name).is_none_or(|uri| uri == ns::XMLNS.as_bytes()) {
        return Err(unbound(tag.name));
    }
    let mut seen: Vec<(&[u8], &[u8])> = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.name.has_prefix() && declared_prefix(bytes, attr).is_none()) {
        let expanded = (attr.name.local(bytes), resolve(attr.name).ok_or_else(|| unbound(attr.name))?);
        if seen.contains(&expanded) {
            return Err(FrameError::malformed("duplicate attribute", attr.name.start));
        }
        seen.push(expanded);
    }
    Ok(())
}
