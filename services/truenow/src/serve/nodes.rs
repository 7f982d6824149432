//! The nodes of the hot tier that live, as the services of this process reach them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use placement::PlacementMap;
use proto::{
    hot_tier::{
        ChecksumRequest, EventsRequest, HotTier, HotTierClient, NodeEvents, NodeExplanation, NodeScan, PartitionStatus,
        ScanRequest, TableChecksum, TablePartitionStatus,
    },
    members::{HOT_TIER, Member, Members},
    wire::Connector,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use types::{ApiError, NodeId, Offset, PartitionId, TableKey};

/// How long a slow replica is waited for where another has answered.
const GRACE: Duration = Duration::from_millis(20);

/// Nodes by their ids.
pub(crate) type NodeMap = BTreeMap<NodeId, Arc<dyn HotTier>>;

/// Keeps up which nodes live, and with a network client for each, for as long as anybody looks.
pub(crate) fn follow(mut members: watch::Receiver<Members>, connector: Connector) -> watch::Receiver<Arc<NodeMap>> {
    let (nodes, view) = watch::channel(Arc::new(NodeMap::new()));
    members.mark_changed();
    let following: JoinHandle<()> = tokio::spawn(async move {
        let mut known: BTreeMap<NodeId, (String, Arc<dyn HotTier>)> = BTreeMap::new();
        loop {
            tokio::select! {
                () = nodes.closed() => return,
                changed = members.changed() => if changed.is_err() { return },
            }
            let now = Arc::clone(&members.borrow_and_update());
            let of_nodes = now.values().filter_map(node).collect::<BTreeMap<_, _>>();
            known.retain(|node, (address, _)| of_nodes.get(node) == Some(address));
            for (node, address) in of_nodes {
                if known.contains_key(&node) {
                    continue;
                }
                match connector.to(&address) {
                    Ok(connection) => {
                        known.insert(node, (address, Arc::new(HotTierClient::new(connection))));
                    }
                    Err(error) => tracing::error!(node = node.0, %error, "the node cannot be reached"),
                }
            }
            nodes.send_replace(Arc::new(known.iter().map(|(&id, (_, node))| (id, Arc::clone(node))).collect()));
        }
    });
    drop(following);
    view
}

fn node(member: &Member) -> Option<(NodeId, String)> {
    Some((member.node, member.address(HOT_TIER)?.to_owned()))
}

/// What all nodes together say of their partitions, for who does not care where one lies: of each partition what that of
/// its replicas says which answers and has applied the most. Rows are asked of single nodes.
pub(crate) struct AllNodes {
    nodes: watch::Receiver<Arc<NodeMap>>,
    placement: watch::Receiver<Arc<PlacementMap>>,
}

impl AllNodes {
    pub(crate) fn new(nodes: watch::Receiver<Arc<NodeMap>>, placement: watch::Receiver<Arc<PlacementMap>>) -> Self {
        Self { nodes, placement }
    }

    /// Asks all nodes at once; of those that do not answer nothing comes. Once each partition is answered for by somebody, the
    /// others are waited for no longer than [`GRACE`].
    async fn ask<T: Send + 'static, F>(
        &self,
        ask: impl Fn(Arc<dyn HotTier>) -> F + Send,
        partition: impl Fn(&T) -> PartitionId + Send,
    ) -> BTreeMap<NodeId, Vec<T>>
    where
        F: Future<Output = Result<Vec<T>, ApiError>> + Send + 'static,
    {
        let (nodes, map) = (Arc::clone(&self.nodes.borrow()), Arc::clone(&self.placement.borrow()));
        let mut asked = JoinSet::new();
        for (&id, node) in nodes.iter() {
            let answer = ask(Arc::clone(node));
            asked.spawn(async move { (id, answer.await) });
        }
        let (mut answers, mut missing) = (BTreeMap::new(), map.replicas.keys().copied().collect::<BTreeSet<_>>());
        loop {
            let next = match missing.is_empty() {
                true => timeout(GRACE, asked.join_next()).await.unwrap_or(None),
                false => asked.join_next().await,
            };
            match next {
                None => return answers,
                Some(Ok((node, Ok(answer)))) => {
                    missing.retain(|wanted| !answer.iter().any(|said| partition(said) == *wanted));
                    answers.insert(node, answer);
                }
                // It does not answer, which others notice as well.
                Some(_) => {}
            }
        }
    }

    /// Of each partition what that of its replicas said which has applied the most.
    fn best<T: Copy>(&self, answers: &BTreeMap<NodeId, Vec<T>>, at: impl Fn(&T) -> (PartitionId, Offset)) -> Vec<T> {
        let map = Arc::clone(&self.placement.borrow());
        let of = |wanted: PartitionId, nodes: &[NodeId]| {
            let said = nodes.iter().filter_map(|node| answers.get(node)).flatten();
            said.filter(|said| at(said).0 == wanted).max_by_key(|said| at(said).1).copied()
        };
        map.replicas.iter().filter_map(|(&wanted, nodes)| of(wanted, nodes)).collect()
    }
}

/// What only single nodes are asked for.
fn of_one_node<T>() -> Result<T, ApiError> {
    Err(ApiError::internal("rows are asked of single nodes"))
}

#[async_trait]
impl HotTier for AllNodes {
    async fn scan(&self, _: ScanRequest) -> Result<NodeScan, ApiError> {
        of_one_node()
    }

    async fn applied(&self, _: Vec<(PartitionId, Offset)>, _: Instant) -> Result<(), ApiError> {
        of_one_node()
    }

    async fn events(&self, _: EventsRequest) -> Result<NodeEvents, ApiError> {
        of_one_node()
    }

    async fn explain(&self, _: ScanRequest) -> Result<NodeExplanation, ApiError> {
        of_one_node()
    }

    async fn checksum(&self, _: ChecksumRequest) -> Result<TableChecksum, ApiError> {
        of_one_node()
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        let answers = self.ask(|node| async move { node.status().await }, |status| status.partition).await;
        if answers.is_empty() {
            return Err(ApiError::unavailable("no node of the hot tier answers"));
        }
        Ok(self.best(&answers, |status| (status.partition, status.next_offset)))
    }

    async fn table_status(&self, key: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        let ask = move |node: Arc<dyn HotTier>| async move { node.table_status(key).await };
        let answers = self.ask(ask, |status| status.partition).await;
        Ok(self.best(&answers, |status| (status.partition, status.next_offset)))
    }
}
