//! Information for operators about the routes to the push services: `push list`, `push ping` and `check`.

use super::{bob, component, domain, goes_dark, quick, routed};
use crate::admin::ask;
use crate::support::{
    Answer, Authority, Client, PATIENCE, Prosody, PushServer, PushServerOptions, PushService, Pushward, free_address,
};

struct Scene {
    peer: PushServer,
    service: PushService,
    pushward: Pushward,
    bob: Client,
    // Declared last, so that the others end before it.
    _prosody: Prosody,
}

/// Lets the domain notify alice's phone, which is dark.
async fn notified(bidi: bool, answer: Answer) -> Scene {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let peer = PushServer::start(PushServerOptions { bidi, ..PushServerOptions::new("push.test", &authority) }).await;
    let mut service = peer.push_service().await;
    service.answer_with(answer);
    let pushward = Pushward::start(domain(&prosody, &authority, (&peer, "direct"))).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    service.publish(PATIENCE).await;
    pushward.logged(&["push notification outcome"]).await;
    Scene { peer, service, pushward, bob, _prosody: prosody }
}

async fn check_list((bidi, answer): (bool, Answer), expect: (&str, Option<&str>), text: &str) {
    let scene = notified(bidi, answer).await;
    let objects = ask(&scene.pushward, &["push", "list", "--json"]).await.objects();
    let [registration] = objects.as_slice() else { panic!("{objects:?}") };
    let last = &registration["last"];
    assert_eq!((&registration["transport"], &last["transport"]), (&"s2s".into(), &"s2s".into()), "{registration}");
    assert_eq!((last["outcome"].as_str(), last["condition"].as_str()), (Some(expect.0), expect.1), "{registration}");
    assert!(last["at"].as_u64().is_some_and(|at| at > 1_600_000_000), "{registration}");
    let printed = ask(&scene.pushward, &["push", "list"]).await;
    assert!(printed.out.contains(&format!("by s2s  last {text} by s2s ")), "{}", printed.out);
}

#[tokio::test]
async fn a_list_shows_the_last_transport_and_answer_of_a_push_service() {
    check_list((true, Answer::Result), ("accepted", None), "accepted").await;
    let refusal = Answer::Error("cancel", "item-not-found");
    check_list((true, refusal), ("refused", Some("item-not-found")), "refused (item-not-found)").await;
    check_list((false, Answer::Result), ("unknown", None), "sent, outcome unknown").await;
}

#[tokio::test]
async fn a_ping_without_an_answer_is_reported_as_sent() {
    let mut scene = notified(false, Answer::Result).await;
    let printed = ask(&scene.pushward, &["push", "ping", "alice@localhost"]).await;
    scene.service.publish(PATIENCE).await;
    assert!(printed.out.contains("sent, outcome unknown  by s2s"), "{}", printed.out);
    let printed = ask(&scene.pushward, &["push", "ping", "alice@localhost", "--json"]).await;
    assert!(printed.out.contains("\"transport\":\"s2s\",\"outcome\":\"unknown\""), "{}", printed.out);
}

#[tokio::test]
async fn a_list_shows_why_a_transport_was_skipped() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let mut service = PushService::connect(&prosody).await;
    let route = format!("domain = 'push.localhost'\naddress = '{}'\nca = 'ca.pem'", free_address());
    let pushward = Pushward::start(routed(&prosody, &authority, &route)).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.localhost", &mut bob).await;
    service.publish(PATIENCE).await;
    pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
    let registration = ask(&pushward, &["push", "list", "--json"]).await.objects().remove(0);
    assert_eq!(registration["transport"], "session", "{registration}");
    let passed_over = &registration["passed_over"][0];
    let reason = passed_over["reason"].as_str().unwrap();
    assert_eq!(passed_over["transport"], "s2s");
    assert!(reason.contains("Connection refused") && reason.contains("firewall"), "{reason}");
}

#[tokio::test]
async fn a_check_while_the_daemon_runs_probes_the_registered_services_and_keeps_the_daemons_stream() {
    let mut scene = notified(true, Answer::Result).await;
    let printed = ask(&scene.pushward, &["check"]).await;
    assert_eq!(printed.code, Some(0), "{}", printed.out);
    for line in [
        "push services: registrations 1, according to the running daemon",
        "push.test, from localhost: session: requires a user session",
    ] {
        assert!(printed.out.contains(line), "{line} in\n{}", printed.out);
    }
    let reached = format!(
        "push.test, from localhost: s2s: {} accepts localhost, with direct TLS; answers come back on the same stream",
        scene.peer.direct
    );
    assert!(printed.out.contains(&reached), "{reached} in\n{}", printed.out);
    super::writes(&mut scene.bob, "two").await;
    assert_eq!(scene.service.publish(PATIENCE).await.count(), Some(2));
    scene.pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
}

