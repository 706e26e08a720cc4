//! [`Selection`]: the registrations that an operator selects.

use super::answers::Refusal;
use super::protocol::shortened;
use crate::jid::Jid;
use crate::push::account::Account;
use crate::push::registration::Registration;
use crate::secret::Secret;

/// The criteria by which an operator selects registrations of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// The push service. `None`: all.
    pub(super) service: Option<Jid>,
    /// The node, in full, or as it is listed if that form is unique. `None`: all.
    pub(super) node: Option<Secret<String>>,
}

/// Returns the registrations that are selected.
///
/// # Errors
/// Returns an error if there is none, or if several nodes are listed in the given form.
pub(super) fn select<'a>(account: &'a Account, selection: &Selection) -> Result<Vec<&'a Registration>, Refusal> {
    let service = selection.service.as_ref();
    let at = account.registrations.iter().filter(|r| service.is_none_or(|service| r.target.service == *service));
    let at: Vec<_> = at.collect();
    let Some(node) = selection.node.as_ref().map(|node| node.expose().as_str()) else { return some(at) };
    let exactly: Vec<_> = at.iter().copied().filter(|r| r.target.node.as_deref() == Some(node)).collect();
    if !exactly.is_empty() {
        return Ok(exactly);
    }
    let listed = |r: &&Registration| r.target.node.as_deref().is_some_and(|is| shortened(is) == node);
    let like: Vec<_> = at.into_iter().filter(listed).collect();
    if like.len() > 1 {
        return Err("more than one node matches; write the node in full".to_owned());
    }
    some(like)
}

fn some(found: Vec<&Registration>) -> Result<Vec<&Registration>, Refusal> {
    if found.is_empty() { Err("no such registration".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSecs;
    use crate::push::account::DeviceId;
    use crate::push::registration::Target;

    fn account(registrations: &[(&str, Option<&str>)]) -> Account {
        let registration = |(service, node): &(&str, Option<&str>)| Registration {
            target: Target { service: service.parse().unwrap(), node: node.map(str::to_owned) },
            options: None,
            device: DeviceId(1),
            last_seen: UnixSecs::new(0),
            errors: 0,
            last_success: None,
            undelivered_since: None,
            extensions: Default::default(),
        };
        let registrations = registrations.iter().map(registration).collect();
        Account { registrations, ..Account::default() }
    }

    fn check(filter: (Option<&str>, Option<&str>), expect: Result<&[&str], &str>) {
        let nodes = ["secret-one", "secret-two", "other-node-here", "…(3)"];
        let mut registrations: Vec<_> = nodes.iter().map(|node| ("push.example.net", Some(*node))).collect();
        registrations.push(("push.example.com", None));
        let account = account(&registrations);
        let service = filter.0.map(|service| service.parse().unwrap());
        let node = filter.1.map(|node| Secret::new(node.to_owned()));
        let found = select(&account, &Selection { service, node });
        let found: Result<Vec<_>, _> =
            found.map(|all| all.iter().map(|r| r.target.node.as_deref().unwrap_or("-")).collect());
        assert_eq!(found.as_deref().map_err(String::as_str), expect, "{filter:?}");
    }

    #[test]
    fn registrations_are_named_by_service_and_node_or_by_what_is_listed() {
        let net = Some("push.example.net");
        check((None, None), Ok(&["secret-one", "secret-two", "other-node-here", "…(3)", "-"]));
        check((Some("push.example.com"), None), Ok(&["-"]));
        check((Some("push.example.org"), None), Err("no such registration"));
        check((net, Some("secret-two")), Ok(&["secret-two"]));
        check((net, Some("oth…(15)")), Ok(&["other-node-here"]));
        check((net, Some("…(3)")), Ok(&["…(3)"]));
        check((net, Some("oth")), Err("no such registration"));
        check((net, Some("se…(10)")), Err("more than one node matches; write the node in full"));
    }
}
