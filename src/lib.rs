//! Push notifications for any XMPP server, without touching the server.
//!
//! ```text
//!  mobile client ──TLS── pushward ──plain── XMPP server (unmodified: Prosody, ejabberd, Openfire, …)
//!                           │  └── redb: registrations, devices, spool of undelivered stanzas
//!                           └───── push service (app server): as the domain (s2s), as a component, or through the user's stream
//! ```
//!
//! Clients connect to Pushward instead of to the server. It terminates TLS, relays every stanza, keeps its own stream
//! management (XEP-0198) with the client, holds the session on the server while the client is dark, owns the registrations
//! of `urn:xmpp:push:0` (XEP-0357), and publishes the notifications.
//!
//! # Where things are
//!
//! From the bottom up: a module uses only modules of lower rows. `tests/architecture` fails on any other arrow, and on two files
//! that use each other.
//!
//! | module | what it does | what it does not know |
//! |---|---|---|
//! | [`clock`], [`seq`], [`hash`], [`sync`], [`secret`], [`exit`], [`paths`] | calendar time, places in sequences, keyed hashes, locks, values that are not logged, exit codes, packaged paths | |
//! | [`jid`] | addresses as they are compared | |
//! | [`xml`] | bytes in any chunking → checked frames; a borrowed view of an element; escaping writers | what a stanza means |
//! | [`push`] | what a stanza means, whether and when to notify, what is said, what a registration is | sessions, time of day |
//! | [`session`] | login ([`session::negotiate`]), then the bound session: both legs of stream management, liveness, queue, rewrites, ends | sockets, clock, disk, randomness |
//! | [`config`] | what an operator writes; fills the settings of the core | |
//! | [`metrics`], [`log`] | what is counted; where log lines go | who anybody is |
//! | [`limits`] | who may connect, fail, send and wait how much | what comes of it |
//! | [`store`] | accounts, spool, tombstones, wakes: operations and queries that an engine answers; redb below, one writer thread, group commit | who asks |
//! | [`registry`] | handles of the sessions and the commands to them | what a command does |
//! | [`net`] | listeners, the PROXY protocol, TLS, framed connections, the way to the server and whether it is trusted | XMPP beyond frames and STARTTLS |
//! | [`publish`] | the choice of transport; streams to push services as a domain, and to servers as a component | what is said, whom for |
//! | [`relay`] | one task per session: an event goes into the core, its outputs are performed | protocol rules |
//! | [`service`] | readiness, watchdog, passed sockets and descriptors; unit, manual page and package | |
//! | [`daemon`] | bind, accept, signals, drain; reload: all of a [`relay::snapshot`] or nothing | what operators can ask |
//! | [`admin`] | a unix socket for the operator's commands and their live table; over HTTP a page, metrics and probes | secrets |
//! | [`check`], [`setup`], [`demo`], [`cli`] | the commands; `demo` shows the main job in one process, through a real daemon | |
//!
//! `xml`, `session`, `push` and `jid` are the pure core: sans-IO, no tokio. Time is an argument, random numbers are passed
//! in, effects are values ([`session::Output`]). So all of stream management and push timing runs in tests under virtual
//! time.
//!
//! # Tasks
//!
//! `docs/tasks.md` has the rules for tasks, mailboxes, locks and deadlines, and the table of all tasks. The first of them: no task
//! awaits room in another task's mailbox ([`registry::mailbox`]).
//!
//! # Life of a connection
//!
//! [`net::listener`] accepts → a proxy in front says who the client is ([`net::proxy_protocol`]) → the relay's
//! handshake makes it TLS ([`session::starttls`] answers the clear text) → its login drives a
//! [`session::negotiate::Negotiation`]: header, SASL passed through, features rewritten ([`session::rewrite`],
//! [`session::mechanism_filter`]), then either a bind, whose result names the [`session::Session`] that this task drives from then
//! on, or a proven `<resume/>`, which moves the connection to the task of the held session. With SASL2 both are asked
//! for inside the login and answered inside its `<success/>`.
//!
//! The connection to the server is plain or TLS ([`net::upstream`]; [`session::upgrade`] speaks its STARTTLS), and whom it may
//! end at is [`net::trust`]'s to say.
//!
//! # Invariants
//!
//! 1. **Nothing lost, nothing twice.** Every stanza of a durable kind (messages, subscription presence, iq requests) that the
//!    server handed us is acked by the client, or in the spool on disk, or not yet acknowledged to the server, or returned to
//!    its sender with an error. A client that resumes gets each stanza exactly once, in order. Exceptions: a stanza that no
//!    client could read, or that is too large, is skipped ([`xml::Skipped`]); a stanza on which a client breaks again and again is
//!    set aside for its device ([`push::guard`]). After a crash, a failed sync, or a broken connection to a server whose messages
//!    are not remembered any more, a stanza arrives at least once.
//! 2. **Durable before acked.** Durable kinds are acknowledged to either side only once the other side has taken them or the
//!    disk holds them. Other presence and iq answers wait in memory and count as handled, since acks are cumulative.
//! 3. **Unchanged in, unchanged out.** A stanza that no rule rewrites leaves byte for byte as it came.
//! 4. **Nobody gets another's session.** Resuming needs the unguessable id *and* proof, from the server, of the same bare JID.
//! 5. **Our own traffic is invisible.** Publishes and their answers, probes, pings, upstream acks never reach the client.
//! 6. **Silent while live.** No push for a stanza that a live client acknowledged in time; one push per burst otherwise (calls
//!    for devices that asked for `jingle` excepted).
//! 7. **Every wait has a deadline, every queue a bound, every overflow a name.** No task waits for room in another task's
//!    mailbox.
//! 8. **Secrets stay secret.** No SASL payload, publish-option, stanza body or child is logged at any level.
//! 9. **Deaf core.** Framing, session logic and push rules know no socket, clock, disk or randomness.
//! 10. **Only the owner detaches.** A late event of attachment *n* cannot affect attachment *n+1*.

pub mod admin;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod exit;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hash;
pub mod jid;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod net;
pub mod paths;
pub mod publish;
pub mod push;
pub mod registry;
pub mod relay;
pub mod secret;
pub mod seq;
pub mod service;
pub mod session;
pub mod setup;
pub mod store;
pub mod sync;
pub mod xml;
