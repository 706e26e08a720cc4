//! The login of a client, from the stream header to a bound or a resumed session.

mod driver;
mod patience;
mod server_clock;

pub(super) use driver::{Login, LoginResult, held, run};
