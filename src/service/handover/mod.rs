//! The handover of this process to the next one: what is passed on ([`Parcel`]), through the store of the service manager
//! ([`fd_store`]) or to the installed program that is executed in this process ([`Program`]); and what this process was started
//! with ([`InheritedDescriptors`]).

pub mod fd_store;
mod inherited;
mod names;
mod parcel;
mod program;
mod signals;

pub use inherited::InheritedDescriptors;
pub use parcel::{PARCEL_VERSION, Parcel, ParcelError, SealedParcel, UnsealedParcel};
pub use program::{PREFLIGHT, PreflightError, PreflightReport, Program, WrittenFormats};
pub use signals::{PausedSignals, SignalThread, block_signals};
