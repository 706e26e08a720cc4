//! An engine that stalls and loses answers, for tests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use tokio::time::Instant;

use crate::store::embedded::Embedded;
use crate::store::embedded::disk::Disk;
use crate::store::engine::{Committed, Engine, Failure, OpGroup, OpeningState};
use crate::store::engines::Engines;
use crate::store::error::StoreError;
use crate::store::lease::Lease;
use crate::store::query::{Query, QueryAnswer};
use crate::store::schema::Count;
use crate::store::values::{SpoolId, SpoolLimits};
use crate::store::{InDirectory, Store};

/// The fault of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None: it commits and answers.
    None,
    /// Commits once the fault is changed.
    StallsBefore,
    /// Commits, and answers once the fault is changed.
    StallsBehind,
    /// Commits, but the answer is lost.
    LosesAnswers,
    /// Does not commit, and reports an unknown outcome.
    LosesGroups,
}

/// The switches of a faulty engine.
#[derive(Debug)]
pub(crate) struct Faults {
    now: Mutex<Fault>,
    changed: Condvar,
    asked: AtomicUsize,
}

impl Faults {
    pub(crate) fn set(&self, fault: Fault) {
        *self.now.lock().unwrap() = fault;
        self.changed.notify_all();
    }

    /// Returns the number of commits that were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn now(&self) -> Fault {
        *self.now.lock().unwrap()
    }

    fn wait_while(&self, fault: Fault) {
        drop(self.changed.wait_while(self.now.lock().unwrap(), |now| *now == fault).unwrap());
    }
}

/// The embedded engine with faults.
#[derive(Debug)]
pub(in crate::store) struct Faulty {
    inner: Embedded,
    faults: Arc<Faults>,
}

impl Store {
    /// Opens a store whose engine has faults.
    pub(crate) fn faulty(directory: &std::path::Path) -> (Self, Arc<Faults>) {
        drop(Self::open(directory).unwrap());
        let disk = loop {
            // The writer of an earlier store closes the database in a moment.
            match Disk::new(InDirectory::new(directory)) {
                Err(StoreError::InUse) => std::thread::yield_now(),
                disk => break disk.unwrap(),
            }
        };
        let faults = Faults { now: Mutex::new(Fault::None), changed: Condvar::new(), asked: AtomicUsize::new(0) };
        let faults = Arc::new(faults);
        let engine = Faulty { inner: Embedded::new(disk).unwrap(), faults: Arc::clone(&faults) };
        (Self::start(Engines::Faulty(engine), SpoolLimits::default()).unwrap(), faults)
    }
}

impl Faulty {
    pub(in crate::store) fn disk(&self) -> &Disk {
        self.inner.disk()
    }
}

impl Engine for Faulty {
    fn opening(&self) -> Result<OpeningState, StoreError> {
        self.inner.opening()
    }

    fn commit(&self, group: &OpGroup<'_>) -> Result<Committed, Failure> {
        self.faults.asked.fetch_add(1, Ordering::Relaxed);
        let fault = self.faults.now();
        match fault {
            Fault::None => self.inner.commit(group),
            Fault::StallsBefore => {
                self.faults.wait_while(fault);
                self.inner.commit(group)
            }
            Fault::StallsBehind => {
                let committed = self.inner.commit(group);
                self.faults.wait_while(fault);
                committed
            }
            Fault::LosesAnswers => self.inner.commit(group).and(Err(Failure::Unknown)),
            Fault::LosesGroups => Err(Failure::Unknown),
        }
    }

    async fn read(&self, query: Query) -> Result<QueryAnswer, StoreError> {
        self.inner.read(query).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.inner.health().await
    }

    fn lease(&self) -> Option<&Arc<Lease>> {
        None
    }

    fn maintenance(&self) -> Option<Instant> {
        self.inner.maintenance()
    }

    fn maintain(&self, is_wanted: &dyn Fn() -> bool) {
        self.inner.maintain(is_wanted);
    }

    fn close(&self, counts: &[(SpoolId, Count)]) {
        self.inner.close(counts);
    }
}
