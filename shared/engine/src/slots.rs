//! Which slot of event time a row belongs to, and which slots are open. Decided by the rows alone, in log order: neither
//! eviction nor a clock has a say, so every replica decides alike.
//!
//! 1. A row goes to its slot if that is open, or if there is room to open it.
//! 2. Where all places are taken, a slot newer than all of them takes the place of the one used least recently (time
//!    moves on); the row of any other slot is a straggler.
//! 3. Slots widen where rows show that they are too narrow: many stragglers, or many slots with few rows. Slots of the
//!    old width close; what lies in them stays as it is.

use types::{Interval, Timestamp};

use crate::{
    Limits,
    checkpoint::{Put, RestoreError, Take},
};

/// Slots widen by this factor, so that wide ones are unions of narrow ones.
const WIDEN_FACTOR: i64 = 4;
/// A thin stream widens by at most so many factors at once: it may yet grow.
const THIN_STEPS_MAX: u32 = 3;
/// No slot is wider than this: about 30 years, µs.
const WIDTH_US_MAX: i64 = 30 * 366 * 86_400_000_000;
/// Stragglers are many when they are one row in so many.
const STRAGGLER_SHARE: u64 = 8;
/// After so many times `straggler_rows_max` rows with few stragglers, they are counted afresh.
const STRAGGLER_SPAN: u64 = 128;
/// Straggler times kept to see how far they reach.
const SAMPLE_MAX: usize = 256;
/// Of the sorted sample, this share at each end is taken for outliers.
const OUTLIER_SHARE: usize = 20;

/// Where a row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The open slot of this number.
    Slot(usize),
    /// The slot of this number, which was opened for it.
    Opened(usize),
    /// The stragglers.
    Straggler,
    /// A newer slot, once [`Slots::close_least_used`] has made room.
    NeedsRoom,
}

#[derive(Debug, Clone, Copy)]
struct OpenTimes {
    start: i64,
    used: u64,
}

/// What the rows since the last decision were like.
#[derive(Debug, Clone, Default)]
struct Since {
    rows: u64,
    opened: u64,
    straggler_rows: u64,
    straggler_span_rows: u64,
}

/// The open slots of a table in a partition, by number.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    width: i64,
    open: Vec<Option<OpenTimes>>,
    /// The slot hit last, the first guess for the next row.
    last: usize,
    /// Rows so far: what "recently used" means.
    clock: u64,
    since: Since,
    sample: Vec<i64>,
    limits: Limits,
}

