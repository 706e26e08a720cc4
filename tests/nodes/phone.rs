//! The phones, and their correspondent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::ledger::Ledger;
use crate::support::{Client, Element, Enabled, Tls};

/// The time that a login has.
const LOGIN: Duration = Duration::from_secs(10);

/// The way into the cluster.
#[derive(Clone)]
pub(crate) struct Doors {
    /// The addresses of the nodes. They change when a node starts again.
    pub(crate) addresses: Arc<std::sync::Mutex<Vec<SocketAddr>>>,
    /// The certificate of the domain, which all nodes have.
    pub(crate) certificate: PathBuf,
}

/// A session that can be resumed.
#[derive(Clone)]
struct Resumable {
    id: String,
    handled: u32,
}

/// Lives as a phone that connects, stays for a while, loses its connection, and comes back at any node.
pub(crate) async fn live(account: String, doors: Doors, ledger: Arc<Ledger>) {
    let mut session = None;
    loop {
        let (known, account, doors, ledger) = (session.clone(), account.clone(), doors.clone(), Arc::clone(&ledger));
        let visit = tokio::spawn(async move { visit(&account, &doors, known, &ledger).await });
        session = match visit.await {
            Ok(next) => next,
            // The connection broke during the login. The session is as before.
            Err(_) => session,
        };
        sleep(Duration::from_millis(rand::random_range(50..2000))).await;
    }
}

/// One connection. Returns the session with which the phone goes on.
async fn visit(account: &str, doors: &Doors, known: Option<Resumable>, ledger: &Ledger) -> Option<Resumable> {
    let door = {
        let addresses = doors.addresses.lock().unwrap();
        addresses[rand::random_range(0..addresses.len())]
    };
    let Ok(Ok(tcp)) = timeout(LOGIN, TcpStream::connect(door)).await else { return known };
    let login = async {
        let mut client = Client::over(tcp).handshake(&Tls::trusting(&doors.certificate)).await;
        client.authenticated(account).await;
        if let Some(Resumable { id, handled }) = &known
            && client.resume(id, *handled).await.name == "resumed"
        {
            return (client, id.clone());
        }
        client.bind("phone").await;
        let Enabled { id, .. } = client.enable().await;
        client.send("<presence/>").await;
        (client, id)
    };
    let Ok((mut client, id)) = timeout(LOGIN, login).await else { return known };
    let stay = Duration::from_millis(rand::random_range(300..4000));
    client.read_for(stay, |element| note(element, |number| ledger.arrive(number, account))).await;
    let handled = client.handled;
    client.reset();
    Some(Resumable { id, handled })
}

/// Sends numbered messages to all phones, until the ledger stops.
pub(crate) async fn send(server: SocketAddr, accounts: Vec<String>, rate: u32, ledger: Arc<Ledger>) {
    let mut bob = Client::plain(server).await;
    bob.login("bob", "desk").await;
    bob.send("<presence/>").await;
    let pause = Duration::from_secs(1) / rate.max(1);
    for turn in 0usize.. {
        if ledger.is_stopped() {
            break;
        }
        let to = &accounts[turn % accounts.len()];
        let number = ledger.send(to);
        bob.send(format!("<message type='chat' to='{to}@localhost' id='n{number}'><body>{number}</body></message>"))
            .await;
        bob.read_for(pause, |element| returned(element, &ledger)).await;
    }
    // Messages that come back later.
    tokio::spawn(async move { while bob.read_for(LOGIN, |element| returned(element, &ledger)).await {} });
}

fn returned(element: &str, ledger: &Ledger) {
    if element.contains("type='error'") {
        note(element, |number| ledger.come_back(number));
    }
}

fn note(element: &str, mut take: impl FnMut(u64)) {
    if !element.starts_with("<message") {
        return;
    }
    let id = Element::parse(element).attribute("id").and_then(|id| id.strip_prefix('n').and_then(|id| id.parse().ok()));
    id.into_iter().for_each(&mut take);
}
