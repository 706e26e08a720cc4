//! [`Ledger`] records where every message is. In the end each must have been received by its account or returned to its
//! sender.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    Received,
    Returned,
    /// The proxy was killed so soon after it came that only memory had it, on a server without stream management.
    AtRisk,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    account: usize,
    sent: Option<Instant>,
    state: State,
    /// Number of sessions that have it and have not acknowledged it.
    holders: usize,
    /// True if the server does not send it again: a session has acknowledged it, or the server has no stream
    /// management.
    given_away: bool,
}

/// All messages of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    messages: Vec<Message>,
    repeated: u64,
    /// The times at which the proxy was ended, and how.
    ends: Vec<(Instant, &'static str)>,
}

/// The number of messages in each state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) sent: usize,
    pub(crate) received: usize,
    pub(crate) returned: usize,
    pub(crate) at_risk: usize,
    pub(crate) waiting: usize,
    pub(crate) repeated: u64,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message to an account. Returns its number.
    pub(crate) fn add(&self, account: usize) -> usize {
        let mut entries = self.entries();
        entries.messages.push(Message { account, sent: None, state: State::Waits, holders: 0, given_away: false });
        entries.messages.len() - 1
    }

    /// Records that the server passed a message to a session.
    pub(crate) fn held(&self, number: usize) {
        if let Some(message) = self.entries().messages.get_mut(number) {
            message.holders += 1;
        }
    }

    /// Records that the server need not send a message again.
    pub(crate) fn given_away(&self, number: usize) {
        if let Some(message) = self.entries().messages.get_mut(number) {
            message.given_away = true;
        }
    }

    /// Records that a session with this message has ended. Returns true if the server must send the message again.
    pub(crate) fn comes_back(&self, number: usize) -> bool {
        self.entries().messages.get_mut(number).is_some_and(|message| {
            message.holders = message.holders.saturating_sub(1);
            message.holders == 0 && !message.given_away
        })
    }

    /// Records that the server wrote a message to the proxy.
    pub(crate) fn handed(&self, number: usize) {
        if let Some(message) = self.entries().messages.get_mut(number) {
            message.sent = Some(Instant::now());
        }
    }

    /// Records that a client has read a message.
    pub(crate) fn received(&self, number: usize) {
        let mut entries = self.entries();
        let repeated = match entries.messages.get_mut(number) {
            Some(message) => std::mem::replace(&mut message.state, State::Received) == State::Received,
            None => false,
        };
        entries.repeated += u64::from(repeated);
    }

    /// Records that the sender got an error for the message.
    pub(crate) fn returned(&self, number: usize) {
        if let Some(message) = self.entries().messages.get_mut(number).filter(|message| message.state == State::Waits) {
            message.state = State::Returned;
        }
    }

    /// Records that the proxy was killed. On servers without stream management, messages that came within `window` may
    /// have been in memory only, and those that the proxy had not read are lost with its socket.
    pub(crate) fn killed(&self, window: Duration, unread: &HashSet<usize>, is_unmanaged: impl Fn(usize) -> bool) {
        let young = |message: &Message| message.sent.is_some_and(|sent| sent.elapsed() < window);
        let mut entries = self.entries();
        for (number, message) in entries.messages.iter_mut().enumerate() {
            let at_risk = young(message) || unread.contains(&number);
            if message.state == State::Waits && is_unmanaged(message.account) && at_risk {
                message.state = State::AtRisk;
            }
        }
    }

    /// Records that the proxy is ended now.
    pub(crate) fn ends(&self, how: &'static str) {
        self.entries().ends.push((Instant::now(), how));
    }

    /// Returns, for each end of the proxy, how many of the waiting messages the server wrote to it 0, 1, 2, … seconds
    /// before. The last rows count those written after the last end, and those never written.
    pub(crate) fn waiting_since(&self) -> Vec<(String, Vec<usize>)> {
        let entries = self.entries();
        let waiting: Vec<_> = entries.messages.iter().filter(|message| message.state == State::Waits).collect();
        let mut since = Vec::new();
        let mut from = None;
        for (at, how) in &entries.ends {
            let mut seconds = vec![0; 60];
            let handed = waiting.iter().filter_map(|message| message.sent);
            for sent in handed.filter(|sent| sent <= at && from.is_none_or(|from| *sent > from)) {
                let second = usize::try_from(at.duration_since(sent).as_secs()).unwrap_or_default();
                seconds[second.min(59)] += 1;
            }
            since.push(((*how).to_owned(), seconds));
            from = Some(*at);
        }
        let behind =
            waiting.iter().filter(|message| message.sent.is_some_and(|sent| from.is_none_or(|from| sent > from)));
        since.push(("since then".to_owned(), vec![behind.count()]));
        since.push(("never".to_owned(), vec![waiting.iter().filter(|message| message.sent.is_none()).count()]));
        since
    }

    /// Returns the numbers of the waiting messages, by account.
    pub(crate) fn waiting(&self) -> HashMap<usize, Vec<usize>> {
        let mut waiting: HashMap<usize, Vec<usize>> = HashMap::new();
        for (number, message) in self.entries().messages.iter().enumerate() {
            if message.state == State::Waits {
                waiting.entry(message.account).or_default().push(number);
            }
        }
        waiting
    }

    pub(crate) fn sum(&self) -> Sum {
        let entries = self.entries();
        let count = |state| entries.messages.iter().filter(|message| message.state == state).count();
        Sum {
            sent: entries.messages.len(),
            received: count(State::Received),
            returned: count(State::Returned),
            at_risk: count(State::AtRisk),
            waiting: count(State::Waits),
            repeated: entries.repeated,
        }
    }
}
