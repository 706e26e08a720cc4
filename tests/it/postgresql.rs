//! The state is in a database on PostgreSQL.

use std::time::Duration;

use crate::person::run;
use crate::support::{
    PATIENCE, Process, Pushward, Scene, Setup, StubOptions, bodies, eventually, failed, fresh, message, numbered,
    resumed,
};

/// Waits until a process has ended. Returns its exit code and its log.
async fn ended(mut process: Process) -> (Option<i32>, String) {
    let status = eventually(PATIENCE, || "the end of the process".to_owned(), || process.exited()).await;
    process.drained().await;
    (status.code(), process.log().lines().join("\n"))
}

async fn scene() -> Scene {
    Scene::with(StubOptions::default(), |setup| setup.on_postgres().set("stream_management.spool_after", "'10ms'"))
        .await
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_crash_once_the_lease_is_over() {
    let mut scene = scene().await;
    scene.client.reset();
    numbered("dark", 1..=3).iter().for_each(|body| scene.server.send(message(body)));
    scene.pushward.stored("dark 3").await;
    scene.pushward.kill();
    scene.pushward.start_again().await;
    scene.pushward.logged(&["waiting for the lease of the previous process"]).await;
    let (mut client, h) = failed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(h, None);
    fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(3).await), numbered("dark", 1..=3));
}

#[tokio::test]
async fn an_orderly_end_gives_the_lease_up() {
    let mut scene = scene().await;
    scene.pushward.terminate(PATIENCE).await;
    scene.pushward.start_again().await;
    assert!(!scene.pushward.log().iter().any(|line| line.contains("waiting for the lease")));
    // The epoch in between has nobody.
    assert_eq!(scene.pushward.psql("SELECT epoch FROM node").trim(), "3");
}

#[tokio::test]
async fn a_second_process_on_the_same_database_refuses_to_start() {
    let scene = scene().await;
    let (code, log) = ended(scene.pushward.starting()).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("is running and uses this database"), "{log}");
    assert_eq!(scene.pushward.psql("SELECT epoch FROM node").trim(), "1");
}

#[tokio::test]
async fn a_process_whose_place_was_taken_stores_nothing_and_ends() {
    let mut scene = scene().await;
    scene.client.reset();
    scene.server.send(message("before"));
    scene.pushward.stored("before").await;
    scene.pushward.psql("UPDATE node SET epoch = epoch + 1");
    scene.server.send(message("after"));
    scene.pushward.logged(&["another process has taken the place"]).await;
    let status = scene.pushward.ended(PATIENCE).await;
    assert_eq!(status.code(), Some(1));
    let stored = "SELECT count(*), bool_or(position('after'::bytea IN stanza) > 0) FROM spool";
    assert_eq!(scene.pushward.psql(stored).trim(), "1|f");
}

#[tokio::test]
async fn connections_that_break_lose_and_repeat_nothing() {
    let scene = scene().await;
    scene.client.reset();
    let all = numbered("dark", 1..=200);
    for (n, body) in all.iter().enumerate() {
        scene.server.send(message(body));
        if n % 20 == 10 {
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
            scene.pushward.psql(end);
        }
    }
    scene.pushward.stored("dark 200").await;
    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(bodies(&client.messages(200).await), all);
    assert_eq!(client.until_quiet(Duration::from_millis(300)).await, [] as [String; 0]);
}

#[tokio::test]
async fn a_server_without_a_standby_is_refused_unless_it_is_accepted() {
    let setup = Setup::new(([127, 0, 0, 1], 1).into()).on_postgres();
    let mut accepted = Pushward::start(setup).await;
    let (_, output) = run(&accepted.file(""), &["check"], PATIENCE).await;
    assert!(
        output.contains("database: PostgreSQL 15") && output.contains("answers; no synchronous standby"),
        "{output}"
    );
    assert!(output.contains("database: node 0 (no cluster) is running"), "{output}");
    accepted.terminate(PATIENCE).await;
    accepted.configure(|setup| setup.set("store.single", "false"));
    let (code, log) = ended(accepted.starting()).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("no synchronous standby: set `synchronous_standby_names`"), "{log}");
    let (code, output) = run(&accepted.file(""), &["check"], PATIENCE).await;
    assert!(output.contains("no synchronous standby; set synchronous_standby_names"), "{output}");
    assert_eq!(code, Some(78), "{output}");
}
