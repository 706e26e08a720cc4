//! One forward pass over a top-level element that checks all of XML 1.0 and its namespaces that XMPP allows.
//!
//! Tokens that are whole are read where they lie. One that is cut off is left to [`Boundary`], which remembers how far it
//! looked, and is read once its end has come; so the work is linear in the bytes, however they are cut, and errors are the
//! same too.

use super::boundary::{Boundary, Token};
use super::chars::{check_chars, check_text, plain_run};
use super::element::Kind;
use super::error::{FrameError, Restricted};
use super::header::Header;
use super::ns;
use super::scope::{Binding, Decl, Scope, declare, declared_prefix, lookup};
use super::tag::{Attr, Name, Tag, end_tag, start_tag};

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
    name: Name,
    outer: Scope,
}

impl Scan {
    /// Reads on. Returns the length of the element once it is whole. `bytes` starts with the element's `<` and may have
    /// grown since the last call. `depth`: nested elements allowed.
    pub(super) fn advance(&mut self, bytes: &[u8], header: &Header, depth: usize) -> Result<Option<usize>, FrameError> {
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let fast = if self.boundary.is_fresh() { self.whole_token(bytes, rest, header, depth)? } else { false };
            if !fast {
                let Some((token, len)) = self.boundary.find(rest).map_err(|error| self.placed(error))? else {
                    return Ok(None);
                };
                let whole = bytes.get(..self.at + len).unwrap_or_default();
                self.slow_token(whole, token, header, depth)?;
            }
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

    /// Takes the next token if it is whole and ordinary. What is cut off or malformed is left alone: whether it is an error
    /// must not depend on how the bytes were cut.
    #[inline]
    fn whole_token(&mut self, bytes: &[u8], rest: &[u8], header: &Header, depth: usize) -> Result<bool, FrameError> {
        match rest {
            [b'<', b'/', ..] => {
                let Some(Open { name, .. }) = self.open.last() else {
                    return Ok(false);
                };
                let Ok(end) = end_tag(bytes, self.at, name.whole(bytes)) else {
                    return Ok(false);
                };
                self.close(end);
            }
            [b'<', b'!' | b'?', ..] | [b'<'] | [] => return Ok(false),
            [b'<', ..] => {
                let Ok(tag) = start_tag(bytes, self.at, &mut self.attrs) else {
                    return Ok(false);
                };
                self.enter(bytes, tag, header, depth)?;
            }
            [_, ..] => {
                let run = plain_run(rest, *b"<&]");
                if rest.get(run) != Some(&b'<') {
                    return Ok(false);
                }
                self.at += run;
            }
        }
        Ok(true)
    }

    fn slow_token(&mut self, bytes: &[u8], token: Token, header: &Header, depth: usize) -> Result<(), FrameError> {
        let content = bytes.get(self.at..).unwrap_or_default();
        match token {
            Token::Start => {
                let tag = start_tag(bytes, self.at, &mut self.attrs)?;
                self.enter(bytes, tag, header, depth)?;
            }
            Token::End => {
                let name = self.open.last().map(|open| open.name.whole(bytes)).unwrap_or_default();
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
            Token::Declaration => {
                return Err(FrameError::Restricted(Restricted::ProcessingInstruction));
            }
        }
        Ok(())
    }

    #[inline]
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
            self.open.push(Open { name: tag.name, outer });
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
        let kind = match tag.name.local(bytes) {
            b"message" => Kind::Message,
            b"presence" => Kind::Presence,
            b"iq" => Kind::Iq,
            _ => return Kind::Other,
        };
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
