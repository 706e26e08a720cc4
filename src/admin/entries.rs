//! The entries of sessions and registrations, as the operator sees them.

use std::time::SystemTime;

use super::protocol::{
    LastPublish, LastVerdict, PassedOver, PingOutcome, RegistrationEntry, SessionEntry, SessionState, printable,
    shortened,
};
use crate::clock::UnixSecs;
use crate::config::Transport;
use crate::jid::{BareJid, Jid};
use crate::publish::ServiceStatus;
use crate::push::account::Account;
use crate::push::registration;
use crate::registry::Published;
use crate::relay::Handle;
use crate::store::Backlog;

/// Returns the entry of a session.
pub(super) fn session_entry(handle: &Handle, backlog: Backlog) -> SessionEntry {
    let (notes, (queued, queue_bytes)) = (handle.notes(), handle.queued());
    SessionEntry {
        jid: Jid::new(&format!("{}/{}", handle.account().as_str(), handle.resource())).to_string(),
        state: handle.reach().into(),
        since: handle.since(),
        client: notes.peer,
        login: notes.login.map(|method| method.name().to_owned()),
        queued,
        queue_bytes,
        spooled: backlog.count,
        spool_bytes: backlog.bytes,
        set_aside: handle.set_aside(),
        services: notes.services,
        push: notes.push.map(|(published, at)| last_publish(published, at)),
        verdict: notes.verdict.map(|(verdict, at)| LastVerdict { verdict: verdict.into_owned(), at }),
    }
}

/// Returns the entry of a registration.
pub(super) fn registration_entry(
    account: &BareJid,
    record: &Account,
    registration: &registration::Registration,
    state: SessionState,
    service_status: ServiceStatus,
) -> RegistrationEntry {
    let ServiceStatus { next, last, passed_over, one_way_until } = service_status;
    RegistrationEntry {
        account: account.clone(),
        resource: record.device(registration.device).map(|device| device.resource.clone()),
        service: registration.target.service.clone(),
        node: registration.target.node.as_deref().map(shortened),
        state,
        errors: registration.errors,
        last_success: registration.last_success,
        undelivered_since: registration.undelivered_since,
        last_seen: registration.last_seen,
        transport: next.map(|transport| transport.name().to_owned()),
        last: last.map(|(published, at)| last_publish(published, at)),
        passed_over: passed_over.into_iter().map(|(transport, reason)| passed_over_entry(transport, &reason)).collect(),
        bidi_off_until: one_way_until.map(UnixSecs::from),
    }
}

fn last_publish(published: Published, at: SystemTime) -> LastPublish {
    let (outcome, condition) = PingOutcome::of(published.outcome);
    let transport = published.transport.map(|transport| transport.name().to_owned());
    LastPublish { transport, outcome, condition, at: at.into() }
}

fn passed_over_entry(transport: Transport, reason: &str) -> PassedOver {
    PassedOver { transport: transport.name().to_owned(), reason: printable(reason) }
}
