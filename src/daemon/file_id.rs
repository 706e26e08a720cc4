//! [`FileId`]: tells whether two paths lead to the same file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The identity of a file, whatever path leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Returns the identity of the file at this path, if there is one.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}
