//! Raw events: the rows that pass a plan's filters, in order of time, then partition, offset and row, page by page.
//!
//! 1. A page is chosen before anything is read for it: [`select_events`] keeps the first places of one partition, at most
//!    twice as many as asked for, and passes over segments and chunks that lie behind them.
//! 2. [`first_events`] merges what partitions found and reads the columns of those that are in the page alone.

use std::sync::Arc;

use engine::{CHUNK_ROWS, ColumnIndex, SegmentView, TableSnapshot};
use kernels::Selection;
use types::{ApiError, ColumnKind, Offset, PartitionId, TimeRange, Timestamp};

use crate::{
    cancel::Cancel,
    cover::Cover,
    plan::Plan,
    segment_filter::{SegmentFilter, segment_filters},
    source::{PlannedSource, Source},
};

/// Events of a page that are read between two looks at whether anybody still waits.
const EVENTS_PER_CHECK: usize = 1_024;
/// Found places beyond the limit before the later ones are let go, at least.
const SPARE_MIN: usize = 1_024;

/// Where a raw event stands among others: they come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPlace {
    /// Event time.
    pub time: Timestamp,
    /// The partition.
    pub partition: PartitionId,
    /// The record in the partition's log.
    pub offset: Offset,
    /// The row in the record's block.
    pub row: u32,
}

/// An event as it was sent, but for its id, which the log has.
#[derive(Debug, Clone, PartialEq)]
pub struct RawEvent {
    /// Where it stands.
    pub place: EventPlace,
    /// Those present, in the order in which the partition met them.
    pub dimensions: Vec<(Arc<str>, String)>,
    /// Those present, likewise.
    pub metrics: Vec<(Arc<str>, f64)>,
}

/// The first events of one partition. It pins their memory.
#[derive(Debug)]
pub struct FoundEvents {
    source: PlannedSource,
    /// Ascending.
    found: Vec<Found>,
}

/// An event and where it lies in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    place: EventPlace,
    segment: usize,
    row: usize,
}

/// Finds the first `limit` events of a partition, those after `after` only. `limit` is at least 1.
///
/// # Errors
/// `CANCELLED`, `DEADLINE_EXCEEDED`.
pub fn select_events(
    plan: &Plan,
    source: Source,
    after: Option<EventPlace>,
    limit: usize,
    cancel: &Cancel<'_>,
) -> Result<FoundEvents, ApiError> {
    let source = PlannedSource::new(plan, source, Cover::of_rows(plan));
    let mut first = First { after, limit, found: Vec::new(), last_time: Timestamp::MAX };
    let start = after.map_or(plan.range.start(), |after| after.time.max(plan.range.start()));
    if let Some(range) = TimeRange::new(start, plan.range.end()) {
        let mut segments: Vec<_> = source.segments().iter().enumerate().collect();
        // From the earliest on: the page is full soon, and what begins behind it is passed over.
        segments.sort_by_key(|(_, segment)| segment.zone().min);
        for (at, segment) in segments {
            let zone = segment.zone();
            if zone.min > first.last_time {
                break;
            }
            if range.meets_closed(zone.min, zone.max)
                && let Some(filters) = segment_filters(plan, &source, segment)
            {
                first.look_into(&source, at, segment, range, &filters, cancel)?;
            }
        }
    }
    let found = first.finish();
    Ok(FoundEvents { source, found })
}

/// The first places found so far.
struct First {
    after: Option<EventPlace>,
    limit: usize,
    found: Vec<Found>,
    /// No event later than this can be among the first; `Timestamp::MAX` while there are too few to say.
    last_time: Timestamp,
}

