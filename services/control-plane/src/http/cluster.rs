//! `GET /v1/cluster`: nodes with their health and load, and the placement map with its version.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use metadata::NodeRecord;
use placement::PlacementMap;
use proto::{catalog::Catalog as _, hot_tier::PartitionStatus, members::HOT_TIER};
use serde::Serialize;
use service::ApiResult;
use types::{NodeId, PartitionId};

use super::Shared;

#[derive(Serialize)]
struct ClusterView {
    nodes: Vec<NodeView>,
    placement: PlacementView,
}

#[derive(Serialize)]
struct NodeView {
    node: u64,
    zone: Option<String>,
    address: String,
    /// `healthy`, or `unreachable` where it does not answer or has not said for a while that it lives.
    health: &'static str,
    heartbeat_us: i64,
    /// Partitions that the map gives it.
    partitions: usize,
    /// What they hold; null where it is not known.
    load: Option<LoadView>,
}

#[derive(Serialize)]
struct LoadView {
    rows: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct PlacementView {
    version: u64,
    partitions: Vec<PartitionView>,
}

#[derive(Serialize)]
struct PartitionView {
    partition: u32,
    /// Nodes that hold it, the primary first.
    replicas: Vec<u64>,
}

pub(super) async fn read(State(shared): State<Shared>) -> ApiResult<Response> {
    let map = shared.plane.placement();
    let status = shared.hot_tier.status().await.ok();
    let nodes = shared.plane.nodes();
    let nodes = nodes
        .into_iter()
        .map(|record| {
            let lives = shared.plane.lives(record.node.id, status.is_some());
            node_view(record, &map, if lives { status.as_deref() } else { None }, lives)
        })
        .collect();
    let partitions = map.replicas.iter().map(|(partition, nodes)| PartitionView {
        partition: partition.0,
        replicas: nodes.iter().map(|node| node.0).collect(),
    });
    let placement = PlacementView { version: map.version, partitions: partitions.collect() };
    Ok(Json(ClusterView { nodes, placement }).into_response())
}

fn node_view(record: NodeRecord, map: &PlacementMap, status: Option<&[PartitionStatus]>, lives: bool) -> NodeView {
    let NodeRecord { mut node, heartbeat_at, .. } = record;
    let holds = |partition: &PartitionId| map.replicas.get(partition).is_some_and(|nodes| nodes.contains(&node.id));
    // Replicas hold the same: what one of a partition says is so of the others.
    let held = status.map(|status| status.iter().filter(|status| holds(&status.partition)).collect::<Vec<_>>());
    NodeView {
        partitions: partitions_of(map, node.id),
        node: node.id.0,
        zone: node.zone,
        address: node.addresses.remove(HOT_TIER).unwrap_or_default(),
        health: if lives { "healthy" } else { "unreachable" },
        heartbeat_us: heartbeat_at.0,
        load: held.map(|status| LoadView {
            rows: status.iter().map(|partition| partition.rows).sum(),
            bytes: status.iter().map(|partition| partition.bytes).sum(),
        }),
    }
}

fn partitions_of(map: &PlacementMap, node: NodeId) -> usize {
    map.replicas.values().filter(|nodes| nodes.contains(&node)).count()
}
