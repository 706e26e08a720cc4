//! A phone that returns to its session in one of several ways, and counts its round trips: how often it has sent something
//! and cannot go on before an answer.

use std::io;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::link::{Link, Target, attribute};
use super::scram;
use super::tls::DOMAIN;

const TOKEN: &str = "HT-SHA-256-NONE";
const FEATURES: &[u8] = b"</stream:features>";

/// A way to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// SASL with a password, then `<resume/>` on a new stream (XEP-0198).
    Sasl,
    /// SASL2 with a password, and `<resume/>` inside.
    Sasl2,
    /// A token with `<resume/>` inside (XEP-0484), after the features.
    Token,
    /// The same together with the header, before the features are known.
    EarlyToken,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Sasl, Self::Sasl2, Self::Token, Self::EarlyToken];

    /// Returns its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sasl => "SASL, then `<resume/>`",
            Self::Sasl2 => "SASL2 with `<resume/>` inside",
            Self::Token => "FAST with `<resume/>` inside, after the features",
            Self::EarlyToken => "FAST with `<resume/>` inside, with the header",
        }
    }

    /// Returns true if the server does not take part.
    pub(crate) fn is_by_token(self) -> bool {
        matches!(self, Self::Token | Self::EarlyToken)
    }
}

/// The connection to Pushward, with the latency that is added to it.
#[derive(Clone)]
pub(crate) struct Path {
    pub(crate) target: Target,
    /// A round trip. The relay does not delay the TCP handshake, so the phone waits for this time after it.
    pub(crate) round_trip: Duration,
}

/// One return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    /// Round trips of TCP and TLS.
    pub(crate) connecting: u32,
    /// Round trips after TLS, up to the waiting message.
    pub(crate) after: u32,
    /// Seconds from connecting to the waiting message.
    pub(crate) time: f64,
}

/// A phone with a session that resumes.
pub(crate) struct Phone {
    pub(crate) number: usize,
    previd: String,
    /// Number of stanzas that it has received.
    handled: u32,
    token: String,
    /// Number of logins by the token.
    count: u64,
}

/// A connection that counts round trips.
struct Line {
    link: Link,
    connecting: u32,
    after: u32,
    /// True if something was sent since the last wait.
    has_sent: bool,
}

impl Line {
    async fn connect(path: &Path) -> io::Result<Self> {
        let mut link = Link::open(&path.target).await?;
        if !path.round_trip.is_zero() {
            tokio::time::sleep(path.round_trip).await;
        }
        let connecting = 1 + link.secure().await?;
        Ok(Self { link, connecting, after: 0, has_sent: false })
    }

    async fn send(&mut self, text: &str) -> io::Result<()> {
        self.has_sent = true;
        self.link.send(text.as_bytes()).await
    }

    /// Returns what comes up to `end`.
    async fn until(&mut self, end: &[u8]) -> io::Result<String> {
        self.after += u32::from(std::mem::take(&mut self.has_sent));
        self.link.until(end).await
    }

    async fn request(&mut self, text: &str, end: &[u8]) -> io::Result<String> {
        self.send(text).await?;
        self.until(end).await
    }
}

impl Phone {
    /// Logs in with SASL2, obtains a token, registers for notifications, and loses the connection.
    pub(crate) async fn come_and_go(path: &Path, number: usize) -> io::Result<Self> {
        let mut phone = Self { number, previd: String::new(), handled: 0, token: String::new(), count: 0 };
        let mut line = Line::connect(path).await?;
        line.request(&phone.header(), FEATURES).await?;
        let wish = format!("<request-token xmlns='urn:xmpp:fast:0' mechanism='{TOKEN}'/>");
        let success = phone.password(&mut line, &format!("{}{wish}", phone.agent())).await?;
        let (_, enabled) = success.split_once("<enabled ").unwrap_or_else(|| panic!("no session: {success}"));
        phone.previd = attribute(&format!(" {enabled}"), "id").expect("an id");
        phone.token = attribute(&success, "token").expect("a token");
        line.until(FEATURES).await?;
        let enable = format!(
            "<presence/><iq type='set' id='push'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n{number}'/></iq>"
        );
        line.send(&enable).await?;
        line.until(b"<iq ").await?;
        assert!(line.until(b">").await?.contains("result"));
        phone.handled = 1;
        line.link.reset();
        Ok(phone)
    }

