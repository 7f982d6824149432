//! The node: its partitions, and scans over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
    time::Instant,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use engine::{MemoryBudget, Reader};
use proto::hot_tier::{
    ChecksumRequest, EventsRequest, HotTier, MemoryState, NodeEvents, NodeExplanation, NodeMemory, NodeScan,
    PartitionScan, PartitionStatus, ScanRequest, TableChecksum, TablePartitionStatus, Unavailable, nobody_takes,
};
use tokio::sync::{mpsc, oneshot, watch};
use types::{ApiError, ErrorCode, GapReason, LogGap, Offset, PartitionId, TableKey};

use crate::{
    checksum::Checksums,
    events, explain,
    kept::KeptResults,
    pool::ScanPool,
    scan::{Asked, Outcome, Prepare, Stop},
    work::Work,
};

/// A partition as scans see it.
pub(crate) struct Partition {
    pub(crate) reader: Reader,
    /// Whether everything that was durable at the start has been applied; see [`crate::writer`].
    pub(crate) recovered: watch::Receiver<bool>,
    /// The offset to apply next, as a value to wait for.
    pub(crate) applied: watch::Receiver<Offset>,
    pub(crate) work: Arc<Work>,
}

impl Partition {
    /// Whether its writer is gone, so that it stays as it is while the log goes on.
    fn has_ended(&self) -> bool {
        self.applied.has_changed().is_err()
    }
}

/// A node of the hot tier. Cloning shares it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

type Held = BTreeMap<PartitionId, Arc<Partition>>;

struct Inner {
    /// Not there while the first checkpoints are read.
    partitions: ArcSwapOption<Held>,
    /// The newest placement map that was taken up. Release after what it took away was closed; Acquire before partitions are looked
    /// at for [`HotTier::status`]: one that is still seen then was left open by that map.
    map_version: AtomicU64,
    /// How many the log has, numbered from 0.
    count: u32,
    budget: Arc<MemoryBudget>,
    pool: ScanPool,
    checksums: Checksums,
    kept: Arc<KeptResults>,
    /// Of the versions of what plans meet here: drawn at the start, for segments are named anew then.
    version_seed: u64,
}

impl Node {
    /// A node that will have some of the log's `count` partitions.
    pub(crate) fn new(
        count: u32,
        budget: Arc<MemoryBudget>,
        pool: ScanPool,
        kept: KeptResults,
        version_seed: u64,
    ) -> Self {
        let (partitions, map_version, kept) = (ArcSwapOption::empty(), AtomicU64::new(0), Arc::new(kept));
        let checksums = Checksums::default();
        let inner = Inner { partitions, map_version, count, budget, pool, checksums, kept, version_seed };
        Self { inner: Arc::new(inner) }
    }

    /// Gives it further partitions. One task at a time changes which there are.
    pub(crate) fn open(&self, partitions: BTreeMap<PartitionId, Partition>) {
        let mut held = self.held();
        held.extend(partitions.into_iter().map(|(id, partition)| (id, Arc::new(partition))));
        self.inner.partitions.store(Some(Arc::new(held)));
    }

    /// Takes a partition from it: scans that run end with what they see.
    pub(crate) fn close(&self, partition: PartitionId) {
        let mut held = self.held();
        held.remove(&partition);
        self.inner.partitions.store(Some(Arc::new(held)));
    }

    /// All that a placement map takes from it is closed.
    pub(crate) fn note_map(&self, version: u64) {
        self.inner.map_version.store(version, Release);
    }

    /// Whether it was given partitions.
    fn is_open(&self) -> bool {
        self.inner.partitions.load().is_some()
    }

    fn held(&self) -> Held {
        self.inner.partitions.load().as_deref().cloned().unwrap_or_default()
    }

    /// Its partitions; none while it is not open.
    fn partitions(&self) -> impl Iterator<Item = (PartitionId, Arc<Partition>)> {
        self.held().into_iter()
    }

    /// Runs of ids that could not be written and stay in memory until they can.
    pub(crate) fn unwritten_runs(&self) -> u64 {
        self.partitions().map(|(_, held)| held.reader.status().unwritten_runs).sum()
    }

    /// The records of the log that each partition had to go on without.
    pub(crate) fn gaps(&self) -> Vec<(PartitionId, Arc<Vec<LogGap>>)> {
        self.partitions().map(|(partition, held)| (partition, held.reader.gaps())).collect()
    }

    /// Of each partition, whether everything that was durable at the start has been applied.
    pub(crate) fn recovered(&self) -> Vec<watch::Receiver<bool>> {
        self.partitions().map(|(_, held)| held.recovered.clone()).collect()
    }

