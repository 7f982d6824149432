//! What readers see: where the partitions stand, the newest records. One lock over all of it, taken once a batch by the
//! follower and once a poll by a reader, never while a broker is waited for.
//!
//! 1. Only what brokers acked or gave out is ever in here: it is durable.
//! 2. A partition's records are `[start, end)`. Those before `stand.next` were read by the follower and are counted; the
//!    newest of them are in the tail. Those from there to `end` were acked to this process and are on their way to it.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use types::{Offset, PartitionId, Timestamp};

use super::{stand::Stand, times::Times};
use crate::{
    api::{Bounds, Record},
    tail::Tail,
};

/// A partition as far as it is known.
pub(crate) struct Partition {
    pub(crate) start: Offset,
    end: Offset,
    /// Append time of the newest record that is known of.
    end_time: Timestamp,
    pub(crate) stand: Stand,
    pub(crate) times: Times,
    /// What is permitted to be deleted.
    pub(crate) released: Offset,
    /// The topic holds less than what was read of it: nothing of it can be trusted any more.
    pub(crate) truncated: bool,
}

/// The part that the lock guards.
pub(crate) struct State {
    pub(crate) partitions: Vec<Partition>,
    pub(crate) tail: Tail,
    pub(crate) closed: bool,
}

/// What the appender, the follower, the readers and the log itself share.
pub(crate) struct Store {
    state: Mutex<State>,
    /// One per partition: its end or its stand moved, or the log is closed.
    grown: Box<[Condvar]>,
    /// Whether any partition is truncated, so that appends need the lock only where one may be. Relaxed: which one is under the lock.
    any_truncated: AtomicBool,
    /// Bytes of bodies that were read since the start, by partition. Relaxed: figures, written under the lock.
    appended_bytes: Box<[AtomicU64]>,
}

/// What the follower read at a place.
pub(crate) enum Followed {
    /// A record, with the time that its broker gave it.
    Record(Record),
    /// Records up to an offset cannot be read; of a damaged one the header may be known.
    Missing { next: Offset, header: Option<Box<codec::BlockHeader>> },
    /// Records cannot be read, and another process that could has counted as far as this.
    Counted(Stand),
}

impl Store {
    /// A store of partitions that stand somewhere, with what the topic holds of each.
    pub(crate) fn new(partitions: Vec<(Stand, Offset, Offset)>, tail_bytes_max: u64) -> Self {
        let count = partitions.len();
        let partition = |(stand, start, end): (Stand, Offset, Offset)| Partition {
            start,
            end,
            end_time: stand.last_time,
            stand,
            times: Times::default(),
            released: Offset::ZERO,
            truncated: false,
        };
        let state = State {
            partitions: partitions.into_iter().map(partition).collect(),
            tail: Tail::new(count, tail_bytes_max),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            grown: (0..count).map(|_| Condvar::new()).collect(),
            any_truncated: AtomicBool::new(false),
            appended_bytes: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of `State` is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tells that a partition has grown.
    pub(crate) fn grown(&self, partition: PartitionId) -> &Condvar {
        &self.grown[partition.0 as usize]
    }

    pub(crate) fn appended_bytes(&self, partition: PartitionId) -> u64 {
        // Relaxed: a figure that orders nothing.
        self.appended_bytes.get(partition.0 as usize).map_or(0, |bytes| bytes.load(Relaxed))
    }

    /// A record of this process was acked.
    pub(crate) fn acked(&self, partition: PartitionId, offset: Offset, time: Timestamp) {
        let mut state = self.lock();
        let of = &mut state.partitions[partition.0 as usize];
        of.end = of.end.max(offset.next());
        of.end_time = of.end_time.max(time);
    }

    /// Shows what the follower read of a partition, in order.
    pub(crate) fn follow(&self, partition: PartitionId, read: impl IntoIterator<Item = Followed>) {
        let at = partition.0 as usize;
        let mut state = self.lock();
        let State { partitions, tail, .. } = &mut *state;
        let of = &mut partitions[at];
        for read in read {
            match read {
                Followed::Record(mut record) => {
                    record.append_time = of.stand.add(record.append_time, &record.header, &record.body);
                    of.times.push(record.offset, record.append_time);
                    self.appended_bytes[at].fetch_add(u64::from(record.header.body_len), Relaxed);
                    tail.push(partition, record);
                }
                Followed::Missing { next, header } => {
                    of.stand.pass_over(next, header.as_deref());
                    of.times.forget();
                    tail.forget(partition);
                }
                Followed::Counted(stand) => {
                    of.stand = stand;
                    of.times.forget();
                    tail.forget(partition);
                }
            }
        }
        of.end = of.end.max(of.stand.next);
        of.end_time = of.end_time.max(of.stand.last_time);
        tail.trim();
        drop(state);
        self.grown(partition).notify_all();
    }

    /// The oldest record of a partition is now the one at `start`.
    pub(crate) fn starts_at(&self, partition: PartitionId, start: Offset) {
        let mut state = self.lock();
        let of = &mut state.partitions[partition.0 as usize];
        of.start = of.start.max(start);
        of.end = of.end.max(of.start);
        drop(state);
        self.grown(partition).notify_all();
    }

    /// The topic lost records of a partition that were read.
    pub(crate) fn truncated(&self, partition: PartitionId) {
        self.lock().partitions[partition.0 as usize].truncated = true;
        self.any_truncated.store(true, Relaxed);
        self.grown(partition).notify_all();
    }

    /// The first of some partitions, which the log has, that lost records that were read.
    pub(crate) fn first_truncated(&self, mut partitions: impl Iterator<Item = PartitionId>) -> Option<PartitionId> {
        if !self.any_truncated.load(Relaxed) {
            return None;
        }
        let state = self.lock();
        partitions.find(|&partition| state.of(partition).truncated)
    }

    /// Ends the log for readers.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.grown.iter().for_each(Condvar::notify_all);
    }
}

impl State {
    /// What is durable in a partition.
    pub(crate) fn bounds(&self, partition: PartitionId) -> Bounds {
        let of = &self.partitions[partition.0 as usize];
        Bounds { start: of.start, end: of.end, last_append_time: of.end_time }
    }

    /// A partition as far as it is known.
    pub(crate) fn of(&self, partition: PartitionId) -> &Partition {
        &self.partitions[partition.0 as usize]
    }
}
