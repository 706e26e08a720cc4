//! Reasons why the operator's interface cannot be opened.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Why the operator has no way in: the operator's to mend.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The page has no address.
    #[error("cannot listen on {address}: {source}; change [admin] listen, or set it to \"\" to disable the page")]
    Listen {
        /// `[admin] listen`
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Another process answers there.
    #[error("another process listens at {path}; is pushward running already, with the same [admin] socket?", path = .0.display())]
    InUse(PathBuf),
    /// There is something else than a socket.
    #[error("{path} exists and is not a socket; change [admin] socket", path = .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot create the socket {path}: {source}; [admin] socket must be in a directory that this user can write to", path = .path.display())]
    Socket {
        /// `[admin] socket`
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
