//! Sockets: listeners, TLS, framed connections, the way to the server.

pub mod certificate;
pub mod tls;