#[tokio::test]
async fn a_check_without_a_daemon_reads_the_database_and_asks_the_push_service() {
    let mut scene = notified(true, Answer::Result).await;
    scene.pushward.terminate(PATIENCE).await;
    let printed = ask(&scene.pushward, &["check"]).await;
    assert_eq!(printed.code, Some(0), "{}", printed.out);
    for line in [
        "push services: registrations 1, according to the database; the daemon is not running",
        "it answers on the same stream (bidi)",
    ] {
        assert!(printed.out.contains(line), "{line} in\n{}", printed.out);
    }
    // The push service is gone, and its server reports that.
    drop(scene.service);
    let printed = ask(&scene.pushward, &["check"]).await;
    assert!(printed.out.contains("push.test, from localhost: s2s fails: "), "{}", printed.out);
    assert!(printed.out.contains("but answers remote-server-timeout for the push service"), "{}", printed.out);
    // The daemon then starts as if the check had not run.
    scene.pushward.start_again().await;
    assert_eq!(ask(&scene.pushward, &["push", "list", "--json"]).await.objects().len(), 1);
    scene.pushward.kill();
    let printed = ask(&scene.pushward, &["check"]).await;
    let untold = "cannot list the registered ones: the daemon is not running, and the database was not closed";
    assert!(printed.out.contains(untold), "{}", printed.out);
}

#[tokio::test]
async fn a_check_reports_cause_and_remedy_for_a_push_service_that_no_transport_reaches() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let route = format!("domain = 'push.test'\naddress = '{}'\nca = 'ca.pem'", free_address());
    for (transports, code) in [("['s2s']", 69), ("['s2s', 'session']", 0)] {
        let setup = routed(&prosody, &authority, &route).set("push.transports", transports);
        let mut pushward = Pushward::start(setup).await;
        pushward.terminate(PATIENCE).await;
        let printed = ask(&pushward, &["check"]).await;
        assert_eq!(printed.code, Some(code), "{}", printed.out);
        for words in ["push.test, from localhost: s2s fails: ", "Connection refused", "firewall"] {
            assert!(printed.out.contains(words), "{words} in\n{}", printed.out);
        }
        let verdict = "config.toml: [push] transports: no transport reaches push.test from localhost";
        assert_eq!(printed.out.contains(verdict), code == 69, "{}", printed.out);
    }
}

#[tokio::test]
async fn a_check_reports_the_remedy_for_a_certificate_that_the_push_service_refuses() {
    let (authority, stranger) = (Authority::new("an authority"), Authority::new("a stranger"));
    let prosody = Prosody::start().await;
    let trusts = stranger.file();
    let peer = PushServer::start(PushServerOptions { trusts, ..PushServerOptions::new("push.test", &authority) }).await;
    let mut pushward = Pushward::start(domain(&prosody, &authority, (&peer, "starttls"))).await;
    pushward.terminate(PATIENCE).await;
    let printed = ask(&pushward, &["check"]).await;
    for words in ["s2s fails: the peer ended the stream: not-authorized", "for servers only (no clientAuth usage)"] {
        assert!(printed.out.contains(words), "{words} in\n{}", printed.out);
    }
}

#[tokio::test]
async fn a_check_goes_through_the_component_unless_the_daemon_has_it() {
    let prosody = Prosody::with_hosts("Component \"pushward.localhost\"\n  component_secret = \"shared\"").await;
    let service = PushService::connect(&prosody).await;
    let setup = quick(component(&prosody, "component")).set("push.services", "['push.localhost', 'gone.localhost']");
    let mut pushward = Pushward::start(setup).await;
    pushward.logged(&["push stream established"]).await;
    let printed = ask(&pushward, &["check"]).await;
    let untried = "push.localhost, from localhost: component: the running daemon uses the component's only stream";
    assert!(printed.out.contains(untried), "{}", printed.out);
    pushward.terminate(PATIENCE).await;
    let printed = ask(&pushward, &["check"]).await;
    for line in [
        "accepts pushward.localhost; the push service answers",
        "push.localhost, from localhost: s2s is not used for names of this machine",
        "gone.localhost, from localhost: component",
    ] {
        assert!(printed.out.contains(line), "{line} in\n{}", printed.out);
    }
    drop(service);
}
