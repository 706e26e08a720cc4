//! Restarts under a service manager with a store for descriptors.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::dark::{Dark, at_once, moments};
use crate::support::{
    PATIENCE, Pushward, StubOptions, bodies, eventually, failed, free_address, fresh, message, numbered, resumed,
};

/// Returns the text of an event of the service manager in the log.
fn event(name: &str) -> String {
    format!("\"event\": \"{name}\"")
}

/// Waits until the service manager has logged an event that many times.
async fn happened(pushward: &Pushward, name: &str, times: usize) {
    let what = || format!("{times} times {name} in\n{}", pushward.log().join("\n"));
    eventually(PATIENCE, what, || (pushward.count(&event(name)) == times).then_some(())).await;
}

/// Waits until the process of that start is ready.
async fn ready(pushward: &Pushward, start: usize) {
    happened(pushward, "started", start).await;
    let what = || format!("a process that is ready in\n{}", pushward.log().join("\n"));
    let is_ready = || {
        let lines = pushward.log();
        let mut last = lines.iter().rev().take_while(|line| !line.contains(&event("started")));
        last.any(|line| line.contains(&event("ready"))).then_some(())
    };
    eventually(PATIENCE, what, is_ready).await;
}

/// A change by which the next start fails.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    /// The configuration has an unknown key.
    Configuration,
    /// A key is missing.
    Key,
    /// An address is taken.
    Address(SocketAddr),
}

impl Obstacle {
    fn put(self, pushward: &mut Pushward) {
        match self {
            Self::Configuration => pushward.configure(|setup| setup.table("[nonsense]\nkey = 1")),
            Self::Key => {
                fs::rename(pushward.file("certs/localhost.key"), pushward.file("certs/aside")).unwrap();
            }
            Self::Address(address) => {
                let table = format!("[[listen]]\naddress = '{address}'\ntls = 'direct'\n");
                pushward.configure(|setup| setup.table(&table));
            }
        }
    }

    fn remove(self, pushward: &mut Pushward) {
        match self {
            Self::Configuration | Self::Address(_) => pushward.configure(|setup| setup.without_tables()),
            Self::Key => fs::rename(pushward.file("certs/aside"), pushward.file("certs/localhost.key")).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_restart_keeps_dark_sessions_and_refuses_no_connection() {
    let mut dark = Dark::behind(StubOptions::managed(), |setup| setup.stored(30)).await;
    let address = dark.pushward.direct;
    for round in 1..=3 {
        dark.server.send(message(&format!("before {round}")));
        let connecting = tokio::spawn(async move {
            let until = Instant::now() + Duration::from_secs(1);
            while Instant::now() < until {
                tokio::net::TcpStream::connect(address).await.expect("a listener");
            }
        });
        dark.pushward.restarted().await;
        let names = dark.pushward.stored_names();
        assert!(names.len() == 4 && names.iter().filter(|name| name.starts_with("listen-")).count() == 2, "{names:?}");
        connecting.await.unwrap();
        dark.assert_answers(&format!("p{round}")).await;
        dark.server.acked(2 * round, PATIENCE).await;
    }
    // Nothing can be taken up a second time.
    dark.pushward.order("names");
    let emptied = || dark.pushward.stored_names().is_empty().then_some(());
    eventually(PATIENCE, || "an empty store".to_owned(), emptied).await;
    let entries = fs::read_dir(dark.pushward.file("state")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["admin.sock", "pushward.redb"]);
    dark.stub.assert_not_connected();
    let (mut client, _) = resumed(&dark.pushward, &dark.enabled, 0).await;
    assert_eq!(bodies(&client.messages(3).await), numbered("before", 1..=3));
}

/// Regression test: the process that was starting had taken the sessions out of the store, and ended with them.
#[tokio::test]
async fn a_second_restart_during_the_start_keeps_the_sessions() {
    at_once(moments(), |moment| async move {
        let mut dark = Dark::stored().await;
        dark.store("before").await;
        dark.pushward.order("restart");
        happened(&dark.pushward, "started", 2).await;
        // The moment is the subject: it waits for nothing.
        tokio::time::sleep(moment).await;
        dark.pushward.order("restart");
        ready(&dark.pushward, 3).await;
        dark.assert_goes_on(&["before"]).await;
    })
    .await;
}

/// Regression test: with a taken address, the process had taken the sessions out of the store before it tried to listen.
#[tokio::test]
async fn a_start_that_fails_leaves_the_sessions_to_the_next_start() {
    let taken = TcpListener::bind(free_address()).unwrap();
    let address = Obstacle::Address(taken.local_addr().unwrap());
    at_once([Obstacle::Configuration, Obstacle::Key, address], |obstacle| async move {
        let mut dark = Dark::stored().await;
        dark.pushward.order("pause");
        happened(&dark.pushward, "ended", 1).await;
        obstacle.put(&mut dark.pushward);
        dark.pushward.order("start");
        happened(&dark.pushward, "exited", 1).await;
        assert_next_start_goes_on(dark, obstacle).await;
    })
    .await;
}

/// Removes the obstacle, and fails unless the next start goes on with the session.
async fn assert_next_start_goes_on(mut dark: Dark, obstacle: Obstacle) {
    obstacle.remove(&mut dark.pushward);
    dark.pushward.order("start");
    dark.handed_over(1).await;
    dark.assert_goes_on(&[]).await;
}

/// Regression test: at SIGTERM the installed program refused its configuration, and all sessions were drained. The operator
/// corrects the configuration while the store keeps them.
#[tokio::test]
async fn a_restart_with_a_refused_configuration_leaves_the_sessions_in_the_store() {
    at_once([Obstacle::Configuration, Obstacle::Key], |obstacle| async move {
        let mut dark = Dark::stored().await;
        obstacle.put(&mut dark.pushward);
        dark.pushward.order("restart");
        happened(&dark.pushward, "exited", 1).await;
        assert_eq!(dark.pushward.stored_names().len(), 4, "{:?}", dark.pushward.stored_names());
        assert_next_start_goes_on(dark, obstacle).await;
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_too_small_gets_a_drain() {
    at_once([0, 1, 3], |limit| async move {
        let mut dark = Dark::with(|setup| setup.stored(limit)).await;
        dark.store("kept").await;
        dark.pushward.order("restart");
        dark.server.footer(PATIENCE).await;
        dark.pushward.listens_again(2).await;
        assert!(dark.pushward.stored_names().is_empty(), "{:?}", dark.pushward.stored_names());
        let (mut client, h) = failed(&dark.pushward, &dark.enabled, 0).await;
        assert_eq!(h, Some(0));
        fresh(&mut client, "phone").await;
        assert_eq!(bodies(&client.messages(1).await), ["kept"]);
    })
    .await;
}

#[tokio::test]
async fn a_process_that_is_killed_loses_no_more_than_before() {
    let mut dark = Dark::stored().await;
    dark.store("kept").await;
    dark.pushward.restarted().await;
    dark.pushward.order("kill");
    dark.server.closed(PATIENCE).await;
    dark.pushward.listens_again(3).await;
    let (mut client, _) = failed(&dark.pushward, &dark.enabled, 0).await;
    fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(1).await), ["kept"]);
}

/// Regression test: the key was read again for the drain, and no session ended in order.
#[tokio::test]
async fn a_drain_after_the_store_refused_needs_no_key() {
    let mut dark = Dark::with(|setup| setup.stored(2)).await;
    fs::rename(dark.pushward.file("certs/localhost.key"), dark.pushward.file("certs/aside")).unwrap();
    dark.pushward.order("pause");
    dark.server.footer(PATIENCE).await;
}
