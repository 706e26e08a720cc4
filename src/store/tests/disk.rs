//! A disk that fails.

use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use crate::store::disk::Disk;
use crate::store::{SpoolLimits, Store, StoreError};

/// A disk in memory that counts its steps (writes, syncs, changes of length) and fails from one of them on. What was
/// not synced by then may be on it, or not.
#[derive(Clone, Debug)]
pub(super) struct TestDisk(Arc<Mutex<Platter>>);

struct Platter {
    seen: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Step>,
    steps_left: usize,
    steps: usize,
    writes_fail: bool,
    syncs_fail: bool,
}

impl std::fmt::Debug for Platter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platter").field("steps", &self.steps).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Step {
    fn perform(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = offset + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::Length(len) => bytes.resize(*len, 0),
        }
    }
}

impl TestDisk {
    pub(super) fn new(bytes: Vec<u8>, steps_left: usize) -> Self {
        let synced = bytes.clone();
        Self(Arc::new(Mutex::new(Platter {
            seen: bytes,
            synced,
            unsynced: Vec::new(),
            steps_left,
            steps: 0,
            writes_fail: false,
            syncs_fail: false,
        })))
    }

    pub(super) fn store(&self) -> Result<Store, StoreError> {
        let disk = self.clone();
        Store::start(Disk::new(move || Ok(Box::new(disk.clone())))?, SpoolLimits::default())
    }

    /// Whether it has not failed yet.
    pub(super) fn is_well(&self) -> bool {
        self.0.lock().unwrap().steps_left > 0
    }

    /// From now on writes fail, or do not, as on a full disk.
    pub(super) fn fail_writes(&self, fail: bool) {
        self.0.lock().unwrap().writes_fail = fail;
    }

    /// From now on syncs fail, or do not.
    pub(super) fn fail_syncs(&self, fail: bool) {
        self.0.lock().unwrap().syncs_fail = fail;
    }

    /// What can be on the disk after a crash, each but once.
    pub(super) fn after_crashes(&self) -> Vec<Vec<u8>> {
        let all = [
            self.after_crash(|_| false),
            self.after_crash(|_| true),
            self.after_crash(|n| n % 2 == 0),
            self.after_crash(|n| n % 2 == 1),
        ];
        let mut different = Vec::new();
        for bytes in all {
            if !different.contains(&bytes) {
                different.push(bytes);
            }
        }
        different
    }

    fn step(&self) -> std::io::Result<std::sync::MutexGuard<'_, Platter>> {
        let mut platter = self.0.lock().unwrap();
        platter.steps += 1;
        match platter.steps_left.checked_sub(1) {
            Some(left) => platter.steps_left = left,
            None => return Err(std::io::Error::other("the disk failed")),
        }
        Ok(platter)
    }

    /// What is on the disk after a crash, if it kept those unsynced steps that `kept` says.
    pub(super) fn after_crash(&self, kept: impl Fn(usize) -> bool) -> Vec<u8> {
        let platter = self.0.lock().unwrap();
        let mut bytes = platter.synced.clone();
        for (n, step) in platter.unsynced.iter().enumerate() {
            if kept(n) {
                step.perform(&mut bytes);
            }
        }
        bytes
    }
}

impl StorageBackend for TestDisk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let platter = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        match platter.seen.get(offset..offset + out.len()) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        let mut platter = self.step()?;
        let step = Step::Length(usize::try_from(len).unwrap());
        step.perform(&mut platter.seen);
        platter.unsynced.push(step);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let mut platter = self.step()?;
        if platter.syncs_fail {
            return Err(std::io::Error::other("the disk did not sync"));
        }
        platter.synced = platter.seen.clone();
        platter.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let mut platter = self.step()?;
        if platter.writes_fail {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let step = Step::Write(usize::try_from(offset).unwrap(), data.to_vec());
        step.perform(&mut platter.seen);
        platter.unsynced.push(step);
        Ok(())
    }
}
