//! What people ask of the map: moves, their end, and nodes that are to be emptied. Any rebalancer takes it and writes it into the
//! map, from which the one that makes the map goes on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use metadata::{MetadataError, MetadataStore, NodeRecord};
use placement::{Move, MoveReason, Node, PartitionWork, PlacementMap, Refused};
use proto::members::HOT_TIER;
use tokio::sync::Notify;
use types::{ApiError, ErrorCode, NodeId, PartitionId};

use crate::meter::{Meter, Replica};

/// How often a change is tried again because another was faster.
const TRIES_MAX: usize = 16;
/// Who said nothing for so long is not moved to.
const SILENT_MAX: Duration = Duration::from_secs(3);

/// See the module. Cloning shares it.
#[derive(Clone)]
pub struct Commands {
    store: Arc<dyn MetadataStore>,
    /// Told when the map changed.
    wake: Arc<Notify>,
    meter: Meter,
}

impl Commands {
    pub(crate) fn new(store: Arc<dyn MetadataStore>, wake: Arc<Notify>, meter: Meter) -> Self {
        Self { store, wake, meter }
    }

    /// What each replica makes its node do.
    pub(crate) fn work(&self) -> BTreeMap<Replica, PartitionWork> {
        self.meter.work()
    }

    /// The nodes of the hot tier that live, by the store's clock; with the newest map.
    ///
    /// # Errors
    /// `UNAVAILABLE`.
    pub(crate) async fn living(&self) -> Result<(PlacementMap, Vec<Node>), ApiError> {
        let map = self.store.placement().await.map_err(|error| away(&error))?;
        let records = self.store.nodes().await.map_err(|error| away(&error))?;
        let lives =
            |record: &&NodeRecord| record.silent_for < SILENT_MAX && record.node.addresses.contains_key(HOT_TIER);
        let node = |record: &NodeRecord| Node { id: record.node.id, zone: record.node.zone.clone() };
        let nodes = records.iter().filter(lives).map(node).collect();
        Ok((map, nodes))
    }

    /// Plans moves; gives those that were taken up. One that another change made impossible is left out.
    ///
    /// # Errors
    /// `UNAVAILABLE`.
    pub(crate) async fn begin(&self, moves: &[Move]) -> Result<Vec<Move>, ApiError> {
        let mut begun = Vec::new();
        self.change(|map| {
            begun.clear();
            let mut next = map.clone();
            for step in moves {
                if let Ok(with) = next.with_move(step) {
                    next = PlacementMap { version: map.version + 1, ..with };
                    begun.push(*step);
                }
            }
            Ok(next)
        })
        .await?;
        Ok(begun)
    }

    /// Plans one move between nodes that live.
    ///
    /// # Errors
    /// `NOT_FOUND`, `FAILED_PRECONDITION` with the reason; `UNAVAILABLE`.
    pub(crate) async fn request(&self, partition: PartitionId, from: NodeId, to: NodeId) -> Result<(), ApiError> {
        let (map, living) = self.living().await?;
        let lives = |id| living.iter().any(|node| node.id == id);
        // A source that is not in the map at all is refused with the map.
        if map.is_replica(from, partition) && !lives(from) {
            let message = format!("node {from} does not live, so there is nothing to copy");
            return Err(ApiError::new(ErrorCode::FailedPrecondition, message).with_field("from"));
        }
        if !lives(to) || map.draining.contains(&to) {
            let message = format!("node {to} does not live, or is being emptied");
            return Err(ApiError::new(ErrorCode::FailedPrecondition, message).with_field("to"));
        }
        let step = Move { partition, from, to, bytes: 0, reason: MoveReason::Request };
        self.change(|map| map.with_move(&step)).await
    }

    /// Gives a move up.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is none, `FAILED_PRECONDITION` where its target has taken over; `UNAVAILABLE`.
    pub(crate) async fn abort(&self, partition: PartitionId) -> Result<(), ApiError> {
        self.change(|map| map.without_move(partition)).await
    }

    /// Has a node emptied, or not any more.
    ///
    /// # Errors
    /// `UNAVAILABLE`.
    pub(crate) async fn drain(&self, node: NodeId, drains: bool) -> Result<(), ApiError> {
        self.change(|map| Ok(map.with_draining(node, drains))).await
    }

    async fn change(
        &self,
        mut next: impl FnMut(&PlacementMap) -> Result<PlacementMap, Refused>,
    ) -> Result<(), ApiError> {
        for _ in 0..TRIES_MAX {
            let map = self.store.placement().await.map_err(|error| away(&error))?;
            let next = next(&map).map_err(refused)?;
            if next.version == map.version {
                return Ok(());
            }
            // In nobody's name: whoever makes the map finds it there, and one who made another from the map before is refused.
            match self.store.store_placement(&next, map.version, None).await {
                Ok(()) => {
                    self.wake.notify_one();
                    return Ok(());
                }
                Err(MetadataError::Conflict) => {}
                Err(error) => return Err(away(&error)),
            }
        }
        Err(ApiError::unavailable("the placement map changes all the time; ask again"))
    }
}

fn away(error: &MetadataError) -> ApiError {
    ApiError::unavailable(format!("the placement map cannot be read or changed: {error}"))
}

fn refused(why: Refused) -> ApiError {
    let code = match why {
        Refused::NoPartition | Refused::NoMove => ErrorCode::NotFound,
        _ => ErrorCode::FailedPrecondition,
    };
    ApiError::new(code, why.to_string())
}
