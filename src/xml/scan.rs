//! One forward pass over a top-level element that checks all of XML 1.0 and its namespaces that XMPP allows.
//!
//! Ordinary tokens are read where they lie. Others, and one that is cut off, are left to [`Boundary`], which remembers how
//! far it looked, and are read once their end has come; so the work is linear in the bytes, however they are cut, and errors
//! are the same too.

use super::boundary::{Boundary, Token};
use super::chars::{check_chars, check_text};
use super::element::Kind;
use super::error::{FrameError, Restricted};
use super::header::Header;
use super::scope::{Binding, Decl, Scope, declare, declared_prefix, lookup};
use super::tag::{Attr, Name, Tag, end_tag, start_tag};
use super::{ns, ordinary};

/// Progress in one top-level element. Offsets count from its `<`.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    boundary: Boundary,
    open: Vec<Open>,
    attrs: Vec<Attr>,
    found: Found,
    scope: Scope,
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

#[derive(Debug)]
struct Open {
    name: usize,
    name_end: usize,
    outer: Scope,
}

impl Open {
    fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.name..self.name_end).unwrap_or_default()
    }
}

impl Scan {
    /// Reads on. Returns the length of the element once it is whole. `bytes` starts with the element's `<` and may have
    /// grown since the last call. `depth`: nested elements allowed.
    pub(super) fn advance(&mut self, bytes: &[u8], header: &Header, depth: usize) -> Result<Option<usize>, FrameError> {
        loop {
            if self.boundary.is_fresh() && self.ordinary(bytes, header, depth) {
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

    /// What was found in the element, leaving the scan ready for the next one.
    pub(super) fn finish(&mut self) -> Found {
        self.at = 0;
        self.scope = Scope::default();
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

    /// Takes tokens while they are whole and ordinary. Says whether the element is complete.
    fn ordinary(&mut self, bytes: &[u8], header: &Header, depth: usize) -> bool {
        // A local, so that it stays in a register.
        let mut at = self.at;
        let complete = loop {
            let next = match bytes.get(at) {
                Some(b'<') if bytes.get(at + 1) == Some(&b'/') => self.ordinary_end(bytes, at),
                Some(b'<') => self.ordinary_start(bytes, at, header, depth),
                Some(_) => ordinary::text(bytes, at),
                None => None,
            };
            let Some(next) = next else { break false };
            at = next;
            if self.open.is_empty() {
                break true;
            }
        };
        self.at = at;
        complete
    }

    #[inline(always)]
    fn ordinary_end(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let open = self.open.last()?;
        let end = ordinary::end_tag(bytes, at, open.name..open.name_end)?;
        self.scope = open.outer;
        self.open.pop();
        Some(end)
    }

    #[inline(always)]
    fn ordinary_start(&mut self, bytes: &[u8], at: usize, header: &Header, depth: usize) -> Option<usize> {
        let tag = ordinary::start_tag(bytes, at)?;
        let level = self.open.len();
        if level >= depth {
            return None;
        }
        if level == 0 {
            let content = header.default_namespace().as_bytes();
            let stanza = tag.xmlns.is_none_or(|range| bytes.get(range) == Some(content));
            self.found.kind = if stanza { kind(bytes.get(at + 1..tag.name_end)?) } else { Kind::Other };
        }
        if !tag.empty {
            self.open.push(Open { name: at + 1, name_end: tag.name_end, outer: self.scope });
        }
        Some(tag.end)
    }

    fn careful(&mut self, bytes: &[u8], token: Token, header: &Header, depth: usize) -> Result<(), FrameError> {
        let content = bytes.get(self.at..).unwrap_or_default();
        match token {
            Token::Start => {
                let tag = start_tag(bytes, self.at, &mut self.attrs)?;
                self.enter(bytes, tag, header, depth)?;
            }
            Token::End => {
                let name = self.open.last().map(|open| open.name(bytes)).unwrap_or_default();
                let end = end_tag(bytes, self.at, name)?;
                self.close(end);
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

    #[inline(always)]
    fn close(&mut self, end: usize) {
        if let Some(open) = self.open.pop() {
            self.scope = open.outer;
        }
        self.at = end;
    }

    #[inline]
    fn enter(&mut self, bytes: &[u8], tag: Tag, header: &Header, depth: usize) -> Result<(), FrameError> {
        if self.open.len() >= depth {
            return Err(FrameError::TooDeep { limit: depth });
        }
        let outer = self.scope;
        self.namespaces(bytes, tag, header)?;
        if self.open.is_empty() {
            self.found.kind = self.kind(bytes, tag, header);
        }
        if tag.empty {
            self.scope = outer;
        } else {
            self.open.push(Open { name: tag.name.start, name_end: tag.name.end, outer });
        }
        self.at = tag.end;
        Ok(())
    }

    /// Takes up declarations, and checks that every prefix is bound and no attribute is given twice under two prefixes
    /// (Namespaces in XML 1.0 §5, §6.3).
    fn namespaces(&mut self, bytes: &[u8], tag: Tag, header: &Header) -> Result<(), FrameError> {
        for attr in &self.attrs {
            self.scope = declare(&mut self.found.decls, bytes, self.at, self.scope, attr)?;
        }
        if !tag.prefixed {
            return Ok(());
        }
        let (decls, scope) = (&self.found.decls, self.scope);
        let borrowed = &mut self.found.borrowed;
        check_prefixes(tag, &self.attrs, bytes, |name| {
            let binding = lookup(decls, bytes, scope, name.prefix(bytes), Some(header))?;
            if let Binding::Header(index, _) = binding {
                *borrowed |= 1 << index;
            }
            Some(binding.uri())
        })
    }

    fn kind(&self, bytes: &[u8], tag: Tag, header: &Header) -> Kind {
        let kind = kind(tag.name.local(bytes));
        let content = header.default_namespace().as_bytes();
        let stanza = if tag.name.has_prefix() {
            lookup(&self.found.decls, bytes, self.scope, tag.name.prefix(bytes), Some(header))
                .is_some_and(|binding| binding.uri() == content)
        } else {
            let own = self.attrs.iter().find(|attr| attr.name.whole(bytes) == b"xmlns");
            own.is_none_or(|attr| attr.value(bytes).as_bytes() == content)
        };
        if stanza { kind } else { Kind::Other }
    }
}

/// The kind of stanza with this local name.
fn kind(name: &[u8]) -> Kind {
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
