//! The processes of the cluster, and where this one stands among them. What they say goes to metadata, the only place that knows
//! who registered; who lives is judged here, for all who follow this control plane.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use metadata::{Liveness, MetadataError, MetadataStore, NodeDescription, NodeRecord};
use placement::{Node, PlacementMap, place};
use proto::{
    catalog::{CatalogFeed, WatchedTables},
    members::{HOT_TIER, Life, Member, Members, Membership},
};
use tokio::sync::{Mutex, watch};
use types::{ApiError, ErrorCode, NodeId};

use crate::{ControlPlane, catalog::Inner, errors};

/// After so long without a word a process counts as lost. Processes say that they live each second.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// After so long without a word, which this control plane looked through, a process that keeps nothing for others is forgotten. It
/// drew its number; should it live after all, it registers anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// On which nodes partitions are placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    /// On this one: there is no other.
    Alone {
        /// This node.
        node: NodeId,
        /// `host:port` under which others would reach its hot tier.
        address: String,
    },
    /// On those that register, by whoever holds the lease of placing.
    Registered,
}

/// Who lives, of those whose words come the same way. Apart: the process of a control plane writes its own straight into metadata,
/// and its voice is no sign that nodes of the hot tier could be heard.
struct Ways {
    nodes: Liveness,
    others: Liveness,
}

/// Who is there.
pub(crate) struct Registry {
    /// Of this node, where it is alone.
    own: Option<Life>,
    /// Held for a look at metadata, so that what is seen never goes back.
    ways: Mutex<Ways>,
    /// What metadata had at the last look.
    records: watch::Sender<Arc<Vec<NodeRecord>>>,
    members: watch::Sender<Members>,
}

impl Registry {
    /// Where this node is alone: registers it, and gives it all partitions.
    pub(crate) async fn open(store: &dyn MetadataStore, partitions: u32, nodes: &Nodes) -> Result<Self, MetadataError> {
        let own = match nodes {
            Nodes::Registered => None,
            Nodes::Alone { node, address } => {
                let addresses = [(HOT_TIER.to_owned(), address.clone())].into();
                let epoch = store.register_node(&NodeDescription { id: *node, zone: None, addresses }, 0).await?;
                place_alone(store, partitions, *node).await?;
                Some(Life { node: *node, epoch })
            }
        };
        let ways = Mutex::new(Ways { nodes: Liveness::new(LOST_AFTER), others: Liveness::new(LOST_AFTER) });
        Ok(Self { own, ways, records: watch::Sender::default(), members: watch::Sender::default() })
    }

    /// Takes in what metadata has of all nodes, and gives the lives of those that will not come back.
    async fn look(&self, store: &dyn MetadataStore) -> Result<Vec<Life>, MetadataError> {
        let mut ways = self.ways.lock().await;
        let records = store.nodes().await?;
        ways.look(&records, Instant::now());
        let living = records.iter().filter(|record| ways.lives(record));
        let living: Members = Arc::new(living.map(|record| (record.node.id, member(&record.node))).collect());
        self.members.send_if_modified(|known| {
            let same = *known == living;
            for gone in known.keys().filter(|node| !living.contains_key(node)) {
                tracing::warn!(node = gone.0, "a process is lost, or left");
            }
            *known = living;
            !same
        });
        let gone = records.iter().filter(|record| ways.is_forgotten(record));
        let gone = gone.map(|record| Life { node: record.node.id, epoch: record.epoch }).collect();
        self.records.send_replace(Arc::new(records));
        Ok(gone)
    }
}

impl Ways {
    fn look(&mut self, records: &[NodeRecord], now: Instant) {
        self.nodes.look(records.iter().filter(|record| keeps_partitions(record)), now);
        self.others.look(records.iter().filter(|record| !keeps_partitions(record)), now);
    }

    fn lives(&self, record: &NodeRecord) -> bool {
        let way = if keeps_partitions(record) { &self.nodes } else { &self.others };
        way.lives(record.node.id)
    }

    fn is_forgotten(&self, record: &NodeRecord) -> bool {
        !keeps_partitions(record)
            && self.others.silent_for(record.node.id).is_some_and(|silent_for| silent_for > FORGOTTEN_AFTER)
    }
}