    /// The partitions of a request that can be scanned, and those that cannot.
    fn divide(&self, partitions: &[PartitionId]) -> (Vec<Arc<Partition>>, Vec<(PartitionId, Unavailable)>) {
        let (mut ready, mut unavailable) = (Vec::new(), Vec::new());
        let opened = self.inner.partitions.load();
        for &partition in partitions {
            match opened.as_ref().and_then(|held| held.get(&partition)) {
                // Which of the log's partitions it holds is not known before.
                None if opened.is_none() && partition.0 < self.inner.count => {
                    unavailable.push((partition, Unavailable::Recovering));
                }
                None => unavailable.push((partition, Unavailable::Unreachable)),
                Some(held) if held.has_ended() => unavailable.push((partition, Unavailable::Unreachable)),
                Some(held) if !*held.recovered.borrow() => unavailable.push((partition, Unavailable::Recovering)),
                Some(held) => ready.push(Arc::clone(held)),
            }
        }
        (ready, unavailable)
    }
}

/// A scan under way.
struct Begun {
    outcome: oneshot::Receiver<Outcome>,
    unavailable: Vec<(PartitionId, Unavailable)>,
    stop: StopOnDrop,
    timed: Timed,
}

/// Counts the time until it is dropped as work of partitions that are scanned.
struct Timed {
    partitions: Vec<Arc<Partition>>,
    began: Instant,
}

impl Drop for Timed {
    fn drop(&mut self) {
        // Partitions of one table are alike, so each has an equal part of the time.
        let each = self.began.elapsed() / u32::try_from(self.partitions.len().max(1)).unwrap_or(u32::MAX);
        self.partitions.iter().for_each(|held| held.work.note_scan(each));
    }
}

/// The outcome of work that panicked: nothing else drops the reply unsent, and the pool has logged it.
fn lost(_: oneshot::error::RecvError) -> Outcome {
    Err(ApiError::internal("the scan failed; the server's log says why"))
}

impl Node {
    /// Begins a scan when the partitions hold what must be applied.
    async fn begin(
        &self,
        request: ScanRequest,
        each: Option<mpsc::UnboundedSender<PartitionScan>>,
    ) -> Result<Begun, ApiError> {
        let (mut ready, mut unavailable) = self.divide(&request.partitions);
        // The others go on without those that were taken from this node meanwhile.
        let closed = wait(&ready, &request.after, request.deadline, "after").await?;
        ready.retain(|held| !closed.contains(&held.reader.partition()));
        unavailable.extend(closed.into_iter().map(|partition| (partition, Unavailable::Unreachable)));
        let at = |partition| request.at.iter().find(|(of, _)| *of == partition).map(|(_, offset)| *offset);
        let readers = ready.iter().map(|held| (held.reader.clone(), at(held.reader.partition()))).collect();
        let asked = Asked { plan: request.plan, readers, known: request.known, each };
        let stop = StopOnDrop(Arc::new(Stop::at(request.deadline)));
        let Inner { pool, kept, version_seed, .. } = &*self.inner;
        let timed = Timed { partitions: ready, began: Instant::now() };
        let outcome = Prepare::submit(pool.queue(), asked, *version_seed, Arc::clone(kept), Arc::clone(&stop.0));
        Ok(Begun { outcome, unavailable, stop, timed })
    }
}

impl NodeMemory for Node {
    fn memory(&self) -> MemoryState {
        let budget = &self.inner.budget;
        // First what somebody can do something about.
        match (budget.ids_over_share(), budget.is_exhausted()) {
            (true, _) => MemoryState::IdsFull,
            (false, true) => MemoryState::Full,
            (false, false) => MemoryState::Room,
        }
    }
}

/// Waits until the partitions hold what must be applied, which `field` of the request says; gives those that were closed meanwhile.
async fn wait(
    ready: &[Arc<Partition>],
    after: &[(PartitionId, Offset)],
    deadline: Instant,
    field: &'static str,
) -> Result<BTreeSet<PartitionId>, ApiError> {
    let mut closed = BTreeSet::new();
    for held in ready {
        let partition = held.reader.partition();
        for &(_, offset) in after.iter().filter(|(wanted, _)| *wanted == partition) {
            let mut applied = held.applied.clone();
            let reached = applied.wait_for(|next| *next >= offset);
            match tokio::time::timeout_at(deadline.into(), reached).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => {
                    closed.insert(partition);
                }
                Err(_) => return Err(not_covered(partition, offset, field)),
            }
        }
    }
    Ok(closed)
}

