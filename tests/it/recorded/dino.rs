//! Dino: no push, an `<r/>` after every stanza, and at most ten stanzas without an `<a/>`.

use std::time::{Duration, Instant};

use super::{Phone, Stage};
use crate::support::{Client, bodies, lost, numbered};

const HEADER: &str = "<?xml version='1.0' encoding='UTF-8'?>\
    <stream:stream to='localhost' from='alice@localhost' version='1.0' xml:lang='en' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const PRESENCE: &str = "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://dino.im' \
    ver='y5J05vvJHs4IS9lMvSGAuZ8zGAg='/></presence>";
const INFO: &str =
    "<iq id='info' type='get' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
/// The timeout for the answer to its ping.
const PING: Duration = Duration::from_secs(10);

async fn connected(stage: &Stage) -> Phone {
    let client = Client::starttls(stage.pushward.starttls, &stage.pushward.tls()).await;
    Phone::authenticated(client, HEADER).await
}

/// Sends a stanza once fewer than ten are unacknowledged. Dino requests acknowledgements only when it sends.
async fn send(phone: &mut Phone, xml: &str) {
    while phone.sent - phone.client.acked.last().copied().unwrap_or_default() >= 10 {
        phone.client.next_ack().await;
    }
    phone.stanza(xml).await;
    phone.client.send("<r xmlns='urn:xmpp:sm:3'/>").await;
}

fn message(body: &str) -> String {
    format!(
        "<message to='bob@localhost' type='chat' id='{body}'><body>{body}</body><request xmlns='urn:xmpp:receipts'/>\
         <markable xmlns='urn:xmpp:chat-markers:0'/><origin-id xmlns='urn:xmpp:sid:0' id='{body}'/></message>"
    )
}

#[tokio::test]
async fn it_never_stops_at_ten_unacknowledged_stanzas_and_resumes_with_the_rest() {
    let mut stage = Stage::new().await;
    let mut phone = connected(&stage).await;
    phone.restarted("").await;
    phone.bind("dino.0a1b2c3d").await;
    let enabled = phone.enable("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    send(&mut phone, "<iq id='roster' type='get'><query xmlns='jabber:iq:roster'/></iq>").await;
    send(&mut phone, INFO).await;
    send(&mut phone, PRESENCE).await;
    send(&mut phone, "<iq id='carbons' type='set'><enable xmlns='urn:xmpp:carbons:2'/></iq>").await;
    for id in ["roster", "info", "carbons"] {
        phone.answer(&format!("id='{id}'")).await;
    }
    let all = numbered("to bob", 1..=40);
    for body in &all {
        send(&mut phone, &message(body)).await;
    }
    assert_eq!(stage.bob.bodies_until(&all).await, all);

    let asked = Instant::now();
    send(&mut phone, "<iq id='ping' type='get' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    phone.answer("id='ping'").await;
    assert!(asked.elapsed() < PING, "{:?}", asked.elapsed());
    phone.acked(PING).await;
    phone.check_stream();

    // The connection is lost with five stanzas in transit. Dino sends again what `<resumed/>` does not count.
    let last = numbered("last", 1..=5);
    let before = phone.sent;
    for body in &last {
        phone.client.send(message(body)).await;
    }
    let handled = phone.client.handled;
    lost(&stage.pushward, phone.client, "alice@localhost/dino.0a1b2c3d").await;
    stage.say(&["waits 1", "waits 2"]).await;
    let mut phone = connected(&stage).await;
    phone.restarted("").await;
    let answer = phone.client.resume(&enabled.id, handled).await;
    assert_eq!((answer.name.as_str(), answer.attribute("previd")), ("resumed", Some(enabled.id.as_str())));
    let h: u32 = answer.attribute("h").unwrap().parse().unwrap();
    let taken = usize::try_from(h.checked_sub(before).expect("h went back")).unwrap();
    phone.sent = h;
    phone.client.acked.push(h);
    for body in &last[taken..] {
        send(&mut phone, &message(body)).await;
    }
    assert_eq!(bodies(&phone.client.messages(2).await), ["waits 1", "waits 2"]);
    let received: Vec<_> = stage.bob.bodies_until(&last[4..]).await;
    assert_eq!(received, last, "each once, of which {taken} had arrived");
    // Without a registration nothing is published.
    stage.service.assert_quiet(Duration::from_millis(300)).await;
}
