//! The errors of opening the operator's interface.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// The reason why the operator's interface cannot be opened. The operator can fix it.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The address of the page cannot be bound.
    #[error("cannot listen on {address}: {source}; change [admin] listen, or set it to \"\" to disable the page")]
    Listen {
        /// `[admin] listen`
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process listens at the socket.
    #[error("another process listens at {path}; is pushward running already, with the same [admin] socket?", path = .0.display())]
    InUse(PathBuf),
    /// The path exists and is not a socket.
    #[error("{path} exists and is not a socket; change [admin] socket", path = .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be created.
    #[error("cannot create the socket {path}: {source}; [admin] socket must be in a directory that this user can write to", path = .path.display())]
    Socket {
        /// `[admin] socket`
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}
