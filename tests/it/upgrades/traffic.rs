//! Many handovers of one process, with stanzas in both directions or clients that resume again and again.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::dark::{Dark, at_once};
use crate::support::{
    Client, Enabled, PATIENCE, Scene, Setup, StubConnection, StubOptions, Tls, bodies, eventually, message, numbered,
    resumed,
};

/// A connected session, and the stanzas that were sent in both directions.
struct Traffic {
    scene: Scene,
    /// Number of messages to the client.
    to_client: usize,
    /// The messages that the client has received.
    received: Vec<String>,
    /// Number of messages to the server.
    to_server: usize,
    /// The numbers of those that are not acknowledged to the client.
    unacked: Vec<usize>,
}

impl Traffic {
    async fn new(options: StubOptions) -> Self {
        let mut scene = Scene::with(options, Setup::copied).await;
        // The client acknowledges only by the `h` of its resumptions.
        scene.client.acks = false;
        Self { scene, to_client: 0, received: Vec::new(), to_server: 0, unacked: Vec::new() }
    }

    /// Sends a message in each direction.
    async fn send(&mut self) {
        self.to_client += 1;
        self.scene.server.send(message(&format!("client {}", self.to_client)));
        self.to_server += 1;
        self.unacked.push(self.to_server);
        self.scene.client.try_send(to_server(self.to_server)).await;
    }

    /// Resumes when the connection has been closed, and sends what was not acknowledged again (XEP-0198 §5).
    async fn resume(&mut self) {
        self.received.extend(messages(self.scene.client.closed(PATIENCE).await));
        let handled = u32::try_from(self.received.len()).unwrap();
        let (client, answer) = resumed(&self.scene.pushward, &self.scene.enabled, handled).await;
        self.scene.client = client;
        self.scene.client.acks = false;
        let h = answer.attribute("h").unwrap().parse().unwrap();
        self.unacked.retain(|number| *number > h);
        for number in &self.unacked {
            self.scene.client.send(to_server(*number)).await;
        }
    }

    /// Fails unless both sides have received everything once, in order.
    async fn assert_complete(mut self) {
        let missing = self.to_client - self.received.len();
        self.received.extend(self.scene.client.messages(missing).await);
        assert_eq!(bodies(&self.received), numbered("client", 1..=self.to_client));
        self.scene.client.send("<message to='bob@localhost' id='last'><body>last</body></message>").await;
        let mut arrived = Vec::new();
        while arrived.last().is_none_or(|element: &String| !element.contains("id='last'")) {
            arrived.push(self.scene.server.next().await);
        }
        let expected = [numbered("server", 1..=self.to_server), vec!["last".to_owned()]].concat();
        assert_eq!(bodies(&arrived), expected);
        assert!(messages(self.scene.client.until_quiet(Duration::from_millis(300)).await).is_empty());
        self.scene.server.assert_open();
    }
}

fn to_server(number: usize) -> String {
    format!("<message to='bob@localhost' id='c{number}'><body>server {number}</body></message>")
}

fn messages(mut elements: Vec<String>) -> Vec<String> {
    elements.retain(|element| element.starts_with("<message"));
    elements
}

#[tokio::test]
async fn stanzas_in_both_directions_arrive_once_and_in_order_over_many_handovers() {
    const ROUNDS: usize = 5;
    let managed = [false, true];
    at_once(managed, |managed| async move {
        let options = if managed { StubOptions::managed() } else { StubOptions::default() };
        let mut traffic = Traffic::new(options).await;
        for round in 1..=ROUNDS {
            for _ in 0..20 {
                traffic.send().await;
            }
            traffic.scene.pushward.signal("-USR2");
            for number in 0..20 {
                traffic.send().await;
                // It spreads the stanzas over the handover and waits for nothing.
                tokio::time::sleep(Duration::from_millis(number % 4 * 3)).await;
            }
            let what = || format!("{round} handovers");
            eventually(PATIENCE, what, || (traffic.scene.pushward.handovers() == round).then_some(())).await;
            traffic.resume().await;
        }
        traffic.assert_complete().await;
    })
    .await;
}

