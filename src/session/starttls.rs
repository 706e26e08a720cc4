//! The clear-text stream of a client before TLS (RFC 6120 §5). Pushward answers it; the server is not involved.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::RandomSource;
use super::hosts::served_host;
use crate::xml::{self, Frame, StreamCondition, XmlWriter, ns};

/// The action after a frame of the clear-text stream.
#[derive(Debug, PartialEq, Eq)]
pub enum StartTlsStep {
    /// Write this and continue reading.
    Reply(Bytes),
    /// Write this, discard all other bytes received in the clear (RFC 6120 §5.4.3.3), and negotiate TLS for this host.
    Proceed {
        /// The answer.
        reply: Bytes,
        /// The served host.
        host: String,
    },
    /// Write this and close.
    Refuse(Bytes),
    /// Do nothing.
    Wait,
}

/// The clear-text stream of one connection.
pub struct StartTls {
    hosts: Arc<HashSet<String>>,
    random: RandomSource,
    host: Option<String>,
}

impl StartTls {
    /// Creates a new stream. `hosts` are the served domains.
    pub fn new(hosts: Arc<HashSet<String>>, random: RandomSource) -> Self {
        Self { hosts, random, host: None }
    }

    /// Takes the client's next frame.
    pub fn handle(&mut self, frame: &Frame) -> StartTlsStep {
        match (frame, &self.host) {
            (Frame::Open(header), None) => self.open(header),
            (Frame::Element(element), Some(host)) if element.is("starttls", ns::TLS) => {
                let mut xml = XmlWriter::new();
                xml.start("proceed").attr("xmlns", ns::TLS);
                StartTlsStep::Proceed { reply: xml.finish(), host: host.clone() }
            }
            (Frame::Element(_), Some(_)) => StartTlsStep::Refuse(xml::stream_error(
                StreamCondition::PolicyViolation,
                None,
                Some("STARTTLS is required"),
            )),
            (Frame::Whitespace | Frame::Skipped(_), _) => StartTlsStep::Wait,
            (Frame::Close, _) => StartTlsStep::Refuse(Bytes::from_static(xml::STREAM_CLOSE)),
            (Frame::Open(_), Some(_)) | (Frame::Element(_), None) => {
                StartTlsStep::Refuse(xml::stream_error(StreamCondition::BadFormat, None, None))
            }
        }
    }

    fn open(&mut self, header: &xml::Header) -> StartTlsStep {
        let host = match served_host(&self.hosts, header) {
            Ok(host) => host,
            Err(condition) => return StartTlsStep::Refuse(refusal(header, condition, self.random)),
        };
        let mut reply = xml::stream_header(&host, &stream_id(self.random), header.lang()).to_vec();
        let mut xml = XmlWriter::new();
        xml.start("stream:features").start("starttls").attr("xmlns", ns::TLS).start("required");
        reply.extend_from_slice(&xml.finish());
        self.host = Some(host);
        StartTlsStep::Reply(reply.into())
    }
}

/// Returns a stream header and error for a stream that cannot be served (RFC 6120 §4.9.1.2).
fn refusal(header: &xml::Header, condition: StreamCondition, random: RandomSource) -> Bytes {
    let mut reply = xml::stream_header(header.to().unwrap_or_default(), &stream_id(random), header.lang()).to_vec();
    reply.extend_from_slice(&xml::stream_error(condition, None, None));
    reply.into()
}

fn stream_id(random: RandomSource) -> String {
    format!("{:032x}", random())
}
