//! Who places partitions, over real metadata and with the time as an argument.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use metadata::{Coordination, NodeDescription, SqliteStore};
use proto::{
    hot_tier::HotTier,
    members::{GATEWAY, HOT_TIER},
};
use rebalancer::{HotTiers, Placer, Spread};
use support::Shows;
use tempfile::TempDir;
use tokio::sync::watch;
use types::NodeId;

const LOOK: Duration = Duration::from_millis(500);
const SPREAD: Spread = Spread { partitions: 12, replicas: 2, nodes_first: 3 };

struct World {
    store: Arc<SqliteStore>,
    now: Instant,
    _directory: TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&directory.path().join("metadata.db")).await.unwrap());
        Self { store, now: Instant::now(), _directory: directory }
    }

    fn placer(&self, name: &str) -> Placer {
        self.placer_over(watch::channel(Arc::default()).1, name)
    }

    fn placer_over(&self, nodes: HotTiers, name: &str) -> Placer {
        Placer::new(self.store.clone(), nodes, SPREAD, Duration::from_secs(5), name.to_owned())
    }

    async fn register_many(&self, nodes: std::ops::RangeInclusive<u64>) -> Vec<(u64, u64)> {
        let mut registered = Vec::new();
        for node in nodes {
            registered.push((node, self.register(node, HOT_TIER).await));
        }
        registered
    }

    async fn register(&self, node: u64, service: &str) -> u64 {
        let addresses = [(service.to_owned(), format!("127.0.0.1:{node}"))].into();
        self.store.register_node(&NodeDescription { id: NodeId(node), zone: None, addresses }, 0).await.unwrap()
    }

    /// Looks every half second for so long, while these nodes say that they live.
    async fn pass(&mut self, placers: &mut [&mut Placer], time: Duration, living: &[(u64, u64)]) {
        let end = self.now + time;
        while self.now < end {
            self.now += LOOK;
            for &(node, epoch) in living {
                self.store.heartbeat(NodeId(node), epoch).await.unwrap();
            }
            for placer in placers.iter_mut() {
                placer.round(self.now).await.unwrap();
            }
        }
    }

    /// The version of the map, and the nodes in it, each partition having so many replicas.
    async fn map(&self, replicas: usize) -> (u64, BTreeSet<u64>) {
        let map = self.store.placement().await.unwrap();
        assert!(map.replicas.values().all(|holders| holders.len() == replicas), "{map:?}");
        (map.version, map.replicas.values().flatten().map(|node| node.0).collect())
    }
}

/// Goal: where all that held a partition are lost, others take it and they keep their places; one that is back with an empty disk
/// ends nothing, one that shows all has all, so that the other lost one and what is too much leave the map.
#[tokio::test]
async fn lost_nodes_keep_what_nobody_else_has() {
    let mut world = World::new().await;
    let back = Arc::new(Shows::partitions(SPREAD.partitions));
    let shown = BTreeMap::from([(NodeId(1), Arc::clone(&back) as Arc<dyn HotTier>)]);
    let (hot_tiers, seen) = watch::channel(Arc::default());
    let mut placer = world.placer_over(seen, "a");
    let nodes = world.register_many(1..=4).await;
    world.pass(&mut [&mut placer], LOOK, &nodes).await;
    let before = world.store.placement().await.unwrap().replicas;
    let lost = [1, 2].map(NodeId);
    let of_lost = |holders: &[NodeId]| holders.iter().all(|holder| lost.contains(holder));
    assert!(before.values().any(|holders| of_lost(holders)) && !before.values().all(|holders| of_lost(holders)));
    world.pass(&mut [&mut placer], Duration::from_secs(120), &nodes[2..]).await;
    let taken = world.store.placement().await.unwrap();
    for (partition, holders) in &taken.replicas {
        let (gone, there): (Vec<NodeId>, Vec<NodeId>) = holders.iter().partition(|holder| lost.contains(holder));
        assert_eq!(there.len(), 2);
        let had = &before[partition];
        assert_eq!(gone, if of_lost(had) { had.clone() } else { Vec::new() }, "{partition}");
    }
    let living = [&nodes[..1], &nodes[2..]].concat();
    world.pass(&mut [&mut placer], Duration::from_secs(2), &living).await;
    assert_eq!(world.store.placement().await.unwrap(), taken, "nobody knows what it has");
    hot_tiers.send_replace(Arc::new(shown));
    back.whole.store(false, SeqCst);
    placer.measure(world.now).await;
    world.pass(&mut [&mut placer], Duration::from_secs(2), &living).await;
    assert_eq!(world.store.placement().await.unwrap(), taken, "its disk is another");
    back.whole.store(true, SeqCst);
    placer.measure(world.now).await;
    world.pass(&mut [&mut placer], Duration::from_secs(2), &living).await;
    for (partition, holders) in &world.store.placement().await.unwrap().replicas {
        assert_eq!((holders.len(), holders.contains(&lost[1])), (2, false));
        assert_eq!(holders.contains(&lost[0]), of_lost(&before[partition]), "{partition}");
    }
}

