//! The partitions that the placement map gives a node: it opens what is new and closes what it lost, as the map says.
//!
//! 1. What it holds of a partition on its own disk is enough where the log goes on from there. Else it takes the newest checkpoint
//!    of another holder first. Where the log lacks what would come next, it waits for one as long as another holder may have it,
//!    and answers for nothing of the partition meanwhile; where nobody has one, it goes on with what the log has.
//! 2. A partition that cannot be opened is no end of the others: its health names it, and a checkpoint of another holder takes the
//!    place of what lies here, once. One that is only on its way to here is given up, its move ends in time, and what came is removed.
//! 3. The map goes on being followed while checkpoints arrive: what is not given any more is not waited for.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use config::Config;
use event_log::EventLog;
use hot_tier::HotTierError;
use placement::{Handover, Phase, PlacementMap};
use service::Shutdown;
use stream_ingester::IngesterError;
use tokio::{sync::watch, task::JoinSet};
use types::{NodeId, Offset, PartitionId};

use super::{
    compose::{ComposeError, storage},
    sources::{Need, Sources},
    with_causes,
};

/// A node whose partitions change.
pub(crate) struct Assigned {
    pub(crate) node: NodeId,
    pub(crate) config: Config,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) hot_tier: hot_tier::Partitions,
    pub(crate) ingester: stream_ingester::Partitions,
    pub(crate) sources: Sources,
}

/// What a node has.
#[derive(Default)]
struct Held {
    /// Whether it saw a map.
    began: bool,
    open: BTreeSet<PartitionId>,
    /// Partitions whose checkpoints arrive, and what ends that.
    fetching: BTreeMap<PartitionId, Shutdown>,
    /// Those of which as much has arrived as there is.
    fetched: BTreeSet<PartitionId>,
    /// Those that were to come here and could not be opened.
    refused: BTreeSet<PartitionId>,
    /// Those that this node is to answer for and that could not be opened.
    unopened: BTreeSet<PartitionId>,
    /// Those of which a checkpoint came in the place of one that could not be opened.
    replaced: BTreeSet<PartitionId>,
}

impl Held {
    /// Forgets what is not given any more; those are to be closed.
    fn leave(&mut self, given: &BTreeSet<PartitionId>) -> BTreeSet<PartitionId> {
        let is_gone = |partition: &&PartitionId| !given.contains(partition);
        self.fetching.iter().filter(|(partition, _)| is_gone(partition)).for_each(|(_, stop)| stop.trigger());
        let known = self.open.iter().chain(&self.unopened).chain(self.fetching.keys());
        let gone = known.filter(is_gone).copied().collect();
        for of in [&mut self.open, &mut self.unopened, &mut self.fetched, &mut self.replaced] {
            of.retain(|partition| given.contains(partition));
        }
        gone
    }

    /// Whether nothing has been done about a partition that is given.
    fn is_new(&self, partition: PartitionId) -> bool {
        !self.fetching.contains_key(&partition)
            && [&self.open, &self.refused, &self.unopened].iter().all(|of| !of.contains(&partition))
    }

    fn note_fetched(&mut self, Fetched { partition, came }: Fetched) {
        let was_stopped = self.fetching.remove(&partition).is_some_and(|stop| stop.is_triggered());
        if was_stopped {
            return;
        }
        self.fetched.insert(partition);
        if came && self.unopened.remove(&partition) {
            self.replaced.insert(partition);
        }
    }
}

/// The end of a fetch.
struct Fetched {
    partition: PartitionId,
    /// Whether a checkpoint came.
    came: bool,
}

type Fetches = JoinSet<Fetched>;

impl Assigned {
    /// Follows the map until `stop`, or until nobody changes it any more.
    ///
    /// # Errors
    /// A partition cannot be opened: what this node has of it needs somebody's decision.
    pub(crate) async fn follow(
        self,
        mut placement: watch::Receiver<Arc<PlacementMap>>,
        stop: Shutdown,
    ) -> Result<(), ComposeError> {
        let dir = self.config.data_dir.clone();
        if let Err(error) = blocking(move || hot_tier::Arriving::remove_remains(&dir)).await {
            tracing::warn!(%error, "what is left of checkpoints that had not arrived cannot be removed");
        }
        let (mut held, mut fetches) = (Held::default(), Fetches::new());
        loop {
            let map = Arc::clone(&placement.borrow_and_update());
            if map.version > 0 {
                self.take(&map, &mut held, &mut fetches).await?;
                self.hot_tier.note_map(map.version);
            }
            tokio::select! {
                () = stop.wait() => break,
                changed = placement.changed() => if changed.is_err() { break },
                Some(fetched) = fetches.join_next() => {
                    held.note_fetched(fetched.expect("fetching a checkpoint does not panic"));
                }
            }
        }
        held.fetching.values().for_each(Shutdown::trigger);
        while fetches.join_next().await.is_some() {}
        Ok(())
    }

