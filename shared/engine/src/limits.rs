//! The sizes by which a partition lays out its rows. Rows are laid out by the log and these alone, so all replicas of a
//! partition use the same.

/// Sizes of a partition's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of the first segment of a slot; a power of two. Each further one has as many as the slot has so far.
    pub segment_rows_first: usize,
    /// Rows of the largest segments; a power of two.
    pub segment_rows_max: usize,
    /// Slots of a table that are open for writing; the least recently used closes when time moves on.
    pub open_slots_max: usize,
    /// A slot that had none of its table's last rows, more than so many, is idle: its segment is sealed, if it is a large one.
    pub idle_rows: u64,
    /// Width of the first slots, µs of event time.
    pub slot_width_us: i64,
    /// After so many newly opened slots, their mean size decides whether slots widen.
    pub slots_opened_max: u64,
    /// Slots with fewer rows than this on average widen.
    pub slot_rows_min: u64,
    /// Slots widen after so many stragglers, if these are a good part of the rows.
    pub straggler_rows_max: u64,
    /// Strings of a dictionary before another epoch begins.
    pub dictionary_entries_max: usize,
    /// Bytes of a dictionary, with its indexes, beyond which another epoch begins. An epoch leaves memory with the last
    /// segment that uses it, so this is the grain in which strings can leave.
    pub dictionary_bytes_max: u64,
    /// Ids that a table remembers in memory, of all its slices together; more become sorted runs. Decides what a verdict
    /// costs, never what it is.
    pub recent_ids_max: usize,
    /// Rows that rollups take at one housekeeping, and as many of what leaves before a record; a row counts once per rollup,
    /// and a group that is merged as a row. Decides what questions cost and when rows leave, never what is said of them.
    pub folded_rows_max: usize,
    /// Seed of the hashes by which strings are found: random per process, so that nobody can choose colliding strings.
    /// It decides nothing that is visible.
    pub hash_seed: u64,
}

/// Places of rows are bytes: one per open slot, and one for stragglers.
const OPEN_SLOTS_CEILING: usize = 254;

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_rows_first: 256,
            segment_rows_max: 131_072,
            open_slots_max: 64,
            idle_rows: 131_072,
            slot_width_us: 60_000_000,
            slots_opened_max: 256,
            slot_rows_min: 16_384,
            straggler_rows_max: 1_024,
            dictionary_entries_max: 4 << 20,
            dictionary_bytes_max: 256 << 20,
            recent_ids_max: 786_432, // three quarters of 2^20 places, 20 MiB
            // 18 to 27 ms of work where a rollup has no sketches, 110 to 140 ms where it has all (docs/decisions/0016).
            folded_rows_max: 262_144,
            hash_seed: 0,
        }
    }
}

impl Limits {
    /// # Panics
    /// The limits contradict each other, or their own description.
    pub(crate) fn check(&self) {
        assert!(self.segment_rows_first.is_power_of_two(), "segment_rows_first is a power of two");
        assert!(self.segment_rows_max.is_power_of_two(), "segment_rows_max is a power of two");
        assert!(self.segment_rows_first <= self.segment_rows_max, "segments do not shrink");
        assert!((1..=OPEN_SLOTS_CEILING).contains(&self.open_slots_max), "1 to {OPEN_SLOTS_CEILING} open slots");
        assert!(self.idle_rows > 0, "a slot that was just used is not idle");
        assert!(self.slot_width_us > 0, "a slot has a width");
        assert!(self.folded_rows_max > 0, "rollups take some rows");
        assert!(self.straggler_rows_max > 0 && self.slots_opened_max > 0, "widening needs something to count");
    }

    /// Rows of the next segment of a slot that has `rows` so far and is about to get `more`.
    pub(crate) fn segment_rows(&self, rows: usize, more: usize) -> usize {
        rows.max(more).next_power_of_two().clamp(self.segment_rows_first, self.segment_rows_max)
    }
}
