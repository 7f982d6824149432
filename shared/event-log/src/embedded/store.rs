//! What readers see: the files, where the partitions stand, the newest records. One lock over all of it, taken once a
//! group by the appender and once a poll by a reader, never while a disk is waited for.
//!
//! 1. Only what is durable is ever in here; the appender publishes a group whole.
//! 2. A partition's records are `[start, end)`: those of `files`, oldest first, then those of the active file.
//! 3. `tail` holds the newest records.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use types::{Offset, PartitionId, Timestamp};

use super::{
    frame::FrameKey,
    index::{Entry, FileIndex},
    segment::Stand,
    totals::RowTotals,
};
use crate::{
    api::{Bounds, Record},
    files::{FileSystem, LogFile},
    tail::Tail,
};

/// A file that gets no more records.
#[derive(Debug)]
pub(crate) struct SealedFile {
    pub(crate) number: u64,
    /// Where its records end.
    pub(crate) end: u64,
    /// Where the partitions stand before it.
    pub(crate) base: Vec<Stand>,
    /// Where they stand after it.
    pub(crate) ends: Vec<Stand>,
}

/// The file that is written.
pub(crate) struct ActiveFile {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn LogFile>,
    pub(crate) index: FileIndex,
}

/// A sealed file that is open for reading.
#[derive(Clone)]
pub(crate) struct OpenFile {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn LogFile>,
    pub(crate) index: Arc<FileIndex>,
}

/// Where records lie: entries of consecutive records in one file.
pub(crate) struct Located {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn LogFile>,
    pub(crate) entries: Vec<Entry>,
}

/// Where to look for a record.
pub(crate) enum Place {
    /// In the file that is written.
    Active,
    /// In a sealed file that is open.
    Open(OpenFile),
    /// In a sealed file that must be opened first.
    Sealed(Arc<SealedFile>),
}

/// The part that the lock guards.
pub(crate) struct State {
    pub(crate) files: VecDeque<Arc<SealedFile>>,
    pub(crate) active: Option<ActiveFile>,
    pub(crate) ends: Vec<Stand>,
    /// Rows of all records before `ends`, since ever.
    pub(crate) totals: RowTotals,
    pub(crate) released: Vec<Offset>,
    pub(crate) closed: bool,
    tail: Tail,
    open: VecDeque<OpenFile>,
    open_bytes: u64,
}

/// What the appender, the readers and the log itself share.
pub(crate) struct Store {
    state: Mutex<State>,
    /// One per partition: its end moved, or the log is closed.
    grown: Vec<Condvar>,
    /// Bytes of bodies that were shown, by partition. Relaxed: figures, written by the appender under the lock.
    pub(crate) appended_bytes: Box<[AtomicU64]>,
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) frame_key: FrameKey,
    index_bytes_max: u64,
}

impl Store {
    pub(crate) fn new(
        files: Arc<dyn FileSystem>,
        dir: PathBuf,
        frame_key: FrameKey,
        (tail_bytes_max, index_bytes_max): (u64, u64),
        ends: Vec<Stand>,
    ) -> Self {
        let partitions = ends.len();
        let state = State {
            files: VecDeque::new(),
            active: None,
            ends,
            totals: RowTotals::default(),
            released: vec![Offset::ZERO; partitions],
            closed: false,
            tail: Tail::new(partitions, tail_bytes_max),
            open: VecDeque::new(),
            open_bytes: 0,
        };
        let grown = (0..partitions).map(|_| Condvar::new()).collect();
        let appended_bytes = (0..partitions).map(|_| AtomicU64::new(0)).collect();
        Self { state: Mutex::new(state), grown, appended_bytes, files, dir, frame_key, index_bytes_max }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of `State` is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tells that a partition has grown.
    pub(crate) fn grown(&self, partition: PartitionId) -> &Condvar {
        &self.grown[partition.0 as usize]
    }

    /// Shows a group that is durable, in the order in which it was written to the active file.
    pub(crate) fn publish(&self, group: Vec<(PartitionId, Entry, Record)>) {
        let mut touched: Vec<PartitionId> = group.iter().map(|(partition, ..)| *partition).collect();
        touched.sort_unstable();
        touched.dedup();
        let mut state = self.lock();
        for (partition, entry, record) in group {
            self.appended_bytes[partition.0 as usize].fetch_add(u64::from(record.header.body_len), Relaxed);
            state.add(partition, entry, record);
        }
        state.tail.trim();
        drop(state);
        for partition in touched {
            self.grown(partition).notify_all();
        }
    }

    /// Ends the log for readers.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        for grown in &self.grown {
            grown.notify_all();
        }
    }

    /// Keeps a file open that was just opened, and the bound on those that are.
    pub(crate) fn keep_open(&self, opened: OpenFile) {
        let mut state = self.lock();
        if state.open.iter().any(|open| open.number == opened.number) {
            return;
        }
        state.open_bytes += opened.index.memory_bytes();
        state.open.push_back(opened);
        while state.open.len() > 1 && (state.open_bytes > self.index_bytes_max || state.open.len() > OPEN_FILES_MAX) {
            let oldest = state.open.pop_front().expect("more than one");
            state.open_bytes -= oldest.index.memory_bytes();
        }
    }
}

