//! [`StreamTap`]: reports the traffic on a stream to an observer, without passwords.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// An item that was seen on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamItem<'a> {
    /// The sender.
    pub from: &'a str,
    /// The receiver.
    pub to: &'a str,
    /// The client of the session, if neither end identifies it.
    pub session: Option<&'a str>,
    /// The stream header, element or footer, without secrets.
    pub xml: Cow<'a, str>,
}

/// A function that receives everything on a stream.
pub type Observer = Arc<dyn Fn(&StreamItem<'_>) + Send + Sync>;

/// One end of a stream, as an [`Observer`] sees it.
pub struct StreamTap {
    observer: Option<Observer>,
    here: String,
    there: String,
    session: OnceLock<String>,
}

impl StreamTap {
    /// Creates a tap at the end named `here` of a stream to `there`. Without an observer it costs nothing.
    pub fn new(observer: Option<Observer>, here: &str, there: &str) -> Self {
        Self { observer, here: here.to_owned(), there: there.to_owned(), session: OnceLock::new() }
    }

    /// Sets the client of the session, once it is known.
    pub fn belongs_to(&self, session: &str) {
        self.session.get_or_init(|| session.to_owned());
    }

    /// Reports received bytes.
    pub fn received(&self, xml: &[u8]) {
        self.report(&self.there, &self.here, xml);
    }

    /// Reports bytes that are about to be sent.
    pub fn sent(&self, xml: &[u8]) {
        self.report(&self.here, &self.there, xml);
    }

    fn report(&self, from: &str, to: &str, xml: &[u8]) {
        if let Some(observer) = &self.observer {
            let session = self.session.get().map(String::as_str);
            observer(&StreamItem { from, to, session, xml: redacted(xml) });
        }
    }
}

/// Returns the bytes as text. Replaces the content of SASL elements, and of queries that carry passwords.
pub fn redacted(xml: &[u8]) -> Cow<'_, str> {
    const SASL: [&str; 5] = ["auth", "authenticate", "response", "challenge", "success"];
    const QUERIES: [&str; 2] = ["jabber:iq:auth", "jabber:iq:register"];
    let text = String::from_utf8_lossy(xml);
    if !SASL.contains(&local_name(&text)) && !QUERIES.iter().any(|query| text.contains(query)) {
        return text;
    }
    match (text.find('>'), text.rfind("</")) {
        (Some(start), Some(end)) if start + 1 < end => {
            let (open, close) = (text.get(..=start).unwrap_or_default(), text.get(end..).unwrap_or_default());
            Cow::Owned(format!("{open}[redacted]{close}"))
        }
        _ => text,
    }
}

fn local_name(xml: &str) -> &str {
    let name = xml.trim_start_matches('<').split([' ', '\t', '\r', '\n', '/', '>']).next().unwrap_or_default();
    name.rsplit(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (xml, shown) in [
            (
                "<auth xmlns='s' mechanism='PLAIN'>AGp1bA==</auth>",
                "<auth xmlns='s' mechanism='PLAIN'>[redacted]</auth>",
            ),
            (
                "<sasl:auth mechanism='PLAIN'>AGp1bA==</sasl:auth>",
                "<sasl:auth mechanism='PLAIN'>[redacted]</sasl:auth>",
            ),
            ("<response xmlns='s'>cj1m</response>", "<response xmlns='s'>[redacted]</response>"),
            ("<success xmlns='s'/>", "<success xmlns='s'/>"),
            (
                "<iq type='set'><query xmlns='jabber:iq:register'><password>x</password></query></iq>",
                "<iq type='set'>[redacted]</iq>",
            ),
            ("<message><body>a &lt; b</body></message>", "<message><body>a &lt; b</body></message>"),
        ] {
            assert_eq!(redacted(xml.as_bytes()), shown);
        }
    }

    #[test]
    fn a_sighting_names_its_sender_and_its_session() {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let observer: Observer = Arc::new(move |s: &StreamItem<'_>| {
            log.lock().unwrap().push(format!("{} {} {:?} {}", s.from, s.to, s.session, s.xml));
        });
        let tap = StreamTap::new(Some(observer), "server", "pushward");
        tap.received(b"<r/>");
        tap.belongs_to("juliet");
        tap.sent(b"<a/>");
        let expect = ["pushward server None <r/>", "server pushward Some(\"juliet\") <a/>"];
        assert_eq!(*seen.lock().unwrap(), expect);
    }
}
