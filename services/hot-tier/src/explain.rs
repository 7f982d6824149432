//! What a scan would do, partition by partition.

use std::sync::Arc;

use engine::Reader;
use proto::hot_tier::PartitionExplanation;
use query::{Cancel, Plan, Source};
use types::ApiError;

use crate::{
    each::for_each,
    pool::Queue,
    scan::{Stop, gaps_before},
};

/// Explains the plan in the partitions of `readers`. Done on the scan threads: strings are compared with filters.
pub(crate) async fn partitions(
    queue: &Queue,
    plan: Arc<Plan>,
    readers: Vec<Reader>,
    stop: &Arc<Stop>,
) -> Result<Vec<PartitionExplanation>, ApiError> {
    let stop = Arc::clone(stop);
    for_each(queue, readers, move |reader: &Reader| stop.watch(|cancel| explain(&plan, reader, cancel))).await
}

fn explain(plan: &Plan, reader: &Reader, cancel: &Cancel<'_>) -> Result<PartitionExplanation, ApiError> {
    let partition = reader.partition();
    let keys: Vec<_> = plan.tables().iter().map(|table| table.key).collect();
    let (next_offset, snapshots) = reader.snapshots(&keys);
    let sources = snapshots
        .into_iter()
        .enumerate()
        .filter_map(|(table, snapshot)| Some(Source { table, partition, snapshot: snapshot? }));
    Ok(PartitionExplanation {
        partition,
        next_offset,
        sources: query::explain(plan, sources.collect(), cancel)?,
        gaps: gaps_before(reader, next_offset, &keys),
    })
}
