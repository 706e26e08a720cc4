//! The contract of a session with the relay: its inputs and outputs.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use super::event::{Closing, EndReason, Event, Peer, Stored, Token, WakeReason};
use super::identity::Resumption;
use super::names::{Attachment, SmId};
use super::queue::{Inherited, Load, Spooled};
use super::settings::Settings;
use super::sm::Handled;
use super::succession::Successor;
use crate::push::absent::Notice;
use crate::push::account::{Account, Change, LoginId};
use crate::push::notification::{Publish, PublishId};
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::seq::Seq;
use crate::xml::{Element, Frame};

/// An event for the session. Small, because each is moved several times: large values are rare, and boxed.
#[derive(Debug)]
pub enum Input {
    /// A frame from the client. Frames of an attachment that is no longer current are discarded.
    Client {
        /// The connection that it came on.
        attachment: Attachment,
        /// The frame.
        frame: Frame,
    },
    /// The client's connection ended without a stream footer: it broke or stalled, or Pushward closed it.
    ClientLost(Attachment),
    /// The client has closed or reset its connection without a stream footer.
    ClientBroke(Attachment),
    /// A frame from the server.
    Upstream(Frame),
    /// The server's connection ended without a stream footer.
    UpstreamLost,
    /// A new connection resumes the session. [`Session::check_resume`](super::Session::check_resume) has accepted its `h`.
    Attach(Box<Resumption>),
    /// Another session has changed the account. Contains the stored state.
    Account(Box<Account>),
    /// The store answered [`Output::Store`]; `None` if it failed.
    Changed(Option<Box<Account>>),
    /// The store answered [`Output::Store`].
    Stored {
        /// Its token.
        token: Token,
        /// The answer.
        stored: Stored,
    },
    /// The stanzas handed to the spool are on disk.
    Spooled {
        /// Up to this sequence number.
        up_to: Seq,
    },
    /// The spool refuses the stanzas handed to it, including those handed to it since.
    SpoolRefused,
    /// The stanzas that [`Output::Load`] requested; empty if there are no more.
    Loaded(Vec<Spooled>),
    /// The result of [`Output::TakeOver`]: the spools that have stanzas, in the order of their binds.
    TookOver(Vec<Inherited>),
    /// The request of [`Output::Load`] has failed for now.
    LoadFailed,
    /// The request of [`Output::TakeOver`] has failed for now.
    TakeOverFailed,
    /// The session ends for this reason if it is held, because other sessions of the account take its place.
    EndIfHeld(EndReason),
    /// The newest session of the device that logged in after this one; `None` if there is none any more.
    Successor(Option<Successor>),
    /// The state of the device's other sessions: one has a live client, or none any more.
    OtherSession(OtherSession),
    /// All older sessions of the device have ended or answered, or have not done so for too long.
    OlderSettled,
    /// A session of the device that ended late has left stanzas. They are to be taken over.
    Inherit,
    /// The account was removed: nothing more is kept for this session.
    AccountRemoved,
    /// A publish to send through the user's own stream (the `session` transport). [`Output::PublishedOnStream`] with the number
    /// reports its outcome.
    PublishOnStream {
        /// The relay's number of the publish.
        number: u64,
        /// The publish.
        publish: Box<Publish>,
    },
    /// The outcome of [`Output::Publish`].
    Published(Box<PublishResult>),
    /// An answer for the client that came by another way than the user's own stream.
    Routed(Element),
    /// This peer is not read from now on.
    Paused(Peer),
    /// This peer is read again.
    Unpaused(Peer),
    /// The question of [`Output::Watch`] waits to be written, because other bytes are in front of it.
    Waits(Peer),
    /// The question was written.
    Left(Peer),
    /// The amount of replies that wait for the client. While there are many, requests of the client are answered together
    /// later.
    RepliesWait(Replies),
    /// The operator has changed the settings.
    Settings(Arc<Settings>),
    /// The daemon stops in an orderly way.
    Drain,
    /// This node must not act for the account any more, because another one does. Nothing can be stored: the client is
    /// disconnected without a footer, the server gets one, and what nobody has acknowledged stays with the server, or goes back
    /// to the senders if the server does not count.
    Fence,
    /// Another process goes on with the session, if it can: what waits goes to the disk, as far as the disk accepts it, and
    /// the count of the client's stanzas is saved.
    HandOver,
    /// The wake-up has no further inputs.
    Quiet,
    /// The deadline has passed.
    Timeout,
}

