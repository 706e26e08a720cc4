//! Signals and requests of the operator, also in the middle of a handover.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::dark::{Dark, at_once, moments};
use super::program::{REAL, install};
use crate::support::{Fault, PATIENCE, Setup, eventually, failed};

/// The longest time until a signal or request is carried out, on a busy machine. The installed program has ten seconds to answer.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn the_command_stop_drains() {
    let mut dark = Dark::new().await;
    let (code, text) = dark.pushward.ask(&["stop"]).await;
    assert!(code == Some(0) && text.contains("draining"), "{code:?} {text}");
    dark.assert_drains().await;
    dark.pushward.start_again().await;
    let (_client, h) = failed(&dark.pushward, &dark.enabled, 0).await;
    assert_eq!(h, Some(0));
}

/// Regression test: after the request for a handover a signal was ignored by both processes, or ended the new one at once.
async fn a_signal_at_any_moment_of_a_handover_drains(signal: &'static str) {
    at_once(moments(), move |moment| async move {
        let mut dark = Dark::new().await;
        dark.begin_handover(moment).await;
        dark.pushward.signal(signal);
        dark.assert_drains().await;
    })
    .await;
}

#[tokio::test]
async fn sigterm_at_any_moment_of_a_handover_drains() {
    a_signal_at_any_moment_of_a_handover_drains("-TERM").await;
}

#[tokio::test]
async fn sigint_at_any_moment_of_a_handover_drains() {
    a_signal_at_any_moment_of_a_handover_drains("-INT").await;
}

/// Regression test: the command reported success, and the process that had taken over went on.
#[tokio::test]
async fn stop_in_the_middle_of_a_handover_drains_or_says_that_the_process_is_being_replaced() {
    // The program answers after 200 ms.
    let moments = [50, 200, 240, 300].map(Duration::from_millis);
    at_once(moments, |moment| async move {
        let mut dark = Dark::new().await;
        install(&dark.pushward, &format!("sleep 0.2; {REAL}"), REAL);
        dark.begin_handover(moment).await;
        let (code, text) = dark.pushward.ask(&["stop"]).await;
        if code == Some(0) {
            dark.assert_drains().await;
        } else {
            // Between the two processes nobody listens.
            let nobody =
                code == Some(69) && (text.contains("no daemon listens") || text.contains("closed the connection"));
            assert!(nobody || code == Some(1) && text.contains("being replaced"), "{code:?} {text}");
            dark.handed_over(1).await;
            dark.assert_goes_on(&[]).await;
        }
    })
    .await;
}

/// Regression test: signals and requests waited for the answer of the installed program.
#[tokio::test]
async fn a_program_that_hangs_delays_neither_sigint_nor_stop() {
    at_once(["sigint", "stop"], |request| async move {
        let mut dark = Dark::new().await;
        install(&dark.pushward, ": > asked; exec sleep 30", "exit 1");
        dark.pushward.signal("-USR2");
        let asked = dark.pushward.file("asked");
        eventually(PATIENCE, || "a question to the program".to_owned(), || asked.exists().then_some(())).await;
        let began = Instant::now();
        if request == "stop" {
            let (code, text) = dark.pushward.ask(&["stop"]).await;
            assert!(code == Some(0) && text.contains("draining"), "{code:?} {text}");
        } else {
            dark.pushward.signal("-INT");
        }
        dark.pushward.logged(&["draining"]).await;
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        dark.assert_drains().await;
    })
    .await;
}

/// Regression test: a reload that was requested while the process started never happened.
#[tokio::test]
async fn sighup_during_a_start_reloads_afterwards() {
    let mut dark = Dark::with(Setup::with_faults).await;
    dark.pushward.kill();
    dark.pushward.begin(Fault::Stall);
    let starting = dark.pushward.starting();
    dark.pushward.stalled().await;
    starting.signal("-HUP");
    // The moment is the subject: the signal is handled before the start goes on.
    tokio::time::sleep(Duration::from_millis(300)).await;
    dark.pushward.end(Fault::Stall);
    let what = || format!("a reload in\n{}", starting.log().lines().join("\n"));
    eventually(PATIENCE, what, || starting.log().contains("configuration reloaded").then_some(())).await;
}

/// The kernel accepts connections for as long as any copy of the listener is open, and no task would serve them.
#[tokio::test]
async fn a_drain_refuses_connections() {
    let mut dark = Dark::with(Setup::with_faults).await;
    let address = dark.pushward.direct;
    dark.pushward.begin(Fault::Stall);
    dark.pushward.signal("-INT");
    dark.pushward.logged(&["draining"]).await;
    let refuses = || TcpStream::connect(address).is_err().then_some(());
    eventually(PATIENCE, || "a refusal".to_owned(), refuses).await;
    assert_eq!(dark.pushward.exited(), None, "the drain has ended already");
    dark.pushward.end(Fault::Stall);
    dark.assert_drains().await;
}

/// Regression test: a signal between two attempts to start ended all sessions without a footer.
#[tokio::test]
async fn sigterm_between_two_attempts_to_start_drains() {
    let mut dark = Dark::new().await;
    install(&dark.pushward, "\"$real\" \"$@\" || exit; mv certs/localhost.key certs/aside", REAL);
    dark.pushward.signal("-USR2");
    dark.pushward.logged(&["cannot start"]).await;
    dark.pushward.signal("-TERM");
    std::fs::rename(dark.pushward.file("certs/aside"), dark.pushward.file("certs/localhost.key")).unwrap();
    dark.assert_drains().await;
}

/// The database stalls while the handover is noted in it.
async fn while_a_handover_is_noted(dark: &mut Dark) {
    dark.pushward.begin(Fault::Stall);
    dark.pushward.signal("-USR2");
    dark.pushward.logged(&["\"upgrading\""]).await;
    dark.pushward.stalled().await;
}

#[tokio::test]
async fn stop_while_a_handover_is_noted_is_carried_out() {
    let mut dark = Dark::with(|setup| setup.copied().with_faults()).await;
    while_a_handover_is_noted(&mut dark).await;
    let end = async {
        // The command must have sent its request by then.
        tokio::time::sleep(Duration::from_millis(800)).await;
        dark.pushward.end(Fault::Stall);
    };
    let ((code, text), ()) = tokio::join!(dark.pushward.ask(&["stop"]), end);
    assert!(code == Some(0) && text.contains("draining"), "{code:?} {text}");
    dark.assert_drains().await;
}

/// Regression test: the command found the same process, which drained, and said that it had been replaced.
#[tokio::test]
async fn the_command_upgrade_says_that_a_signal_came_first() {
    let mut dark = Dark::with(|setup| setup.copied().with_faults()).await;
    dark.pushward.begin(Fault::Stall);
    let end = async {
        dark.pushward.logged(&["\"upgrading\""]).await;
        dark.pushward.signal("-INT");
        dark.pushward.stalled().await;
        dark.pushward.end(Fault::Stall);
    };
    let ((code, text), ()) = tokio::join!(dark.pushward.ask(&["upgrade"]), end);
    assert_eq!(code, Some(1), "{text}");
    dark.assert_drains().await;
}
