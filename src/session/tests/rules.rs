//! The push rules in a session: when a device is notified, and when it is not.

use super::push::answer_of;
use super::*;
use crate::push::outcome::Outcome;
use crate::push::pusher::{Skip, Verdict};

const NONE: [usize; 0] = [];
const REFUSED: &str = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
const WAIT: &str = "<error type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";

fn propose(sid: &str) -> String {
    format!(
        "<message from='romeo@example.net/x' type='chat' id='{sid}-1'><propose xmlns='urn:xmpp:jingle-message:0' id='{sid}'>\
         <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose></message>"
    )
}

fn sent_carbon(inner: &str) -> String {
    format!(
        "<message from='juliet@example.org'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
         <message xmlns='jabber:client' from='juliet@example.org/desk' to='romeo@example.net' type='chat'>{inner}</message>\
         </forwarded></sent></message>"
    )
}

fn displayed() -> String {
    sent_carbon("<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>")
}

impl Rig {
    /// A device that has been dark for long.
    fn dark(adjust: impl FnOnce(&mut PushSettings)) -> Self {
        let mut rig = Self::set(adjust).pushing();
        rig.lose_client();
        rig.seconds(5);
        rig
    }

    /// Removes all publishes and returns the `message-count` of each.
    fn counts(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.publishes).into_iter().map(|publish| publish.summary.count).collect()
    }

    fn verdicts(&self) -> Vec<&'static str> {
        let verdict = |event: &Event| if let Event::Judged(verdict) = event { Some(verdict.name()) } else { None };
        self.events.iter().filter_map(verdict).collect()
    }

    /// Answers all open publishes as the push service.
    fn answer(&mut self, kind: &str, inner: &str) {
        for iq in self.publish_all() {
            self.upstream(&answer_of(&iq, kind, inner));
        }
    }
}

#[test]
fn a_device_that_does_not_come_is_notified_again_until_it_does() {
    let mut rig = Rig::dark(|_| {});
    rig.upstream(&message(1));
    assert_eq!(rig.counts(), [1]);
    rig.seconds(59);
    assert_eq!(rig.counts(), NONE);
    rig.seconds(2);
    assert_eq!(rig.counts(), [1]);
    rig.seconds(300);
    assert_eq!(rig.counts(), [1]);
    rig.resume(1);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    rig.lose_client();
    rig.seconds(36_000);
    assert_eq!(rig.counts(), NONE);
}

#[test]
fn rules_that_change_act_for_what_comes_while_the_device_is_away() {
    let mut rig = Rig::dark(|push| push.repush = Vec::new());
    rig.upstream(&message(1));
    assert_eq!(rig.publishes[0].summary.body.as_ref().map(|body| body.expose().as_str()), Some("New Message!"));
    assert_eq!(rig.counts(), [1]);
    let (with_body, min_interval) = (true, Duration::from_secs(60));
    let push = PushSettings { with_body, min_interval, ..(*rig.session.settings().push).clone() };
    let settings = Settings { push: Arc::new(push), ..rig.session.settings().clone() };
    rig.input(Input::Settings(Arc::new(settings)));
    rig.upstream(&message(2));
    rig.seconds(50);
    assert_eq!(rig.counts(), NONE);
    rig.seconds(11);
    assert_ne!(rig.publishes[0].summary.body.as_ref().map(|body| body.expose().as_str()), Some("New Message!"));
    assert_eq!(rig.counts(), [2]);
}

#[test]
fn without_repeats_one_push_is_all() {
    let mut rig = Rig::dark(|push| push.repush = Vec::new());
    rig.upstream(&message(1));
    rig.seconds(36_000);
    assert_eq!(rig.counts(), [1]);
}

/// The phone came online, did not take the message, and went offline. It is not rung twice for the same message, but
/// reminded.
#[test]
fn a_stanza_notifies_once_in_five_minutes_however_often_the_client_comes_and_goes() {
    let mut rig = Rig::dark(|_| {});
    rig.upstream(&message(1));
    assert_eq!(rig.counts(), [1]);
    rig.resume(1);
    rig.lose_client();
    rig.seconds(59);
    assert_eq!(rig.counts(), NONE);
    rig.seconds(2);
    assert_eq!(rig.counts(), [1], "it is away again for a minute");
}

#[test]
fn a_copy_of_a_stanza_does_not_notify() {
    let mut rig = Rig::dark(|push| push.min_interval = Duration::ZERO);
    rig.upstream(&message(1));
    rig.upstream(&message(1));
    assert_eq!(rig.counts(), [1]);
    assert_eq!(rig.verdicts(), ["push", "duplicate"]);
}

