//! The accounts and the domain of the embedded server.

use crate::demo::trace::Observer;

/// An account that may log in.
#[derive(Clone)]
pub struct DemoAccount {
    /// The part before the `@`.
    pub name: String,
    /// For SASL PLAIN.
    pub password: String,
    /// The names of the accounts in the roster, each with subscription `both`.
    pub contacts: Vec<String>,
}

/// The settings of a server.
#[derive(Clone)]
pub struct ServerSettings {
    /// The domain; the push service is `push.` before it.
    pub domain: String,
    /// The accounts that may log in.
    pub accounts: Vec<DemoAccount>,
    /// Called for every stanza.
    pub observer: Option<Observer>,
}
