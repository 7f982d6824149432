//! What is sent: every event follows from its lane and its number, so that nothing has to be remembered to know it.

use std::ops::Range;

use crate::random::mix;

/// Namespace of the tables.
pub(crate) const NAMESPACE: &str = "crash";
/// Batches of [`Lane::Unary`] that go to one table before the next is created.
const AUTO_TABLE_BATCHES: u64 = 60;
/// Time between two events of a lane, µs.
const STEP_US: i64 = 1_000;
/// One event in so many comes from long ago.
const OUTLIER_EVERY: u64 = 499;
/// How long ago, µs: 30 days.
const OUTLIER_AGE_US: i64 = 30 * 86_400 * 1_000_000;
pub(crate) const USERS: u64 = 200;
pub(crate) const REGIONS: [&str; 6] = ["us-east", "us-west", "eu-central", "eu-west", "ap-south", "sa-east"];

/// A client and its way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    /// Columns through the client library, several batches under way; a batch's identity is its producer and sequence.
    Columns,
    /// A gRPC stream of rows through the client library, several batches under way; events have ids.
    Rows,
    /// NDJSON over HTTP; events have ids.
    Lines,
    /// NDJSON over HTTP; a batch's identity is its `Idempotency-Key`.
    Idempotent,
    /// Single gRPC calls; a batch's identity is its producer and sequence. Creates tables as it goes.
    Unary,
}

/// A table of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// Partitioned by user.
    Keyed,
    /// Partitioned by whatever identifies an event.
    Plain,
    /// Created by its first event.
    Auto(u64),
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) lane: Lane,
    /// Its place among the events of its lane; the metric `n`.
    pub(crate) number: u64,
    /// µs since the epoch.
    pub(crate) time: i64,
    pub(crate) region: &'static str,
    pub(crate) user: u64,
    /// The metric `size` in quarters, so that sums are exact in any order; absent in some.
    pub(crate) size_quarters: Option<u64>,
}

impl Lane {
    pub(crate) const ALL: [Self; 5] = [Self::Columns, Self::Rows, Self::Lines, Self::Idempotent, Self::Unary];

    /// Its name: the dimension `lane`, and part of its identities.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Columns => "columns",
            Self::Rows => "rows",
            Self::Lines => "lines",
            Self::Idempotent => "idempotent",
            Self::Unary => "unary",
        }
    }

    /// Events of a batch.
    pub(crate) const fn batch_rows(self) -> u64 {
        match self {
            Self::Columns => 120,
            Self::Rows => 80,
            Self::Lines => 60,
            Self::Idempotent => 50,
            Self::Unary => 40,
        }
    }

    /// Whether its events have ids of their own.
    pub(crate) const fn has_ids(self) -> bool {
        matches!(self, Self::Rows | Self::Lines)
    }

    /// The table that a batch goes to.
    pub(crate) const fn table(self, batch: u64) -> Table {
        match self {
            Self::Columns | Self::Lines => Table::Keyed,
            Self::Rows | Self::Idempotent => Table::Plain,
            Self::Unary => Table::Auto(batch / AUTO_TABLE_BATCHES),
        }
    }

    /// The numbers of a batch's events.
    pub(crate) const fn numbers(self, batch: u64) -> Range<u64> {
        batch * self.batch_rows()..(batch + 1) * self.batch_rows()
    }
}

impl Table {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Keyed => "keyed".to_owned(),
            Self::Plain => "plain".to_owned(),
            Self::Auto(number) => format!("auto_{number}"),
        }
    }

    /// The lanes that write to it, and which of their events go there.
    pub(crate) fn lanes(self) -> Vec<(Lane, Range<u64>)> {
        match self {
            Self::Keyed => vec![(Lane::Columns, 0..u64::MAX), (Lane::Lines, 0..u64::MAX)],
            Self::Plain => vec![(Lane::Rows, 0..u64::MAX), (Lane::Idempotent, 0..u64::MAX)],
            Self::Auto(number) => {
                let rows = AUTO_TABLE_BATCHES * Lane::Unary.batch_rows();
                vec![(Lane::Unary, number * rows..(number + 1) * rows)]
            }
        }
    }
}

