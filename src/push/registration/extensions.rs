//! Requests in the children of `<enable/>`: the extensions `tigase:push`, as Siskin and Snikket iOS send them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::error::RequestError;
use crate::jid::{BareJid, Jid};
use crate::push::settings::PushSettings;
use crate::secret::Secret;
use crate::xml::{Node, ns};

/// Siskin asks for encryption only if it sees all of these.
const ALL_OR_NONE: [&str; 6] = [
    ns::TIGASE_ENCRYPT,
    ns::TIGASE_ENCRYPT_AES128GCM,
    ns::TIGASE_FILTER_MUTED,
    ns::TIGASE_FILTER_IGNORE_UNKNOWN,
    ns::TIGASE_FILTER_GROUPCHAT,
    ns::TIGASE_PRIORITY,
];

/// The features that the account offers in its disco#info (XEP-0357 §4.1), as the operator set it.
pub fn features(settings: &PushSettings) -> Vec<&'static str> {
    let mut features = vec![ns::PUSH];
    if settings.extensions {
        features.extend(ALL_OR_NONE);
        features.extend(settings.jingle.then_some(ns::TIGASE_JINGLE));
    }
    features
}

/// The extensions that a registration asks for.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extensions {
    /// `<muted/>`: whose stanzas do not notify.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub muted: BTreeSet<BareJid>,
    /// `<ignore-unknown/>`: messages and calls of people who are not in the roster do not notify.
    pub ignore_unknown: bool,
    /// `<groupchat/>`: which rooms notify, and of what. A room that is not listed does not; without a list all do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groupchat: Option<BTreeMap<BareJid, Allow>>,
    /// `<priority/>`: notifications say how urgent they are.
    pub priority: bool,
    /// `<encrypt/>`: notifications are encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<Encrypt>,
    /// `<jingle/>`: calls ring by notification, also while the client is connected.
    pub jingle: bool,
    /// `away='true'`: notify also while all clients of the account say that nobody is there.
    pub away: bool,
}

/// The messages of a room that notify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allow {
    /// Everything.
    Always,
    /// Those that mention the user.
    Mentioned {
        /// The user's nick there, if the client named it.
        nick: Option<String>,
    },
    /// Nothing.
    Never,
}

/// The encryption that a client asks for: AES-128-GCM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encrypt {
    /// The key, which the client made.
    pub key: Secret<[u8; 16]>,
    /// The bytes that the encrypted notification may have.
    pub max_size: usize,
}

/// The number of addresses that a list may have.
const MAX_LISTED: usize = 1_000;
/// The bytes that a list may have.
const MAX_LIST: usize = 64 * 1024;
/// RFC 7622 §3.4: how many bytes a resource, and so a nick, may have.
const MAX_NICK: usize = 1_023;
/// `max-size` where the client says none.
const DEFAULT_SIZE: usize = 3_000;
/// No push service carries more: Apple's takes 4 KiB, 5 KiB about calls.
const MAX_SIZE: usize = 5 * 1024;

impl Extensions {
    /// Returns whether a notification may show the sender, the text, or a call, and not only how much waits.
    pub fn says_more(&self, settings: &PushSettings) -> bool {
        let operator = settings.with_sender || settings.with_body;
        operator || self.encrypt.is_some() || (self.jingle && settings.jingle)
    }

    /// Reads what `<enable/>` asks for, as far as the operator lets it. Addresses that are none are left out.
    pub(super) fn parse(enable: &Node<'_>, settings: &PushSettings) -> Result<Self, RequestError> {
        let mut asked = Self::default();
        if !settings.extensions {
            return Ok(asked);
        }
        asked.away = matches!(enable.attr("away").as_deref(), Some("true" | "1"));
        for child in enable.children() {
            match (child.name(), child.ns()) {
                ("muted", ns::TIGASE_FILTER_MUTED) => {
                    asked.muted = listed(&child, "item")?.filter_map(|item| address(&item)).collect();
                }
                ("ignore-unknown", ns::TIGASE_FILTER_IGNORE_UNKNOWN) => asked.ignore_unknown = true,
                ("groupchat", ns::TIGASE_FILTER_GROUPCHAT) => {
                    asked.groupchat = Some(listed(&child, "room")?.filter_map(|room| rule(&room)).collect());
                }
                ("priority", ns::TIGASE_PRIORITY) => asked.priority = true,
                ("encrypt", ns::TIGASE_ENCRYPT) => asked.encrypt = Some(encrypt(&child)?),
                ("jingle", ns::TIGASE_JINGLE) => asked.jingle = settings.jingle,
                _ => {}
            }
        }
        Ok(asked)
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Debug for Extensions {
    // Whom somebody mutes, and which rooms somebody is in, are in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions")
            .field("muted", &self.muted.len())
            .field("ignore_unknown", &self.ignore_unknown)
            .field("groupchat", &self.groupchat.as_ref().map(BTreeMap::len))
            .field("priority", &self.priority)
            .field("encrypt", &self.encrypt)
            .field("jingle", &self.jingle)
            .field("away", &self.away)
            .finish()
    }
}

/// The entries of a list of bearable length.
fn listed<'a>(list: &Node<'a>, name: &'static str) -> Result<impl Iterator<Item = Node<'a>>, RequestError> {
    let entries = || list.children().filter(move |entry| entry.name() == name);
    if list.raw().len() > MAX_LIST || entries().count() > MAX_LISTED {
        return Err(RequestError::TooLarge);
    }
    Ok(entries())
}

fn address(entry: &Node<'_>) -> Option<BareJid> {
    Some(Jid::new(&entry.attr("jid")?)).filter(Jid::is_complete).map(Jid::into_bare)
}

fn rule(room: &Node<'_>) -> Option<(BareJid, Allow)> {
    let allow = match room.attr("allow")?.as_ref() {
        "always" => Allow::Always,
        "mentioned" => {
            let nick = room.attr("nick").filter(|nick| !nick.is_empty() && nick.len() <= MAX_NICK);
            Allow::Mentioned { nick: nick.map(|nick| nick.into_owned()) }
        }
        "never" => Allow::Never,
        _ => return None,
    };
    Some((address(room)?, allow))
}

fn encrypt(encrypt: &Node<'_>) -> Result<Encrypt, RequestError> {
    if encrypt.attr("alg").as_deref() != Some("aes-128-gcm") {
        return Err(RequestError::Algorithm);
    }
    // XML Schema part 2 §3.2.16: base64Binary may have white space anywhere.
    let text: String = encrypt.text().chars().filter(|c| !matches!(c, ' ' | '\t' | '\r' | '\n')).collect();
    let key = STANDARD.decode(text).map_err(|_| RequestError::Key)?;
    let key = <[u8; 16]>::try_from(key).map_err(|_| RequestError::Key)?;
    let asked = encrypt.attr("max-size").and_then(|size| size.parse().ok());
    Ok(Encrypt { key: Secret::new(key), max_size: asked.unwrap_or(DEFAULT_SIZE).min(MAX_SIZE) })
}
