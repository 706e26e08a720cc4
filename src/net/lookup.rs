//! Lookups of host names with the resolver of the system: [`look_up`].

use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::lookup_host;

use crate::config::Endpoint;

/// The text that the standard library puts in front of every reason.
const PREFIX: &str = "failed to lookup address information: ";

/// A host name could not be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot look up the name {name}: {reason}")]
pub struct LookupError {
    /// The name.
    pub name: String,
    /// The reason that the system gives.
    pub reason: String,
}

/// Returns the addresses of a host name or an IP address, with its port.
///
/// # Errors
/// Returns the [`LookupError`].
pub async fn look_up(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, LookupError> {
    let found = lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    found.map(Iterator::collect).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.strip_prefix(PREFIX).unwrap_or(&reason).to_owned();
        LookupError { name: endpoint.host.clone(), reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_is_named() {
        let at = |host: &str| Endpoint { host: host.to_owned(), port: 5222 };
        assert_eq!(look_up(&at("127.0.0.1")).await, Ok(vec![SocketAddr::from(([127, 0, 0, 1], 5222))]));
        // RFC 6761 §6.4: no name below `invalid` exists.
        let error = look_up(&at("xmpp.invalid")).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot look up the name xmpp.invalid: ") && !error.contains(PREFIX), "{error}");
    }
}
