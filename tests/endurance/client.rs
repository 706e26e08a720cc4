//! Simulated phones. In random order, a [`Phone`] binds, enables stream management, drops its connection, resumes,
//! closes its stream, floods and stops reading.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use crate::link::{Entrance, Link, OnMessage};
use crate::server::Server;
use crate::xml::Element;

/// The maximum duration of a login.
const LOGIN: Duration = Duration::from_secs(40);

/// The state that all phones share.
pub(crate) struct World {
    pub(crate) server: Arc<Server>,
    pub(crate) entrance: Entrance,
    pub(crate) over: AtomicBool,
    /// The accounts and resources that have been bound. The final collection logs in exactly these.
    pub(crate) devices: Mutex<BTreeSet<(usize, String)>>,
}

impl World {
    fn has_bound(&self, account: usize, resource: &str) {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).insert((account, resource.to_owned()));
    }

    pub(crate) fn devices_of(&self, account: usize) -> Vec<String> {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.iter().filter(|(owner, _)| *owner == account).map(|(_, resource)| resource.clone()).collect()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// A phone, across its connections.
pub(crate) struct Phone {
    world: Arc<World>,
    account: usize,
    resource: String,
    /// True if the phone sometimes uses another resource.
    renames: bool,
    random: StdRng,
    /// The resumption id, and the number of stanzas handled under it.
    resumable: Option<(String, u32)>,
}

impl Phone {
    pub(crate) fn new(world: Arc<World>, (account, number): (usize, usize), seed: u64) -> Self {
        let mixed = seed ^ ((account as u64) << 32) ^ number as u64;
        let random = StdRng::seed_from_u64(mixed);
        Self { world, account, resource: format!("phone-{number}"), renames: number < 10, random, resumable: None }
    }

    /// Acts until the run is over.
    pub(crate) async fn live(mut self) {
        while !self.world.is_over() {
            let lived = self.connection().await;
            let pause = if lived.is_err() { 50..1500 } else { 0..400 };
            sleep(Duration::from_millis(self.random.random_range(pause))).await;
        }
    }

    async fn connection(&mut self) -> io::Result<()> {
        let world = Arc::clone(&self.world);
        let link = timeout(LOGIN, self.login()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let mut link = link?;
        let steps = self.random.random_range(1..25);
        for _ in 0..steps {
            if world.is_over() {
                break;
            }
            let step = timeout(Duration::from_secs(20), self.step(&mut link)).await;
            if let Some((_, handled)) = &mut self.resumable {
                *handled = link.handled;
            }
            match step {
                Ok(step) => step?,
                Err(_) => break,
            }
        }
        match self.random.random_range(0..10) {
            0..5 => link.reset(),
            // A half-open connection: nobody reads it, and the phone comes back on another one.
            5 => {
                let period = Duration::from_millis(self.random.random_range(100..6000));
                tokio::spawn(async move {
                    sleep(period).await;
                    drop(link);
                });
            }
            6 | 7 => {
                self.resumable = None;
                link.send("</stream:stream>").await?;
                drop(timeout(Duration::from_secs(3), link.live(Duration::from_secs(3), true)).await);
            }
            _ => drop(link),
        }
        Ok(())
    }

    async fn login(&mut self) -> io::Result<Link> {
        let mut link = Link::authenticated(&self.world.entrance, self.account, on_message(&self.world)).await?;
        if let Some((id, handled)) = self.resumable.clone().filter(|_| self.random.random_bool(0.75)) {
            let answer = link.resume(&id, handled).await?;
            if answer.starts_with("<resumed") {
                return Ok(link);
            }
        }
        self.resumable = None;
        // Pushward remembers 32 devices per account.
        if self.renames && self.random.random_bool(0.1) {
            self.resource = format!("{}x", self.resource.trim_end_matches('x'));
        }
        self.world.has_bound(self.account, &self.resource);
        self.resumable = Some((link.bind(&self.resource).await?, 0));
        if self.random.random_bool(0.3) {
            let node = self.resource.trim_end_matches('x');
            link.send(&format!(
                "<iq type='set' id='push'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='{node}'/></iq>"
            ))
            .await?;
        }
        link.send("<presence/>").await?;
        Ok(link)
    }

    async fn step(&mut self, link: &mut Link) -> io::Result<()> {
        let period = Duration::from_millis(self.random.random_range(10..1500));
        match self.random.random_range(0..12) {
            0..6 => link.live(period, true).await,
            6 => link.live(period, false).await,
            // The phone reads nothing.
            7 => {
                sleep(period).await;
                Ok(())
            }
            8 => link.send("<message to='peer@remote.example'><body>hi</body></message>").await,
            9 => {
                link.send("<iq type='get' id='ping' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
                link.expect(&["id='ping'"]).await.map(drop)
            }
            10 => {
                let what = [
                    "<r xmlns='urn:xmpp:sm:3'/>",
                    "<x xmlns='urn:xmpp:sm:3'/>",
                    "<iq type='get' id='d'><query xmlns='urn:nothing'/></iq>",
                ];
                let one = what[self.random.random_range(0..what.len())];
                // Most phones send a few requests, some send very many.
                let most = if self.random.random_bool(0.1) { 2000 } else { 20 };
                link.send(&one.repeat(self.random.random_range(1..most))).await
            }
            _ => link.send(" ").await,
        }
    }
}

/// Returns the function that records the messages of a connection.
fn on_message(world: &Arc<World>) -> OnMessage {
    let world = Arc::clone(world);
    Box::new(move |xml| {
        if let Some(number) = Element::parse(xml).attribute("id").and_then(|id| id.strip_prefix('m')?.parse().ok()) {
            world.server.ledger.received(number);
        }
    })
}

/// Fetches all messages that wait for a device until no more come, and closes the stream in order.
pub(crate) async fn collect(world: Arc<World>, account: usize, resource: String, quiet: Duration) -> io::Result<()> {
    let mut link = Link::authenticated(&world.entrance, account, on_message(&world)).await?;
    link.bind(&resource).await?;
    link.send("<iq type='set' id='off'><disable xmlns='urn:xmpp:push:0' jid='push.localhost'/></iq><presence/>")
        .await?;
    loop {
        let before = world.server.ledger.sum().received;
        link.live(quiet, true).await?;
        link.ack().await?;
        if world.server.ledger.sum().received == before {
            break;
        }
    }
    link.live(Duration::from_millis(200), true).await?;
    link.send("</stream:stream>").await?;
    drop(link.live(Duration::from_secs(3), true).await);
    Ok(())
}
