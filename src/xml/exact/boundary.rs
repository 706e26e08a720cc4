//! [`Boundary`]: the search for the end of a token. Its state is kept across chunks.
//!
//! A token is a tag, a run of text or a CDATA section. The search finds only its end; the token is checked once it is
//! complete. No byte is searched twice, for any chunking.

use memchr::{memchr, memchr2, memmem};

use crate::xml::error::{FrameError, Restricted};

const CDATA: &[u8] = b"<![CDATA[";

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xml) enum XmlToken {
    Start,
    End,
    Text,
    CData,
    Declaration,
}

/// The position up to which the current token was searched for its end.
#[derive(Debug, Default)]
pub(in crate::xml) struct Boundary {
    seen: usize,
    quote: Option<u8>,
}

impl Boundary {
    /// Returns whether the search of the current token has not started.
    pub(super) fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// Returns the kind and length of the token at the start of `bytes`, if it is complete. `bytes` may have grown
    /// since the last call; its start must be the same.
    pub(in crate::xml) fn find(&mut self, bytes: &[u8]) -> Result<Option<(XmlToken, usize)>, FrameError> {
        let Some(token) = token(bytes)? else {
            return Ok(None);
        };
        let rest = bytes.get(self.seen..).unwrap_or_default();
        let end = match token {
            XmlToken::Text => memchr(b'<', rest).map(|found| self.seen + found),
            XmlToken::End => memchr(b'>', rest).map(|found| self.seen + found + 1),
            XmlToken::Start => self.tag_end(bytes),
            XmlToken::CData => self.terminated(bytes, CDATA.len(), b"]]>"),
            XmlToken::Declaration => self.terminated(bytes, 2, b"?>"),
        };
        match end {
            Some(_) => *self = Boundary::default(),
            None => self.seen = bytes.len(),
        }
        Ok(end.map(|end| (token, end)))
    }

    /// Returns the first `>` outside quotes. A `<` ends the token too: it is not allowed in a tag (XML 1.0 §3.1), and
    /// waiting for more bytes would only delay the error.
    fn tag_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = self.seen.max(1);
        loop {
            let rest = bytes.get(at..)?;
            match self.quote {
                Some(quote) => {
                    let found = memchr2(quote, b'<', rest)?;
                    at += found + 1;
                    if rest.get(found) == Some(&b'<') {
                        return Some(at);
                    }
                    self.quote = None;
                }
                None => {
                    let found = rest.iter().position(|b| matches!(b, b'<' | b'>' | b'"' | b'\''))?;
                    at += found + 1;
                    match rest.get(found) {
                        Some(quote @ (b'"' | b'\'')) => self.quote = Some(*quote),
                        Some(_) | None => return Some(at),
                    }
                }
            }
        }
    }

    fn terminated(&self, bytes: &[u8], opening: usize, terminator: &[u8]) -> Option<usize> {
        let from = self.seen.saturating_sub(terminator.len() - 1).max(opening);
        let found = memmem::find(bytes.get(from..)?, terminator)?;
        Some(from + found + terminator.len())
    }
}

/// Returns the kind of the token at the start of `bytes`, as soon as it is certain.
fn token(bytes: &[u8]) -> Result<Option<XmlToken>, FrameError> {
    match bytes {
        [] | [b'<'] | [b'<', b'!'] => Ok(None),
        [b'<', b'/', ..] => Ok(Some(XmlToken::End)),
        [b'<', b'?', ..] => Ok(Some(XmlToken::Declaration)),
        [b'<', b'!', b'-', ..] => Err(FrameError::Restricted(Restricted::Comment)),
        [b'<', b'!', b'D', ..] => Err(FrameError::Restricted(Restricted::Doctype)),
        [b'<', b'!', ..] if bytes.starts_with(CDATA) => Ok(Some(XmlToken::CData)),
        [b'<', b'!', ..] if CDATA.starts_with(bytes) => Ok(None),
        [b'<', b'!', ..] => Err(FrameError::malformed("unknown markup", 0)),
        [b'<', ..] => Ok(Some(XmlToken::Start)),
        [_, ..] => Ok(Some(XmlToken::Text)),
    }
}
