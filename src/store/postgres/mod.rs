//! The engine on PostgreSQL, for one node or several.
//!
//! | file | content |
//! |---|---|
//! | `core` | what the calls and tasks of the engine share |
//! | `settings`, `connection` | connections to the primary: checks, transactions that are sent whole, warnings |
//! | `migrate` | the schema (`schema_*.sql`) and its versions |
//! | `node` | this node's row: epoch and lease |
//! | `observed`, `nodes` | the leases of the others, and the end of those that are not renewed; reads about nodes |
//! | `commit`, `knowledge`, `plan` | a group: what it needs is read, then it is written as one transaction |
//! | `changes`, `spools`, `claims` | the operations |
//! | `queries` | reads |
//! | `probe` | a look from outside |
//! | `numbers` | conversions |
//!
//! **The fence.** Every transaction that writes begins with `pushward_fence`, which fails unless this node's row still has its
//! epoch, and keeps the row until the commit. So a node whose place was taken writes nothing, whatever it believes.
//!
//! **Unknown outcomes.** A transaction whose connection breaks may be committed or not; so may one about which the server
//! warns, because its standbys may lack it. The group is committed again on another connection. The fence lets one transaction
//! of a node at a time pass, so the outcome of the first attempt is decided by then. No statement is ever cancelled.

mod changes;
mod claims;
mod commit;
mod connection;
mod core;
mod knowledge;
mod migrate;
mod node;
mod nodes;
mod numbers;
mod observed;
mod plan;
pub(super) mod probe;
mod queries;
pub(super) mod settings;
mod spools;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::time::{Instant, timeout};

use super::engine::{Committed, Engine, Failure, OpGroup, OpeningState};
use super::error::StoreError;
use super::lease::Lease;
use super::query::{Query, QueryAnswer};
use super::schema::Count;
use super::values::SpoolId;
use crate::push::account::LoginId;
use connection::Line;
use core::Core;
use settings::PostgresSettings;

/// The longest time that the end of the process waits for the database.
const LEAVING: Duration = Duration::from_secs(2);

/// The engine on PostgreSQL. [`Engines`](super::engines::Engines) selects it.
pub(super) struct Postgres {
    core: Arc<Core>,
    opening: Mutex<OpeningState>,
    /// The connections live here, so that they do not depend on how busy the rest of the process is.
    runtime: OwnRuntime,
}

