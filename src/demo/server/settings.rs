//! The accounts and the domain of the embedded server.

use crate::demo::trace::Observer;

/// An account that may log in.
#[derive(Clone)]
pub struct DemoAccount {
    /// The part before the `@`.
    pub name: String,
    /// The password for SASL PLAIN.
    pub password: String,
    /// The names of the accounts in the roster, each with subscription `both`.
    pub contacts: Vec<String>,
}

/// The settings of a server.
#[derive(Clone)]
pub struct ServerSettings {
    /// The domain. The push service is its subdomain `push.`.
    pub domain: String,
    /// The accounts that may log in.
    pub accounts: Vec<DemoAccount>,
    /// The observer of all traffic.
    pub observer: Option<Observer>,
}
