//! The partitions that the placement map gives a node: it opens what is new and closes what it lost, as the map says.

use std::{collections::BTreeSet, sync::Arc};

use config::Config;
use event_log::EventLog;
use placement::PlacementMap;
use service::Shutdown;
use stream_ingester::IngesterError;
use tokio::sync::watch;
use types::{NodeId, PartitionId};

use super::compose::{ComposeError, storage};

/// A node whose partitions change.
pub(crate) struct Assigned {
    pub(crate) node: NodeId,
    pub(crate) config: Config,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) hot_tier: hot_tier::Partitions,
    pub(crate) ingester: stream_ingester::Partitions,
}

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
        let mut held = None;
        loop {
            let map = Arc::clone(&placement.borrow_and_update());
            if map.version > 0 {
                self.take(&map, &mut held).await?;
            }
            tokio::select! {
                () = stop.wait() => return Ok(()),
                changed = placement.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// Has what the map gives this node, and nothing else; `held`: what it has, `None` before the first map.
    async fn take(&self, map: &PlacementMap, held: &mut Option<BTreeSet<PartitionId>>) -> Result<(), ComposeError> {
        let given = |(&partition, nodes): (&PartitionId, &Vec<NodeId>)| nodes.contains(&self.node).then_some(partition);
        let given: BTreeSet<PartitionId> = map.replicas.iter().filter_map(given).collect();
        let is_first = held.is_none();
        let before = held.replace(given.clone()).unwrap_or_default();
        let opened: Vec<_> = given.difference(&before).copied().collect();
        let closed: Vec<_> = before.difference(&given).copied().collect();
        if !is_first && opened.is_empty() && closed.is_empty() {
            return Ok(());
        }
        let (node, version) = (self.node.0, map.version);
        tracing::info!(node, version, opened = opened.len(), closed = closed.len(), "takes what the map gives it");
        // A node that is given nothing is open, too.
        if is_first || !opened.is_empty() {
            self.ingester.begin(&opened).map_err(IngesterError::Thread)?;
            let writers = self.hot_tier.open(storage(&self.config, self.log.as_ref(), &opened)).await?;
            self.ingester.give(writers);
        }
        for partition in closed {
            self.ingester.end(partition).await;
            self.hot_tier.close(partition).await;
        }
        Ok(())
    }
}
