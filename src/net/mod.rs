//! Sockets: listeners, TLS, framed connections, the way to the server.
