//! Results of partitions as they arrive, merged before all are there.
//!
//! 1. Partitions are merged in their order, whoever comes first: a result waits for those before it. So an answer does not depend on
//!    who was fast.
//! 2. Of two results of one partition (a slow node's request was made once more elsewhere) the first counts, with what it covers.
//! 3. What is ready is merged off the network threads, where it is enough to be worth it; the end of a query merges the rest.
//! 4. What has arrived and is not merged takes no more than the plan allows to a node: a query whose results wait for those before
//!    them beyond that ends with an error. Holding back who sends was left (docs/decisions/0022-the-hot-tier-across-processes.md).

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use proto::hot_tier::PartitionScan;
use query::{Cancel, Partial, PartialsMerge, Plan};
use tokio::sync::OwnedSemaphorePermit;
use types::{ApiError, NodeId, PartitionId};

/// Results that are merged before the others are there, bytes at least: less costs more to hand over than to merge later.
const READY_BYTES_MIN: usize = 256 << 10;

/// The merge of a query whose results are still coming.
pub(crate) struct EarlyMerge {
    plan: Arc<Plan>,
    deadline: Instant,
    /// Set when nobody waits for the query any more. Relaxed: it only has to be seen soon.
    left: AtomicBool,
    /// The query's place, which the merge keeps until it ends.
    _place: Arc<OwnedSemaphorePermit>,
    merged: Mutex<Result<PartialsMerge, ApiError>>,
    /// How much has to be ready.
    ready_bytes_min: usize,
}

impl EarlyMerge {
    pub(crate) fn new(plan: Arc<Plan>, deadline: Instant, place: &Arc<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self::of(plan, deadline, place, READY_BYTES_MIN))
    }

    fn of(plan: Arc<Plan>, deadline: Instant, place: &Arc<OwnedSemaphorePermit>, ready_bytes_min: usize) -> Self {
        let (merged, left) = (Mutex::new(Ok(PartialsMerge::new(&plan))), AtomicBool::new(false));
        Self { plan, deadline, left, _place: Arc::clone(place), merged, ready_bytes_min }
    }

    /// What was merged. Waits for a merge that is under way.
    ///
    /// # Errors
    /// Those of the merge.
    pub(crate) fn take(&self) -> Result<PartialsMerge, ApiError> {
        mem::replace(&mut *lock(&self.merged), Ok(PartialsMerge::new(&self.plan)))
    }

    /// Nobody waits for it any more.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Merges what is ready until nothing is.
    fn run(&self, arrivals: &Arrivals) {
        loop {
            // Taken before the results are: whoever takes what was merged, takes the rest after it.
            let mut merged = lock(&self.merged);
            let ready = arrivals.take_ready();
            let Ok(merge) = &mut *merged else { return };
            if ready.is_empty() {
                return;
            }
            let expired = || Instant::now() >= self.deadline;
            let cancel = Cancel::new(&self.left, &expired);
            // Each goes as soon as it is merged.
            let done = ready.into_iter().try_for_each(|partial| {
                merge.absorb(&self.plan, &partial, &cancel)?;
                arrivals.let_go(partial.bytes());
                Ok(())
            });
            if let Err(error) = done {
                *merged = Err(error);
            }
        }
    }
}

/// What has arrived of some partitions.
pub(crate) struct Arrivals {
    plan: Arc<Plan>,
    early: Option<Arc<EarlyMerge>>,
    state: Mutex<State>,
}

struct State {
    /// Partitions whose results may come still.
    expected: BTreeSet<PartitionId>,
    arrived: BTreeMap<PartitionId, Arrived>,
    /// Bytes of results that are not merged.
    held: usize,
    /// Whether somebody merges.
    busy: bool,
}

/// A partition that has arrived; its result may be merged already.
pub(crate) struct Arrived {
    pub(crate) node: NodeId,
    pub(crate) scan: PartitionScan,
    pub(crate) merged: bool,
}

impl Arrivals {
    /// Nothing yet of these partitions of a plan, and where they are merged before all are there, if they are.
    pub(crate) fn new(plan: &Arc<Plan>, expected: BTreeSet<PartitionId>, early: Option<Arc<EarlyMerge>>) -> Arc<Self> {
        let state = State { expected, arrived: BTreeMap::new(), held: 0, busy: false };
        Arc::new(Self { plan: Arc::clone(plan), early, state: Mutex::new(state) })
    }

    /// Takes what a node found in a partition.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where more than the plan allows has to wait.
    pub(crate) fn take(self: &Arc<Self>, node: NodeId, scan: PartitionScan) -> Result<(), ApiError> {
        let mut state = lock(&self.state);
        if !state.expected.contains(&scan.partition) {
            return Ok(());
        }
        state.held += bytes_of(&scan);
        self.plan.allow_bytes(state.held)?;
        // One that has a known version may be asked for its result later.
        if scan.partial.is_some() {
            state.expected.remove(&scan.partition);
        }
        state.arrived.insert(scan.partition, Arrived { node, scan, merged: false });
        let Some(early) = self.early.as_ref().filter(|_| !state.busy) else { return Ok(()) };
        if state.ready().map(|arrived| bytes_of(&arrived.scan)).sum::<usize>() >= early.ready_bytes_min {
            state.busy = true;
            let (early, arrivals) = (Arc::clone(early), Arc::clone(self));
            tokio::task::spawn_blocking(move || early.run(&arrivals));
        }
        Ok(())
    }

    /// So many bytes of results are merged.
    fn let_go(&self, bytes: usize) {
        lock(&self.state).held -= bytes;
    }

