//! Something is there and yet is not: an engine that stands still, a process that was thought dead, a network that delays, loses
//! connections or cuts a node off.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use hyper::StatusCode;
use rustix::process::Signal;

use super::{engines::Engine, links::To, members::Kind, stage::Stage};
use crate::Failure;

/// An engine is away so long.
const ENGINE_AWAY: Duration = Duration::from_secs(20);
/// A process stands still so long.
const STANDS_STILL: Duration = Duration::from_secs(30);
/// A node is cut off so long.
const CUT_OFF: Duration = Duration::from_secs(15);
/// What goes to a process, and from it, takes so much longer.
const DELAY: Duration = Duration::from_millis(200);
const DELAYED_FOR: Duration = Duration::from_secs(15);
const LOSSES: u32 = 30;
const BETWEEN_LOSSES: Duration = Duration::from_millis(400);
/// Most bytes that the disk of the log may have: more would take too long to fill.
const DISK_BYTES_MAX: u64 = 512 << 20;
/// Who refuses because an engine is away says so within this.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);

/// SIGSTOP of a node for 30 s: its partitions go elsewhere, and nothing that it says when it wakes up is wrong.
pub(super) async fn zombie(stage: &mut Stage) -> Result<String, Failure> {
    let before = stage.before().await?;
    let (node, partitions) = stage.busiest().await?;
    let at = stage.members.node(node)?;
    let began = Instant::now();
    stage.members.all[at].signal(Signal::STOP)?;
    let away = async {
        let placed = stage.until_whole(&[node]).await?.0;
        stage.go_on(STANDS_STILL.saturating_sub(began.elapsed())).await?;
        Ok::<_, Failure>(placed)
    };
    let placed = away.await;
    stage.members.all[at].signal(Signal::CONT)?;
    let placed = placed?;
    let answered = stage.traffic.tally().answered - before.tally.answered;
    stage.go_on(Duration::from_secs(5)).await?;
    stage.none_refused(&before).and(stage.all_taken(&before))?;
    Ok(format!(
        "node {node} stood still for {STANDS_STILL:?} with {partitions} replicas: reassigned after {placed:.1?}, {answered} answers \
         meanwhile"
    ))
}

/// A node is cut off from the control plane and all who ask it; it still reads the log.
pub(super) async fn cut(stage: &mut Stage) -> Result<String, Failure> {
    let before = stage.before().await?;
    let (node, partitions) = stage.busiest().await?;
    let host = stage.members.all[stage.members.node(node)?].host;
    let began = Instant::now();
    stage.members.links.cut(host, To::Processes, true);
    let placed = stage.until_whole(&[node]).await?.0;
    stage.go_on(CUT_OFF.saturating_sub(began.elapsed())).await?;
    stage.members.links.cut(host, To::Processes, false);
    stage.go_on(Duration::from_secs(5)).await?;
    stage.none_refused(&before).and(stage.all_taken(&before))?;
    Ok(format!("node {node} cut off for {CUT_OFF:?} with {partitions} replicas: reassigned after {placed:.1?}"))
}

/// A node and a gateway are cut off from all engines, while all others reach them: what the node lacks is answered from the other
/// replica, and what the gateway cannot store goes by way of the other.
pub(super) async fn cut_engines(stage: &mut Stage) -> Result<String, Failure> {
    let before = stage.before().await?;
    let (node, partitions) = stage.busiest().await?;
    let node_host = stage.members.all[stage.members.node(node)?].host;
    let gateway = *stage.random.choose(&stage.members.of(|kind| kind == Kind::Gateway));
    let gateway_host = stage.members.all[gateway].host;
    for host in [node_host, gateway_host] {
        stage.members.links.cut(host, To::Engines, true);
        let gone_on = stage.go_on(CUT_OFF).await;
        stage.members.links.cut(host, To::Engines, false);
        gone_on?;
        stage.go_on(Duration::from_secs(5)).await?;
        stage.none_refused(&before)?;
    }
    stage.none_moved(&before).await?;
    let now = stage.traffic.tally();
    Ok(format!(
        "node {node} with {partitions} replicas, then {}, cut off from Kafka, PostgreSQL and Redis for {CUT_OFF:?} each: {} events \
         acked, {} requests with events refused for now",
        stage.members.all[gateway].name,
        now.acked - before.tally.acked,
        now.events_refused - before.tally.events_refused
    ))
}

/// 200 ms more on every way between processes, and to the engines, then connections lost one after the other: slower, never wrong.
pub(super) async fn delay(stage: &mut Stage) -> Result<String, Failure> {
    let before = stage.before().await?;
    stage.members.links.delay(DELAY);
    stage.go_on(DELAYED_FOR).await?;
    stage.members.links.delay(Duration::ZERO);
    let between = stage.traffic.tally();
    stage.none_refused(&before)?;
    for _ in 0..LOSSES {
        let at = stage.random.within(0..stage.members.all.len() as u64) as usize;
        stage.members.links.lose(stage.members.all[at].host);
        stage.go_on(BETWEEN_LOSSES).await?;
    }
    let after = stage.traffic.tally();
    Ok(format!(
        "{DELAY:?} each way for {DELAYED_FOR:?}: {} answers, {} events acked; {LOSSES} times all connections of a process lost: {} \
         answers, {} refused",
        between.answered - before.tally.answered,
        between.acked - before.tally.acked,
        after.answered - between.answered,
        after.refused - between.refused
    ))
}

