//! Processes die, or are restarted in order.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use hyper::StatusCode;
use serde_json::Value;

use super::{
    members::{Kind, NODES},
    stage::Stage,
    view,
};
use crate::Failure;

/// A process stays dead so long, ms.
const DEAD_MS: std::ops::Range<u64> = 200..1_500;
/// The control plane stays dead so long: longer than a node may be silent.
const CONTROL_PLANE_DEAD: Duration = Duration::from_secs(8);
/// Between two deaths.
const BETWEEN: Duration = Duration::from_millis(700);
/// The map names a lost node no longer than this.
const REASSIGNED_WITHIN: Duration = Duration::from_secs(5);
/// What half of the nodes had is there again within this.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// kill -9 of each process that is no node, one after the other: nothing is refused, and nothing moves.
pub(super) async fn services(stage: &mut Stage) -> Result<String, Failure> {
    let before = stage.before().await?;
    let mut longest = Duration::ZERO;
    let all = stage.members.of(|kind| !matches!(kind, Kind::Node(_)));
    for &at in &all {
        let kind = stage.members.all[at].kind;
        if kind == Kind::Gateway {
            stage.traffic.scene().restarts();
        }
        stage.members.all[at].kill()?;
        let dead = match kind {
            Kind::ControlPlane => CONTROL_PLANE_DEAD,
            _ => Duration::from_millis(stage.random.within(DEAD_MS)),
        };
        stage.go_on(dead).await?;
        stage.members.start(at)?;
        longest = longest.max(stage.members.healthy(at, &stage.http).await?);
        stage.go_on(BETWEEN).await?;
        let kept = stage.none_refused(&before).and(stage.all_taken(&before)).and(stage.none_moved(&before).await);
        kept.map_err(|why| format!("after the death of {}: {why}", stage.members.all[at].name))?;
    }
    let again = stage.traffic.tally().asked_again - before.tally.asked_again;
    Ok(format!(
        "{} processes killed, healthy again after {longest:.1?} at most; {again} questions asked again of the other query API",
        all.len()
    ))
}

/// kill -9 of one node of three: no question is refused, and its partitions are elsewhere within 5 s.
pub(super) async fn node(stage: &mut Stage) -> Result<String, Failure> {
    let before = stage.before().await?;
    let (node, partitions) = stage.busiest().await?;
    let at = stage.members.node(node)?;
    stage.members.all[at].kill()?;
    let (placed, restored) = stage.until_whole(&[node]).await?;
    stage.traffic.nothing_wrong()?;
    stage.none_refused(&before).and(stage.all_taken(&before))?;
    if placed > REASSIGNED_WITHIN {
        return Err(format!("the map named the dead node {node} for {placed:?}").into());
    }
    stage.members.start(at)?;
    let healthy = stage.members.healthy(at, &stage.http).await?;
    Ok(format!(
        "node {node} of {NODES} killed with {partitions} replicas: reassigned after {placed:.1?}, restored after {restored:.1?}, \
         the node healthy {healthy:.1?} after its start"
    ))
}

/// kill -9 of half of four nodes: what only they had is named, and comes back alone from the log.
pub(super) async fn half(stage: &mut Stage) -> Result<String, Failure> {
    let fourth = NODES + 1;
    if stage.members.node(fourth).is_err() {
        stage.members.add_node(fourth)?;
        stage.members.start_all(&stage.http).await?;
    }
    // A node that joins takes what lacks replicas: that of one that is lost.
    let (lost, _) = stage.busiest().await?;
    let at = stage.members.node(lost)?;
    stage.members.all[at].kill()?;
    stage.until_whole(&[lost]).await?;
    stage.members.start_all(&stage.http).await?;
    stage.until_whole(&[]).await?;

    let map = view::map(&stage.members, &stage.http).await?;
    let of = |pair: &BTreeSet<u64>| -> BTreeSet<u32> {
        map.iter().filter(|(_, nodes)| *nodes == pair).map(|(at, _)| *at).collect()
    };
    let pair = map.values().max_by_key(|pair| of(pair).len()).ok_or("nothing is placed")?;
    let alone = of(pair);
    for node in pair {
        let at = stage.members.node(*node)?;
        stage.members.all[at].kill()?;
    }
    let began = Instant::now();
    let (named, refusals) = missing_until_back(stage, &alone).await?;
    let back = began.elapsed();
    let gone: Vec<u64> = pair.iter().copied().collect();
    let (_, restored) = stage.until_whole(&gone).await?;
    stage.members.start_all(&stage.http).await?;
    Ok(format!(
        "nodes {gone:?} of {fourth} killed, partitions {alone:?} on them alone: {refusals} refusals and partial answers named \
         {named:?}; answers complete after {back:.1?}, two replicas each {restored:.1?} later, without a restart"
    ))
}

