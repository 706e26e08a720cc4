//! Registrations, service discovery and publishes of one session.

use super::*;
use crate::push::classify::Noise;
use crate::push::outcome::Outcome;
use crate::push::pusher::{Skip, Verdict};

const QUERY: &str = "<iq type='get' id='d'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";

pub(super) fn answer_of(publish_iq: &str, kind: &str, inner: &str) -> String {
    let iq = element(publish_iq);
    let id = iq.node().attr("id").unwrap().into_owned();
    format!("<iq type='{kind}' id='{id}' from='push.example' to='juliet@example.org/phone'>{inner}</iq>")
}

impl Rig {
    /// Performs the publishes through the session's own stream, and returns the iqs.
    pub(super) fn publish_all(&mut self) -> Vec<String> {
        self.to_upstream.clear();
        for publish in std::mem::take(&mut self.publishes) {
            self.published_on_stream.push(publish.target.clone());
            self.input(Input::PublishOnStream {
                number: self.published_on_stream.len() as u64 - 1,
                publish: Box::new(publish),
            });
        }
        std::mem::take(&mut self.to_upstream)
    }
}

#[test]
fn the_account_has_push_in_its_disco_info() {
    let mut rig = Rig::new();
    rig.client(QUERY);
    assert_eq!(rig.to_upstream, [QUERY]);
    rig.upstream("<iq type='result' id='d' from='juliet@example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>");
    assert!(rig.to_client[0].contains("var='urn:xmpp:push:0'"), "{:?}", rig.to_client);
    // The next answer with that id passes unchanged.
    let same = "<iq type='result' id='d' from='x@y'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    rig.upstream(same);
    assert_eq!(rig.to_client[1], same);
}

