//! Requests of other nodes, and the answers to them.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::components;
use super::node_requests::OperatorRequest;
use super::revocations;
use super::shared::Relay;
use crate::cluster::request::{NodeReply, NodeRequest};
use crate::net::lines;
use crate::net::tls_stream::TlsStream;
use crate::net::wire_io::WireIo;

/// The time that a node has to send its request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries out the request of another node.
pub(super) async fn serve(relay: &Arc<Relay>, stream: TlsStream<TcpStream>) {
    let Some(requests) = relay.node_requests() else { return };
    let Some(_place) = requests.place() else { return };
    let mut stream = BufReader::new(WireIo::new(stream));
    let request = match timeout(PATIENCE, lines::read::<NodeRequest>(&mut stream)).await {
        Ok(Ok(Some(request))) => request,
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(error)) => {
            let reply = NodeReply::Failed(format!("{error}; are the nodes of different versions?"));
            return answer(&mut stream, &reply).await;
        }
    };
    match request {
        NodeRequest::Operator(request) => {
            if let Some(receiver) = requests.operator() {
                // Without room, the connection ends, and the asker says so.
                drop(receiver.try_send(OperatorRequest { request, stream }));
            }
        }
        NodeRequest::Publish { account, publish } => {
            let reply = components::publish(relay.publishing(), &account, *publish).await;
            answer(&mut stream, &reply).await;
        }
        NodeRequest::Affiliation { account, affiliation } => {
            let reply = match revocations::apply(relay.accounts(), &account, &affiliation).await {
                Ok(known) => NodeReply::Known(known),
                Err(error) => NodeReply::Failed(error.to_string()),
            };
            answer(&mut stream, &reply).await;
        }
    }
}

async fn answer(stream: &mut BufReader<WireIo<TlsStream<TcpStream>>>, reply: &NodeReply) {
    let Ok(line) = lines::line(reply) else { return };
    let write = async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    };
    // The other node may have stopped waiting.
    drop(timeout(PATIENCE, write).await);
}
