//! The login of the client: from the first byte to a new session, or a resumed one.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::connect::{ClientSecurity, ClientSocket, ServerAddress, dial, encrypt};
use super::{ANSWER, ClientError, Deadline, DemoClient, EnabledResponse, Managed, SavedSession, shown};
use crate::demo::server::DemoAccount;
use crate::demo::trace::StreamTap;
use crate::demo::wire::FrameReader;
use crate::jid::FullJid;
use crate::session::sm::Handled;
use crate::session::sm::nonza;
use crate::xml::{Element, Kind, Node, XmlWriter, ns};

impl DemoClient {
    /// Connects and authenticates. A bind or a resumption comes next.
    ///
    /// # Errors
    /// Returns a [`ClientError`] with the received elements.
    pub async fn log_in(place: &ServerAddress, account: &DemoAccount) -> Result<Self, ClientError> {
        let mut client = Self::on(place, dial(place).await?);
        match &place.security {
            ClientSecurity::Plain => {}
            ClientSecurity::Direct(tls) => {
                client = Self::on(place, encrypt(place, tls, client.reader.into_inner()).await?)
            }
            ClientSecurity::Starttls(tls) => {
                client.open("<starttls/>", |features| features.child("starttls", ns::TLS).is_some()).await?;
                client.send(element("starttls", ns::TLS).as_bytes()).await?;
                client.element_of("<proceed/>", "proceed", ns::TLS).await?;
                client = Self::on(place, encrypt(place, tls, client.reader.into_inner()).await?);
            }
        }
        client.authenticate(account).await?;
        Ok(client)
    }

    fn on(place: &ServerAddress, socket: Box<dyn ClientSocket>) -> Self {
        Self {
            reader: FrameReader::new(socket),
            place: place.clone(),
            tap: StreamTap::new(place.observer.clone(), &place.name, &place.peer),
            jid: None,
            managed: None,
            inbox: VecDeque::new(),
            seen: VecDeque::new(),
            requests: 0,
        }
    }

    async fn authenticate(&mut self, account: &DemoAccount) -> Result<(), ClientError> {
        self.open("SASL PLAIN", |features| {
            let mechanisms = features.child("mechanisms", ns::SASL);
            mechanisms.is_some_and(|offered| offered.children().any(|mechanism| mechanism.text() == "PLAIN"))
        })
        .await?;
        let mut auth = XmlWriter::new();
        auth.start("auth").attr("xmlns", ns::SASL).attr("mechanism", "PLAIN");
        auth.text(&BASE64.encode(format!("\0{}\0{}", account.name, account.password)));
        self.send(&auth.finish()).await?;
        self.element_of("<success/>", "success", ns::SASL).await?;
        self.reader.restart();
        self.open("bind", |features| features.child("bind", ns::BIND).is_some()).await
    }

    /// Opens the stream, or reopens it, and checks that a feature is offered.
    async fn open(&mut self, feature: &'static str, has: impl Fn(&Node<'_>) -> bool) -> Result<(), ClientError> {
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' to='{}' version='1.0' xml:lang='en'>",
            ns::CLIENT,
            ns::STREAMS,
            self.place.domain,
        );
        self.send(header.as_bytes()).await?;
        let features = self.element_of("<features/>", "features", ns::STREAMS).await?;
        if has(&features.node()) {
            return Ok(());
        }
        Err(ClientError::NotOffered { feature, offered: shown(&features) })
    }

    /// Waits for the next element. Returns an error if it is not the expected one.
    async fn element_of(&mut self, what: &'static str, name: &str, ns: &str) -> Result<Element, ClientError> {
        let element = self.element(&Deadline::new(what, ANSWER)).await?;
        if element.is(name, ns) { Ok(element) } else { Err(ClientError::Refused { what, answer: shown(&element) }) }
    }

    /// Binds a resource (RFC 6120 §7).
    ///
    /// # Errors
    /// Returns [`ClientError::Refused`], or any other error.
    pub async fn bind(&mut self, resource: &str) -> Result<(), ClientError> {
        let mut bind = XmlWriter::new();
        bind.start("bind").attr("xmlns", ns::BIND).start("resource").text(resource);
        let answer = self.request("set", None, &bind.finish()).await?;
        let bound = answer.node().child("bind", ns::BIND).and_then(|bind| bind.child("jid", ns::BIND));
        let jid = bound.and_then(|jid| FullJid::new(&jid.text()).ok());
        self.jid = Some(jid.ok_or_else(|| ClientError::Refused { what: "bind", answer: shown(&answer) })?);
        Ok(())
    }

    /// Enables stream management with resumption (XEP-0198 §3, §5).
    ///
    /// # Errors
    /// Returns [`ClientError::Refused`], also if the session cannot be resumed, or any other error.
    pub async fn enable_resumption(&mut self) -> Result<EnabledResponse, ClientError> {
        self.send(&nonza::enable_resumption()).await?;
        let answer = self.expect("<enabled/>", ANSWER, |element| element.kind() == Kind::Other).await?;
        let node = answer.node();
        let resumable = node.is("enabled", ns::SM) && nonza::allows_resumption(&node);
        let Some(id) = node.attr("id").filter(|_| resumable) else {
            return Err(ClientError::Refused { what: "resumption", answer: shown(&answer) });
        };
        self.managed = Some(Managed { id: id.into_owned(), handled: 0, confirmed: None });
        Ok(EnabledResponse { max: node.attr("max").and_then(|max| max.parse().ok()).map(Duration::from_secs) })
    }

    /// Resumes a session instead of binding (XEP-0198 §5).
    ///
    /// # Errors
    /// Returns [`ClientError::Refused`], or any other error.
    pub async fn resume(&mut self, session: &SavedSession) -> Result<(), ClientError> {
        let SavedSession { jid, previd, handled } = session;
        self.send(&nonza::resume(previd, Handled::new(*handled))).await?;
        let answer = self.element(&Deadline::new("<resumed/>", ANSWER)).await?;
        let node = answer.node();
        if !node.is("resumed", ns::SM) || node.attr("previd").as_deref() != Some(previd) {
            return Err(ClientError::Refused { what: "resumption", answer: shown(&answer) });
        }
        self.jid = Some(jid.clone());
        self.managed = Some(Managed { id: previd.clone(), handled: *handled, confirmed: None });
        Ok(())
    }
}

fn element(name: &str, ns: &str) -> String {
    format!("<{name} xmlns='{ns}'/>")
}
