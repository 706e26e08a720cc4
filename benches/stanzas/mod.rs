//! The stanzas of the benchmarks, and the work that both programs measure.

use std::hint::black_box;

use pushward::clock::UnixMillis;
use pushward::session::queue::{Placement, Queue, Queued};
use pushward::xml::{Element, Frame, FrameLimits, Framer, stream_header};

const LIMITS: FrameLimits = FrameLimits::new(1 << 20, 128);
/// Number of stanzas in one read.
pub(crate) const BATCH: usize = 32;

/// An iq with tags of many attributes (XEP-0166, XEP-0167, XEP-0176).
pub(crate) const CALL: &str = "<iq from='romeo@example.net/x' to='juliet@example.org/y' id='1' type='set'>\
    <jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' initiator='romeo@example.net/x' sid='a73sjjvkla37jfea'>\
    <content creator='initiator' name='voice'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>\
    <payload-type id='111' name='opus' clockrate='48000' channels='2'><parameter name='minptime' value='10'/>\
    <parameter name='useinbandfec' value='1'/></payload-type><payload-type id='8' name='PCMA' clockrate='8000'/>\
    </description><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' pwd='asd88fgpdd777uzjYhagZg' ufrag='8hhy'>\
    <candidate component='1' foundation='1' generation='0' id='el0747fg11' ip='10.0.1.1' network='1' port='8998' \
    priority='2130706431' protocol='udp' type='host'/><candidate component='1' foundation='2' generation='0' \
    id='y3s2b30v3r' ip='192.0.2.3' network='1' port='45664' priority='1694498815' protocol='udp' \
    rel-addr='10.0.1.1' rel-port='8998' type='srflx'/></transport></content></jingle></iq>";

/// Returns a message of this many bytes, filled with text.
pub(crate) fn text(len: usize) -> String {
    repeated(len, "Shall we meet? ")
}

/// Returns a message as long as whole characters allow, filled with this text.
pub(crate) fn repeated(len: usize, text: &str) -> String {
    let (start, end) =
        ("<message from='romeo@example.net/x' to='juliet@example.org' type='chat' id='1'><body>", "</body></message>");
    let mut message = start.to_owned();
    for letter in text.chars().cycle() {
        if message.len() + letter.len_utf8() + end.len() > len {
            break;
        }
        message.push(letter);
    }
    message + end
}

/// Returns a message of this many bytes, filled with small elements.
pub(crate) fn tags(len: usize) -> String {
    let (start, end) =
        ("<message from='romeo@example.net/x' to='juliet@example.org' type='chat' id='1'>", "</message>");
    let mut message = start.to_owned();
    for number in 0.. {
        let tag = format!("<f n='{}'><v k='t'>{}</v></f>", number % 10, number % 7);
        if message.len() + tag.len() + end.len() > len {
            break;
        }
        message.push_str(&tag);
    }
    message + end
}

/// Returns a framer that has read the header of a stream.
pub(crate) fn opened() -> Framer {
    let mut framer = Framer::new(LIMITS);
    framer.buffer().extend_from_slice(&stream_header("example.org", "1", None));
    assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
    framer
}

/// Returns a stanza that a framer has read.
pub(crate) fn element(xml: &str) -> Element {
    let mut framer = opened();
    framer.buffer().extend_from_slice(xml.as_bytes());
    match framer.next_frame() {
        Ok(Some(Frame::Element(element))) => element,
        other => panic!("{other:?}"),
    }
}

/// Passes a batch of stanzas through a queue: in, written, acknowledged.
pub(crate) fn pass_batch(queue: &mut Queue, message: &Element) {
    for _ in 0..BATCH {
        let Placement::Memory(seq) = queue.place(message.bytes().len()) else { panic!("no room") };
        queue.hold(Queued::new(message.clone(), seq, UnixMillis::new(0)).durable());
    }
    for _ in 0..BATCH {
        black_box(queue.write_next());
    }
    black_box(queue.acknowledge(BATCH));
}
