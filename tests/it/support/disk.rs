//! A disk that stalls or fails for as long as a test needs. `disk.c` implements it.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use super::{PATIENCE, Pushward, Setup, eventually};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/disk.c");
const LIBRARY: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/disk.so");

/// A fault of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No sync returns, and nothing can be read about the database's file.
    Stall,
    /// Writes fail.
    Writes,
    /// Syncs fail.
    Syncs,
}

impl Fault {
    /// Returns the name of the file that turns the fault on.
    fn file(self) -> &'static str {
        match self {
            Self::Stall => "disk-stall",
            Self::Writes => "disk-writes-fail",
            Self::Syncs => "disk-syncs-fail",
        }
    }
}

/// Compiles the library once per test process.
fn build() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        // Another process may have it loaded.
        let fresh = format!("{LIBRARY}.{}", std::process::id());
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", SOURCE, "-ldl", "-o", &fresh]).status();
        assert!(built.expect("a C compiler; install it with: apt-get install gcc").success());
        fs::rename(fresh, LIBRARY).unwrap();
    });
}

impl Setup {
    /// Lets the test use [`Fault`]s of the disk.
    pub(crate) fn with_faults(self) -> Self {
        build();
        self.env("LD_PRELOAD", LIBRARY)
            .env("DISK_STALL", Fault::Stall.file())
            .env("DISK_WRITES_FAIL", Fault::Writes.file())
            .env("DISK_SYNCS_FAIL", Fault::Syncs.file())
    }
}

impl Pushward {
    /// Turns a fault on.
    pub(crate) fn begin(&self, fault: Fault) {
        fs::write(self.file(fault.file()), "").unwrap();
    }

    /// Turns a fault off.
    pub(crate) fn end(&self, fault: Fault) {
        fs::remove_file(self.file(fault.file())).unwrap();
    }

    /// Waits until a sync has begun that does not return.
    pub(crate) async fn stalled(&self) {
        let reached = self.file(&format!("{}.reached", Fault::Stall.file()));
        eventually(PATIENCE, || "a sync".to_owned(), || reached.exists().then_some(())).await;
    }
}
