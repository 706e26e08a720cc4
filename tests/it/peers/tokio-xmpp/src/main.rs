//! One tokio-xmpp client, driven by lines of JSON on stdin. It writes its events as lines of JSON to stdout.
//!
//! The first line identifies it: `{"jid", "password", "host", "port", "direct"}`. The certificate that it trusts is in
//! `SSL_CERT_FILE`. The orders after it are `{"do": "connect"}` and `{"do": "send", "xml": "<iq xmlns='jabber:client'
//! …/>"}`. The library reconnects a lost connection.

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio_xmpp::Stanza;
use tokio_xmpp::connect::{DirectTlsServerConnector, DnsConfig, StartTlsServerConnector};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::jid::Jid;
use tokio_xmpp::parsers::presence::Presence;
use tokio_xmpp::rustls::crypto::ring;
use tokio_xmpp::stanzastream::{Event, StanzaStream, StreamEvent};
use tokio_xmpp::xmlstream::Timeouts;

fn report(event: &Value) {
    println!("{event}");
}

fn connect(who: &Value) -> StanzaStream {
    let word = |name: &str| who[name].as_str().unwrap();
    let server = DnsConfig::addr(&format!("{}:{}", word("host"), who["port"]));
    let (jid, password) = (word("jid").parse::<Jid>().unwrap(), word("password").to_owned());
    if who["direct"] == true {
        StanzaStream::new_c2s(DirectTlsServerConnector(server), jid, password, Timeouts::default(), 16)
    } else {
        StanzaStream::new_c2s(StartTlsServerConnector(server), jid, password, Timeouts::default(), 16)
    }
}

async fn happened(stream: &StanzaStream, event: Event) {
    match event {
        Event::Stream(StreamEvent::Reset { bound_jid, .. }) => {
            stream.send(Box::new(Presence::available().into())).await;
            report(&json!({"event": "online", "jid": bound_jid.to_string()}));
        }
        Event::Stream(StreamEvent::Suspended) => report(&json!({"event": "disconnected"})),
        Event::Stream(StreamEvent::Resumed) => report(&json!({"event": "resumed"})),
        Event::Stanza(Stanza::Message(message)) => {
            let body = message.bodies.values().next().map(String::as_str);
            report(&json!({"event": "message", "body": body}));
        }
        Event::Stanza(stanza @ Stanza::Iq(_)) => {
            let element = Element::from(stanza);
            let name = |key| element.attr(key);
            report(&json!({"event": "iq", "id": name("id"), "type": name("type")}));
        }
        Event::Stanza(Stanza::Presence(_)) => {}
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    ring::default_provider().install_default().unwrap();
    let mut lines = BufReader::new(stdin()).lines();
    let who: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some(r#"{"do":"connect"}"#));
    let mut stream = connect(&who);
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line.unwrap() else { return };
                let order: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(order["do"], "send");
                let element: Element = order["xml"].as_str().unwrap().parse().unwrap();
                stream.send(Box::new(Stanza::try_from(element).unwrap())).await;
            }
            event = stream.next() => happened(&stream, event.unwrap()).await,
        }
    }
}
