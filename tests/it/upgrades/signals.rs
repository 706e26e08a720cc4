//! Signals and requests of the operator.

use super::scene;
use crate::support::{PATIENCE, Scene, StubOptions, failed, lost};

#[tokio::test]
async fn the_command_stop_drains() {
    let Scene { stub: _stub, mut pushward, client, server, enabled } = scene(StubOptions::default()).await;
    lost(&pushward, client, "alice@localhost/phone").await;
    let (code, text) = pushward.ask(&["stop"]).await;
    assert!(code == Some(0) && text.contains("draining"), "{code:?} {text}");
    server.footer(PATIENCE).await;
    let status = pushward.ended(PATIENCE).await;
    assert!(status.success(), "{status}");
    pushward.start_again().await;
    let (_client, h) = failed(&pushward, &enabled, 0).await;
    assert_eq!(h, Some(0));
}
