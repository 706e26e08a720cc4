//! The mailbox of a task: a queue whose senders never wait for room. [`mailbox`] creates a [`Sender`] and a [`Receiver`].
//!
//! There are three ways to send:
//! - [`Sender::offer`] for messages that may be refused: a full mailbox is an outcome that the sender must name.
//! - [`Sender::deliver`] for messages that must not be lost and whose number was bounded when they were admitted: one for each
//!   connection, or for each request that the task has sent.
//! - [`Sender::notify`] for state that is published elsewhere as newest value: any number of notifications wait as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_channel::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// An entry of a mailbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Mail<T> {
    /// A message.
    Message(T),
    /// Published state has changed since the task took the last notification.
    Changed,
}

/// The reason why a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum NotTaken<T> {
    /// The mailbox is full.
    Full(T),
    /// The task has ended.
    Gone(T),
}

impl<T> NotTaken<T> {
    /// Returns the same reason without the message.
    pub fn without_message(self) -> NotTaken<()> {
        match self {
            Self::Full(_) => NotTaken::Full(()),
            Self::Gone(_) => NotTaken::Gone(()),
        }
    }
}

/// The state that both ends share.
#[derive(Debug)]
struct MailboxCounts {
    bound: usize,
    /// The number of waiting messages.
    waiting: AtomicUsize,
    /// True if a notification waits.
    notified: AtomicBool,
}

/// The senders' end.
#[derive(Debug)]
pub struct Sender<T> {
    queue: UnboundedSender<Mail<T>>,
    counts: Arc<MailboxCounts>,
}

/// The task's end. It receives messages in the order in which they were sent.
#[derive(Debug)]
pub struct Receiver<T> {
    queue: UnboundedReceiver<Mail<T>>,
    counts: Arc<MailboxCounts>,
}

/// Creates a mailbox. [`Sender::offer`] adds a message only while fewer than `bound` messages wait.
pub fn mailbox<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::unbounded();
    let counts = Arc::new(MailboxCounts { bound, waiting: AtomicUsize::new(0), notified: AtomicBool::new(false) });
    (Sender { queue: sender, counts: Arc::clone(&counts) }, Receiver { queue: receiver, counts })
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), counts: Arc::clone(&self.counts) }
    }
}

impl<T> Sender<T> {
    /// Adds a message if there is room.
    ///
    /// # Errors
    /// The message, if there is no room or the task has ended.
    pub fn offer(&self, message: T) -> Result<(), NotTaken<T>> {
        if self.counts.waiting.load(Ordering::Relaxed) >= self.counts.bound {
            return Err(NotTaken::Full(message));
        }
        self.deliver(message).map_err(NotTaken::Gone)
    }

    /// Adds a message whose number is bounded by what was admitted before.
    ///
    /// # Errors
    /// The message, if the task has ended.
    pub fn deliver(&self, message: T) -> Result<(), T> {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        let Err(error) = self.queue.unbounded_send(Mail::Message(message)) else { return Ok(()) };
        self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
        match error.into_inner() {
            Mail::Message(message) => Err(message),
            Mail::Changed => Ok(()),
        }
    }

    /// Returns whether both lead to the same task.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts)
    }

    /// Wakes the task so that it looks at published state again.
    pub fn notify(&self) {
        if !self.counts.notified.swap(true, Ordering::AcqRel) {
            // An error means that the task has ended.
            drop(self.queue.unbounded_send(Mail::Changed));
        }
    }
}

impl<T> Receiver<T> {
    /// Returns the next entry; `None` once all senders are gone. Cancel safe.
    pub async fn recv(&mut self) -> Option<Mail<T>> {
        let mail = self.queue.recv().await.ok();
        self.taken(mail.as_ref());
        mail
    }

    /// Returns the next entry if there is one.
    pub fn try_recv(&mut self) -> Option<Mail<T>> {
        let mail = self.queue.try_recv().ok();
        self.taken(mail.as_ref());
        mail
    }

    /// Refuses further messages; those that wait can still be received.
    pub fn close(&mut self) {
        self.queue.close();
    }

    fn taken(&self, mail: Option<&Mail<T>>) {
        match mail {
            Some(Mail::Message(_)) => {
                self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            // Reset before the task looks: a change from now on notifies it again.
            Some(Mail::Changed) => self.counts.notified.store(false, Ordering::Release),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_offer_is_refused_where_a_delivery_and_a_notification_are_not() {
        let (sender, mut receiver) = mailbox(2);
        assert_eq!((sender.offer(1), sender.offer(2), sender.offer(3)), (Ok(()), Ok(()), Err(NotTaken::Full(3))));
        assert_eq!(sender.deliver(4), Ok(()));
        sender.notify();
        sender.notify();
        assert_eq!(sender.offer(5), Err(NotTaken::Full(5)));
        for expect in [Mail::Message(1), Mail::Message(2), Mail::Message(4), Mail::Changed] {
            assert_eq!(receiver.recv().await, Some(expect));
        }
        assert_eq!(receiver.try_recv(), None, "two notifications wait as one");
        sender.notify();
        assert_eq!((sender.offer(6), receiver.try_recv()), (Ok(()), Some(Mail::Changed)));
        receiver.close();
        assert_eq!(receiver.try_recv(), Some(Mail::Message(6)));
        assert_eq!((sender.offer(7), sender.deliver(8)), (Err(NotTaken::Gone(7)), Err(8)));
        sender.notify();
    }
}
