//! A disk in memory that can fail.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use crate::store::embedded::Embedded;
use crate::store::embedded::disk::Disk;
use crate::store::embedded::paths::Location;
use crate::store::engines::Engines;
use crate::store::{SpoolLimits, Store, StoreError};

/// A disk in memory that counts its steps (writes, syncs, changes of length, renames) and fails from one of them on. Steps
/// that were not synced by then may or may not be on it.
#[derive(Clone, Debug)]
pub(super) struct TestDisk(Arc<Mutex<Platter>>);

/// The content of the disk.
struct Platter {
    files: HashMap<usize, Sectors>,
    /// The file at the path of the database, as the system shows it and as the disk has it.
    current: usize,
    settled: usize,
    /// The file beside the database.
    fresh: Option<usize>,
    steps_left: usize,
    steps: usize,
    writes_fail: bool,
    syncs_fail: bool,
}

#[derive(Default)]
struct Sectors {
    seen: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Step>,
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

impl Sectors {
    fn new(bytes: Vec<u8>) -> Self {
        Self { seen: bytes.clone(), synced: bytes, unsynced: Vec::new() }
    }

    fn perform(&mut self, step: Step) {
        step.perform(&mut self.seen);
        self.unsynced.push(step);
    }

    fn after_crash(&self, kept: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for (n, step) in self.unsynced.iter().enumerate() {
            if kept(n) {
                step.perform(&mut bytes);
            }
        }
        bytes
    }
}

impl Platter {
    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        match self.steps_left.checked_sub(1) {
            Some(left) => self.steps_left = left,
            None => return Err(io::Error::other("disk sync failed")),
        }
        Ok(())
    }

    /// Performs a step of a file; does nothing for a file that no path refers to any more.
    fn file_step(&mut self, file: usize) -> io::Result<&mut Sectors> {
        if file == self.current || Some(file) == self.fresh {
            self.step()?;
        }
        Ok(self.files.get_mut(&file).unwrap())
    }
}

impl TestDisk {
    pub(super) fn new(bytes: Vec<u8>, steps_left: usize) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            files: HashMap::from([(0, Sectors::new(bytes))]),
            current: 0,
            settled: 0,
            fresh: None,
            steps_left,
            steps: 0,
            writes_fail: false,
            syncs_fail: false,
        })))
    }

    pub(super) fn store(&self) -> Result<Store, StoreError> {
        Store::start(Engines::Embedded(self.engine()?), SpoolLimits::default())
    }

    pub(super) fn engine(&self) -> Result<Embedded, StoreError> {
        Embedded::new(Disk::new(self.clone())?)
    }

    /// Returns whether the disk has not failed yet.
    pub(super) fn is_well(&self) -> bool {
        self.lock().steps_left > 0
    }

    /// Returns the number of steps that were made or refused.
    pub(super) fn steps(&self) -> usize {
        self.lock().steps
    }

    /// Makes the disk work again.
    pub(super) fn heal(&self) {
        self.lock().steps_left = usize::MAX;
    }

    /// Makes writes fail from now on, as on a full disk.
    pub(super) fn fail_writes(&self) {
        self.lock().writes_fail = true;
    }

    /// Makes writes succeed from now on.
    pub(super) fn allow_writes(&self) {
        self.lock().writes_fail = false;
    }

    /// Makes syncs fail from now on.
    pub(super) fn fail_syncs(&self) {
        self.lock().syncs_fail = true;
    }

    /// Makes syncs succeed from now on.
    pub(super) fn allow_syncs(&self) {
        self.lock().syncs_fail = false;
    }

    /// Returns the distinct contents that the disk may have after a crash.
    pub(super) fn after_crashes(&self) -> Vec<Vec<u8>> {
        let (current, settled) = {
            let platter = self.lock();
            (platter.current, platter.settled)
        };
        let mut different = Vec::new();
        for file in [current, settled] {
            let all = [
                self.after_crash_of(file, |_| false),
                self.after_crash_of(file, |_| true),
                self.after_crash_of(file, |n| n % 2 == 0),
                self.after_crash_of(file, |n| n % 2 == 1),
            ];
            for bytes in all {
                if !different.contains(&bytes) {
                    different.push(bytes);
                }
            }
        }
        different
    }

    /// Returns the content of the disk after a crash that kept the unsynced steps selected by `kept`.
    pub(super) fn after_crash(&self, kept: impl Fn(usize) -> bool) -> Vec<u8> {
        let file = self.lock().current;
        self.after_crash_of(file, kept)
    }

    fn after_crash_of(&self, file: usize, kept: impl Fn(usize) -> bool) -> Vec<u8> {
        self.lock().files[&file].after_crash(kept)
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    fn file(&self, number: usize) -> Box<dyn StorageBackend> {
        Box::new(TestFile { disk: self.clone(), number })
    }
}

impl Location for TestDisk {
    fn open(&self) -> Result<Box<dyn StorageBackend>, StoreError> {
        let current = self.lock().current;
        Ok(self.file(current))
    }

    fn len(&self) -> io::Result<u64> {
        let platter = self.lock();
        Ok(platter.files[&platter.current].seen.len() as u64)
    }

    fn fresh(&self) -> Result<Box<dyn StorageBackend>, StoreError> {
        let mut platter = self.lock();
        let number = platter.files.len();
        platter.files.insert(number, Sectors::default());
        platter.fresh = Some(number);
        drop(platter);
        Ok(self.file(number))
    }

    fn discard(&self) {
        self.lock().fresh = None;
    }

    fn replace(&self) -> io::Result<()> {
        let mut platter = self.lock();
        platter.step()?;
        platter.current = platter.fresh.take().unwrap();
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        let mut platter = self.lock();
        platter.step()?;
        if platter.syncs_fail {
            return Err(io::Error::other("the disk did not sync"));
        }
        platter.settled = platter.current;
        Ok(())
    }
}

/// An open file of a disk.
#[derive(Debug)]
struct TestFile {
    disk: TestDisk,
    number: usize,
}

impl StorageBackend for TestFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[&self.number].seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.disk.lock();
        let offset = usize::try_from(offset).unwrap();
        match platter.files[&self.number].seen.get(offset..offset + out.len()) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.disk.lock();
        platter.file_step(self.number)?.perform(Step::Length(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.disk.lock();
        let fails = platter.syncs_fail;
        let file = platter.file_step(self.number)?;
        if fails {
            return Err(io::Error::other("the disk did not sync"));
        }
        file.synced = file.seen.clone();
        file.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.disk.lock();
        let fails = platter.writes_fail;
        let file = platter.file_step(self.number)?;
        if fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.perform(Step::Write(usize::try_from(offset).unwrap(), data.to_vec()));
        Ok(())
    }
}
