//! What becomes of connections and sessions that are too many.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::Instrument;

use super::Relay;
use crate::config::ListenTls;
use crate::limits::Limit;
use crate::metrics::Wait;
use crate::registry::handle::{GIVE_WAY, Handle};
use crate::session::EndReason;
use crate::store::{SpoolBound, StoreError};
use crate::xml::{self, FrameError};

/// How long a client that is turned away has for reading why.
const PARTING: Duration = Duration::from_secs(1);
/// What it may have sent until then: if it lay unread, the kernel would reset the connection, and the reason with it.
const UNREAD: u64 = 16 * 1024;
/// So many are told why at a time; more are just closed.
const TOLD: usize = 256;

static TELLING: AtomicUsize = AtomicUsize::new(0);

/// One of those that are told.
struct Telling;

impl Telling {
    fn begin() -> Option<Self> {
        let before = TELLING.fetch_add(1, Ordering::Relaxed);
        let telling = Self;
        (before < TOLD).then_some(telling)
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        TELLING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Relay {
    /// Closes a connection for which there is no place, and says why where a client understands it before TLS.
    pub(super) fn turn_away(&self, tcp: TcpStream, tls: ListenTls, limit: Limit) {
        let telling = match tls {
            ListenTls::Starttls => Telling::begin(),
            ListenTls::Direct => None,
        };
        if let Some(telling) = telling {
            let parting = async move {
                // Whether it hears is its own affair.
                drop(timeout(PARTING, tell(tcp, limit)).await);
                drop(telling);
            };
            self.farewells.spawn(parting.in_current_span());
        }
    }

    /// Counts bytes of a client that break a limit, if they do.
    pub(super) fn too_much(&self, error: &FrameError, authenticated: bool) {
        let limit = match error {
            FrameError::TooLarge { .. } if authenticated => Limit::Stanza,
            FrameError::TooLarge { .. } => Limit::UnauthenticatedStanza,
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

    /// Counts a bound of the spool, if it is one.
    pub(super) fn spool_refuses(&self, error: &StoreError) {
        let StoreError::SpoolFull { which, .. } = error else { return };
        let limit = match which {
            SpoolBound::PerSession => Limit::SpoolPerSession,
            SpoolBound::PerAccount => Limit::SpoolPerAccount,
            SpoolBound::All => Limit::Spool,
        };
        self.guards.watch().reached(limit, "what waits for a client");
    }

    /// Has a session end if it is held, and waits for that.
    pub(super) async fn end(&self, session: &Handle, reason: EndReason) {
        if !session.end(reason).await {
            self.metrics.deadline_passed(Wait::GiveWay);
            tracing::warn!(account = %session.account(), ?reason, within = ?GIVE_WAY, "session has not given way");
        }
    }

    /// Ends the sessions of the account that are held longest, if too many are.
    pub(super) fn hold_no_more_than_allowed(self: &Arc<Self>, handle: &Handle) {
        let mut held: Vec<_> =
            self.registry.sessions(handle.account()).into_iter().filter(|other| other.is_dark()).collect();
        let Some(excess) = held.len().checked_sub(self.guards.held_per_account()).filter(|excess| *excess > 0) else {
            return;
        };
        held.sort_by_key(|held| held.held_since());
        held.truncate(excess);
        self.guards.watch().reached(Limit::HeldPerAccount, handle.account());
        held.iter().for_each(|held| held.give_way(EndReason::Crowded));
    }
}

async fn tell(mut tcp: TcpStream, limit: Limit) -> io::Result<()> {
    let (condition, text) = if limit == Limit::ConnectionsPerAddress {
        ("policy-violation", "Too many connections from your address")
    } else {
        ("resource-constraint", "Too many connections")
    };
    let mut reply = xml::stream_header("", "", None).to_vec();
    reply.extend_from_slice(&xml::stream_error(condition, None, Some(text)));
    tcp.write_all(&reply).await?;
    tcp.shutdown().await?;
    copy(&mut tcp.take(UNREAD), &mut sink()).await.map(drop)
}
