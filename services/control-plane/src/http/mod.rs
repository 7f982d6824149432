//! The control plane over HTTP: tables, and the cluster as it is.

mod cluster;
mod forms;
mod json;
mod tables;

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use proto::hot_tier::HotTier;

use crate::ControlPlane;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) plane: ControlPlane,
    pub(crate) hot_tier: Arc<dyn HotTier>,
    pub(crate) body_timeout: Duration,
}

pub(crate) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/v1/tables", get(tables::list).post(tables::create))
        .route("/v1/tables/{namespace}/{table}", get(tables::read).patch(tables::patch).delete(tables::delete))
        .route("/v1/cluster", get(cluster::read))
        .with_state(shared)
}
