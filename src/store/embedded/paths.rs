//! The location of the database, and how a fresh file replaces it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::store::error::StoreError;

/// The database's name in the state directory.
pub(in crate::store) const FILE: &str = "pushward.redb";
/// The name of a fresh file until it replaces the database.
const FRESH: &str = "pushward.redb.new";

/// The location of a database.
pub(in crate::store) trait Location: Send + Sync {
    /// Opens what is there; called again for every recovery.
    fn open(&self) -> Result<Box<dyn StorageBackend>, StoreError>;

    /// Bytes of what is there.
    fn len(&self) -> io::Result<u64>;

    /// Opens an empty file beside it; what was left there is thrown away.
    fn fresh(&self) -> Result<Box<dyn StorageBackend>, StoreError>;

    /// Throws away what is beside it, if anything is.
    fn discard(&self);

    /// Replaces it with what is beside it, at once and wholly; if that fails, nothing has changed.
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

/// Makes the error of a path that cannot be used.
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
