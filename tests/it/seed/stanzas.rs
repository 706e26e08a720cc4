//! The table of stanzas that are sent to mod_cloud_notify and to the proxy, with the intended differences.

use std::fmt;

/// One stanza and its expected verdict.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) way: Way,
    /// The content. `{account}` and `{room}` are replaced by addresses.
    pub(super) content: &'static str,
    pub(super) expected: Expected,
}

/// The way in which the stanza reaches the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A message of this type from bob.
    Message(&'static str),
    /// A message of this type from bob to the account's other client, as a carbon.
    Received(&'static str),
    /// A message of this type from the account's other client to bob, as a carbon.
    Sent(&'static str),
    /// A chat message from the account's other client to the account.
    ToSelf,
    /// A message of bob in a room where the phone is.
    Room,
    /// A message of the account's other client, which is in the room under the same name.
    Reflection,
    /// A message of bob in a room that the phone enters later; it goes dark before it has acknowledged it.
    History,
    /// A private message of bob in a room.
    Whisper,
    /// A message to a room that the phone is not in, which makes the room write to the account.
    ByRoom,
    /// Presence of bob in a room.
    Occupant,
    /// Presence of this type from bob to the phone.
    Presence(&'static str),
    /// A subscription request of bob.
    Subscription,
    /// An iq of this type from bob.
    Iq(&'static str),
}

/// The verdict of the proxy, compared with mod_cloud_notify.
#[derive(Clone, Copy)]
pub(super) enum Expected {
    /// The same as that of mod_cloud_notify.
    Same,
    /// Important to the proxy, but not to mod_cloud_notify, for this reason.
    More(&'static str),
    /// Important to mod_cloud_notify, but not to the proxy, for this reason.
    Less(&'static str),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => f.write_str("the same"),
            Self::More(why) => write!(f, "more than the seed, since {why}"),
            Self::Less(why) => write!(f, "less than the seed, since {why}"),
        }
    }
}

const fn same(name: &'static str, way: Way, content: &'static str) -> Case {
    Case { name, way, content, expected: Expected::Same }
}

const fn more(name: &'static str, way: Way, content: &'static str, why: &'static str) -> Case {
    Case { name, way, content, expected: Expected::More(why) }
}

const fn less(name: &'static str, way: Way, content: &'static str, why: &'static str) -> Case {
    Case { name, way, content, expected: Expected::Less(why) }
}

const CHAT: Way = Way::Message("chat");
const NORMAL: Way = Way::Message("");
const GROUPCHAT: Way = Way::Message("groupchat");

// Contents that come in several ways.
const OMEMO_TEXT: &str =
    "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>eA==</payload></encrypted>";
const OMEMO_2_TEXT: &str = "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/><payload>eA==</payload></encrypted>";
const CALL: &str = "<propose xmlns='urn:xmpp:jingle-message:0' id='c'>\
    <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose>";
const CORRECTION: &str = "<body>hullo</body><replace xmlns='urn:xmpp:message-correct:0' id='before'/>";
const COMPOSING: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
const DISPLAYED: &str = "<displayed xmlns='urn:xmpp:chat-markers:0' id='before'/>";

// Reasons.
const OLD_OMEMO: &str = "the seed knows OMEMO up to 0";
const ONLY_KEYS: &str = "without a payload it moves keys (XEP-0384): there is nothing to read";
const OWN_TEXT: &str = "the user knows what they wrote";
const KNOWN: &str = "the message that it corrects has notified";
const WAITING: &str = "somebody waits for an answer";

pub(super) const TABLE: &[Case] = &[
    // Texts.
    same("a text", CHAT, "<body>hello</body>"),
    same("a text in a message without a type", NORMAL, "<body>hello</body>"),
    same(
        "a text with a chat state, a receipt request and a thread",
        CHAT,
        "<body>hello</body><active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>\
         <markable xmlns='urn:xmpp:chat-markers:0'/><thread>t</thread>",
    ),
    same("a text with a subject", NORMAL, "<subject>news</subject><body>hello</body>"),
    same("an emoji", CHAT, "<body>\u{1F44D}</body>"),
    same(
        "a reply",
        CHAT,
        "<body>&gt; before\nhello</body><reply xmlns='urn:xmpp:reply:0' to='{account}' id='x'/>\
         <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='9'/></fallback>",
    ),
    same(
        "a shared file",
        CHAT,
        "<body>https://example.org/f.jpg</body><x xmlns='jabber:x:oob'><url>https://example.org/f.jpg</url></x>",
    ),
    same(
        "a shared file whose text is there for old clients only",
        CHAT,
        "<body>https://example.org/f.jpg</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:sfs:0'><body/></fallback>\
         <file-sharing xmlns='urn:xmpp:sfs:0'/>",
    ),
    same(
        "a text that is asked not to be copied",
        CHAT,
        "<body>hello</body><no-copy xmlns='urn:xmpp:hints'/><private xmlns='urn:xmpp:carbons:2'/>",
    ),
    same("a message without anything", CHAT, ""),
    same("an empty text", CHAT, "<body/>"),
    same(
        "a text in another namespace",
        CHAT,
        "<html xmlns='http://jabber.org/protocol/xhtml-im'><body>hello</body></html>",
    ),
    less("a text of spaces", CHAT, "<body> \n </body>", "there is nothing to read"),
    less(
        "an error with the text that it is about",
        Way::Message("error"),
        "<body>hello</body><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
        "its sender is the user, who wrote the text",
    ),
    same(
        "an error without a text",
        Way::Message("error"),
        "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
    ),
    same("a headline", Way::Message("headline"), "<subject>news</subject><body>hello</body>"),
    same("an encrypted headline", Way::Message("headline"), "<x xmlns='jabber:x:encrypted'>x</x>"),
    // Texts that cannot be read on the way.
    same("OMEMO, legacy", CHAT, OMEMO_TEXT),
    same(
        "OMEMO, legacy, with a hint and a text for clients without it",
        CHAT,
        "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>eA==</payload></encrypted>\
         <encryption xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl'/><body>You received OMEMO</body>",
    ),
    same("OMEMO 0", CHAT, "<encrypted xmlns='urn:xmpp:omemo:0'><header sid='1'/><payload>eA==</payload></encrypted>"),
    same("OMEMO in a group", GROUPCHAT, OMEMO_TEXT),
    same("OpenPGP", CHAT, "<openpgp xmlns='urn:xmpp:openpgp:0'>eA==</openpgp>"),
    same("OpenPGP, legacy", CHAT, "<body>encrypted</body><x xmlns='jabber:x:encrypted'>x</x>"),
    same("OpenPGP, legacy, without a text", CHAT, "<x xmlns='jabber:x:encrypted'>x</x>"),
    same("OTR", CHAT, "<body>?OTR:AAMD</body><encryption xmlns='urn:xmpp:eme:0' namespace='urn:xmpp:otr:0'/>"),
    more(
        "OMEMO 1",
        CHAT,
        "<encrypted xmlns='urn:xmpp:omemo:1'><header sid='1'/><payload>eA==</payload></encrypted>",
        OLD_OMEMO,
    ),
    more("OMEMO 2", CHAT, OMEMO_2_TEXT, OLD_OMEMO),
    more(
        "some other encryption",
        CHAT,
        "<encryption xmlns='urn:xmpp:eme:0' namespace='urn:example:new'/>",
        "XEP-0380 says that there is a text, whatever encrypts it",
    ),
    less(
        "an OMEMO key, legacy",
        CHAT,
        "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>eA==</key></header></encrypted>",
        ONLY_KEYS,
    ),
    less("an OMEMO 0 key", CHAT, "<encrypted xmlns='urn:xmpp:omemo:0'><header sid='1'/></encrypted>", ONLY_KEYS),
    same("an OMEMO 2 key", CHAT, "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/></encrypted>"),
    // About other messages.
    less("a correction", CHAT, CORRECTION, KNOWN),
    same(
        "a reaction",
        CHAT,
        "<reactions xmlns='urn:xmpp:reactions:0' id='before'><reaction>\u{1F44D}</reaction></reactions>",
    ),
    less(
        "a reaction with a text for old clients",
        CHAT,
        "<body>\u{1F44D}</body><reactions xmlns='urn:xmpp:reactions:0' id='before'><reaction>\u{1F44D}</reaction></reactions>\
         <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reactions:0'><body/></fallback>",
        "the same reaction without such a text does not notify",
    ),
    same("a retraction", CHAT, "<retract xmlns='urn:xmpp:message-retract:1' id='before'/>"),
    less(
        "a retraction with a text for old clients",
        CHAT,
        "<body>This person tried to retract a message</body><retract xmlns='urn:xmpp:message-retract:1' id='before'/>\
         <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'><body/></fallback>",
        "a message less is no news",
    ),
    same("a chat state", CHAT, COMPOSING),
    same("a receipt", CHAT, "<received xmlns='urn:xmpp:receipts' id='before'/>"),
    same("a marker", CHAT, DISPLAYED),
    same("a call for attention", CHAT, "<attention xmlns='urn:xmpp:attention:0'/>"),
    same("a subject of a chat", CHAT, "<subject>news</subject>"),
    same(
        "a PEP event",
        Way::Message("headline"),
        "<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:avatar:metadata'>\
         <item id='x'><metadata xmlns='urn:xmpp:avatar:metadata'/></item></items></event>",
    ),
    same(
        "a message that is forwarded",
        CHAT,
        "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>hello</body></message></forwarded>",
    ),
    same(
        "an archived message",
        NORMAL,
        "<result xmlns='urn:xmpp:mam:2' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'>\
         <message xmlns='jabber:client'><body>hello</body></message></forwarded></result>",
    ),
    // Copies of what the account's other client got or sent (XEP-0280).
    same("a copy of a text received", Way::Received("chat"), "<body>hello</body>"),
    same("a copy of an encrypted text received", Way::Received("chat"), OMEMO_TEXT),
    same("a copy of a chat state received", Way::Received("chat"), COMPOSING),
    same("a copy of a call received", Way::Received("chat"), CALL),
    less("a copy of a correction received", Way::Received("chat"), CORRECTION, KNOWN),
    more("a copy of an OMEMO 2 text received", Way::Received("chat"), OMEMO_2_TEXT, OLD_OMEMO),
    same("a copy of a text sent", Way::Sent("chat"), "<body>hello</body>"),
    same("a copy of an encrypted text sent", Way::Sent("chat"), OMEMO_TEXT),
    same("a copy of a marker sent", Way::Sent("chat"), DISPLAYED),
    same("a copy of a call made", Way::Sent("chat"), CALL),
    same("a call taken by the other client", Way::Sent("chat"), "<accept xmlns='urn:xmpp:jingle-message:0' id='c'/>"),
    same(
        "a call declined by the other client",
        Way::Sent("chat"),
        "<reject xmlns='urn:xmpp:jingle-message:0' id='c'/>",
    ),
    less("a note to oneself", Way::ToSelf, "<body>milk, eggs</body>", OWN_TEXT),
    less(
        "a false copy of a text received",
        CHAT,
        "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
         <message xmlns='jabber:client' type='chat'><body>hello</body></message></forwarded></received>",
        "only the account itself may send copies (XEP-0280 §11), so clients ignore this",
    ),
    more(
        "a text beside a false copy",
        CHAT,
        "<body>hello</body><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
         <message xmlns='jabber:client' type='chat'/></forwarded></sent>",
        "only the account itself may send copies (XEP-0280 §11), so clients show the text",
    ),
    // Calls.
    same("a call", CHAT, CALL),
    same(
        "a file on offer",
        CHAT,
        "<propose xmlns='urn:xmpp:jingle-message:0' id='c'><description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/></propose>",
    ),
    same("a call given up", CHAT, "<retract xmlns='urn:xmpp:jingle-message:0' id='c'/>"),
    same("a call proceeding", CHAT, "<proceed xmlns='urn:xmpp:jingle-message:0' id='c'/>"),
    same("a call ringing", CHAT, "<ringing xmlns='urn:xmpp:jingle-message:0' id='c'/>"),
    same("a call finished", CHAT, "<finish xmlns='urn:xmpp:jingle-message:0' id='c'/>"),
    more(
        "an invitation to a call",
        CHAT,
        "<invite xmlns='urn:xmpp:call-invites:0' video='true'><jingle sid='c'/></invite>",
        "the seed does not know XEP-0482",
    ),
    same("an invitation to a call withdrawn", CHAT, "<retract xmlns='urn:xmpp:call-invites:0' id='c'/>"),
    more(
        "a call without a proposal before",
        Way::Iq("set"),
        "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' initiator='bob@localhost/desk' sid='c'>\
         <content creator='initiator' name='voice'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>\
         <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1'/></content></jingle>",
        "older clients call like this, and a phone that is not woken does not ring",
    ),
    same(
        "the end of such a call",
        Way::Iq("set"),
        "<jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='c'><reason><cancel/></reason></jingle>",
    ),
    // Rooms.
    same("a text in a room", Way::Room, "<body>hello</body>"),
    same(
        "a text in a room that mentions the user",
        Way::Room,
        "<body>me: hello</body><reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{account}'/>",
    ),
    same("a private text in a room", Way::Whisper, "<body>hello</body>"),
    same("a subject of a room", Way::Room, "<subject>news</subject>"),
    same("a chat state in a room", Way::Room, COMPOSING),
    same("an occupant's presence", Way::Occupant, "<show>away</show>"),
    more(
        "a text with a subject in a room",
        GROUPCHAT,
        "<subject>news</subject><body>hello</body>",
        "a message with a text does not change the subject (XEP-0045 §8.1): it is read",
    ),
    less("the user's own text in a room", Way::Reflection, "<body>hello</body>", OWN_TEXT),
    less(
        "the history of a room",
        Way::History,
        "<body>hello</body>",
        "it was written before the user came, and every join brings it again",
    ),
    same(
        "an invitation by a room",
        Way::ByRoom,
        "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='{account}'/></x>",
    ),
    more(
        "an invitation by a room without a text",
        Way::ByRoom,
        "<body/><x xmlns='http://jabber.org/protocol/muc#user'><invite to='{account}'/></x>",
        WAITING,
    ),
    same("an invitation with a text", NORMAL, "<body>come</body><x xmlns='jabber:x:conference' jid='{room}'/>"),
    more("an invitation", NORMAL, "<x xmlns='jabber:x:conference' jid='{room}' reason='news'/>", WAITING),
    // Presence and iq.
    more("a subscription request", Way::Subscription, "<status>It's me</status>", WAITING),
    same("presence", Way::Presence(""), "<show>away</show><status>lunch</status>"),
    same("unavailable presence", Way::Presence("unavailable"), "<status>bye</status>"),
    same("a question", Way::Iq("get"), "<query xmlns='jabber:iq:version'/>"),
    same("an answer", Way::Iq("result"), "<query xmlns='jabber:iq:version'><name>x</name></query>"),
    more(
        "a notification of another app (UnifiedPush)",
        Way::Iq("set"),
        "<push xmlns='http://gultsch.de/xmpp/drafts/unified-push' application='YQ==' instance='aQ=='>eA==</push>",
        "the phone is to hand it to the app, which waits for it as for a message",
    ),
];
