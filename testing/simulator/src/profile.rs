//! What kind of run a seed is: sizes, loads and how much goes wrong. Small sizes make every case come up within a run.

use engine::Limits;

use crate::random::Random;

/// The shape of a run.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// Partitions of the log; each table uses all.
    pub(crate) partitions: u32,
    /// Things that happen before the run is brought to its end.
    pub(crate) steps: u64,
    /// Events of a batch at most.
    pub(crate) batch_events_max: u64,
    /// How long identities are remembered at first, µs.
    pub(crate) dedup_window_us: i64,
    /// Virtual time that passes at a step, µs, at most.
    pub(crate) step_us_max: i64,
    /// Whether ids are 16 bytes long, or short and of different lengths.
    pub(crate) wide_ids: bool,
    /// Memory of the node, bytes.
    pub(crate) memory_bytes: u64,
    /// Records that a partition applies between two rounds of housekeeping.
    pub(crate) batch_records: usize,
    /// One in so many calls to the disk fails, while the weather is bad.
    pub(crate) fault_one_in: u64,
    /// What a sync of a slow disk takes, µs of virtual time, at most.
    pub(crate) slow_sync_us_max: i64,
    /// One in so many steps is the end of a life.
    pub(crate) crash_one_in: u64,
    /// Bytes of a file of the log.
    pub(crate) segment_bytes: u64,
    /// Bytes of the log's queue.
    pub(crate) queue_bytes_max: u64,
    /// Bytes that one sync of the log covers.
    pub(crate) group_bytes_max: u64,
    /// Bytes of the newest records in memory.
    pub(crate) tail_bytes_max: u64,
    /// Ids that a table remembers in memory.
    pub(crate) recent_ids_max: usize,
}

/// One run in so many has large batches and therefore so many ids that filters suspect innocent ones.
const CROWDED_ONE_IN: u64 = 8;

impl Profile {
    /// That of a seed.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let crowded = random.once_in(CROWDED_ONE_IN);
        Self {
            partitions: if crowded { 1 } else { random.pick(&[1, 2, 3]) },
            steps: if crowded { 300 } else { random.pick(&[200, 400, 800]) },
            batch_events_max: if crowded { 700 } else { random.pick(&[3, 12, 40]) },
            dedup_window_us: random.pick(&[300_000, 3_000_000, 60_000_000]),
            step_us_max: random.pick(&[200, 5_000, 100_000]),
            wide_ids: random.once_in(2),
            memory_bytes: random.pick(&[u64::MAX, u64::MAX, 4 << 20, 400 << 10, 150 << 10]),
            batch_records: random.pick(&[1, 4, 64]),
            fault_one_in: random.pick(&[4, 12, 40, 200]),
            slow_sync_us_max: random.pick(&[0, 20_000, 1_000_000]),
            crash_one_in: random.pick(&[40, 100, 300]),
            segment_bytes: random.pick(&[48 << 10, 96 << 10, 1 << 20]),
            queue_bytes_max: random.pick(&[4 << 10, 64 << 10, 4 << 20]),
            group_bytes_max: random.pick(&[1, 8 << 10, 1 << 20]),
            tail_bytes_max: random.pick(&[0, 8 << 10, 1 << 20]),
            recent_ids_max: if crowded { 300 } else { random.pick(&[1, 6, 50, 100_000]) },
        }
    }

    /// How partitions lay out their rows.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            segment_rows_first: 2,
            segment_rows_max: 64,
            open_slots_max: 4,
            idle_rows: 30,
            slot_width_us: 1_000_000,
            slots_opened_max: 12,
            slot_rows_min: 8,
            straggler_rows_max: 16,
            dictionary_entries_max: 8,
            dictionary_bytes_max: u64::MAX,
            recent_ids_max: self.recent_ids_max,
            folded_rows_max: 512,
            hash_seed: 5,
        }
    }
}
