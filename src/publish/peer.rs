//! The other end of a stream of our own: a component port or a push service, as the stream's task uses it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::xml::{Element, Frame, StreamCondition};

/// How long a peer may take to read the last bytes and the close.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Any connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A connection, whatever is below it.
pub(super) type PublishStream = Box<dyn Duplex>;

/// A stream that stanzas may be written to.
pub(super) struct PeerLink {
    pub(super) conn: Conn<PublishStream>,
    /// The sender of the publishes.
    pub(super) from: String,
    pub(super) answers: AnswerPolicy,
    /// How long it stays open when nothing is awaited; `None`: for ever.
    pub(super) idle: Option<Duration>,
}

/// The reaction to a stanza that answers no publish.
#[derive(Debug)]
pub(super) enum Reaction {
    Nothing,
    Reply(Bytes),
    /// The peer may not send such a stanza: the stream ends, and the sender gets this error.
    Refuse(Option<Bytes>),
    /// Another task decides. `false` means [`Reaction::Refuse`].
    Ask(oneshot::Receiver<bool>, Option<Bytes>),
    /// The peer may not send such a thing: the stream ends at once with this error.
    Close(StreamCondition),
}

/// The other end of a stream of our own.
pub(super) trait StreamPeer: Send + Sync + 'static {
    /// The right to one stream.
    type Permit: Send;
    /// Gives the account that wants the stream the right to it.
    fn admit(&self, account: Option<&BareJid>) -> Result<Self::Permit, NoPermit>;
    /// Connects.
    fn dial(&self) -> impl Future<Output = Result<PeerLink, StreamConnectError>> + Send;
    /// Takes a stanza, in the namespace of clients, from a link with such [`PeerLink::answers`]. Does not wait.
    fn on_stanza(&self, stanza: Element, answers: AnswerPolicy) -> Reaction;
    /// Takes an element that is no stanza, behind so many others of this link.
    fn on_other(&self, before: u32) -> Reaction;
    /// The peer has sent what it may not, for the first time on this link.
    fn on_misuse(&self);
    /// Counts a stanza that is refused.
    fn count_refused(&self);
    /// Counts a stanza that is dropped, since too many wait to be decided about.
    fn count_dropped(&self);
    /// Counts stanzas that came behind our footer.
    fn count_late(&self, stanzas: u64);
    /// No publish wants the stream: returns whether its task may end, because nothing can come into its queue any more.
    fn retire(&self) -> bool;
    /// Whether it is connected before a publish wants it, and again when it is lost.
    fn is_eager(&self) -> bool;
}

/// The right to write a publish, or to give it up: the first to take it has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
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
            // The one who asked may have stopped waiting.
            drop(self.reply.send(Attempt::Skipped(reason.clone())));
        }
    }
}

/// Answers the one who asked for a publish.
pub(super) fn answer(asker: oneshot::Sender<Attempt>, outcome: Outcome) {
    // It may have stopped waiting.
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
