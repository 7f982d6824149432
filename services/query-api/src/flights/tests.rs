use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use tokio::{sync::Notify, task::JoinHandle};
use types::{ErrorCode, TenantId};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn question(number: u64) -> CacheKey {
    CacheKey::new(TenantId(1), &number.to_le_bytes())
}

fn terms(timeout: Duration) -> Terms {
    let deadline = tokio::time::Instant::now().into_std() + timeout;
    Terms { after: BTreeMap::new(), deadline, timeout }
}

/// Rows that are acked and computations that look at them.
struct World {
    flights: Flights<u64>,
    acked: AtomicU64,
    begun: AtomicUsize,
    dropped: AtomicUsize,
    go_on: Notify,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            flights: Flights::new(),
            acked: AtomicU64::new(0),
            begun: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            go_on: Notify::new(),
        })
    }

    /// A computation that takes its snapshot, waits to be let go on, and gives what it saw.
    fn ask(self: &Arc<Self>, number: u64, timeout: Duration) -> JoinHandle<Outcome<u64>> {
        let (world, computing) = (Arc::clone(self), Arc::clone(self));
        tokio::spawn(async move {
            let work = move |_| async move {
                computing.begun.fetch_add(1, SeqCst);
                let dropped = CountDrop(Arc::clone(&computing));
                let seen = computing.acked.load(SeqCst);
                computing.go_on.notified().await;
                std::mem::forget(dropped);
                Ok(seen)
            };
            world.flights.answer(question(number), terms(timeout), work).await
        })
    }

    fn begun(&self) -> usize {
        self.begun.load(SeqCst)
    }

    fn questions(&self) -> usize {
        lock(&self.flights.lines).len()
    }
}

/// Counts work that was dropped before its end.
struct CountDrop(Arc<World>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, SeqCst);
    }
}

/// Lets all other tasks go as far as they can: time passes only when all of them wait.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Goal: of many equal questions at once one is computed for the first, and one for all who came while that ran; another
/// question is computed beside them; nothing stays behind.
#[tokio::test(start_paused = true)]
async fn equal_questions_share_a_computation() {
    let world = World::new();
    let first = world.ask(1, MINUTE);
    settle().await;
    world.acked.store(7, SeqCst);
    let others: Vec<_> = (0..10).map(|_| world.ask(1, MINUTE)).collect();
    let another = world.ask(2, MINUTE);
    settle().await;
    assert_eq!(world.begun(), 2);
    world.go_on.notify_waiters();
    settle().await;
    assert_eq!((world.begun(), first.await.unwrap(), another.await.unwrap()), (3, Ok(0), Ok(7)));
    world.go_on.notify_waiters();
    for other in others {
        assert_eq!(other.await.unwrap(), Ok(7));
    }
    assert_eq!((world.begun(), world.questions()), (3, 0));
}

/// Goal: whatever the order in which rows are acked, questions come and computations end, an answer covers all that was
/// acked before it was asked; and most questions share.
#[tokio::test(start_paused = true)]
async fn answers_cover_what_was_acked_before() {
    let world = World::new();
    let mut asked = Vec::new();
    let mut random = 1_u64;
    let mut below = move |end: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % end
    };
    for _ in 0..2_000 {
        match below(4) {
            0 => drop(world.acked.fetch_add(1, SeqCst)),
            1 => world.go_on.notify_waiters(),
            2 => settle().await,
            _ => asked.push((world.acked.load(SeqCst), world.ask(below(2), 1_000 * MINUTE))),
        }
    }
    let questions = asked.len();
    for (acked, answer) in asked {
        while !answer.is_finished() {
            world.go_on.notify_waiters();
            settle().await;
        }
        let seen = answer.await.unwrap().unwrap();
        assert!(seen >= acked, "{seen} of {acked}");
    }
    assert!(world.begun() * 4 < questions * 3, "{} computations for {questions} questions", world.begun());
}

