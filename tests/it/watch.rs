//! `pushward status` and `pushward sessions` with `--watch`: a live table in a terminal, lines elsewhere.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    PATIENCE, Process, Pushward, Scene, Setup, StubOptions, StubUpstream, Terminal, binary, enable_push, eventually,
    lost,
};

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

fn watch(pushward: &Pushward, arguments: &[&str]) -> Command {
    let mut command = binary();
    command.args(arguments).args(["--watch", "--interval", "100ms"]).current_dir(pushward.file(""));
    command
}

#[tokio::test]
async fn sessions_are_a_live_table_in_a_terminal_that_is_restored_afterwards() {
    let mut scene = Scene::new().await;
    enable_push(&mut scene.client, "n").await;
    let mut terminal = Terminal::start(&watch(&scene.pushward, &["sessions"]), (150, 12));
    terminal.draws("alice@localhost/phone  live", 0).await;
    terminal.draws("push.localhost", 0).await;
    terminal.draws("127.0.0.1:", 0).await;
    terminal.draws("1–1 of 1 sessions", 0).await;
    assert!(terminal.drawn().starts_with(ENTER), "{:?}", terminal.drawn());
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    terminal.draws("alice@localhost/phone  dark", terminal.drawn().len()).await;
    terminal.press("q");
    assert_eq!(terminal.ended().await, (0, true));
    assert!(terminal.drawn().trim_end().ends_with(LEAVE), "{:?}", terminal.drawn());
}

#[tokio::test]
async fn the_terminal_is_restored_after_control_c_and_after_a_signal() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    for end in ["\u{3}", "\u{1b}", "SIGTERM"] {
        let mut terminal = Terminal::start(&watch(&pushward, &["status"]), (60, 20));
        terminal.draws("0 live, 0 suspect, 0 dark", 0).await;
        match end {
            "SIGTERM" => terminal.signal(15),
            keys => terminal.press(keys),
        }
        assert_eq!(terminal.ended().await, (0, true), "{end:?}");
        assert!(terminal.drawn().trim_end().ends_with(LEAVE), "{end:?}");
    }
}

#[tokio::test]
async fn the_table_continues_when_the_daemon_comes_back() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let mut pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut terminal = Terminal::start(&watch(&pushward, &["sessions"]), (100, 12));
    terminal.draws("0 live  0 suspect  0 dark", 0).await;
    pushward.terminate(PATIENCE).await;
    terminal.draws("no daemon listens at", 0).await;
    let drawn = terminal.drawn().len();
    pushward.start_again().await;
    terminal.draws("0 live  0 suspect  0 dark", drawn).await;
    terminal.press("q");
    assert_eq!(terminal.ended().await, (0, true));
}

#[tokio::test]
async fn without_a_terminal_each_sample_is_a_line_of_json() {
    let scene = Scene::new().await;
    let mut command = watch(&scene.pushward, &["sessions", "--json"]);
    let process = Process::spawn("pushward sessions", "cargo build", &mut command);
    let moments = || -> Option<Vec<Value>> {
        let moments: Vec<_> = process.log().lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        (moments.len() >= 2).then_some(moments)
    };
    let moments = eventually(PATIENCE, || format!("two moments: {:?}", process.log().lines()), moments).await;
    for moment in &moments {
        assert_eq!(moment["sessions"][0]["jid"], "alice@localhost/phone", "{moment}");
        assert_eq!(moment["sessions"][0]["state"], "live", "{moment}");
        assert_eq!(moment["status"]["live"], 1, "{moment}");
    }
    assert!(moments[0]["at"].as_u64() <= moments[1]["at"].as_u64());
}

#[tokio::test]
async fn without_a_terminal_and_a_daemon_the_watch_ends_with_a_reason() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let mut pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut process = Process::spawn("pushward status", "cargo build", &mut watch(&pushward, &["status"]));
    let log = process.log().clone();
    let shown = || log.contains("sessions       0 live, 0 suspect, 0 dark").then_some(());
    eventually(PATIENCE, || format!("the status: {:?}", log.lines()), shown).await;
    pushward.terminate(PATIENCE).await;
    let ended = eventually(PATIENCE, || "the end".to_owned(), || process.exited()).await;
    assert_eq!(ended.code(), Some(69));
    process.drained().await;
    assert!(log.lines().iter().any(|line| line.contains("pushward")), "{:?}", log.lines());
}
