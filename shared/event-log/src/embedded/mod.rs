//! The embedded log: all partitions in one sequence of files of one directory, so that one sync makes a whole group of
//! appends durable, whatever tables and partitions they go to.
//!
//! ```text
//! append ─▶ queue ─▶ pipeline (own threads): place, write ─▶ sync ─▶ store ─▶ readers
//!           bounded                                                 tail in memory, else files
//! ```
//!
//! 1. One directory, one process: a lock sees to it.
//! 2. Every start is a new epoch, the appender's id, and begins a new file at its first append.
//! 3. A failure to write refuses the appends that it meets, and no others.

mod appender;
mod config;
mod driver;
mod frame;
mod group;
mod index;
mod manifest;
mod pipeline;
mod queue;
mod reader;
mod recovery;
mod scan;
mod segment;
mod store;
#[cfg(test)]
mod tests;
mod totals;
mod waiting;

use std::{
    io,
    sync::{Arc, MutexGuard, atomic::Ordering::Relaxed},
    thread::JoinHandle,
};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use types::{AppenderId, LogIdentity, Offset, PartitionId, TableKey, Timestamp, limits::PARTITIONS_MAX};

use self::{
    appender::Appender,
    group::RowCounts,
    index::{FILE_BYTES_MAX, FileIndex},
    manifest::Manifest,
    pipeline::Pipeline,
    queue::{Queue, Request},
    reader::Reader,
    recovery::{Inventory, recover},
    segment::{Stand, records_at},
    store::{Place, State, Store},
    waiting::Waiting,
};
pub use self::{
    config::{EmbeddedConfig, OpenError, Recovery},
    driver::{Driver, Step},
};
use crate::{
    api::{Append, AppendError, Appended, Bounds, Durability, EventLog, Load, LogLedger, LogReader, ReadError},
    clock::{Clock, SystemClock},
    disk::DiskFiles,
    files::FileSystem,
};

/// Bytes of one call of `append` at most; above every request that the contract lets through.
const APPEND_BYTES_MAX: u64 = 1 << 30;
const _: () = assert!(2 * APPEND_BYTES_MAX < FILE_BYTES_MAX);

/// A durable log in the files of one directory.
pub struct EmbeddedLog {
    store: Arc<Store>,
    queue: Arc<Queue>,
    identity: LogIdentity,
    partitions: u32,
    id: AppenderId,
    recovery: Recovery,
    ended: watch::Receiver<bool>,
    /// The first of the pipeline's, which ends last; `None` where a [`Driver`] is its own.
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedLog {
    /// Opens the log of `config.dir`, or makes it, and starts its threads. Reads the last file: blocks for up to a
    /// tenth of a second or so.
    ///
    /// # Errors
    /// Another process has it open, the disk failed, or what it holds contradicts itself.
    pub fn open(config: EmbeddedConfig, files: Arc<dyn FileSystem>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let dir = config.dir.clone();
        let (mut log, driver) = Self::open_driven(config, files, clock)?;
        log.thread = Some(driver.start().map_err(OpenError::at(dir))?);
        Ok(log)
    }

    /// As [`Self::open`], but without a thread: appends become durable as the caller drives the log.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_driven(
        config: EmbeddedConfig,
        files: Arc<dyn FileSystem>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Driver), OpenError> {
        check(&config)?;
        let dir = config.dir.clone();
        files.create_dir_all(&dir).map_err(OpenError::at(&dir))?;
        let lock = files.lock(&dir.join("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse(dir.clone()),
            _ => OpenError::at(&dir)(error),
        })?;
        let mut inventory = Inventory::of(&files.list(&dir).map_err(OpenError::at(&dir))?);
        let manifest = manifest::begin_epoch(&*files, &config, !inventory.logs.is_empty())?;
        let partitions = manifest.partitions as usize;
        let caches = (config.tail_bytes_max, config.index_bytes_max);
        let store =
            Arc::new(Store::new(files, dir.clone(), manifest.frame_key, caches, vec![Stand::EMPTY; partitions]));
        let recovery = recover(&store, &inventory.logs, partitions)?;
        inventory.sweep(&store);
        let Recovery { files, cut_bytes, damaged_records } = recovery;
        let Manifest { epoch, identity, partitions, .. } = manifest;
        tracing::info!(files, cut_bytes, damaged_records, epoch, %identity, "event log: open");

        let queue = Arc::new(Queue::new(config.queue_bytes_max, config.overlap_bytes_min));
        let (stands, newest_sealed) = {
            let state = store.lock();
            (state.ends.clone(), state.files.back().map_or((0, 0), |file| (file.number, file.end)))
        };
        let appender = Appender {
            store: store.clone(),
            clock,
            config,
            id: manifest.appender(),
            stands,
            rows: RowCounts::new(),
            durable_to: 0,
            active: None,
            newest_sealed,
            spares: inventory.spares,
        };
        let (driver, ended) = Driver::new(Pipeline::new(appender, queue.clone()), lock);
        let log = Self { store, queue, identity, partitions, id: manifest.appender(), recovery, ended, thread: None };
        Ok((log, driver))
    }

