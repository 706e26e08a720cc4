//! A name server of the tests: it knows one SRV record and one address.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A running name server.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl NameServer {
    /// One that says of every domain that its servers' server is the host `xmpp.test` at this address.
    pub(crate) async fn start(answer: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let (name, response) = respond(&buffer[..length], answer);
                log.lock().unwrap().push(name);
                socket.send_to(&response, peer).await.unwrap();
            }
        });
        Self { address, asked, task }
    }

    /// The names that it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// RFC 1035 §4: the name that a query asks for, and the response.
fn respond(query: &[u8], answer: SocketAddr) -> (String, Vec<u8>) {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).to_lowercase());
        at += length + 1;
    }
    let name = labels.join(".");
    let question = &query[12..at + 5];
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let SocketAddr::V4(v4) = answer else { panic!("an IPv4 address is wanted") };
    let data = match kind {
        33 if name.starts_with("_xmpp-server.") => {
            Some([&[0, 0, 0, 0][..], &answer.port().to_be_bytes(), b"\x04xmpp\x04test\0"].concat())
        }
        1 if name == "xmpp.test" => Some(v4.ip().octets().to_vec()),
        _ => None,
    };
    // A response, recursion available, without an error.
    let mut response = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0];
    response.extend_from_slice(question);
    if let Some(data) = data {
        response.extend_from_slice(&[0xc0, 12]);
        response.extend_from_slice(&kind.to_be_bytes());
        response.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        response.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        response.extend_from_slice(&data);
    }
    (name, response)
}
