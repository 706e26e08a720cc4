//! A relay for tests. Its store has its own directory, and its server is not reachable.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::shared::Relay;
use super::snapshot::Snapshot;
use crate::config::Config;
use crate::secret::Secret;
use crate::store::Store;

pub(super) fn relay(directory: &Path) -> Arc<Relay> {
    relay_with(directory, Store::open(directory).unwrap())
}

pub(super) fn relay_with(directory: &Path, store: Store) -> Arc<Relay> {
    relay_like(directory, store, "")
}

/// Returns a relay whose configuration has these further lines for its host, and what follows them.
pub(super) fn relay_like(directory: &Path, store: Store, more: &str) -> Arc<Relay> {
    let file = |name: &str| directory.join(name).display().to_string();
    let config = format!(
        "[[host]]\ndomain = 'localhost'\ncertificate = '{}'\nkey = '{}'\nupstream = '127.0.0.1:1'\n{more}",
        file("c.pem"),
        file("c.key")
    );
    let snapshot = Snapshot::load(Config::parse(&config, Path::new("c")).unwrap(), 1, Secret::new(1)).unwrap();
    Arc::new(Relay::new(snapshot, store, CancellationToken::new()))
}
