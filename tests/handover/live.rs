//! A live client: it sends and acknowledges all the time, and resumes at once when its connection is cut.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval_at, timeout_at};

use crate::link::Link;
use crate::phone::Phone;

/// The time between two stanzas of a client.
const PACE: Duration = Duration::from_millis(400);
/// The number of stanzas after which a client requests an acknowledgement.
const REQUEST: u64 = 3;
/// The maximum time to settle when the traffic has ended.
const SETTLE: Duration = Duration::from_secs(60);

/// An event of the connection.
enum Event {
    Read(io::Result<bool>),
    Tick,
    Finishing,
}

/// Lives until the traffic has ended and everything is settled. Returns the open connection.
pub(crate) async fn live(mut phone: Phone, mut link: Link) -> Option<(Phone, Link)> {
    let mut finishing = phone.world.finishing.subscribe();
    // Clients do not send at the same time.
    let offset = PACE.mul_f64((phone.account % 100) as f64 / 100.0);
    let mut tick = interval_at(tokio::time::Instant::now() + offset, PACE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match connected(&mut phone, &mut link, &mut tick, &mut finishing).await {
            Ok(()) => return Some((phone, link)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                phone.world.findings.add("live clients get everything", phone.state());
                return None;
            }
            Err(_) => {}
        }
        link = match phone.come_back(link.handled).await {
            Ok(link) => link,
            Err(error) => {
                phone.world.findings.add("live clients come back", format!("{error}: {}", phone.state()));
                return None;
            }
        };
    }
}

/// Sends and reads until the traffic has ended and everything is settled.
async fn connected(
    phone: &mut Phone,
    link: &mut Link,
    tick: &mut Interval,
    finishing: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let mut until = None;
    loop {
        if *finishing.borrow() {
            until.get_or_insert_with(|| Instant::now() + SETTLE);
            if phone.is_settled() && phone.has_read_all() {
                return link.ack().await;
            }
            if until.is_some_and(|until| Instant::now() > until) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let event = tokio::select! {
            read = link.receive() => Event::Read(read),
            _ = tick.tick() => Event::Tick,
            _ = finishing.changed(), if until.is_none() => Event::Finishing,
        };
        match event {
            Event::Read(asked) => {
                phone.process(link);
                if asked? {
                    link.ack().await?;
                }
            }
            Event::Tick if until.is_some() => request(link).await?,
            Event::Tick => {
                phone.send_next(link).await?;
                if phone.numbered.is_multiple_of(REQUEST) {
                    request(link).await?;
                }
            }
            Event::Finishing => {}
        }
    }
}

async fn request(link: &mut Link) -> io::Result<()> {
    link.send("<r xmlns='urn:xmpp:sm:3'/>").await
}

/// Reads and acknowledges until this time.
pub(crate) async fn idle(link: &mut Link, until: tokio::time::Instant) {
    while let Ok(Ok(())) = timeout_at(until, link.read(true)).await {}
}
