//! `/v1/plan`, `/v1/rebalance`, `/v1/moves` and `/v1/draining`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post, put},
};
use placement::{Handover, Move, PlacementMap, Plan};
use proto::{catalog::Catalog, hot_tier::HotTier};
use serde::{Deserialize, Serialize};
use service::ApiResult;
use types::{ApiError, ErrorCode, NodeId, PartitionId};

use crate::{
    Clock, Commands,
    plan::{NodeLoad, Works, node_loads, plan, takers},
};

/// Runs that are remembered; the oldest are forgotten first.
const RUNS_MAX: usize = 100;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) hot_tier: Arc<dyn HotTier>,
    pub(crate) clock: Clock,
    /// `None`: there is one node.
    pub(crate) commands: Option<Commands>,
    pub(crate) runs: Arc<Mutex<VecDeque<RunView>>>,
}

pub(crate) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/v1/plan", get(dry_run))
        .route("/v1/rebalance", post(rebalance))
        .route("/v1/moves", get(moves).post(request))
        .route("/v1/moves/{partition}", delete(abort))
        .route("/v1/draining/{node}", put(drain).delete(keep))
        .with_state(shared)
}

#[derive(Serialize)]
struct PlanView {
    placement_version: u64,
    nodes: Vec<NodeView>,
    moves: Vec<MoveView>,
    /// Bytes that all moves copy.
    bytes: u64,
    /// Why there are not more or fewer moves.
    reason: String,
}

#[derive(Serialize)]
struct NodeView {
    node: u64,
    partitions: usize,
    rows: u64,
    bytes: u64,
    events_per_second: u64,
    /// Time of queries, microseconds per second.
    query_us_per_second: u64,
}

#[derive(Serialize, Clone)]
struct MoveView {
    partition: u32,
    from: u64,
    to: u64,
    bytes: u64,
    reason: String,
    /// `waiting`, `copying` or `leaving`; not there of one that is only planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
}

/// A request to rebalance and what came of it.
#[derive(Serialize, Clone)]
pub(crate) struct RunView {
    at_us: i64,
    placement_version: u64,
    moves: Vec<MoveView>,
    reason: String,
}

#[derive(Serialize)]
struct MovesView {
    /// Of the map that the rest is of.
    placement_version: u64,
    /// Moves under way.
    moves: Vec<MoveView>,
    /// Nodes that are being emptied, and how many partitions each still holds.
    draining: Vec<DrainingView>,
    /// The newest requests to rebalance, newest first.
    runs: Vec<RunView>,
}

#[derive(Serialize)]
struct DrainingView {
    node: u64,
    partitions: usize,
}

/// A move that somebody asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveRequest {
    partition: u32,
    from: u64,
    to: u64,
}

async fn current(shared: &Shared) -> Result<(u64, Vec<NodeLoad>, Plan), ApiError> {
    let status = shared.hot_tier.status().await?;
    match &shared.commands {
        None => {
            let map = shared.catalog.placement();
            let works = Works::new();
            Ok((map.version, node_loads(&map, &status, &works), plan(&map, None, &status, &works)))
        }
        Some(commands) => {
            let (map, living) = commands.living().await?;
            let works = commands.work();
            let mut loads = node_loads(&map, &status, &works);
            let takers = takers(&map, &living);
            let idle = takers.iter().filter(|node| loads.iter().all(|load| load.node != node.id));
            let idle: Vec<_> = idle.map(|node| NodeLoad::none(node.id)).collect();
            loads.extend(idle);
            Ok((map.version, loads, plan(&map, Some(&living), &status, &works)))
        }
    }
}

async fn dry_run(State(shared): State<Shared>) -> ApiResult<Response> {
    let (placement_version, loads, plan) = current(&shared).await?;
    let nodes = loads.iter().map(|load| NodeView {
        node: load.node.0,
        partitions: load.partitions,
        rows: load.rows,
        bytes: load.bytes,
        events_per_second: load.events_per_second,
        query_us_per_second: load.query_us_per_second,
    });
    let view = PlanView {
        placement_version,
        nodes: nodes.collect(),
        bytes: plan.bytes(),
        reason: plan.reason.to_string(),
        moves: plan.moves.iter().map(move_view).collect(),
    };
    Ok(Json(view).into_response())
}