/// Goal: what a node that is to be emptied had, and is in the map because nobody else has it, is not moved while that node is lost.
#[tokio::test]
async fn nothing_is_moved_off_a_lost_node() {
    let mut world = World::new().await;
    let mut placer = world.placer("a");
    let nodes = world.register_many(1..=5).await;
    world.pass(&mut [&mut placer], LOOK, &nodes).await;
    world.pass(&mut [&mut placer], Duration::from_secs(5), &nodes[2..]).await;
    let placed = world.store.placement().await.unwrap();
    let held_by_lost = |map: &placement::PlacementMap| map.held_by(NodeId(1)).len();
    assert!(held_by_lost(&placed) > 0, "{placed:?}");
    let emptied = placed.with_draining(NodeId(1), true);
    world.store.store_placement(&emptied, placed.version, None).await.unwrap();
    world.pass(&mut [&mut placer], Duration::from_secs(10), &nodes[2..]).await;
    assert_eq!(world.store.placement().await.unwrap(), emptied);

    world.pass(&mut [&mut placer], Duration::from_secs(2), &[&nodes[..1], &nodes[2..]].concat()).await;
    let moving = world.store.placement().await.unwrap();
    assert_eq!(moving.moves.values().filter(|step| step.from == NodeId(1)).count(), held_by_lost(&placed));
}

/// Goal: nothing is placed before enough nodes are there; then on nodes of the hot tier alone; who falls silent has nothing any
/// more within 4 s, and takes nothing from others when it is back; a map names nobody who does not live while one lives.
#[tokio::test]
async fn partitions_follow_those_who_live() {
    let mut world = World::new().await;
    let mut placer = world.placer("a");
    world.register(9, GATEWAY).await;
    let (one, two) = (world.register(1, HOT_TIER).await, world.register(2, HOT_TIER).await);
    world.pass(&mut [&mut placer], Duration::from_secs(10), &[(1, one), (2, two)]).await;
    assert_eq!(world.map(0).await, (0, [].into()));
    let three = world.register(3, HOT_TIER).await;
    world.pass(&mut [&mut placer], LOOK, &[(1, one), (2, two), (3, three)]).await;
    assert_eq!(world.map(2).await, (1, [1, 2, 3].into()));
    let all = [(1, one), (2, two), (3, three)];
    world.pass(&mut [&mut placer], Duration::from_secs(60), &all).await;
    assert_eq!(world.map(2).await.0, 1, "nothing happened");

    world.pass(&mut [&mut placer], Duration::from_secs(4), &all[1..]).await;
    assert_eq!(world.map(2).await, (2, [2, 3].into()));
    world.pass(&mut [&mut placer], Duration::from_secs(4), &all).await;
    assert_eq!(world.map(2).await.0, 2, "it took nothing");
    world.pass(&mut [&mut placer], Duration::from_secs(4), &all[2..]).await;
    assert_eq!(world.map(1).await, (3, [3].into()));
    world.pass(&mut [&mut placer], Duration::from_secs(20), &[]).await;
    assert_eq!(world.map(1).await.0, 3, "nobody is heard");
    world.pass(&mut [&mut placer], LOOK, &all[1..]).await;
    assert_eq!(world.map(2).await, (4, [2, 3].into()));
}

