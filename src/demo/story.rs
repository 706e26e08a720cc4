//! The story: a phone goes dark, gets messages and a push, and resumes its session. Every step is checked.
//!
//! The story prints nothing. It reports each step to [`Narrate`].

use std::fmt;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{timeout, timeout_at};

use super::client::{ClientError, DemoClient, SavedSession};
use super::server::{DemoAccount, Notification};
use super::stage::{ACCOUNTS, DOMAIN, DemoStage, Port};
use crate::jid::FullJid;
use crate::xml::{Element, XmlWriter, ns};

/// The time limit for the whole story.
const TOTAL: Duration = Duration::from_secs(30);
/// The time limit for the push after the first message.
const PUSH_WITHIN: Duration = Duration::from_secs(2);
/// The time for which the push is awaited, so that a late push can be distinguished from a missing one.
const PUSH_AWAITED: Duration = Duration::from_secs(5);
/// The time limit for a message to a live phone.
const LIVE: Duration = Duration::from_secs(2);
/// The time after that in which nothing else may happen.
const SILENCE: Duration = Duration::from_millis(1500);

const PHONE: &str = "phone";
const NODE: &str = "juliets-phone";
const SERVICE: &str = "push.localhost";

/// The ids and bodies of Romeo's messages to the dark phone.
const WRITTEN: [(&str, &str); 3] = [
    ("m1", "But, soft! what light through yonder window breaks?"),
    ("m2", "It is the east, and Juliet is the sun."),
    ("m3", "Arise, fair sun, and kill the envious moon."),
];
/// Romeo's message to the live phone.
const LAST: (&str, &str) = ("m4", "O, speak again, bright angel!");

/// A part of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Narration<'a> {
    /// A step begins.
    Step(&'a str),
    /// One of the parties did something.
    Act { who: &'a str, what: &'a str },
}

/// Receives the story while it is played.
pub(super) type Narrate<'a> = &'a (dyn Fn(Narration<'_>) + Sync);

/// The result of a successful story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// The time from the first message to the notification.
    pub(super) push_after: Duration,
    /// From the message to the connected phone until its arrival.
    pub(super) live_after: Duration,
    /// Messages that the phone received.
    pub(super) messages: usize,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("failed: {step}: {found}")]
pub(super) struct StoryFailure {
    step: &'static str,
    found: String,
}

/// The difference between the expected and the actual result.
#[derive(Debug, Error)]
enum WrongStep {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Found(String),
}

fn wrong(found: impl fmt::Display) -> WrongStep {
    WrongStep::Found(found.to_string())
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), WrongStep> {
    if holds { Ok(()) } else { Err(wrong(otherwise())) }
}

struct Story<'a> {
    stage: &'a DemoStage,
    narrate: Narrate<'a>,
    until: tokio::time::Instant,
}

/// Runs the story.
///
/// # Errors
/// Returns the first step that fails, with the actual result.
pub(super) async fn play(stage: &DemoStage, narrate: Narrate<'_>) -> Result<Ending, StoryFailure> {
    let story = Story { stage, narrate, until: tokio::time::Instant::now() + TOTAL };
    let mut pushes = stage.server().notifications();
    let mut phone = story.step("Juliet's phone logs in through Pushward", story.phone_logs_in()).await?;
    story.step("The phone looks for push support", story.push_is_offered(&mut phone)).await?;
    story.step("The phone registers for push notifications", story.push_is_enabled(&mut phone)).await?;
    let session = story.step("The phone loses its connection", story.phone_goes_dark(phone)).await?;
    let mut romeo = story.step("Romeo logs in", story.romeo_logs_in()).await?;
    let first = story.step("Romeo writes to Juliet", story.romeo_writes(&mut romeo)).await?;
    let pushed = story.push_comes(&mut pushes, first, session.jid());
    let push_after = story.step("Pushward sends a push notification", pushed).await?;
    let mut phone = story.step("The phone wakes up and reconnects", story.phone_comes_back(&session)).await?;
    story.step("The phone receives every message once, in order", story.messages_come(&mut phone)).await?;
    let live = story.live_delivery(&mut phone, &mut romeo, &mut pushes);
    let live_after = story.step("A connected phone needs no push notification", live).await?;
    story.step("Juliet and Romeo log out", story.curtain(phone, romeo)).await?;
    Ok(Ending { push_after, live_after, messages: WRITTEN.len() + 1 })
}

