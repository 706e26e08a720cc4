//! A name server with the records that a test gives it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A record of the name server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Record {
    /// Priority, port and target.
    Srv(&'static str, u16, u16, &'static str),
    /// An A or AAAA record.
    Address(&'static str, IpAddr),
    /// A name for which every query fails.
    Broken(&'static str),
}

/// A running name server.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl NameServer {
    pub(crate) async fn knowing(records: impl Into<Vec<Record>>) -> Self {
        let records = records.into();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let (name, response) = respond(&buffer[..length], &records);
                log.lock().unwrap().push(name);
                socket.send_to(&response, peer).await.unwrap();
            }
        });
        Self { address, asked, task }
    }

    /// Returns the names that were queried, each once, in the order of their first query.
    pub(crate) fn asked(&self) -> Vec<String> {
        super::distinct(self.asked.lock().unwrap().clone())
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the queried name and the response (RFC 1035 §4).
fn respond(query: &[u8], records: &[Record]) -> (String, Vec<u8>) {
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
    let answers: Vec<_> = records.iter().filter_map(|record| data(record, &name, kind)).collect();
    let broken = records.iter().any(|record| matches!(record, Record::Broken(is) if *is == name));
    // A response with recursion available, without an error or with SERVFAIL.
    let flags = if broken { 0x82 } else { 0x80 };
    let count = u8::try_from(answers.len()).unwrap();
    let mut response = vec![query[0], query[1], 0x81, flags, 0, 1, 0, count, 0, 0, 0, 0];
    response.extend_from_slice(question);
    for data in answers {
        response.extend_from_slice(&[0xc0, 12]);
        response.extend_from_slice(&kind.to_be_bytes());
        response.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        response.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        response.extend_from_slice(&data);
    }
    (name, response)
}

fn data(record: &Record, name: &str, kind: u16) -> Option<Vec<u8>> {
    match (*record, kind) {
        (Record::Srv(of, priority, port, target), 33) if of == name => {
            let mut data = [priority.to_be_bytes(), [0, 0], port.to_be_bytes()].concat();
            for label in target.split('.').filter(|label| !label.is_empty()) {
                data.push(u8::try_from(label.len()).unwrap());
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            Some(data)
        }
        (Record::Address(of, IpAddr::V4(address)), 1) if of == name => Some(address.octets().to_vec()),
        (Record::Address(of, IpAddr::V6(address)), 28) if of == name => Some(address.octets().to_vec()),
        _ => None,
    }
}
