//! [`Interruption`]: the end of publishing while the process goes on, so that another process can continue with what was not
//! written. A publish needs a [`PublishPermit`], which it holds until its consequences are stored.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::clock::Instant;
use crate::push::notification::Publish;
use crate::sync::lock;

/// The time after the deadline in which streams are closed.
const CLOSING: Duration = Duration::from_millis(500);

/// A publish that no transport has written, because publishing was interrupted. It may be published again.
#[derive(Debug, PartialEq, Eq)]
pub struct Interrupted(pub Box<Publish>);

/// An interruption, which may have begun. Streams and publishes keep the one under which they have begun. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Interruption {
    begun: CancellationToken,
    deadline: Arc<OnceLock<Instant>>,
}

impl Interruption {
    fn begin(&self, deadline: Instant) {
        self.deadline.get_or_init(|| deadline);
        self.begun.cancel();
    }

    /// Returns whether it has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until it begins. Cancel safe.
    pub(super) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Waits until it has begun and its time for answers is over. Cancel safe.
    pub(super) async fn over(&self) {
        self.begun().await;
        tokio::time::sleep_until(self.deadline().into()).await;
    }

    /// Returns the time until which answers count, once it has begun.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline.get().copied().unwrap_or_else(Instant::now)
    }
}

/// The right to publish. The end of an interruption waits until it is dropped.
#[derive(Debug)]
pub struct PublishPermit {
    pub(super) interruption: Interruption,
    _under_way: TaskTrackerToken,
}

/// The publishes under way, and the interruption that ends them.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    current: Mutex<Interruption>,
    permits: TaskTracker,
}

impl UnderWay {
    /// Permits a publish, unless publishing is interrupted.
    pub(super) fn permit(&self) -> Option<PublishPermit> {
        // Before the look at the interruption: one that begins after the look waits for this permit.
        let under_way = self.permits.token();
        let interruption = self.interruption();
        (!interruption.has_begun()).then_some(PublishPermit { interruption, _under_way: under_way })
    }

    /// Returns the interruption that ends what begins now.
    pub(super) fn interruption(&self) -> Interruption {
        lock(&self.current).clone()
    }

    /// Begins the interruption. Answers count until `deadline`. Returns whether all permits are dropped, so that nothing is under
    /// way. The tasks are those of the streams, which end too if their peers let them.
    pub(super) async fn interrupt(&self, deadline: Instant, tasks: &TaskTracker) -> bool {
        lock(&self.current).begin(deadline);
        let until = tokio::time::Instant::from(deadline + CLOSING);
        let ended = |tracker: &TaskTracker| {
            tracker.close();
            let tracker = tracker.clone();
            async move { timeout_at(until, tracker.wait()).await.is_ok() }
        };
        let is_definite = ended(&self.permits).await;
        ended(tasks).await;
        is_definite
    }

    /// Permits publishes again. What was interrupted stays interrupted.
    pub(super) fn resume(&self) {
        *lock(&self.current) = Interruption::default();
    }
}
