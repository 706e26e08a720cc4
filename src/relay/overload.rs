//! Refuses connections and sessions over a limit, and counts bytes that break a limit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::background::Background;
use super::client::{Handle, Registry};
use super::snapshot::Authentication;
use crate::config::ListenTls;
use crate::limits::{Guards, Limit};
use crate::session::EndReason;
use crate::store::{SpoolBound, StoreError};
use crate::xml::{self, FrameError, StreamCondition};

/// The time that a refused client has to read the reason.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The bytes of a refused client that are read and dropped. If bytes stayed unread, the kernel would reset the connection and
/// the client would not get the reason.
const UNREAD: u64 = 16 * 1024;
/// The number of refusals that are written at a time. Further connections are closed without a reason.
const REFUSALS: usize = 256;

/// Refuses connections and ends sessions that are over a limit.
pub(super) struct Overload {
    guards: Arc<Guards>,
    registry: Arc<Registry>,
    background: Background,
    refusals: Arc<Semaphore>,
}

impl Overload {
    pub(super) fn new(guards: Arc<Guards>, registry: Arc<Registry>, background: Background) -> Self {
        Self { guards, registry, background, refusals: Arc::new(Semaphore::new(REFUSALS)) }
    }

    /// Refuses a connection over a limit. Writes the reason if the client can read it before TLS.
    pub(super) fn turn_away(&self, tcp: TcpStream, tls: ListenTls, limit: Limit) {
        let permit = match tls {
            ListenTls::Starttls => Arc::clone(&self.refusals).try_acquire_owned().ok(),
            ListenTls::Direct => None,
        };
        if let Some(permit) = permit {
            self.background.spawn_in_span(async move {
                // The client may not read it.
                drop(timeout(REFUSAL_TIMEOUT, refuse(tcp, limit)).await);
                drop(permit);
            });
        }
    }

    /// Counts a frame error of a client if it breaks a limit.
    pub(super) fn on_frame_error(&self, error: &FrameError, authentication: Authentication) {
        let limit = match error {
            FrameError::TooLarge { .. } => match authentication {
                Authentication::Done => Limit::Stanza,
                Authentication::Pending => Limit::UnauthenticatedStanza,
            },
            FrameError::TooDeep { .. } => Limit::Depth,
            FrameError::NotWellFormed { .. }
            | FrameError::Unfit { .. }
            | FrameError::Restricted(_)
            | FrameError::TooMany { .. }
            | FrameError::BadNamespace
            | FrameError::BadEncoding
            | FrameError::BadFormat { .. } => return,
        };
        self.guards.watch().reached(limit, "a client");
    }

    /// Counts a reached spool limit, if the error is one.
    pub(super) fn on_spool_error(&self, error: &StoreError) {
        let StoreError::SpoolFull { which, .. } = error else { return };
        let limit = match which {
            SpoolBound::PerSession => Limit::SpoolPerSession,
            SpoolBound::PerAccount => Limit::SpoolPerAccount,
            SpoolBound::All => Limit::Spool,
        };
        self.guards.watch().reached(limit, "waiting stanzas");
    }

    /// Ends the sessions of the account that have been held longest, if there are too many.
    pub(super) fn limit_held_sessions(&self, handle: &Handle) {
        let mut held: Vec<_> =
            self.registry.sessions(handle.account()).into_iter().filter(|other| other.is_dark()).collect();
        let Some(excess) = held.len().checked_sub(self.guards.held_per_account()).filter(|excess| *excess > 0) else {
            return;
        };
        held.sort_by_key(|held| held.held_since());
        held.truncate(excess);
        self.guards.watch().reached(Limit::HeldPerAccount, handle.account());
        held.iter().for_each(|held| held.end_if_held(EndReason::Crowded));
    }
}

async fn refuse(mut tcp: TcpStream, limit: Limit) -> io::Result<()> {
    let (condition, text) = if limit == Limit::ConnectionsPerAddress {
        (StreamCondition::PolicyViolation, "Too many connections from your address")
    } else {
        (StreamCondition::ResourceConstraint, "Too many connections")
    };
    let mut reply = xml::stream_header("", "", None).to_vec();
    reply.extend_from_slice(&xml::stream_error(condition, None, Some(text)));
    tcp.write_all(&reply).await?;
    tcp.shutdown().await?;
    copy(&mut tcp.take(UNREAD), &mut sink()).await.map(drop)
}
