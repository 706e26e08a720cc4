//! Compares two systems: Prosody with its own mod_smacks and mod_cloud_notify, and the proxy in front of a Prosody
//! without them. Both get the same stanzas for dark devices and must reach the same verdicts, except where [`stanzas`]
//! gives a reason.
//!
//! Each stanza has an account of its own, so that no other stanza affects its verdict. After the stanza comes a
//! sentinel, a text that is important to both systems. If the first important push for the account is about the stanza,
//! the stanza was important; otherwise it was not. Both systems look at waiting stanzas in order. It makes no
//! difference whether the two share a push, so the test depends on no timing.

mod stanzas;

use std::collections::BTreeMap;

use stanzas::{Case, Expected, TABLE, Way};

use crate::support::{Client, Enabled, PATIENCE, Prosody, Publish, PushService, Pushward, Setup, enable_push, request};

/// The id of every stanza of the table.
const ID: &str = "the-stanza";

#[tokio::test]
async fn no_stanza_is_judged_otherwise_than_by_the_seed_unless_the_table_says_why() {
    let subjects = Subject::all();
    let accounts: Vec<String> = subjects.iter().map(|subject| subject.account.clone()).collect();
    let (mut seed, mut ours) = tokio::join!(System::seed(&accounts), System::ours(&accounts));
    let (seed, ours) = tokio::join!(seed.important(&subjects), ours.important(&subjects));
    let mut wrong = Vec::new();
    for Subject { case, account } in &subjects {
        let (seed, ours) = (seed[account], ours[account]);
        let as_expected = match case.expected {
            Expected::Same => seed == ours,
            Expected::More(_) => !seed && ours,
            Expected::Less(_) => seed && !ours,
        };
        if !as_expected {
            let (name, way) = (case.name, case.way);
            let (seed, ours) = (word(seed), word(ours));
            wrong
                .push(format!("{name} ({way:?}) {seed} to the seed, {ours} to the proxy; expected: {}", case.expected));
        }
    }
    assert!(wrong.is_empty(), "{} of {} stanzas:\n{}", wrong.len(), subjects.len(), wrong.join("\n"));
}

fn word(important: bool) -> &'static str {
    if important { "is important" } else { "is not important" }
}

/// A case with its account.
struct Subject {
    case: &'static Case,
    account: String,
}

impl Subject {
    fn all() -> Vec<Self> {
        let numbered = TABLE.iter().enumerate();
        numbered.map(|(number, case)| Self { case, account: format!("account{number}") }).collect()
    }

    fn room(&self) -> String {
        format!("{}@rooms.localhost", self.account)
    }

    fn resource(&self, resource: &str) -> String {
        format!("{}@localhost/{resource}", self.account)
    }

    /// Returns the stanza as it is sent.
    fn stanza(&self) -> String {
        let (room, account) = (self.room(), format!("{}@localhost", self.account));
        let content = self.case.content.replace("{account}", &account).replace("{room}", &room);
        let (name, kind, to) = match self.case.way {
            Way::Message(kind) => ("message", kind, self.resource("phone")),
            Way::Received(kind) => ("message", kind, self.resource("desk")),
            Way::Sent(kind) => ("message", kind, "bob@localhost".into()),
            Way::ToSelf => ("message", "chat", account),
            Way::Room | Way::Reflection | Way::History => ("message", "groupchat", room),
            Way::Whisper => ("message", "chat", format!("{room}/me")),
            Way::ByRoom => ("message", "", room),
            Way::Occupant => ("presence", "", format!("{room}/bob")),
            Way::Presence(kind) => ("presence", kind, self.resource("phone")),
            Way::Subscription => ("presence", "subscribe", account),
            Way::Iq(kind) => ("iq", kind, self.resource("phone")),
        };
        let kind = if kind.is_empty() { String::new() } else { format!(" type='{kind}'") };
        format!("<{name} to='{to}'{kind} id='{ID}'>{content}</{name}>")
    }

