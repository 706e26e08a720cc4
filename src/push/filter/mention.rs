//! Mentions: messages in a room that address the user.

use crate::jid::{BareJid, Jid};
use crate::push::message_text::MessageText;
use crate::push::roster::Roster;
use crate::xml::{Node, ns};

/// The user in a room.
pub(super) struct OwnOccupant<'a> {
    /// The roster, which knows the account's address.
    pub(super) roster: &'a Roster,
    /// The room.
    pub(super) room: &'a BareJid,
    /// The user's nicks, as far as known.
    pub(super) nicks: [Option<&'a str>; 2],
}

impl OwnOccupant<'_> {
    /// Returns whether a message refers to the user (XEP-0372), answers the user (XEP-0461) or has a nick of the user
    /// in its text. A message that only the client can read counts as a mention.
    pub(super) fn is_mentioned(&self, message: &Node<'_>) -> bool {
        if message.children().any(|child| self.is_referred_to(&child) || self.is_answered(&child)) {
            return true;
        }
        match MessageText::of(message) {
            MessageText::Encrypted => true,
            MessageText::Absent => false,
            MessageText::Readable(text) => self.nicks.iter().flatten().any(|nick| has_word(&text, nick)),
        }
    }

    fn is_referred_to(&self, child: &Node<'_>) -> bool {
        child.is("reference", ns::REFERENCE)
            && child.attr("type").as_deref() == Some("mention")
            && child.attr("uri").is_some_and(|uri| self.is(&address(&uri)))
    }

    fn is_answered(&self, child: &Node<'_>) -> bool {
        child.is("reply", ns::REPLY) && child.attr("to").is_some_and(|to| self.is(&to))
    }

    fn is(&self, address: &str) -> bool {
        let jid = Jid::new(address);
        let bare = jid.to_bare();
        let by_nick = |nick: &str| jid.resource().is_some_and(|resource| resource == nick);
        self.roster.is_account(&bare) || bare == *self.room && self.nicks.iter().flatten().any(|nick| by_nick(nick))
    }
}

/// Returns the address in an `xmpp:` URI (RFC 5122 §2).
fn address(uri: &str) -> String {
    let path = uri.strip_prefix("xmpp:").unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = match behind {
            [high, low, behind @ ..] if byte == b'%' => hex(*high, *low).map(|byte| (byte, behind)),
            _ => None,
        };
        let (byte, behind) = escaped.unwrap_or((byte, behind));
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8(bytes).unwrap_or_default()
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Returns whether a text contains a word as a separate word, ignoring case.
fn has_word(text: &str, word: &str) -> bool {
    let (text, word) = (text.to_lowercase(), word.to_lowercase());
    let (Some(first), Some(last)) = (word.chars().next(), word.chars().next_back()) else { return false };
    text.match_indices(&word).any(|(at, word)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let behind = text.get(at + word.len()..).and_then(|behind| behind.chars().next());
        !before.is_some_and(|before| is_joined(before, first)) && !behind.is_some_and(|behind| is_joined(last, behind))
    })
}

/// Returns whether the two characters belong to the same word.
fn is_joined(before: char, behind: char) -> bool {
    is_inner(before) && is_inner(behind)
}

/// Returns whether a character may be inside a word of a script that separates its words.
fn is_inner(c: char) -> bool {
    // Combining marks belong to the letter before them.
    let letter = c.is_alphanumeric() || c == '_' || ('\u{300}'..='\u{36F}').contains(&c);
    letter && !is_unparted(c)
}

/// Returns whether a character belongs to a script that writes words without spaces, or that attaches particles to
/// names: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han, Hangul.
fn is_unparted(c: char) -> bool {
    matches!(c,
        '\u{E00}'..='\u{109F}'
        | '\u{1780}'..='\u{17FF}'
        | '\u{3040}'..='\u{30FF}'
        | '\u{3400}'..='\u{9FFF}'
        | '\u{AC00}'..='\u{D7AF}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    fn is_mentioned(inner: &str) -> bool {
        let roster = &Roster::new(&BareJid::new("juliet@example.org").unwrap(), 7);
        let room = &BareJid::new("coven@rooms.org").unwrap();
        let occupant = OwnOccupant { roster, room, nicks: [Some("Juliet C"), Some("jule")] };
        occupant.is_mentioned(&element(&format!("<message type='groupchat'>{inner}</message>")).node())
    }

    #[test]
    fn a_nick_counts_as_a_word_of_its_own() {
        for (text, nick, expect) in [
            ("Juliet: hi", "juliet", true),
            ("hi JULIET", "Juliet", true),
            ("hi @juliet!", "juliet", true),
            ("juliette is here", "juliet", false),
            ("xjuliet", "juliet", false),
            ("juliet_2", "juliet", false),
            ("juliette, and juliet", "juliet", true),
            ("hi Juliet Capulet", "Juliet Capulet", true),
            ("ÉMILE?", "émile", true),
            ("émiles", "émile", false),
            ("Straße", "strass", false),
            ("cafe\u{301}", "cafe", false),
            ("Привет, Юля", "юля", true),
            ("小明你好", "小明", true),
            ("민수야 안녕", "민수", true),
            ("a[bot]b", "[bot]", true),
            ("hi", "", false),
            ("", "juliet", false),
        ] {
            assert_eq!(has_word(text, nick), expect, "{nick} in {text}");
        }
    }

    #[test]
    fn references_and_replies_count_when_they_mean_the_user() {
        let reference = |uri: &str| {
            format!(
                "<body>hm</body><reference xmlns='urn:xmpp:reference:0' type='mention' begin='0' end='1' uri='{uri}'/>"
            )
        };
        let reply = |to: &str| format!("<body>hm</body><reply xmlns='urn:xmpp:reply:0' id='1' to='{to}'/>");
        for (inner, expect) in [
            (reference("xmpp:juliet@example.org"), true),
            (reference("xmpp:Juliet@example.org/phone?message"), true),
            (reference("xmpp:coven@rooms.org/Juliet%20C"), true),
            (reference("xmpp:coven@rooms.org/jule"), true),
            (reference("xmpp:coven@rooms.org/romeo"), false),
            (reference("xmpp:coven@rooms.org"), false),
            (reference("xmpp:other@rooms.org/jule"), false),
            (reference("xmpp:%ff%"), false),
            (reference("https://example.org"), false),
            (reference("xmpp:juliet@example.org").replace("mention", "data"), false),
            (reply("coven@rooms.org/Juliet C"), true),
            (reply("juliet@example.org"), true),
            (reply("coven@rooms.org/romeo"), false),
            (reply(""), false),
        ] {
            assert_eq!(is_mentioned(&inner), expect, "{inner}");
        }
    }

    #[test]
    fn an_encrypted_message_counts_as_a_mention() {
        assert!(is_mentioned(
            "<encrypted xmlns='eu.siacs.conversations.axolotl'><payload>x</payload></encrypted><body>OMEMO</body>"
        ));
        assert!(!is_mentioned("<subject>jule</subject>"));
        assert!(is_mentioned("<body>jule</body>"));
    }

    #[test]
    fn addresses_in_uris_are_decoded() {
        for (uri, expect) in [
            ("xmpp:a@b/c%20d", "a@b/c d"),
            ("xmpp:a@b?join#x", "a@b"),
            ("xmpp:%C3%A9@b", "é@b"),
            ("xmpp:a%zz%2", "a%zz%2"),
            ("xmpp:%ff", ""),
            ("a@b", ""),
        ] {
            assert_eq!(address(uri), expect);
        }
    }
}
