//! The operator's interface: a unix socket for the commands of `pushward`, and HTTP for a page, metrics and probes.
//!
//! ```text
//!  pushward status … ── client ── socket ── handlers ──┐
//!                                                      ├── relay: registry, store, metrics
//!  Prometheus, a load balancer ── http ──── numbers ───┘
//! ```
//!
//! Both serve until the drain has finished, so that it can be watched. Only the owner can use the socket. The page shows no
//! account names.
//!
//! | file | contents |
//! |---|---|
//! | `interface` | binds both listeners and serves; [`daemon`](crate::daemon) starts it through a trait |
//! | [`protocol`] | requests and answers on the socket, and the text form of answers |
//! | `socket`, `answers` | the listener of the commands |
//! | `handlers` | each command; below it `selection` (selected registrations), `entries` (rows of lists), `ping` |
//! | `http`, `page`, `page_data` | the listener of the page, metrics and probes |
//! | `numbers`, `history`, `reachability` | the numbers that both show; the last hour; reachability of servers |
//! | `store_queries`, `connection_slots` | limits: queries to a store that may stall, concurrent connections |
//! | [`command`], [`client`], `watch`, `replaced` | the commands that query a running daemon |

mod answers;
pub mod client;
mod cluster;
pub mod command;
mod connection_slots;
mod entries;
mod error;
mod handlers;
mod history;
mod http;
mod interface;
mod numbers;
mod page;
mod page_data;
mod ping;
pub mod protocol;
mod reachability;
mod replaced;
mod selection;
mod socket;
mod store_queries;
mod watch;

pub use error::AdminError;
pub use interface::Interface;
