//! Handovers that are refused before any session is frozen.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::scene;
use crate::support::{Scene, StubOptions};

#[tokio::test]
async fn a_program_that_does_not_start_replaces_nothing() {
    let Scene { mut stub, pushward, mut client, server, enabled: _ } = scene(StubOptions::default()).await;
    let program = pushward.program();
    for (script, reason) in [
        ("#!/bin/sh\necho no such library >&2\nexit 127\n", "no such library"),
        ("#!/bin/sh\necho '{\"version\":\"9.9.9\",\"records\":[1000,1001]}'\n", "9.9.9"),
        ("#!/bin/sh\necho nonsense\n", "nonsense"),
    ] {
        fs::remove_file(&program).unwrap();
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let (code, text) = pushward.ask(&["upgrade"]).await;
        assert!(code == Some(1) && text.contains(reason), "{code:?} {text}");
    }
    fs::remove_file(&program).unwrap();
    pushward.signal("-USR2");
    pushward.logged(&["upgrade refused"]).await;
    client.roundtrip().await;
    server.assert_open();
    stub.assert_not_connected();
    assert_eq!(pushward.handovers(), 0);
}
