//! Explanations as messages.

use query::{RollupExplanation, ScanCost, SegmentCount, SegmentExplanation, Skip, SourceExplanation};
use types::{Interval, Offset, PartitionId, Rollup, TimeRange, Timestamp};

use super::{
    NodeExplanation, PartitionExplanation,
    messages::{gap, gaps_of, horizon, horizon_of, unavailable, unavailable_of},
};
use crate::{
    internal::{self, skip::Why},
    wire::Malformed,
};

impl From<NodeExplanation> for internal::Explanation {
    fn from(explanation: NodeExplanation) -> Self {
        let partition = |of: PartitionExplanation| internal::PartitionExplanation {
            partition: of.partition.0,
            next_offset: of.next_offset.0,
            sources: of.sources.into_iter().map(source).collect(),
            gaps: of.gaps.iter().map(gap).collect(),
        };
        Self {
            partitions: explanation.partitions.into_iter().map(partition).collect(),
            unavailable: unavailable(&explanation.unavailable),
            threads: explanation.threads as u64,
        }
    }
}

impl TryFrom<internal::Explanation> for NodeExplanation {
    type Error = Malformed;

    fn try_from(explanation: internal::Explanation) -> Result<Self, Malformed> {
        let partition = |of: internal::PartitionExplanation| {
            Ok(PartitionExplanation {
                partition: PartitionId(of.partition),
                next_offset: Offset(of.next_offset),
                sources: of.sources.into_iter().map(source_of).collect::<Result<_, _>>()?,
                gaps: gaps_of(of.gaps)?,
            })
        };
        Ok(Self {
            partitions: explanation.partitions.into_iter().map(partition).collect::<Result<_, Malformed>>()?,
            unavailable: unavailable_of(&explanation.unavailable),
            threads: usize::try_from(explanation.threads).unwrap_or(usize::MAX),
        })
    }
}

fn source(source: SourceExplanation) -> internal::SourceExplanation {
    internal::SourceExplanation {
        table: source.table as u64,
        partition: source.partition.0,
        evicted: Some(horizon(source.evicted_before)),
        lacks: Some(horizon(source.lacks_before)),
        rollups: source.rollups.into_iter().map(rollup).collect(),
        rows: source.rows.into_iter().map(span).collect(),
        kept: Some(count(source.kept)),
        skipped: source
            .skipped
            .into_iter()
            .map(|(why, of)| internal::SkippedSegments { why: Some(skip(why)), count: Some(count(of)) })
            .collect(),
        segments: source.segments.into_iter().map(segment).collect(),
        cost_rows: source.cost.rows,
        cost_bytes: source.cost.bytes,
        cost_nanoseconds: source.cost.nanoseconds,
    }
}

fn source_of(source: internal::SourceExplanation) -> Result<SourceExplanation, Malformed> {
    let skipped = |of: internal::SkippedSegments| Ok((skip_of(of.why)?, count_of(of.count)));
    Ok(SourceExplanation {
        table: usize::try_from(source.table).map_err(|_| Malformed("a table that no plan has"))?,
        partition: PartitionId(source.partition),
        evicted_before: source.evicted.as_ref().and_then(horizon_of),
        lacks_before: source.lacks.as_ref().and_then(horizon_of),
        rollups: source.rollups.into_iter().map(rollup_of).collect::<Result<_, _>>()?,
        rows: source.rows.into_iter().map(span_of).collect::<Result<_, _>>()?,
        kept: count_of(source.kept),
        skipped: source.skipped.into_iter().map(skipped).collect::<Result<_, Malformed>>()?,
        segments: source.segments.into_iter().map(segment_of).collect::<Result<_, _>>()?,
        cost: ScanCost { rows: source.cost_rows, bytes: source.cost_bytes, nanoseconds: source.cost_nanoseconds },
    })
}

fn rollup(of: RollupExplanation) -> internal::RollupExplanation {
    let RollupExplanation { rollup, times, groups, rows, revised } = of;
    let rollup = internal::Rollup {
        interval_us: rollup.interval.micros(),
        group_by: rollup.group_by,
        distinct: rollup.distinct,
        percentiles: rollup.percentiles,
        top: rollup.top,
        keep_us: rollup.keep_us,
    };
    internal::RollupExplanation { rollup: Some(rollup), times: Some(span(times)), groups, rows, revised }
}

fn rollup_of(of: internal::RollupExplanation) -> Result<RollupExplanation, Malformed> {
    let rollup = of.rollup.ok_or(Malformed("an explanation without its rollup"))?;
    let rollup = Rollup {
        interval: Interval::from_micros(rollup.interval_us).ok_or(Malformed("a rollup without an interval"))?,
        group_by: rollup.group_by,
        distinct: rollup.distinct,
        percentiles: rollup.percentiles,
        top: rollup.top,
        keep_us: rollup.keep_us,
    };
    let times = span_of(of.times.unwrap_or_default())?;
    Ok(RollupExplanation { rollup, times, groups: of.groups, rows: of.rows, revised: of.revised })
}

fn span(range: TimeRange) -> internal::TimeSpan {
    internal::TimeSpan { first: range.start().0, last: range.end().0 }
}

fn span_of(span: internal::TimeSpan) -> Result<TimeRange, Malformed> {
    TimeRange::new(Timestamp(span.first), Timestamp(span.last)).ok_or(Malformed("an empty range of time"))
}

fn count(count: SegmentCount) -> internal::SegmentCount {
    internal::SegmentCount { segments: count.segments, rows: count.rows }
}

fn count_of(count: Option<internal::SegmentCount>) -> SegmentCount {
    let internal::SegmentCount { segments, rows } = count.unwrap_or_default();
    SegmentCount { segments, rows }
}

fn skip(skip: Skip) -> internal::Skip {
    let why = match skip {
        Skip::TimeRange => Why::TimeRange(true),
        Skip::Filter(column) => Why::Filter(column),
        Skip::Rollup => Why::Rollup(true),
    };
    internal::Skip { why: Some(why) }
}

fn skip_of(skip: Option<internal::Skip>) -> Result<Skip, Malformed> {
    match skip.and_then(|skip| skip.why) {
        Some(Why::TimeRange(_)) => Ok(Skip::TimeRange),
        Some(Why::Filter(column)) => Ok(Skip::Filter(column)),
        Some(Why::Rollup(_)) => Ok(Skip::Rollup),
        None => Err(Malformed("a segment that is skipped for an unknown reason")),
    }
}

fn segment(of: SegmentExplanation) -> internal::SegmentExplanation {
    internal::SegmentExplanation {
        rows: of.rows,
        time_min: of.time_min.0,
        time_max: of.time_max.0,
        sealed: of.sealed,
        skipped: of.skipped.map(skip),
    }
}

fn segment_of(of: internal::SegmentExplanation) -> Result<SegmentExplanation, Malformed> {
    Ok(SegmentExplanation {
        rows: of.rows,
        time_min: Timestamp(of.time_min),
        time_max: Timestamp(of.time_max),
        sealed: of.sealed,
        skipped: of.skipped.map(|skip| skip_of(Some(skip))).transpose()?,
    })
}