impl Event {
    /// The event of a lane with a number; times count from `origin`.
    pub(crate) fn new(lane: Lane, number: u64, origin: i64) -> Self {
        let dice = mix(mix(number) ^ lane as u64);
        let age = if is_outlier(number) { OUTLIER_AGE_US } else { 0 };
        Self {
            lane,
            number,
            time: origin - age + number as i64 * STEP_US + (dice % STEP_US as u64) as i64,
            region: REGIONS[(dice >> 16) as usize % REGIONS.len()],
            user: (dice >> 24) % USERS,
            size_quarters: (!(dice >> 40).is_multiple_of(8)).then_some((dice >> 44) % 4_000),
        }
    }

    /// Its id, where its lane gives it one.
    pub(crate) fn id(&self) -> Option<String> {
        self.lane.has_ids().then(|| format!("{}:{}", self.lane.name(), self.number))
    }

    pub(crate) fn user_name(&self) -> String {
        format!("user-{}", self.user)
    }

    pub(crate) fn size(&self) -> Option<f64> {
        self.size_quarters.map(|quarters| quarters as f64 / 4.0)
    }
}

/// Whether an event comes from long ago.
pub(crate) const fn is_outlier(number: u64) -> bool {
    number % OUTLIER_EVERY == OUTLIER_EVERY - 1
}

/// Numbers below `before` whose events may lie in a range of time; those that do not have to be told apart by their times.
pub(crate) fn numbers_near(origin: i64, window: &Range<i64>, before: u64) -> impl Iterator<Item = u64> {
    let number_at = |time: i64| (time - origin).div_euclid(STEP_US).clamp(0, before as i64) as u64;
    let usual = number_at(window.start)..(number_at(window.end) + 1).min(before);
    let old_origin = origin - OUTLIER_AGE_US;
    let old_at = |time: i64| (time - old_origin).div_euclid(STEP_US).clamp(0, before as i64) as u64;
    let old = old_at(window.start)..(old_at(window.end) + 1).min(before);
    let first_old = (old.start / OUTLIER_EVERY) * OUTLIER_EVERY + OUTLIER_EVERY - 1;
    usual.filter(|number| !is_outlier(*number)).chain((first_old..old.end).step_by(OUTLIER_EVERY as usize))
}

/// The range of time that holds the events of a range of numbers, outliers apart.
pub(crate) const fn window_of(origin: i64, numbers: &Range<u64>) -> Range<i64> {
    origin + numbers.start as i64 * STEP_US..origin + numbers.end as i64 * STEP_US
}

/// A range of time that holds every event with a number below `before`.
pub(crate) const fn whole_window(origin: i64, before: u64) -> Range<i64> {
    origin - OUTLIER_AGE_US..origin + (before as i64 + 1) * STEP_US
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ORIGIN: i64 = 1_700_000_000_000_000;

    /// Goal: the numbers near a window are all of those whose times lie in it, each once.
    #[test]
    fn a_window_finds_its_events() {
        const BEFORE: u64 = 3_000;
        let old = ORIGIN - OUTLIER_AGE_US;
        let windows = [
            ORIGIN + 5..ORIGIN + 700_123,
            ORIGIN + 2_999_000..ORIGIN + 9_000_000,
            old + 400_000..old + 1_000_000,
            whole_window(ORIGIN, BEFORE),
            ORIGIN - 10..ORIGIN,
        ];
        for window in windows {
            let inside = |number: &u64| window.contains(&Event::new(Lane::Rows, *number, ORIGIN).time);
            let mut found: Vec<u64> = numbers_near(ORIGIN, &window, BEFORE).filter(inside).collect();
            found.sort_unstable();
            assert_eq!(found, (0..BEFORE).filter(inside).collect::<Vec<_>>(), "{window:?}");
        }
    }

    /// Goal: each event can be asked for by itself, because no two of a lane have one time.
    #[test]
    fn times_tell_events_apart() {
        for lane in Lane::ALL {
            let times: BTreeSet<i64> = (0..5_000).map(|number| Event::new(lane, number, ORIGIN).time).collect();
            assert_eq!(times.len(), 5_000, "{lane:?}");
        }
    }
}
