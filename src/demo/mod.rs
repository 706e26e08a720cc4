//! `pushward demo`: shows the main job of Pushward in one process. It needs only this binary.
//!
//! ```text
//!  client "juliet" ──STARTTLS──┐                        ┌─ server: localhost, no stream management, no push
//!                              ├── the real daemon ─────┤
//!  client "romeo" ──direct TLS─┘    over loopback       └─ its component push.localhost: the push service
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `server/` | the embedded XMPP server and push service |
//! | `client/` | a small XMPP client |
//! | `wire.rs`, `trace.rs` | frames and bytes for both; the observer of their traffic |
//! | `stage.rs`, `workspace.rs` | starts everything, in a temporary directory |
//! | `story.rs` | the steps of the demo, and the checks of each |
//! | `timeline.rs` | the output |
//!
//! Server and client are independent of the story. The story does not print.

pub mod client;
pub mod server;
mod stage;
mod story;
#[cfg(test)]
mod tests;
mod timeline;
pub mod trace;
pub mod wire;
mod workspace;

use std::io::{self, Stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use server::Notification;
use stage::{ACCOUNTS, DOMAIN, DemoStage, Port};
use story::{Ending, Narration, StoryFailure};
use timeline::{Colours, Timeline};
use trace::{Observer, StreamItem};

type Printed = Arc<Timeline<Stdout>>;

const INTRODUCTION: &str = "\
A phone cannot keep a connection open all the time. Pushward is a proxy between XMPP clients and their server: it notices
when a phone is gone, keeps its messages, and has the phone woken by a push notification. The server stays as it is.

This demo runs an XMPP server, Pushward, a push service and two clients in one process, over real connections. Every step
is checked. Each line shows the time, who acts, and what happens.
";

/// The options of `pushward demo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct DemoOptions {
    /// Keep everything running after the story, for XMPP clients of your own
    #[arg(long)]
    pub serve: bool,
    /// Show every stanza
    #[arg(long, short)]
    pub verbose: bool,
}

/// Runs the story and prints it. Fails unless every step has succeeded.
pub async fn run(options: DemoOptions) -> ExitCode {
    let timeline = Arc::new(Timeline::new(Colours::of_stdout(), io::stdout()));
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return failed(&timeline, &format!("failed: cannot install signal handlers: {error}")),
    };
    let stage = match DemoStage::build("", observer(&options, &timeline)).await {
        Ok(stage) => stage,
        Err(error) => return failed(&timeline, &format!("failed: {error}")),
    };
    let code = match signals.unless_interrupted(Box::pin(play(&stage, &timeline))).await {
        Some(Ok(ending)) => {
            timeline.note(&result(&ending, &options));
            if options.serve {
                signals.unless_interrupted(serve(&stage, &timeline)).await;
            }
            ExitCode::SUCCESS
        }
        Some(Err(failure)) => failed(&timeline, &failure.to_string()),
        None => failed(&timeline, "interrupted"),
    };
    stage.stop().await;
    code
}

fn failed(timeline: &Printed, why: &str) -> ExitCode {
    timeline.note(&format!("\n{why}"));
    ExitCode::FAILURE
}

