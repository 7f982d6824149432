//! `POST /v1/explain`: the plan of a query, unexecuted.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use proto::hot_tier::{PartitionExplanation, ScanRequest, Unavailable};
use query::{Plan, Query, RollupExplanation, ScanCost, SegmentExplanation, Skip, SourceExplanation};
use serde::Serialize;
use types::{ApiError, LogGap, PartitionId, Rollup, TenantId, TimeRange, Timestamp};

use crate::{
    answer::{Answers, DEADLINE_GRACE, offsets_of, timed_out, unwritable},
    fleet::{Ask, Wanted},
    held::{Held, Share},
    receipt::{self, Missing},
};

/// Segments listed one by one in an answer, all partitions together.
const SEGMENTS_LISTED_MAX: usize = 10_000;

#[derive(Serialize)]
struct Reply {
    tables: Vec<String>,
    /// Per output of the query.
    columns: Vec<ColumnView>,
    /// The coarsest that answers instead of rows somewhere.
    rollup: Option<RollupView>,
    cost: CostView,
    partitions: Vec<PartitionView>,
    missing: Vec<Missing>,
}

#[derive(Serialize)]
struct ColumnView {
    name: String,
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exact_max: Option<u64>,
}

#[derive(Serialize)]
struct CostView {
    rows: u64,
    bytes: u64,
    /// Milliseconds of one core, and of a node's scan threads together.
    cpu_ms: f64,
    ms: f64,
}

#[derive(Serialize)]
struct PartitionView {
    partition: u32,
    offset: u64,
    tables: Vec<SourceView>,
}

#[derive(Serialize)]
struct SourceView {
    table: String,
    evicted_before_us: Option<i64>,
    rollups: Vec<TakenView>,
    /// What is left to rows.
    rows: Vec<RangeView>,
    kept: CountView,
    skipped: Vec<SkippedView>,
    rows_to_scan: u64,
    bytes_to_scan: u64,
    segments: Vec<SegmentView>,
}

/// A rollup by what tells it from the others of its table.
#[derive(Clone, Serialize)]
struct RollupView {
    interval_us: i64,
    group_by: Vec<String>,
}

#[derive(Serialize)]
struct TakenView {
    #[serde(flatten)]
    rollup: RollupView,
    #[serde(flatten)]
    times: RangeView,
    groups_to_merge: u64,
    rows_to_scan: u64,
    revised: u64,
}

#[derive(Serialize)]
struct RangeView {
    start_time: i64,
    end_time: i64,
}

#[derive(Serialize)]
struct CountView {
    segments: u64,
    rows: u64,
}

#[derive(Serialize)]
struct SkippedView {
    #[serde(flatten)]
    why: WhyView,
    segments: u64,
    rows: u64,
}

#[derive(Serialize)]
struct WhyView {
    /// `time_range`, `filter` or `rollup`.
    why: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<String>,
}

#[derive(Serialize)]
struct SegmentView {
    rows: u64,
    time_min_us: i64,
    time_max_us: i64,
    sealed: bool,
    kept: bool,
    #[serde(flatten)]
    skipped: Option<WhyView>,
}

/// What the nodes said.
struct Explained {
    partitions: Vec<PartitionExplanation>,
    unavailable: Vec<(PartitionId, Unavailable)>,
    /// Of the node that needs longest, ms.
    ms: f64,
}

impl Answers {
    /// The plan of a query, as JSON, and until when it waits for who asked.
    ///
    /// # Errors
    /// Those of the contract.
    pub(crate) async fn explain(&self, tenant: TenantId, json: Bytes) -> Result<(String, Held), ApiError> {
        let began = Instant::now();
        let query = self.parse(json).await?;
        let (deadline, timeout) = (began + query.timeout, query.timeout);
        let (explained, until) = (self.explain_query(tenant, &query, deadline), deadline + DEADLINE_GRACE);
        match tokio::time::timeout_at(until.into(), explained).await {
            Ok(explained) => explained.map(|(explained, share)| (explained, Held { until, timeout, share })),
            Err(_) => Err(timed_out(timeout)),
        }
    }

    async fn explain_query(
        &self,
        tenant: TenantId,
        query: &Query,
        deadline: Instant,
    ) -> Result<(String, Arc<Share>), ApiError> {
        let tokens = self.tokens(tenant, query)?;
        let tables = try_join_all(query.tables.iter().map(|name| self.table(tenant, name))).await?;
        let after = offsets_of(&tokens, &tables)?;
        let plan = Arc::new(query::plan(query, &tables)?);
        let _place = self.places.take(deadline, query.timeout).await?;
        let request = ScanRequest {
            plan: Arc::clone(&plan),
            partitions: Vec::new(),
            after,
            at: Vec::new(),
            known: Vec::new(),
            deadline,
        };
        let explained = self.ask(request).await?;
        self.still_there(tenant, &tables).await?;
        // A plan over many partitions lists many segments.
        let written = tokio::task::spawn_blocking(move || serde_json::to_string(&reply(&plan, explained))).await;
        let written = written.map_err(|error| ApiError::internal(format!("writing the plan failed: {error}")))?;
        let written = written.map_err(|error| unwritable(&error))?;
        let share = Arc::new(self.unsent.take(written.len())?);
        Ok((written, share))
    }