#[test]
fn what_a_service_refuses_for_now_is_repeated_with_the_count_of_then() {
    let mut rig = Rig::dark(|push| push.repush = Vec::new());
    rig.upstream(&message(1));
    rig.answer("error", WAIT);
    rig.upstream(&message(2));
    rig.seconds(9);
    assert_eq!(rig.counts(), NONE);
    rig.seconds(1);
    assert_eq!(rig.counts(), [2], "ten seconds later");
}

#[test]
fn a_repeat_ends_when_the_device_comes() {
    let mut rig = Rig::dark(|push| push.repush = Vec::new());
    rig.upstream(&message(1));
    rig.answer("error", WAIT);
    rig.resume(1);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    rig.seconds(3600);
    assert_eq!(rig.counts(), NONE);
}

#[test]
fn an_answer_that_never_came_is_not_repeated_nor_counted() {
    let mut rig = Rig::dark(|push| push.repush = Vec::new());
    rig.upstream(&message(1));
    assert_eq!(rig.publish_all().len(), 1);
    rig.seconds(3600);
    assert_eq!(rig.counts(), NONE);
    assert!(rig.events.iter().any(|event| matches!(event, Event::PublishOutcome(.., Outcome::Unknown))));
    assert_eq!(rig.account.registrations[0].errors, 0);
}

#[test]
fn a_refusal_is_counted_and_not_repeated() {
    let mut rig = Rig::dark(|push| push.repush = Vec::new());
    rig.upstream(&message(1));
    rig.answer("error", REFUSED);
    rig.seconds(3600);
    assert_eq!(rig.counts(), NONE);
    assert_eq!(rig.account.registrations[0].errors, 1);
}

#[test]
fn everything_notifies_without_a_text_if_the_operator_wants_that() {
    let mut rig = Rig::dark(|push| push.unimportant = true);
    rig.upstream(
        "<message from='romeo@example.net/x'><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    );
    assert_eq!(rig.publishes.len(), 1);
    assert_eq!(rig.publishes[0].summary.body, None);
    rig.seconds(3600);
    assert_eq!(rig.counts(), [0], "nothing important waits, so nothing is repeated");
}

#[test]
fn a_call_is_pushed_at_once_and_once() {
    let mut rig = Rig::dark(|_| {});
    rig.upstream(&message(1));
    rig.upstream(&propose("a"));
    rig.upstream(&propose("a"));
    assert_eq!(rig.counts(), [1, 2], "it does not wait for the interval");
    rig.upstream(&propose("b"));
    assert_eq!(rig.counts(), [3]);
    assert_eq!(rig.verdicts(), ["push", "ring", "duplicate", "ring"]);
}

#[test]
fn a_live_client_has_five_seconds_for_a_call() {
    let mut rig = Rig::with_push();
    rig.upstream(&propose("a"));
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    rig.seconds(20);
    assert_eq!(rig.counts(), NONE);
    rig.upstream(&message(1));
    rig.upstream(&propose("b"));
    rig.pass(Duration::from_millis(4_999));
    assert_eq!(rig.counts(), NONE);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.counts(), [1], "the message has thirty");
    assert_eq!(rig.closed, 0, "its connection stays");
}

#[test]
fn what_was_read_elsewhere_does_not_notify() {
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.upstream(&message(1));
    rig.upstream(&displayed());
    rig.seconds(3600);
    assert_eq!(rig.counts(), NONE);
    rig.upstream(&message(2));
    assert_eq!(rig.counts(), [1], "what was read is not counted");
    assert_eq!(rig.verdicts(), ["push", "read_elsewhere", "push"]);
}

#[test]
fn what_was_read_elsewhere_before_the_device_left_does_not_notify() {
    let mut rig = Rig::with_push();
    rig.upstream(&message(1));
    rig.upstream(&displayed());
    rig.lose_client();
    rig.seconds(3600);
    assert_eq!(rig.counts(), NONE);
}

#[test]
fn a_push_waits_while_another_client_is_in_use() {
    let mut rig = Rig::dark(|push| push.grace = Duration::from_secs(30));
    rig.upstream(&sent_carbon("<body>typing here</body>"));
    rig.upstream(&message(1));
    rig.seconds(29);
    assert_eq!(rig.counts(), NONE);
    rig.seconds(1);
    assert_eq!(rig.counts(), [1]);
    rig.upstream(&sent_carbon("<body>still here</body>"));
    rig.upstream(&propose("a"));
    assert_eq!(rig.counts(), [2], "a call does not wait");
}