    /// Whether results are merged before all are there.
    pub(crate) fn merges_early(&self) -> bool {
        self.early.is_some()
    }

    /// Partitions that have a known version and no result, and the nodes that say so.
    pub(crate) fn unchanged(&self) -> BTreeMap<PartitionId, NodeId> {
        let state = lock(&self.state);
        let unchanged = state.arrived.iter().filter(|(partition, _)| state.expected.contains(*partition));
        unchanged.map(|(partition, arrived)| (*partition, arrived.node)).collect()
    }

    /// Partitions of which neither a result nor a known version is there, or the version alone.
    pub(crate) fn expected(&self) -> BTreeSet<PartitionId> {
        lock(&self.state).expected.clone()
    }

    /// What was known of a partition is of no use any more.
    pub(crate) fn forget(&self, partition: PartitionId) {
        let mut state = lock(&self.state);
        let forgotten = state.arrived.remove(&partition);
        state.held -= forgotten.map_or(0, |arrived| bytes_of(&arrived.scan));
    }

    /// All that has arrived; nothing of it is merged from now on.
    pub(crate) fn close(&self) -> BTreeMap<PartitionId, Arrived> {
        let mut state = lock(&self.state);
        state.expected.clear();
        mem::take(&mut state.arrived)
    }

    /// The results that nothing that is still to come stands before; nobody merges where there is none.
    fn take_ready(&self) -> Vec<Partial> {
        let mut state = lock(&self.state);
        let ready: Vec<Partial> = state
            .ready()
            .filter_map(|arrived| {
                arrived.merged = true;
                arrived.scan.partial.take()
            })
            .collect();
        state.busy = !ready.is_empty();
        ready
    }
}

impl State {
    /// Those that are not merged and that nothing that is still to come stands before.
    fn ready(&mut self) -> impl Iterator<Item = &mut Arrived> {
        let end = self.expected.first().copied();
        let before =
            self.arrived.range_mut(..).take_while(move |(partition, _)| end.is_none_or(|end| **partition < end));
        before.map(|(_, arrived)| arrived).filter(|arrived| !arrived.merged)
    }
}

fn bytes_of(scan: &PartitionScan) -> usize {
    scan.partial.as_ref().map_or(0, Partial::bytes)
}

/// A lock whose holders cannot panic between changes that belong together.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::hot_tier::Version;
    use query::{Finishing, QueryLimits};
    use tokio::sync::Semaphore;
    use types::{
        Generation, Offset, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings, TenantId,
    };

    use super::*;

    const PARTITIONS: u32 = 8;

    fn plan() -> Arc<Plan> {
        let table = Table {
            key: TableKey { tenant: TenantId::DEFAULT, table: TableId(1), generation: Generation(1) },
            name: TableName::new("shop", "events"),
            partitions: (0..PARTITIONS).map(PartitionId).collect(),
            partition_by: None,
            partition_seed: 0,
            identity_seed: 0,
            schema: Schema::from_parts(SchemaVersion(1), Vec::new()),
            settings: TableSettings::default(),
        };
        let json = br#"{"namespace": "shop", "table": "events", "start_time": 0, "end_time": 9, "interval_us": 1}"#;
        let query = query::parse(json, &QueryLimits::default()).unwrap();
        Arc::new(query::plan(&query, &[Arc::new(table)]).unwrap())
    }

    fn scan(plan: &Plan, partition: u32, next_offset: u64) -> PartitionScan {
        let (partition, left) = (PartitionId(partition), false.into());
        let partial = query::merge(plan, partition, Vec::new(), &Cancel::new(&left, &|| false)).unwrap();
        let (version, next_offset) = (Version(1), Offset(next_offset));
        PartitionScan { partition, partial: Some(partial), version, next_offset, lacks_before: vec![], gaps: vec![] }
    }

    /// Goal: whoever comes first, partitions are merged in their order as soon as those before them are, the rest is left for the
    /// end, and of two results of a partition the first counts.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn partitions_are_merged_in_their_order() {
        let (plan, place) = (plan(), Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()));
        let deadline = Instant::now() + Duration::from_secs(60);
        let left = false.into();
        let cancel = Cancel::new(&left, &|| false);
        for missing in [0, 3, PARTITIONS] {
            let early = Arc::new(EarlyMerge::of(Arc::clone(&plan), deadline, &place, 0));
            let partitions = (0..PARTITIONS).map(PartitionId).collect();
            let arrivals = Arrivals::new(&plan, partitions, Some(Arc::clone(&early)));
            for partition in [5, 1, 0, 7, 2, 6, 4, 3].into_iter().filter(|partition| *partition != missing) {
                arrivals.take(NodeId(1), scan(&plan, partition, 7)).unwrap();
                arrivals.take(NodeId(2), scan(&plan, partition, 9)).unwrap();
            }
            while lock(&arrivals.state).busy {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let arrived = arrivals.close();
            let of_first = |arrived: &Arrived| arrived.node == NodeId(1) && arrived.scan.next_offset == Offset(7);
            assert!(arrived.values().all(of_first));
            let merged = arrived.values().filter(|arrived| arrived.merged).count();
            assert_eq!(
                (merged, arrived.len()),
                (missing as usize, (PARTITIONS - u32::from(missing < PARTITIONS)) as usize)
            );
            let rest: Vec<Partial> = arrived.into_values().filter_map(|arrived| arrived.scan.partial).collect();
            assert_eq!(rest.len(), (PARTITIONS as usize - missing as usize).saturating_sub(1));
            let done = early.take().unwrap();
            assert_eq!(done.is_empty(), missing == 0);
            Finishing::after(&plan, done, rest, &cancel).unwrap();
        }
    }
}
