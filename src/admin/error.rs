//! Reasons why the operator's interface cannot be opened.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Why the operator has no way in: the operator's to mend.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The page has no address.
    #[error("cannot listen on {address}: {source}; change [admin] listen, or write \"\" for no page")]
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
    #[error("{path} is not a socket and is left alone; change [admin] socket", path = .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot make the socket {path}: {source}; [admin] socket must be in a directory that this user can write to", path = .path.display())]
    Socket {
        /// `[admin] socket`
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
