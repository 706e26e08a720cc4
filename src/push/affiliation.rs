//! The message with which a push service revokes a registration (XEP-0357 §8).

use super::registration::Target;
use crate::jid::{BareJid, Jid};
use crate::xml::{Node, ns};

/// The affiliation of an account with a node, as a push service sends it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Affiliation {
    /// The push service that sent the message.
    pub service: Jid,
    /// The node.
    pub node: String,
    /// True if the account may no longer publish: `affiliation='none'`.
    pub is_none: bool,
}

impl Affiliation {
    /// Reads a message that announces the account's affiliation. Returns `None` for any other message. Returns `None`
    /// also for an error, because an error only returns what the account itself sent.
    pub fn read(message: &Node<'_>, account: &BareJid) -> Option<Self> {
        if message.name() != "message" || message.attr("type").as_deref() == Some("error") {
            return None;
        }
        let pubsub = message.child("pubsub", ns::PUBSUB)?;
        let is_own = |jid: &str| Jid::new(jid).bare() == account.as_str();
        let mut all = pubsub
            .children()
            .filter(|child| child.is("affiliation", ns::PUBSUB) && child.attr("jid").is_some_and(|jid| is_own(&jid)));
        let service = Jid::new(&message.attr("from")?);
        let node = pubsub.attr("node")?.into_owned();
        let first = all.next()?;
        let is_none = |child: Node<'_>| child.attr("affiliation").as_deref() == Some("none");
        Some(Self { service, node, is_none: is_none(first) || all.any(is_none) })
    }

    /// Returns whether it concerns this registration: it has the same node, and exactly the registered address sent it.
    pub fn is_about(&self, target: &Target) -> bool {
        target.node.as_ref() == Some(&self.node) && target.service == self.service
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Element, Header};

    fn read(attributes: &str, pubsub: &str) -> Option<(String, bool)> {
        let xml = format!("<message {attributes}><pubsub xmlns='{}' {pubsub}</pubsub></message>", ns::PUBSUB);
        let message = Element::parse(xml.into(), &Header::bare()).unwrap();
        let account = BareJid::new("juliet@example.org").unwrap();
        Affiliation::read(&message.node(), &account).map(|it| (format!("{} {}", it.service, it.node), it.is_none))
    }

    #[test]
    fn an_affiliation_is_recognized_by_its_sender_node_and_account() {
        let none = "node='n'><affiliation jid='juliet@example.org' affiliation='none'/>";
        let expect = Some(("push.example n".to_owned(), true));
        assert_eq!(read("from='Push.example'", none), expect);
        assert_eq!(read("from='push.example' type='headline'", none), expect);
        assert_eq!(
            read("from='push.example'", &none.replace("none", "owner")).map(|(_, is_none)| is_none),
            Some(false)
        );
        assert_eq!(read("from='push.example' type='error'", none), None);
        assert_eq!(read("", none), None);
        for other in [none.replace("node='n'", ""), none.replace("juliet", "romeo"), "node='n'>".to_owned()] {
            assert_eq!(read("from='push.example'", &other), None, "{other}");
        }
    }
}
