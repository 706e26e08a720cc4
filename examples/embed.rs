//! Embeds the core: one session between two in-memory streams, under virtual time.
//!
//! ```sh
//! cargo run --example embed
//! ```
//!
//! A phone enables stream management and push, and loses its connection. A message comes, the session asks for a notification,
//! the phone resumes, and the message is delivered. There is no socket, no disk and no waiting: bytes are strings, the store is a
//! value, and time passes because the program says so. A real embedder does with each [`Output`] what `src/relay` does.

use pushward::clock::Instant;
use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pushward::clock::UnixMillis;
use pushward::jid::FullJid;
use pushward::push::account::{Account, Change, DeviceId, DeviceRecognition, LoginId};
use pushward::push::outcome::Outcome;
use pushward::session::{
    Attachment, Bound, Clock, Input, Output, Owner, PublishResult, Resumption, ResumptionTokens, Session, Settings,
    Stored, sm,
};
use pushward::xml::{Frame, FrameError, FrameLimits, Framer, Header, stream_header};

/// The embedder: it owns what the session does not know, which is the time, the streams and the store.
struct Embedder {
    session: Session,
    now: Instant,
    account: Account,
    /// Answers to the session's outputs. They are passed to it as its next inputs.
    answers: VecDeque<Input>,
    notifications: usize,
}

impl Embedder {
    /// Starts a session for a phone that has just bound `juliet@example.org/phone` on a server without stream management.
    fn start(header: &Arc<Header>) -> Result<Self, Box<dyn Error>> {
        let now = Instant::now();
        let (device, login) = (DeviceId(1), LoginId(1));
        let mut account = Account::default();
        account.apply(Change::Login {
            candidate: device,
            login,
            resource: "phone".into(),
            agent: None,
            presented: None,
            at: UnixMillis::new(0).to_secs(),
        });
        let bound = Bound::new(FullJid::new("juliet@example.org/phone")?, Arc::clone(header), Arc::clone(header));
        let recognition = DeviceRecognition::Guessed;
        let owner = Owner { device, recognition, account: account.clone(), waits: false, older: false };
        let clock = Clock { now, wall: UnixMillis::new(0) };
        let settings = Settings { session_queue: 1 << 20, ..Settings::default() };
        let session = Session::new(Arc::new(settings), bound, owner, rand::random, clock);
        Ok(Self { session, now, account, answers: VecDeque::new(), notifications: 0 })
    }

    /// Passes one input to the session, performs every output, and says that nothing more is at hand.
    fn input(&mut self, input: Input) {
        self.answers.push_back(input);
        while let Some(input) = self.answers.pop_front() {
            self.handle(input);
        }
        self.handle(Input::Quiet);
    }

    fn handle(&mut self, input: Input) {
        self.session.handle(self.now, input);
        // All outputs are performed before the next input.
        while let Some(output) = self.session.poll() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        let show = |stream: &str, bytes: &Bytes| println!("{stream} {}", String::from_utf8_lossy(bytes));
        match output {
            Output::ToClient(bytes) | Output::ReplyToClient(bytes) => show("  to the client:", &bytes),
            Output::ToUpstream(bytes) | Output::ReplyToUpstream(bytes) => show("  to the server:", &bytes),
            Output::Store { token, change } => {
                let device = self.account.apply(*change);
                self.answers.push_back(Input::Changed(Some(Box::new(self.account.clone()))));
                let stored = |token| Input::Stored { token, stored: Stored::Durable(device) };
                self.answers.extend(token.map(stored));
            }
            Output::Spool(stanzas) => {
                // A real store commits them first.
                self.answers.extend(stanzas.last().map(|last| Input::Spooled { up_to: last.seq }));
            }
            Output::Publish(publish) => {
                self.notifications += 1;
                println!("  notification for {:?}, {} waiting", publish.target.service.as_str(), publish.summary.count);
                let result = PublishResult { id: publish.id, target: publish.target, outcome: Outcome::Accepted };
                self.answers.push_back(Input::Published(Box::new(result)));
            }
            Output::Event(event) => println!("  event: {event:?}"),
            output @ (Output::Watch(_)
            | Output::Resumable(_)
            | Output::Unspool { .. }
            | Output::Load(_)
            | Output::TakeOver
            | Output::Adopt { .. }
            | Output::SaveTombstone { .. }
            | Output::Wake(_)
            | Output::PublishedOnStream { .. }
            | Output::NotifyAbsent(_)
            | Output::BothStay
            | Output::CloseClient(_)
            | Output::End(_)) => println!("  {output:?}"),
        }
    }

    /// Lets time pass; each deadline of the session is met at its moment.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.session.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = until;
    }
}

/// Frames of bytes that came from a peer. A real embedder keeps one framer for each stream and appends what it reads.
fn frames(header: &Header, bytes: &str) -> Result<Vec<Frame>, FrameError> {
    let mut framer = Framer::new(FrameLimits::client(1 << 20, 128));
    framer.buffer().extend_from_slice(header.bytes());
    framer.buffer().extend_from_slice(bytes.as_bytes());
    let mut frames = Vec::new();
    while let Some(frame) = framer.next_frame()? {
        if let Frame::Element(_) = frame {
            frames.push(frame);
        }
    }
    Ok(frames)
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let header = Arc::new(Header::parse(stream_header("example.org", "1", None))?);
    let mut embedder = Embedder::start(&header)?;
    let from_client = |embedder: &mut Embedder, xml: &str| -> Result<(), FrameError> {
        for frame in frames(&header, xml)? {
            let attachment = embedder.session.attachment();
            embedder.input(Input::Client { attachment, frame });
        }
        Ok(())
    };

    println!("The phone enables stream management and push:");
    from_client(&mut embedder, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>")?;
    from_client(
        &mut embedder,
        "<iq type='set' id='1'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='phone-1'/></iq>",
    )?;
    from_client(&mut embedder, "<a xmlns='urn:xmpp:sm:3' h='1'/>")?;

    println!("The phone loses its network:");
    embedder.input(Input::ClientLost(Attachment::FIRST));

    println!("A message comes from the server, and some time passes:");
    let message = "<message from='romeo@example.net/balcony' type='chat' id='m1'><body>Are you there?</body></message>";
    for frame in frames(&header, message)? {
        embedder.input(Input::Upstream(frame));
    }
    embedder.pass(Duration::from_secs(30));
    assert_eq!(embedder.notifications, 1, "the message has not been announced");

    println!("The phone comes back and resumes; it has received one stanza, the answer to its registration:");
    let h = sm::Handled::new(1);
    embedder.session.check_resume(h).map_err(|_| "the session cannot be resumed")?;
    embedder.input(Input::Attach(Box::new(Resumption {
        h,
        server_header: Arc::clone(&header),
        success: None,
        tokens: ResumptionTokens::default(),
    })));
    Ok(())
}
