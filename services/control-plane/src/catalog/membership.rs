//! This node among the others.

use std::collections::BTreeMap;

use metadata::{MetadataError, MetadataStore, NodeDescription, NodeRecord};
use types::{ApiError, NodeId};

use super::{CatalogSettings, ControlPlane};
use crate::errors;

/// Under this name a node's description has the address of its hot tier.
pub(crate) const HOT_TIER: &str = "hot-tier";

impl ControlPlane {
    /// Says that this node lives.
    ///
    /// # Errors
    /// Metadata cannot be written, or another process registered as this node.
    pub async fn heartbeat(&self) -> Result<(), ApiError> {
        let inner = &self.inner;
        inner.store.heartbeat(inner.settings.node, inner.epoch).await.map_err(|error| errors::from_metadata(&error))
    }

    /// All nodes that registered.
    ///
    /// # Errors
    /// `UNAVAILABLE` where metadata cannot be read.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, ApiError> {
        self.inner.store.nodes().await.map_err(|error| errors::from_metadata(&error))
    }

    /// The node that this process is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.settings.node
    }
}

/// Registers this node; gives its epoch.
pub(super) async fn register(store: &dyn MetadataStore, settings: &CatalogSettings) -> Result<u64, MetadataError> {
    let node = NodeDescription {
        id: settings.node,
        zone: None,
        addresses: BTreeMap::from([(HOT_TIER.to_owned(), settings.address.clone())]),
    };
    store.register_node(&node).await
}
