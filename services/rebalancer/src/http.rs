//! `/v1/plan`, `/v1/rebalance` and `/v1/moves`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use placement::{Move, Plan};
use proto::{catalog::Catalog, hot_tier::HotTier};
use serde::Serialize;
use service::ApiResult;
use types::{ApiError, ErrorCode};

use crate::{
    Clock,
    plan::{NodeLoad, node_loads, plan},
};

/// Runs that are remembered; the oldest are forgotten first.
const RUNS_MAX: usize = 100;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) hot_tier: Arc<dyn HotTier>,
    pub(crate) clock: Clock,
    pub(crate) runs: Arc<Mutex<VecDeque<RunView>>>,
}

pub(crate) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/v1/plan", get(dry_run))
        .route("/v1/rebalance", post(rebalance))
        .route("/v1/moves", get(moves))
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
}

#[derive(Serialize, Clone)]
struct MoveView {
    partition: u32,
    from: u64,
    to: u64,
    bytes: u64,
    reason: String,
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
    /// Moves under way.
    moves: Vec<MoveView>,
    /// The newest requests to rebalance, newest first.
    runs: Vec<RunView>,
}

async fn current(shared: &Shared) -> Result<(u64, Vec<NodeLoad>, Plan), ApiError> {
    let map = shared.catalog.placement();
    let status = shared.hot_tier.status().await?;
    Ok((map.version, node_loads(&map, &status), plan(&map, &status)))
}

async fn dry_run(State(shared): State<Shared>) -> ApiResult<Response> {
    let (placement_version, loads, plan) = current(&shared).await?;
    let nodes = loads.iter().map(|load| NodeView {
        node: load.node.0,
        partitions: load.partitions,
        rows: load.rows,
        bytes: load.bytes,
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
    // A node that stands alone has no other to hand a partition to, whatever an old placement map may name.
    if let Some(first) = plan.moves.first() {
        let message = format!("node {} cannot be reached from here, nothing was moved", first.to);
        return Err(ApiError::new(ErrorCode::FailedPrecondition, message).into());
    }
    let run =
        RunView { at_us: (shared.clock)().0, placement_version, moves: Vec::new(), reason: plan.reason.to_string() };
    let mut runs = shared.runs.lock().expect("nothing panics under this lock");
    runs.truncate(RUNS_MAX - 1);
    runs.push_front(run.clone());
    drop(runs);
    Ok(Json(run).into_response())
}

async fn moves(State(shared): State<Shared>) -> ApiResult<Response> {
    let runs = shared.runs.lock().expect("nothing panics under this lock").iter().cloned().collect();
    Ok(Json(MovesView { moves: Vec::new(), runs }).into_response())
}

fn move_view(step: &Move) -> MoveView {
    MoveView {
        partition: step.partition.0,
        from: step.from.0,
        to: step.to.0,
        bytes: step.bytes,
        reason: step.reason.to_string(),
    }
}