impl First {
    fn look_into(
        &mut self,
        source: &PlannedSource,
        at: usize,
        segment: &SegmentView,
        range: TimeRange,
        filters: &[SegmentFilter<'_>],
        cancel: &Cancel<'_>,
    ) -> Result<(), ApiError> {
        let mut list = [0; CHUNK_ROWS];
        let mut scratch = Box::new([0.0; CHUNK_ROWS]);
        for chunk in 0..segment.chunks() {
            cancel.check()?;
            let zone = segment.chunk_zone(chunk);
            if zone.min > self.last_time || !range.meets_closed(zone.min, zone.max) {
                continue;
            }
            if filters.iter().any(|filter| filter.spares(chunk)) {
                continue;
            }
            let rows = segment.rows_of(chunk);
            let mut selection = Selection::all(rows.len());
            let end = range.end().min(self.last_time.saturating_add(1));
            segment.times().narrow(&mut selection, rows.clone(), range.start().0, end.0);
            for filter in filters {
                filter.narrow(&mut selection, rows.clone(), &mut scratch);
            }
            for &row in selection.list(&mut list) {
                self.push(source.partition(), at, segment, rows.start + usize::from(row));
            }
        }
        Ok(())
    }

    fn push(&mut self, partition: PartitionId, at: usize, segment: &SegmentView, row: usize) {
        let (offset, block_row) = segment.origin(row);
        let place = EventPlace { time: Timestamp(segment.times().get(row)), partition, offset, row: block_row };
        if self.after.is_some_and(|after| place <= after) {
            return;
        }
        self.found.push(Found { place, segment: at, row });
        if self.found.len() >= self.limit + self.limit.max(SPARE_MIN) {
            self.let_go();
        }
    }

    /// Keeps the first ones alone.
    fn let_go(&mut self) {
        if self.found.len() > self.limit {
            let (_, last, _) = self.found.select_nth_unstable(self.limit - 1);
            self.last_time = last.place.time;
            self.found.truncate(self.limit);
        }
    }

    fn finish(mut self) -> Vec<Found> {
        self.let_go();
        self.found.sort_unstable();
        self.found
    }
}

/// The first `limit` events of all partitions, or fewer if their columns take more than `bytes_max`, but at least one.
/// The second part says whether there are more.
///
/// # Errors
/// `CANCELLED`, `DEADLINE_EXCEEDED`.
pub fn first_events(
    found: &[FoundEvents],
    limit: usize,
    bytes_max: usize,
    cancel: &Cancel<'_>,
) -> Result<(Vec<RawEvent>, bool), ApiError> {
    let mut all: Vec<(Found, usize)> =
        found.iter().enumerate().flat_map(|(at, part)| part.found.iter().map(move |found| (*found, at))).collect();
    // Of one place there is one event: partitions differ in it, and within one each row is found once.
    all.sort_unstable_by_key(|(found, _)| found.place);
    let names: Vec<Names> = found.iter().map(|part| Names::of(part.source.snapshot())).collect();
    let (mut events, mut bytes) = (Vec::new(), 0);
    for (n, (place, part)) in all.iter().take(limit).enumerate() {
        if n.is_multiple_of(EVENTS_PER_CHECK) {
            cancel.check()?;
        }
        let event = names[*part].event(&found[*part].source, place);
        bytes += event.bytes();
        if bytes > bytes_max && !events.is_empty() {
            break;
        }
        events.push(event);
    }
    let more = events.len() < all.len();
    Ok((events, more))
}

impl RawEvent {
    /// About what it takes in memory and as text.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text: usize = self.dimensions.iter().map(|(name, value)| name.len() + value.len()).sum();
        let numbers: usize = self.metrics.iter().map(|(name, _)| name.len()).sum();
        size_of::<Self>()
            + text
            + numbers
            + (self.dimensions.len() + self.metrics.len()) * size_of::<(Arc<str>, String)>()
    }
}

/// A dimension or a metric of a partition.
type Named = (Arc<str>, ColumnIndex);

/// The columns of a partition; events share their names.
struct Names {
    dimensions: Vec<Named>,
    metrics: Vec<Named>,
}

impl Names {
    fn of(snapshot: &TableSnapshot) -> Self {
        let of_kind = |kind: ColumnKind| {
            let columns = snapshot.numbered_columns().filter(|(_, def)| def.kind == kind);
            columns.map(|(column, def)| (Arc::from(def.name.as_str()), column)).collect()
        };
        Self { dimensions: of_kind(ColumnKind::Dimension), metrics: of_kind(ColumnKind::Metric) }
    }

    fn event(&self, source: &PlannedSource, found: &Found) -> RawEvent {
        let segment = &source.segments()[found.segment];
        let dimensions = self.dimensions.iter().filter_map(|(name, column)| {
            let code = segment.codes(*column)?.get(found.row);
            Some((Arc::clone(name), segment.dictionary(*column)?.get(code)?.to_owned()))
        });
        let metrics = self.metrics.iter().filter_map(|(name, column)| {
            let value = segment.metric(*column)?.get(found.row);
            (!value.is_nan()).then(|| (Arc::clone(name), value))
        });
        RawEvent { place: found.place, dimensions: dimensions.collect(), metrics: metrics.collect() }
    }
}
