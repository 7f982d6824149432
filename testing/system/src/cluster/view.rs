//! How a cluster stands: which node holds what, by the placement map, and whether replicas hold the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use codec::ClusterKey;
use hyper::StatusCode;
use proto::{
    hot_tier::{HotTier as _, HotTierClient, PartitionStatus},
    wire::Connector,
};
use serde_json::Value;

use super::members::{KEY, Kind, Members, PARTITIONS};
use crate::{Failure, http::Http};

const PAUSE: Duration = Duration::from_millis(50);
/// Replicas are the same within this, once nobody sends.
const SAME_WITHIN: Duration = Duration::from_secs(60);
/// Partitions have their replicas within this, whatever happened.
const PLACED_WITHIN: Duration = Duration::from_secs(90);
/// Replicas of each partition.
const REPLICAS: usize = 2;

/// The placement map: the nodes of each partition.
pub(super) type Map = BTreeMap<u32, BTreeSet<u64>>;

/// The placement map as the control plane has it.
///
/// # Errors
/// It does not say.
pub(super) async fn map(members: &Members, http: &Http) -> Result<Map, Failure> {
    let json = cluster(members, http).await?;
    let partitions = json["placement"]["partitions"].as_array().ok_or("there is no placement map")?;
    let of = |partition: &Value| {
        let number = u32::try_from(partition["partition"].as_u64()?).ok()?;
        let nodes = partition["replicas"].as_array()?.iter().filter_map(Value::as_u64).collect();
        Some((number, nodes))
    };
    partitions.iter().map(of).collect::<Option<_>>().ok_or_else(|| format!("no map: {json}").into())
}

/// The version of the placement map: it grows with each change.
///
/// # Errors
/// The control plane does not say.
pub(super) async fn map_version(members: &Members, http: &Http) -> Result<u64, Failure> {
    let json = cluster(members, http).await?;
    json["placement"]["version"].as_u64().ok_or_else(|| "there is no placement map".into())
}

/// What the control plane says of the cluster.
async fn cluster(members: &Members, http: &Http) -> Result<Value, Failure> {
    let reply = http.get(&format!("{}/v1/cluster", members.url(Kind::ControlPlane))).await;
    let reply = reply.ok_or("the control plane does not answer")?;
    if reply.status != StatusCode::OK {
        return Err(reply.text().into());
    }
    Ok(reply.json())
}

/// Waits until every partition lies on two nodes, none of which is `without`; how long that took.
///
/// # Errors
/// It does not come to that.
pub(super) async fn placed(members: &Members, http: &Http, without: &[u64]) -> Result<Duration, Failure> {
    let began = Instant::now();
    loop {
        let now = map(members, http).await?;
        let well = |nodes: &BTreeSet<u64>| nodes.len() == REPLICAS && !without.iter().any(|node| nodes.contains(node));
        if now.len() == PARTITIONS as usize && now.values().all(well) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > PLACED_WITHIN {
            return Err(format!("after {PLACED_WITHIN:?} partitions lie on {now:?}, and {without:?} are away").into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How far all replicas are that the map names, by partition: `None` for one that does not answer or does not hold it.
async fn replicas(members: &Members, http: &Http) -> Result<BTreeMap<u32, Vec<Option<PartitionStatus>>>, Failure> {
    let map = map(members, http).await?;
    let connector = Connector::new(Some(ClusterKey::new(KEY)));
    let mut said = BTreeMap::new();
    for at in members.of(|kind| matches!(kind, Kind::Node(_))) {
        let Kind::Node(node) = members.all[at].kind else { continue };
        if !map.values().any(|nodes| nodes.contains(&node)) {
            continue;
        }
        let client = HotTierClient::new(connector.to(&members.all[at].grpc()).map_err(|error| error.to_string())?);
        said.insert(node, client.status().await.unwrap_or_default());
    }
    let of = |(partition, nodes): (u32, BTreeSet<u64>)| {
        let find = |node: &u64| said.get(node)?.iter().find(|status| status.partition.0 == partition).copied();
        (partition, nodes.iter().map(find).collect())
    };
    Ok(map.into_iter().map(of).collect())
}

/// Waits until each replica has applied at least what the best one of its partition had when this began; how long it took.
///
/// # Errors
/// One does not come so far.
pub(super) async fn restored(members: &Members, http: &Http) -> Result<Duration, Failure> {
    let began = Instant::now();
    let next = |replica: &Option<PartitionStatus>| replica.map(|status| status.next_offset);
    let begin = replicas(members, http).await?;
    let goal: BTreeMap<_, _> = begin.iter().map(|(at, all)| (*at, all.iter().map(next).max().flatten())).collect();
    loop {
        let now = replicas(members, http).await?;
        let there = |(at, all): (&u32, &Vec<_>)| {
            all.len() == REPLICAS && all.iter().all(|replica| next(replica).is_some() && next(replica) >= goal[at])
        };
        if now.iter().all(there) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > SAME_WITHIN {
            return Err(format!("after {SAME_WITHIN:?} replicas are not restored: {now:?}").into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Checks that replicas hold the same, while nobody sends: at one offset as many rows.
///
/// # Errors
/// They do not, or do not come to one offset.
pub(super) async fn same(members: &Members, http: &Http) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let now = replicas(members, http).await?;
        let at = |replica: &Option<PartitionStatus>| replica.map(|status| (status.next_offset, status.rows));
        let same = |all: &Vec<_>| all.len() == REPLICAS && at(&all[0]).is_some() && at(&all[0]) == at(&all[1]);
        if now.len() == PARTITIONS as usize && now.values().all(same) {
            return Ok(());
        }
        if began.elapsed() > SAME_WITHIN {
            return Err(format!("after {SAME_WITHIN:?} without a write replicas differ: {now:?}").into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
