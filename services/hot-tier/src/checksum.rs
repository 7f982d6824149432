//! The checksum of a table's rows in one partition, for those who compare replicas: when a partition moves, of all of its rows. It is
//! no query's business, so it takes turns with the scans in short slices, one checksum of the node at a time.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use engine::Reader;
use proto::hot_tier::{ChecksumRequest, TableChecksum};
use query::{Cancel, Checksum, RowsChecksum};
use tokio::sync::{Semaphore, oneshot};
use types::{ApiError, ErrorCode, Timestamp};

use crate::{
    pool::{Job, Queue},
    scan::{Stop, behind, lock},
};

/// About how long a scan that waits for the thread is held up: less than by a segment of another scan.
const SLICE: Duration = Duration::from_millis(1);
/// Of a thread's time, about what a checksum gets at least, where others want all of it: else it would never be done.
const SHARE: u32 = 8;
/// Slices that it gets at once for that, at most.
const SLICES_MAX: u32 = 20;

/// The checksums of a node. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Checksums {
    /// One at a time: several would have as many turns for each one of a scan.
    place: Arc<Semaphore>,
}

impl Default for Checksums {
    fn default() -> Self {
        Self { place: Arc::new(Semaphore::new(1)) }
    }
}

impl Checksums {
    /// Makes a checksum on the scan threads. The partition has applied what it is to cover.
    ///
    /// # Errors
    /// Those of the sum; `DEADLINE_EXCEEDED` also where others take all the time; `INTERNAL` where it panicked.
    pub(crate) async fn of_rows(
        &self,
        request: ChecksumRequest,
        reader: Reader,
        queue: &Queue,
        stop: Arc<Stop>,
    ) -> Result<TableChecksum, ApiError> {
        let place = tokio::time::timeout_at(request.deadline.into(), Arc::clone(&self.place).acquire_owned()).await;
        let late = |_| ApiError::new(ErrorCode::DeadlineExceeded, "other checksums took all the time");
        let _place = place.map_err(late)?.expect("nobody closes it");
        let (summing, outcome) = Summing::new(request, reader, stop, SLICE);
        queue.submit(&(Arc::new(summing) as Arc<dyn Job>), 1);
        // The reply is dropped unsent only by a panic, which the pool has logged.
        outcome.await.unwrap_or_else(|_| Err(ApiError::internal("the checksum failed; the server's log says why")))
    }
}

type Reply = oneshot::Sender<Result<TableChecksum, ApiError>>;

/// A checksum in the queue.
struct Summing {
    request: ChecksumRequest,
    reader: Reader,
    stop: Arc<Stop>,
    slice: Duration,
    state: Mutex<State>,
}

enum State {
    Begins(Reply),
    /// `left`: since when others have the thread.
    Sums {
        sum: Box<Checksum>,
        evicted_before: Option<Timestamp>,
        reply: Reply,
        left: Instant,
    },
    Ended,
}

impl Summing {
    fn new(
        request: ChecksumRequest,
        reader: Reader,
        stop: Arc<Stop>,
        slice: Duration,
    ) -> (Self, oneshot::Receiver<Result<TableChecksum, ApiError>>) {
        let (reply, outcome) = oneshot::channel();
        (Self { request, reader, stop, slice, state: Mutex::new(State::Begins(reply)) }, outcome)
    }

    /// Takes a step, or some until a slice is over.
    fn advance(&self, state: State, cancel: &Cancel<'_>) -> State {
        match state {
            State::Begins(reply) => self.begin(reply),
            State::Sums { mut sum, evicted_before, reply, left } => {
                let now = Instant::now();
                let until = now + slice_after(now - left, self.slice);
                loop {
                    match sum.step(cancel) {
                        Ok(true) if Instant::now() < until => {}
                        Ok(true) => return State::Sums { sum, evicted_before, reply, left: Instant::now() },
                        Ok(false) => return end(reply, Ok(TableChecksum { evicted_before, found: sum.found() })),
                        Err(error) => return end(reply, Err(error)),
                    }
                }
            }
            State::Ended => State::Ended,
        }
    }

