//! A bound session: the task that owns both legs until the session ends.
//!
//! | file | holds |
//! |---|---|
//! | `driver.rs` | the task: it passes events to the session; `driver/` has its beginning, the outputs, and its end |
//! | `legs.rs` | both connections |
//! | `turn.rs` | the order in which events are polled |
//! | `watched.rs`, `siblings.rs`, `predecessors.rs` | published values: settings and account; the device's other sessions |
//! | `place.rs`, `membership.rs` | the entry in the registry |
//! | `record.rs` | the state of the task for another process |

mod driver;
mod legs;
mod membership;
mod place;
mod predecessors;
mod record;
mod siblings;
mod turn;
mod watched;

use std::sync::Arc;

use super::login::Login;
use super::shared::Relay;
pub(in crate::relay) use driver::go_on::ThawedSession;

/// Runs a session from its bind to its end. Beginning and end have their own boxes, so that their memory is freed in between.
pub(in crate::relay) async fn run(relay: Arc<Relay>, login: Box<Login>) {
    let Some((driver, first)) = Box::pin(driver::begin::begin(relay, login)).await else { return };
    driver.go_on(first).await;
}