    /// Has what the map gives this node, and nothing else, but for what still arrives.
    async fn take(&self, map: &PlacementMap, held: &mut Held, fetches: &mut Fetches) -> Result<(), ComposeError> {
        let given = map.held_by(self.node);
        let closed = held.leave(&given);
        held.refused.retain(|partition| self.is_arriving(map, *partition));
        let new: Vec<PartitionId> = given.iter().copied().filter(|partition| held.is_new(*partition)).collect();
        let lacking = self.lacking(&new, &held.fetched).await;
        let (to_fetch, to_open): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|partition| lacking.contains_key(partition) && self.sources.any(*partition));
        // What this node is to answer for is to be recovered from here on: it is not healthy before that came, too.
        let awaited: Vec<_> = to_fetch.iter().copied().filter(|partition| !self.is_arriving(map, *partition)).collect();
        self.ingester.begin(&awaited).map_err(IngesterError::Thread)?;
        for partition in to_fetch {
            self.fetch(partition, lacking[&partition], held, fetches);
        }
        let (arriving, replicas): (Vec<_>, Vec<_>) =
            to_open.into_iter().partition(|partition| self.is_arriving(map, *partition));
        if !replicas.is_empty() || !arriving.is_empty() || !closed.is_empty() {
            let (node, version) = (self.node.0, map.version);
            let opened = replicas.len() + arriving.len();
            tracing::info!(node, version, opened, closed = closed.len(), "takes what the map gives it");
        }
        // A node that is given nothing is open, too.
        if !std::mem::replace(&mut held.began, true) || !replicas.is_empty() {
            self.open_replicas(&replicas, held).await?;
        }
        for partition in arriving {
            self.open_arriving(partition, held).await?;
        }
        for partition in closed {
            self.ingester.end(partition).await;
            self.hot_tier.close(partition).await;
        }
        let can_come = |partition: &PartitionId| {
            let is_tried = held.replaced.contains(partition) || held.fetching.contains_key(partition);
            !is_tried && self.sources.any(*partition)
        };
        for partition in held.unopened.iter().copied().filter(can_come).collect::<Vec<_>>() {
            self.fetch(partition, Need::Unopened, held, fetches);
        }
        Ok(())
    }

    /// Opens what this node is to answer for; what cannot be opened is left, and named.
    async fn open_replicas(&self, replicas: &[PartitionId], held: &mut Held) -> Result<(), ComposeError> {
        match self.open(replicas).await {
            Ok(()) => {
                held.open.extend(replicas);
                return Ok(());
            }
            Err(error) if !is_of_partition(&error) => return Err(error),
            // Which one it is shows where each is opened alone.
            Err(_) => {}
        }
        for &partition in replicas {
            self.ingester.end(partition).await;
            match self.open(&[partition]).await {
                Ok(()) => {
                    held.open.insert(partition);
                }
                Err(error) if !is_of_partition(&error) => return Err(error),
                Err(error) => {
                    self.ingester.end(partition).await;
                    let why = with_causes(&error);
                    tracing::error!(partition = partition.0, error = why, "a partition cannot be opened");
                    self.hot_tier.note_unopened(partition, &format!("it cannot be opened: {why}"));
                    held.unopened.insert(partition);
                }
            }
        }
        Ok(())
    }

    /// Opens what is on its way to here; what cannot be opened is let go of.
    async fn open_arriving(&self, partition: PartitionId, held: &mut Held) -> Result<(), ComposeError> {
        match self.open(&[partition]).await {
            Ok(()) => {
                held.open.insert(partition);
            }
            Err(ComposeError::HotTier(HotTierError::Stopped)) => return Err(HotTierError::Stopped.into()),
            Err(error) => {
                let why = with_causes(&error);
                tracing::error!(partition = partition.0, error = why, "what was to come here cannot be opened");
                self.refuse(partition).await;
                held.refused.insert(partition);
            }
        }
        Ok(())
    }

    /// Whether a partition is on its way to here, and nobody relies on it yet.
    fn is_arriving(&self, map: &PlacementMap, partition: PartitionId) -> bool {
        let is_target = |step: &Handover| step.phase == Phase::Copying && step.to == self.node;
        !map.is_replica(self.node, partition) && map.moves.get(&partition).is_some_and(is_target)
    }

    async fn open(&self, partitions: &[PartitionId]) -> Result<(), ComposeError> {
        self.ingester.begin(partitions).map_err(IngesterError::Thread)?;
        let writers = self.hot_tier.open(storage(&self.config, self.log.as_ref(), partitions)).await?;
        self.ingester.give(writers);
        Ok(())
    }

    /// Lets go of a partition that was to come here and could not be opened.
    async fn refuse(&self, partition: PartitionId) {
        self.ingester.end(partition).await;
        let dir = self.config.data_dir.clone();
        if let Err(error) = blocking(move || hot_tier::remove_all(&dir, partition)).await {
            tracing::warn!(partition = partition.0, %error, "what came of it cannot be removed");
        }
    }

    /// Those of some partitions of which a checkpoint of another node is wanted, and why.
    async fn lacking(&self, of: &[PartitionId], fetched: &BTreeSet<PartitionId>) -> BTreeMap<PartitionId, Need> {
        let asked: Vec<PartitionId> = of.iter().copied().filter(|partition| !fetched.contains(partition)).collect();
        let storage = storage(&self.config, self.log.as_ref(), &asked);
        blocking(move || {
            let need = |&partition: &PartitionId| {
                let newest = hot_tier::newest_offset(&storage.dir, partition, storage.identity);
                // Where it cannot be read, opening it says what is wrong.
                Some((partition, need(newest.ok()?, &storage.log[&partition])?))
            };
            asked.iter().filter_map(need).collect()
        })
        .await
    }

    /// Begins to fetch a checkpoint.
    fn fetch(&self, partition: PartitionId, need: Need, held: &mut Held, fetches: &mut Fetches) {
        if need == Need::Gap {
            let start = self.log.bounds(partition).start;
            let why = format!("it waits for a checkpoint of another node, as the log begins at offset {start}");
            self.hot_tier.note_unopened(partition, &why);
        }
        let stop = Shutdown::new();
        held.fetching.insert(partition, stop.clone());
        let (sources, log, dir) = (self.sources.clone(), Arc::clone(&self.log), self.config.data_dir.clone());
        fetches.spawn(async move {
            let came = sources.fetch(partition, need, log.as_ref(), &dir, &stop).await;
            Fetched { partition, came }
        });
    }
}