    /// Opens a log on the real file system, by the machine's clock.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on_disk(config: EmbeddedConfig) -> Result<Self, OpenError> {
        Self::open(config, Arc::new(DiskFiles), Arc::new(SystemClock))
    }

    /// The id under which this life of the log appends.
    #[must_use]
    pub fn appender(&self) -> AppenderId {
        self.id
    }

    /// What the start found and mended.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    fn knows(&self, partition: PartitionId) -> bool {
        partition.0 < self.partitions
    }

    fn check_offset(&self, partition: PartitionId, wanted: Offset, bounds: Bounds) -> Result<(), ReadError> {
        if !self.knows(partition) || wanted > bounds.end {
            return Err(ReadError::NoSuchOffset { partition, wanted });
        }
        if wanted < bounds.start {
            return Err(ReadError::Gap { partition, wanted, start: bounds.start });
        }
        Ok(())
    }

    /// Applies `ask` to the index of the file at a place.
    fn ask_index<T>(&self, state: MutexGuard<'_, State>, place: Place, ask: impl FnOnce(&FileIndex) -> T) -> Option<T> {
        let open = match place {
            Place::Active => return state.active.as_ref().map(|active| ask(&active.index)),
            Place::Open(open) => open,
            Place::Sealed(file) => {
                drop(state); // the disk is not waited for under the lock
                let opened = reader::open(&self.store, &file);
                opened
                    .inspect_err(|error| tracing::warn!(%error, file = file.number, "event log: read an index"))
                    .ok()?
            }
        };
        Some(ask(&open.index))
    }

    fn check_blocks(&self, blocks: &[Append]) -> Result<(), AppendError> {
        let fits = |block: &Append| {
            self.knows(block.header.partition) && u64::from(block.header.body_len) == block.body.len() as u64
        };
        let bytes: u64 = blocks.iter().map(|block| frame::stored_bytes(block.header.body_len)).sum();
        if blocks.iter().all(fits) && bytes <= APPEND_BYTES_MAX {
            return Ok(());
        }
        let what = "a block for no partition of the log, with another body than its header says, or too large a call";
        Err(AppendError::Unavailable(Arc::new(io::Error::new(io::ErrorKind::InvalidInput, what))))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.queue.close();
        // A panic there has been reported by its own thread.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn identity(&self) -> LogIdentity {
        self.identity
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    async fn append(&self, blocks: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        self.check_blocks(&blocks)?;
        let (ack, acked) = oneshot::channel();
        self.queue.push(Request { blocks, ack })?;
        let died = |_| AppendError::Unavailable(Arc::new(io::Error::other("the log's appender has ended")));
        acked.await.map_err(died)?
    }

    fn reader(&self, partition: PartitionId, from: Offset) -> Result<Box<dyn LogReader>, ReadError> {
        self.check_offset(partition, from, self.bounds(partition))?;
        Ok(Box::new(Reader { store: self.store.clone(), partition, next: from }))
    }

    fn bounds(&self, partition: PartitionId) -> Bounds {
        if !self.knows(partition) {
            return Bounds { start: Offset::ZERO, end: Offset::ZERO, last_append_time: Timestamp::MIN };
        }
        self.store.lock().bounds(partition)
    }

    fn append_time_of(&self, partition: PartitionId, offset: Offset) -> Option<Timestamp> {
        if !self.knows(partition) {
            return None;
        }
        let at = partition.0 as usize;
        let state = self.store.lock();
        let bounds = state.bounds(partition);
        if offset < bounds.start || bounds.end <= offset {
            return None;
        }
        let place = state.place(partition, offset);
        let entry = self.ask_index(state, place, |index| index.from(at, offset).first().copied())?;
        entry.map(|entry| entry.append_time)
    }

    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Offset {
        if !self.knows(partition) {
            return Offset::ZERO;
        }
        let state = self.store.lock();
        let bounds = state.bounds(partition);
        if bounds.start == bounds.end || bounds.last_append_time < time {
            return bounds.end;
        }
        let place = state.place_of_time(partition, time);
        let found = self.ask_index(state, place, |index| index.offset_at(partition.0 as usize, time));
        // Where an index cannot be read the start is the safe answer: too early, never too late.
        found.unwrap_or(bounds.start).max(bounds.start)
    }

    fn ledger(&self, partition: PartitionId, key: TableKey, applied: Offset) -> Result<LogLedger, ReadError> {
        self.check_offset(partition, applied, self.bounds(partition))?;
        let (acked_rows, bounds) = {
            let state = self.store.lock();
            (state.totals.rows(key, partition), state.bounds(partition))
        };
        let waiting = Waiting { store: &self.store, partition, next: applied, end: bounds.end };
        Ok(LogLedger { acked_rows, in_flight_rows: waiting.rows_of(key)?, end: bounds.end })
    }

    fn appended_bytes(&self, partition: PartitionId) -> u64 {
        // Relaxed: a figure that orders nothing.
        self.store.appended_bytes.get(partition.0 as usize).map_or(0, |bytes| bytes.load(Relaxed))
    }

    fn load(&self) -> Load {
        self.queue.load()
    }

    fn release_before(&self, partition: PartitionId, offset: Offset) {
        if !self.knows(partition) {
            return;
        }
        let mut state = self.store.lock();
        let released = &mut state.released[partition.0 as usize];
        if *released < offset {
            *released = offset;
            let free = state.has_released();
            drop(state);
            if free {
                self.queue.release();
            }
        }
    }

    async fn close(&self) {
        self.queue.close();
        // An error means that the thread is gone, which is what is waited for.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

fn check(config: &EmbeddedConfig) -> Result<(), OpenError> {
    let refuse = |field, value, must| Err(OpenError::Config { field, value, must });
    if !(1..=PARTITIONS_MAX).contains(&config.partitions) {
        return refuse("partitions", u64::from(config.partitions), "1 to 1024");
    }
    let header = records_at(config.partitions as usize);
    if !(2 * header..=APPEND_BYTES_MAX).contains(&config.segment_bytes) {
        return refuse("segment_bytes", config.segment_bytes, "at least twice a file's header, at most 1 GiB");
    }
    if config.group_bytes_max > APPEND_BYTES_MAX {
        return refuse("group_bytes_max", config.group_bytes_max, "at most 1 GiB");
    }
    Ok(())
}
