//! Progress of partitions, as functions of what the log and the hot tier said.

use std::sync::Arc;

use event_log::{Bounds, EventLog};
use types::{ApiError, Offset, PartitionId, Timestamp};

/// A partition without events for this long does not hold the watermark back, µs.
pub const IDLE_AFTER_US: i64 = 10_000_000;

/// How far the application of a partition is behind its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// The partition.
    pub partition: PartitionId,
    /// The offset after the newest durable record.
    pub log_end: Offset,
    /// The offset of the record to be applied next.
    pub next_offset: Offset,
    /// Now minus the append time of the first durable record that is not applied, µs; 0 where there is none.
    pub freshness_us: i64,
}

impl Lag {
    /// Durable records that are not applied.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.log_end.0 - self.next_offset.0
    }
}

/// What one table's events in one partition say about event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTimes {
    /// The greatest event time seen.
    pub max: Timestamp,
    /// Append time of the record with the newest events.
    pub last_events_at: Timestamp,
}

/// The lags of partitions with their next offsets, in their order. When a record was appended that left the log's memory is looked
/// up on disk or at a broker, which is away from the threads that serve.
///
/// # Errors
/// `INTERNAL`: the look-up panicked.
pub(crate) async fn lags_of(
    log: &Arc<dyn EventLog>,
    applied: Vec<(PartitionId, Offset)>,
    now: Timestamp,
) -> Result<Vec<Lag>, ApiError> {
    let log = Arc::clone(log);
    let looked_up = tokio::task::spawn_blocking(move || {
        let lag = |(partition, next_offset)| lag_of(log.as_ref(), partition, next_offset, now);
        applied.into_iter().map(lag).collect()
    });
    let looked_up = looked_up.await;
    looked_up.map_err(|error| ApiError::internal(format!("reading the log's times failed: {error}")))
}

/// The lag of a partition whose next record to apply is `next_offset`. The caller asked for that offset first: the log has at
/// least come as far since, because nothing is applied that is not durable.
fn lag_of(log: &dyn EventLog, partition: PartitionId, next_offset: Offset, now: Timestamp) -> Lag {
    let bounds = log.bounds(partition);
    let log_end = bounds.end.max(next_offset);
    let freshness_us = match next_offset < log_end {
        true => now.micros_since(first_waiting(log, partition, next_offset, bounds)).max(0),
        false => 0,
    };
    Lag { partition, log_end, next_offset, freshness_us }
}

/// Append time of the first record that waits. Where the log dropped it already, that of the oldest record there is, which
/// is younger: the age is then a lower bound.
fn first_waiting(log: &dyn EventLog, partition: PartitionId, next_offset: Offset, bounds: Bounds) -> Timestamp {
    log.append_time_of(partition, next_offset)
        .or_else(|| log.append_time_of(partition, bounds.start))
        .unwrap_or(bounds.last_append_time)
}

/// A table's low watermark: the least, over the partitions with events in the last [`IDLE_AFTER_US`], of the greatest event
/// time seen; where none has any, the greatest seen; `None` where there never was an event. An event that is ahead of the
/// log's clock counts as of that clock, so that a sender whose clock is fast does not move the watermark ahead of now.
pub(crate) fn low_watermark(partitions: &[EventTimes], now: Timestamp) -> Option<Timestamp> {
    let guarded = |times: &EventTimes| times.max.min(times.last_events_at);
    let busy = partitions.iter().filter(|times| now.micros_since(times.last_events_at) <= IDLE_AFTER_US);
    busy.map(guarded).min().or_else(|| partitions.iter().map(guarded).max())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(100_000_000);

    fn times(max: i64, last_events_at: i64) -> EventTimes {
        EventTimes { max: Timestamp(max), last_events_at: Timestamp(last_events_at) }
    }

    /// Goal: busy partitions hold the watermark at their least, idle ones do not, and without busy ones it is the greatest.
    #[test]
    fn the_watermark_is_that_of_busy_partitions() {
        let busy = NOW.0 - IDLE_AFTER_US;
        let idle = busy - 1;
        assert_eq!(low_watermark(&[], NOW), None);
        assert_eq!(low_watermark(&[times(7, busy), times(5, busy), times(1, idle)], NOW), Some(Timestamp(5)));
        assert_eq!(low_watermark(&[times(7, idle), times(5, idle)], NOW), Some(Timestamp(7)));
        assert_eq!(low_watermark(&[times(-7, idle)], NOW), Some(Timestamp(-7)));
    }

    /// Goal: one event from the future does not carry the watermark beyond the time at which it was appended.
    #[test]
    fn an_event_from_the_future_does_not_move_it_ahead() {
        let future = times(NOW.0 + 59_000_000, NOW.0 - 3);
        assert_eq!(low_watermark(&[future], NOW), Some(Timestamp(NOW.0 - 3)));
        assert_eq!(low_watermark(&[future, times(5, NOW.0)], NOW), Some(Timestamp(5)));
    }
}
