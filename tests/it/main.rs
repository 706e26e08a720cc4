//! Black-box tests: one binary, one behaviour per file, real peers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test that fails should do so where it fails, and a scenario reads best in one piece"
)]
#![allow(clippy::wildcard_enum_match_arm, reason = "a scripted peer fails on whatever its script does not expect")]

mod ack_through;
mod addresses;
mod admin;
mod answers;
mod baseline;
mod chains;
mod clients;
mod cluster;
mod copies;
mod crash;
mod dark;
mod devices;
mod ejabberd;
mod ends;
mod extensions;
mod floods;
mod guide;
mod handovers;
mod hostile;
mod hosts;
mod jabberd2;
mod limits;
mod login_waits;
mod losses;
mod mailboxes;
mod malformed;
mod modern_login;
mod operator;
mod page;
mod person;
mod poison;
mod postgresql;
mod proxy;
mod push;
mod recorded;
mod registration;
mod reload;
mod removal;
mod rules;
mod sasl2;
mod seed;
mod service;
mod setup;
mod slow;
mod slow_disk;
mod spool_refuses;
mod stream_management;
mod support;
mod terminal_clients;
mod transports;
mod upgrades;
mod upstream_management;
mod upstream_tls;
mod watch;
mod wild_stanzas;