    /// Returns to the session, in which one message waits. Confirms it, and loses the connection.
    pub(crate) async fn come_back(&mut self, path: &Path, way: Way, mark: &str) -> io::Result<Return> {
        let begin = Instant::now();
        let mut line = Line::connect(path).await?;
        match way {
            Way::Sasl => self.by_sasl(&mut line).await?,
            Way::Sasl2 => {
                line.request(&self.header(), FEATURES).await?;
                let inline = format!("{}{}", self.agent(), self.resume());
                let success = self.password(&mut line, &inline).await?;
                assert!(success.contains("<resumed"), "{success}");
            }
            Way::Token | Way::EarlyToken => self.by_token(&mut line, way).await?,
        }
        let message = line.until(b"</message>").await?;
        let time = begin.elapsed().as_secs_f64();
        assert!(message.contains(mark), "not {mark}: {message}");
        let done = Return { connecting: line.connecting, after: line.after, time };
        self.handled += 1;
        let confirm = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/><r xmlns='urn:xmpp:sm:3'/>", self.handled);
        line.request(&confirm, b"<a ").await?;
        line.link.reset();
        Ok(done)
    }

    async fn by_sasl(&self, line: &mut Line) -> io::Result<()> {
        let mut scram = scram::Client::new(&self.user());
        // Clients without SASL2 do not send their address.
        let header = header("");
        line.request(&header, FEATURES).await?;
        let (ns, mechanism) = ("urn:ietf:params:xml:ns:xmpp-sasl", scram::MECHANISM);
        let auth = format!("<auth xmlns='{ns}' mechanism='{mechanism}'>{}</auth>", scram.first());
        let challenge = line.request(&auth, b"</challenge>").await?;
        let response = format!("<response xmlns='{ns}'>{}</response>", scram.last(content(&challenge, "challenge")));
        let success = line.request(&response, b"</success>").await?;
        scram.verify(content(&success, "success"));
        line.request(&header, FEATURES).await?;
        line.request(&self.resume(), b"<resumed").await.map(drop)
    }

    /// Logs in with SASL2 and the password. Returns the success.
    async fn password(&self, line: &mut Line, inline: &str) -> io::Result<String> {
        let mut scram = scram::Client::new(&self.user());
        let authenticate = authenticate(scram::MECHANISM, &scram.first(), inline);
        let challenge = line.request(&authenticate, b"</challenge>").await?;
        let response = scram.last(content(&challenge, "challenge"));
        let response = format!("<response xmlns='urn:xmpp:sasl:2'>{response}</response>");
        let success = line.request(&response, b"</success>").await?;
        scram.verify(content(&success, "additional-data"));
        Ok(success)
    }

    async fn by_token(&mut self, line: &mut Line, way: Way) -> io::Result<()> {
        self.count += 1;
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.token.as_bytes());
        let sign = |role: &str| hmac::sign(&key, role.as_bytes());
        let initial = [self.user().as_bytes(), b"\0", sign("Initiator").as_ref()].concat();
        let fast = format!("<fast xmlns='urn:xmpp:fast:0' count='{}'/>", self.count);
        let inline = format!("{}{}{fast}", self.agent(), self.resume());
        let authenticate = authenticate(TOKEN, &BASE64.encode(initial), &inline);
        if way == Way::EarlyToken {
            line.request(&(self.header() + &authenticate), FEATURES).await?;
        } else {
            line.request(&self.header(), FEATURES).await?;
            line.send(&authenticate).await?;
        }
        let success = line.until(b"</success>").await?;
        assert!(success.contains("<resumed"), "{success}");
        let data = BASE64.decode(content(&success, "additional-data")).unwrap();
        assert_eq!(data, sign("Responder").as_ref(), "the server does not know the token");
        Ok(())
    }

    fn user(&self) -> String {
        format!("d{}", self.number)
    }

    fn header(&self) -> String {
        header(&format!(" from='d{}@{DOMAIN}'", self.number))
    }

    /// Returns the device, and the session that it asks for if it cannot resume.
    fn agent(&self) -> String {
        format!(
            "<user-agent id='d4565fa7-4d72-4749-b3d3-{:012}'><software>Bench</software></user-agent>\
             <bind xmlns='urn:xmpp:bind:0'><tag>Bench</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>",
            self.number
        )
    }

    fn resume(&self) -> String {
        format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='{}'/>", self.previd, self.handled)
    }
}

fn header(from: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         to='{DOMAIN}'{from} version='1.0' xml:lang='en'>"
    )
}

fn authenticate(mechanism: &str, initial: &str, inline: &str) -> String {
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{initial}</initial-response>\
         {inline}</authenticate>"
    )
}

/// Returns the text of the first element of this name.
fn content<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, element) = xml.split_once(&format!("<{name}")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    let (_, text) = element.split_once('>').unwrap();
    text.split_once('<').unwrap().0
}
