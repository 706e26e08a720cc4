//! How long a login waits for what it has asked for.

use std::time::Duration;

/// How long the store may take to answer.
pub(super) const STORE: Duration = Duration::from_secs(60);

/// How long something may take that a login waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// It has a deadline of its own.
    Bounded,
    /// It is the store's, which has [`STORE`].
    Store,
}