/// Gives all partitions to the one node that there is, unless that is so.
async fn place_alone(store: &dyn MetadataStore, partitions: u32, node: NodeId) -> Result<(), MetadataError> {
    let stored = store.placement().await?;
    let map = place(&stored, partitions, 1, &[Node { id: node, zone: None }]);
    if map.version == stored.version {
        return Ok(());
    }
    store.store_placement(&map, stored.version, None).await
}

fn member(node: &NodeDescription) -> Member {
    Member { node: node.id, zone: node.zone.clone(), services: node.addresses.clone() }
}

impl ControlPlane {
    /// Says that this node lives, where it is alone.
    ///
    /// # Errors
    /// Metadata cannot be written, or another process registered as this node.
    pub async fn stay_alive(&self) -> Result<(), ApiError> {
        match self.inner.registry.own {
            Some(life) => self.heartbeat(life).await,
            None => Ok(()),
        }
    }

    /// Takes in who registered and who said that he lives, and forgets who will not come back.
    pub(crate) async fn look_at_nodes(&self) -> Result<(), MetadataError> {
        let Inner { registry, store, .. } = &*self.inner;
        for gone in registry.look(store.as_ref()).await? {
            match store.remove_node(gone.node, gone.epoch).await {
                // Another control plane was faster.
                Ok(()) | Err(MetadataError::Fenced) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All nodes of the hot tier that registered, as metadata had them last.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeRecord> {
        let records = Arc::clone(&self.inner.registry.records.borrow());
        records.iter().filter(|record| keeps_partitions(record)).cloned().collect()
    }

    /// Whether a node lives; of one that is alone its own answer counts. One that registered under another id before is gone.
    pub(crate) fn lives(&self, node: NodeId, answers: bool) -> bool {
        match self.inner.settings.nodes {
            Nodes::Alone { node: here, .. } => node == here && answers,
            Nodes::Registered => self.inner.registry.members.borrow().contains_key(&node),
        }
    }
}

fn keeps_partitions(record: &NodeRecord) -> bool {
    record.node.addresses.contains_key(HOT_TIER)
}

/// What a process is told whose life has ended.
fn of_membership(error: &MetadataError, node: NodeId) -> ApiError {
    if !matches!(error, MetadataError::Fenced) {
        return errors::from_metadata(error);
    }
    let message = format!("another process registered as node {}; give each its own cluster.node_id", node.0);
    ApiError::new(ErrorCode::FailedPrecondition, message).with_field("node_id")
}

#[async_trait]
impl Membership for ControlPlane {
    async fn register(&self, member: &Member, registration: u64) -> Result<Life, ApiError> {
        let Member { node, zone, services } = member.clone();
        let described = NodeDescription { id: node, zone, addresses: services };
        let registered = self.inner.store.register_node(&described, registration).await;
        let epoch = registered.map_err(|error| of_membership(&error, node))?;
        tracing::info!(node = node.0, epoch, services = ?member.services, "a process registered");
        // It is there; who follows hears of it now, or with the next look.
        self.look_at_nodes().await.unwrap_or_else(|error| drop(errors::from_metadata(&error)));
        Ok(Life { node, epoch })
    }

    async fn heartbeat(&self, life: Life) -> Result<(), ApiError> {
        let heard = self.inner.store.heartbeat(life.node, life.epoch).await;
        heard.map_err(|error| of_membership(&error, life.node))
    }

    async fn leave(&self, life: Life) -> Result<(), ApiError> {
        let left = self.inner.store.remove_node(life.node, life.epoch).await;
        left.map_err(|error| of_membership(&error, life.node))?;
        tracing::info!(node = life.node.0, "a process leaves");
        self.look_at_nodes().await.unwrap_or_else(|error| drop(errors::from_metadata(&error)));
        Ok(())
    }

    fn members(&self) -> watch::Receiver<Members> {
        self.inner.registry.members.subscribe()
    }
}

impl CatalogFeed for ControlPlane {
    fn watch_tables(&self) -> WatchedTables {
        // First the changes: what changes between the two is among both.
        let changes = self.inner.changes.subscribe();
        WatchedTables { tables: self.inner.cache.all(), changes }
    }

    fn watch_placement(&self) -> watch::Receiver<Arc<PlacementMap>> {
        self.inner.placement.subscribe()
    }
}
