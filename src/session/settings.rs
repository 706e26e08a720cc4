//! What an operator set, and may set anew while a session runs.

use std::sync::Arc;
use std::time::Duration;

use super::rewrite::offers::Offers;
use crate::config;

/// What an operator set, as far as a session needs it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[stream_management]`
    pub stream_management: config::StreamManagement,
    /// `[push]`
    pub push: Arc<config::Push>,
    /// `[limits] server_timeout`: how long the server may take to answer.
    pub server_timeout: Duration,
    /// `[limits] session_queue`, bytes.
    pub session_queue: usize,
    /// `[limits] unauthenticated_stanza`, bytes.
    pub unauthenticated_stanza: usize,
    /// `[limits] stanza`, bytes.
    pub stanza: usize,
    /// Keys the hashes by which stanzas are known to be the same: random, one for the process.
    pub seed: u64,
    /// What servers offer under these settings.
    pub offers: Arc<Offers>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_management: config::StreamManagement::default(),
            push: Arc::default(),
            server_timeout: config::Limits::default().server_timeout,
            session_queue: 0,
            unauthenticated_stanza: 0,
            stanza: 0,
            seed: 0,
            offers: Arc::default(),
        }
    }
}
