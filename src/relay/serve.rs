//! The stages of a connection. Each is a separate future, so that an idle connection needs little memory.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::select;
use tracing::Instrument;

use super::shared::Relay;
use super::{arrivals, bound, client_address, handshake, login, node_answers, relayed};
use crate::clock::Instant;
use crate::config::Listen;
use crate::metrics::NodeArrival;
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
        // Boxed here, so that the task does not reserve memory for data that only the login needs.
        let login = Box::pin(Arc::clone(&self).log_in(tcp, peer, listen, admission));
        self.follow(login)
    }

    /// Serves one connection to the listener for other nodes until it, or the session that it becomes, ends.
    pub fn serve_node(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        admission: Admission,
    ) -> impl Future<Output = ()> + Send + use<> {
        let login = Box::pin(Arc::clone(&self).log_in_passed(tcp, peer, admission));
        self.follow(login)
    }

    /// Runs a login and what it leads to.
    fn follow(
        self: Arc<Self>,
        login: impl Future<Output = Option<login::LoginResult>> + Send,
    ) -> impl Future<Output = ()> + Send {
        use tracing::field::Empty;
        let span = tracing::info_span!("session", peer = Empty, proxy = Empty, jid = Empty);
        let stages = async move {
            match self.until_handover(login).await.flatten() {
                Some(login::LoginResult::Session(login)) => {
                    tracing::Span::current().record("jid", tracing::field::display(&login.bound.jid));
                    Box::pin(bound::run(self, login)).await;
                }
                Some(login::LoginResult::Relayed(relayed)) => {
                    let copy = Box::pin(relayed::run(&self, relayed));
                    self.until_handover(copy).await.unwrap_or_default();
                }
                None => {}
            }
        };
        stages.instrument(span)
    }

    /// Waits for a login or the copy of a stream, which a handover cancels: the client logs in at the next process.
    async fn until_handover<T>(&self, stage: impl Future<Output = T>) -> Option<T> {
        select! {
            biased;
            done = stage => Some(done),
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
    ) -> Option<login::LoginResult> {
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

    /// The same for a client that another node has passed on.
    async fn log_in_passed(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        admission: Admission,
    ) -> Option<login::LoginResult> {
        let Ok(permit) = admission else {
            self.metrics().node_arrival(NodeArrival::Limited);
            return None;
        };
        let _logging_in = self.metrics().logging_in();
        let snapshot = self.current();
        let deadline = Instant::now() + snapshot.config.limits.timeouts.handshake;
        let accepted = client_address::AcceptedConnection { tcp, peer, permit };
        let arrivals::PassedOn { secured, addresses } =
            match Box::pin(arrivals::identify(&self, &snapshot, accepted, deadline)).await? {
                arrivals::Arrived::Client(passed) => *passed,
                arrivals::Arrived::Request(stream) => {
                    Box::pin(node_answers::serve(&self, *stream)).await;
                    return None;
                }
            };
        Box::pin(login::run(&self, snapshot, secured, addresses)).await
    }
}
