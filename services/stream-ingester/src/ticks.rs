//! Moves the time of partitions to which nothing comes.
//!
//! A partition's only clock is the append time of its records: what it forgets and what it may evict hangs on that alone, so
//! that its verdicts are a function of the log. While nothing comes that clock stands still. Where admission refuses events
//! because of what would be due by now, nothing would ever come again. So a partition that has applied all that the log
//! holds, and has something that a later time frees, gets a record that says nothing but its time.
//!
//! 1. At most one tick a second and partition, and none where nothing is due: a partition at rest holds nothing that time
//!    frees after a dedup window, and is left alone.
//! 2. Whether to tick is decided by this node's clock; what follows from it by the log's.

use std::{sync::Arc, time::Duration};

use codec::ControlRecord;
use event_log::{Append, AppendError, EventLog};
use metrics::counter;
use tokio::time::MissedTickBehavior;
use types::{PartitionId, SchemaVersion, Timestamp};

use crate::{PartitionProgress, Partitions};

/// How often to look: the most that a refusal outlasts its reason.
const INTERVAL: Duration = Duration::from_secs(1);

/// Appends ticks where they are due, for as long as it is polled.
pub(crate) async fn keep(log: Arc<dyn EventLog>, partitions: Partitions, clock: fn() -> Timestamp) {
    let mut looks = tokio::time::interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        round(log.as_ref(), &partitions.progress(), clock()).await;
    }
}

/// Appends a tick to each partition that rests and has something that a record of `now` frees.
pub async fn round(log: &dyn EventLog, partitions: &[Arc<PartitionProgress>], now: Timestamp) {
    let due = partitions.iter().filter(|progress| is_due(log, progress, now)).map(|progress| progress.partition());
    let due: Vec<PartitionId> = due.collect();
    if due.is_empty() {
        return;
    }
    let block = |&partition: &PartitionId| {
        // No schema: it is about no table.
        let (header, body) = ControlRecord::Tick.block(SchemaVersion(0), partition);
        Append { header, body }
    };
    match log.append(due.iter().map(block).collect()).await {
        Ok(ticks) => counter!("truenow_ingester_ticks_total").increment(ticks.len() as u64),
        // What is in the queue brings its own time; and at a shutdown nothing is due any more.
        Err(AppendError::Overloaded { .. } | AppendError::Closed) => {}
        Err(error @ AppendError::Unavailable(_)) => {
            tracing::warn!(%error, "the time of idle partitions could not be moved; trying again");
        }
    }
}

fn is_due(log: &dyn EventLog, progress: &PartitionProgress, now: Timestamp) -> bool {
    // What waits to be applied brings its own time.
    progress.due_at() <= now && progress.next_offset() >= log.bounds(progress.partition()).end
}
