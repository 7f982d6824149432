//! What a table's event times in one partition come to: how far they are, and how many came late.
//!
//! 1. An event that is too far ahead of the log's clock is a row like any other, but moves no watermark.
//! 2. An event is late where it lies behind the partition's watermark, as it was before the event's block, less the
//!    table's lateness. That watermark is the greatest event time before, at most the append time of the newest events.
//!    So which events are late follows from the log alone.

use types::{TableSettings, Timestamp};

use crate::{
    block::Block,
    checkpoint::{Put, RestoreError, Take},
    segment::Zone,
};

/// The event times of one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventTimes {
    max_future_us: i64,
    lateness_us: i64,
    newest: Option<Timestamp>,
    last_events_at: Option<Timestamp>,
    late: u64,
}

impl EventTimes {
    pub(crate) fn new() -> Self {
        Self { max_future_us: types::limits::MAX_FUTURE_US_DEFAULT, ..Self::default() }
    }

    /// Takes over the settings that concern times.
    pub(crate) fn configure(&mut self, settings: &TableSettings) {
        self.max_future_us = settings.max_future_us;
        self.lateness_us = settings.lateness_us;
    }

    /// The greatest event time, without those too far in the future; `None` where there was none.
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Append time of the newest rows; `None` where there was none.
    pub(crate) fn last_events_at(&self) -> Option<Timestamp> {
        self.last_events_at
    }

    /// Rows that came late.
    pub(crate) fn late(&self) -> u64 {
        self.late
    }

    /// Notes the rows of a block that are counted.
    pub(crate) fn note(&mut self, block: &Block<'_>, append_time: Timestamp) {
        let kept = || (0..block.times.len()).filter(|row| block.is_kept(*row)).map(|row| block.times[row]);
        if kept().next().is_none() {
            return;
        }
        let zone = Zone::of(block.times);
        if let Some(due) = self.due().filter(|due| zone.min < *due) {
            self.late += match block.verdicts {
                None => block.times.iter().filter(|time| **time < due.0).count() as u64,
                Some(_) => kept().filter(|time| *time < due.0).count() as u64,
            };
        }
        let end = append_time.saturating_add(self.max_future_us);
        let newest = match zone.max {
            newest if newest <= end && block.verdicts.is_none() => Some(newest),
            _ => kept().filter(|time| *time <= end.0).max().map(Timestamp),
        };
        self.newest = self.newest.max(newest);
        self.last_events_at = Some(append_time);
    }

    /// Appends all of it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let Self { max_future_us, lateness_us, newest, last_events_at, late } = *self;
        out.i64(max_future_us);
        out.i64(lateness_us);
        out.optional(newest, Put::time);
        out.optional(last_events_at, Put::time);
        out.u64(late);
    }

    /// What [`EventTimes::encode`] wrote.
    pub(crate) fn decode(take: &mut Take<'_>) -> Result<Self, RestoreError> {
        Ok(Self {
            max_future_us: take.i64()?,
            lateness_us: take.i64()?,
            newest: take.optional(Take::time)?,
            last_events_at: take.optional(Take::time)?,
            late: take.u64()?,
        })
    }

    /// Events before this are late.
    fn due(&self) -> Option<Timestamp> {
        let watermark = self.newest?.min(self.last_events_at?);
        Some(watermark.saturating_add(self.lateness_us.saturating_neg()))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use codec::{BodyBuilder, BodyView, EventRef};
    use types::Offset;

    use super::*;
    use crate::dedup::Verdict;

    fn note(times: &mut EventTimes, append_time: i64, rows: &[i64], verdicts: Option<&[Verdict]>) {
        let mut builder = BodyBuilder::default();
        let event =
            EventRef { namespace: "n", table: "t", event_time: Some(0), event_id: None, dimensions: &[], metrics: &[] };
        builder.push(&event, Timestamp(0), 0).unwrap();
        let bytes = builder.finish(false).unwrap().bytes;
        let body = BodyView::parse(&bytes).unwrap();
        let block = Block { offset: Offset(0), body: &body, times: rows, codes: &[], sources: &[], verdicts };
        times.note(&block, Timestamp(append_time));
    }

    /// Goal: late is what lies behind the watermark before its block, less the lateness; neither the block's own rows,
    /// nor times ahead of the clock, nor rows left out have a say.
    #[test]
    fn late_is_what_lies_behind_the_watermark() {
        let mut times = EventTimes::new();
        note(&mut times, 1_000, &[500, 100, 300], None);
        assert_eq!((times.late(), times.newest()), (0, Some(Timestamp(500))), "nothing was before");
        note(&mut times, 1_010, &[499, 500, 501, 100], None);
        assert_eq!((times.late(), times.newest()), (2, Some(Timestamp(501))));
        note(&mut times, 1_020, &[1, 400, 2], Some(&[Verdict::Duplicate, Verdict::New, Verdict::Conflict]));
        assert_eq!((times.late(), times.last_events_at()), (3, Some(Timestamp(1_020))));
        note(&mut times, 2_000, &[3], Some(&[Verdict::Duplicate]));
        assert_eq!((times.late(), times.last_events_at()), (3, Some(Timestamp(1_020))), "none of it counted");

        // One event ahead of the clock: those after it are late by the clock, not by its time.
        note(&mut times, 3_000, &[50_000], None);
        note(&mut times, 3_010, &[3_000, 2_999], None);
        assert_eq!((times.late(), times.newest()), (4, Some(Timestamp(50_000))));

        times.configure(&TableSettings { lateness_us: 10, ..TableSettings::default() });
        note(&mut times, 3_020, &[3_000, 2_999, i64::MIN], None);
        assert_eq!(times.late(), 6);
    }

    /// Goal: what is too far in the future moves nothing.
    #[test]
    fn the_far_future_moves_nothing() {
        let mut times = EventTimes::new();
        times.configure(&TableSettings { max_future_us: 100, ..TableSettings::default() });
        note(&mut times, 1_000, &[1_101, 900], None);
        assert_eq!(times.newest(), Some(Timestamp(900)));
        note(&mut times, 1_000, &[1_100], None);
        assert_eq!(times.newest(), Some(Timestamp(1_100)));
    }
}