/// As [`wait`], for those that need all of the partitions.
async fn wait_for_all(
    ready: &[Arc<Partition>],
    after: &[(PartitionId, Offset)],
    deadline: Instant,
    field: &'static str,
) -> Result<(), ApiError> {
    match wait(ready, after, deadline, field).await?.first() {
        Some(partition) => Err(ApiError::unavailable(format!("partition {partition} is closed"))),
        None => Ok(()),
    }
}

fn not_covered(partition: PartitionId, offset: Offset, field: &'static str) -> ApiError {
    let message = format!("partition {partition} did not reach offset {offset} in time; the data is safe, ask again");
    ApiError::new(ErrorCode::DeadlineExceeded, message).with_field(field)
}

#[async_trait]
impl HotTier for Node {
    async fn scan(&self, request: ScanRequest) -> Result<NodeScan, ApiError> {
        let Begun { outcome, unavailable, timed, stop: _stop } = self.begin(request, None).await?;
        let scans = outcome.await.unwrap_or_else(lost)?;
        drop(timed);
        Ok(NodeScan { scans, unavailable })
    }

    async fn scan_each(
        &self,
        request: ScanRequest,
        found: mpsc::Sender<PartitionScan>,
    ) -> Result<Vec<(PartitionId, Unavailable)>, ApiError> {
        let (each, mut done) = mpsc::unbounded_channel();
        let Begun { mut outcome, unavailable, timed, stop: _stop } = self.begin(request, Some(each)).await?;
        let rest = loop {
            tokio::select! {
                // First those that are done: all of them are here before the outcome is.
                biased;
                Some(scan) = done.recv() => found.send(scan).await.map_err(|_| nobody_takes())?,
                ended = &mut outcome => break ended.unwrap_or_else(lost)?,
            }
        };
        drop(timed);
        let before = std::iter::from_fn(|| done.try_recv().ok());
        for scan in before.chain(rest).collect::<Vec<_>>() {
            found.send(scan).await.map_err(|_| nobody_takes())?;
        }
        Ok(unavailable)
    }

    async fn applied(&self, after: Vec<(PartitionId, Offset)>, deadline: Instant) -> Result<(), ApiError> {
        let partitions: Vec<_> = after.iter().map(|(partition, _)| *partition).collect();
        let (ready, _) = self.divide(&partitions);
        wait_for_all(&ready, &after, deadline, "after").await
    }

    async fn events(&self, request: EventsRequest) -> Result<NodeEvents, ApiError> {
        let (ready, unavailable) = self.divide(&request.partitions);
        wait_for_all(&ready, &request.after, request.deadline, "after").await?;
        // Nothing is found before all that is to be shown has been applied here, too.
        wait_for_all(&ready, request.at.as_deref().unwrap_or_default(), request.deadline, "cursor").await?;
        let readers = ready.iter().map(|held| held.reader.clone()).collect();
        let stop = StopOnDrop(Arc::new(Stop::at(request.deadline)));
        let page = events::page(self.inner.pool.queue(), request, readers, &stop.0).await?;
        Ok(NodeEvents { events: page.events, more: page.more, covered: page.covered, unavailable })
    }

    async fn explain(&self, request: ScanRequest) -> Result<NodeExplanation, ApiError> {
        let (ready, unavailable) = self.divide(&request.partitions);
        wait_for_all(&ready, &request.after, request.deadline, "after").await?;
        let readers = ready.iter().map(|held| held.reader.clone()).collect();
        let queue = self.inner.pool.queue();
        let stop = StopOnDrop(Arc::new(Stop::at(request.deadline)));
        let partitions = explain::partitions(queue, request.plan, readers, &stop.0).await?;
        Ok(NodeExplanation { partitions, unavailable, threads: queue.threads() })
    }

    async fn checksum(&self, request: ChecksumRequest) -> Result<TableChecksum, ApiError> {
        let (ready, unavailable) = self.divide(&[request.partition]);
        if let Some((partition, why)) = unavailable.first() {
            return Err(ApiError::unavailable(format!("partition {partition} is {}", why.name())));
        }
        wait_for_all(&ready, &[(request.partition, request.at)], request.deadline, "at").await?;
        let [held] = &ready[..] else { return Err(ApiError::internal("a checksum is made of one partition")) };
        let stop = StopOnDrop(Arc::new(Stop::at(request.deadline)));
        let Inner { checksums, pool, .. } = &*self.inner;
        checksums.of_rows(request, held.reader.clone(), pool.queue(), Arc::clone(&stop.0)).await
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        if !self.is_open() {
            return Err(ApiError::unavailable("the node reads its checkpoints"));
        }
        let map_version = self.inner.map_version.load(Acquire);
        Ok(self.partitions().map(|(_, partition)| partition_status(&partition, map_version)).collect())
    }

