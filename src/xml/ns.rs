//! Namespace names.

/// Stanzas between client and server (RFC 6120 §4.8.2).
pub const CLIENT: &str = "jabber:client";
/// Stanzas between servers (RFC 6120 §4.8.2).
pub const SERVER: &str = "jabber:server";
/// Stanzas of an accepted component (XEP-0114).
pub const COMPONENT_ACCEPT: &str = "jabber:component:accept";
/// The stream itself, its features and errors (RFC 6120 §4.8.1).
pub const STREAMS: &str = "http://etherx.jabber.org/streams";
/// Conditions of stream errors (RFC 6120 §4.9.2).
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// Conditions of stanza errors (RFC 6120 §8.3.2).
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// STARTTLS (RFC 6120 §5).
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// SASL (RFC 6120 §6).
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Extensible SASL profile (XEP-0388).
pub const SASL2: &str = "urn:xmpp:sasl:2";
/// Upgrade tasks of SASL mechanisms (XEP-0480).
pub const SASL_UPGRADE: &str = "urn:xmpp:sasl:upgrade:0";
/// Channel binding types offered (XEP-0440).
pub const SASL_CB: &str = "urn:xmpp:sasl-cb:0";
/// FAST tokens (XEP-0484).
pub const FAST: &str = "urn:xmpp:fast:0";
/// Instant stream resumption (XEP-0397).
pub const ISR: &str = "https://xmpp.org/extensions/isr/0";
/// The stream feature of non-SASL authentication (XEP-0078).
pub const IQ_AUTH: &str = "http://jabber.org/features/iq-auth";
/// Non-SASL authentication queries (XEP-0078).
pub const AUTH: &str = "jabber:iq:auth";
/// In-band registration queries (XEP-0077).
pub const REGISTER: &str = "jabber:iq:register";
/// Resource binding (RFC 6120 §7).
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// Bind 2 (XEP-0386).
pub const BIND2: &str = "urn:xmpp:bind:0";
/// Session establishment (RFC 3921 §3, obsolete).
pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// Stream management (XEP-0198).
pub const SM: &str = "urn:xmpp:sm:3";
/// The previous version of stream management (XEP-0198).
pub const SM2: &str = "urn:xmpp:sm:2";
/// Client state indication (XEP-0352).
pub const CSI: &str = "urn:xmpp:csi:0";
/// The stream feature of compression (XEP-0138).
pub const COMPRESS: &str = "http://jabber.org/features/compress";
/// The compression protocol (XEP-0138).
pub const COMPRESS_PROTOCOL: &str = "http://jabber.org/protocol/compress";
/// The stream feature of pipelining (XEP-0305).
pub const PIPELINING: &str = "urn:xmpp:features:pipelining";
/// Stream limits advertisement (XEP-0478).
pub const STREAM_LIMITS: &str = "urn:xmpp:stream-limits:0";
/// The stream feature of bidirectional server streams (XEP-0288).
pub const BIDI_FEATURE: &str = "urn:xmpp:features:bidi";
/// Bidirectional server streams (XEP-0288).
pub const BIDI: &str = "urn:xmpp:bidi";
/// Server dialback (XEP-0220).
pub const DIALBACK: &str = "jabber:server:dialback";
/// The stream feature of server dialback (XEP-0220).
pub const DIALBACK_FEATURE: &str = "urn:xmpp:features:dialback";

/// Push notifications (XEP-0357).
pub const PUSH: &str = "urn:xmpp:push:0";
/// `FORM_TYPE` of the summary of a push notification (XEP-0357 §7).
pub const PUSH_SUMMARY: &str = "urn:xmpp:push:summary";
/// Data forms (XEP-0004).
pub const DATA: &str = "jabber:x:data";
/// Publish-subscribe (XEP-0060).
pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
/// Publish-subscribe events (XEP-0060).
pub const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
/// `FORM_TYPE` of publish options (XEP-0060 §7.1.5).
pub const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
/// The prefix of the namespaces of all push extensions that Siskin requests.
pub const TIGASE_PUSH_ANY: &str = "tigase:push:";
/// Push extension of Siskin: encrypted payloads.
pub const TIGASE_ENCRYPT: &str = "tigase:push:encrypt:0";
/// Push extension of Siskin: payloads encrypted with AES-128-GCM.
pub const TIGASE_ENCRYPT_AES128GCM: &str = "tigase:push:encrypt:aes-128-gcm";
/// Push extension of Siskin: mute unknown senders.
pub const TIGASE_FILTER_IGNORE_UNKNOWN: &str = "tigase:push:filter:ignore-unknown:0";
/// Push extension of Siskin: filters by room.
pub const TIGASE_FILTER_GROUPCHAT: &str = "tigase:push:filter:groupchat:0";
/// Push extension of Siskin: muted senders.
pub const TIGASE_FILTER_MUTED: &str = "tigase:push:filter:muted:0";
/// Push extension of Siskin: priority.
pub const TIGASE_PRIORITY: &str = "tigase:push:priority:0";
/// Push extension of Siskin: push when away.
pub const TIGASE_AWAY: &str = "tigase:push:away:0";
/// Push extension of Siskin: calls.
pub const TIGASE_JINGLE: &str = "tigase:push:jingle:0";

