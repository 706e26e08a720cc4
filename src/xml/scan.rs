//! One forward pass over a top-level element that checks everything that XMPP allows of XML 1.0 and its namespaces.
//!
//! The fast path takes ordinary tokens. The exact path takes one token when the fast path declines it, and one that is cut off
//! by the end of the bytes. Both leave the same [`ScanProgress`], so that frames and errors are the same on either path and under
//! any chunking, and the work is linear in the bytes.

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

    /// Reads on with the instructions of a processor of this level; without a level on the exact path alone.
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

    /// Bytes of the element that were checked.
    pub(super) fn checked(&self) -> usize {
        self.progress.at()
    }

    /// Elements that are open behind the checked bytes.
    pub(super) fn depth(&self) -> usize {
        self.progress.depth()
    }

    /// Frees memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.progress.shrink();
        self.exact.shrink();
    }

    /// Returns what was found in the element, and is ready for the next one.
    pub(super) fn finish(&mut self) -> FoundElement {
        self.progress.finish()
    }

    /// Bytes of memory in use beside the element's own.
    pub(super) fn memory(&self) -> usize {
        self.progress.memory() + self.exact.memory()
    }
}