    fn begin(&self, reply: Reply) -> State {
        let ChecksumRequest { key, partition, at, range, .. } = self.request;
        let Some(snapshots) = self.reader.snapshots_at(&[key], at) else {
            return end(reply, Err(behind(partition, at)));
        };
        match snapshots.into_iter().flatten().next() {
            Some(table) => {
                let evicted_before = table.evicted_before();
                let sum = Box::new(Checksum::new(table, range));
                State::Sums { sum, evicted_before, reply, left: Instant::now() }
            }
            // A table that the partition does not know has no rows there.
            None => end(reply, Ok(TableChecksum { evicted_before: None, found: RowsChecksum::default() })),
        }
    }
}

/// How long a slice is after others had the thread.
fn slice_after(others: Duration, slice: Duration) -> Duration {
    (others / SHARE).clamp(slice, slice * SLICES_MAX)
}

fn end(reply: Reply, found: Result<TableChecksum, ApiError>) -> State {
    // Nobody waits any more if the client has left.
    let _ = reply.send(found);
    State::Ended
}

impl Job for Summing {
    fn run_next(&self) -> bool {
        let mut state = lock(&self.state);
        // Where it panics nothing is left, and the reply goes unsent.
        let before = std::mem::replace(&mut *state, State::Ended);
        *state = self.stop.watch(|cancel| self.advance(before, cancel));
        !matches!(*state, State::Ended)
    }
}

#[cfg(test)]
mod tests {
    use engine::{CHUNK_ROWS, Limits, MemoryBudget, partition};
    use types::{Offset, PartitionId, TimeRange};

    use super::*;
    use crate::{
        checkpoint::{
            round::tests::{KEY, ROWS, apply},
            seam::Seam,
        },
        each::for_each,
        pool::ScanPool,
    };

    const RECORDS: u64 = 10;

    /// Goal: where others want the thread all the time, a checksum has its share, in slices that are bounded.
    #[test]
    fn a_checksum_has_its_share() {
        let after = |millis| slice_after(Duration::from_millis(millis), SLICE).as_micros();
        assert_eq!([0, 8, 80, 160, 1_000].map(after), [1_000, 1_000, 10_000, 20_000, 20_000]);
    }

    /// Goal: a checksum gives way to others after each slice, and is the same as one that is made in one; two of them are not made at
    /// the same time.
    #[tokio::test]
    async fn a_checksum_takes_turns() {
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (mut writer, reader) = partition(PartitionId(0), Offset::ZERO, Limits::default(), budget);
        (0..RECORDS).for_each(|_| apply(&mut writer, &Seam::new(Offset::ZERO).0));
        let range = TimeRange::new(Timestamp::MIN, Timestamp::MAX).unwrap();
        let deadline = Instant::now() + Duration::from_secs(600);
        let request = ChecksumRequest { key: KEY, partition: PartitionId(0), at: Offset(RECORDS), range, deadline };
        let stop = Arc::new(Stop::at(deadline));

        let (in_slices, outcome) = Summing::new(request, reader.clone(), Arc::clone(&stop), Duration::ZERO);
        let slices = 1 + std::iter::from_fn(|| in_slices.run_next().then_some(())).count();
        let rows = RECORDS * ROWS as u64;
        assert!(slices >= rows as usize / CHUNK_ROWS, "{slices} slices");
        let found = outcome.await.unwrap();
        assert_eq!(found.as_ref().map(|sum| sum.found.rows), Ok(rows));

        let (pool, checksums) = (ScanPool::start(1).unwrap(), Checksums::default());
        let first = Arc::clone(&checksums.place).acquire_owned().await.unwrap();
        let mut second = std::pin::pin!(checksums.of_rows(request, reader, pool.queue(), stop));
        for _ in 0..1_000 {
            let ended = tokio::time::timeout(Duration::ZERO, second.as_mut()).await;
            assert!(ended.is_err(), "it waits for the first one");
            for_each(pool.queue(), vec![()], |()| Ok(())).await.unwrap();
        }
        drop(first);
        assert_eq!(second.await, found);
    }
}