/// A runtime that may be dropped anywhere.
struct OwnRuntime(Option<Runtime>);

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects, creates or updates the schema, and joins. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::NewerSchema`], [`StoreError::NodeInUse`], [`StoreError::Moved`].
    pub(super) fn open(settings: PostgresSettings) -> Result<Self, StoreError> {
        let build = runtime::Builder::new_multi_thread().worker_threads(1).thread_name("postgres").enable_all().build();
        let runtime = OwnRuntime(Some(build.map_err(|error| StoreError::NoThread(Arc::new(error)))?));
        let settings = Arc::new(settings);
        let leases = Line::new(Arc::clone(&settings));
        let (shared, joined) = on(runtime.get()?, async {
            let shared = migrate::migrate(&leases).await?;
            Ok::<_, StoreError>((shared, node::join(&settings, &leases).await?))
        })?;
        let core = Arc::new(Core::new(&settings, leases, Lease::new(joined.epoch, joined.until)));
        let renewing = Arc::clone(&core);
        runtime.get()?.spawn(async move { renewing.keep_lease().await });
        let opening = OpeningState {
            login: LoginId(0),
            handover: joined.handover,
            resource_key: shared.resource_key,
            ..OpeningState::default()
        };
        Ok(Self { core, opening: Mutex::new(opening), runtime })
    }

    /// Returns the runtime of the connections.
    pub(super) fn handle(&self) -> Result<runtime::Handle, StoreError> {
        self.runtime().map(|runtime| runtime.handle().clone())
    }

    fn runtime(&self) -> Result<&Runtime, StoreError> {
        self.runtime.get()
    }
}

impl OwnRuntime {
    fn get(&self) -> Result<&Runtime, StoreError> {
        self.0.as_ref().ok_or(StoreError::Closed)
    }
}

/// Runs a future to its end on a runtime, from a thread of another one or of none.
fn on<T: Send>(runtime: &Runtime, work: impl Future<Output = T> + Send) -> T {
    let handle = runtime.handle();
    std::thread::scope(|scope| match scope.spawn(|| handle.block_on(work)).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Engine for Postgres {
    fn opening(&self) -> Result<OpeningState, StoreError> {
        Ok(std::mem::take(&mut *crate::sync::lock(&self.opening)))
    }

    fn commit(&self, group: &OpGroup<'_>) -> Result<Committed, Failure> {
        let runtime = self.runtime().map_err(Failure::Refused)?;
        runtime.handle().block_on(self.core.commit(group))
    }

    async fn read(&self, query: Query) -> Result<QueryAnswer, StoreError> {
        let core = Arc::clone(&self.core);
        // Connections must belong to this runtime.
        let reading = self.runtime()?.spawn(async move { core.read(query).await });
        let reading = AbortOnDrop(reading);
        reading.join().await
    }

    async fn health(&self) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        let checking = self.runtime()?.spawn(async move { core.health().await });
        AbortOnDrop(checking).join().await
    }

    fn lease(&self) -> Option<&Arc<Lease>> {
        Some(&self.core.lease)
    }

    fn maintenance(&self) -> Option<Instant> {
        None
    }

    fn maintain(&self, _is_wanted: &dyn Fn() -> bool) {}

    /// Gives the lease up, unless the next process goes on with it. The counts of spools are not stored: they are counted when an account is claimed.
    fn close(&self, _counts: &[(SpoolId, Count)]) {
        let Ok(runtime) = self.runtime() else { return };
        if self.core.is_handed_over.load(Ordering::Relaxed) {
            return;
        }
        let left = runtime.handle().block_on(async { timeout(LEAVING, self.core.leave()).await });
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("lease not given up: other nodes wait for its end");
        }
    }
}

/// A task that ends when nobody waits for it any more.
struct AbortOnDrop<T>(tokio::task::JoinHandle<Result<T, StoreError>>);

impl<T> AbortOnDrop<T> {
    async fn join(mut self) -> Result<T, StoreError> {
        (&mut self.0).await.unwrap_or(Err(StoreError::Closed))
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
impl Postgres {
    /// Checks that the counts in memory match the stanzas in the spools of the accounts that this node owns.
    pub(super) fn check_counts(&self, counts: &super::counts::SpoolCounts) {
        const COUNTS: &str = "SELECT a.jid, x.login, count(s.seq), \
            coalesce(sum(length(s.stanza) - 10 + 64), 0)::bigint FROM account a \
            JOIN session x ON x.account = a.id LEFT JOIN spool s ON s.account = x.account AND s.session = x.login \
            WHERE a.owner_epoch = $1 GROUP BY 1, 2";
        const LOST: &str = "SELECT count(*) FROM spool s WHERE NOT EXISTS \
            (SELECT 1 FROM session x WHERE x.account = s.account AND x.login = s.session)";
        let epoch = self.core.lease.epoch().unwrap();
        let (rows, lost) = on(self.runtime().unwrap(), async {
            let line = self.core.readers[0].get().await.unwrap();
            let rows = line.query(&connection::StatementCall::new(COUNTS, connection::params![epoch])).await.unwrap();
            (rows, line.query(&connection::StatementCall::new(LOST, Vec::new())).await.unwrap())
        });
        for row in rows {
            let account = crate::jid::BareJid::new(row.get::<_, &str>(0)).unwrap();
            let spool = SpoolId { account, login: numbers::login_of(row.get(1)) };
            let counted = counts.of(&spool).backlog;
            let there = (numbers::count_of(row.get(2)), numbers::count_of(row.get(3)));
            assert_eq!((counted.count, counted.bytes), there, "{spool:?}");
        }
        assert_eq!(lost[0].get::<_, i64>(0), 0, "stanzas of a spool without a row");
    }
}