    async fn table_status(&self, key: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        Ok(self.partitions().filter_map(|(_, held)| table_status(&held.reader, key)).collect())
    }
}

fn partition_status(partition: &Partition, map_version: u64) -> PartitionStatus {
    let status = partition.reader.status();
    PartitionStatus {
        partition: status.partition,
        next_offset: status.next_offset,
        append_time: status.append_time,
        rows: status.rows,
        bytes: status.bytes,
        events: partition.work.events(),
        scan_us: partition.work.scan_us(),
        map_version,
        whole: *partition.recovered.borrow() && gaps_are_everybodys(&partition.reader.gaps()),
    }
}

/// Whether what is missing is missing on every replica: what is damaged in the log, and not what it had let go before it was read here.
fn gaps_are_everybodys(gaps: &[LogGap]) -> bool {
    gaps.iter().all(|gap| gap.reason != GapReason::Gone)
}

fn table_status(reader: &Reader, key: TableKey) -> Option<TablePartitionStatus> {
    let status = reader.table_status(key)?;
    Some(TablePartitionStatus {
        partition: status.partition,
        next_offset: status.next_offset,
        event_time_max: status.event_time_max,
        last_events_at: status.last_events_at,
        live: status.live,
        evicted: status.evicted,
        duplicate: status.duplicate,
        conflict: status.conflict,
        erased: 0,
        late: status.late,
    })
}

/// Stops the scan's work when the request is dropped: the client left, or its time was up.
struct StopOnDrop(Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use engine::Limits;
    use types::{Generation, TableId, TenantId};

    use super::*;
    use crate::NodeWriter;

    /// Goal: before it is open a node says of its partitions that they recover, and nothing of how far they are; partitions
    /// that it will never have are unreachable all the time, and one whose writer ended, or that was taken from it, is so from then on.
    #[tokio::test]
    async fn a_node_that_is_not_open_says_so() {
        let budget = Arc::new(MemoryBudget::new(1 << 20));
        let node = Node::new(2, Arc::clone(&budget), ScanPool::start(1).unwrap(), KeptResults::new(0), 1);
        let asked = [0, 1, 2].map(PartitionId);
        let away = |why| move |partition: u32| (PartitionId(partition), why);
        let key = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
        let (ready, unavailable) = node.divide(&asked);
        assert!(ready.is_empty());
        let mut expected: Vec<_> = [0, 1].map(away(Unavailable::Recovering)).into();
        expected.extend([2].map(away(Unavailable::Unreachable)));
        assert_eq!(unavailable, expected);
        assert_eq!(node.status().await.unwrap_err().code, ErrorCode::Unavailable);
        assert_eq!(node.table_status(key).await.unwrap(), []);

        let (mut held, mut writers) = (BTreeMap::new(), Vec::new());
        for partition in [0, 1].map(PartitionId) {
            let (writer, reader) = engine::partition(partition, Offset::ZERO, Limits::default(), Arc::clone(&budget));
            let mut writer = NodeWriter::new(writer);
            if partition.0 == 1 {
                proto::hot_tier::PartitionWriter::recovered(&mut writer);
            }
            let (recovered, applied) = (NodeWriter::recovered(&writer), writer.applied());
            held.insert(partition, Partition { reader, recovered, applied, work: Arc::default() });
            writers.push(writer);
        }
        node.open(held);
        let (ready, unavailable) = node.divide(&asked);
        assert_eq!(ready.iter().map(|held| held.reader.partition()).collect::<Vec<_>>(), [PartitionId(1)]);
        let expected = [away(Unavailable::Recovering)(0), away(Unavailable::Unreachable)(2)];
        assert_eq!(unavailable, expected);
        assert_eq!(node.status().await.unwrap().len(), 2);

        let expected = [away(Unavailable::Recovering)(0), away(Unavailable::Unreachable)(1)];
        // The writer of partition 1 ends, as after an error.
        writers.pop();
        let (ready, unavailable) = node.divide(&asked[..2]);
        assert!(ready.is_empty());
        assert_eq!(unavailable, expected);
        assert_eq!(node.status().await.unwrap().len(), 2);

        node.close(PartitionId(1));
        let (ready, unavailable) = node.divide(&asked[..2]);
        assert!(ready.is_empty());
        assert_eq!(unavailable, expected);
        assert_eq!(node.status().await.unwrap().len(), 1);
    }
}
