//! Two stores on the same data, as two processes have them, at the same time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use metadata::{Claim, MetadataError, SHARE_WHOLE, Want};
use placement::PlacementMap;
use tokio::task::JoinSet;
use types::{ColumnKind, NodeId, SchemaVersion, TableKey, TenantId};

use super::{Store, column, coordination::LONG, grown, map, new_table, stored};

const WRITERS: usize = 4;

/// `WRITERS` for each of two stores, with their numbers.
fn writers(a: &Store, b: &Store) -> Vec<(usize, Store)> {
    (0..2 * WRITERS).map(|n| (n, Arc::clone(if n % 2 == 0 { a } else { b }))).collect()
}

/// Goal: of all that create a table of one name at once one does, and no two names get one id.
pub(crate) async fn tables_are_made_once(a: Store, b: Store) {
    const NAMES: usize = 6;
    let mut tasks = JoinSet::new();
    for (_, store) in writers(&a, &b) {
        for n in 0..NAMES {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                let table = new_table(&store, &format!("t{n}")).await;
                (n, table.key, store.create_table(&table).await)
            });
        }
    }
    let (mut keys, mut made) = (BTreeMap::<usize, BTreeSet<TableKey>>::new(), BTreeMap::<usize, usize>::new());
    for (n, key, outcome) in tasks.join_all().await {
        keys.entry(n).or_default().insert(key);
        match outcome {
            Ok(()) => *made.entry(n).or_default() += 1,
            Err(MetadataError::AlreadyExists | MetadataError::Conflict) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(made, (0..NAMES).map(|n| (n, 1)).collect(), "each was made once");
    let living = b.tables(None).await.unwrap();
    let ids: BTreeSet<_> = living.iter().map(|stored| stored.table.key.table).collect();
    assert_eq!((living.len(), ids.len()), (NAMES, NAMES));
    for stored in living {
        let n: usize = stored.table.name.table[1..].parse().unwrap();
        assert!(keys[&n].contains(&stored.table.key));
    }
}

/// Goal: columns that two processes add by compare and swap are all there, each once.
pub(crate) async fn columns_are_never_lost(a: Store, b: Store) {
    let table = new_table(&a, "t").await;
    a.create_table(&table).await.unwrap();
    let mut tasks = JoinSet::new();
    for (n, store) in writers(&a, &b) {
        let key = table.key;
        tasks.spawn(async move {
            loop {
                let now = store.table_by_key(key).await.unwrap().unwrap().table;
                let next = grown(&now, &[column(&format!("m{n}"), ColumnKind::Metric)]);
                match store.update_table(&next, now.schema.version()).await {
                    Ok(()) => return,
                    Err(MetadataError::Conflict) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    tasks.join_all().await;
    let end = b.table_by_key(table.key).await.unwrap().unwrap().table.schema;
    assert_eq!(end.version(), SchemaVersion(1 + 2 * WRITERS as u32));
    assert_eq!(end.names(ColumnKind::Metric).count(), 2 * WRITERS);
}

/// Goal: whoever follows by version, while two processes create, change and end tables, has what lives in the end: no change of
/// a lower version becomes visible after one of a higher was seen.
pub(crate) async fn followers_miss_nothing(a: Store, b: Store) {
    let follower = Arc::clone(&b);
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let following = tokio::spawn(async move {
        let (mut seen, mut version, mut last) = (BTreeMap::new(), 0, false);
        loop {
            let changes = follower.changes(version).await.unwrap();
            assert!(changes.version >= version);
            version = changes.version;
            for stored in changes.tables {
                match stored.ended {
                    true => drop(seen.remove(&stored.table.key)),
                    false => drop(seen.insert(stored.table.key, stored)),
                }
            }
            if last {
                return seen;
            }
            last = stopped.try_recv().is_ok();
        }
    });
    let mut tasks = JoinSet::new();
    for (n, store) in writers(&a, &b) {
        tasks.spawn(async move {
            for round in 0..6 {
                let table = new_table(&store, &format!("t{n}")).await;
                store.create_table(&table).await.unwrap();
                let wider = grown(&table, &[column("x", ColumnKind::Metric)]);
                store.update_table(&wider, SchemaVersion(1)).await.unwrap();
                store.mark_announced(table.key, SchemaVersion(2)).await.unwrap();
                if round < 5 {
                    store.end_table(table.key).await.unwrap();
                } else {
                    assert_eq!(store.table_by_key(table.key).await.unwrap(), Some(stored(&wider, 2, false)));
                }
            }
        });
    }
    tasks.join_all().await;
    stop.send(()).unwrap();
    let living = a.tables(None).await.unwrap();
    let expected: BTreeMap<_, _> = living.into_iter().map(|stored| (stored.table.key, stored)).collect();
    assert_eq!(expected.len(), 2 * WRITERS);
    assert_eq!(following.await.unwrap(), expected);
}

/// Goal: of many that take a free lease at once one has it, and epochs are never given twice.
pub(crate) async fn one_takes_a_lease(a: Store, b: Store) {
    for round in 1..=5 {
        let mut tasks = JoinSet::new();
        for (n, store) in writers(&a, &b) {
            tasks.spawn(async move { store.take_lease("rebalancer", &format!("{round}/{n}"), LONG).await.unwrap() });
        }
        let claims = tasks.join_all().await;
        let taken: Vec<_> = claims
            .iter()
            .filter_map(|claim| if let Claim::Taken(lease) = claim { Some(lease) } else { None })
            .collect();
        assert_eq!(taken.len(), 1, "{claims:?}");
        assert_eq!(taken[0].epoch, round);
        b.give_up_lease(taken[0]).await.unwrap();
    }
}

/// Goal: of many that replace one version of the placement map at once one does, and what it stored is there; the others are told.
pub(crate) async fn one_map_follows_another(a: Store, b: Store) {
    for version in 0..8 {
        let mut tasks = JoinSet::new();
        for (n, store) in writers(&a, &b) {
            // Each writes a map of its own.
            let next = map(version + 1).with_draining(NodeId(n as u64), true);
            let next = PlacementMap { version: version + 1, ..next };
            tasks.spawn(async move { store.store_placement(&next, version, None).await.map(|()| next) });
        }
        let (stored, refused): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!(stored.len(), 1, "{stored:?}");
        assert!(refused.iter().all(|refused| matches!(refused, Err(MetadataError::Conflict))), "{refused:?}");
        assert_eq!(&b.placement().await.unwrap(), stored[0].as_ref().unwrap());
    }
}

/// Goal: whatever gateways want, and whoever asks when, the shares of a budget that are good at one time never exceed the whole,
/// and once wants stay as they are all of it is given out but for rounding.
pub(crate) async fn shares_never_exceed_the_whole(a: Store, b: Store) {
    const GATEWAYS: usize = 2 * WRITERS;
    let tenant = TenantId(5);
    // A linear congruential generator: wants that differ by orders of magnitude, the same in every run.
    let want = |gateway: usize, round: u64| {
        let drawn = (round * 31 + gateway as u64)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Want { tenant, rate: 1 + (drawn >> 40) % 10_u64.pow(1 + (gateway % 4) as u32) }
    };
    let mut held = BTreeMap::new();
    for round in 0..12_u64 {
        let mut tasks = JoinSet::new();
        for (n, store) in writers(&a, &b) {
            // What is wanted stays as it is in the last rounds.
            let want = want(n, round.min(8));
            tasks.spawn(async move { (n, store.renew_shares(&format!("g{n}"), &[want], LONG).await.unwrap()[0]) });
        }
        // A share is good from its renewal to the next one of its gateway: none of two rounds may add up to more, in whatever
        // order they were made; the last of each round are good at once.
        for (n, share) in tasks.join_all().await {
            held.insert(n, share.of_whole);
        }
        assert!(held.values().sum::<u64>() <= SHARE_WHOLE, "{held:?}");
    }
    let given: u64 = held.values().sum();
    assert!(given >= SHARE_WHOLE - GATEWAYS as u64, "{given} of the whole, {held:?}");
}
