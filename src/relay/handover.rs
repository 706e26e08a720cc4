//! [`RelayRecord`]: the state beside the sessions, with which another process continues.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::absent::AbsentRecord;
use super::device_memories::MemoriesRecord;
use super::fast::RefusedTokenChanges;
use super::snapshot::Snapshot;
use super::wake_retries::WakeRetry;
use crate::config::{Config, Host};
use crate::limits::FailedLoginsRecord;
use crate::publish::PublisherRecord;
use crate::secret::Secret;
use crate::session::fronting::FrontingRecord;
use crate::store::Slot;

/// The version of the encoding. A process reads only its own.
pub const RELAY_RECORD_VERSION: u32 = 1;

/// The reason why a record cannot be used.
#[derive(Debug, Error)]
pub enum RelayRecordError {
    /// It cannot be written.
    #[error("cannot write the state of the relay: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// It cannot be read. The message leaves out the cause, which may have secrets.
    #[error("cannot read the state of the relay")]
    Decode(#[from] rmp_serde::decode::Error),
    /// Another version of the program has written it.
    #[error("the state of the relay has version {0}, and not {RELAY_RECORD_VERSION}")]
    Version(u32),
    /// It is not complete, or more follows it.
    #[error("the state of the relay has a wrong length")]
    Length,
    /// The settings have another seed, so that its hashes are of no use.
    #[error("the state of the relay belongs to another seed")]
    OtherSeed,
}

/// The state beside the sessions that is not on disk. The process that continues with it must load its
/// [`Snapshot`] with [`RelayRecord::seed`].
#[derive(Debug, Serialize, Deserialize)]
pub struct RelayRecord {
    seed: Secret<u64>,
    pub(super) absent: Vec<AbsentRecord>,
    pub(super) wake_retries: Vec<(Slot, WakeRetry)>,
    pub(super) failed_logins: FailedLoginsRecord,
    pub(super) publisher: PublisherRecord,
    pub(super) memories: MemoriesRecord,
    pub(super) refused_tokens: RefusedTokenChanges,
    /// The way to the server of each host. What is known about a server is not used with another one.
    servers: BTreeMap<String, String>,
    fronting: FrontingRecord,
}

impl RelayRecord {
    /// Creates a record with the state that is part of the snapshot.
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            seed: Secret::new(snapshot.settings.seed),
            servers: servers(&snapshot.config),
            fronting: snapshot.settings.fronting.freeze(),
            refused_tokens: RefusedTokenChanges::new(),
            absent: Vec::new(),
            wake_retries: Vec::new(),
            failed_logins: FailedLoginsRecord::default(),
            publisher: PublisherRecord::default(),
            memories: MemoriesRecord::default(),
        }
    }

    /// Returns the seed of all hashes in this record, and in those of the sessions:
    /// [`Settings::seed`](crate::session::Settings::seed).
    pub fn seed(&self) -> u64 {
        *self.seed.expose()
    }

    /// Passes what is known about the servers to this snapshot, if they are the same.
    pub(super) fn thaw_fronting(&mut self, snapshot: &Snapshot) {
        let (servers, mut fronting) = (servers(&snapshot.config), std::mem::take(&mut self.fronting));
        fronting.retain(|host| servers.get(host) == self.servers.get(host));
        snapshot.settings.fronting.thaw(fronting);
    }

    /// Returns its bytes, which hold secrets.
    ///
    /// # Errors
    /// A number in it is too large for the encoding.
    pub fn encode(&self) -> Result<Vec<u8>, RelayRecordError> {
        let mut bytes = RELAY_RECORD_VERSION.to_be_bytes().to_vec();
        rmp_serde::encode::write_named(&mut bytes, self)?;
        Ok(bytes)
    }

    /// Reads its bytes.
    ///
    /// # Errors
    /// They are damaged, or another version has written them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RelayRecordError> {
        let (version, rest) = bytes.split_first_chunk().ok_or(RelayRecordError::Length)?;
        let version = u32::from_be_bytes(*version);
        if version != RELAY_RECORD_VERSION {
            return Err(RelayRecordError::Version(version));
        }
        let mut reader = rmp_serde::Deserializer::new(rest);
        let record = Self::deserialize(&mut reader)?;
        if reader.get_ref().is_empty() { Ok(record) } else { Err(RelayRecordError::Length) }
    }
}

/// Returns the way to the server of each host.
fn servers(config: &Config) -> BTreeMap<String, String> {
    let way = |host: &Host| format!("{:?}", (&host.upstream, host.upstream_tls, host.channel_binding));
    config.hosts.iter().map(|host| (host.domain.clone(), way(host))).collect()
}

#[cfg(test)]
mod tests;