    /// Returns a text by which the stanza is recognised where it arrives. A room writes its subject itself.
    fn mark(&self) -> &str {
        let subject = self.case.way == Way::Room && self.case.content.starts_with("<subject>");
        if subject { self.case.content } else { ID }
    }
}

/// A dark session, and the account's other client if the way of its stanza needs one.
struct Dark {
    enabled: Enabled,
    /// Number of stanzas that the client has handled, without the stanza under test.
    handled: u32,
    desk: Option<Client>,
}

/// A server that pushes, by itself or through the proxy in front of it, and the senders.
struct System {
    prosody: Prosody,
    pushward: Option<Pushward>,
    service: PushService,
    bob: Client,
    carol: Client,
}

impl System {
    async fn seed(accounts: &[String]) -> Self {
        Self::with(Prosody::seed(accounts).await, None).await
    }

    async fn ours(accounts: &[String]) -> Self {
        let prosody = Prosody::for_accounts(accounts).await;
        // Without a text, mod_cloud_notify pushes for unimportant stanzas too.
        let setup = Setup::new(prosody.address).set("push.with_sender", "true").set("push.unimportant", "true");
        let setup = setup.set("push.batch_delay", "'0s'").set("push.min_interval", "'0s'");
        Self::with(prosody, Some(Pushward::start(setup).await)).await
    }

    async fn with(prosody: Prosody, pushward: Option<Pushward>) -> Self {
        let service = PushService::connect(&prosody).await;
        let mut bob = Client::plain(prosody.address).await;
        bob.login("bob", "desk").await;
        let mut carol = Client::plain(prosody.address).await;
        carol.login("carol", "desk").await;
        Self { prosody, pushward, service, bob, carol }
    }

    /// Returns for each account whether its stanza was important.
    async fn important(&mut self, subjects: &[Subject]) -> BTreeMap<String, bool> {
        let before = self.prosody.disconnections();
        let mut dark = Vec::new();
        for subject in subjects {
            dark.push(self.dark(subject).await);
        }
        self.noticed(subjects, before).await;
        for (subject, dark) in subjects.iter().zip(&mut dark) {
            self.send(subject, dark).await;
        }
        for subject in subjects {
            let to = subject.resource("phone");
            self.carol.send(format!("<message type='chat' to='{to}'><body>sentinel</body></message>")).await;
        }
        let verdicts = self.verdicts(subjects).await;
        for (subject, dark) in subjects.iter().zip(dark) {
            self.assert_arrives(subject, &dark).await;
        }
        verdicts
    }

    /// Opens a connection as phones do.
    async fn connect(&self) -> Client {
        match &self.pushward {
            Some(pushward) => pushward.connect().await,
            None => Client::plain(self.prosody.address).await,
        }
    }

    /// Opens a session with stream management, carbons, push, and what else the case needs, and resets its connection.
    async fn dark(&mut self, subject: &Subject) -> Dark {
        let mut phone = self.connect().await;
        phone.login(&subject.account, "phone").await;
        let enabled = phone.enable().await;
        phone.available().await;
        request(&mut phone, "carbons", "<enable xmlns='urn:xmpp:carbons:2'/>").await;
        enable_push(&mut phone, &subject.account).await;
        let mut desk = None;
        if matches!(subject.case.way, Way::Received(_) | Way::Sent(_) | Way::ToSelf | Way::Reflection) {
            let desk = desk.insert(Client::plain(self.prosody.address).await);
            desk.login(&subject.account, "desk").await;
            desk.available().await;
        }
        if matches!(subject.case.way, Way::Room | Way::Reflection | Way::Whisper | Way::Occupant | Way::ByRoom) {
            open_room(&mut self.bob, &subject.room()).await;
        }
        if matches!(subject.case.way, Way::Room | Way::Reflection | Way::Whisper | Way::Occupant) {
            enter(&mut phone, &subject.room(), "me").await;
        }
        if let Some(desk) = desk.as_mut().filter(|_| subject.case.way == Way::Reflection) {
            enter(desk, &subject.room(), "me").await;
        }
        phone.roundtrip().await;
        phone.ack().await;
        let handled = phone.handled;
        if subject.case.way == Way::History {
            open_room(&mut self.bob, &subject.room()).await;
            self.bob.send(subject.stanza()).await;
            self.bob.roundtrip().await;
            // A room sends history to those who join, and it keeps waiting if the client vanishes before it
            // acknowledges.
            phone.acks = false;
            enter(&mut phone, &subject.room(), "me").await;
        }
        phone.reset();
        Dark { enabled, handled, desk }
    }

