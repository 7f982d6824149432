//! Pages of raw events: each partition finds its first ones, then the first of all are read.

use std::sync::Arc;

use engine::{Reader, TableSnapshot};
use proto::hot_tier::{EventsCovered, EventsRequest};
use query::{FoundEvents, RawEvent, Source};
use types::{ApiError, Offset, PartitionId, TableKey};

use crate::{
    each::for_each,
    pool::Queue,
    scan::{Stop, gaps_before},
};

/// A page, and what it covers.
pub(crate) struct Page {
    pub(crate) events: Vec<RawEvent>,
    pub(crate) more: bool,
    pub(crate) covered: Vec<EventsCovered>,
}

/// The page that was asked for, of the partitions of `readers`, which have applied what it is to show.
pub(crate) async fn page(
    queue: &Queue,
    request: EventsRequest,
    readers: Vec<Reader>,
    stop: &Arc<Stop>,
) -> Result<Page, ApiError> {
    let (limit, bytes_max) = (request.limit, request.bytes_max);
    let (finding, reading) = (Arc::clone(stop), Arc::clone(stop));
    let find = move |reader: &Reader| find(&request, reader, &finding);
    let (covered, found): (Vec<_>, Vec<_>) = for_each(queue, readers, find).await?.into_iter().unzip();
    let found: Vec<FoundEvents> = found.into_iter().flatten().collect();
    let read =
        move |found: &Vec<FoundEvents>| reading.watch(|cancel| query::first_events(found, limit, bytes_max, cancel));
    let mut pages = for_each(queue, vec![found], read).await?;
    let (events, more) = pages.pop().unwrap_or_default();
    Ok(Page { events, more, covered })
}

/// The first events of one partition, of which one more than the page takes says that there are more.
fn find(
    request: &EventsRequest,
    reader: &Reader,
    stop: &Stop,
) -> Result<(EventsCovered, Option<FoundEvents>), ApiError> {
    let (partition, key) = (reader.partition(), request.plan.tables()[0].key);
    let (next_offset, snapshot) = state(request, reader, key)?;
    let covered = EventsCovered {
        partition,
        next_offset,
        evicted_before: snapshot.as_ref().and_then(TableSnapshot::evicted_before),
        gaps: gaps_before(reader, next_offset, &[key]),
    };
    let Some(snapshot) = snapshot else { return Ok((covered, None)) };
    let source = Source { table: 0, partition, snapshot };
    let limit = request.limit.saturating_add(1);
    let found = stop.watch(|cancel| query::select_events(&request.plan, source, request.position, limit, cancel))?;
    Ok((covered, Some(found)))
}

/// The state to show: that of the first page, or the newest.
fn state(request: &EventsRequest, reader: &Reader, key: TableKey) -> Result<(Offset, Option<TableSnapshot>), ApiError> {
    let Some(at) = &request.at else {
        let (next_offset, mut snapshots) = reader.snapshots(&[key]);
        return Ok((next_offset, snapshots.pop().flatten()));
    };
    let next_offset = asked_for(at, reader.partition())?;
    let snapshots = reader.snapshots_at(&[key], next_offset);
    let mut snapshots = snapshots.ok_or_else(|| ApiError::internal("a page was made before its offset was applied"))?;
    Ok((next_offset, snapshots.pop().flatten()))
}

fn asked_for(at: &[(PartitionId, Offset)], partition: PartitionId) -> Result<Offset, ApiError> {
    let found = at.iter().find(|(known, _)| *known == partition);
    found.map(|(_, next)| *next).ok_or_else(|| ApiError::internal("a page was asked of a partition without its offset"))
}
