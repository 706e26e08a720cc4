//! Clients in the background, where the server has no client state indication (XEP-0352).

use super::*;

const INACTIVE: &str = "<inactive xmlns='urn:xmpp:csi:0'/>";
const ACTIVE: &str = "<active xmlns='urn:xmpp:csi:0'/>";

fn state(from: &str, state: &str) -> String {
    format!("<message from='{from}/x' type='chat'><{state} xmlns='http://jabber.org/protocol/chatstates'/></message>")
}

fn presence(from: &str, show: &str) -> String {
    format!("<presence from='{from}/x'><show>{show}</show></presence>")
}

fn tune(title: &str) -> String {
    format!(
        "<message from='romeo@example.net' type='headline'><event xmlns='http://jabber.org/protocol/pubsub#event'>\
         <items node='http://jabber.org/protocol/tune'><item id='1'><tune xmlns='http://jabber.org/protocol/tune'>\
         <title>{title}</title></tune></item></items></event></message>"
    )
}

impl Rig {
    /// A client with stream management that is in the background, where the server has no CSI.
    fn inactive() -> Self {
        Self::inactive_with(ServerFeatures { csi: false, sm: false })
    }

    fn inactive_with(server: ServerFeatures) -> Self {
        let settings = Settings { session_queue: 1 << 20, ..Settings::default() };
        let mut rig = Self::begin(settings, Vec::new(), |bound| bound.server = server);
        rig.client("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        rig.client(INACTIVE);
        rig.clear();
        rig
    }

    /// Returns what was written to the client since the last call, without delay stamps and ack requests.
    fn written(&mut self) -> Vec<String> {
        let all = std::mem::take(&mut self.to_client).into_iter().filter(|xml| !xml.starts_with("<r "));
        all.map(|xml| match xml.split_once("<delay ") {
            Some((before, after)) => format!("{before}{}", after.split_once("/>").unwrap().1),
            None => xml,
        })
        .collect()
    }
}

const NOTHING: [String; 0] = [];

#[test]
fn unimportant_stanzas_are_held_until_an_important_one_comes() {
    let mut rig = Rig::inactive();
    let (there, typing) = (presence("romeo@example.net", "away"), state("romeo@example.net", "composing"));
    rig.upstream(&there);
    rig.upstream(&typing);
    rig.seconds(60);
    assert_eq!(rig.written(), NOTHING);
    rig.upstream(&message(1));
    assert_eq!(rig.written(), [there, typing, message(1)], "in order");
}

#[test]
fn what_was_held_says_since_when() {
    let mut rig = Rig::inactive();
    rig.upstream(&presence("romeo@example.net", "away"));
    rig.seconds(60);
    rig.client(ACTIVE);
    assert!(
        rig.to_client[0].contains("<delay xmlns='urn:xmpp:delay' from='example.org' stamp="),
        "{:?}",
        rig.to_client
    );
}

#[test]
fn the_newest_makes_older_ones_of_its_kind_obsolete() {
    let mut rig = Rig::inactive();
    for stanza in [
        presence("romeo@example.net", "away"),
        state("romeo@example.net", "composing"),
        state("nurse@example.net", "composing"),
        tune("one"),
        presence("romeo@example.net", "dnd"),
        state("romeo@example.net", "paused"),
        tune("two"),
    ] {
        rig.upstream(&stanza);
    }
    rig.client(ACTIVE);
    assert_eq!(
        rig.written(),
        [
            state("nurse@example.net", "composing"),
            presence("romeo@example.net", "dnd"),
            state("romeo@example.net", "paused"),
            tune("two")
        ]
    );
}

#[test]
fn whatever_a_client_in_the_background_may_need_comes_at_once() {
    for stanza in [
        "<presence from='nurse@example.net' type='subscribe'/>",
        "<presence from='room@example.net/me'><x xmlns='http://jabber.org/protocol/muc#user'><status code='307'/></x></presence>",
        "<message from='romeo@example.net/x' type='error' id='1'/>",
        "<message from='romeo@example.net/x'><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/></message>",
        "<message from='romeo@example.net/x'><unheard-of xmlns='urn:x'/></message>",
        "<iq from='example.org' type='get' id='1'><query xmlns='jabber:iq:version'/></iq>",
    ] {
        let mut rig = Rig::inactive();
        rig.upstream(stanza);
        assert_eq!(rig.written(), [stanza]);
    }
}

#[test]
fn a_stanza_of_the_client_brings_what_was_held_before_it_takes_effect() {
    let mut rig = Rig::inactive();
    let there = presence("romeo@example.net", "away");
    rig.upstream(&there);
    rig.client("<message to='romeo@example.net'><body>hi</body></message>");
    assert_eq!(rig.written(), [there]);
}

#[test]
fn what_is_held_is_bounded() {
    let mut rig = Rig::inactive();
    for n in 0..256 {
        rig.upstream(&presence(&format!("{n}@example.net"), "away"));
    }
    assert_eq!(rig.written().len(), 256);
}

#[test]
fn where_the_server_has_it_the_server_does_it() {
    let mut rig = Rig::inactive_with(ServerFeatures { csi: true, sm: false });
    let there = presence("romeo@example.net", "away");
    rig.upstream(&there);
    assert_eq!(rig.written(), [there]);
}

#[test]
fn a_resumed_client_is_active_and_numbers_are_given_when_written() {
    let mut rig = Rig::inactive();
    rig.upstream(&state("romeo@example.net", "composing"));
    rig.upstream(&state("romeo@example.net", "paused"));
    rig.lose_client();
    rig.resume(0);
    assert_eq!(rig.written()[1..], [state("romeo@example.net", "paused")]);
    let there = presence("romeo@example.net", "away");
    rig.upstream(&there);
    assert_eq!(rig.written(), [there]);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!(rig.ended, None);
}
