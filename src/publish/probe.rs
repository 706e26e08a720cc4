//! [`Probe`]: tries transports without notifying a device, for `pushward check`, and reports how far each of them gets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::time::timeout;

use super::answers::AnswerPolicy;
use super::peer::{CLOSE_TIMEOUT, PublishStream, StreamPeer, next_frame};
use super::s2s::dial::{Dialer, Reached};
use super::s2s::endpoints::TlsMode;
use super::s2s::{inbound, pool};
use super::{component, namespace};
use crate::config::{Config, Transport};
use crate::jid::Jid;
use crate::net::conn::Conn;
use crate::net::roots::RootsError;
use crate::xml::{Element, Frame, Node, STREAM_CLOSE, XmlWriter, excerpt, ns};

/// The time that a push service has to answer a harmless request.
const ANSWER: Duration = Duration::from_secs(10);

/// The result of trying a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFinding {
    /// Notifications can be sent over it. Contains the observations.
    Goes(String),
    /// Notifications cannot be sent over it. Contains the cause and the remedy.
    Fails(String),
    /// The transport was not tried, for this reason. It may work.
    Untried(String),
    /// The transport cannot be used for this push service, for this reason.
    Unfit(String),
    /// The transport is not configured for the host.
    Absent,
}

/// Other users of connections for the same hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeContext {
    /// There is none: stanzas on our connections are for nobody else.
    Alone,
    /// A running daemon. Its streams must not be disturbed.
    Daemon,
}

/// Tries transports.
pub struct Probe {
    config: Arc<Config>,
    dialer: Dialer,
    context: ProbeContext,
}

impl Probe {
    /// Creates a probe. `keys`: the certificates of the hosts.
    ///
    /// # Errors
    /// Returns an error if the `ca` of a `[[push.route]]` cannot be used.
    pub fn new(
        config: Arc<Config>,
        keys: HashMap<String, Arc<CertifiedKey>>,
        context: ProbeContext,
    ) -> Result<Self, RootsError> {
        Ok(Self { dialer: Dialer::new(Arc::clone(&config), keys)?, config, context })
    }

    /// Tries a transport from a host to a push service as far as possible without notifying a device. Takes at most a minute.
    pub async fn try_transport(&self, transport: Transport, host: &str, service: &Jid) -> ProbeFinding {
        match transport {
            Transport::S2s => self.s2s(host, service).await,
            Transport::Component => self.component(host, service).await,
            Transport::Session => {
                ProbeFinding::Untried("requires a user session; test it with `pushward push ping`".to_owned())
            }
        }
    }

    async fn s2s(&self, host: &str, service: &Jid) -> ProbeFinding {
        if !pool::is_fit(&self.config, service) {
            let what = "is not used for names of this machine or its own hosts; add a [[push.route]] with the address";
            return ProbeFinding::Unfit(what.to_owned());
        }
        // If bidi is negotiated, the peer sends its stanzas for the host on this stream. So it is requested only if no daemon
        // would miss them.
        let bidi = self.config.push.s2s_bidi && self.context == ProbeContext::Alone;
        let wanted = if bidi { AnswerPolicy::OnStream } else { AnswerPolicy::ToServer };
        let reached = match self.dialer.reach(host, service.domain(), wanted).await {
            Ok(reached) => reached,
            Err(error) => return ProbeFinding::Fails(error.to_string()),
        };
        let Reached { conn, address, tls, answers, offers_bidi } = reached;
        let tls = if tls == TlsMode::Direct { "direct TLS" } else { "STARTTLS" };
        let seen = format!("{address} accepts {host}, with {tls}");
        if answers == AnswerPolicy::OnStream {
            return match question(conn, host, service).await {
                Replied::Result => ProbeFinding::Goes(format!("{seen}; it answers on the same stream (bidi)")),
                Replied::Error(condition) => ProbeFinding::Goes(format!("{seen}; it answers {condition} (bidi)")),
                Replied::Down(condition) => ProbeFinding::Fails(format!(
                    "{seen}, but answers {condition} for the push service; wait until its operator has corrected that"
                )),
                Replied::Nothing(why) => {
                    ProbeFinding::Goes(format!("{seen}, but sent no answer on the stream (bidi): {why}"))
                }
            };
        }
        close(conn).await;
        let answers = match (offers_bidi, self.config.push.s2s_bidi) {
            (true, true) => "answers come back on the same stream (bidi)",
            (true, false) => "answers go to the server, because s2s_bidi is off: outcomes are unknown",
            (false, _) => "answers go to the server (no bidi): outcomes are unknown",
        };
        ProbeFinding::Goes(format!("{seen}; {answers}"))
    }

