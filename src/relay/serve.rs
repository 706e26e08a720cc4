//! The stages of a connection. Each is a separate future, so that an idle connection needs little memory.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::select;
use tracing::Instrument;

use super::shared::Relay;
use super::{bound, client_address, handshake, login};
use crate::clock::Instant;
use crate::config::Listen;
use crate::net::listener::Admission;

impl Relay {
    /// Serves one connection until it, or the session that it becomes, ends.
    pub fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        listen: Arc<Listen>,
        admission: Admission,
    ) -> impl Future<Output = ()> + Send + use<> {
        use tracing::field::Empty;
        let span = tracing::info_span!("session", peer = Empty, proxy = Empty, jid = Empty);
        // Boxed here, so that the task does not reserve memory for data that only the login needs.
        let login = Box::pin(Arc::clone(&self).log_in(tcp, peer, listen, admission));
        let stages = async move {
            if let Some(login) = self.until_handover(login).await {
                tracing::Span::current().record("jid", tracing::field::display(&login.bound.jid));
                Box::pin(bound::run(self, login)).await;
            }
        };
        stages.instrument(span)
    }

    /// Waits for a login, which a handover cancels: its client logs in at the next process.
    async fn until_handover<T>(&self, login: impl Future<Output = Option<T>>) -> Option<T> {
        select! {
            biased;
            login = login => login,
            () = self.handover().begun() => None,
        }
    }

    /// Runs the stages up to the login. Each stage and its result have their own box: a connection that sends nothing needs
    /// little memory, and a session that lasts for days keeps nothing of its handshake.
    async fn log_in(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        listen: Arc<Listen>,
        admission: Admission,
    ) -> Option<Box<login::Login>> {
        let permit = match admission {
            Ok(permit) => permit,
            Err(limit) => {
                self.overload().turn_away(tcp, listen.tls, limit);
                return None;
            }
        };
        let _logging_in = self.metrics().logging_in();
        let snapshot = self.current();
        let deadline = Instant::now() + snapshot.config.limits.timeouts.handshake;
        let accepted = client_address::AcceptedConnection { tcp, peer, permit };
        let known = Box::pin(client_address::identify(&self, accepted, &listen, deadline)).await?;
        let addresses = known.addresses;
        let secured = Box::pin(handshake::secure(&self, &snapshot, known, listen.tls, deadline)).await?;
        Box::pin(login::run(&self, snapshot, secured, addresses)).await
    }
}
