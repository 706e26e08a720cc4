//! [`Claim`]: the right to write a publish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The right to write a publish, or to give it up. The first caller to take it has it.
#[derive(Clone, Debug, Default)]
pub struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Takes the right. Returns `false` if it was taken before.
    #[must_use]
    pub fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}