    /// Asks the nodes that would be asked to scan.
    async fn ask(&self, request: ScanRequest) -> Result<Explained, ApiError> {
        let partitions = request.plan.partitions().into_iter().collect();
        let wanted = Wanted { partitions: &partitions, after: &request.after, prefer: &BTreeMap::new(), hedged: false };
        let request = &request;
        let explain = |Ask { node, partitions, .. }: Ask| async move {
            let after = request.after.iter().filter(|(p, _)| partitions.contains(p)).copied().collect();
            let explained = node.explain(ScanRequest { partitions, after, ..request.clone() }).await?;
            Ok(((explained.partitions, explained.threads), explained.unavailable))
        };
        let asked = self.fleet.ask(&self.catalog.placement(), wanted, explain).await?;
        let mut explained = Explained { partitions: Vec::new(), unavailable: asked.unavailable, ms: 0.0 };
        for (_, (partitions, threads)) in asked.replies {
            let cost = total(&partitions);
            explained.ms = explained.ms.max(cost.nanoseconds / 1e6 / threads.max(1) as f64);
            explained.partitions.extend(partitions);
        }
        explained.partitions.sort_unstable_by_key(|partition| partition.partition);
        Ok(explained)
    }
}

fn total(partitions: &[PartitionExplanation]) -> ScanCost {
    let mut total = ScanCost::default();
    partitions.iter().flat_map(|partition| &partition.sources).for_each(|source| total.add(source.cost));
    total
}

fn reply(plan: &Plan, explained: Explained) -> Reply {
    let cost = total(&explained.partitions);
    let sources = explained.partitions.iter().flat_map(|partition| &partition.sources);
    let lacks_before: Option<Timestamp> = sources.clone().filter_map(|source| source.lacks_before).max();
    let rollup = coarsest(sources.flat_map(|source| &source.rollups));
    let gaps: Vec<(PartitionId, LogGap)> = (explained.partitions.iter())
        .flat_map(|partition| partition.gaps.iter().map(|gap| (partition.partition, *gap)))
        .collect();
    let mut listed = SEGMENTS_LISTED_MAX;
    let mut view = |partition: PartitionExplanation| PartitionView {
        partition: partition.partition.0,
        offset: partition.next_offset.0,
        tables: partition.sources.into_iter().map(|source| source_view(plan, source, &mut listed)).collect(),
    };
    let columns = query::methods(plan).into_iter();
    Reply {
        tables: plan.tables().iter().map(|table| table.name.to_string()).collect(),
        columns: columns.map(|of| ColumnView { name: of.name, method: of.method, exact_max: of.exact_max }).collect(),
        rollup,
        cost: CostView { rows: cost.rows, bytes: cost.bytes, cpu_ms: cost.nanoseconds / 1e6, ms: explained.ms },
        missing: receipt::missing(plan.range(), &explained.unavailable, &gaps, lacks_before),
        partitions: explained.partitions.into_iter().map(&mut view).collect(),
    }
}

/// The first of the coarsest.
fn coarsest<'a>(taken: impl Iterator<Item = &'a RollupExplanation>) -> Option<RollupView> {
    let coarsest = taken.reduce(|a, b| if b.rollup.interval > a.rollup.interval { b } else { a })?;
    Some(rollup_view(&coarsest.rollup))
}

fn rollup_view(rollup: &Rollup) -> RollupView {
    RollupView { interval_us: rollup.interval.micros(), group_by: rollup.group_by.clone() }
}

fn taken_view(taken: &RollupExplanation) -> TakenView {
    TakenView {
        rollup: rollup_view(&taken.rollup),
        times: range_view(taken.times),
        groups_to_merge: taken.groups,
        rows_to_scan: taken.rows,
        revised: taken.revised,
    }
}

fn range_view(range: TimeRange) -> RangeView {
    RangeView { start_time: range.start().0, end_time: range.end().0 }
}

/// Lists at most `listed` segments, and takes those that it lists off.
fn source_view(plan: &Plan, source: SourceExplanation, listed: &mut usize) -> SourceView {
    let shown = source.segments.len().min(*listed);
    *listed -= shown;
    let skipped = source.skipped.into_iter();
    SourceView {
        table: plan.tables()[source.table].name.to_string(),
        evicted_before_us: source.evicted_before.map(|time| time.0),
        rollups: source.rollups.iter().map(taken_view).collect(),
        rows: source.rows.into_iter().map(range_view).collect(),
        kept: CountView { segments: source.kept.segments, rows: source.kept.rows },
        skipped: skipped
            .map(|(skip, count)| SkippedView { why: why(skip), segments: count.segments, rows: count.rows })
            .collect(),
        rows_to_scan: source.cost.rows,
        bytes_to_scan: source.cost.bytes,
        segments: source.segments.into_iter().take(shown).map(segment_view).collect(),
    }
}

fn segment_view(segment: SegmentExplanation) -> SegmentView {
    SegmentView {
        rows: segment.rows,
        time_min_us: segment.time_min.0,
        time_max_us: segment.time_max.0,
        sealed: segment.sealed,
        kept: segment.skipped.is_none(),
        skipped: segment.skipped.map(why),
    }
}

fn why(skip: Skip) -> WhyView {
    match skip {
        Skip::TimeRange => WhyView { why: "time_range", column: None },
        Skip::Rollup => WhyView { why: "rollup", column: None },
        Skip::Filter(column) => WhyView { why: "filter", column: Some(column) },
    }
}