/// Why a node with that newest checkpoint wants another's, over what the log has.
fn need(newest: Option<Offset>, log: &Range<Offset>) -> Option<Need> {
    if newest.unwrap_or(Offset::ZERO) < log.start {
        return Some(Need::Gap);
    }
    (newest.is_none() && log.start < log.end).then_some(Need::Faster)
}

/// Whether an error says something of one partition, and nothing of the node.
fn is_of_partition(error: &ComposeError) -> bool {
    use HotTierError::{AheadOfLog, Checkpoints, Ids, NoGoodCheckpoint, Unread};
    matches!(
        error,
        ComposeError::HotTier(Unread { .. } | NoGoodCheckpoint { .. } | AheadOfLog { .. } | Checkpoints(_) | Ids(_))
    )
}

/// Work with the disk, on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work with the disk does not panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a copy is wanted where the log does not go on from what is here, and where there is nothing here but much to read.
    #[test]
    fn a_copy_is_wanted_where_something_would_be_missing() {
        let need =
            |newest: Option<u64>, log: Range<u64>| need(newest.map(Offset), &(Offset(log.start)..Offset(log.end)));
        assert_eq!(need(None, 0..0), None);
        assert_eq!(need(None, 0..5), Some(Need::Faster));
        assert_eq!(need(Some(3), 0..5), None);
        assert_eq!(need(None, 2..5), Some(Need::Gap));
        assert_eq!(need(None, 5..5), Some(Need::Gap));
        assert_eq!(need(Some(1), 2..5), Some(Need::Gap));
        assert_eq!(need(Some(2), 2..5), None);
    }
}
