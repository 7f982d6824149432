//! The processes of a cluster as they see each other: who is there, what it serves and where.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;
use types::{ApiError, NodeId};

use crate::internal;

/// The name under which a hot tier tells its address; other services go by their own names likewise.
pub const HOT_TIER: &str = "hot-tier";
/// See [`HOT_TIER`].
pub const STREAM_INGESTER: &str = "stream-ingester";
/// See [`HOT_TIER`].
pub const GATEWAY: &str = "gateway";

/// A process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number, of its own in the cluster. That of a node of the hot tier is the same after a restart, for its checkpoints lie
    /// there; others may draw one at their start.
    pub node: NodeId,
    /// Where it stands; what stands in one zone may fail together.
    pub zone: Option<String>,
    /// `host:port` of the gRPC of each of its services, by the service's name.
    pub services: BTreeMap<String, String>,
}

impl Member {
    /// Where one of its services is.
    #[must_use]
    pub fn address(&self, service: &str) -> Option<&str> {
        self.services.get(service).map(String::as_str)
    }
}

/// The processes that live, by their numbers.
pub type Members = Arc<BTreeMap<NodeId, Member>>;

/// The time of a process from a registration on, until it leaves or another registers as the same node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Whose.
    pub node: NodeId,
    /// Rises with each registration.
    pub epoch: u64,
}

/// Where processes say that they live.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// A process begins. An earlier life of the same node ends with that: a process that was thought dead, or was started twice,
    /// is told so by its next word. Where the outcome is unknown it is said again under the same `registration`, a random number that
    /// makes one life of all of them.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` where that life has ended; `UNAVAILABLE`.
    async fn register(&self, member: &Member, registration: u64) -> Result<Life, ApiError>;

    /// It lives still. To be said each second, else it counts as lost until it is said again.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` where this life has ended; `UNAVAILABLE`.
    async fn heartbeat(&self, life: Life) -> Result<(), ApiError>;

    /// It is about to stop.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` where this life has ended; `UNAVAILABLE`.
    async fn leave(&self, life: Life) -> Result<(), ApiError>;

    /// The processes that live, and each change; the last that was known where the control plane is away.
    fn members(&self) -> watch::Receiver<Members>;
}

impl From<&Member> for internal::Member {
    fn from(member: &Member) -> Self {
        let service = |(name, address): (&String, &String)| internal::MemberService {
            name: name.clone(),
            address: address.clone(),
        };
        let services = member.services.iter().map(service).collect();
        Self { node: member.node.0, zone: member.zone.clone(), services, registration: 0 }
    }
}

impl From<internal::Member> for Member {
    fn from(member: internal::Member) -> Self {
        Self {
            node: NodeId(member.node),
            zone: member.zone,
            services: member.services.into_iter().map(|service| (service.name, service.address)).collect(),
        }
    }
}

impl From<Life> for internal::Life {
    fn from(Life { node, epoch }: Life) -> Self {
        Self { node: node.0, epoch }
    }
}

impl From<internal::Life> for Life {
    fn from(internal::Life { node, epoch }: internal::Life) -> Self {
        Self { node: NodeId(node), epoch }
    }
}

/// The list that a watcher gets.
pub(crate) fn list(members: &Members) -> internal::MemberList {
    internal::MemberList { members: members.values().map(internal::Member::from).collect() }
}

/// What is known after a list came.
pub(crate) fn of_list(list: internal::MemberList) -> Members {
    Arc::new(list.members.into_iter().map(Member::from).map(|member| (member.node, member)).collect())
}
