//! The record of a session, with which another process continues it: a version, and the state of the session in
//! MessagePack. Structs are maps, so a later version may add fields that have a default.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::device::DeviceSide;
use super::identity::{Identity, IdentityRecord};
use super::lifecycle::Lifecycle;
use super::names::RandomSource;
use super::server::ServerStream;
use super::settings::Settings;
use crate::xml::{HeaderCache, HeaderPool};

/// The version of the records that are written. It changes with every change of a type that is part of a record.
pub const RECORD_VERSION: u32 = 1;
/// The versions of records that can be read.
pub const RECORD_VERSIONS_READ: RangeInclusive<u32> = 1..=RECORD_VERSION;

/// The reason why a record cannot be continued.
#[derive(Debug, Error)]
pub enum ThawError {
    /// It has no version.
    #[error("the record of a session is cut off")]
    CutOff,
    /// It was written by a program that is too new or too old.
    #[error("the record of a session has version {0}, but only {first} to {RECORD_VERSION} can be read", first = RECORD_VERSIONS_READ.start())]
    Version(u32),
    /// Its bytes are not the state of a session. The message leaves out the cause, which may have secrets.
    #[error("the record of a session cannot be read")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// More bytes follow the state of the session.
    #[error("bytes follow the record of a session")]
    Trailing,
    /// Parts of the state contradict each other.
    #[error("the record of a session is inconsistent")]
    Inconsistent,
}

/// The state of a session, to be written.
#[derive(Serialize)]
pub(super) struct Frozen<'a> {
    pub(super) identity: &'a IdentityRecord,
    pub(super) device: &'a DeviceSide,
    pub(super) server: &'a ServerStream,
    pub(super) lifecycle: &'a Lifecycle,
}

/// The state of a session as it was read. Its components have neither their identity nor settings yet.
#[derive(Deserialize)]
pub(super) struct Thawed {
    pub(super) identity: IdentityRecord,
    pub(super) device: DeviceSide,
    pub(super) server: ServerStream,
    pub(super) lifecycle: Lifecycle,
}

impl Frozen<'_> {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut record = RECORD_VERSION.to_be_bytes().to_vec();
        let mut state = rmp_serde::Serializer::new(&mut record).with_struct_map();
        #[expect(clippy::expect_used, reason = "memory takes all bytes, and every type of the state can be written")]
        self.serialize(&mut state).expect("the state of a session can be written");
        record
    }
}

impl Thawed {
    pub(super) fn read(record: &[u8]) -> Result<Self, ThawError> {
        let (version, mut state) = record.split_first_chunk().ok_or(ThawError::CutOff)?;
        let version = u32::from_be_bytes(*version);
        if !RECORD_VERSIONS_READ.contains(&version) {
            return Err(ThawError::Version(version));
        }
        let thawed = Self::deserialize(&mut rmp_serde::Deserializer::new(&mut state))?;
        if state.is_empty() { Ok(thawed) } else { Err(ThawError::Trailing) }
    }

    /// Gives the components their identity, their settings, and headers that are shared. Returns the identity.
    pub(super) fn restore(
        &mut self,
        settings: &Arc<Settings>,
        random: RandomSource,
        cache: &mut HeaderCache,
    ) -> Result<Arc<Identity>, ThawError> {
        let mut headers = HeaderPool::new(cache);
        self.identity.share_header(&mut headers);
        let identity = Arc::new(Identity::of(self.identity.clone(), random));
        if !self.device.restore(&identity, &mut headers) || !self.server.restore(&identity) {
            return Err(ThawError::Inconsistent);
        }
        self.device.on_settings(Arc::clone(settings));
        Ok(identity)
    }
}