/// Goal: while no node can be heard the map stays, though a process of another kind speaks all the time and though one node is heard a
/// look before the others: what fell silent was the way.
#[tokio::test]
async fn silence_of_all_nodes_moves_nothing() {
    let mut world = World::new().await;
    let mut placer = world.placer("a");
    let gateway = (9, world.register(9, GATEWAY).await);
    let nodes = world.register_many(1..=3).await;
    let all = [nodes.clone(), vec![gateway]].concat();
    world.pass(&mut [&mut placer], Duration::from_secs(2), &all).await;
    let placed = world.store.placement().await.unwrap();
    assert_eq!(placed.version, 1);
    world.pass(&mut [&mut placer], Duration::from_secs(10), &[gateway]).await;
    world.pass(&mut [&mut placer], LOOK, &[gateway, nodes[0]]).await;
    assert_eq!(world.store.placement().await.unwrap(), placed, "one node is heard first");
    world.pass(&mut [&mut placer], Duration::from_secs(10), &all).await;
    assert_eq!(world.store.placement().await.unwrap(), placed);
}

/// Goal: where all nodes left in order, the first that comes back, hours later, gets nothing that is the others': they have their
/// minute from then on.
#[tokio::test]
async fn a_cluster_that_was_stopped_comes_back_as_it_was() {
    let mut world = World::new().await;
    let mut placer = world.placer("a");
    let nodes = world.register_many(1..=3).await;
    world.pass(&mut [&mut placer], LOOK, &nodes).await;
    let placed = world.store.placement().await.unwrap();
    for (node, epoch) in nodes {
        world.store.remove_node(NodeId(node), epoch).await.unwrap();
    }
    world.pass(&mut [&mut placer], Duration::from_secs(90), &[]).await;
    let first = (1, world.register(1, HOT_TIER).await);
    world.pass(&mut [&mut placer], Duration::from_secs(50), &[first]).await;
    assert_eq!(world.store.placement().await.unwrap(), placed);
    let second = (2, world.register(2, HOT_TIER).await);
    world.pass(&mut [&mut placer], Duration::from_secs(20), &[first, second]).await;
    assert_eq!(world.map(2).await, (2, [1, 2].into()), "the third is gone");
}

/// Goal: a node that leaves in order keeps its partitions for a minute, and not for longer.
#[tokio::test]
async fn who_leaves_in_order_comes_back() {
    let mut world = World::new().await;
    let mut placer = world.placer("a");
    let nodes = [(1, world.register(1, HOT_TIER).await), (2, world.register(2, HOT_TIER).await)];
    let three = world.register(3, HOT_TIER).await;
    world.pass(&mut [&mut placer], LOOK, &nodes).await;
    world.store.remove_node(NodeId(3), three).await.unwrap();
    world.pass(&mut [&mut placer], Duration::from_secs(58), &nodes).await;
    assert_eq!(world.map(2).await, (1, [1, 2, 3].into()));
    world.pass(&mut [&mut placer], Duration::from_secs(4), &nodes).await;
    assert_eq!(world.map(2).await, (2, [1, 2].into()));
}

/// Goal: one places; when it is gone another does, and the first, which knows nothing of that, changes nothing.
#[tokio::test]
async fn one_places() {
    let mut world = World::new().await;
    let (mut first, mut second) = (world.placer("a"), world.placer("b"));
    let nodes = world.register_many(1..=3).await;
    world.pass(&mut [&mut first, &mut second], Duration::from_secs(2), &nodes).await;
    assert_eq!(world.map(2).await.0, 1);
    first.give_up().await.unwrap();
    let mut first = world.placer("a, later");
    world.pass(&mut [&mut second, &mut first], Duration::from_secs(4), &nodes[1..]).await;
    assert_eq!(world.map(2).await, (2, [2, 3].into()), "the second had looked all the time");
    let before = world.store.placement().await.unwrap();
    let lease = metadata::Lease { name: "placing".into(), holder: "a".into(), epoch: 1 };
    let stale = placement::PlacementMap { version: 9, ..before.clone() };
    let refused = world.store.store_placement(&stale, before.version, Some(&lease)).await;
    assert!(matches!(refused, Err(metadata::MetadataError::Fenced)), "{refused:?}");
}