async fn rebalance(State(shared): State<Shared>) -> ApiResult<Response> {
    let (placement_version, _, plan) = current(&shared).await?;
    let moves = match (&shared.commands, plan.moves.first()) {
        (_, None) => Vec::new(),
        (Some(commands), Some(_)) => commands.begin(&plan.moves).await?,
        // A node that stands alone has no other to hand a partition to, whatever an old placement map may name.
        (None, Some(first)) => {
            let message = format!("node {} cannot be reached from here, nothing was moved", first.to);
            return Err(ApiError::new(ErrorCode::FailedPrecondition, message).into());
        }
    };
    let (at_us, moves) = ((shared.clock)().0, moves.iter().map(move_view).collect());
    let run = RunView { at_us, placement_version, moves, reason: plan.reason.to_string() };
    let mut runs = shared.runs.lock().expect("nothing panics under this lock");
    runs.truncate(RUNS_MAX - 1);
    runs.push_front(run.clone());
    drop(runs);
    Ok(Json(run).into_response())
}

async fn moves(State(shared): State<Shared>) -> ApiResult<Response> {
    let map = match &shared.commands {
        Some(commands) => commands.living().await?.0,
        None => PlacementMap::clone(&shared.catalog.placement()),
    };
    let runs = shared.runs.lock().expect("nothing panics under this lock").iter().cloned().collect();
    let draining = |node: &NodeId| DrainingView { node: node.0, partitions: map.held_by(*node).len() };
    let view = MovesView {
        placement_version: map.version,
        moves: map.moves.iter().map(|(partition, step)| handover_view(*partition, step)).collect(),
        draining: map.draining.iter().map(draining).collect(),
        runs,
    };
    Ok(Json(view).into_response())
}

/// What only a cluster has.
fn commands(shared: &Shared) -> Result<&Commands, ApiError> {
    let alone = || ApiError::new(ErrorCode::FailedPrecondition, "there is one node, so there is nowhere to move to");
    shared.commands.as_ref().ok_or_else(alone)
}

async fn request(State(shared): State<Shared>, body: Bytes) -> ApiResult<Response> {
    let commands = commands(&shared)?;
    let asked: MoveRequest = serde_json::from_slice(&body)
        .map_err(|error| ApiError::invalid("body", format!("{{partition, from, to}} is expected: {error}")))?;
    commands.request(PartitionId(asked.partition), NodeId(asked.from), NodeId(asked.to)).await?;
    moves(State(shared)).await
}

async fn abort(State(shared): State<Shared>, Path(partition): Path<String>) -> ApiResult<Response> {
    let partition = partition.parse().map(PartitionId);
    let partition = partition.map_err(|_| ApiError::invalid("partition", "partition is the number of a partition"))?;
    commands(&shared)?.abort(partition).await?;
    moves(State(shared)).await
}

async fn drain(State(shared): State<Shared>, Path(node): Path<String>) -> ApiResult<Response> {
    commands(&shared)?.drain(node_id(&node)?, true).await?;
    moves(State(shared)).await
}

async fn keep(State(shared): State<Shared>, Path(node): Path<String>) -> ApiResult<Response> {
    commands(&shared)?.drain(node_id(&node)?, false).await?;
    moves(State(shared)).await
}

fn node_id(text: &str) -> Result<NodeId, ApiError> {
    text.parse().map(NodeId).map_err(|_| ApiError::invalid("node", "node is the number of a node"))
}

fn move_view(step: &Move) -> MoveView {
    MoveView {
        partition: step.partition.0,
        from: step.from.0,
        to: step.to.0,
        bytes: step.bytes,
        reason: step.reason.to_string(),
        phase: None,
    }
}

fn handover_view(partition: PartitionId, step: &Handover) -> MoveView {
    MoveView {
        partition: partition.0,
        from: step.from.0,
        to: step.to.0,
        bytes: step.bytes,
        reason: step.reason.to_string(),
        phase: Some(step.phase.name()),
    }
}
