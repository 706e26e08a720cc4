//! The embedded engine: one redb database in the state directory.

pub(super) mod compact;
pub(super) mod convert;
pub(super) mod disk;
pub(super) mod erase;
pub(super) mod inherit;
pub(super) mod meta;
pub(super) mod paths;
pub(super) mod peek;
pub(super) mod transaction;
pub(super) mod unreadable;
