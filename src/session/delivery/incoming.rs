//! A stanza for the client, and where it was put.

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

/// The storage of a stanza for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Placed {
    /// In memory: it is to be written.
    Memory(Seq),
    /// In memory, where it waits for a client in the background.
    HeldBack(Seq),
    /// In the spool only.
    Spool(Seq),
}
