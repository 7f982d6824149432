//! Boundaries over a real connection: what a node or a gateway says arrives at the others, and what is away shows.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use placement::PlacementMap;
use proto::{
    dead_letters::{ClusterDeadLetters, DeadLetterCounts, DeadLettersService},
    hot_tier::{MemoryState, NodeMemory},
    members::{GATEWAY, Member, Members, STREAM_INGESTER},
    node_state::{NodeStateService, NodeStates},
    progress::{ApplyLag as _, Lag, PartitionLag, PartitionLags},
    wire::Connector,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use types::{ApiError, ErrorCode, NodeId, PartitionId, TableName, TenantId};

/// A node of one partition, as a test wants it.
struct Node {
    lag: Mutex<Lag>,
    memory: Mutex<MemoryState>,
}

impl PartitionLags for Node {
    fn lags(&self) -> Arc<Vec<PartitionLag>> {
        Arc::new(vec![PartitionLag { partition: PartitionId(0), lag: *self.lag.lock().unwrap() }])
    }
}

impl NodeMemory for Node {
    fn memory(&self) -> MemoryState {
        *self.memory.lock().unwrap()
    }
}

/// A gateway with so many letters, or without a disk.
struct Letters(Option<u64>);

#[async_trait]
impl DeadLetterCounts for Letters {
    async fn dead_letters(&self, tenant: TenantId, table: &TableName) -> Result<u64, ApiError> {
        assert_eq!((tenant, table), (TenantId(7), &TableName::new("shop", "events")));
        self.0.ok_or_else(|| ApiError::unavailable("the disk is away"))
    }
}

async fn listen() -> (SocketAddr, TcpListenerStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    (listener.local_addr().unwrap(), TcpListenerStream::new(listener))
}

/// A node, where it is, and by what it falls silent.
async fn node(lag: Lag) -> (Arc<Node>, SocketAddr, watch::Sender<bool>) {
    let node = Arc::new(Node { lag: Mutex::new(lag), memory: Mutex::new(MemoryState::Room) });
    let ((address, incoming), (silence, ends)) = (listen().await, watch::channel(false));
    let service = NodeStateService::server(node.clone(), node.clone(), ends);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    (node, address, silence)
}

async fn gateway(letters: Option<u64>) -> SocketAddr {
    let (address, incoming) = listen().await;
    let service = DeadLettersService::server(Arc::new(Letters(letters)));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    address
}

fn members(service: &str, addresses: &[SocketAddr]) -> Members {
    let member = |(node, address): (NodeId, &SocketAddr)| {
        let services = BTreeMap::from([(service.to_owned(), address.to_string())]);
        (node, Member { node, zone: None, services })
    };
    Arc::new((1..).map(NodeId).zip(addresses).map(member).collect())
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to pass that {what}");
}

/// Goal: a gateway hears how each node is and goes by the best replica; one that falls silent is passed over, and when all are,
/// the lag grows.
#[tokio::test]
async fn gateways_hear_how_nodes_are() {
    let (slow, quick) =
        (Lag { bytes: 900, age: Duration::from_secs(9) }, Lag { bytes: 1, age: Duration::from_millis(1) });
    let (first, at_first, first_ends) = node(slow).await;
    let (_second, at_second, second_ends) = node(quick).await;
    let (known, seen) = watch::channel(members(STREAM_INGESTER, &[at_first]));
    let replicas = [(PartitionId(0), vec![NodeId(1), NodeId(2)])].into();
    let (_placed, placement) =
        watch::channel(Arc::new(PlacementMap { version: 1, replicas, ..PlacementMap::default() }));
    let states = NodeStates::follow(seen, placement, Connector::new(None));
    until("the first node is heard", || states.lag() == slow).await;
    *first.memory.lock().unwrap() = MemoryState::IdsFull;
    until("its memory is heard", || states.memory() == MemoryState::IdsFull).await;

    known.send_replace(members(STREAM_INGESTER, &[at_first, at_second]));
    until("the better replica counts", || states.lag() == quick).await;
    second_ends.send_replace(true);
    until("the one that is silent does not", || states.lag() == slow).await;
    first_ends.send_replace(true);
    until("the partition stands still", || states.lag().age > slow.age + Duration::from_secs(2)).await;
    assert_eq!(states.memory(), MemoryState::Room);
}

/// Goal: letters of all gateways add up; one that cannot count, or does not answer, makes the count fail and not too small.
#[tokio::test]
async fn dead_letters_add_up() {
    let (some, more, broken) = (gateway(Some(3)).await, gateway(Some(4)).await, gateway(None).await);
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let count = async |addresses: &[SocketAddr]| {
        let (_known, seen) = watch::channel(members(GATEWAY, addresses));
        let letters = ClusterDeadLetters::new(seen, Connector::new(None));
        letters.dead_letters(TenantId(7), &TableName::new("shop", "events")).await.map_err(|error| error.code)
    };
    assert_eq!(count(&[]).await, Ok(0));
    assert_eq!(count(&[some, more]).await, Ok(7));
    assert_eq!(count(&[some, broken]).await, Err(ErrorCode::Unavailable));
    assert_eq!(count(&[some, nobody]).await, Err(ErrorCode::Unavailable));
}
