//! Push notifications for any XMPP server, without touching the server.
//!
//! ```text
//!  mobile client ──TLS── pushward ──plain── XMPP server (unmodified: Prosody, ejabberd, Openfire, …)
//!                           │  └── redb or PostgreSQL: registrations, devices, spool of undelivered stanzas
//!                           └───── push service (app server): as the domain (s2s), as a component, or through the user's stream
//! ```
//!
//! Clients connect to Pushward instead of to the server. It terminates TLS, relays every stanza, keeps its own stream
//! management (XEP-0198) with the client, holds the session on the server while the client is dark, owns the registrations
//! of `urn:xmpp:push:0` (XEP-0357), and publishes the notifications.
//!
//! # Modules
//!
//! From the bottom up: a module uses only modules of lower rows. `tests/architecture` fails on any other arrow, and on two files
//! that use each other.
//!
//! | module | contents | does not depend on |
//! |---|---|---|
//! | [`clock`], [`seq`], [`hash`], [`sync`], [`secret`], [`exit`], [`stdout`], [`paths`], [`node_id`] | calendar time, sequence numbers, keyed hashes, locks, values that are not logged, exit codes, printing, packaged paths, numbers of nodes | |
//! | [`jid`] | addresses, normalized for comparison | |
//! | [`xml`] | bytes in any chunking → checked frames; a borrowed view of an element; escaping writers | the meaning of stanzas |
//! | [`push`] | classification of stanzas, decisions about notifications and their content; accounts, devices and registrations as they are stored | sessions, time of day |
//! | [`session`] | login ([`session::negotiate`]), then the bound session: both legs of stream management, liveness, queue, rewrites, the end | sockets, clock, disk, randomness |
//! | [`config`] | the configuration file; fills the settings of the core | |
//! | [`metrics`], [`log`] | counters and gauges; the destinations of log lines | the identity of users |
//! | [`limits`] | limits of connections, failures, traffic and waiting | the consequences of reaching a limit |
//! | [`store`] | accounts, spool, tombstones, wakes: operations and queries that an engine answers, redb or PostgreSQL; one writer thread, group commit; accounts that this node owns | its callers |
//! | [`registry`] | handles of the sessions and the commands to them | the effect of a command |
//! | [`net`] | listeners, the PROXY protocol, TLS, framed connections, the connection to the server and the trust in its certificate | XMPP beyond frames and STARTTLS |
//! | [`cluster`] | the other nodes: the owner of an account, streams of clients that go on at another node, requests between nodes | logins beyond their first message |
//! | [`publish`] | transport selection; streams to push services as a domain, and to servers as a component | content and purpose of publishes |
//! | [`relay`] | one task per session: an event goes into the core, its outputs are performed | protocol rules |
//! | [`service`] | readiness, watchdog, passed sockets and descriptors; unit, manual page and package | |
//! | [`daemon`] | bind, accept, signals, drain; reload: all of a [`relay::snapshot`] or nothing | the operator's commands |
//! | [`admin`] | a unix socket for the operator's commands and their live table; over HTTP a page, metrics and probes | secrets |
//! | [`check`], [`setup`], [`demo`], [`cli`] | the commands; `demo` shows the main function in one process, through a real daemon | |
//!
//! `xml`, `session`, `push` and `jid` are the pure core: sans-IO, no tokio. Time is an argument, random numbers are passed
//! in, effects are values ([`session::Output`]). So all of stream management and push timing runs in tests under virtual
//! time.
//!
//! # Tasks
//!
//! `docs/tasks.md` has the rules for tasks, mailboxes, locks and deadlines, and the table of all tasks. The first rule: no task
//! waits for room in another task's mailbox ([`registry::mailbox`]).
//!
//! # Life of a connection
//!
//! [`net::listener`] accepts → a proxy in front sends the client's address ([`net::proxy_protocol`]) → the relay's
//! handshake negotiates TLS ([`session::starttls`] answers the clear text) → its login drives a
//! [`session::negotiate::Negotiation`]: header, SASL passed through, features rewritten ([`session::rewrite`],
//! [`session::mechanism_filter`]), then either a bind, which creates the [`session::Session`] that this task drives from then on, or
//! a proven `<resume/>`, which moves the connection to the task of the held session. With SASL2 both are requested inside
//! the login and answered inside its `<success/>`. If the server has no SASL2, Pushward offers it ([`session::fronting`]), and
//! tokens ([`push::fast`]) by which a client returns to its held session without the server.
//!
//! The connection to the server is plain or TLS ([`net::upstream`]; [`session::upgrade`] negotiates STARTTLS).
//! [`net::trust`] verifies the server's certificate.
//!
//! # Invariants
//!
//! 1. **Nothing lost, nothing twice.** Every stanza of a durable kind (messages, subscription presence, iq requests) that the
//!    server has sent is acked by the client, or in the spool on disk, or not yet acknowledged to the server, or returned to
//!    its sender with an error. A client that resumes gets each stanza exactly once, in order. Exceptions: a stanza that no
//!    client could read, or that is too large, is skipped ([`xml::Skipped`]); a stanza on which a client breaks again and again is
//!    set aside for its device ([`push::guard`]). After a crash, a failed sync, or a broken connection to a server whose messages
//!    are not remembered any more, a stanza arrives at least once.
//! 2. **Durable before acked.** Durable kinds are acknowledged to either side only once the other side has taken them or the
//!    disk holds them. Other presence and iq answers wait in memory and count as handled, since acks are cumulative.
//! 3. **Unchanged in, unchanged out.** A stanza that no rule rewrites leaves byte for byte as it came.
//! 4. **No account gets another account's session.** Resuming needs the unguessable id *and* proof of the same bare JID: from the
//!    server, or by a token that Pushward issued in a login which the server accepted, and which is not revoked.
//! 5. **Our own traffic is invisible.** Publishes and their answers, probes, pings, upstream acks never reach the client.
//! 6. **Silent while live.** No push for a stanza that a live client acknowledged in time; one push per burst otherwise (calls
//!    for devices that asked for `jingle` excepted).
//! 7. **Every wait has a deadline, every queue a bound, every overflow a name.** No task waits for room in another task's
//!    mailbox. One wait for the store has no deadline (`docs/tasks.md`).
//! 8. **Secrets stay secret.** No SASL payload, publish-option, stanza body or child is logged at any level.
//! 9. **Pure core.** Framing, session logic and push rules use no socket, clock, disk or randomness.
//! 10. **Only the owner detaches.** A late event of attachment *n* cannot affect attachment *n+1*.

pub mod admin;
pub mod check;
pub mod cli;
pub mod clock;
pub mod cluster;
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
pub mod node_id;
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
pub mod stdout;
pub mod store;
pub mod sync;
pub mod xml;
