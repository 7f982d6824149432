//! Leases, nodes, the guarded placement map and shares of budgets, with one store.

use std::{collections::BTreeMap, time::Duration};

use metadata::{Claim, Lease, MetadataError, NodeDescription, SHARE_WHOLE, Want};
use types::{NodeId, TenantId};

use super::{Store, map};

/// Long enough that nothing runs out meanwhile.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);
/// A time that a case waits for.
const SHORT: Duration = Duration::from_millis(20);

pub(crate) async fn taken(store: &Store, holder: &str, ttl: Duration) -> Lease {
    match store.take_lease("rebalancer", holder, ttl).await.unwrap() {
        Claim::Taken(lease) => lease,
        held @ Claim::HeldBy { .. } => panic!("{holder} did not get it: {held:?}"),
    }
}

/// Goal: one holder at a time; each has a higher epoch; who was taken over, or gave up, cannot renew.
pub(crate) async fn leases_are_fenced(store: Store) {
    let first = taken(&store, "a", LONG).await;
    assert_eq!((&*first.name, &*first.holder, first.epoch), ("rebalancer", "a", 1));
    match store.take_lease("rebalancer", "b", LONG).await.unwrap() {
        Claim::HeldBy { holder, epoch, runs_out_in } => {
            assert_eq!((&*holder, epoch), ("a", 1));
            assert!(runs_out_in > LONG / 2 && runs_out_in <= LONG, "{runs_out_in:?}");
        }
        Claim::Taken(lease) => panic!("it was held: {lease:?}"),
    }
    store.renew_lease(&first, LONG).await.unwrap();
    let reborn = taken(&store, "a", LONG).await;
    assert_eq!(reborn.epoch, 2, "another life of the same holder is another holder");
    assert!(matches!(store.renew_lease(&first, LONG).await, Err(MetadataError::Fenced)));
    store.give_up_lease(&first).await.unwrap();
    store.renew_lease(&reborn, LONG).await.expect("a former life gives up nothing of the next");

    store.give_up_lease(&reborn).await.unwrap();
    assert!(matches!(store.renew_lease(&reborn, LONG).await, Err(MetadataError::Fenced)));
    assert_eq!(taken(&store, "b", LONG).await.epoch, 3);
    let other = store.take_lease("watermark", "c", LONG).await.unwrap();
    assert!(matches!(other, Claim::Taken(Lease { epoch: 1, .. })), "names have nothing to do with each other");
}

/// Goal: a lease that ran out is still its holder's until another takes it, and then no more; one that is renewed has its time anew.
pub(crate) async fn leases_run_out(store: Store) {
    let first = taken(&store, "a", SHORT).await;
    tokio::time::sleep(2 * SHORT).await;
    store.renew_lease(&first, SHORT).await.expect("nobody took it");
    tokio::time::sleep(2 * SHORT).await;
    let second = taken(&store, "b", LONG).await;
    assert_eq!(second.epoch, first.epoch + 1);
    assert!(matches!(store.renew_lease(&first, LONG).await, Err(MetadataError::Fenced)));
    store.renew_lease(&second, LONG).await.unwrap();

    let Claim::Taken(brief) = store.take_lease("watermark", "a", SHORT).await.unwrap() else { panic!("it was free") };
    store.renew_lease(&brief, LONG).await.unwrap();
    match store.take_lease("watermark", "b", LONG).await.unwrap() {
        Claim::HeldBy { runs_out_in, .. } => assert!(runs_out_in > LONG / 2, "{runs_out_in:?}"),
        Claim::Taken(lease) => panic!("it was renewed: {lease:?}"),
    }
}

/// Goal: a node is what it said last, with its age by the store's clock; an earlier life and one that was removed are told so.
pub(crate) async fn nodes_come_and_go(store: Store) {
    let node = |id, zone: Option<&str>, address: &str| NodeDescription {
        id: NodeId(id),
        zone: zone.map(str::to_owned),
        addresses: BTreeMap::from([("hot-tier".to_owned(), address.to_owned())]),
    };
    let (one, other) = (node(u64::MAX, None, "[::1]:9091"), node(1, Some("größe"), "a:1"));
    assert_eq!(store.register_node(&one, 0).await.unwrap(), 1);
    assert_eq!(store.register_node(&other, 0).await.unwrap(), 1);
    let moved = node(u64::MAX, Some("z"), "b:2");
    assert_eq!(store.register_node(&moved, 0).await.unwrap(), 2);
    let nodes = store.nodes().await.unwrap();
    let described: Vec<_> = nodes.iter().map(|record| (&record.node, record.epoch)).collect();
    // Stored ids have a sign: the order is the database's, the same in all.
    assert_eq!(described, [(&moved, 2), (&other, 1)]);

    assert!(matches!(store.heartbeat(one.id, 1).await, Err(MetadataError::Fenced)));
    tokio::time::sleep(2 * SHORT).await;
    let silent = store.nodes().await.unwrap();
    assert!(silent.iter().all(|record| record.silent_for >= SHORT));
    store.heartbeat(one.id, 2).await.unwrap();
    let nodes = store.nodes().await.unwrap();
    assert!(nodes[0].heartbeat_at > silent[0].heartbeat_at, "{nodes:?}");
    assert!(nodes[0].silent_for < nodes[1].silent_for && nodes[0].heartbeat_at > nodes[1].heartbeat_at, "{nodes:?}");

    assert!(matches!(store.remove_node(one.id, 1).await, Err(MetadataError::Fenced)), "an earlier life");
    store.remove_node(one.id, 2).await.unwrap();
    assert!(matches!(store.remove_node(one.id, 2).await, Err(MetadataError::Fenced)), "it is gone");
    assert!(matches!(store.heartbeat(one.id, 2).await, Err(MetadataError::Fenced)));
    assert_eq!(store.nodes().await.unwrap().len(), 1);
    assert_eq!(store.register_node(&one, 0).await.unwrap(), 4, "epochs go on");
    assert!(matches!(store.heartbeat(NodeId(7), 1).await, Err(MetadataError::Fenced)), "nobody registered it");
}