#[test]
fn subscription_requests_are_counted_apart() {
    let mut rig = Rig::dark(|_| {});
    rig.upstream("<presence from='nurse@example.net' type='subscribe' id='s'/>");
    assert_eq!((rig.publishes[0].summary.count, rig.publishes[0].summary.subscriptions), (1, 1));
}

#[test]
fn a_call_taken_elsewhere_is_not_counted() {
    let mut rig = Rig::dark(|push| push.min_interval = Duration::ZERO);
    rig.upstream(&propose("a"));
    rig.upstream(&sent_carbon("<accept xmlns='urn:xmpp:jingle-message:0' id='a'/>"));
    rig.upstream(&message(1));
    assert_eq!(rig.counts(), [1, 1]);
    assert!(rig.events.contains(&Event::Judged(Verdict::Skip(Skip::CallEnd))));
}

#[test]
fn the_end_of_a_call_is_pushed_to_devices_that_take_calls_by_push_alone_if_configured() {
    for (jingle, expect) in [(true, &[1, 1][..]), (false, &[1])] {
        let mut rig = Rig::dark(|push| push.jingle = jingle);
        let mut account = rig.account.clone();
        account.registrations[0].extensions.jingle = true;
        rig.input(Input::Account(Box::new(account)));
        rig.upstream(&propose("a"));
        rig.upstream("<message from='romeo@example.net/x' type='chat'><retract xmlns='urn:xmpp:jingle-message:0' id='a'/></message>");
        assert_eq!(rig.counts(), expect, "{jingle}");
    }
}

fn revocation(attributes: &str, node: &str, jid: &str, affiliation: &str) -> String {
    format!(
        "<message {attributes}><pubsub xmlns='http://jabber.org/protocol/pubsub'{node}>\
         <affiliation jid='{jid}' affiliation='{affiliation}'/></pubsub></message>"
    )
}

#[test]
fn a_service_removes_its_own_registration_and_the_client_is_informed() {
    for jid in ["juliet@example.org", "Juliet@example.org/phone"] {
        let mut rig = Rig::dark(|_| {});
        let revocation = revocation("from='push.example'", " node='n'", jid, "none");
        rig.upstream(&revocation);
        assert_eq!(rig.account.registrations, []);
        rig.upstream(&message(1));
        rig.seconds(300);
        assert_eq!(rig.counts(), NONE);
        rig.resume(1);
        assert!(rig.to_client.iter().any(|xml| xml.contains("affiliation='none'")), "{:?}", rig.to_client);
    }
}

#[test]
fn no_other_sender_and_no_other_stanza_removes_a_registration() {
    let own = "juliet@example.org";
    for stanza in [
        revocation("from='mallory@evil.example'", " node='n'", own, "none"),
        revocation("from='push.example/x'", " node='n'", own, "none"),
        revocation("from='mallory@push.example'", " node='n'", own, "none"),
        revocation("", " node='n'", own, "none"),
        revocation("from='push.example' type='error'", " node='n'", own, "none"),
        revocation("from='push.example'", " node='other'", own, "none"),
        revocation("from='push.example'", "", own, "none"),
        revocation("from='push.example'", " node='n'", "romeo@example.net", "none"),
        revocation("from='push.example'", " node='n'", own, "owner"),
        sent_carbon(&revocation("from='push.example'", " node='n'", own, "none")),
    ] {
        let mut rig = Rig::dark(|_| {});
        rig.upstream(&stanza);
        rig.upstream(&message(1));
        assert_eq!(rig.counts(), [1], "{stanza}");
    }
}

#[test]
fn another_device_without_a_session_is_notified_of_stanzas_that_this_one_gets() {
    let mut rig = Rig::with_push();
    let mut account = rig.account.clone();
    let mut other = account.registrations[0].clone();
    (other.device, other.target.node) = (DeviceId(8), Some("other".into()));
    account.registrations.push(other.clone());
    rig.input(Input::Account(Box::new(account)));
    rig.upstream(&message(1));
    let [notice] = rig.absent_notices.as_slice() else { panic!("{:?}", rig.absent_notices) };
    assert_eq!(notice.registrations, [other]);
    rig.upstream(
        "<message from='romeo@example.net/x'><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    );
    assert_eq!(rig.absent_notices.len(), 1);
}
