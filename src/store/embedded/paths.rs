//! The location of the database file, and its replacement by a new file. [`Disk`](super::disk::Disk) uses it through
//! [`Location`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::store::error::StoreError;

/// The name of the database file in the state directory.
pub(in crate::store) const FILE: &str = "pushward.redb";
/// The name of a new file until it replaces the database.
const FRESH: &str = "pushward.redb.new";

/// The location of a database.
pub(in crate::store) trait Location: Send + Sync {
    /// Opens the existing database; called again for every recovery.
    fn open(&self) -> Result<Box<dyn StorageBackend>, StoreError>;

    /// Returns the size of the database.
    fn len(&self) -> io::Result<u64>;

    /// Opens an empty file beside the database; an earlier one is discarded.
    fn fresh(&self) -> Result<Box<dyn StorageBackend>, StoreError>;

    /// Deletes the file beside the database, if there is one.
    fn discard(&self);

    /// Replaces the database with the file beside it, atomically. After an error nothing has changed.
    fn replace(&self) -> io::Result<()>;

    /// Returns once a crash cannot undo [`Location::replace`].
    fn settle(&self) -> io::Result<()>;
}

/// A file in the state directory.
pub(in crate::store) struct InDirectory {
    directory: PathBuf,
    path: PathBuf,
    fresh: PathBuf,
}

impl InDirectory {
    pub(in crate::store) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), path: directory.join(FILE), fresh: directory.join(FRESH) }
    }
}

/// Returns a function that makes the error of a path that cannot be used.
pub(in crate::store) fn inaccessible(path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |error| StoreError::Inaccessible { path: path.clone(), error: Arc::new(error) }
}

impl Location for InDirectory {
    fn open(&self) -> Result<Box<dyn StorageBackend>, StoreError> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).map_err(inaccessible(&self.path))?;
        Ok(Box::new(FileBackend::new(file)?))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.path)?.len())
    }

    fn fresh(&self) -> Result<Box<dyn StorageBackend>, StoreError> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&self.fresh).map_err(inaccessible(&self.fresh))?;
        Ok(Box::new(FileBackend::new(file)?))
    }

    fn discard(&self) {
        match std::fs::remove_file(&self.fresh) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %self.fresh.display(), %error, "cannot remove file"),
        }
    }

    fn replace(&self) -> io::Result<()> {
        std::fs::rename(&self.fresh, &self.path)
    }

    fn settle(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}
