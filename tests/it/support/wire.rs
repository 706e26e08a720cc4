//! A forwarder to the proxy that can be cut. It simulates a lost network for clients that cannot be ordered to drop
//! their own.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards connections. Dropping it ends them.
pub(crate) struct Wire {
    /// The address for clients.
    pub(crate) address: SocketAddr,
    whole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Wire {
    /// Starts a forwarder to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, watched) = watch::channel(true);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(client, target, watched.clone()));
            }
        });
        Self { address, whole, task }
    }

    /// Resets every connection. New ones end at once.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Lets new connections through again.
    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut client: TcpStream, target: SocketAddr, mut whole: watch::Receiver<bool>) {
    if !*whole.borrow_and_update() {
        return;
    }
    let mut proxy = TcpStream::connect(target).await.unwrap();
    tokio::select! {
        // Dropping the wire cuts it too.
        _ = whole.changed() => {
            for socket in [&client, &proxy] {
                SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
        // The connection has ended, in whatever way.
        _ = copy_bidirectional(&mut client, &mut proxy) => {}
    }
}
