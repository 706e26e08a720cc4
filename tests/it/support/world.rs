//! The proxy in front of a real server, with a push service and users on both sides ([`World`]).

use std::time::Duration;

use super::{Client, Element, Enabled, PATIENCE, Prosody, Publish, PushService, Pushward, Setup, request};

/// The time for which nothing may happen where nothing is expected: more than ten times the delays of [`quick`].
pub(crate) const QUIET: Duration = Duration::from_millis(700);

/// Sets delays short enough for tests.
pub(crate) fn quick(setup: Setup) -> Setup {
    setup.set("push.batch_delay", "'50ms'").set("push.min_interval", "'50ms'")
}

/// The content of the publish-options form.
pub(crate) const PUSH_OPTIONS: &str = "<field var='FORM_TYPE' type='hidden'>\
    <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
    <field var='secret'><value>s&amp;cr&lt;t</value></field>\
    <field var='pushModule' type='text-single'><value>one</value><value>two</value></field>";

/// Returns the `<enable/>` that registers a device at `push.localhost`, with [`PUSH_OPTIONS`].
pub(crate) fn push_enable(node: &str) -> String {
    format!(
        "<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='{node}'>\
         <x xmlns='jabber:x:data' type='submit'>{PUSH_OPTIONS}</x></enable>"
    )
}

/// The proxy in front of Prosody, a push service, and bob, who is connected to Prosody without the proxy.
pub(crate) struct World {
    pub(crate) prosody: Prosody,
    pub(crate) service: PushService,
    pub(crate) pushward: Pushward,
    pub(crate) bob: Client,
}

impl World {
    pub(crate) async fn with(settings: impl FnOnce(Setup) -> Setup) -> Self {
        let prosody = Prosody::start().await;
        let service = PushService::connect(&prosody).await;
        let pushward = Pushward::start(settings(Setup::new(prosody.address))).await;
        let mut bob = Client::plain(prosody.address).await;
        bob.login("bob", "desk").await;
        Self { prosody, service, pushward, bob }
    }

    /// Opens a session of alice with stream management, available, whose device has enabled push for `node`.
    pub(crate) async fn phone(&self, resource: &str, node: &str) -> (Client, Enabled) {
        self.enabled(resource, &push_enable(node)).await
    }

    /// The same with this `<enable/>`.
    pub(crate) async fn enabled(&self, resource: &str, enable: &str) -> (Client, Enabled) {
        let (mut alice, enabled) = self.session(resource).await;
        let answer = request(&mut alice, "push-enable", enable).await;
        assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
        (alice, enabled)
    }

    /// Opens a session of alice with stream management, available.
    pub(crate) async fn session(&self, resource: &str) -> (Client, Enabled) {
        let mut alice = self.pushward.login("alice", resource).await;
        let enabled = alice.enable().await;
        alice.available().await;
        (alice, enabled)
    }

    /// Opens an available client that is connected to Prosody without the proxy.
    pub(crate) async fn straight(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::plain(self.prosody.address).await;
        client.login(user, resource).await;
        client.available().await;
        client
    }

    /// Returns the features of alice's account.
    pub(crate) async fn features(&self) -> Vec<String> {
        let (mut alice, _) = self.session("features").await;
        alice.send("<iq type='get' id='info'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>").await;
        let info = Element::parse(&alice.expect("id='info'").await);
        info.all("feature").iter().filter_map(|feature| feature.attribute("var")).map(str::to_owned).collect()
    }

    /// Waits for a publish, and until the proxy's session has its answer.
    pub(crate) async fn answered(&mut self) -> Publish {
        let publish = self.service.publish(PATIENCE).await;
        // The service's stream is ordered: its answer to this ping comes after its answer to the publish.
        self.bob.ping("push.localhost").await;
        publish
    }

    pub(crate) async fn resumed(&self, enabled: &Enabled, h: u32) -> Client {
        let mut alice = self.pushward.authenticated("alice").await;
        let answer = alice.resume(&enabled.id, h).await;
        assert_eq!(answer.name, "resumed", "{answer:?}");
        alice
    }
}
