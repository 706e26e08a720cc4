//! The other end of one of our own streams: a component port or a push service. [`StreamPeer`] is the interface that the
//! stream's task uses.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::answers::AnswerPolicy;
use super::error::{NoPermit, StreamConnectError, UnsentReason};
use super::selection::Attempt;
use crate::jid::BareJid;
use crate::net::conn::{Conn, ConnEvent, Io};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::registry::Claim;
use crate::xml::{Element, Frame, StreamCondition};

/// The time that a peer has to read the last bytes and to close the connection.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Any connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A connection over any lower layer.
pub(super) type PublishStream = Box<dyn Duplex>;

/// A stream that is ready for stanzas.
pub(super) struct PeerLink {
    pub(super) conn: Conn<PublishStream>,
    /// The `from` address of the publishes.
    pub(super) from: String,
    pub(super) answers: AnswerPolicy,
    /// The time for which the stream stays open while no answer is awaited. `None`: without limit.
    pub(super) idle: Option<Duration>,
}

/// The reaction to a stanza that answers no publish.
#[derive(Debug)]
pub(super) enum Reaction {
    Nothing,
    Reply(Bytes),
    /// The peer may not send such a stanza. The stream ends soon, and the sender gets this error.
    Refuse(Option<Bytes>),
    /// Another task decides. `false` means [`Reaction::Refuse`].
    Ask(oneshot::Receiver<bool>, Option<Bytes>),
    /// The peer may not send such an element. The stream ends at once with this error.
    Close(StreamCondition),
}

/// The other end of one of our own streams.
pub(super) trait StreamPeer: Send + Sync + 'static {
    /// The permit for one stream.
    type Permit: Send;
    /// Gives a permit for the stream to the account that needs it.
    fn admit(&self, account: Option<&BareJid>) -> Result<Self::Permit, NoPermit>;
    /// Connects.
    fn dial(&self) -> impl Future<Output = Result<PeerLink, StreamConnectError>> + Send;
    /// Handles a stanza, in the namespace of clients, from a link with these [`PeerLink::answers`]. Does not wait.
    fn on_stanza(&self, stanza: Element, answers: AnswerPolicy) -> Reaction;
    /// Handles an element that is not a stanza. `before`: the number of earlier ones on this link.
    fn on_other(&self, before: u32) -> Reaction;
    /// Handles the first forbidden stanza or element of the peer on this link.
    fn on_misuse(&self);
    /// Counts a stanza that is refused.
    fn count_refused(&self);
    /// Counts a stanza that is dropped, because too many wait for a decision.
    fn count_dropped(&self);
    /// Counts stanzas that arrived after our footer.
    fn count_late(&self, stanzas: u64);
    /// Returns whether the task may end, because no publish needs the stream and nothing can arrive in its queue any more.
    fn retire(&self) -> bool;
    /// Returns whether the stream is connected before a publish needs it, and reconnected when it is lost.
    fn is_eager(&self) -> bool;
}

/// A publish for a stream.
#[derive(Debug)]
pub(super) struct PublishJob {
    /// The account whose device is notified.
    pub(super) account: BareJid,
    pub(super) publish: Publish,
    pub(super) claim: Claim,
    pub(super) reply: oneshot::Sender<Attempt>,
}

impl PublishJob {
    pub(super) fn skip(self, reason: &UnsentReason) {
        if self.claim.take() {
            // The requester may have stopped waiting.
            drop(self.reply.send(Attempt::Skipped(reason.clone())));
        }
    }
}

/// Sends the outcome of a publish to its requester.
pub(super) fn answer(asker: oneshot::Sender<Attempt>, outcome: Outcome) {
    // The requester may have stopped waiting.
    drop(asker.send(Attempt::Done(outcome)));
}

/// The timeouts of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamTimeouts {
    /// `publish_timeout`
    pub(super) answer: Duration,
    /// `write_timeout`
    pub(super) write: Duration,
}

/// Returns the next frame, while a stream is set up.
pub(super) async fn next_frame<S: Duplex>(conn: &mut Conn<S>) -> io::Result<Frame> {
    loop {
        let next = conn.next_frame();
        if let Some(frame) = next.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            return Ok(frame);
        }
        if conn.event(Io::read_if(!conn.replies_full())).await? == ConnEvent::Closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
