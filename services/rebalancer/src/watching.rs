//! What whoever makes the map sees of the moves in it: targets that hold what their sources hold, moves that take too long, and
//! those of which nobody goes by the older map any more.
//!
//! All of it is known to this process alone, from its own looks; one that takes over looks anew.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use metadata::MetadataStore;
use placement::{Handover, Phase, PlacementMap, Seen};
use proto::hot_tier::{HotTier, PartitionStatus, compare_replicas};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};
use types::{ApiError, NodeId, PartitionId};

/// The nodes of the hot tier that live, as they are reached from here.
pub type HotTiers = watch::Receiver<Arc<BTreeMap<NodeId, Arc<dyn HotTier>>>>;

/// A move that is not verified after so long is given up: its target is stuck, or the log comes faster than it reads.
const COPY_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How often a target is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long one look may take: the sums of a partition are made of all of its rows.
const LOOK_TIMEOUT: Duration = Duration::from_secs(120);

/// See the module.
pub(crate) struct Watching {
    store: Arc<dyn MetadataStore>,
    nodes: HotTiers,
    grace: Duration,
    /// Told when there is a verdict.
    wake: Arc<Notify>,
    moves: BTreeMap<PartitionId, Watched>,
}

struct Watched {
    step: Handover,
    since: Instant,
    /// Whether the target holds what the source holds, once that is known.
    is_alike: Arc<OnceLock<bool>>,
    comparing: Option<AbortHandle>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(comparing) = &self.comparing {
            comparing.abort();
        }
    }
}

impl Watching {
    /// `grace`: how long a source holds on what it gave away.
    pub(crate) fn new(store: Arc<dyn MetadataStore>, nodes: HotTiers, grace: Duration, wake: Arc<Notify>) -> Self {
        Self { store, nodes, grace, wake, moves: BTreeMap::new() }
    }

    /// What is seen of the moves of a map.
    pub(crate) fn look(&mut self, map: &PlacementMap, now: Instant) -> Seen {
        self.moves.retain(|partition, watched| map.moves.get(partition) == Some(&watched.step));
        for (&partition, &step) in &map.moves {
            if !self.moves.contains_key(&partition) {
                let watched = self.watch(partition, step, map.version, now);
                self.moves.insert(partition, watched);
            }
        }
        let mut seen = Seen::default();
        for (&partition, watched) in &self.moves {
            let waited = now.saturating_duration_since(watched.since);
            let list = match (watched.step.phase, watched.is_alike.get()) {
                (Phase::Copying, Some(true)) => &mut seen.verified,
                (Phase::Copying, Some(false)) => &mut seen.failed,
                (Phase::Copying, None) if waited >= COPY_TIMEOUT => &mut seen.failed,
                (Phase::Leaving, _) if waited >= self.grace => &mut seen.over,
                _ => continue,
            };
            list.insert(partition);
        }
        seen
    }

    /// Forgets all: another makes the map.
    pub(crate) fn stop(&mut self) {
        self.moves.clear();
    }

    /// `version`: of a map that has the step.
    fn watch(&self, partition: PartitionId, step: Handover, version: u64, since: Instant) -> Watched {
        let is_alike = Arc::new(OnceLock::new());
        let comparing = (step.phase == Phase::Copying).then(|| {
            let (store, nodes) = (Arc::clone(&self.store), self.nodes.clone());
            let (verdict, wake) = (Arc::clone(&is_alike), Arc::clone(&self.wake));
            let comparing = async move {
                let _ = verdict.set(compare(store.as_ref(), &nodes, partition, step, version).await);
                wake.notify_one();
            };
            tokio::spawn(comparing).abort_handle()
        });
        Watched { step, since, is_alike, comparing }
    }
}

/// Waits until the target of a move answers for all that the source had a moment ago, and says whether both hold the same rows.
async fn compare(
    store: &dyn MetadataStore,
    nodes: &HotTiers,
    partition: PartitionId,
    step: Handover,
    version: u64,
) -> bool {
    loop {
        match look(store, nodes, partition, step, version).await {
            Ok(Some(is_alike)) => return is_alike,
            Ok(None) => {}
            Err(error) => tracing::debug!(partition = partition.0, %error, "a move cannot be looked at now"),
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Whether source and target hold the same rows of every table at one offset; `None`: that cannot be said yet.
async fn look(
    store: &dyn MetadataStore,
    nodes: &HotTiers,
    partition: PartitionId,
    step: Handover,
    version: u64,
) -> Result<Option<bool>, ApiError> {
    let deadline = Instant::now() + LOOK_TIMEOUT;
    let reached = Arc::clone(&nodes.borrow());
    let (Some(source), Some(target)) = (reached.get(&step.from), reached.get(&step.to)) else { return Ok(None) };
    let of_partition = |all: Vec<PartitionStatus>| all.into_iter().find(|status| status.partition == partition);
    let Some(at_source) = of_partition(source.status().await?) else { return Ok(None) };
    // What the source has by now the target must have by then, and what comes in between is as much as a look takes.
    match of_partition(target.status().await?) {
        // It may hold it from before, and still be about to let go of it.
        Some(at_target) if at_target.map_version < version => return Ok(None),
        Some(at_target) if at_target.next_offset >= at_source.next_offset => {}
        Some(_) => {
            target.applied(vec![(partition, at_source.next_offset)], deadline).await?;
            return Ok(None);
        }
        None => return Ok(None),
    }
    let tables = store.tables(None).await.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let of_here = tables.iter().filter(|stored| !stored.ended && stored.table.partitions.contains(&partition));
    let both = [(step.from, Arc::clone(source)), (step.to, Arc::clone(target))];
    for stored in of_here {
        match compare_replicas(&both, stored.table.key, partition, deadline).await?.agree() {
            Some(true) => {}
            Some(false) => {
                let (partition, from, to, table) = (partition.0, step.from.0, step.to.0, &stored.table.name);
                tracing::error!(partition, from, to, ?table, "the target of a move holds other rows than its source");
                return Ok(Some(false));
            }
            None => return Ok(None),
        }
    }
    Ok(Some(true))
}
