//! What a service manager and this process have to do with each other: readiness and watchdog ([`Notify`]), listeners
//! that were opened beforehand ([`Sockets`]), descriptors ([`descriptors`]), and the files of a package ([`print`](mod@print)).
//!
//! Without a service manager all of it is quiet.

pub mod descriptors;
mod notify;
pub mod print;
mod sockets;

pub use notify::Notify;
pub use sockets::{PassedError, Sockets};