impl Story<'_> {
    async fn step<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, WrongStep>>,
    ) -> Result<T, StoryFailure> {
        (self.narrate)(Narration::Step(step));
        match timeout_at(self.until, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(wrong)) => Err(StoryFailure { step, found: wrong.to_string() }),
            Err(_) => Err(StoryFailure { step, found: format!("not finished within {TOTAL:?}") }),
        }
    }

    fn act(&self, who: &str, what: &str) {
        (self.narrate)(Narration::Act { who, what });
    }

    async fn log_in(&self, name: &str, port: Port) -> Result<DemoClient, WrongStep> {
        let password = ACCOUNTS.iter().find(|(account, _)| *account == name).map_or("", |(_, password)| password);
        let account = DemoAccount { name: name.to_owned(), password: password.to_owned(), contacts: Vec::new() };
        Ok(DemoClient::log_in(&self.stage.place(name, port), &account).await?)
    }

    async fn phone_logs_in(&self) -> Result<DemoClient, WrongStep> {
        let mut phone = self.log_in("juliet", Port::Starttls).await?;
        phone.bind(PHONE).await?;
        let enabled = phone.enable_resumption().await?;
        phone.appear().await?;
        phone.ping().await?;
        self.act("juliet", &format!("logs in as {} over STARTTLS", phone.jid()?));
        let max = enabled.max.map_or("for a while".to_owned(), |max| format!("for {} h", max.as_secs() / 3600));
        self.act(
            "pushward",
            &format!("will hold her session {max} if the connection breaks; the server cannot do that"),
        );
        Ok(phone)
    }

    async fn push_is_offered(&self, phone: &mut DemoClient) -> Result<(), WrongStep> {
        let account = phone.jid()?.to_bare();
        let query = format!("<query xmlns='{}'/>", ns::DISCO_INFO);
        let answer = phone.request("get", Some(account.as_str()), query.as_bytes()).await?;
        let query = answer.node().child("query", ns::DISCO_INFO);
        let offers = query.is_some_and(|query| query.children().any(|f| f.attr("var").as_deref() == Some(ns::PUSH)));
        check(offers, || format!("no {} in {}", ns::PUSH, text(&answer)))?;
        self.act("juliet", &format!("asks which features {account} has, and finds push notifications ({})", ns::PUSH));
        self.act("pushward", "added that feature to the server's answer; the server does not know it");
        Ok(())
    }

    async fn push_is_enabled(&self, phone: &mut DemoClient) -> Result<(), WrongStep> {
        phone.request("set", None, &push_request("enable")).await?;
        self.act("juliet", &format!("asks for notifications through the push service {SERVICE}"));
        self.act("pushward", "stores this registration on disk and does not forward it to the server");
        Ok(())
    }

    async fn phone_goes_dark(&self, phone: DemoClient) -> Result<SavedSession, WrongStep> {
        let session = phone.vanish()?;
        self.act(
            "juliet",
            "is offline: the connection broke and was not closed, as in a tunnel or when iOS suspends an app",
        );
        self.act(
            "pushward",
            "holds her session on the server, so others still see her online (the session is \"dark\")",
        );
        Ok(session)
    }

    async fn romeo_logs_in(&self) -> Result<DemoClient, WrongStep> {
        let mut romeo = self.log_in("romeo", Port::Direct).await?;
        romeo.bind("orchard").await?;
        romeo.appear().await?;
        romeo.ping().await?;
        self.act("romeo", &format!("logs in as {} over direct TLS", romeo.jid()?));
        Ok(romeo)
    }

    async fn romeo_writes(&self, romeo: &mut DemoClient) -> Result<Instant, WrongStep> {
        let first = Instant::now();
        for (id, body) in WRITTEN {
            romeo.say(&format!("juliet@{DOMAIN}"), id, body).await?;
            self.act("romeo", &format!("writes \"{body}\""));
        }
        // The answer shows that the server has processed all messages, because the ping was sent after them.
        romeo.ping().await?;
        let returned = romeo.messages();
        check(returned.is_empty(), || format!("the server returned messages: {}", texts(&returned)))?;
        self.act("server", "delivers the messages to Juliet's session, as usual");
        self.act("pushward", "stores them on disk until her phone acknowledges them");
        Ok(first)
    }

    async fn push_comes(
        &self,
        pushes: &mut Receiver<Notification>,
        first: Instant,
        session: &FullJid,
    ) -> Result<Duration, WrongStep> {
        let push = match timeout(PUSH_AWAITED, pushes.recv()).await {
            Ok(push) => push.map_err(wrong)?,
            Err(_) => return Err(wrong(format!("no notification within {PUSH_AWAITED:?}"))),
        };
        let after = push.at.saturating_duration_since(first);
        let (count, body) = (push.field("message-count"), push.field("last-message-body"));
        let seconds = after.as_secs_f64();
        let content = format!("message-count {}, body \"{}\"", count.unwrap_or("none"), body.unwrap_or_default());
        self.act(
            "push service",
            &format!("receives one notification: {content}, {seconds:.3} s after the first message"),
        );
        check(push.node.as_deref() == Some(NODE), || format!("the notification is for node {:?}", push.node))?;
        check(count == Some("3"), || format!("{content}, not 3"))?;
        check(after <= PUSH_WITHIN, || format!("it came {seconds:.3} s after the first message"))?;
        check(self.stage.server().is_online(session), || format!("{session} is gone from the server"))?;
        self.act(
            "push service",
            "would now wake the phone through Apple, Google or UnifiedPush; this one only reports",
        );
        self.act("server", &format!("noticed nothing: for it {session} is still online"));
        Ok(after)
    }

    async fn phone_comes_back(&self, session: &SavedSession) -> Result<DemoClient, WrongStep> {
        let mut phone = self.log_in("juliet", Port::Starttls).await?;
        phone.resume(session).await?;
        self.act(
            "juliet",
            &format!("connects again and resumes the session {} instead of starting a new one", phone.jid()?),
        );
        Ok(phone)
    }

    async fn messages_come(&self, phone: &mut DemoClient) -> Result<(), WrongStep> {
        // The answer arrives after all waiting messages, and after any duplicates.
        phone.ping().await?;
        let messages = phone.messages();
        let same = messages.len() == WRITTEN.len()
            && messages.iter().zip(WRITTEN).all(|(message, (id, text))| is(message, id, text));
        check(same, || format!("expected m1, m2, m3, received {}", texts(&messages)))?;
        for message in &messages {
            let delay = message.node().child("delay", ns::DELAY);
            let stamp = delay.and_then(|delay| delay.attr("stamp")).filter(|stamp| is_time(stamp));
            let stamp = stamp.ok_or_else(|| wrong(format!("no time stamp in {}", text(message))))?;
            self.act("juliet", &format!("receives \"{}\" (waited since {stamp})", body(message)));
        }
        let handled = phone.acknowledge().await?;
        self.act("juliet", &format!("acknowledges everything ({handled} stanzas in this session)"));
        self.act("pushward", "deletes its copies");
        Ok(())
    }

    async fn live_delivery(
        &self,
        phone: &mut DemoClient,
        romeo: &mut DemoClient,
        pushes: &mut Receiver<Notification>,
    ) -> Result<Duration, WrongStep> {
        let sent = Instant::now();
        romeo.say(&format!("juliet@{DOMAIN}"), LAST.0, LAST.1).await?;
        self.act("romeo", &format!("writes \"{}\"", LAST.1));
        let message = phone.message(LIVE).await?;
        let took = sent.elapsed();
        check(is(&message, LAST.0, LAST.1), || format!("expected {}, received {}", LAST.0, text(&message)))?;
        check(message.node().child("delay", ns::DELAY).is_none(), || format!("delivered late: {}", text(&message)))?;
        self.act("juliet", &format!("receives it {:.1} ms later, over her connection", millis(took)));
        phone.listen(SILENCE).await?;
        let more = phone.messages();
        check(more.is_empty(), || format!("received more after the last message: {}", texts(&more)))?;
        match pushes.try_recv() {
            Err(TryRecvError::Empty) => {}
            Err(error) => return Err(wrong(error)),
            Ok(push) => return Err(wrong(format!("a second notification arrived: {:?}", push.fields))),
        }
        self.act("push service", &format!("receives nothing in the next {:.1} s", SILENCE.as_secs_f64()));
        Ok(took)
    }

    async fn curtain(&self, mut phone: DemoClient, romeo: DemoClient) -> Result<(), WrongStep> {
        phone.request("set", None, &push_request("disable")).await?;
        phone.close().await?;
        romeo.close().await?;
        self.act("juliet", "ends her registration and logs out; Romeo logs out too");
        Ok(())
    }
}