    /// Waits until every phone is known to be gone. `before` is the server's count of disconnections when none was.
    async fn noticed(&self, subjects: &[Subject], before: usize) {
        match &self.pushward {
            None => self.prosody.disconnected(before + subjects.len()).await,
            Some(pushward) => {
                for subject in subjects {
                    pushward.logged(&["dark", &subject.resource("phone")]).await;
                }
            }
        }
    }

    /// Sends the stanza, and waits until the server has it.
    async fn send(&mut self, subject: &Subject, dark: &mut Dark) {
        let sender = match subject.case.way {
            Way::History => return,
            Way::Sent(_) | Way::ToSelf | Way::Reflection => dark.desk.as_mut().unwrap(),
            _ => &mut self.bob,
        };
        sender.send(subject.stanza()).await;
        sender.roundtrip().await;
    }

    /// Reads pushes until each account has had an important one, about its stanza or about the sentinel alone.
    async fn verdicts(&mut self, subjects: &[Subject]) -> BTreeMap<String, bool> {
        let mut verdicts = BTreeMap::new();
        while verdicts.len() < subjects.len() {
            let Some(publish) = self.service.next(PATIENCE).await else {
                let silent = subjects.iter().filter(|subject| !verdicts.contains_key(&subject.account));
                let silent: Vec<_> = silent.map(|subject| subject.case.name).collect();
                panic!("not even the sentinel was pushed for {silent:?}");
            };
            if publish.body().is_some() {
                verdicts.entry(publish.node.clone().unwrap()).or_insert(!is_about_the_sentinel_alone(&publish));
            }
        }
        verdicts
    }

    /// Resumes the session. A verdict about a stanza that did not arrive would prove nothing.
    async fn assert_arrives(&self, subject: &Subject, dark: &Dark) {
        let mut phone = self.connect().await;
        phone.authenticated(&subject.account).await;
        let answer = phone.resume(&dark.enabled.id, dark.handled).await;
        assert_eq!(answer.name, "resumed", "{}: {answer:?}", subject.case.name);
        phone.expect(subject.mark()).await;
    }
}

/// Returns true if a push is about the sentinel only. mod_cloud_notify always counts one, and pushes only for the first
/// stanza of a burst.
fn is_about_the_sentinel_alone(publish: &Publish) -> bool {
    publish.sender().is_some_and(|sender| sender.starts_with("carol@localhost")) && publish.count() == Some(1)
}

/// Creates a room with bob in it.
async fn open_room(bob: &mut Client, room: &str) {
    enter(bob, room, "bob").await;
    // A new room is locked until it is configured. This form accepts the defaults (XEP-0045 §10.1.2).
    let defaults =
        "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>";
    bob.send(format!("<iq type='set' to='{room}' id='defaults'>{defaults}</iq>")).await;
    bob.expect("id='defaults'").await;
}

/// Enters a room, and reads up to its subject, which comes last (XEP-0045 §7.1).
async fn enter(client: &mut Client, room: &str, nick: &str) {
    client.send(format!("<presence to='{room}/{nick}'><x xmlns='http://jabber.org/protocol/muc'/></presence>")).await;
    client.expect("<subject").await;
}
