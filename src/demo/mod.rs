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

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use server::Notification;
use stage::{ACCOUNTS, DOMAIN, DemoStage, Port};
use story::{Ending, StoryFailure};
use timeline::{Colours, Timeline};
use trace::{Observer, Sighting};

type Printed = Arc<Timeline<Stdout>>;

/// The options of `pushward demo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct DemoOptions {
    /// Keep the server running for clients of your own
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
        Err(error) => return failed(&timeline, &format!("failed: cannot listen for signals: {error}")),
    };
    let stage = match DemoStage::build("", observer(&options, &timeline)).await {
        Ok(stage) => stage,
        Err(error) => return failed(&timeline, &format!("failed: {error}")),
    };
    let code = match signals.unless_interrupted(Box::pin(play(&stage, &timeline))).await {
        Some(Ok(ending)) => {
            let seconds = ending.push_after.as_secs_f64();
            timeline.note(&format!("\nevery message delivered once; push after {seconds:.1} s"));
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
    options.verbose.then(|| Arc::new(move |sighting: &Sighting<'_>| timeline.show(sighting)) as Observer)
}

async fn play(stage: &DemoStage, timeline: &Printed) -> Result<Ending, StoryFailure> {
    let address = stage.server().address();
    timeline.tell("server", &format!("{DOMAIN} on {address}: plain XMPP, no stream management, no push"));
    let (starttls, direct) = (stage.address(Port::Starttls), stage.address(Port::Direct));
    timeline.tell("pushward", &format!("in front of it on {starttls} (STARTTLS) and {direct} (direct TLS)"));
    story::play(stage, &|who, what| timeline.tell(who, what)).await
}

/// Prints notifications as they arrive. Runs until it is dropped.
async fn serve(stage: &DemoStage, timeline: &Printed) {
    let mut notifications = stage.server().notifications();
    timeline.note(&invitation(stage));
    while let Some(what) = next_notification(&mut notifications).await {
        timeline.tell("push service", &what);
    }
}

fn invitation(stage: &DemoStage) -> String {
    let account = |(name, password): (&str, &str)| (format!("{name}@{DOMAIN}"), format!("password {password}"));
    let [juliet, romeo] = ACCOUNTS.map(account);
    let rows = [
        juliet,
        romeo,
        ("STARTTLS".to_owned(), stage.address(Port::Starttls).to_string()),
        ("direct TLS".to_owned(), stage.address(Port::Direct).to_string()),
        ("push service".to_owned(), format!("push.{DOMAIN}, any node")),
        ("certificate".to_owned(), format!("{}, made for development only", stage.certificate().display())),
    ];
    let rows = rows.map(|(what, value)| format!("  {what:<16}  {value}\n")).concat();
    format!("\nNow with a client of your own, which must be told to trust the certificate; Ctrl-C ends it.\n{rows}")
}

/// Waits for the next notification. `None` once the push service has ended.
async fn next_notification(notifications: &mut Receiver<Notification>) -> Option<String> {
    let notification = match notifications.recv().await {
        Ok(notification) => notification,
        Err(RecvError::Lagged(missed)) => return Some(format!("{missed} notifications came too fast to be shown")),
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