/// Returns `<enable/>` or `<disable/>` (XEP-0357 §5, §6).
fn push_request(name: &str) -> bytes::Bytes {
    let mut xml = XmlWriter::new();
    xml.start(name).attr("xmlns", ns::PUSH).attr("jid", SERVICE).attr("node", NODE);
    xml.finish()
}

fn body(message: &Element) -> String {
    message.node().child("body", ns::CLIENT).map(|body| body.text().into_owned()).unwrap_or_default()
}

fn is(message: &Element, id: &str, text: &str) -> bool {
    message.node().attr("id").as_deref() == Some(id) && body(message) == text
}

/// In milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn is_time(stamp: &str) -> bool {
    humantime::parse_rfc3339(stamp).is_ok()
}

fn text(element: &Element) -> String {
    String::from_utf8_lossy(element.bytes()).into_owned()
}

fn texts(elements: &[Element]) -> String {
    if elements.is_empty() { "none".to_owned() } else { elements.iter().map(text).collect::<Vec<_>>().join(" ") }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::demo::trace::{Observer, StreamItem};

    /// Intervals of zero, so that a superfluous push arrives while the test still checks.
    const EAGER: &str = "[push]\nmin_interval = \"0s\"\n";

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dark_phone_is_pushed_for_once_and_gets_every_message_once() {
        let xml = Arc::new(Mutex::new(String::new()));
        let log = Arc::clone(&xml);
        let observer: Observer = Arc::new(move |s: &StreamItem<'_>| {
            log.lock().unwrap().push_str(&format!("{} → {}: {}\n", s.from, s.to, s.xml));
        });
        let lines = Mutex::new(Vec::new());
        let narrate = |narration: Narration<'_>| lines.lock().unwrap().push(format!("{narration:?}"));
        let stage = DemoStage::build(EAGER, Some(observer)).await.unwrap();
        let result = play(&stage, &narrate).await;
        let directory = stage.certificate().parent().unwrap().to_owned();
        stage.stop().await;
        let (xml, lines) = (xml.lock().unwrap(), lines.lock().unwrap());
        let ending = result.unwrap_or_else(|failure| panic!("{failure}\n{lines:#?}\n{xml}"));
        assert!(ending.push_after <= PUSH_WITHIN);
        assert!(!directory.exists());
        // The server's messages reached the client unchanged, except for the additions of Pushward.
        for (_, body) in WRITTEN.into_iter().chain([LAST]) {
            assert_eq!(xml.matches(body).count(), 4, "{body}: from Romeo, to the server, from it, to Juliet\n{xml}");
        }
        assert_eq!(xml.matches("<publish ").count(), 1);
        assert_eq!(xml.matches(">[redacted]</auth>").count(), 6, "three log-ins, each seen on two legs\n{xml}");
        assert!(!ACCOUNTS.iter().any(|(_, password)| xml.contains(password)));
    }
    #[tokio::test(flavor = "multi_thread")]
    async fn a_push_that_comes_too_late_fails_the_story_by_name() {
        let stage = DemoStage::build("[push]\nbatch_delay = \"3s\"\n", None).await.unwrap();
        let failure = play(&stage, &|_| {}).await.unwrap_err().to_string();
        stage.stop().await;
        assert!(failure.starts_with("failed: Pushward sends a push notification: it came "), "{failure}");
    }
}
