//! A gateway's side: it follows every node, and sums up what they say some times a second.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use placement::PlacementMap;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use types::{ApiError, NodeId};

use super::{Heard, STALE_AFTER};
use crate::{
    hot_tier::{MemoryState, NodeMemory},
    internal::{Nothing, node_state_client::NodeStateClient},
    members::{Members, STREAM_INGESTER},
    progress::{ApplyLag, Lag},
    wire::{Connector, error_of},
};

/// How often what nodes said is summed up.
const SUM_INTERVAL: Duration = Duration::from_millis(100);
/// How long to wait before a node is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The lag and the memory of all nodes together.
pub struct NodeStates {
    sum: Arc<Sum>,
    following: AbortHandle,
}

/// What was summed up last. Relaxed: figures that order nothing, and need not be of the same sum.
struct Sum {
    bytes: AtomicU64,
    age_us: AtomicU64,
    memory: AtomicU8,
}

impl NodeStates {
    /// Follows the nodes among the members, wherever the map has them.
    #[must_use]
    pub fn follow(
        members: watch::Receiver<Members>,
        placement: watch::Receiver<Arc<PlacementMap>>,
        connector: Connector,
    ) -> Self {
        let sum = Arc::new(Sum {
            bytes: AtomicU64::new(0),
            age_us: AtomicU64::new(0),
            memory: AtomicU8::new(memory_to_byte(MemoryState::Room)),
        });
        let heard = Arc::new(Mutex::new(Heard::new(Instant::now())));
        let nodes = Nodes { heard, connector, followed: BTreeMap::new() };
        let following = tokio::spawn(nodes.run(members, placement, Arc::clone(&sum))).abort_handle();
        Self { sum, following }
    }
}

impl Drop for NodeStates {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl ApplyLag for NodeStates {
    fn lag(&self) -> Lag {
        Lag { bytes: self.sum.bytes.load(Relaxed), age: Duration::from_micros(self.sum.age_us.load(Relaxed)) }
    }
}

impl NodeMemory for NodeStates {
    fn memory(&self) -> MemoryState {
        memory_from_byte(self.sum.memory.load(Relaxed))
    }
}

fn memory_to_byte(memory: MemoryState) -> u8 {
    match memory {
        MemoryState::Room => 0,
        MemoryState::IdsFull => 1,
        MemoryState::Full => 2,
    }
}

fn memory_from_byte(byte: u8) -> MemoryState {
    match byte {
        1 => MemoryState::IdsFull,
        2 => MemoryState::Full,
        _ => MemoryState::Room,
    }
}

/// The nodes that are followed, each by a task that ends with this.
struct Nodes {
    heard: Arc<Mutex<Heard>>,
    connector: Connector,
    followed: BTreeMap<(NodeId, String), Followed>,
}

struct Followed(AbortHandle);

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Nodes {
    async fn run(
        mut self,
        mut members: watch::Receiver<Members>,
        placement: watch::Receiver<Arc<PlacementMap>>,
        sum: Arc<Sum>,
    ) {
        let mut ticks = interval(SUM_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        members.mark_changed();
        loop {
            ticks.tick().await;
            if members.has_changed().unwrap_or(false) {
                let now = Arc::clone(&members.borrow_and_update());
                self.follow(&now);
            }
            let map = Arc::clone(&placement.borrow());
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let (lag, memory) = (heard.lag(&map, Instant::now()), heard.memory(&map, Instant::now()));
            drop(heard);
            sum.bytes.store(lag.bytes, Relaxed);
            sum.age_us.store(u64::try_from(lag.age.as_micros()).unwrap_or(u64::MAX), Relaxed);
            sum.memory.store(memory_to_byte(memory), Relaxed);
        }
    }

    /// Follows who is new, and nobody who has gone.
    fn follow(&mut self, members: &Members) {
        let node = |member: &crate::members::Member| Some((member.node, member.address(STREAM_INGESTER)?.to_owned()));
        let nodes: Vec<_> = members.values().filter_map(node).collect();
        self.followed.retain(|known, _| nodes.contains(known));
        for (node, address) in nodes {
            self.followed.entry((node, address.clone())).or_insert_with(|| {
                let (heard, connector) = (Arc::clone(&self.heard), self.connector.clone());
                Followed(tokio::spawn(follow_node(node, address, heard, connector)).abort_handle())
            });
        }
    }
}

async fn follow_node(node: NodeId, address: String, heard: Arc<Mutex<Heard>>, connector: Connector) {
    loop {
        if let Err(error) = watch(node, &address, &heard, &connector).await {
            tracing::debug!(node = node.0, address, %error, "the node's state is not followed");
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn watch(node: NodeId, address: &str, heard: &Mutex<Heard>, connector: &Connector) -> Result<(), ApiError> {
    let silent = |_| ApiError::unavailable("it said nothing for too long");
    let mut client = NodeStateClient::new(connector.to(address)?);
    let watching = timeout(STALE_AFTER, client.watch(Nothing {})).await.map_err(silent)?;
    let mut reports = watching.map_err(|status| error_of(&status))?.into_inner();
    while let Some(report) =
        timeout(STALE_AFTER, reports.message()).await.map_err(silent)?.map_err(|status| error_of(&status))?
    {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.take(node, report.into(), Instant::now());
    }
    Ok(())
}
