//! Which partitions a node has: opened from their checkpoints, and closed, while it runs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use config::HotTierConfig;
use engine::{Limits, MemoryBudget};
use proto::hot_tier::PartitionWriter as _;
use service::Health;
use tokio::{sync::Mutex, task::AbortHandle};
use types::PartitionId;

use crate::{
    HotTierError, Node, Storage, Writers,
    checkpoint::{
        restore::{self, Opened, Progress},
        thread::{Changes, Checkpointed},
    },
    copies::Copies,
    node::Partition,
    recovery,
};

/// The name in health of partitions that are given to this node and not open.
const UNOPENED: &str = "partition-unopened";
/// How often health follows the reading of checkpoints.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// The partitions of a node. Cloning shares them.
#[derive(Clone)]
pub struct Partitions {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    config: HotTierConfig,
    limits: Limits,
    budget: Arc<MemoryBudget>,
    /// Where checkpoints are written.
    checkpoints: Option<Changes>,
    /// What other nodes get of them.
    copies: Copies,
    reading: Reading,
    health: Health,
    /// Held while partitions are opened or closed; what tells of those that recover.
    changing: Mutex<Option<AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Also where another service does not start: the process would end only after all is read.
        self.reading.stop();
        if let Some(telling) = self.changing.get_mut() {
            telling.abort();
        }
    }
}

/// The reading of checkpoints.
#[derive(Clone, Default)]
pub(crate) struct Reading {
    progress: Arc<Progress>,
    // Relaxed: whoever reads holds `running`, which orders it.
    ended: Arc<AtomicBool>,
    running: Arc<Mutex<()>>,
}

impl Reading {
    fn stop(&self) {
        self.ended.store(true, Relaxed);
        self.progress.reading.stop();
    }

    /// Ends what is being read, and all that would be.
    pub(crate) async fn end(&self) {
        self.stop();
        drop(self.running.lock().await);
    }
}

impl Partitions {
    pub(crate) fn new(
        node: Node,
        config: HotTierConfig,
        limits: Limits,
        (budget, (checkpoints, copies)): (Arc<MemoryBudget>, (Option<Changes>, Copies)),
        health: Health,
    ) -> Self {
        let (reading, changing) = (Reading::default(), Mutex::default());
        Self { inner: Arc::new(Inner { node, config, limits, budget, checkpoints, copies, reading, health, changing }) }
    }

    pub(crate) fn reading(&self) -> Reading {
        self.inner.reading.clone()
    }

    /// Opens partitions as their checkpoints have them, which are read by this, and gives a writer of each for the stream
    /// ingester, which brings them up to date. None of them is open already.
    ///
    /// # Errors
    /// A checkpoint may not be gone on without, a directory cannot be used, or the service stops.
    pub async fn open(&self, storage: Storage) -> Result<Writers, HotTierError> {
        let mut telling = self.inner.changing.lock().await;
        self.inner.copies.lie_in(storage.dir.clone(), storage.identity);
        let opened = self.read(storage).await?;
        let writers = self.begin(opened);
        for writer in &writers {
            self.inner.health.recover_part(UNOPENED, writer.partition().0);
        }
        self.tell(&mut telling);
        self.inner.health.set_serving();
        Ok(writers)
    }

    /// All that the placement map of this version takes from this node is closed.
    pub fn note_map(&self, version: u64) {
        self.inner.node.note_map(version);
    }

    /// Has health say of a partition why it is not open, until it is opened or closed.
    pub fn note_unopened(&self, partition: PartitionId, why: &str) {
        self.inner.health.degrade_part(UNOPENED, partition.0, format!("partition {partition} is not open: {why}"));
    }

    /// Closes a partition, whose writer is gone: it is asked nothing any more, and its memory is free when the last scan of it has
    /// ended. Its checkpoints stay, for it may come back. One that is not open is closed already.
    pub async fn close(&self, partition: PartitionId) {
        let mut telling = self.inner.changing.lock().await;
        self.inner.node.close(partition);
        self.inner.health.recover_part(UNOPENED, partition.0);
        if let Some(checkpoints) = self.inner.checkpoints.clone() {
            let ended = tokio::task::spawn_blocking(move || checkpoints.end(partition)).await;
            ended.expect("waiting for a thread does not panic");
        }
        self.tell(&mut telling);
    }

    /// Reads the checkpoints of partitions, and keeps health up to date meanwhile.
    async fn read(&self, storage: Storage) -> Result<Vec<Opened>, HotTierError> {
        let Inner { config, limits, budget, reading, health, .. } = &*self.inner;
        let _running = reading.running.lock().await;
        if reading.ended.load(Relaxed) {
            return Err(HotTierError::Stopped);
        }
        let (progress, threads) = (Arc::clone(&reading.progress), config.scan_threads as usize);
        let (limits, budget) = (*limits, Arc::clone(budget));
        let mut opening =
            tokio::task::spawn_blocking(move || restore::open_all(&storage, limits, &budget, threads, &progress));
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                opened = &mut opening => return opened.expect("opening partitions does not panic"),
                _ = ticks.tick() => health.set_progress(reading.progress.share()),
            }
        }
    }

    /// Gives the node partitions that were read.
    fn begin(&self, opened: Vec<Opened>) -> Writers {
        let (mut writers, mut held) = (Writers::new(), BTreeMap::new());
        for opened in opened {
            let (writer, reader) = match &self.inner.checkpoints {
                Some(checkpoints) => {
                    let (writer, reader, rounds) = opened.with_checkpoints();
                    checkpoints.begin(Checkpointed::new(reader.clone(), rounds));
                    (writer, reader)
                }
                None => opened.into_parts(),
            };
            let (recovered, applied, work) = (writer.recovered(), writer.applied(), writer.work());
            let partition = Partition { recovered, applied, reader, work };
            held.insert(writer.partition(), partition);
            writers.push(Box::new(writer));
        }
        self.inner.node.open(held);
        writers
    }

    /// Has health tell of those partitions that recover now. First what is wrong still, so that nobody sees it healthy in between.
    fn tell(&self, telling: &mut Option<AbortHandle>) {
        if let Some(before) = telling.take() {
            before.abort();
        }
        let following = recovery::follow(self.inner.node.recovered(), self.inner.health.clone());
        *telling = Some(tokio::spawn(following).abort_handle());
    }
}