fn observer(options: &DemoOptions, timeline: &Printed) -> Option<Observer> {
    let timeline = Arc::clone(timeline);
    options.verbose.then(|| Arc::new(move |item: &StreamItem<'_>| timeline.show(item)) as Observer)
}

async fn play(stage: &DemoStage, timeline: &Printed) -> Result<Ending, StoryFailure> {
    timeline.note(INTRODUCTION);
    let address = stage.server().address();
    timeline
        .print_act("server", &format!("serves {DOMAIN} on {address}; it supports neither push nor session resumption"));
    let (starttls, direct) = (stage.address(Port::Starttls), stage.address(Port::Direct));
    timeline
        .print_act("pushward", &format!("stands in front of it, on {starttls} (STARTTLS) and {direct} (direct TLS)"));
    let number = AtomicUsize::new(1);
    let narrate = |narration: Narration<'_>| match narration {
        Narration::Step(title) => {
            timeline.note(&format!("\n{}. {title}", number.fetch_add(1, Ordering::Relaxed)));
        }
        Narration::Act { who, what } => timeline.print_act(who, what),
    };
    story::play(stage, &narrate).await
}

/// Returns the numbers of the story. The last line is the one to look for in scripts.
fn result(ending: &Ending, options: &DemoOptions) -> String {
    let Ending { push_after, live_after, messages } = ending;
    let hint = if options.serve {
        ""
    } else {
        "\nTry it with an XMPP client of your own: pushward demo --serve. See every stanza: pushward demo --verbose.\n"
    };
    format!(
        "\nResult\n  \
         messages           {messages} sent, {messages} received, none twice\n  \
         notifications      1, for three messages, {:.3} s after the first of them\n  \
         live delivery      {:.1} ms, without a notification\n{hint}\n\
         every message delivered once; push after {:.1} s",
        push_after.as_secs_f64(),
        story::millis(*live_after),
        push_after.as_secs_f64(),
    )
}

/// Shows notifications as they arrive, until it is dropped.
async fn serve(stage: &DemoStage, timeline: &Printed) {
    let mut notifications = stage.server().notifications();
    timeline.note(&invitation(stage));
    while let Some(what) = next_notification(&mut notifications).await {
        timeline.print_act("push service", &what);
    }
}

fn invitation(stage: &DemoStage) -> String {
    let [(juliet, juliet_password), (romeo, romeo_password)] = ACCOUNTS;
    let (starttls, direct) = (stage.address(Port::Starttls), stage.address(Port::Direct));
    let (host, starttls) = (starttls.ip(), starttls.port());
    let certificate = stage.certificate();
    let certificate = certificate.display();
    let page = stage.page().map_or_else(String::new, |page| {
        format!("\nOpen this to see the numbers, those of the story included: http://{page}/\n")
    });
    format!(
        "
Everything keeps running until you press Ctrl-C. To log in with an XMPP client on this machine, enter:

  account        {juliet}@{DOMAIN}
  password       {juliet_password}
  or account     {romeo}@{DOMAIN}
  password       {romeo_password}
  server         {host}
  port           {starttls} (STARTTLS), or {direct_port} (direct TLS)
  push service   push.{DOMAIN}, any node (clients with push support only)
  certificate    {certificate}

The certificate was created for this run, and no authority has signed it. Accept it when the client asks, or add the file
to the certificates that the client trusts; many programs read it from SSL_CERT_FILE, as in the second example.

Juliet, with profanity (Debian package profanity). Start it and type:

  /connect {juliet}@{DOMAIN} server {host} port {starttls} tls trust

A message from Romeo, in another terminal (Debian package go-sendxmpp):

  echo 'Good night, good night!' | SSL_CERT_FILE={certificate} go-sendxmpp \\
    --username {romeo}@{DOMAIN} --password {romeo_password} --jserver {direct} --tls {juliet}@{DOMAIN}
{page}
Push notifications are shown here:
",
        direct_port = direct.port(),
    )
}

/// Returns the next notification as text, `None` once the push service has ended.
async fn next_notification(notifications: &mut Receiver<Notification>) -> Option<String> {
    let notification = match notifications.recv().await {
        Ok(notification) => notification,
        Err(RecvError::Lagged(missed)) => return Some(format!("{missed} notifications arrived too fast to be shown")),
        Err(RecvError::Closed) => return None,
    };
    let Notification { from, node, fields, .. } = notification;
    let shown = fields.iter().filter(|(var, _)| var != "FORM_TYPE").map(|(var, value)| format!("{var} \"{value}\""));
    let shown = shown.collect::<Vec<_>>().join(", ");
    Some(format!("notification from {from} for node {}: {shown}", node.as_deref().unwrap_or("(none)")))
}

/// The signals SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns the result of the work. `None` if a signal came first.
    async fn unless_interrupted<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let Self { interrupt, terminate } = self;
        select! {
            done = work => Some(done),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        }
    }
}
