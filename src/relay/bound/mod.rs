//! A bound session: the task that owns both legs until the session ends.
//!
//! | file | holds |
//! |---|---|
//! | `driver.rs` | the task: it passes events to the session; `driver/` has its beginning, the outputs, and its end |
//! | `legs.rs` | both connections |
//! | `turn.rs` | the order in which events are polled |
//! | `watched.rs`, `siblings.rs`, `predecessors.rs` | published values: settings and account; the device's other sessions |
//! | `membership.rs` | the entry in the registry |

mod driver;
mod legs;
mod membership;
mod predecessors;
mod siblings;
mod turn;
mod watched;

use std::sync::Arc;

use super::login::Login;
use super::shared::Relay;

/// Runs a session from its bind to its end. Beginning and end have their own boxes, so that their memory is freed in between.
pub(in crate::relay) async fn run(relay: Arc<Relay>, login: Box<Login>) {
    let Some((mut driver, first)) = Box::pin(driver::begin::begin(relay, login)).await else { return };
    driver.drive(first).await;
    Box::pin(driver.leave()).await;
}
