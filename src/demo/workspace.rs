//! A directory that exists while the play lasts.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A private directory, removed with all that is in it when dropped.
#[derive(Debug)]
pub(super) struct Workspace(PathBuf);

impl Workspace {
    /// Makes one for this user alone, under a name that nobody can guess.
    ///
    /// # Errors
    /// The directory for temporary files cannot be written to.
    pub(super) fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("pushward-demo-{:032x}", rand::random::<u128>()));
        // Not recursive: a directory that exists already is somebody else's.
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
