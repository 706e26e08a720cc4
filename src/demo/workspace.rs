//! [`Workspace`]: a temporary directory for the duration of the demo.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A private directory. Dropping it removes the directory with its content.
#[derive(Debug)]
pub(super) struct Workspace(PathBuf);

impl Workspace {
    /// Creates a directory that only this user can access, with an unguessable name.
    ///
    /// # Errors
    /// Returns an error if the directory for temporary files is not writable.
    pub(super) fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("pushward-demo-{:032x}", rand::random::<u128>()));
        // Not recursive: an existing directory belongs to another program.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "cannot remove temporary directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_is_private_and_goes_with_its_owner() {
        let workspace = Workspace::new().unwrap();
        let path = workspace.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(path.join("file"), "x").unwrap();
        drop(workspace);
        assert!(!path.exists());
    }
}