/// An effect of the session, to be performed in order. Small, because each is queued and moved: large values are rare, and
/// boxed.
#[derive(Debug)]
pub enum Output {
    /// Write bytes to the current attachment that do not answer it.
    ToClient(Bytes),
    /// Write an answer to the current attachment.
    ReplyToClient(Bytes),
    /// Write bytes to the server that do not answer it.
    ToUpstream(Bytes),
    /// Write an answer to the server.
    ReplyToUpstream(Bytes),
    /// Watch the bytes that were just written to a peer: they contain a question. Pass [`Input::Waits`] if they are not
    /// written at once, then [`Input::Left`] when they are, unless the same peer is watched again meanwhile.
    Watch(Peer),
    /// The session can be resumed under this id from now on.
    Resumable(SmId),
    /// Commit a change of the account. If there is a token, answer with [`Input::Stored`].
    Store {
        /// Identifies the change in the answer.
        token: Option<Token>,
        /// The change.
        change: Box<Change>,
    },
    /// Commit these stanzas to the spool, then pass [`Input::Spooled`] with the last one's sequence number.
    Spool(Vec<Spooled>),
    /// Delete this range from a spool. A range that begins with zero is a delivered prefix, and need not be deleted at
    /// once.
    Unspool {
        /// The session that wrote the spool; `None` for the own session.
        spool: Option<LoginId>,
        /// The sequence numbers.
        places: RangeInclusive<Seq>,
    },
    /// Read back stanzas, then pass [`Input::Loaded`].
    Load(Load),
    /// Make the session the owner of the spools of the device's ended sessions, then pass [`Input::TookOver`].
    TakeOver,
    /// Move stanzas that were addressed to the account and wait for its other devices without a session to this range, then
    /// pass [`Input::Spooled`] with its last number.
    Adopt {
        /// The kind of devices.
        orphans: Orphans,
        /// The sequence numbers.
        places: RangeInclusive<Seq>,
    },
    /// Save the client's `h` for this id after the session's end.
    SaveTombstone {
        /// The id, which cannot be resumed any more.
        id: SmId,
        /// The count of the client's stanzas.
        h: Handled,
    },
    /// Wake the device by a push that needs no session.
    Wake(WakeReason),
    /// Notify a push service by a suitable transport, then pass [`Input::Published`].
    Publish(Box<Publish>),
    /// The outcome of a publish that the session sent through the user's own stream.
    PublishedOnStream {
        /// The relay's number of the publish.
        number: u64,
        /// The outcome.
        outcome: Box<Outcome>,
    },
    /// Notify devices of the account that have no session.
    NotifyAbsent(Box<Notice>),
    /// The client has answered: this session and that of [`Input::Successor`] both stay.
    BothStay,
    /// Close the attachment, after pending writes or at once.
    CloseClient(Closing),
    /// Report an event for the log and the metrics.
    Event(Box<Event>),
    /// The session is over: write the remaining bytes to both legs, close them, and drop the session.
    End(EndReason),
}

/// The state of the device's other sessions. Nothing is pushed while one of them has a live client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OtherSession {
    /// None has a live client.
    Away,
    /// One has a live client.
    Live,
}

/// The amount of replies that wait for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// None, or few.
    Few,
    /// More than half of the limit.
    Many,
}

/// Stanzas of other devices of the account that have no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Orphans {
    /// Of devices without a registration.
    OfUnregistered,
    /// Of devices with a registration.
    OfRegistered,
}

/// The outcome of a publish.
#[derive(Clone, Debug)]
pub struct PublishResult {
    /// The number of the publish in the log.
    pub id: PublishId,
    /// The registration that it was for.
    pub target: Target,
    /// The outcome.
    pub outcome: Outcome,
}
