//! Which nodes of the hot tier there are now.

use std::{collections::BTreeMap, sync::Arc};

use proto::hot_tier::HotTier;
use tokio::sync::watch;
use types::NodeId;

/// The nodes of one moment, by id.
pub(crate) type Members = BTreeMap<NodeId, Arc<dyn HotTier>>;

/// The nodes of the hot tier, as whoever follows the members of the cluster keeps them up to date: in this process directly,
/// elsewhere by a network client. Cloning shares the view.
#[derive(Clone)]
pub struct Nodes(watch::Receiver<Arc<Members>>);

impl Nodes {
    /// A view that the sender of this changes.
    #[must_use]
    pub fn watched(members: watch::Receiver<Arc<BTreeMap<NodeId, Arc<dyn HotTier>>>>) -> Self {
        Self(members)
    }

    /// Nodes that never change.
    pub fn fixed(nodes: impl IntoIterator<Item = (NodeId, Arc<dyn HotTier>)>) -> Self {
        // What is seen stays when the sender is gone.
        Self(watch::channel(Arc::new(nodes.into_iter().collect())).1)
    }

    /// Those that there are now.
    pub(crate) fn now(&self) -> Arc<Members> {
        Arc::clone(&self.0.borrow())
    }
}
