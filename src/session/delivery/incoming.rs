//! A stanza for the client, and its place.

use crate::seq::{Seq, ServerSeq};
use crate::session::cause::Cause;
use crate::xml::Element;

/// A stanza for the client.
#[derive(Debug)]
pub(in crate::session) struct Incoming {
    pub(in crate::session) element: Element,
    /// Its number on the server's stream, if the server counts.
    pub(in crate::session) server_seq: Option<ServerSeq>,
    pub(in crate::session) cause: Cause,
}

/// Where a stanza for the client went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Placed {
    /// Into memory: it is to be written.
    Memory(Seq),
    /// Into memory, where it waits for a client in the background.
    HeldBack(Seq),
    /// Only the spool is to have it.
    Spool(Seq),
}
