//! The types of [`crate::registry`] for connections of clients.

use tokio::net::TcpStream;

use crate::net::client_tls::ClientTls;
use crate::net::conn::Conn;
use crate::registry;

/// A client's framed connection.
pub type Client = Conn<ClientTls<TcpStream>>;
/// All sessions.
pub type Registry = registry::Registry<Client>;
/// A shared handle of a session.
pub type Handle = registry::Handle<Client>;
/// A request to a session's task.
pub(super) type Command = registry::Command<Client>;
/// A connection that has proved that it may resume the session.
pub(super) type Attach = registry::Attach<Client>;
/// A connection that a session did not accept. It is returned to the sender.
pub(super) type Refused = registry::Refused<Client>;