/// Sealed files that are open at one time.
const OPEN_FILES_MAX: usize = 128;

impl State {
    /// What is durable in a partition.
    pub(crate) fn bounds(&self, partition: PartitionId) -> Bounds {
        let at = partition.0 as usize;
        let end = self.ends[at];
        Bounds { start: self.start(at), end: end.next, last_append_time: end.last_time }
    }

    /// Where a record lies that is in the partition's bounds.
    pub(crate) fn place(&self, partition: PartitionId, offset: Offset) -> Place {
        let at = partition.0 as usize;
        let before = self.files.partition_point(|file| file.ends[at].next <= offset);
        let Some(sealed) = self.files.get(before) else {
            return Place::Active;
        };
        let open = self.open.iter().find(|open| open.number == sealed.number);
        open.map_or_else(|| Place::Sealed(sealed.clone()), |open| Place::Open(open.clone()))
    }

    /// Like [`Self::place`], for the first record with an append time of at least `time`, which there must be.
    pub(crate) fn place_of_time(&self, partition: PartitionId, time: Timestamp) -> Place {
        let at = partition.0 as usize;
        let before = self.files.partition_point(|file| file.ends[at].last_time < time);
        match self.files.get(before) {
            // The file before has only older records, so the first offset of this one is at or before the wanted.
            Some(file) => self.place(partition, file.base[at].next),
            None => Place::Active,
        }
    }

    /// What the tail holds from `offset` on, oldest first; `None` where it begins behind that.
    pub(crate) fn tail(&self, partition: PartitionId, offset: Offset) -> Option<impl Iterator<Item = &Record>> {
        self.tail.from(partition, self.ends[partition.0 as usize].next, offset)
    }

    /// Copies what the tail holds from `offset` on, about `bytes_max` of it; returns how many records.
    pub(crate) fn copy_tail(
        &self,
        partition: PartitionId,
        offset: Offset,
        bytes_max: usize,
        into: &mut Vec<Record>,
    ) -> usize {
        self.tail.copy(partition, self.ends[partition.0 as usize].next, offset, bytes_max, into)
    }

    /// Removes the oldest sealed file from sight if all of it is released and at least `bytes_min` stay without it.
    pub(crate) fn take_released(&mut self, bytes_min: u64) -> Option<Arc<SealedFile>> {
        let staying: u64 = self.files.iter().skip(1).map(|file| file.end).sum();
        if !self.has_released() || staying < bytes_min {
            return None;
        }
        let taken = self.files.pop_front();
        if let Some(at) = self.open.iter().position(|open| Some(open.number) == taken.as_ref().map(|file| file.number))
        {
            let open = self.open.remove(at).expect("just found");
            self.open_bytes -= open.index.memory_bytes();
        }
        taken
    }

    /// Whether all of the oldest sealed file is released. The newest file never is: it says where the partitions stand.
    pub(crate) fn has_released(&self) -> bool {
        let newest = self.active.is_none() && self.files.len() == 1;
        let free = |file: &Arc<SealedFile>| file.ends.iter().zip(&self.released).all(|(end, to)| end.next <= *to);
        !newest && self.files.front().is_some_and(free)
    }

    fn start(&self, at: usize) -> Offset {
        let oldest = self.files.front().map(|file| file.base[at]);
        let oldest = oldest.or_else(|| self.active.as_ref().map(|active| active.index.base(at)));
        oldest.unwrap_or(self.ends[at]).next
    }

    fn add(&mut self, partition: PartitionId, entry: Entry, record: Record) {
        let at = partition.0 as usize;
        self.ends[at] = Stand { next: record.offset.next(), last_time: record.append_time };
        self.totals.add(&record.header, &record.body);
        self.tail.push(partition, record);
        let active = self.active.as_mut().expect("a group is written to the active file");
        active.index.push(at, entry);
    }
}
