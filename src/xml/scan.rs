//! [`Scan`]: one forward pass over a top-level element that checks all rules of XML 1.0 and its namespaces, as XMPP
//! restricts them.
//!
//! The fast path takes ordinary tokens. The exact path takes one token when the fast path declines it, or when the
//! token is cut off by the end of the bytes. Both update the same [`ScanProgress`]. So frames and errors are the same
//! on either path and under any chunking, and the work is linear in the bytes.

use fearless_simd::Level;

use super::error::FrameError;
use super::exact::ExactReader;
use super::fast;
use super::header::Header;
use super::limits::FrameLimits;
use super::progress::{FoundElement, ScanProgress};

/// The check of one top-level element.
#[derive(Debug, Default)]
pub(super) struct Scan {
    progress: ScanProgress,
    exact: ExactReader,
}

impl Scan {
    /// Continues reading. Returns the length of the element once it is complete. `bytes` starts with the element's `<`
    /// and may have grown since the last call.
    pub(super) fn advance(
        &mut self,
        bytes: &[u8],
        header: &Header,
        limits: &FrameLimits,
    ) -> Result<Option<usize>, FrameError> {
        self.advance_with(Some(Level::new()), bytes, header, limits)
    }

    /// Continues reading with the instructions of a processor of this level. Without a level it uses only the exact
    /// path.
    #[inline(always)]
    pub(super) fn advance_with(
        &mut self,
        level: Option<Level>,
        bytes: &[u8],
        header: &Header,
        limits: &FrameLimits,
    ) -> Result<Option<usize>, FrameError> {
        loop {
            if let (Some(level), true) = (level, self.exact.is_between_tokens())
                && fast::advance(level, &mut self.progress, bytes, header, limits.depth)
            {
                return Ok(Some(self.progress.at()));
            }
            if !self.exact.token(&mut self.progress, bytes, header, limits)? {
                return Ok(None);
            }
            if self.progress.is_outside() {
                return Ok(Some(self.progress.at()));
            }
        }
    }

    /// Returns the number of checked bytes of the element.
    pub(super) fn checked(&self) -> usize {
        self.progress.at()
    }

    /// Returns the number of elements that are open after the checked bytes.
    pub(super) fn depth(&self) -> usize {
        self.progress.depth()
    }

    /// Frees unused memory.
    pub(super) fn shrink(&mut self) {
        self.progress.shrink();
        self.exact.shrink();
    }

    /// Returns the properties of the element, and resets the state for the next one.
    pub(super) fn finish(&mut self) -> FoundElement {
        self.progress.finish()
    }

    /// Returns the bytes of memory in use in addition to the element's own.
    pub(super) fn memory(&self) -> usize {
        self.progress.memory() + self.exact.memory()
    }
}
