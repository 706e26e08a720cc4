//! The two legs of a login: outputs to them, and the state of their streams.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::contract::LoginOutput;
use super::end::LoginEnd;
use crate::jid;
use crate::session::{RandomSource, SmId};
use crate::xml::{self, Element, Header};

/// The state of the streams on the two legs.
#[derive(Debug)]
enum Opened {
    /// The client has sent no header.
    None,
    /// The client's header came. No header was sent to the client.
    Client(Arc<Header>),
    /// The client has the server's header.
    Both,
    /// Both streams begin again (RFC 6120 §6.4.6). No header came on them. This one came from the client before.
    Restarting(Arc<Header>),
    /// The client's header came again and was passed on. The client has not got one yet.
    Reopening(Arc<Header>),
}

/// The outputs, in order, and the streams that have to be closed at the end.
#[derive(Debug)]
pub(super) struct Legs {
    random: RandomSource,
    opened: Opened,
    outputs: VecDeque<LoginOutput>,
}

impl Legs {
    /// Creates legs without streams.
    pub(super) fn new(random: RandomSource) -> Self {
        Self { random, opened: Opened::None, outputs: VecDeque::new() }
    }

    /// The source of random numbers.
    pub(super) fn random_source(&self) -> RandomSource {
        self.random
    }

    /// Returns an unguessable number.
    pub(super) fn random(&self) -> u128 {
        (self.random)()
    }

    /// Returns an unguessable id.
    pub(super) fn random_id(&self) -> String {
        format!("{:032x}", (self.random)())
    }

    /// Takes the next output.
    pub(super) fn poll(&mut self) -> Option<LoginOutput> {
        self.outputs.pop_front()
    }

    /// Adds an output.
    pub(super) fn out(&mut self, output: LoginOutput) {
        self.outputs.push_back(output);
    }

    /// Takes the header that opens the client's stream.
    pub(super) fn on_client_header(&mut self, header: &Arc<Header>) {
        self.opened = Opened::Client(Arc::clone(header));
    }

    /// Begins both streams again. The client's stream had this header.
    pub(super) fn restart(&mut self, header: &Arc<Header>) {
        self.out(LoginOutput::Restart);
        self.opened = Opened::Restarting(Arc::clone(header));
    }

    /// Begins the stream to the server again, with this header. The client's stream goes on.
    pub(super) fn restart_server(&mut self, header: &Header) {
        self.out(LoginOutput::RestartServer);
        self.open_server(header);
    }

    /// Passes the header on that opens the client's stream again.
    pub(super) fn reopen_server(&mut self, header: &Arc<Header>) {
        self.open_server(header);
        self.opened = Opened::Reopening(Arc::clone(header));
    }

    /// Passes the client's header on to the server.
    pub(super) fn open_server(&mut self, header: &Header) {
        self.write_server(Bytes::copy_from_slice(header.bytes()));
    }

    /// Passes the server's header on to the client.
    pub(super) fn open_client(&mut self, header: &Header) {
        self.write_client(Bytes::copy_from_slice(header.bytes()));
        self.opened = Opened::Both;
    }

    /// Writes to the client something that the server sent.
    pub(super) fn write_client(&mut self, bytes: Bytes) {
        self.out(LoginOutput::ToClient(bytes));
    }

    /// Passes an element of the server on to the client.
    pub(super) fn pass_to_client(&mut self, element: &Element) {
        self.write_client(element.bytes().clone());
    }

    /// Writes to the client an answer to its own bytes.
    pub(super) fn reply(&mut self, bytes: Bytes) {
        self.out(LoginOutput::ReplyToClient(bytes));
    }

    /// Writes to the server.
    pub(super) fn write_server(&mut self, bytes: Bytes) {
        self.out(LoginOutput::ToUpstream(bytes));
    }

    /// Passes an element of the client on to the server.
    pub(super) fn pass_to_server(&mut self, element: &Element) {
        self.write_server(element.bytes().clone());
    }

    /// Requests the session that can be resumed under this id.
    pub(super) fn find(&mut self, id: &SmId) {
        self.out(LoginOutput::Find(id.clone()));
    }

    /// Ends the login: closes the streams that are open.
    pub(super) fn end(&mut self, end: &LoginEnd) {
        if let LoginEnd::ServerClosed = end {
            self.write_client(Bytes::from_static(xml::STREAM_CLOSE));
        } else {
            if !end.is_lost_connection() {
                let last = self.end_of_client_stream(end);
                self.reply(last);
            }
            if let Opened::Both | Opened::Reopening(_) = self.opened {
                self.write_server(Bytes::from_static(xml::STREAM_CLOSE));
            }
        }
        self.out(LoginOutput::Close(end.reason()));
    }

    /// Returns the end of the client's stream. An error needs a header in front if there was none (RFC 6120 §4.9.1.2).
    fn end_of_client_stream(&self, end: &LoginEnd) -> Bytes {
        let Some(error) = end.error() else { return Bytes::from_static(xml::STREAM_CLOSE) };
        let header = match (end, &self.opened) {
            (LoginEnd::HostUnknown { header, .. }, _) => self.answer_to(header),
            (_, Opened::Both) => return error,
            (_, Opened::None) => xml::stream_header("", &self.random_id(), None),
            (
                LoginEnd::ServerLost | LoginEnd::ServerSilent,
                Opened::Client(header) | Opened::Restarting(header) | Opened::Reopening(header),
            ) => self.answer_to(header),
            (_, Opened::Client(header) | Opened::Restarting(header) | Opened::Reopening(header)) => {
                let host = header.to().and_then(jid::domain).unwrap_or_default();
                xml::stream_header(&host, &self.random_id(), None)
            }
        };
        [header, error].concat().into()
    }

    fn answer_to(&self, header: &Header) -> Bytes {
        xml::stream_header(header.to().unwrap_or_default(), &self.random_id(), header.lang())
    }
}
