//! The partitions that the placement map gives a node: it opens what is new and closes what it lost, as the map says.
//!
//! 1. What it holds of a partition on its own disk is enough where the log goes on from there. Else it takes the newest checkpoint
//!    of another holder first; where no other has one, it goes on with what the log has.
//! 2. Partitions that are on their way to here are opened like others. One that cannot be opened is the end of a node that is to
//!    answer for it, but not of one that is only to take it over: its move ends in time, and what came is removed.
//! 3. The map goes on being followed while checkpoints arrive: what is not given any more is not waited for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use config::Config;
use event_log::EventLog;
use hot_tier::HotTierError;
use placement::{Handover, Phase, PlacementMap};
use proto::checkpoints::CopyRequest;
use service::Shutdown;
use stream_ingester::IngesterError;
use tokio::{sync::watch, task::JoinSet};
use types::{NodeId, PartitionId};

use super::{
    compose::{ComposeError, storage},
    sources::Sources,
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
}

/// The tasks that fetch checkpoints, which give the partition.
type Fetches = JoinSet<PartitionId>;

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
            }
            tokio::select! {
                () = stop.wait() => break,
                changed = placement.changed() => if changed.is_err() { break },
                Some(fetched) = fetches.join_next() => {
                    let partition = fetched.expect("fetching a checkpoint does not panic");
                    held.fetching.remove(&partition);
                    held.fetched.insert(partition);
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
        held.fetching.iter().filter(|(partition, _)| !given.contains(partition)).for_each(|(_, stop)| stop.trigger());
        held.fetched.retain(|partition| given.contains(partition));
        held.refused.retain(|partition| self.is_arriving(map, *partition));
        let is_new = |partition: &PartitionId| {
            !held.open.contains(partition)
                && !held.fetching.contains_key(partition)
                && !held.refused.contains(partition)
        };
        let new: Vec<PartitionId> = given.iter().copied().filter(is_new).collect();
        let lacking = self.lacking(&new, &held.fetched).await;
        let (to_fetch, to_open): (Vec<_>, Vec<_>) = new
            .into_iter()
            .partition(|partition| lacking.contains(partition) && self.sources.any(self.node, map, *partition));
        for partition in to_fetch {
            held.fetching.insert(partition, self.fetch(map, partition, fetches));
        }
        let (arriving, replicas): (Vec<_>, Vec<_>) =
            to_open.into_iter().partition(|partition| self.is_arriving(map, *partition));
        let closed: Vec<PartitionId> = held.open.difference(&given).copied().collect();
        if !replicas.is_empty() || !arriving.is_empty() || !closed.is_empty() {
            let (node, version) = (self.node.0, map.version);
            let opened = replicas.len() + arriving.len();
            tracing::info!(node, version, opened, closed = closed.len(), "takes what the map gives it");
        }
        // A node that is given nothing is open, too.
        if !std::mem::replace(&mut held.began, true) || !replicas.is_empty() {
            self.open(&replicas).await?;
            held.open.extend(&replicas);
        }
        for partition in arriving {
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
        }
        for partition in closed {
            self.ingester.end(partition).await;
            self.hot_tier.close(partition).await;
            held.open.remove(&partition);
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

    /// Those of some partitions of which this disk has no checkpoint that the log goes on from, and the log something.
    async fn lacking(&self, partitions: &[PartitionId], fetched: &BTreeSet<PartitionId>) -> BTreeSet<PartitionId> {
        let asked: Vec<PartitionId> =
            partitions.iter().copied().filter(|partition| !fetched.contains(partition)).collect();
        let storage = storage(&self.config, self.log.as_ref(), &asked);
        blocking(move || {
            let lacks = |partition: &PartitionId| {
                let log = &storage.log[partition];
                match hot_tier::newest_offset(&storage.dir, *partition, storage.identity) {
                    Ok(newest) => log.start < log.end && newest.is_none_or(|next| next < log.start),
                    // Opening it says what is wrong.
                    Err(_) => false,
                }
            };
            asked.into_iter().filter(lacks).collect()
        })
        .await
    }

    /// Begins to fetch a checkpoint; gives what ends that.
    fn fetch(&self, map: &PlacementMap, partition: PartitionId, fetches: &mut Fetches) -> Shutdown {
        let stop = Shutdown::new();
        let stopped = stop.clone();
        let (sources, dir) = (self.sources.of(self.node, map, partition), self.config.data_dir.clone());
        let request = CopyRequest { partition, log: self.log.identity(), has: None };
        fetches.spawn(async move {
            sources.fetch(request, dir, &stopped).await;
            partition
        });
        stop
    }
}

/// Work with the disk, on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work with the disk does not panic")
}
