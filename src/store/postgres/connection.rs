//! Connections to the database: [`Line`] keeps one and replaces it when it is lost.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::settings::PostgresSettings;
use crate::store::error::{DatabaseFailure, StoreError};
use crate::sync::lock;

/// The longest time until a connection is ready for use.
const READY: Duration = Duration::from_secs(10);
/// The time between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(250);

/// A connection to a writable primary.
pub(super) struct PrimaryConnection {
    client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    state: Arc<ConnectionState>,
}

#[derive(Debug, Default)]
struct ConnectionState {
    /// True if a commit was reported as done that may not be on the standbys.
    is_doubtful: AtomicBool,
}

/// A statement with its parameters.
pub(super) struct StatementCall {
    pub(super) sql: &'static str,
    pub(super) params: Vec<Box<dyn ToSql + Send + Sync>>,
}

impl StatementCall {
    pub(super) fn new(sql: &'static str, params: Vec<Box<dyn ToSql + Send + Sync>>) -> Self {
        Self { sql, params }
    }
}

/// Returns parameters of a statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        vec![$(Box::new($value) as Box<dyn tokio_postgres::types::ToSql + Send + Sync>),*]
    };
}
pub(super) use params;

type Rows = Result<Vec<Row>, tokio_postgres::Error>;

impl PrimaryConnection {
    /// Executes a statement outside of a transaction of several.
    pub(super) async fn query(&self, call: &StatementCall) -> Rows {
        let statement = self.prepared(call.sql).await?;
        self.client.query(&statement, &borrowed(call)).await
    }

    /// Executes statements as one transaction. All of them are sent at once, the commit included, so that the transaction never
    /// waits for this process. Returns the rows of each.
    pub(super) async fn transact(&self, calls: &[StatementCall]) -> Result<Vec<Vec<Row>>, TransactionError> {
        let mut statements = Vec::with_capacity(calls.len());
        for call in calls {
            statements.push(self.prepared(call.sql).await.map_err(TransactionError::NotSent)?);
        }
        let params: Vec<_> = calls.iter().map(borrowed).collect();
        let begin = async { self.client.batch_execute("BEGIN").await.map(|()| Vec::new()) };
        let commit = async { self.client.batch_execute("COMMIT").await.map(|()| Vec::new()) };
        let mut sent: Vec<Pin<Box<dyn Future<Output = Rows> + Send + '_>>> = vec![Box::pin(begin)];
        for (statement, params) in statements.iter().zip(&params) {
            sent.push(Box::pin(self.client.query(statement, params)));
        }
        sent.push(Box::pin(commit));
        let mut rows = Vec::with_capacity(sent.len());
        let mut failed = None;
        for answer in all(sent).await {
            match answer {
                Ok(answer) => rows.push(answer),
                // The first error is the cause of the others.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if error.as_db_error().is_some() && !self.is_lost() => Err(TransactionError::Refused(error)),
            Some(error) => Err(TransactionError::Lost(error)),
            None if self.is_doubtful() => Err(TransactionError::Doubtful),
            None => {
                rows.pop();
                rows.remove(0);
                Ok(rows)
            }
        }
    }

    /// Executes several statements without parameters, as one script.
    pub(super) async fn run(&self, script: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(script).await
    }

    async fn prepared(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(known) = lock(&self.statements).get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(sql).await?;
        lock(&self.statements).insert(sql, statement.clone());
        Ok(statement)
    }

    /// Returns whether the connection cannot be used any more.
    pub(super) fn is_lost(&self) -> bool {
        self.client.is_closed() || self.is_doubtful()
    }

    fn is_doubtful(&self) -> bool {
        self.state.is_doubtful.load(Ordering::Acquire)
    }
}

/// The reason why a transaction is not known to be committed.
#[derive(Debug)]
pub(super) enum TransactionError {
    /// Nothing was sent.
    NotSent(tokio_postgres::Error),
    /// The server has rolled it back.
    Refused(tokio_postgres::Error),
    /// The connection was lost.
    Lost(tokio_postgres::Error),
    /// The server has committed it, but its standbys may not have it.
    Doubtful,
}

fn borrowed(call: &StatementCall) -> Vec<&(dyn ToSql + Sync)> {
    call.params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect()
}

/// Waits for all futures. They are polled in order, so their requests leave in order.
async fn all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut is_ready = true;
        for (future, done) in futures.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => *done = Some(value),
                Poll::Pending => is_ready = false,
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Keeps a connection.
pub(super) struct Line {
    settings: Arc<PostgresSettings>,
    current: tokio::sync::Mutex<LineState>,
}

#[derive(Default)]
struct LineState {
    connection: Option<Arc<PrimaryConnection>>,
    /// The time of the next attempt to connect.
    next: Option<Instant>,
}

impl Line {
    pub(super) fn new(settings: Arc<PostgresSettings>) -> Self {
        Self { settings, current: tokio::sync::Mutex::default() }
    }