/// Goal: whoever leaves takes nothing from those who wait with him; work that nobody waits for is dropped at once, begun or
/// not, and the question can be asked again.
#[tokio::test(start_paused = true)]
async fn leaving_takes_nothing_from_others() {
    let world = World::new();
    let first = world.ask(1, MINUTE);
    settle().await;
    let (second, third) = (world.ask(1, MINUTE), world.ask(1, MINUTE));
    settle().await;
    second.abort();
    settle().await;
    assert_eq!(world.begun(), 1);
    // With the first one nobody waits for what runs, and the next begins.
    first.abort();
    settle().await;
    assert_eq!((world.begun(), world.dropped.load(SeqCst)), (2, 1));
    world.go_on.notify_waiters();
    assert_eq!(third.await.unwrap(), Ok(0));

    let (running, forming) = (world.ask(1, MINUTE), world.ask(1, MINUTE));
    settle().await;
    forming.abort();
    settle().await;
    running.abort();
    settle().await;
    assert_eq!((world.begun(), world.dropped.load(SeqCst), world.questions()), (3, 2, 0));
}

/// Goal: each leaves when its own time is up, and the work has the time of the most patient and the greatest offsets of all.
#[tokio::test(start_paused = true)]
async fn each_has_its_own_time() {
    let world = World::new();
    let running = world.ask(1, MINUTE);
    settle().await;
    let (patient, hasty) = (world.ask(1, 2 * MINUTE), world.ask(1, MINUTE / 2));
    tokio::time::sleep(MINUTE / 2).await;
    let error = hasty.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::DeadlineExceeded, Some("timeout_ms")));
    assert!(error.message.contains("30000"), "{}", error.message);
    assert!(!running.is_finished() && !patient.is_finished());
    running.abort();
    settle().await;
    world.go_on.notify_waiters();
    assert_eq!(patient.await.unwrap(), Ok(0));

    let of = |partition, offset, timeout| Terms {
        after: [(PartitionId(partition), Offset(offset)), (PartitionId(9), Offset(9))].into(),
        ..terms(timeout)
    };
    let mut all = of(1, 5, MINUTE);
    let (patient, hasty) = (of(1, 3, 2 * MINUTE), of(2, 7, MINUTE / 2));
    all.join(patient.clone());
    all.join(hasty);
    let after = [(1, 5), (2, 7), (9, 9)].map(|(partition, offset)| (PartitionId(partition), Offset(offset)));
    assert_eq!((all.after, all.deadline, all.timeout), (after.into(), patient.deadline, patient.timeout));
}

/// Goal: an error is the answer of all who asked for it, a panic that of its own askers; the next ones are computed anew.
#[tokio::test(start_paused = true)]
async fn errors_are_shared_and_pass() {
    let flights = Arc::new(Flights::<u64>::new());
    let ask = |outcome: Option<Outcome<u64>>| {
        let flights = Arc::clone(&flights);
        let work = |_| async move {
            settle().await;
            outcome.expect("a panic of the test")
        };
        tokio::spawn(async move { flights.answer(question(1), terms(MINUTE), work).await })
    };
    let panics = ask(None);
    tokio::task::yield_now().await;
    let fails = [ask(Some(Err(ApiError::unavailable("away")))), ask(Some(Ok(1)))];
    assert_eq!(panics.await.unwrap().unwrap_err().code, ErrorCode::Internal);
    for fails in fails {
        assert_eq!(fails.await.unwrap(), Err(ApiError::unavailable("away")));
    }
    assert_eq!(ask(Some(Ok(2))).await.unwrap(), Ok(2));
}

/// Goal: those who wait for a computation of others are bounded by their number; whoever comes beyond it is not refused, but
/// computes for itself.
#[tokio::test(start_paused = true)]
async fn those_who_wait_are_bounded() {
    let world = World::new();
    let waiting: Vec<_> = (0..=JOINED_MAX).map(|_| world.ask(1, MINUTE)).collect();
    settle().await;
    assert_eq!(world.begun(), 1);
    let (beyond, other) = (world.ask(1, MINUTE), world.ask(2, MINUTE));
    settle().await;
    assert_eq!((world.begun(), world.questions()), (3, 2));
    let left = world.ask(1, MINUTE);
    settle().await;
    left.abort();
    settle().await;
    assert_eq!((world.begun(), world.dropped.load(SeqCst)), (4, 1));
    for _ in 0..2 {
        settle().await;
        world.go_on.notify_waiters();
    }
    assert_eq!((beyond.await.unwrap(), other.await.unwrap()), (Ok(0), Ok(0)));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Ok(0));
    }
    assert_eq!((world.begun(), world.questions()), (5, 0));
}
