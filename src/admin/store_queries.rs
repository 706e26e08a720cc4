//! [`StoreQueries`]: queries of the operator to the store. The store answers none of them while the disk stalls.
//!
//! No caller waits for an answer longer than a deadline. A read cannot be cancelled, so a late query continues after its
//! caller has given up. For that reason the number of running queries is limited: a stalled disk blocks at most that many
//! threads, however many queries arrive.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock::Instant;
use crate::store::StoreError;
use crate::sync::lock;

/// The reason why the store has not answered.
#[derive(Clone, Debug, Error)]
pub(super) enum Unanswered {
    #[error("the database does not answer; the disk may have stalled")]
    Late,
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// Runs a limited number of queries at the same time, each with a deadline.
#[derive(Clone, Debug)]
pub(super) struct StoreQueries {
    permits: Arc<Semaphore>,
    patience: Duration,
}

impl StoreQueries {
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        Self { permits: Arc::new(Semaphore::new(most)), patience }
    }

    /// Waits for the answer. A query that has started runs to its end even if the caller has given up.
    ///
    /// # Errors
    /// Returns [`Unanswered::Late`] at the deadline, or the error of the store.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let permits = Arc::clone(&self.permits);
        let answer = async {
            let permit = permits.acquire_owned().await.map_err(|_| Unanswered::Late)?;
            let asking = tokio::spawn(async move {
                let _permit = permit;
                question.await
            });
            // A query that panics has no answer.
            Ok(asking.await.map_err(|_| StoreError::Closed)??)
        };
        timeout(self.patience, answer).await.unwrap_or(Err(Unanswered::Late))
    }
}

/// A repeated query that runs one at a time, and its last answer.
#[derive(Debug)]
pub(super) struct LatestAnswer<T> {
    questions: StoreQueries,
    /// The last answer, and the time at which its query started.
    last: Arc<Mutex<Option<(Instant, T)>>>,
}

impl<T: Clone + Send + 'static> LatestAnswer<T> {
    pub(super) fn new(patience: Duration) -> Self {
        Self { questions: StoreQueries::new(1, patience), last: Arc::default() }
    }

    /// Waits for an answer to a query that started after this call. Concurrent callers share one query.
    ///
    /// # Errors
    /// As [`StoreQueries::ask`].
    pub(super) async fn ask(
        &self,
        question: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (asked, last) = (Instant::now(), Arc::clone(&self.last));
        let fresh = async move {
            if let Some((_, answer)) = newest(&last).filter(|(put, _)| *put >= asked) {
                return Ok(answer);
            }
            let put = Instant::now();
            let answer = question.await?;
            *lock(&last) = Some((put, answer.clone()));
            Ok(answer)
        };
        self.questions.ask(fresh).await
    }

    /// Returns the last answer, however old it is.
    pub(super) fn last(&self) -> Option<T> {
        newest(&self.last).map(|(_, answer)| answer)
    }
}

fn newest<T: Clone>(last: &Mutex<Option<(Instant, T)>>) -> Option<(Instant, T)> {
    lock(last).clone()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_late_query_keeps_its_permit_until_it_is_answered() {
        let (questions, go_on) = (StoreQueries::new(1, SOON), Arc::new(Notify::new()));
        let stalled = Arc::clone(&go_on);
        let question = async move {
            stalled.notified().await;
            Ok(1)
        };
        assert!(matches!(questions.ask(question).await, Err(Unanswered::Late)));
        let put = Arc::new(AtomicUsize::new(0));
        let count = |put: &Arc<AtomicUsize>| {
            let put = Arc::clone(put);
            async move { Ok(put.fetch_add(1, Ordering::SeqCst)) }
        };
        assert!(matches!(questions.ask(count(&put)).await, Err(Unanswered::Late)));
        assert_eq!(put.load(Ordering::SeqCst), 0, "one at a time");
        go_on.notify_one();
        let patient = StoreQueries { patience: Duration::from_secs(10), ..questions };
        assert_eq!(patient.ask(count(&put)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn concurrent_callers_share_an_answer_and_the_last_one_is_kept() {
        let (latest, put) = (LatestAnswer::new(Duration::from_secs(10)), Arc::new(AtomicUsize::new(0)));
        let count = || {
            let put = Arc::clone(&put);
            async move {
                tokio::time::sleep(SOON).await;
                Ok(put.fetch_add(1, Ordering::SeqCst) + 1)
            }
        };
        assert_eq!(latest.last(), None);
        let (a, b, c) = tokio::join!(latest.ask(count()), latest.ask(count()), latest.ask(count()));
        let answers = [a.unwrap(), b.unwrap(), c.unwrap()];
        assert!(answers.iter().max() < Some(&3), "{answers:?}");
        let failed = async { Err(StoreError::Closed) };
        assert!(matches!(latest.ask(failed).await, Err(Unanswered::Failed(StoreError::Closed))));
        assert_eq!(latest.last(), answers.iter().max().copied());
    }
}
