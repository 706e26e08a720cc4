//! Tests that hold for every engine ([`on_both_engines`]).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::jid::BareJid;
use crate::store::{NodeEntry, PostgresSettings, SpoolLimits, Store};

/// Makes two tests of a function: one for each engine.
macro_rules! on_both_engines {
    ($($(#[$attribute:meta])* async fn $name:ident($engine:ident) $body:block)*) => {$(
        $(#[$attribute])*
        async fn $name($engine: &$crate::store::tests::both::TestEngine) $body

        mod $name {
            use $crate::store::tests::both::TestEngine;

            #[tokio::test]
            async fn embedded() {
                Box::pin(super::$name(&TestEngine::embedded())).await;
            }

            #[tokio::test]
            async fn postgres() {
                Box::pin(super::$name(&TestEngine::postgres())).await;
            }
        }
    )*};
}
pub(super) use on_both_engines;

/// An engine with a database for one test.
pub(in crate::store) enum TestEngine {
    Embedded(tempfile::TempDir),
    Postgres(TestDatabase),
}

/// A database on the server that the tests share.
pub(in crate::store) struct TestDatabase {
    pub(in crate::store) url: String,
    directory: PathBuf,
}

impl TestDatabase {
    pub(in crate::store) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let server = crate::store::tests::postgres::shared();
        let url = server.database(&format!("test_{}_{number}", std::process::id()));
        Self { url, directory: std::env::temp_dir() }
    }

    /// Returns the settings of a node.
    pub(in crate::store) fn settings(&self, node: u8) -> PostgresSettings {
        PostgresSettings { config: self.url.parse().unwrap(), ..Self::any(node) }
    }

    /// Returns the settings of a node without a database.
    pub(in crate::store) fn any(node: u8) -> PostgresSettings {
        PostgresSettings {
            config: tokio_postgres::Config::new(),
            tls: None,
            may_be_single: true,
            node: NodeEntry { id: node, address: format!("127.0.0.1:{node}"), certificate: vec![node; 32] },
            lease: Duration::from_secs(10),
            goes_on: true,
        }
    }
}

impl TestEngine {
    pub(in crate::store) fn embedded() -> Self {
        Self::Embedded(tempfile::tempdir().unwrap())
    }

    pub(in crate::store) fn postgres() -> Self {
        Self::Postgres(TestDatabase::new())
    }

    pub(super) fn open(&self) -> Store {
        self.open_with(SpoolLimits::default())
    }

    /// Opens the database. Sessions that a test begins live until it ends.
    pub(super) fn open_with(&self, limits: SpoolLimits) -> Store {
        match self {
            Self::Embedded(directory) => Store::open_with(directory.path(), limits).unwrap(),
            Self::Postgres(database) => {
                let store = Store::open_postgres(database.settings(0), limits).unwrap();
                let owners = store.shared.owners.as_ref().unwrap();
                owners.keep_all();
                store
            }
        }
    }

    pub(super) fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Returns the state directory.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Embedded(directory) => directory.path(),
            Self::Postgres(database) => &database.directory,
        }
    }
}

/// Claims an account, as a login does.
pub(super) async fn hold(store: &Store, account: &BareJid) {
    drop(store.claim(account).await.unwrap());
}
