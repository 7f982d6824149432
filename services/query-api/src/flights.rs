//! Single flight: equal questions that come while one of them is being computed share the next computation.
//!
//! 1. Of a question one computation runs and at most one forms. Whoever asks while one runs joins the one that forms, never
//!    the one that runs: its snapshots may be older than what was acked before the question came.
//! 2. The one that forms begins when the one that runs has ended; from then on nobody joins it.
//! 3. A computation belongs to all who wait for it. It goes on while one of them does, and has the time of the most patient;
//!    each of the others leaves when its own is up.
//! 4. Its outcome is everybody's, an error too: they asked the same of the same rows.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cache::CacheKey;
use metrics::{Counter, counter, describe_counter};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tracing::Instrument as _;
use types::{ApiError, Offset, PartitionId};

use crate::answer::timed_out;

/// Queries that wait for a computation which is not their own. Those beyond compute for themselves, and so have, and wait for,
/// places like all others: equal questions of one tenant keep no other tenant's waiting.
const JOINED_MAX: usize = 4_096;

/// What those who wait for a computation ask of it together.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Offsets that it is to cover.
    pub(crate) after: BTreeMap<PartitionId, Offset>,
    /// When nobody waits any more, and how long whoever waits longest was ready to.
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
}

impl Terms {
    fn join(&mut self, other: Self) {
        for (partition, offset) in other.after {
            let least = self.after.entry(partition).or_insert(offset);
            *least = offset.max(*least);
        }
        if other.deadline > self.deadline {
            (self.deadline, self.timeout) = (other.deadline, other.timeout);
        }
    }
}

type Outcome<V> = Result<V, ApiError>;
type Receiver<V> = watch::Receiver<Option<Outcome<V>>>;
type Joined<V> = (Receiver<V>, Option<OwnedSemaphorePermit>);
type Work<V> = Box<dyn FnOnce(Terms) -> Pin<Box<dyn Future<Output = Outcome<V>> + Send>> + Send>;

/// The computations under way.
pub(crate) struct Flights<V> {
    lines: Arc<Lines<V>>,
    joined: Arc<Semaphore>,
    shared: Counter,
}

/// By question of which a computation runs, the one that forms.
type Lines<V> = Mutex<HashMap<CacheKey, Option<Flight<V>>>>;

/// A computation that has not begun. Those who wait for it hold receivers of its outcome.
struct Flight<V> {
    terms: Terms,
    work: Work<V>,
    outcome: watch::Sender<Option<Outcome<V>>>,
    runtime: Handle,
}

impl<V: Clone + Send + Sync + 'static> Flights<V> {
    pub(crate) fn new() -> Self {
        describe_counter!("truenow_query_shared_total", "Queries answered with the computation of an equal one.");
        Self {
            lines: Arc::default(),
            joined: Arc::new(Semaphore::new(JOINED_MAX)),
            shared: counter!("truenow_query_shared_total"),
        }
    }

    /// The outcome of a computation of `question` that began after this was called: `work`, or that of an equal question,
    /// which is to compute the same. The work is dropped when nobody waits for it.
    ///
    /// # Errors
    /// Those of the work; `DEADLINE_EXCEEDED` where the time of these terms is up, `INTERNAL` where the work panicked.
    pub(crate) async fn answer<F>(
        &self,
        question: CacheKey,
        terms: Terms,
        work: impl FnOnce(Terms) -> F + Send + 'static,
    ) -> Outcome<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let (deadline, timeout) = (terms.deadline, terms.timeout);
        let work: Work<V> = Box::new(move |terms| Box::pin(work(terms).in_current_span()));
        let (mut outcome, _place) = self.join(question, terms, work);
        let ended = outcome.wait_for(Option::is_some);
        match tokio::time::timeout_at(deadline.into(), ended).await {
            Ok(Ok(outcome)) => outcome.clone().expect("it was waited for"),
            // The sender is dropped without an outcome only by a panic, which the log has.
            Ok(Err(_)) => Err(ApiError::internal("the query failed; the server's log says why")),
            Err(_) => Err(timed_out(timeout)),
        }
    }

    /// Begins the computation where none runs; else joins the one that forms, if there is a place among those who wait for
    /// others, and gives that place.
    fn join(&self, question: CacheKey, terms: Terms, work: Work<V>) -> Joined<V> {
        let mut lines = lock(&self.lines);
        let Some(forming) = lines.get_mut(&question) else {
            lines.insert(question.clone(), None);
            drop(lines);
            let (flight, outcome) = Flight::new(terms, work);
            flight.begin(Some(Ending { lines: Arc::clone(&self.lines), question }));
            return (outcome, None);
        };
        let Ok(place) = Arc::clone(&self.joined).try_acquire_owned() else {
            drop(lines);
            let (flight, outcome) = Flight::new(terms, work);
            flight.begin(None);
            return (outcome, None);
        };
        if let Some(forming) = forming {
            self.shared.increment(1);
            forming.terms.join(terms);
            return (forming.outcome.subscribe(), Some(place));
        }
        let (flight, outcome) = Flight::new(terms, work);
        *forming = Some(flight);
        (outcome, Some(place))
    }
}

impl<V: Clone + Send + Sync + 'static> Flight<V> {
    fn new(terms: Terms, work: Work<V>) -> (Self, Receiver<V>) {
        let (sender, outcome) = watch::channel(None);
        (Self { terms, work, outcome: sender, runtime: Handle::current() }, outcome)
    }

    /// Begins it: nobody joins it any more, and only now it looks at rows. `ending` is dropped when it ends.
    fn begin(self, ending: Option<Ending<V>>) {
        let Self { terms, work, outcome, runtime } = self;
        runtime.spawn(async move {
            let result = tokio::select! {
                result = work(terms) => Some(result),
                // Nobody waits any more.
                () = outcome.closed() => None,
            };
            // First the next one begins, so that whoever has this outcome and asks again need not wait for it.
            drop(ending);
            outcome.send_replace(result);
        });
    }
}

/// The end of the computation that runs, also by a panic: the next one begins.
struct Ending<V: Clone + Send + Sync + 'static> {
    lines: Arc<Lines<V>>,
    question: CacheKey,
}

impl<V: Clone + Send + Sync + 'static> Drop for Ending<V> {
    fn drop(&mut self) {
        let mut lines = lock(&self.lines);
        let next = lines.get_mut(&self.question).and_then(Option::take);
        let wanted = next.filter(|flight| !flight.outcome.is_closed());
        if wanted.is_none() {
            lines.remove(&self.question);
        }
        // A runtime that ends drops what is begun at once, which comes here again.
        drop(lines);
        if let Some(next) = wanted {
            next.begin(Some(Self { lines: Arc::clone(&self.lines), question: self.question.clone() }));
        }
    }
}

/// Locks. A panic while it was held left it whole: nothing inside can panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
