//! The deadlines of operations that a login waits for.

use std::time::Duration;

/// The time that the store has to answer.
pub(super) const STORE: Duration = Duration::from_secs(60);

/// The deadline of an operation that a login waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum OperationDeadline {
    /// The operation has its own deadline.
    Bounded,
    /// The operation is done by the store and has [`STORE`].
    Store,
}
