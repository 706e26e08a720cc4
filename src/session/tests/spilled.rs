//! Messages that only the spool holds while the client is away.

use super::*;

fn from(chat: &str, n: usize) -> String {
    format!("<message from='{chat}@example.net/x' type='chat' id='{n}'><body>text {n}</body></message>")
}

fn dark() -> Rig {
    let mut rig = Rig::with_push();
    rig.lose_client();
    rig.clear();
    rig
}

impl Rig {
    fn in_memory(&self) -> Vec<usize> {
        let ids = self
            .session
            .device
            .delivery()
            .queue()
            .iter()
            .map(|item| item.element.node().attr("id").unwrap().parse().unwrap());
        ids.collect()
    }
}

#[test]
fn of_what_waits_on_disk_memory_has_the_newest_of_each_conversation() {
    let mut rig = dark();
    for n in 1..=20 {
        rig.upstream(&from("romeo", n));
        rig.upstream(&from("nurse", 100 + n));
    }
    assert_eq!(rig.in_memory(), [20, 120]);
    assert_eq!((rig.spool.len(), rig.session.queued().0), (40, 40));
    rig.disk_is_slow = true;
    rig.upstream(&from("romeo", 21));
    assert_eq!(rig.in_memory(), [20, 120, 21], "it is not on disk yet");
    rig.sync();
    assert_eq!(rig.in_memory(), [120, 21]);
}

#[test]
fn a_burst_goes_to_the_spool_as_fast_as_the_disk_takes_it() {
    let mut rig = dark();
    rig.disk_is_slow = true;
    (1..=40).for_each(|n| rig.upstream(&from("romeo", n)));
    assert_eq!(rig.in_memory().len(), 40);
    let half = rig.unanswered.remove(19);
    rig.input(half);
    assert_eq!(rig.in_memory().len(), 20);
    rig.sync();
    assert_eq!(rig.in_memory(), [40]);
}

#[test]
fn spooled_messages_come_in_their_order_among_all_that_waited() {
    let mut rig = dark();
    rig.upstream(&from("romeo", 1));
    rig.upstream("<presence from='nurse@example.net/x' id='2'/>");
    rig.upstream(&from("romeo", 3));
    rig.upstream("<iq type='get' from='nurse@example.net/x' id='4'><query xmlns='jabber:iq:version'/></iq>");
    rig.upstream(&from("romeo", 5));
    rig.upstream(&from("romeo", 6));
    assert_eq!(rig.in_memory(), [2, 4, 6]);
    rig.resume(0);
    let stanzas = rig.to_client.iter().filter(|xml| !xml.starts_with("<r"));
    let ids: Vec<String> = stanzas.map(|xml| element(xml).node().attr("id").unwrap().into_owned()).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6"]);
    assert!(rig.to_client.iter().all(|xml| !xml.starts_with("<message") || xml.contains("urn:xmpp:delay")));
    rig.client("<a xmlns='urn:xmpp:sm:3' h='7'/>");
    assert_eq!((rig.spool.len(), rig.session.queued()), (0, (0, 0)));
}

#[test]
fn what_is_no_stanza_any_more_is_lost_alone() {
    let mut rig = dark();
    (1..=4).for_each(|n| rig.upstream(&from("romeo", n)));
    for (item, garbage) in rig.spool.values_mut().zip(["<message", "no stanza"]) {
        item.bytes = garbage.into();
    }
    rig.resume(0);
    assert_eq!(rig.delivered(), [3, 4]);
    assert_eq!(rig.events.iter().filter(|event| **event == Event::Unreadable).count(), 2);
    assert_eq!(rig.spool.len(), 2, "what cannot be read is deleted at once");
}

#[test]
fn new_messages_wait_for_spooled_ones() {
    let mut rig = dark();
    (1..=3).for_each(|n| rig.upstream(&from("romeo", n)));
    let spool = std::mem::take(&mut rig.spool);
    let h = sm::Handled::new(1);
    let resumption = Resumption { h, server_header: header(), success: None, tokens: Default::default() };
    rig.session.handle(rig.now, Input::Attach(Box::new(resumption)));
    let loads = std::iter::from_fn(|| rig.session.poll()).filter(|output| matches!(output, Output::Load(..)));
    assert_eq!(loads.count(), 1);
    rig.upstream(&from("nurse", 4));
    assert_eq!(rig.delivered(), [] as [usize; 0]);
    rig.input(Input::Loaded(spool.into_values().collect()));
    assert_eq!(rig.delivered(), [1, 2, 3, 4]);
}

/// Regression test: the ack request was sent before the messages. It was answered at once, and the next one had to
/// wait.
#[test]
fn a_client_that_is_back_is_asked_after_the_spooled_messages() {
    let mut rig = dark();
    (1..=3).for_each(|n| rig.upstream(&from("romeo", n)));
    rig.resume(0);
    let asked: Vec<_> = rig.to_client.iter().map(|xml| xml.starts_with("<r xmlns")).collect();
    assert_eq!(asked, [false, false, false, false, true], "{:?}", rig.to_client);
    // With nothing in the spool, the request does not wait.
    rig.client("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    rig.lose_client();
    rig.clear();
    rig.resume(3);
    assert_eq!(rig.to_client.iter().filter(|xml| xml.starts_with("<r xmlns")).count(), 1);
}

#[test]
fn a_client_that_leaves_before_all_is_read_is_notified_and_gets_the_rest_later() {
    let mut rig = dark();
    (1..=3).for_each(|n| rig.upstream(&from("romeo", n)));
    rig.resume(1);
    assert_eq!(rig.delivered(), [1, 2, 3]);
    rig.client("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    rig.lose_client();
    rig.upstream(&from("romeo", 4));
    assert_eq!(rig.in_memory(), [2, 3, 4], "they were written, so they may be acknowledged");
    rig.clear();
    rig.resume(2);
    assert_eq!(rig.delivered(), [2, 3, 4]);
}

#[test]
fn a_push_counts_spooled_messages_and_shows_the_newest_that_was_not_read_elsewhere() {
    let mut rig = Rig::set(|push| (push.with_sender, push.repush) = (true, vec![Duration::from_secs(60)])).pushing();
    rig.lose_client();
    (1..=3).for_each(|n| rig.upstream(&from("romeo", n)));
    (4..=5).for_each(|n| rig.upstream(&from("nurse", n)));
    rig.upstream(
        "<message from='juliet@example.org' id='6'><sent xmlns='urn:xmpp:carbons:2'>\
         <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='juliet@example.org/desk' \
         to='nurse@example.net' type='chat'><displayed xmlns='urn:xmpp:chat-markers:0' id='5'/></message>\
         </forwarded></sent></message>",
    );
    rig.seconds(61);
    let last = format!("{:?}", rig.publishes.last().unwrap());
    assert!(last.contains("romeo@example.net") && last.contains('3'), "{last}");
}

#[test]
fn spooled_archived_messages_are_not_kept_for_a_user_who_asks_the_archive() {
    let archived = |n: usize| {
        format!(
            "<message from='romeo@example.net/x' type='chat' id='{n}'><body>{n}</body>\
             <stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.org' id='{n}'/></message>"
        )
    };
    let mut rig = Rig::with_push();
    rig.client("<iq type='set' id='m'><query xmlns='urn:xmpp:mam:2'/></iq>");
    rig.lose_client();
    (1..=3).for_each(|n| rig.upstream(&archived(n)));
    rig.upstream(&from("romeo", 4));
    assert_eq!(rig.in_memory(), [4]);
    rig.seconds(73 * 60 * 60);
    assert_eq!(rig.spool.len(), 1);
}
