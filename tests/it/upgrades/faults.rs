//! Faults in the middle of a handover: the program cannot be executed, or the process is killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::scene;
use crate::support::{PATIENCE, Scene, Setup, StubOptions, bodies, failed, lost, message, resumed};

/// The program answers when it is asked, and cannot be executed afterwards.
#[tokio::test]
async fn a_program_that_cannot_be_executed_leaves_the_sessions_to_this_process() {
    let Scene { mut stub, pushward, client, mut server, enabled } = scene(StubOptions::managed()).await;
    lost(&pushward, client, "alice@localhost/phone").await;
    server.send(message("before"));
    pushward.stored("before").await;
    let (program, kept) = (pushward.program(), pushward.file("kept"));
    fs::rename(&program, &kept).unwrap();
    let script = format!("#!/bin/sh\n'{}' \"$@\"\nprintf '#!/nonexistent\\n' > \"$0\"\n", kept.display());
    for round in 1..=2 {
        fs::write(&program, &script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let pid = pushward.process();
        pushward.signal("-USR2");
        let failed = || {
            let lines = pushward.log();
            let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
            let failed = count("cannot execute the installed program: this process goes on") == round;
            (failed && count("sessions of the previous process go on") == round).then_some(())
        };
        crate::support::eventually(PATIENCE, || pushward.log().join("\n"), failed).await;
        assert_eq!(pushward.process(), pid);
        server.send(format!(
            "<iq type='get' id='p{round}' from='localhost' to='alice@localhost/phone'><ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        server.expect(&format!("id='p{round}'")).await;
    }
    server.send(message("after"));
    server.assert_open();
    stub.assert_not_connected();
    fs::remove_file(&program).unwrap();
    fs::rename(&kept, &program).unwrap();
    let (code, text) = pushward.ask(&["upgrade"]).await;
    assert!(code == Some(0) && text.contains("1 sessions kept, 0 ended"), "{code:?} {text}");
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(bodies(&client.messages(2).await), ["before", "after"]);
}

/// The process is killed at some moment of a handover: while it freezes, while the next program starts, or while that thaws.
#[tokio::test]
async fn a_kill_in_the_middle_of_a_handover_loses_no_more_than_another_kill() {
    for moment in [0, 2, 5, 10, 20, 40, 80, 160] {
        let Scene { stub: _stub, mut pushward, client, server, enabled } =
            Scene::with(StubOptions::default(), Setup::copied).await;
        lost(&pushward, client, "alice@localhost/phone").await;
        server.send(message("kept"));
        pushward.stored("kept").await;
        pushward.signal("-USR2");
        // It paces the kill and waits for nothing.
        tokio::time::sleep(Duration::from_millis(moment)).await;
        pushward.kill();
        server.closed(PATIENCE).await;
        pushward.start_again().await;
        let (mut client, _) = failed(&pushward, &enabled, 0).await;
        crate::support::fresh(&mut client, "phone").await;
        assert_eq!(bodies(&client.messages(1).await), ["kept"], "after {moment} ms");
        assert!(bodies(&client.until_quiet(Duration::from_millis(200)).await).is_empty(), "after {moment} ms");
    }
}
