//! When the target of a move takes over, over nodes that stand in for the real ones.

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use metadata::{Coordination, NodeDescription, SqliteStore};
use placement::{Move, MoveReason, Phase};
use proto::{hot_tier::HotTier, members::HOT_TIER};
use rebalancer::{Placer, Spread};
use support::Shows;
use types::{NodeId, PartitionId};

const PARTITION: PartitionId = PartitionId(0);
const SPREAD: Spread = Spread { partitions: 1, replicas: 1, nodes_first: 1 };
/// Patience with a machine that has much else to do.
const TRIES: usize = 600;
const BETWEEN: Duration = Duration::from_millis(20);

/// Goal: a target that shows the partition takes over only when it has taken up a map that names it: one that shows it from before
/// may be about to let go of it.
#[tokio::test]
async fn a_target_takes_over_by_the_map_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&directory.path().join("metadata.db")).await.unwrap());
    let (source, target) = (Arc::new(Shows::partitions(1)), Arc::new(Shows::partitions(1)));
    let nodes: BTreeMap<NodeId, Arc<dyn HotTier>> =
        [(NodeId(1), source as Arc<dyn HotTier>), (NodeId(2), target.clone())].into();
    let (_sender, nodes) = tokio::sync::watch::channel(Arc::new(nodes));
    let mut placer = Placer::new(store.clone(), nodes, SPREAD, Duration::from_secs(65), "a".to_owned());
    let register = async |id| {
        let addresses = [(HOT_TIER.to_owned(), "127.0.0.1:1".to_owned())].into();
        store.register_node(&NodeDescription { id: NodeId(id), zone: None, addresses }, 0).await.unwrap();
    };
    let now = Instant::now();
    register(1).await;
    placer.round(now).await.unwrap();
    register(2).await;
    let placed = store.placement().await.unwrap();
    let step = Move { partition: PARTITION, from: NodeId(1), to: NodeId(2), bytes: 0, reason: MoveReason::Request };
    store.store_placement(&placed.with_move(&step).unwrap(), placed.version, None).await.unwrap();
    placer.round(now).await.unwrap();
    let copying = store.placement().await.unwrap();
    assert_eq!(copying.moves[&PARTITION].phase, Phase::Copying);

    target.map_version.store(copying.version - 1, SeqCst);
    placer.round(now).await.unwrap();
    let mut tries = 0..TRIES;
    while target.looks.load(SeqCst) < 3 {
        tries.next().expect("the target is looked at");
        tokio::time::sleep(BETWEEN).await;
        placer.round(now).await.unwrap();
    }
    assert_eq!(store.placement().await.unwrap(), copying);

    target.map_version.store(copying.version, SeqCst);
    while store.placement().await.unwrap() == copying {
        tries.next().expect("the target takes over");
        tokio::time::sleep(BETWEEN).await;
        placer.round(now).await.unwrap();
    }
    let leaving = store.placement().await.unwrap();
    assert_eq!((leaving.moves[&PARTITION].phase, &leaving.replicas[&PARTITION]), (Phase::Leaving, &vec![NodeId(2)]));
}
