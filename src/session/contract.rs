//! The contract of a session with the relay: what happens to it, and what it wants done.

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
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::seq::Seq;
use crate::xml::{Element, Frame};

/// What happened, as the relay tells it. Small, because each is handed on: what is large is rare, and boxed.
#[derive(Debug)]
pub enum Input {
    /// A frame from the client. Frames of an attachment that is no longer current are discarded.
    Client {
        /// The connection that it came on.
        attachment: Attachment,
        /// The frame.
        frame: Frame,
    },
    /// The client's connection ended without a stream footer: the way there broke, it stalled, or it was closed here.
    ClientLost(Attachment),
    /// The client has closed or reset its connection without a stream footer.
    ClientBroke(Attachment),
    /// A frame from the server.
    Upstream(Frame),
    /// The server's connection ended without a stream footer.
    UpstreamLost,
    /// A new connection takes the session over; [`Session::check_resume`](super::Session::check_resume) has accepted its `h`.
    Attach(Box<Resumption>),
    /// What is kept about the account has been changed by another session: as the store has it now.
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
    /// What was handed to the spool is on disk.
    Spooled {
        /// Up to this sequence number.
        up_to: Seq,
    },
    /// The spool does not take what it was handed, nor anything that was handed to it since.
    SpoolRefused,
    /// What [`Output::Load`] asked for; nothing if there is no more.
    Loaded(Vec<Spooled>),
    /// What [`Output::TakeOver`] asked for: the spools that have stanzas, in the order of their binds.
    TookOver(Vec<Inherited>),
    /// What [`Output::Load`] asked for cannot be read now.
    LoadFailed,
    /// What [`Output::TakeOver`] asked for cannot be done now.
    TakeOverFailed,
    /// If the session is held, it ends for this reason: others of the account take its place.
    GiveWay(EndReason),
    /// The newest session of the device that logged in behind this one; `None`: there is none any more.
    Successor(Option<Successor>),
    /// Another session of the device has its client, which acknowledges; or none has any more.
    OtherSession(OtherSession),
    /// All older sessions of the device have ended, given way or answered, or too long have not.
    OlderSettled,
    /// A session of the device that ended late has left stanzas: they are to be taken over.
    Inherit,
    /// The account was removed: nothing is kept for this session any more.
    AccountRemoved,
    /// Send this publish through the user's own stream, the `session` transport, then say [`Output::Carried`] with the number.
    Carry {
        /// The relay's number of it.
        number: u64,
        /// The publish.
        publish: Box<Publish>,
    },
    /// What became of [`Output::Publish`].
    Published(Box<PublishResult>),
    /// An answer for the client that came by another way than the user's own stream.
    Routed(Element),
    /// This peer is not read from now on.
    Paused(Peer),
    /// This peer is read again.
    Unpaused(Peer),
    /// What [`Output::Watch`] is about has not left: other bytes are in front of it.
    Waits(Peer),
    /// It has left now.
    Left(Peer),
    /// Many replies wait for the client: what it asks for is answered together once they have left; or they have left.
    RepliesWait(Replies),
    /// The operator has set others.
    Settings(Arc<Settings>),
    /// The daemon ends in an orderly way.
    Drain,
    /// The wake-up has no further input.
    Quiet,
    /// The deadline has come.
    Timeout,
}

/// What to do, in order. Small, because each is queued and handed on: what is large is rare, and boxed.
#[derive(Debug)]
pub enum Output {
    /// Write to the current attachment what comes from elsewhere.
    ToClient(Bytes),
    /// Write to the current attachment what answers it.
    ReplyToClient(Bytes),
    /// Write to the server what comes from elsewhere.
    ToUpstream(Bytes),
    /// Write to the server what answers it.
    ReplyToUpstream(Bytes),
    /// A peer was asked something with the bytes that were written to it last. Say [`Input::Waits`] if they do not leave at once,
    /// and then [`Input::Left`] when they have, unless the same peer was watched again meanwhile.
    Watch(Peer),
    /// The session can be resumed under this id from now on.
    Resumable(SmId),
    /// Commit a change of the account, then say so with [`Input::Stored`] if there is a token.
    Store {
        /// Names the change in the answer.
        token: Option<Token>,
        /// The change.
        change: Box<Change>,
    },
    /// Commit these stanzas to the spool, then say [`Input::Spooled`] with the last one's sequence number.
    Spool(Vec<Spooled>),
    /// Delete these places from a spool. What begins with zero is a prefix that was delivered, and need not be deleted at once.
    Unspool {
        /// The session that wrote the spool; `None` for the own one.
        spool: Option<LoginId>,
        /// The places.
        places: RangeInclusive<Seq>,
    },
    /// Read back stanzas, then say [`Input::Loaded`].
    Load(Load),
    /// Make the session the owner of what the device's ended sessions have spooled, then say [`Input::TookOver`].
    TakeOver,
    /// Move stanzas to these places that were addressed to the account and wait for its other devices, which have no session;
    /// then say [`Input::Spooled`] with the last place.
    Adopt {
        /// Those of which devices.
        orphans: Orphans,
        /// The places.
        places: RangeInclusive<Seq>,
    },
    /// Remember the client's `h` for this id after the session's end.
    SaveTombstone {
        /// The id, which cannot be resumed any more.
        id: SmId,
        /// The count of what the client sent.
        h: Handled,
    },
    /// The device is to be woken by a push that needs no session.
    Wake(WakeReason),
    /// Notify a push service by whatever transport is fit, then say [`Input::Published`].
    Publish(Box<Publish>),
    /// What became of a publish that the session was to carry.
    Carried {
        /// The relay's number of it.
        number: u64,
        /// The outcome.
        outcome: Box<Outcome>,
    },
    /// Devices of the account that have no session are to hear of this.
    Elsewhere(Box<Notice>),
    /// The client has answered: this session and that of [`Input::Successor`] both stay.
    Answered,
    /// Close the attachment: after what was written to it, or at once.
    CloseClient(Closing),
    /// Something an operator may want to know.
    Event(Box<Event>),
    /// The session is over: write what is left to both legs, close them and forget it.
    End(EndReason),
}

/// Whether another session of the device has its client, which acknowledges: nothing is pushed while it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherSession {
    /// None has.
    Away,
    /// One has.
    Live,
}

/// How many replies wait for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// None, or few.
    Few,
    /// More than half of what may wait.
    Many,
}

/// Stanzas of other devices of the account that have no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphans {
    /// Of devices without a registration.
    OfUnregistered,
    /// Of devices with a registration.
    OfRegistered,
}

/// What became of a publish.
#[derive(Clone, Debug)]
pub struct PublishResult {
    /// Whom it was for.
    pub target: Target,
    /// The outcome.
    pub outcome: Outcome,
}
