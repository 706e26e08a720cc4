//! [`Dark`]: the session that most tests of upgrades hand over.

use std::fmt::Debug;
use std::time::Duration;

use crate::support::{
    Enabled, PATIENCE, Pushward, Scene, Setup, StubConnection, StubOptions, StubUpstream, bodies, eventually, lost,
    message, resumed,
};

/// A dark session of alice's phone on a scripted server.
pub(super) struct Dark {
    pub(super) stub: StubUpstream,
    pub(super) pushward: Pushward,
    pub(super) server: StubConnection,
    pub(super) enabled: Enabled,
}

impl Dark {
    /// Starts a process that can be replaced in place.
    pub(super) async fn new() -> Self {
        Self::with(Setup::copied).await
    }

    /// Starts a process under a service manager whose store is large enough.
    pub(super) async fn stored() -> Self {
        Self::with(|setup| setup.stored(30)).await
    }

    pub(super) async fn with(settings: impl FnOnce(Setup) -> Setup) -> Self {
        Self::behind(StubOptions::default(), settings).await
    }

    pub(super) async fn behind(options: StubOptions, settings: impl FnOnce(Setup) -> Setup) -> Self {
        let Scene { stub, pushward, client, server, enabled } = Scene::with(options, settings).await;
        lost(&pushward, client, "alice@localhost/phone").await;
        Self { stub, pushward, server, enabled }
    }

    /// Sends a message for the client, and waits until it is stored.
    pub(super) async fn store(&self, body: &str) {
        self.server.send(message(body));
        self.pushward.stored(body).await;
    }

    /// Begins a handover in place, and returns at a moment after the signal.
    pub(super) async fn begin_handover(&self, moment: Duration) {
        self.pushward.signal("-USR2");
        // The moment is the subject: it waits for nothing.
        tokio::time::sleep(moment).await;
    }

    /// Waits until that many handovers have ended well.
    pub(super) async fn handed_over(&self, times: usize) {
        let what = || format!("{times} handovers in\n{}", self.pushward.log().join("\n"));
        eventually(PATIENCE, what, || (self.pushward.handovers() == times).then_some(())).await;
    }

    /// Runs `pushward upgrade`, and fails unless it exits with 1 and a reason that contains `reason`.
    pub(super) async fn assert_upgrade_fails(&self, reason: &str) {
        let (code, text) = self.pushward.ask(&["upgrade"]).await;
        assert!(code == Some(1) && text.contains(reason), "no {reason:?}: {code:?} {text}");
    }

    /// The same for a handover that is refused before anything is frozen.
    pub(super) async fn assert_upgrade_refused(&mut self, reason: &str) {
        let refused = || self.pushward.count("upgrade refused");
        let before = refused();
        self.assert_upgrade_fails(reason).await;
        let what = || format!("a refusal in\n{}", self.pushward.log().join("\n"));
        eventually(PATIENCE, what, || (refused() == before + 1).then_some(())).await;
        assert_eq!(self.pushward.handovers(), 0);
        self.assert_undisturbed();
    }

    /// Fails if the server's connection was closed or there is another one.
    pub(super) fn assert_undisturbed(&mut self) {
        self.server.assert_open();
        self.stub.assert_not_connected();
    }

    /// Pings the client from the server. Pushward answers for a dark client.
    pub(super) async fn assert_answers(&mut self, id: &str) {
        self.server.send(format!(
            "<iq type='get' id='{id}' from='localhost' to='alice@localhost/phone'><ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        self.server.expect(&format!("id='{id}'")).await;
    }

    /// Resumes the session, and fails unless nothing is lost: the client gets the messages that wait for it, in order, and
    /// stanzas are passed on in both directions.
    pub(super) async fn assert_goes_on(mut self, waiting: &[&str]) {
        self.assert_undisturbed();
        self.server.send(message("on"));
        let (mut client, _) = resumed(&self.pushward, &self.enabled, 0).await;
        assert_eq!(bodies(&client.messages(waiting.len() + 1).await), [waiting, &["on"]].concat());
        client.send("<message to='bob@localhost' id='sent'/>").await;
        self.server.expect("id='sent'").await;
        self.server.assert_open();
    }

    /// Fails unless the process drains: the server gets a footer, and the exit status is 0.
    pub(super) async fn assert_drains(&mut self) {
        self.server.footer(PATIENCE).await;
        let status = self.pushward.ended(PATIENCE).await;
        assert!(status.success(), "{status}");
    }
}

/// Runs a check for all cases at the same time, because each has processes of its own.
pub(super) async fn at_once<C, F>(cases: impl IntoIterator<Item = C>, check: impl Fn(C) -> F)
where
    C: Debug,
    F: Future<Output = ()> + Send + 'static,
{
    let checks = cases.into_iter().map(|case| (format!("{case:?}"), tokio::spawn(check(case))));
    let checks: Vec<_> = checks.collect();
    assert!(!checks.is_empty(), "no cases");
    for (case, check) in checks {
        check.await.unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}

/// Returns moments in and after the time that a handover in place takes.
pub(super) fn moments() -> [Duration; 5] {
    [0, 10, 30, 80, 160].map(Duration::from_millis)
}