/// The resources of a process that a handover could leak.
#[derive(Debug)]
struct Resources {
    /// Number of open descriptors.
    descriptors: usize,
    /// The names of the environment variables.
    variables: Vec<String>,
    /// The child processes, including those that have ended and were not waited for.
    children: String,
}

impl Resources {
    fn of(process: u32) -> Self {
        let directory = format!("/proc/{process}");
        let environment = fs::read_to_string(format!("{directory}/environ")).unwrap();
        let variables =
            environment.split_terminator('\0').map(|variable| variable.split('=').next().unwrap().to_owned());
        let mut variables: Vec<_> = variables.collect();
        variables.sort();
        let threads = fs::read_dir(format!("{directory}/task")).unwrap().map(|thread| thread.unwrap().path());
        // A thread may have ended since.
        let children = threads.filter_map(|thread| fs::read_to_string(thread.join("children")).ok()).collect();
        Self { descriptors: fs::read_dir(format!("{directory}/fd")).unwrap().count(), variables, children }
    }
}

#[tokio::test]
async fn many_handovers_leak_neither_descriptors_nor_variables_nor_children() {
    let dark = Dark::new().await;
    let process = dark.pushward.process();
    // The first process was not started by another one.
    dark.pushward.replaced().await;
    let before = Resources::of(process);
    for _ in 0..10 {
        dark.pushward.replaced().await;
    }
    let what = || format!("{before:?}, now {:?}", Resources::of(process));
    let same = || {
        let Resources { descriptors, variables, children } = Resources::of(process);
        // There may have been some more for a moment.
        let fewer = descriptors <= before.descriptors;
        (fewer && variables == before.variables && children.is_empty()).then_some(())
    };
    eventually(PATIENCE, what, same).await;
    dark.assert_goes_on(&[]).await;
}

/// A client that resumes its session again and again, on a new connection each time.
struct Resumer {
    name: String,
    enabled: Enabled,
    address: SocketAddr,
    tls: Arc<Tls>,
}

impl Resumer {
    /// Resumes until `stop` is set. Returns the number of successes.
    async fn run(self, stop: Arc<AtomicBool>) -> usize {
        let mut resumed = 0;
        while !stop.load(Ordering::Relaxed) {
            let (address, tls, id) = (self.address, Arc::clone(&self.tls), self.enabled.id.clone());
            let attempt = tokio::spawn(async move {
                let mut client = Client::direct(address, &tls).await;
                client.authenticated("alice").await;
                let answer = client.resume(&id, 0).await;
                client.reset();
                answer
            });
            // A client whose connection is cut panics. That is permitted: it connects again.
            if let Ok(answer) = attempt.await {
                assert_eq!(answer.name, "resumed", "{}: {answer:?}", self.name);
                resumed += 1;
            }
        }
        resumed
    }
}

#[tokio::test]
async fn no_resumption_fails_around_a_handover() {
    let Dark { mut stub, pushward, server, enabled } = Dark::new().await;
    let (tls, address) = (Arc::new(pushward.tls()), pushward.direct);
    let (mut sessions, mut servers) = (vec![("phone".to_owned(), enabled)], vec![server]);
    for number in 1..=5 {
        let name = format!("device-{number}");
        let mut client = pushward.login("alice", &name).await;
        servers.push(stub.fresh().await);
        sessions.push((name, client.enable().await));
        client.reset();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let start = |(name, enabled)| {
        let resumer = Resumer { name, enabled, address, tls: Arc::clone(&tls) };
        tokio::spawn(resumer.run(Arc::clone(&stop)))
    };
    let clients: Vec<_> = sessions.into_iter().map(start).collect();
    for _ in 0..5 {
        pushward.replaced().await;
        // The clients resume at this process too. It waits for nothing.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0, "a client never resumed");
    }
    servers.iter().for_each(StubConnection::assert_open);
}