/// Kafka stands still: ingest is refused with 503, questions are answered.
pub(super) async fn kafka(stage: &mut Stage) -> Result<String, Failure> {
    stage.until_acked().await?;
    let before = stage.before().await?;
    let began = Instant::now();
    stage.engines.signal(Engine::Kafka, Signal::STOP)?;
    let status = stage.probe().await;
    let refused = began.elapsed();
    let gone_on = stage.go_on(ENGINE_AWAY.saturating_sub(refused)).await;
    let answered = stage.traffic.tally().answered - before.tally.answered;
    let kept = stage.none_refused(&before);
    stage.engines.signal(Engine::Kafka, Signal::CONT)?;
    gone_on.and(kept)?;
    if status != Some(StatusCode::SERVICE_UNAVAILABLE) || refused > REFUSED_WITHIN {
        return Err(format!("an event without Kafka was answered with {status:?} after {refused:?}").into());
    }
    let back = stage.until_acked().await?;
    stage.none_moved(&before).await?;
    Ok(format!(
        "stood still for {ENGINE_AWAY:?}: 503 after {refused:.1?}, {answered} answers meanwhile, events taken {back:.1?} after"
    ))
}

/// The disk of Kafka's log is full, at which Kafka ends: 503 until there is room and it was started again, and nothing is lost.
pub(super) async fn full_log(stage: &mut Stage) -> Result<String, Failure> {
    stage.until_acked().await?;
    let before = stage.before().await?;
    let ballast = stage.engines.log_disk().ok_or("the log has no disk of its own")?.join("ballast");
    let bytes = fill(&ballast)?;
    let began = Instant::now();
    loop {
        match stage.probe().await {
            Some(StatusCode::SERVICE_UNAVAILABLE) => break,
            _ if began.elapsed() > ENGINE_AWAY => return Err("events are taken on a full disk".into()),
            _ => stage.go_on(BETWEEN_LOSSES).await?,
        }
    }
    let refused = began.elapsed();
    stage.go_on(ENGINE_AWAY.saturating_sub(refused)).await?;
    let answered = stage.traffic.tally().answered - before.tally.answered;
    stage.none_refused(&before)?;
    fs::remove_file(&ballast)?;
    stage.engines.start_kafka()?;
    let back = stage.until_acked().await?;
    Ok(format!(
        "filled with {} MiB: 503 after {refused:.1?}, {answered} answers in {ENGINE_AWAY:?}, events taken {back:.1?} after Kafka's start",
        bytes >> 20
    ))
}

/// Writes a file until the disk is full; how many bytes that took.
fn fill(file: &Path) -> Result<u64, Failure> {
    let mut ballast = fs::File::create(file)?;
    let (chunk, mut bytes) = (vec![1; 1 << 20], 0);
    loop {
        match ballast.write(&chunk) {
            Ok(written) => bytes += written as u64,
            Err(full) if full.kind() == io::ErrorKind::StorageFull => return Ok(bytes),
            Err(other) => return Err(other.into()),
        }
        if bytes > DISK_BYTES_MAX {
            return Err(format!("{} lies on no disk to fill", file.display()).into());
        }
    }
}

/// PostgreSQL is stopped: no administration, while data and questions flow.
pub(super) async fn postgres(stage: &mut Stage) -> Result<String, Failure> {
    stage.until_acked().await?;
    let before = stage.before().await?;
    stage.engines.stop_postgres()?;
    let (created, probed) = (stage.create("later").await, stage.probe().await);
    let gone_on = stage.go_on(ENGINE_AWAY).await;
    let between = stage.traffic.tally();
    let kept = stage.none_refused(&before).and(stage.all_taken(&before));
    stage.engines.start_postgres()?;
    gone_on.and(kept)?;
    if (created, probed) != (Some(StatusCode::SERVICE_UNAVAILABLE), Some(StatusCode::OK)) {
        return Err(
            format!("without PostgreSQL a table was answered with {created:?}, an event with {probed:?}").into()
        );
    }
    let back = stage.until_created("later").await?;
    stage.none_moved(&before).await?;
    Ok(format!(
        "stopped for {ENGINE_AWAY:?}: tables refused with 503, {} events acked and {} answers meanwhile, tables created {back:.1?} \
         after its start",
        between.acked - before.tally.acked,
        between.answered - before.tally.answered
    ))
}

/// Redis stands still: slower, never wrong.
pub(super) async fn redis(stage: &mut Stage) -> Result<String, Failure> {
    let before = stage.before().await?;
    stage.engines.signal(Engine::Redis, Signal::STOP)?;
    let gone_on = stage.go_on(ENGINE_AWAY).await;
    let kept = stage.none_refused(&before).and(stage.all_taken(&before));
    let between = stage.traffic.tally();
    stage.engines.signal(Engine::Redis, Signal::CONT)?;
    gone_on.and(kept)?;
    stage.none_moved(&before).await?;
    Ok(format!("stood still for {ENGINE_AWAY:?}: {} answers meanwhile", between.answered - before.tally.answered))
}

/// A gateway stands still for as long as a client waits: who comes to it goes to the other one, and nothing counts twice.
pub(super) async fn gateway(stage: &mut Stage) -> Result<String, Failure> {
    let before = stage.before().await?;
    let at = *stage.random.choose(&stage.members.of(|kind| kind == Kind::Gateway));
    stage.members.all[at].signal(Signal::STOP)?;
    let gone_on = stage.go_on(ENGINE_AWAY).await;
    stage.members.all[at].signal(Signal::CONT)?;
    gone_on?;
    stage.none_refused(&before)?;
    stage.none_moved(&before).await?;
    let name = &stage.members.all[at].name;
    Ok(format!(
        "{name} stood still for {ENGINE_AWAY:?}: {} events acked meanwhile",
        stage.traffic.tally().acked - before.tally.acked
    ))
}