/// Asks until the answer is complete again; which partitions were named as missing until then, and how often.
async fn missing_until_back(stage: &Stage, alone: &BTreeSet<u32>) -> Result<(BTreeSet<u32>, u32), Failure> {
    let began = Instant::now();
    let (mut named, mut refusals) = (BTreeSet::new(), 0);
    loop {
        let partial = stage.count(true).await.ok_or("the query API gives no answer")?;
        let json = partial.json();
        if partial.status == StatusCode::OK {
            let missing = json["receipt"]["missing"].as_array().cloned().unwrap_or_default();
            let complete = json["receipt"]["complete"] == Value::Bool(true);
            if complete != missing.is_empty() {
                return Err(format!("a receipt that contradicts itself: {json}").into());
            }
            named.extend(missing.iter().filter_map(|gap| u32::try_from(gap["partition"].as_u64()?).ok()));
            refusals += u32::from(!complete);
            if complete && !named.is_empty() {
                break;
            }
        }
        let refused = stage.count(false).await.ok_or("the query API gives no answer")?;
        if refused.status == StatusCode::SERVICE_UNAVAILABLE {
            let text = refused.text();
            if !text.contains("partition") {
                return Err(format!("a refusal that names no partition: {text}").into());
            }
            refusals += 1;
        }
        stage.go_on(Duration::from_millis(50)).await?;
        if began.elapsed() > BACK_WITHIN {
            return Err(format!("after {BACK_WITHIN:?}: named {named:?}, the answer is {}", partial.text()).into());
        }
    }
    if !alone.is_subset(&named) {
        return Err(format!("partitions {alone:?} were missing, {named:?} were named").into());
    }
    Ok((named, refusals))
}

/// Every process is ended and started again in the order of `start-services.sh --rolling-restart`: who reads the log before who writes
/// it. No question is refused, and nothing moves.
pub(super) async fn rolling(stage: &mut Stage) -> Result<String, Failure> {
    let before = stage.before().await?;
    let began = Instant::now();
    let order = |kind: Kind| match kind {
        Kind::Node(_) => 0,
        Kind::Watermark => 1,
        Kind::QueryApi => 2,
        Kind::Rebalancer => 3,
        Kind::ControlPlane => 4,
        Kind::Gateway => 5,
    };
    let mut all = stage.members.of(|_| true);
    all.sort_by_key(|&at| order(stage.members.all[at].kind));
    for at in all {
        let kind = stage.members.all[at].kind;
        if kind == Kind::Gateway {
            stage.traffic.scene().restarts();
        }
        stage.members.all[at].stop().await?;
        stage.members.start(at)?;
        stage.members.healthy(at, &stage.http).await?;
        if matches!(kind, Kind::Node(_)) {
            stage.until_whole(&[]).await?;
        }
        stage.traffic.nothing_wrong()?;
        let kept = stage.none_refused(&before).and(stage.none_moved(&before).await);
        kept.map_err(|why| format!("after the restart of {}: {why}", stage.members.all[at].name))?;
    }
    Ok(format!("{} processes restarted in order in {:.1?}", stage.members.all.len(), began.elapsed()))
}
