//! The partitions that a node reads, each with a thread of its own: begun, given a writer, and ended while the service runs.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use arc_swap::ArcSwapOption;
use event_log::EventLog;
use proto::hot_tier::PartitionWriter;
use service::{Health, Shutdown};
use types::PartitionId;

use crate::{
    PartitionProgress,
    worker::{Means, Stopped, WAITING, Worker},
};

/// The name of a partition's end in health.
const STOPPED: &str = "partition-stopped";

/// The partitions of a service. Cloning shares them.
#[derive(Clone)]
pub struct Partitions {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn EventLog>,
    health: Health,
    batch_records: usize,
    driven: Mutex<BTreeMap<PartitionId, Driven>>,
    /// How far each is, for those who only look; `None` until the first [`Partitions::begin`].
    progress: ArcSwapOption<Vec<Arc<PartitionProgress>>>,
}

/// A partition with its thread.
struct Driven {
    progress: Arc<PartitionProgress>,
    writer: mpsc::Sender<Box<dyn PartitionWriter>>,
    stop: Shutdown,
    thread: JoinHandle<()>,
}

impl Partitions {
    pub(crate) fn new(log: Arc<dyn EventLog>, health: Health, batch_records: usize) -> Self {
        let (driven, progress) = (Mutex::default(), ArcSwapOption::empty());
        Self { inner: Arc::new(Inner { log, health, batch_records, driven, progress }) }
    }

    /// Begins with partitions: what the log holds of each now is to be recovered, and what is appended from now on is lag. Their
    /// threads wait for their writers. One that has begun already goes on.
    ///
    /// # Errors
    /// The system gives no more threads; those before have begun.
    pub fn begin(&self, partitions: &[PartitionId]) -> io::Result<()> {
        let mut driven = self.driven();
        for &partition in partitions {
            if let Entry::Vacant(entry) = driven.entry(partition) {
                entry.insert(self.spawn(partition)?);
            }
        }
        self.show(&driven);
        Ok(())
    }

    /// Gives the threads of partitions that have begun their writers.
    pub fn give(&self, writers: Vec<Box<dyn PartitionWriter>>) {
        let driven = self.driven();
        for writer in writers {
            if let Some(partition) = driven.get(&writer.partition()) {
                // Only its end ends a thread that waits.
                let _ = partition.writer.send(writer);
            }
        }
    }

    /// Ends with a partition, between two batches, and lets go of its writer.
    pub async fn end(&self, partition: PartitionId) {
        let ended = {
            let mut driven = self.driven();
            let ended = driven.remove(&partition);
            self.show(&driven);
            ended
        };
        join(ended).await;
        // What was wrong with it is not this node's any more.
        [WAITING, STOPPED].iter().for_each(|name| self.inner.health.recover_part(name, partition.0));
    }

    /// Ends with all.
    pub(crate) async fn end_all(&self) {
        let all = std::mem::take(&mut *self.driven());
        join(all.into_values()).await;
    }

    /// How far each is; none where it was not said yet which there are.
    pub(crate) fn progress(&self) -> Arc<Vec<Arc<PartitionProgress>>> {
        self.inner.progress.load_full().unwrap_or_default()
    }

    /// Whether it was said which partitions there are, if any.
    pub(crate) fn are_known(&self) -> bool {
        self.inner.progress.load().is_some()
    }

    fn driven(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Driven>> {
        self.inner.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, driven: &BTreeMap<PartitionId, Driven>) {
        let progress = driven.values().map(|partition| Arc::clone(&partition.progress)).collect();
        self.inner.progress.store(Some(Arc::new(progress)));
    }

    /// Starts the thread of a partition, which waits for its writer.
    fn spawn(&self, partition: PartitionId) -> io::Result<Driven> {
        let Inner { log, health, batch_records, .. } = &*self.inner;
        let progress = Arc::new(PartitionProgress::of(log.as_ref(), partition));
        let (stop, (writer, given)) = (Shutdown::new(), mpsc::channel());
        let means =
            Means { log: Arc::clone(log), progress: Arc::clone(&progress), health: health.clone(), stop: stop.clone() };
        let batch_records = *batch_records;
        let builder = thread::Builder::new().name(format!("partition-{}", partition.0));
        let thread = builder.spawn(move || drive(means, &given, batch_records))?;
        Ok(Driven { progress, writer, stop, thread })
    }
}

/// Waits until threads have ended.
async fn join(partitions: impl IntoIterator<Item = Driven>) {
    let stopped = |Driven { stop, writer, thread, .. }| {
        stop.trigger();
        // One that waits for its writer ends as well.
        drop(writer);
        thread
    };
    let threads: Vec<JoinHandle<()>> = partitions.into_iter().map(stopped).collect();
    // Joining blocks, and the threads end within one poll or batch.
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    joined.await.expect("joining threads does not panic");
}

/// All that the thread of a partition does.
fn drive(means: Means, writer: &mpsc::Receiver<Box<dyn PartitionWriter>>, batch_records: usize) {
    let (progress, health) = (Arc::clone(&means.progress), means.health.clone());
    let partition = progress.partition().0;
    let Ok(writer) = writer.recv() else { return tracing::debug!(partition, "no writer came") };
    // What panics beside the applying of a record (eviction, the log's reader) is to show as well.
    let ended = catch_unwind(AssertUnwindSafe(|| Worker::new(means, writer, batch_records).run()));
    let why = match ended {
        Ok(Stopped::Closed) => return tracing::debug!(partition, "partition closed"),
        Ok(stopped) => stopped.to_string(),
        Err(_) => "its thread panicked".to_owned(),
    };
    progress.stopped();
    health.degrade_part(STOPPED, partition, format!("partition {partition} stopped: {why}"));
    tracing::error!(partition, error = %why, "partition stopped; its answers grow stale until a restart");
}
