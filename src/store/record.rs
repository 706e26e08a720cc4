//! Compact records: one byte of version, then numbers in big endian, then what remains.

use super::StoreError;
use crate::jid::BareJid;

/// The version of the compact records that are written.
const VERSION: u8 = 1;

/// A new record.
pub(super) fn start(capacity: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(capacity.saturating_add(1));
    record.push(VERSION);
    record
}

/// Reads a record piece by piece.
pub(super) struct Reader<'r> {
    account: &'r BareJid,
    len: usize,
    rest: &'r [u8],
}

impl<'r> Reader<'r> {
    /// Checks the version.
    pub(super) fn new(account: &'r BareJid, record: &'r [u8]) -> Result<Self, StoreError> {
        match record.split_first() {
            Some((&VERSION, rest)) => Ok(Self { account, len: record.len(), rest }),
            Some((&version, _)) => Err(StoreError::UnknownVersion { account: account.clone(), version }),
            None => Err(StoreError::Corrupt { account: account.clone(), reason: "empty record", at: 0, len: 0 }),
        }
    }

    pub(super) fn byte(&mut self) -> Result<u8, StoreError> {
        self.take().map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StoreError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StoreError> {
        self.take().map(u64::from_be_bytes)
    }

    /// Everything behind what was read.
    pub(super) fn rest(self) -> &'r [u8] {
        self.rest
    }

    /// The error of a record that has something else here than what may be.
    pub(super) fn corrupt(&self, reason: &'static str) -> StoreError {
        let at = self.len.saturating_sub(self.rest.len());
        StoreError::Corrupt { account: self.account.clone(), reason, at, len: self.len }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.corrupt("cut short"));
        };
        self.rest = rest;
        Ok(*taken)
    }
}
