//! [`ExactReader`]: the exact path through an element, one token at a time, once the token's end has arrived.

use std::cell::Cell;

use super::boundary::{Boundary, XmlToken};
use super::declare::{check_prefixes, declare};
use super::tag::{Attrs, Tag, end_tag, start_tag};
use crate::xml::chars::{check_chars, check_text};
use crate::xml::error::{FrameError, Restricted};
use crate::xml::header::Header;
use crate::xml::kind::Kind;
use crate::xml::limits::FrameLimits;
use crate::xml::open_elements::Spelled;
use crate::xml::progress::ScanProgress;
use crate::xml::scope::{PrefixBinding, ScopeId, lookup};

/// The state of the exact path: the search for the end of the current token, and a list of attributes for reuse.
#[derive(Debug, Default)]
pub(in crate::xml) struct ExactReader {
    boundary: Boundary,
    attrs: Attrs,
}

/// The data for checking a token.
#[derive(Clone, Copy)]
struct TokenContext<'a> {
    /// All bytes up to the end of the token.
    bytes: &'a [u8],
    header: &'a Header,
    limits: &'a FrameLimits,
}

impl ExactReader {
    /// Returns whether no token is partly searched, so that the fast path may continue.
    #[inline(always)]
    pub(in crate::xml) fn is_between_tokens(&self) -> bool {
        self.boundary.is_fresh()
    }

    /// Reads a token. Returns false if it is incomplete.
    pub(in crate::xml) fn token(
        &mut self,
        progress: &mut ScanProgress,
        bytes: &[u8],
        header: &Header,
        limits: &FrameLimits,
    ) -> Result<bool, FrameError> {
        let at = progress.at();
        let rest = bytes.get(at..).unwrap_or_default();
        let Some((token, len)) = self.boundary.find(rest).map_err(|error| error.moved(at))? else {
            return Ok(false);
        };
        let whole = bytes.get(..at + len).unwrap_or_default();
        self.check(progress, token, TokenContext { bytes: whole, header, limits })?;
        Ok(true)
    }

    /// Frees unused memory.
    pub(in crate::xml) fn shrink(&mut self) {
        self.attrs = Attrs::default();
    }

    /// Returns the bytes of memory in use.
    pub(in crate::xml) fn memory(&self) -> usize {
        self.attrs.memory()
    }

    /// Checks the token at the end of the bytes.
    fn check(
        &mut self,
        progress: &mut ScanProgress,
        token: XmlToken,
        context: TokenContext<'_>,
    ) -> Result<(), FrameError> {
        let TokenContext { bytes, limits, .. } = context;
        let at = progress.at();
        let content = bytes.get(at..).unwrap_or_default();
        match token {
            XmlToken::Start => {
                let tag = start_tag(bytes, at, &mut self.attrs, limits.attributes())?;
                return self.enter(progress, tag, context);
            }
            XmlToken::End => {
                let name = progress.innermost().map(|open| open.name.bytes(bytes)).unwrap_or_default();
                progress.advance_to(end_tag(bytes, at, name)?);
                progress.close(bytes);
                return Ok(());
            }
            XmlToken::Text => check_text(content, at)?,
            XmlToken::CData => check_chars(content, at)?,
            XmlToken::Declaration => return Err(FrameError::Restricted(Restricted::ProcessingInstruction)),
        }
        progress.advance_to(bytes.len());
        Ok(())
    }

    fn enter(&self, progress: &mut ScanProgress, tag: Tag, context: TokenContext<'_>) -> Result<(), FrameError> {
        let TokenContext { bytes, limits, .. } = context;
        if progress.depth() >= limits.depth {
            return Err(FrameError::TooDeep { limit: limits.depth });
        }
        let scope = self.namespaces(progress, tag, context)?;
        if progress.is_outside() {
            progress.set_kind(self.kind(progress, tag, context));
        }
        if tag.empty {
            progress.leave(bytes, tag.name.start, scope);
        } else {
            progress.open_with(Spelled::new(bytes, tag.name.start, tag.name.end), scope);
        }
        progress.advance_to(tag.end);
        Ok(())
    }

    /// Adds the declarations of a tag, and checks that every prefix is bound and that no attribute occurs twice under
    /// two prefixes (Namespaces in XML 1.0 §5, §6.3). Returns the scope within the element.
    fn namespaces(
        &self,
        progress: &mut ScanProgress,
        tag: Tag,
        context: TokenContext<'_>,
    ) -> Result<ScopeId, FrameError> {
        let TokenContext { bytes, header, limits } = context;
        let mut scope = progress.scope();
        if self.attrs.declares() {
            scope = declare(progress.declared_mut(), bytes, &self.attrs, scope, limits)?;
        }
        if !tag.prefixed {
            return Ok(scope);
        }
        let (declared, borrowed) = (progress.declared(), Cell::new(0));
        check_prefixes(tag, &self.attrs, bytes, |name| {
            let binding = lookup(declared, bytes, name.prefix(bytes), Some(header))?;
            if let PrefixBinding::Header(index, _) = binding {
                borrowed.set(borrowed.get() | 1 << index);
            }
            Some(binding)
        })?;
        progress.borrow_prefixes(borrowed.get());
        Ok(scope)
    }

    fn kind(&self, progress: &ScanProgress, tag: Tag, context: TokenContext<'_>) -> Kind {
        let TokenContext { bytes, header, .. } = context;
        let content = header.content_namespace().as_bytes();
        let is_stanza = if tag.name.has_prefix() {
            lookup(progress.declared(), bytes, tag.name.prefix(bytes), Some(header))
                .is_some_and(|binding| binding.uri() == content)
        } else {
            let own = self.attrs.iter(bytes).find(|attr| attr.name.whole(bytes) == b"xmlns");
            own.map_or(header.default_namespace().as_bytes() == content, |attr| attr.value(bytes).as_bytes() == content)
        };
        if is_stanza { Kind::of(tag.name.local(bytes)) } else { Kind::Other }
    }
}