#[test]
fn a_server_without_disco_for_accounts_is_answered_for() {
    let push = PushSettings { extensions: false, ..Default::default() };
    let mut rig = Rig::with(Settings { push: push.into(), session_queue: 1 << 20, ..Settings::default() });
    rig.client(
        "<iq type='get' id='d' to='Juliet@example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    );
    rig.upstream(
        "<iq type='error' id='d' from='juliet@example.org' to='juliet@example.org/phone'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
    );
    assert_eq!(
        rig.to_client,
        ["<iq type='result' id='d' from='juliet@example.org' to='juliet@example.org/phone'>\
          <query xmlns='http://jabber.org/protocol/disco#info'><identity category='account' type='registered'/>\
          <feature var='urn:xmpp:push:0'/></query></iq>"]
    );
}

#[test]
fn a_second_bind_is_refused_and_the_server_does_not_get_it() {
    let mut rig = Rig::new();
    rig.client(
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>x</resource></bind></iq>",
    );
    assert!(!rig.to_upstream.iter().any(|xml| xml.contains("xmpp-bind")), "{:?}", rig.to_upstream);
    let answer = rig.to_client.last().unwrap();
    assert!(answer.contains("id='b'") && answer.contains("<not-allowed "), "{answer}");
}

#[test]
fn disco_of_others_is_left_alone() {
    let mut rig = Rig::new();
    rig.client("<iq type='get' id='d' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>");
    let result =
        "<iq type='result' id='d' from='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    rig.upstream(result);
    assert_eq!(rig.to_client, [result]);
}

#[test]
fn enable_is_answered_only_once_it_is_stored_and_never_forwarded() {
    for to in ["", " to='juliet@example.org'", " to='example.org'"] {
        let mut rig = Rig::new();
        let enable =
            format!("<iq type='set' id='p'{to}><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'/></iq>");
        rig.session.handle(rig.now, Input::Client { attachment: Attachment::FIRST, frame: frame(&enable) });
        let Some(Output::Store { token: Some(token), change }) = rig.session.poll() else { panic!("nothing to store") };
        let Change::Enable { registration, .. } = *change else {
            panic!("nothing to store");
        };
        assert!(rig.session.poll().is_none());
        assert_eq!(registration.target, Target { service: Jid::new("push.example"), node: Some("n".into()) });
        assert_eq!(registration.device, DEVICE);
        rig.input(Input::Stored { token, stored: Stored::Durable(None) });
        let from = to.replace("to=", "from=");
        assert_eq!(rig.to_client, [format!("<iq type='result' id='p'{from}/>")]);
        assert_eq!(rig.to_upstream, Vec::<String>::new());
    }
}

#[test]
fn a_registration_that_cannot_be_stored_is_refused_for_now() {
    let mut rig = Rig::new();
    let enable = "<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example'/></iq>";
    rig.session.handle(rig.now, Input::Client { attachment: Attachment::FIRST, frame: frame(enable) });
    let Some(Output::Store { token: Some(token), .. }) = rig.session.poll() else { panic!("nothing to store") };
    rig.input(Input::Stored { token, stored: Stored::Failed });
    assert!(rig.to_client[0].contains("<error type='wait'><internal-server-error"), "{:?}", rig.to_client);
}

#[test]
fn a_removed_registration_is_not_notified_while_a_later_change_is_unanswered() {
    let mut rig = Rig::with_push();
    rig.store_is_late = true;
    rig.client("<iq type='set' id='q'><disable xmlns='urn:xmpp:push:0' jid='push.example'/></iq>");
    rig.lose_client();
    // The return of the client is stored as well, and nothing waits for the answer.
    rig.resume(1);
    let changes: Vec<_> = rig.unanswered.drain(..2).collect();
    assert!(rig.unanswered.iter().any(|answer| matches!(answer, Input::Changed(_))), "{:?}", rig.stored);
    changes.into_iter().for_each(|answer| rig.input(answer));
    assert!(rig.to_client.concat().contains("id='q'"), "{:?}", rig.to_client);
    rig.lose_client();
    rig.upstream("<message from='romeo@example.net/orchard' type='chat' id='1'><body>hello</body></message>");
    rig.seconds(60);
    assert_eq!(rig.publishes.len(), 0);
}

#[test]
fn a_malformed_enable_is_a_bad_request() {
    for jid in ["", " jid=''", " jid='juliet@example.org'", " jid='juliet@example.org/phone'", " jid='@'"] {
        let mut rig = Rig::new();
        rig.client(&format!("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0'{jid}/></iq>"));
        assert!(rig.to_client[0].contains("<error type='modify'><bad-request"), "{jid}: {:?}", rig.to_client);
        assert_eq!(rig.stored, []);
    }
}

#[test]
fn an_unknown_way_of_encryption_is_not_implemented() {
    let mut rig = Rig::new();
    rig.client(
        "<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example'>\
         <encrypt xmlns='tigase:push:encrypt:0' alg='rot13'>AAECAwQFBgcICQoLDA0ODw==</encrypt></enable></iq>",
    );
    assert!(rig.to_client[0].contains("<error type='modify'><feature-not-implemented"), "{:?}", rig.to_client);
    assert_eq!(rig.stored, []);
}

#[test]
fn a_device_that_asked_for_it_gets_encrypted_pushes_and_no_vector_is_used_twice() {
    let mut rig = Rig::new();
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.client(
        "<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='n'>\
         <muted xmlns='tigase:push:filter:muted:0'><item jid='tybalt@example.net'/></muted>\
         <encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm'>AAECAwQFBgcICQoLDA0ODw==</encrypt></enable></iq>",
    );
    rig.client("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.lose_client();
    rig.seconds(5);
    rig.upstream("<message from='tybalt@example.net/x' type='chat' id='0'><body>text 0</body></message>");
    assert_eq!(rig.publishes, []);
    rig.upstream(&message(1));
    rig.seconds(30);
    rig.upstream(&message(2));
    rig.seconds(30);
    let iqs: Vec<_> = rig.publishes.iter().map(|p| String::from_utf8(p.iq("1", None).to_vec()).unwrap()).collect();
    assert!(iqs.len() > 1);
    let mut vectors = std::collections::BTreeSet::new();
    for iq in &iqs {
        let (_, encrypted) = iq.split_once("<encrypted xmlns='tigase:push:encrypt:0' iv='").unwrap();
        vectors.insert(encrypted.split_once('\'').unwrap().0.to_owned());
        assert!(!iq.contains("jabber:x:data") && !iq.contains("romeo"), "{iq}");
    }
    assert_eq!(vectors.len(), iqs.len());
}

#[test]
fn an_enable_for_somebody_else_passes() {
    let mut rig = Rig::new();
    let iq = "<iq type='set' id='p' to='romeo@example.net'><enable xmlns='urn:xmpp:push:0' jid='push.example'/></iq>";
    rig.client(iq);
    assert_eq!(rig.to_upstream, [iq]);
}

/// Invariant 6: no push for a stanza that a live client acknowledged in time.
#[test]
fn a_live_client_is_not_pushed_for() {
    let mut rig = Rig::with_push();
    for n in 1..=5 {
        rig.upstream(&message(n));
        rig.seconds(1);
        rig.client(&format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", n + 1));
    }
    rig.seconds(3600);
    assert_eq!(rig.publishes, []);
}

#[test]
fn a_burst_for_a_dark_client_is_one_publish() {
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.seconds(5);
    for n in 1..=5 {
        rig.upstream(&message(n));
    }
    assert_eq!(rig.publishes.len(), 1);
    rig.seconds(19);
    assert_eq!(rig.publishes.len(), 1);
    rig.seconds(2);
    assert_eq!(rig.publishes.len(), 2);
    assert_eq!(rig.publishes[1].summary.count, 5);
}

#[test]
fn what_was_unacked_when_the_client_went_dark_is_pushed_after_the_batch_delay() {
    let mut rig = Rig::with_push();
    rig.upstream(&message(1));
    rig.upstream(&message(2));
    rig.lose_client();
    assert_eq!(rig.publishes, []);
    rig.pass(Duration::from_millis(1001));
    assert_eq!(rig.publishes.len(), 1);
    assert_eq!(rig.publishes[0].summary.count, 2);
}

#[test]
fn a_suspect_client_is_pushed_for_while_its_connection_stays() {
    let mut rig = Rig::with_push();
    rig.upstream(&message(1));
    rig.seconds(32);
    assert_eq!(rig.publishes.len(), 1);
    assert_eq!(rig.closed, 0);
    rig.seconds(55);
    assert_eq!(rig.publishes.len(), 1, "the same stanza notifies once");
    rig.seconds(10);
    assert_eq!(rig.publishes.len(), 2, "and again when the device did not come for a minute");
}

#[test]
fn an_unimportant_stanza_for_a_dark_client_reports_why_it_does_not_notify() {
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.seconds(5);
    rig.upstream(
        "<message from='romeo@example.net/x'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
    );
    rig.seconds(100);
    assert_eq!(rig.publishes, []);
    assert!(rig.events.contains(&Event::Judged(Verdict::Skip(Skip::Noise(Noise::ChatState)))));
}

#[test]
fn the_publish_says_what_the_operator_allows_and_the_options_verbatim() {
    let mut rig = Rig::new();
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.client(
        "<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example' node='a&amp;b'>\
         <x xmlns='jabber:x:data' type='form'><field var='FORM_TYPE' type='hidden'>\
         <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
         <field var='secret'><value>&lt;s3cret&gt;</value></field></x></enable></iq>",
    );
    rig.lose_client();
    rig.seconds(5);
    rig.upstream(&message(1));
    let iq = rig.publish_all().remove(0);
    let id = element(&iq).node().attr("id").unwrap().into_owned();
    assert_eq!(
        iq,
        format!(
            "<iq type='set' id='{id}' to='push.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
             <publish node='a&amp;b'><item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'>\
             <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>\
             <field var='message-count'><value>1</value></field>\
             <field var='last-message-body'><value>New Message!</value></field></x></notification></item></publish>\
             <publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
             <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
             <field var='secret'><value>&lt;s3cret&gt;</value></field></x></publish-options></pubsub></iq>"
        )
    );
}

#[test]
fn sender_and_body_are_said_only_if_configured() {
    let mut rig = Rig::set(|push| (push.with_body, push.with_sender) = (true, true)).pushing();
    rig.lose_client();
    rig.seconds(5);
    rig.upstream(&message(1));
    let iq = rig.publish_all().remove(0);
    assert!(iq.contains("<field var='last-message-sender'><value>romeo@example.net/x</value></field>"), "{iq}");
    assert!(iq.contains("<field var='last-message-body'><value>text 1</value></field>"), "{iq}");
}

/// Invariant 5: our own traffic is invisible, however late it comes.
#[test]
fn answers_to_publishes_never_reach_the_client() {
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.seconds(5);
    rig.upstream(&message(1));
    let iq = rig.publish_all().remove(0);
    rig.seconds(61);
    assert!(matches!(rig.events.last(), Some(Event::PublishOutcome(.., Outcome::Unknown))));
    rig.resume(1);
    rig.clear();
    rig.upstream(&answer_of(&iq, "result", ""));
    rig.upstream(&answer_of(&iq, "result", ""));
    assert_eq!(rig.to_client, Vec::<String>::new());
}

/// The server may report in its own name that the push service is unreachable. No other sender may.
#[test]
fn an_error_about_the_way_counts_whoever_of_the_server_says_it() {
    let away = "<error type='cancel'><remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    let gone = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for (from, error, taken) in [
        ("from='push.example'", away, true),
        ("from='example.org'", away, true),
        ("from='juliet@example.org'", away, true),
        ("", away, true),
        ("from='mallory.example'", away, false),
        ("from='example.org'", gone, false),
    ] {
        let mut rig = Rig::with_push();
        rig.lose_client();
        rig.seconds(5);
        rig.upstream(&message(1));
        let iq = rig.publish_all().remove(0);
        rig.upstream(&answer_of(&iq, "error", error).replace("from='push.example'", from));
        let is_taken = |event: &Event| matches!(event, Event::PublishOutcome(.., Outcome::Wait(_)));
        assert_eq!(rig.events.iter().any(is_taken), taken, "{from} {error}");
        assert_eq!(rig.account.registrations[0].errors, 0);
    }
}

#[test]
fn errors_in_a_row_end_a_registration_and_wait_does_not_count() {
    let refused = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    let wait = "<error type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    let mut rig = Rig::set(|push| push.max_errors = 2).pushing();
    rig.lose_client();
    for (n, (kind, inner), errors) in [
        (1, ("error", refused), Some(1)),
        (2, ("error", wait), Some(1)),
        (3, ("result", ""), Some(0)),
        (4, ("error", refused), Some(1)),
        (5, ("error", refused), None),
    ] {
        rig.seconds(30);
        rig.upstream(&message(n));
        let iq = rig.publish_all().remove(0);
        rig.upstream(&answer_of(&iq, kind, inner));
        assert_eq!(rig.account.registrations.first().map(|r| r.errors), errors, "after publish {n}");
    }
    rig.seconds(30);
    rig.upstream(&message(6));
    assert_eq!(rig.publishes, []);
}

#[test]
fn a_device_that_logs_in_again_owns_its_registration() {
    let old = Rig::with_push();
    let mut rig = Rig::new();
    rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.input(Input::Account(Box::new(old.account.clone())));
    rig.lose_client();
    rig.seconds(5);
    rig.upstream(&message(1));
    assert_eq!(rig.publishes.len(), 1);
}

#[test]
fn disable_stops_the_pushes() {
    let mut rig = Rig::with_push();
    rig.client("<iq type='set' id='x'><disable xmlns='urn:xmpp:push:0' jid='push.example'/></iq>");
    assert!(rig.to_client.iter().any(|xml| xml == "<iq type='result' id='x'/>"), "{:?}", rig.to_client);
    rig.lose_client();
    rig.seconds(5);
    rig.upstream(&message(1));
    rig.seconds(60);
    assert_eq!(rig.publishes, []);
}

#[test]
fn only_an_answer_comes_by_another_way_than_the_server() {
    let mut rig = Rig::new();
    rig.input(Input::Routed(element("<message from='push.example'><body>b</body></message>")));
    assert_eq!(rig.to_client, Vec::<String>::new());
    rig.input(Input::Routed(element("<iq type='result' id='1' from='push.example'/>")));
    assert_eq!(rig.to_client.len(), 1);
}

/// The client chooses the id of a request, and others may know or guess it.
#[test]
fn only_the_server_says_that_the_account_is_removed() {
    let mut rig = Rig::new();
    let remove = "<iq type='set' id='bye'><query xmlns='jabber:iq:register'><remove/></query></iq>";
    let answer = |from: &str| element(&format!("<iq type='result' id='bye'{from}/>"));
    rig.client(remove);
    rig.input(Input::Routed(answer(" from='push.example'")));
    rig.upstream("<iq type='result' id='bye' from='push.example'/>");
    assert!(!rig.stored.contains(&Change::Removed));
    rig.upstream("<iq type='result' id='bye'/>");
    assert!(rig.stored.contains(&Change::Removed));
}

#[test]
fn an_answer_to_a_publish_is_taken_whichever_way_it_comes() {
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.seconds(2);
    rig.upstream(&message(1));
    let publishes = rig.publish_all();
    let [publish] = publishes.as_slice() else { panic!("one publish was expected") };
    rig.input(Input::Routed(element(&answer_of(publish, "result", ""))));
    assert!(rig.events.iter().any(|e| matches!(e, Event::PublishOutcome(.., Outcome::Accepted))), "{:?}", rig.events);
}

fn published(target: &Target, outcome: Outcome) -> Input {
    Input::Published(Box::new(PublishResult { id: PublishId::default(), target: target.clone(), outcome }))
}

#[test]
fn a_success_is_stored_once_a_minute_and_at_once_where_it_makes_a_difference() {
    let mut rig = Rig::with_push();
    let target = rig.account.registrations[0].target.clone();
    let mut check = |seconds, outcome: Outcome, expect: usize| {
        rig.seconds(seconds);
        rig.input(published(&target, outcome));
        let stored = rig.stored.iter().filter(|change| matches!(change, Change::Succeeded { .. })).count();
        assert_eq!(stored, expect, "{:?}", rig.stored);
    };
    check(0, Outcome::Accepted, 1);
    check(30, Outcome::Accepted, 1);
    check(40, Outcome::Accepted, 2);
    check(1, Outcome::Refused("item-not-found".to_owned()), 2);
    check(1, Outcome::Accepted, 3);
    check(1, Outcome::Accepted, 3);
    assert_eq!(rig.account.registrations[0].errors, 0);
}

/// The store may still have the error count that a success was meant to reset.
#[test]
fn a_success_is_said_again_if_the_last_could_not_be_stored() {
    let mut rig = Rig::with_push();
    let target = rig.account.registrations[0].target.clone();
    let refused = Outcome::Refused("item-not-found".to_owned());
    rig.input(published(&target, refused));
    rig.session.handle(rig.now, published(&target, Outcome::Accepted));
    while rig.session.poll().is_some() {}
    rig.input(Input::Changed(None));
    assert_eq!(rig.account.registrations[0].errors, 1);
    rig.input(published(&target, Outcome::Accepted));
    assert_eq!(rig.account.registrations[0].errors, 0);
}