/// Goal: a registration that comes twice, as over two control planes of which one was slow, is one life; one that comes after the end
/// of that life does not begin it again; without a number of its own each is another life.
pub(crate) async fn a_registration_is_one_life(store: Store) {
    let node =
        NodeDescription { id: NodeId(3), zone: None, addresses: [("gateway".to_owned(), "a:1".to_owned())].into() };
    assert_eq!(store.register_node(&node, u64::MAX).await.unwrap(), 1);
    assert_eq!(store.register_node(&node, u64::MAX).await.unwrap(), 1);
    store.heartbeat(node.id, 1).await.unwrap();
    assert_eq!(store.register_node(&node, 7).await.unwrap(), 2);
    assert!(matches!(store.heartbeat(node.id, 1).await, Err(MetadataError::Fenced)));
    store.remove_node(node.id, 2).await.unwrap();
    assert!(matches!(store.register_node(&node, 7).await, Err(MetadataError::Fenced)));
    assert_eq!(store.nodes().await.unwrap(), []);
    assert_eq!(store.register_node(&node, 8).await.unwrap(), 4);
    for epoch in 5..7 {
        assert_eq!(store.register_node(&node, 0).await.unwrap(), epoch);
    }
}

/// Goal: a rebalancer that was taken over changes nothing any more, whatever version it knows.
pub(crate) async fn placement_is_guarded(store: Store) {
    let first = taken(&store, "a", LONG).await;
    store.store_placement(&map(1), 0, Some(&first)).await.unwrap();
    store.give_up_lease(&first).await.unwrap();
    let refused = store.store_placement(&map(2), 1, Some(&first)).await;
    assert!(matches!(refused, Err(MetadataError::Fenced)), "given up: {refused:?}");
    let second = taken(&store, "b", LONG).await;
    let refused = store.store_placement(&map(2), 1, Some(&first)).await;
    assert!(matches!(refused, Err(MetadataError::Fenced)), "taken over: {refused:?}");
    assert_eq!(store.placement().await.unwrap(), map(1));
    store.store_placement(&map(2), 1, Some(&second)).await.unwrap();
    let refused = store.store_placement(&map(3), 1, Some(&second)).await;
    assert!(matches!(refused, Err(MetadataError::Conflict)), "{refused:?}");
}

/// Goal: two renewals after what gateways want has changed, each has its part; what one gives up or lets run out is free, and not
/// before.
pub(crate) async fn shares_follow_what_is_wanted(store: Store) {
    let (big, small) = (TenantId(u64::MAX), TenantId(1));
    let want = |tenant, rate| Want { tenant, rate };
    let share = async |gateway: &str, wants: &[Want], ttl| {
        let shares = store.renew_shares(gateway, wants, ttl).await.unwrap();
        shares.into_iter().map(|share| (share.tenant, share.of_whole)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(share("a", &[want(big, 100), want(small, 0)], LONG).await, BTreeMap::from([(big, SHARE_WHOLE)]));
    assert_eq!(share("b", &[want(big, 1_900)], LONG).await, BTreeMap::from([(big, 0)]), "nothing is free yet");
    assert_eq!(share("a", &[want(big, 100)], LONG).await, BTreeMap::from([(big, SHARE_WHOLE / 20)]));
    let both = [want(big, 1_900), want(small, 7), want(small, 7)];
    let expected = BTreeMap::from([(big, SHARE_WHOLE / 20 * 19), (small, SHARE_WHOLE)]);
    assert_eq!(share("b", &both, LONG).await, expected, "95 % at one gateway");
    assert_eq!(share("a", &[want(big, 100)], LONG).await, BTreeMap::from([(big, SHARE_WHOLE / 20)]));

    assert_eq!(share("b", &both, SHORT).await, expected);
    tokio::time::sleep(2 * SHORT).await;
    let alone = BTreeMap::from([(big, SHARE_WHOLE)]);
    assert_eq!(share("a", &[want(big, 100)], LONG).await, alone, "what ran out is free");
    assert_eq!(share("a", &[], LONG).await, BTreeMap::new());
    assert_eq!(share("c", &[want(big, 1)], LONG).await, alone, "what was given up is free");
}
