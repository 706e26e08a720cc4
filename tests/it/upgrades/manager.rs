//! Restarts under a service manager with a store for descriptors.

use std::fs;
use std::time::Duration;

use crate::support::{PATIENCE, Scene, StubOptions, bodies, failed, lost, message, numbered, resumed};

#[tokio::test]
async fn a_restart_by_the_service_manager_keeps_dark_sessions_and_refuses_no_connection() {
    let Scene { mut stub, mut pushward, client, mut server, enabled } =
        Scene::with(StubOptions::managed(), |setup| setup.stored(30)).await;
    let address = pushward.direct;
    lost(&pushward, client, "alice@localhost/phone").await;
    for round in 1..=3 {
        server.send(message(&format!("before {round}")));
        let connecting = tokio::spawn(async move {
            let until = std::time::Instant::now() + Duration::from_secs(1);
            while std::time::Instant::now() < until {
                tokio::net::TcpStream::connect(address).await.expect("a listener");
            }
        });
        pushward.restarted().await;
        let names = pushward.stored_names();
        assert!(names.len() == 4 && names.iter().filter(|name| name.starts_with("listen-")).count() == 2, "{names:?}");
        connecting.await.unwrap();
        server.send(format!(
            "<iq type='get' id='p{round}' from='localhost' to='alice@localhost/phone'><ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        server.expect(&format!("id='p{round}'")).await;
        server.acked(2 * round, PATIENCE).await;
    }
    // Nothing can be taken up a second time.
    pushward.order("names");
    let emptied = || pushward.stored_names().is_empty().then_some(());
    crate::support::eventually(PATIENCE, || "an empty store".to_owned(), emptied).await;
    let mut files: Vec<_> =
        fs::read_dir(pushward.file("state")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["admin.sock", "pushward.redb"]);
    stub.assert_not_connected();
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(bodies(&client.messages(3).await), numbered("before", 1..=3));
}

#[tokio::test]
async fn a_service_manager_whose_store_is_too_small_gets_a_drain() {
    for limit in [0, 1, 3] {
        let Scene { stub: _stub, mut pushward, client, server, enabled } =
            Scene::with(StubOptions::default(), |setup| setup.stored(limit)).await;
        lost(&pushward, client, "alice@localhost/phone").await;
        server.send(message("kept"));
        pushward.stored("kept").await;
        pushward.order("restart");
        server.footer(PATIENCE).await;
        pushward.listens_again(2).await;
        assert!(pushward.stored_names().is_empty(), "{:?}", pushward.stored_names());
        let (mut client, h) = failed(&pushward, &enabled, 0).await;
        assert_eq!(h, Some(0));
        crate::support::fresh(&mut client, "phone").await;
        assert_eq!(bodies(&client.messages(1).await), ["kept"]);
    }
}

#[tokio::test]
async fn a_process_that_is_killed_loses_no_more_than_before() {
    let Scene { stub: _stub, mut pushward, client, server, enabled } =
        Scene::with(StubOptions::default(), |setup| setup.stored(30)).await;
    lost(&pushward, client, "alice@localhost/phone").await;
    server.send(message("kept"));
    pushward.stored("kept").await;
    pushward.restarted().await;
    pushward.order("kill");
    server.closed(PATIENCE).await;
    pushward.listens_again(3).await;
    let (mut client, _) = failed(&pushward, &enabled, 0).await;
    crate::support::fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(1).await), ["kept"]);
}

#[tokio::test]
async fn a_start_that_refuses_its_configuration_leaves_the_sessions_to_the_next_start() {
    let Scene { mut stub, mut pushward, client, mut server, enabled } =
        Scene::with(StubOptions::default(), |setup| setup.stored(30)).await;
    lost(&pushward, client, "alice@localhost/phone").await;
    pushward.order("pause");
    let logged = |event: &'static str| {
        let lines = pushward.log();
        lines.iter().filter(|line| line.contains(&format!("\"event\": \"{event}\""))).count()
    };
    crate::support::eventually(PATIENCE, || "the end".to_owned(), || (logged("ended") == 1).then_some(())).await;
    let (key, aside) = (pushward.file("certs/localhost.key"), pushward.file("certs/aside"));
    fs::rename(&key, &aside).unwrap();
    pushward.order("start");
    let log = || pushward.log().join("\n");
    crate::support::eventually(PATIENCE, log, || log().contains("\"event\": \"exited\"").then_some(())).await;
    fs::rename(&aside, &key).unwrap();
    pushward.order("start");
    crate::support::eventually(PATIENCE, || "a handover".to_owned(), || (pushward.handovers() == 1).then_some(()))
        .await;
    server.assert_open();
    stub.assert_not_connected();
    server.send(message("on"));
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(bodies(&client.messages(1).await), ["on"]);
    client.send("<message to='bob@localhost' id='sent'/>").await;
    server.expect("id='sent'").await;
}
