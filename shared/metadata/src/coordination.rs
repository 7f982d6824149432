//! What the processes of a cluster agree on: who does what only one may do, which nodes live, where partitions lie, and who may
//! use how much of a budget.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use placement::PlacementMap;
use types::{NodeId, TenantId, Timestamp};

use crate::MetadataError;

/// The whole of a budget; a share is so many of these.
pub const SHARE_WHOLE: u64 = 1_000_000;

/// Under this number gateways share the budget of all tenants together; no tenant has it.
pub const ALL_TENANTS: TenantId = TenantId(u64::MAX);

/// A lease as it was given: the right to do what only one may do, until it runs out.
///
/// It ends `ttl` after the call that took or renewed it *began*, by a monotonic clock of the holder. The store's clock, which
/// decides when another may have it, can only see that call later. What must not happen after that is guarded by the epoch
/// ([`Coordination::store_placement`]), for a process may stand still between a look at its clock and its deed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is the right to.
    pub name: String,
    /// Who has it: unique among processes, and among the lives of one.
    pub holder: String,
    /// Rises by one each time that the lease is taken; never given twice.
    pub epoch: u64,
}

/// What became of an attempt to take a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's.
    Taken(Lease),
    /// Another has it.
    HeldBy {
        /// Who.
        holder: String,
        /// Its epoch.
        epoch: u64,
        /// When it runs out unless it is renewed.
        runs_out_in: Duration,
    },
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDescription {
    /// The node.
    pub id: NodeId,
    /// Where it stands, for the spread of replicas.
    pub zone: Option<String>,
    /// The services that it runs, each with the `host:port` of its gRPC.
    pub addresses: BTreeMap<String, String>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// What it said of itself.
    pub node: NodeDescription,
    /// Rises by one each time that the node registers.
    pub epoch: u64,
    /// When it said last that it lives, by the store's clock.
    pub heartbeat_at: Timestamp,
    /// How long ago that was, by the store's clock.
    pub silent_for: Duration,
}

/// How much of a tenant's budget a gateway would use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Whose budget.
    pub tenant: TenantId,
    /// Events per second that were offered to this gateway. Only the proportion to what others want counts.
    pub rate: u64,
}

/// How much of a tenant's budget a gateway may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Whose budget.
    pub tenant: TenantId,
    /// Of [`SHARE_WHOLE`].
    pub of_whole: u64,
}

/// What processes agree on. Every method is atomic, and durable when it returns. Time is the store's: all see one clock.
#[async_trait]
pub trait Coordination: Send + Sync + 'static {
    /// Takes a lease for `ttl` if it is free, has run out, or is of an earlier life of the same holder.
    ///
    /// # Errors
    /// The store failed.
    async fn take_lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Claim, MetadataError>;

    /// Keeps a lease for another `ttl`, also one that has run out if nobody took it since.
    ///
    /// # Errors
    /// [`MetadataError::Fenced`] where another took it or it was given up; the store failed.
    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<(), MetadataError>;

    /// Gives a lease up. One that another has taken since stays his.
    ///
    /// # Errors
    /// The store failed.
    async fn give_up_lease(&self, lease: &Lease) -> Result<(), MetadataError>;

    /// Registers a node; gives its epoch. An earlier life of the same node is fenced from now on. The last `registration` that comes
    /// again is the same life, however it came: a random number, or 0 for one that is never the same.
    ///
    /// # Errors
    /// [`MetadataError::Fenced`] where that life was removed; the store failed.
    async fn register_node(&self, node: &NodeDescription, registration: u64) -> Result<u64, MetadataError>;

    /// Notes that a node lives.
    ///
    /// # Errors
    /// [`MetadataError::Fenced`] where the node was registered again since, or removed; the store failed.
    async fn heartbeat(&self, node: NodeId, epoch: u64) -> Result<(), MetadataError>;

    /// Forgets this life of a node, which its next heartbeat is told.
    ///
    /// # Errors
    /// [`MetadataError::Fenced`] where the node was registered again since, or removed; the store failed.
    async fn remove_node(&self, node: NodeId, epoch: u64) -> Result<(), MetadataError>;

    /// All nodes, by id.
    ///
    /// # Errors
    /// The store failed.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, MetadataError>;

    /// The placement map; version 0 and empty before the first.
    ///
    /// # Errors
    /// The store failed.
    async fn placement(&self) -> Result<PlacementMap, MetadataError>;

    /// Replaces the placement map by one of a higher version, in the name of who holds the lease `guard`.
    ///
    /// # Errors
    /// [`MetadataError::Fenced`] where `guard` is not the last that was taken under its name;
    /// [`MetadataError::Conflict`] where the stored version is not `expected`; the store failed.
    async fn store_placement(
        &self,
        map: &PlacementMap,
        expected: u64,
        guard: Option<&Lease>,
    ) -> Result<(), MetadataError>;

    /// Says what a gateway wants of all budgets that it uses, and gives what it may use of each for `ttl`: its part in proportion
    /// to what all gateways want, as far as others have given theirs up. The shares of a budget that have not run out never
    /// exceed the whole. What the gateway had before and does not name any more is free at once.
    ///
    /// # Errors
    /// The store failed; what it gave last is then good for its time.
    async fn renew_shares(&self, gateway: &str, wants: &[Want], ttl: Duration) -> Result<Vec<Share>, MetadataError>;
}