/// Service discovery, information (XEP-0030).
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// Service discovery, items (XEP-0030).
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
/// Ping (XEP-0199).
pub const PING: &str = "urn:xmpp:ping";
/// Delayed delivery (XEP-0203).
pub const DELAY: &str = "urn:xmpp:delay";
/// Message carbons (XEP-0280).
pub const CARBONS: &str = "urn:xmpp:carbons:2";
/// Stanza forwarding (XEP-0297).
pub const FORWARD: &str = "urn:xmpp:forward:0";
/// Message archive management (XEP-0313).
pub const MAM: &str = "urn:xmpp:mam:2";
/// Unique and stable stanza ids (XEP-0359).
pub const STANZA_ID: &str = "urn:xmpp:sid:0";
/// Message processing hints (XEP-0334).
pub const HINTS: &str = "urn:xmpp:hints";
/// Roster management (RFC 6121 §2).
pub const ROSTER: &str = "jabber:iq:roster";
/// Errors of extended stanza conditions used between Prosody's modules and peers.
pub const ERRORS: &str = "urn:xmpp:errors";

/// Multi-user chat (XEP-0045).
pub const MUC: &str = "http://jabber.org/protocol/muc";
/// Multi-user chat, information from rooms to occupants (XEP-0045).
pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// Stable identities of occupants of a room (XEP-0421).
pub const OCCUPANT_ID: &str = "urn:xmpp:occupant-id:0";
/// Direct invitations to rooms (XEP-0249).
pub const CONFERENCE: &str = "jabber:x:conference";
/// OMEMO as deployed before its versioned namespaces (XEP-0384 0.3).
pub const OMEMO_AXOLOTL: &str = "eu.siacs.conversations.axolotl";
/// OMEMO (XEP-0384).
pub const OMEMO0: &str = "urn:xmpp:omemo:0";
/// OMEMO (XEP-0384).
pub const OMEMO1: &str = "urn:xmpp:omemo:1";
/// OMEMO (XEP-0384).
pub const OMEMO2: &str = "urn:xmpp:omemo:2";
/// Legacy OpenPGP (XEP-0027).
pub const PGP_ENCRYPTED: &str = "jabber:x:encrypted";
/// OpenPGP for XMPP (XEP-0373).
pub const OPENPGP: &str = "urn:xmpp:openpgp:0";
/// Explicit message encryption (XEP-0380).
pub const EME: &str = "urn:xmpp:eme:0";
/// Last message correction (XEP-0308).
pub const CORRECT: &str = "urn:xmpp:message-correct:0";
/// Message retraction (XEP-0424).
pub const RETRACT0: &str = "urn:xmpp:message-retract:0";
/// Message retraction (XEP-0424).
pub const RETRACT1: &str = "urn:xmpp:message-retract:1";
/// Moderated retraction (XEP-0425).
pub const MODERATE0: &str = "urn:xmpp:message-moderate:0";
/// Moderated retraction (XEP-0425).
pub const MODERATE1: &str = "urn:xmpp:message-moderate:1";
/// Message fastening (XEP-0422).
pub const FASTEN: &str = "urn:xmpp:fasten:0";
/// Message reactions (XEP-0444).
pub const REACTIONS: &str = "urn:xmpp:reactions:0";
/// Fallback indication (XEP-0428).
pub const FALLBACK: &str = "urn:xmpp:fallback:0";
/// Message replies (XEP-0461).
pub const REPLY: &str = "urn:xmpp:reply:0";
/// Out-of-band data (XEP-0066).
pub const OOB: &str = "jabber:x:oob";
/// Stateless file sharing (XEP-0447).
pub const SFS: &str = "urn:xmpp:sfs:0";
/// Stateless inline media sharing (XEP-0385).
pub const SIMS: &str = "urn:xmpp:sims:1";
/// References (XEP-0372).
pub const REFERENCE: &str = "urn:xmpp:reference:0";
/// Chat state notifications (XEP-0085).
pub const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
/// Message delivery receipts (XEP-0184).
pub const RECEIPTS: &str = "urn:xmpp:receipts";
/// Chat markers (XEP-0333).
pub const CHAT_MARKERS: &str = "urn:xmpp:chat-markers:0";
/// Synchronised displayed state (XEP-0490).
pub const MDS: &str = "urn:xmpp:mds:displayed:0";
/// Jingle (XEP-0166).
pub const JINGLE: &str = "urn:xmpp:jingle:1";
/// Jingle RTP sessions (XEP-0167).
pub const JINGLE_RTP: &str = "urn:xmpp:jingle:apps:rtp:1";
/// Jingle message initiation (XEP-0353).
pub const JINGLE_MESSAGE0: &str = "urn:xmpp:jingle-message:0";
/// Jingle message initiation (XEP-0353).
pub const JINGLE_MESSAGE1: &str = "urn:xmpp:jingle-message:1";
/// Call invites (XEP-0482).
pub const CALL_INVITES: &str = "urn:xmpp:call-invites:0";
/// UnifiedPush over XMPP.
pub const UNIFIED_PUSH: &str = "http://gultsch.de/xmpp/drafts/unified-push";
/// Entity capabilities (XEP-0115).
pub const CAPS: &str = "http://jabber.org/protocol/caps";

/// The namespace of the prefix `xml` (Namespaces in XML 1.0 §3).
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// The namespace of the prefix `xmlns` (Namespaces in XML 1.0 §3).
pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// The queries of the login before SASL (XEP-0078).
pub const IQ_AUTH_QUERY: &str = "jabber:iq:auth";

/// The prefix of the namespaces of all versions of message archive management (XEP-0313).
pub const MAM_ANY: &str = "urn:xmpp:mam:";