    async fn component(&self, host: &str, service: &Jid) -> ProbeFinding {
        let own = self.config.hosts.iter().find(|own| own.domain == host);
        let Some(component) = own.and_then(|own| own.component.clone()) else { return ProbeFinding::Absent };
        if !component::is_fit(&self.config, host, service) {
            return ProbeFinding::Unfit("is not used for users of its own hosts".to_owned());
        }
        if self.context == ProbeContext::Daemon {
            // The server would refuse a second stream, or send it the answers of the first.
            let what = "the running daemon uses the component's only stream; test it with `pushward push ping`";
            return ProbeFinding::Untried(what.to_owned());
        }
        let (address, domain) = (component.address.clone(), component.domain.clone());
        let server = component::ComponentPort::new(Arc::clone(&self.config), host.to_owned(), component);
        let link = match server.dial().await {
            Ok(link) => link,
            Err(error) => return ProbeFinding::Fails(error.to_string()),
        };
        let seen = format!("the server at {address} accepts {domain}");
        if link.answers == AnswerPolicy::ToServer {
            close(link.conn).await;
            return ProbeFinding::Goes(format!(
                "{seen}; answers go to the server (from = \"host\"): outcomes are unknown"
            ));
        }
        match question(link.conn, &link.from, service).await {
            Replied::Result => ProbeFinding::Goes(format!("{seen}; the push service answers")),
            Replied::Error(condition) => ProbeFinding::Goes(format!("{seen}; the push service answers {condition}")),
            Replied::Down(why) | Replied::Nothing(why) => ProbeFinding::Fails(format!(
                "{seen}, but the push service is unreachable through it: {why}; allow the server to connect to other \
                    servers, or remove \"component\" from transports"
            )),
        }
    }
}

/// The reply of a push service.
enum Replied {
    Result,
    /// The push service is there, but returned an error.
    Error(String),
    /// The push service is not available now.
    Down(String),
    Nothing(String),
}

/// Sends a service discovery request to the push service (XEP-0030 §3), which changes nothing there, and closes the stream.
async fn question(mut conn: Conn<PublishStream>, from: &str, service: &Jid) -> Replied {
    let id = format!("{:032x}", rand::random::<u128>());
    let mut xml = XmlWriter::new();
    xml.start("iq").attr("type", "get").attr("id", &id).attr("from", from).attr("to", service.as_str());
    xml.start("query").attr("xmlns", ns::DISCO_INFO);
    conn.write(&xml.finish());
    let replied = match timeout(ANSWER, answer(&mut conn, &id, service)).await {
        Ok(replied) => replied,
        Err(_) => Replied::Nothing(format!("no answer within {ANSWER:?}")),
    };
    close(conn).await;
    replied
}

async fn answer(conn: &mut Conn<PublishStream>, id: &str, service: &Jid) -> Replied {
    loop {
        let element = match next_frame(conn).await {
            Ok(Frame::Element(element)) => element,
            Ok(Frame::Skipped(skipped)) => skipped.element,
            Ok(Frame::Whitespace) => continue,
            Ok(Frame::Close | Frame::Open(_)) => return Replied::Nothing("the stream was closed".to_owned()),
            Err(error) => return Replied::Nothing(excerpt(&error.to_string())),
        };
        let Some(stanza) = namespace::to_client(&element) else { continue };
        let node = stanza.node();
        if is_answer(&node, id, service) {
            return judge(&stanza);
        }
        if inbound::is_returned(&node) {
            // The stanza may be for a client that only the server knows.
            conn.reply(&namespace::busy(&node));
        }
    }
}

fn is_answer(stanza: &Node<'_>, id: &str, service: &Jid) -> bool {
    let from = stanza.attr("from").map(|from| Jid::new(&from));
    stanza.name() == "iq"
        && stanza.attr("id").as_deref() == Some(id)
        && matches!(stanza.attr("type").as_deref(), Some("result" | "error"))
        && from.as_ref() == Some(service)
}

fn judge(stanza: &Element) -> Replied {
    use crate::push::outcome::Outcome;
    match Outcome::of(&stanza.node()) {
        // RFC 6120 §8.3.3.16 f.: servers return these conditions about other servers.
        Outcome::Refused(condition) if condition.starts_with("remote-server-") => Replied::Down(condition),
        Outcome::Refused(condition) => Replied::Error(condition),
        Outcome::Wait(condition) => Replied::Down(condition),
        Outcome::Accepted | Outcome::Unknown | Outcome::NotSent => Replied::Result,
    }
}

async fn close(mut conn: Conn<PublishStream>) {
    conn.write(STREAM_CLOSE);
    conn.finish(CLOSE_TIMEOUT).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Header;

    fn check(xml: &str, is_it: bool) -> Replied {
        let stanza = Element::parse(xml.to_owned().into(), &Header::bare()).unwrap();
        assert_eq!(is_answer(&stanza.node(), "1", &"push.example".parse().unwrap()), is_it, "{xml}");
        judge(&stanza)
    }

    #[test]
    fn only_an_answer_of_the_service_counts_and_shows_whether_it_is_available() {
        let error = |kind: &str, condition: &str| {
            let xml = format!(
                "<iq xmlns='jabber:client' type='error' id='1' from='push.example'><error type='{kind}'>\
                 <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            );
            check(&xml, true)
        };
        assert!(matches!(error("cancel", "service-unavailable"), Replied::Error(_)));
        assert!(matches!(error("wait", "service-unavailable"), Replied::Down(_)));
        assert!(matches!(error("cancel", "remote-server-not-found"), Replied::Down(_)));
        let result = "<iq xmlns='jabber:client' type='result' id='1' from='Push.example'/>";
        assert!(matches!(check(result, true), Replied::Result));
        check(&result.replace("Push.example", "evil.example"), false);
        check(&result.replace("id='1'", "id='2'"), false);
        check(&result.replace("result", "get"), false);
        check(&result.replace("iq", "message"), false);
    }
}