impl Slots {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            width: limits.slot_width_us,
            open: vec![None; limits.open_slots_max],
            last: 0,
            clock: 0,
            since: Since::default(),
            sample: Vec::new(),
            limits,
        }
    }

    fn interval(&self) -> Interval {
        Interval::from_micros(self.width).expect("a width is positive")
    }

    /// Start of the slot that would hold `time` now.
    pub(crate) fn start_of(&self, time: i64) -> Timestamp {
        self.interval().bucket_start(Timestamp(time))
    }

    /// End of the slot that starts at `start` now.
    pub(crate) fn end_of(&self, start: Timestamp) -> Timestamp {
        start.saturating_add(self.width)
    }

    /// The place of a row.
    pub(crate) fn place(&mut self, time: i64) -> Place {
        let start = self.start_of(time).0;
        if let Some(slot) = &mut self.open[self.last]
            && slot.start == start
        {
            slot.used = self.clock;
            return Place::Slot(self.last);
        }
        if let Some(at) = self.open.iter().position(|slot| slot.is_some_and(|slot| slot.start == start)) {
            self.open[at] = Some(OpenTimes { start, used: self.clock });
            self.last = at;
            return Place::Slot(at);
        }
        if let Some(at) = self.open.iter().position(Option::is_none) {
            self.open[at] = Some(OpenTimes { start, used: self.clock });
            self.since.opened += 1;
            self.last = at;
            return Place::Opened(at);
        }
        if self.open.iter().flatten().all(|slot| slot.start < start) {
            return Place::NeedsRoom;
        }
        self.note_straggler(time);
        Place::Straggler
    }

    fn note_straggler(&mut self, time: i64) {
        let at = self.since.straggler_rows as usize % SAMPLE_MAX;
        match self.sample.get_mut(at) {
            Some(slot) => *slot = time,
            None => self.sample.push(time),
        }
        self.since.straggler_rows += 1;
    }

    /// Closes the slot used least recently, of several the oldest. Returns its number.
    pub(crate) fn close_least_used(&mut self) -> usize {
        let slots = self.open.iter().enumerate().filter_map(|(at, slot)| slot.map(|slot| (slot.used, slot.start, at)));
        let (_, _, at) = slots.min().expect("there is at least one place, and all are taken");
        self.open[at] = None;
        at
    }

    /// The slots that became idle with the `rows` noted last, by number. They stay open.
    pub(crate) fn idle(&self, rows: u64) -> impl Iterator<Item = usize> + use<'_> {
        let is_idle = move |slot: &OpenTimes| {
            let (before, now) = (self.clock - rows - slot.used, self.clock - slot.used);
            // Of one that has some of these rows, none came before.
            (1..=self.limits.idle_rows).contains(&before) && now > self.limits.idle_rows
        };
        let slots = self.open.iter().enumerate();
        slots.filter(move |(_, slot)| slot.as_ref().is_some_and(is_idle)).map(|(at, _)| at)
    }

    /// Looks back after `rows` of a block were placed. `true`: slots have widened and all of them are closed.
    pub(crate) fn note_rows(&mut self, rows: u64) -> bool {
        self.clock += rows;
        self.since.rows += rows;
        self.since.straggler_span_rows += rows;
        let Limits { straggler_rows_max, slots_opened_max, slot_rows_min, .. } = self.limits;
        let Since { rows, opened, straggler_rows, straggler_span_rows } = self.since;
        if straggler_rows >= straggler_rows_max && straggler_rows * STRAGGLER_SHARE >= straggler_span_rows {
            let places = (self.open.len() as i64 * 3 / 4).max(1);
            let reach = self.straggler_reach();
            return self.widen(reach / places);
        }
        if straggler_span_rows >= straggler_rows_max * STRAGGLER_SPAN {
            self.since = Since { straggler_rows: 0, straggler_span_rows: 0, ..self.since };
            self.sample.clear();
        }
        if opened >= slots_opened_max {
            if rows < opened * slot_rows_min {
                return self.widen(self.width_for(opened * slot_rows_min / rows.max(1)));
            }
            self.since = Since { rows: 0, opened: 0, ..self.since };
        }
        false
    }

    /// How far most of the stragglers lie apart, µs.
    fn straggler_reach(&mut self) -> i64 {
        self.sample.sort_unstable();
        let outliers = self.sample.len() / OUTLIER_SHARE;
        let kept = &self.sample[outliers..self.sample.len() - outliers];
        kept[kept.len() - 1].saturating_sub(kept[0])
    }

    /// Appends all that decides where later rows go.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let Self { width, open, last, clock, since, sample, limits: _ } = self;
        out.i64(*width);
        out.list(open.iter(), |out, slot| {
            out.optional(*slot, |out, slot| {
                out.i64(slot.start);
                out.u64(slot.used);
            });
        });
        out.u64(*last as u64);
        out.u64(*clock);
        let Since { rows, opened, straggler_rows, straggler_span_rows } = since;
        [rows, opened, straggler_rows, straggler_span_rows].into_iter().for_each(|count| out.u64(*count));
        out.list(sample.iter(), |out, time| out.i64(*time));
    }

    /// What [`Slots::encode`] wrote.
    pub(crate) fn decode(take: &mut Take<'_>, limits: Limits) -> Result<Self, RestoreError> {
        let width = take.i64()?;
        let open = take.list(|take| take.optional(|take| Ok(OpenTimes { start: take.i64()?, used: take.u64()? })))?;
        let (last, clock) = (take.size()?, take.u64()?);
        let [rows, opened, straggler_rows, straggler_span_rows] = [take.u64()?, take.u64()?, take.u64()?, take.u64()?];
        let since = Since { rows, opened, straggler_rows, straggler_span_rows };
        let sample = take.list(Take::i64)?;
        if open.len() != limits.open_slots_max {
            return Err(RestoreError::Limits);
        }
        if !(1..=WIDTH_US_MAX).contains(&width) || last >= open.len() || sample.len() > SAMPLE_MAX {
            return Err(RestoreError::Malformed("slots contradict themselves"));
        }
        Ok(Self { width, open, last, clock, since, sample, limits })
    }

    /// A width with `factor` times the rows of today's, as far as one decision goes.
    fn width_for(&self, factor: u64) -> i64 {
        let factor = i64::try_from(factor).unwrap_or(i64::MAX).min(WIDEN_FACTOR.pow(THIN_STEPS_MAX));
        self.width.saturating_mul(factor)
    }

    /// At least one step wider, and at least `wanted`.
    fn widen(&mut self, wanted: i64) -> bool {
        self.since = Since::default();
        self.sample.clear();
        if self.width >= WIDTH_US_MAX / WIDEN_FACTOR {
            return false;
        }
        self.width *= WIDEN_FACTOR;
        while self.width < wanted && self.width < WIDTH_US_MAX / WIDEN_FACTOR {
            self.width *= WIDEN_FACTOR;
        }
        self.open.fill(None);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn slots() -> Slots {
        Slots::new(Limits { open_slots_max: 4, slot_width_us: 10, ..Limits::default() })
    }

    /// Goal: slots open while there is room; then time moving on takes the place used least recently, and all else is a
    /// straggler.
    #[test]
    fn the_latest_used_stay_open() {
        let mut slots = slots();
        assert_eq!(slots.place(5), Place::Opened(0));
        assert_eq!(slots.place(15), Place::Opened(1));
        assert_eq!(slots.place(9), Place::Slot(0));
        assert_eq!((slots.place(25), slots.place(35)), (Place::Opened(2), Place::Opened(3)));
        slots.note_rows(5);
        assert_eq!(slots.place(2), Place::Slot(0));
        assert_eq!(slots.place(-1), Place::Straggler);
        assert_eq!(slots.place(45), Place::NeedsRoom);
        assert_eq!(slots.close_least_used(), 1);
        assert_eq!(slots.place(45), Place::Opened(1));
        assert_eq!(slots.place(15), Place::Straggler);
    }

    /// Goal: rows spread over far more slots than may be open widen the slots once, enough to hold most of them, and an
    /// outlier does not count.
    #[test]
    fn many_stragglers_widen_slots() {
        let mut slots = Slots::new(Limits::default());
        let day = 86_400_000_000;
        let mut time = 1_700_000_000_000_000;
        let mut widened = 0;
        for block in 0..50 {
            for row in 0..1_000 {
                time = 1_700_000_000_000_000 + (block * 7_919 + row * 104_729) % 211 * day;
                while slots.place(time) == Place::NeedsRoom {
                    slots.close_least_used();
                }
            }
            slots.place(0);
            widened += u32::from(slots.note_rows(1_000));
        }
        assert_eq!(widened, 1);
        assert!((2 * day..20 * day).contains(&slots.width), "{} days", slots.width / day);
        assert_eq!(slots.start_of(time).0 % slots.width, 0);
    }

    /// Goal: a thin stream in order gets wider slots until they are worth having; a thick one keeps its slots.
    #[test]
    fn thin_slots_widen_until_they_are_full() {
        for (rows_per_slot, widens) in [(600, true), (20_000, false)] {
            let mut slots = Slots::new(Limits::default());
            for minute in 0..20_000 {
                while slots.place(minute * 60_000_000) == Place::NeedsRoom {
                    slots.close_least_used();
                }
                slots.note_rows(rows_per_slot);
            }
            assert_eq!(slots.width > 60_000_000, widens);
            assert!(rows_per_slot as i64 * slots.width / 60_000_000 < 5 * 16_384, "no wider than needed");
        }
    }
}
