//! Faults in the middle of a handover: the disk, the memory, the execution of the program, and a kill.

use std::fs;
use std::time::Duration;

use super::dark::{Dark, at_once, moments};
use super::program::{REAL, install};
use crate::support::{
    Fault, PATIENCE, Scene, Setup, StubOptions, bodies, eventually, failed, fresh, message, numbered,
};

/// The process takes its sessions back each time, and can be replaced afterwards.
#[tokio::test]
async fn a_program_that_cannot_be_executed_leaves_the_sessions_to_this_process() {
    let mut dark = Dark::behind(StubOptions::managed(), Setup::copied).await;
    dark.store("before").await;
    let kept = dark.pushward.file("kept");
    fs::rename(dark.pushward.program(), &kept).unwrap();
    let pid = dark.pushward.process();
    for round in 1..=2 {
        // The file that the shell reads is not changed.
        let replaced = "printf '#!/nonexistent\\n' > new; chmod +x new; mv new \"$0\"";
        install(&dark.pushward, &format!("\"$real\" \"$@\"; {replaced}"), "exit 1");
        dark.pushward.signal("-USR2");
        let what = || dark.pushward.log().join("\n");
        let back = || {
            let failed = dark.pushward.count("upgrade failed: running process continues") == round;
            (failed && dark.pushward.handovers() == round).then_some(())
        };
        eventually(PATIENCE, what, back).await;
        assert_eq!(dark.pushward.process(), pid);
        dark.assert_answers(&format!("p{round}")).await;
    }
    dark.server.send(message("after"));
    dark.assert_undisturbed();
    fs::rename(&kept, dark.pushward.program()).unwrap();
    let (code, text) = dark.pushward.ask(&["upgrade"]).await;
    assert!(code == Some(0) && text.contains("1 sessions kept, 0 ended"), "{code:?} {text}");
    dark.assert_goes_on(&["before", "after"]).await;
}

/// Regression test: the command reported a success, because the same process answered as after a handover.
#[tokio::test]
async fn the_command_says_that_the_program_cannot_be_executed() {
    let last = ["rm \"$0\"", "chmod a-x \"$0\"", "printf '#!/nonexistent\\n' > new; chmod +x new; mv new \"$0\""];
    at_once(last, |last| async move {
        let dark = Dark::new().await;
        dark.store("before").await;
        install(&dark.pushward, &format!("\"$real\" \"$@\"; {last}"), "exit 1");
        dark.assert_upgrade_fails("cannot execute").await;
        let (code, text) = dark.pushward.ask(&["status"]).await;
        assert!(code == Some(0) && text.contains("last handover: failed"), "{code:?} {text}");
        dark.assert_goes_on(&["before"]).await;
    })
    .await;
}

/// The process that asks the program may open no more files afterwards, until it raises the limit at its next start.
const NO_MORE_FILES: &str = "\"$real\" \"$@\"; prlimit --pid $PPID --nofile=3:20000";

/// Regression test: the sessions were closed without a footer.
#[tokio::test]
async fn sessions_that_cannot_be_sealed_stay_with_this_process() {
    let dark = Dark::new().await;
    dark.store("before").await;
    install(&dark.pushward, NO_MORE_FILES, REAL);
    dark.assert_upgrade_fails("Too many open files").await;
    dark.server.assert_open();
    let (code, text) = dark.pushward.ask(&["status"]).await;
    assert!(code == Some(0) && text.contains("last handover: failed"), "{code:?} {text}");
    install(&dark.pushward, REAL, REAL);
    let (code, text) = dark.pushward.ask(&["upgrade"]).await;
    assert!(code == Some(0) && text.contains("1 sessions kept, 0 ended"), "{code:?} {text}");
    dark.assert_goes_on(&["before"]).await;
}

/// The limit is reached in the middle, so that a part is sealed already.
#[tokio::test]
async fn sessions_that_are_sealed_in_part_stay_with_this_process() {
    at_once(-5..=3, |above| async move {
        let dark = Dark::new().await;
        dark.store("before").await;
        let highest = "$(ls /proc/$PPID/fd | sort -n | tail -1)";
        let limit = format!("\"$real\" \"$@\"; prlimit --pid $PPID --nofile=$(({highest} + {above})):20000");
        install(&dark.pushward, &limit, REAL);
        let (code, text) = dark.pushward.ask(&["upgrade"]).await;
        let failed = code == Some(1) && text.contains("Too many open files");
        assert!(failed || code == Some(0) && text.contains("1 sessions kept, 0 ended"), "{code:?} {text}");
        dark.assert_goes_on(&["before"]).await;
    })
    .await;
}

/// The next process cannot get them, so they end in order, and their messages are in the database.
#[tokio::test]
async fn sessions_that_cannot_be_sealed_at_sigterm_are_drained() {
    let Scene { mut stub, mut pushward, client, server, enabled } =
        Scene::with(StubOptions::default(), |setup| setup.copied().stored(30)).await;
    let mut client = client;
    client.acks = false;
    server.send(message("kept"));
    client.expect("kept").await;
    install(&pushward, NO_MORE_FILES, REAL);
    pushward.order("restart");
    server.footer(PATIENCE).await;
    client.closed(PATIENCE).await;
    pushward.listens_again(2).await;
    assert!(pushward.stored_names().is_empty(), "{:?}", pushward.stored_names());
    stub.assert_not_connected();
    let (mut client, h) = failed(&pushward, &enabled, 0).await;
    assert_eq!(h, Some(0));
    fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(1).await), ["kept"]);
}

/// The disk stalls for a shorter time than the sessions have, while they are frozen or before that.
#[tokio::test]
async fn a_disk_that_stalls_at_the_freeze_ends_no_session() {
    at_once([0, 5, 15, 30].map(Duration::from_millis), |moment| async move {
        let dark = Dark::with(|setup| setup.copied().with_faults()).await;
        dark.pushward.signal("-USR2");
        dark.pushward.logged(&["\"upgrading\""]).await;
        let all = numbered("stalled", 1..=40);
        dark.server.send(all[..30].iter().map(|body| message(body)).collect::<String>());
        // The moment is the subject, and then the duration of the stall.
        tokio::time::sleep(moment).await;
        dark.pushward.begin(Fault::Stall);
        dark.server.send(all[30..].iter().map(|body| message(body)).collect::<String>());
        tokio::time::sleep(Duration::from_secs(3)).await;
        dark.pushward.end(Fault::Stall);
        let ended = || dark.pushward.handovers() == 1 || dark.pushward.count("handover not begun") == 1;
        let what = || format!("the end of the handover in\n{}", dark.pushward.log().join("\n"));
        eventually(PATIENCE, what, || ended().then_some(())).await;
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        dark.assert_goes_on(&all).await;
    })
    .await;
}

/// The process is killed while it freezes, while the next program starts, or while that takes up the sessions.
#[tokio::test]
async fn a_kill_in_the_middle_of_a_handover_loses_no_more_than_another_kill() {
    at_once(moments(), |moment| async move {
        let mut dark = Dark::new().await;
        dark.store("kept").await;
        dark.begin_handover(moment).await;
        dark.pushward.kill();
        dark.server.closed(PATIENCE).await;
        dark.pushward.start_again().await;
        let (mut client, _) = failed(&dark.pushward, &dark.enabled, 0).await;
        fresh(&mut client, "phone").await;
        assert_eq!(bodies(&client.messages(1).await), ["kept"]);
        assert!(bodies(&client.until_quiet(Duration::from_millis(200)).await).is_empty(), "{}", client.transcript());
    })
    .await;
}
