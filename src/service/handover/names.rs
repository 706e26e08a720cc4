//! The names of descriptors that are passed on.

/// The name of a parcel that a process passes to the program that it executes.
pub(super) const PARCEL: &str = "parcel";
/// The beginning of the name of a parcel in the store of the service manager. The number of the handover follows.
pub(super) const SET: &str = "set-";
/// The beginning of the name of a listener in the store of the service manager.
pub(super) const LISTENER: &str = "listen-";