    /// Returns the connection. If there is none, one attempt is made to connect.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]
    pub(super) async fn get(&self) -> Result<Arc<PrimaryConnection>, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.connection.as_ref().filter(|connection| !connection.is_lost()) {
            return Ok(Arc::clone(connection));
        }
        current.connection = None;
        if let Some(next) = current.next {
            sleep_until(next).await;
        }
        current.next = Some(Instant::now() + PAUSE);
        let connected = timeout(READY, connect(&self.settings)).await;
        let connection = connected.unwrap_or(Err(StoreError::Unavailable(DatabaseFailure::Silent)))?;
        Ok(Arc::clone(current.connection.insert(Arc::new(connection))))
    }

    /// Drops a connection whose transaction is in doubt.
    pub(super) async fn drop_connection(&self, connection: &Arc<PrimaryConnection>) {
        let mut current = self.current.lock().await;
        if current.connection.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection)) {
            current.connection = None;
        }
    }
}

/// Connects to the primary and checks that it may be used.
async fn connect(settings: &PostgresSettings) -> Result<PrimaryConnection, StoreError> {
    let config = settings.connection();
    let state = Arc::new(ConnectionState::default());
    let client = match &settings.tls {
        Some(tls) => {
            let connector = MakeRustlsConnect::new((**tls).clone());
            let (client, connection) = config.connect(connector).await.map_err(unavailable)?;
            tokio::spawn(drive(connection, Arc::clone(&state)));
            client
        }
        None => {
            let (client, connection) = config.connect(NoTls).await.map_err(unavailable)?;
            tokio::spawn(drive(connection, Arc::clone(&state)));
            client
        }
    };
    let connection = PrimaryConnection { client, statements: Mutex::default(), state };
    connection.client.batch_execute(&settings.session()).await.map_err(unavailable)?;
    let check = StatementCall::new(
        "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
         current_setting('synchronous_standby_names') = ''",
        Vec::new(),
    );
    let rows = connection.query(&check).await.map_err(unavailable)?;
    let row = rows.first().ok_or(StoreError::WrongAnswer)?;
    let (recovers, is_read_only, is_single): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    if recovers || is_read_only {
        return Err(StoreError::Unavailable(DatabaseFailure::ReadOnly));
    }
    if is_single && !settings.may_be_single {
        return Err(StoreError::Unavailable(DatabaseFailure::NoStandby));
    }
    Ok(connection)
}

/// Drives a connection until it ends. A warning means that a commit which is reported as done may be missing on the standbys:
/// PostgreSQL warns so when the wait for them is cancelled.
async fn drive<S, T>(connection: tokio_postgres::Connection<S, T>, state: Arc<ConnectionState>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = pin!(connection);
    loop {
        match poll_fn(|cx| connection.as_mut().get_mut().poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) if notice.parsed_severity().is_none_or(is_warning) => {
                tracing::warn!(code = notice.code().code(), message = notice.message(), "database warns");
                state.is_doubtful.store(true, Ordering::Release);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(error = %DatabaseFailure::from(error), "connection to the database lost");
                return;
            }
            None => return,
        }
    }
}

fn is_warning(severity: tokio_postgres::error::Severity) -> bool {
    use tokio_postgres::error::Severity;
    match severity {
        Severity::Panic | Severity::Fatal | Severity::Error | Severity::Warning => true,
        Severity::Notice | Severity::Debug | Severity::Info | Severity::Log => false,
    }
}

pub(super) fn unavailable(error: tokio_postgres::Error) -> StoreError {
    StoreError::Unavailable(error.into())
}
