//! The state of a dedup at one offset, as bytes: for checkpoints.
//!
//! A capture is taken by the writer between two records: it shares the newest ids with the writer's table; encoding it is
//! for another thread. Ids in runs are named; their filters are made again when the runs are read. What is restored gives
//! the same verdicts as what was captured; memory and filters may be cut differently.
//!
//! Version 1, little-endian: the version (u8), the table's seed (u64), whether it has a `partition_by` (u8; then its length
//! as u32, and its bytes), the width of slices (i64, µs), the number of slices (u32), and for each:
//!
//! | bytes | |
//! |---|---|
//! | 8, 8 | append times: takes no more ids from, is forgotten at |
//! | 4, then 8 each | runs |
//! | 8, then 16 + 4 each | newest ids in any order, each with its content |

use types::Interval;

use super::{
    identity::{IdentityKey, NONE},
    judge::Dedup,
    memory_run::{Arrivals, MemoryRun},
    newest::Newest,
    runs::{IdRuns, PinnedRun, RunId},
    slice::Slice,
    window::{SliceTimes, Window},
};
use crate::{
    MemoryBudget,
    checkpoint::{Put, RestoreError, Take, text},
    sync::Arc,
};

const VERSION: u8 = 1;
const MALFORMED: RestoreError = RestoreError::Malformed("what was remembered of identities contradicts itself");
const RECENT_BYTES: usize = size_of::<u128>() + size_of::<u32>();

/// What a table in a partition remembers of its events' identities, at one offset.
pub(crate) struct DedupCapture {
    pub(super) key: IdentityKey,
    pub(super) window: Window,
    pub(super) slices: Vec<SliceCapture>,
}

/// A slice at one offset.
pub(super) struct SliceCapture {
    pub(super) times: SliceTimes,
    pub(super) runs: Vec<PinnedRun>,
    /// Of each table.
    pub(super) recent: Vec<Arrivals>,
}

impl DedupCapture {
    /// The runs that the encoding names. They stay while this lives; whoever keeps the encoding makes them durable and
    /// keeps them.
    pub(crate) fn runs(&self) -> impl Iterator<Item = RunId> {
        self.slices.iter().flat_map(|slice| slice.runs.iter().map(|pinned| pinned.run))
    }

    /// Bytes of ids that no table holds besides.
    pub(crate) fn bytes_alone(&self) -> u64 {
        let recent = self.slices.iter().flat_map(|slice| &slice.recent);
        recent.map(|table| table.bytes_alone() as u64).sum()
    }

    /// Appends the encoding.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.u8(VERSION);
        out.u64(self.key.seed);
        out.optional(self.key.partition_by.as_ref(), |out, name| {
            out.u32(name.len() as u32);
            out.extend(name.as_bytes());
        });
        out.i64(self.window.slice_us());
        out.list(self.slices.iter(), |out, slice| {
            out.time(slice.times.until);
            out.time(slice.times.forget_at);
            out.list(slice.runs.iter(), |out, pinned| out.u64(pinned.run.0));
            let count: usize = slice.recent.iter().map(Arrivals::len).sum();
            out.u64(count as u64);
            out.reserve(count * RECENT_BYTES);
            for (id, content) in slice.recent.iter().flat_map(Arrivals::iter) {
                out.extend(id.to_le_bytes());
                out.u32(content);
            }
        });
    }
}

impl Dedup {
    /// The state of now, between two records.
    pub(crate) fn capture(&self, runs: &dyn IdRuns) -> DedupCapture {
        let slices = self.slices.iter().map(|slice| slice.capture(runs)).collect();
        DedupCapture { key: self.key.clone(), window: self.window, slices }
    }

    /// The dedup that was captured and encoded as `bytes`, all of which it is. Its runs are read to their end.
    ///
    /// # Errors
    /// See [`RestoreError`]. Sets of runs that were made by then are left in `runs`, which is to be opened again before
    /// another attempt.
    pub(crate) fn restore(
        bytes: &[u8],
        runs: &mut dyn IdRuns,
        budget: &Arc<MemoryBudget>,
    ) -> Result<Self, RestoreError> {
        let mut take = Take::new(bytes);
        if take.u8()? != VERSION {
            return Err(RestoreError::Version);
        }
        let mut dedup = Self::new();
        dedup.key.seed = take.u64()?;
        dedup.key.partition_by = take.optional(|take| {
            let length = take.u32()? as usize;
            Ok(text(take.raw(length)?)?.to_owned())
        })?;
        dedup.window = Window::of_slices(Interval::from_micros(take.i64()?).ok_or(MALFORMED)?);
        let slices = take.list(take_slice)?;
        take.end()?;
        for (times, named, recent) in slices {
            let mut slice = Slice::new(times, dedup.slices.last());
            if dedup.slices.last().is_some_and(|before| before.times.until > times.until) {
                return Err(MALFORMED);
            }
            slice.recent = Newest::of(recent);
            if !named.is_empty() {
                slice.restore_runs(&named, runs)?;
            }
            dedup.slices.push(slice);
        }
        // As they were before: only the last one may still grow.
        let older = dedup.slices.split_last().map_or(&[][..], |(_, older)| older);
        older.iter().for_each(|slice| slice.seal(runs));
        dedup.account(budget);
        Ok(dedup)
    }
}

/// A slice's times, its runs, and its newest ids.
fn take_slice(take: &mut Take<'_>) -> Result<(SliceTimes, Vec<RunId>, MemoryRun), RestoreError> {
    let times = SliceTimes { until: take.time()?, forget_at: take.time()? };
    let runs = take.list(|take| take.u64().map(RunId))?;
    let count = take.size()?;
    let entries = take.raw(count.checked_mul(RECENT_BYTES).ok_or(MALFORMED)?)?;
    let mut recent = MemoryRun::default();
    recent.reserve(count);
    for entry in entries.chunks_exact(RECENT_BYTES) {
        let id = u128::from_le_bytes(*entry.first_chunk().expect("the id comes first"));
        let content = u32::from_le_bytes(*entry.last_chunk().expect("its content comes last"));
        if id == NONE || recent.find_or_insert(id, content).is_some() {
            return Err(MALFORMED);
        }
    }
    if times.until <= times.forget_at { Ok((times, runs, recent)) } else { Err(MALFORMED) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use codec::{BlockHeader, BodyBuilder, BodyView, EventRef};
    use proptest::prelude::*;
    use types::{Generation, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp};

    use super::*;
    use crate::{
        Limits,
        dedup::{FrozenIds, HeapRuns, RunFault, RunSet, SetUsage, judge::Counts},
        pool::Pool,
        table::Means,
    };

    #[derive(Debug, Clone)]
    enum Op {
        Block {
            ids: Vec<u8>,
            after_us: i64,
        },
        Window {
            window_us: i64,
        },
        /// The state goes through its encoding.
        Restart,
    }

    fn op() -> impl Strategy<Value = Op> {
        let after_us = prop_oneof![3 => 0_i64..20, 1 => 0_i64..200];
        prop_oneof![
            8 => (prop::collection::vec(any::<u8>(), 1..12), after_us)
                .prop_map(|(ids, after_us)| Op::Block { ids, after_us }),
            1 => (1_i64..200).prop_map(|window_us| Op::Window { window_us }),
            2 => Just(Op::Restart),
        ]
    }

    fn block(ids: &[u8]) -> (BlockHeader, Vec<u8>) {
        let (namespace, table, event_time) = ("n", "t", Some(1));
        let mut builder = BodyBuilder::default();
        for id in ids {
            let metrics = [("value", f64::from(id % 3))];
            let event =
                EventRef { namespace, table, event_time, event_id: Some(&[*id]), dimensions: &[], metrics: &metrics };
            builder.push(&event, Timestamp(0), 0).expect("a small block");
        }
        let body = builder.finish(false).expect("not empty");
        let key = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
        (body.header(key, SchemaVersion(1), PartitionId(0), None), body.bytes.to_vec())
    }

    fn key() -> IdentityKey {
        IdentityKey { seed: 7, partition_by: Some("region".to_owned()) }
    }

    struct World {
        dedup: Dedup,
        means: Means,
    }

    impl World {
        fn new(recent_ids_max: usize) -> Self {
            let budget = Arc::new(MemoryBudget::new(u64::MAX));
            let mut dedup = Dedup::new();
            dedup.configure(key(), 90, Timestamp(0));
            let limits = Limits { recent_ids_max, ..Limits::default() };
            let pool = Pool::new(Arc::clone(&budget));
            let means = Means::new(limits, budget, pool, Box::new(HeapRuns::default()));
            Self { dedup, means }
        }

        fn apply(&mut self, ids: &[u8], now: Timestamp) -> Counts {
            let (header, body) = block(ids);
            let body = BodyView::parse(&body).expect("a good body");
            self.dedup.judge(now, &header, &body, &mut self.means).expect("runs on the heap do not fail");
            self.dedup.remember(&self.means.limits, &self.means.budget, &mut self.means.dedup)
        }

        fn encoded(&self) -> Vec<u8> {
            let mut bytes = Vec::new();
            self.dedup.capture(self.means.runs.as_ref()).encode(&mut bytes);
            bytes
        }
    }

    /// Runs that note which sets are sealed.
    struct Sealing {
        runs: Box<dyn IdRuns>,
        sealed: Vec<RunSet>,
    }

    impl IdRuns for Sealing {
        fn new_set(&mut self) -> RunSet {
            self.runs.new_set()
        }

        fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
            self.runs.add(set, ids);
        }

        fn seal(&mut self, set: RunSet) {
            self.sealed.push(set);
        }

        fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
            self.runs.confirm(set, suspects, found)
        }

        fn drop_set(&mut self, set: RunSet) {
            self.runs.drop_set(set);
        }

        fn usage(&mut self, set: RunSet) -> SetUsage {
            self.runs.usage(set)
        }

        fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
            self.runs.pin(set)
        }

        fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
            self.runs.restore_set(runs)
        }

        fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
            self.runs.scan(set, each)
        }
    }

    /// Goal: of what is restored all slices but the last are sealed, so that their runs are merged in this life as well.
    #[test]
    fn restored_older_slices_are_sealed() {
        let mut world = World::new(1);
        (0..30).for_each(|n| {
            world.apply(&[n, n + 100], Timestamp(i64::from(n) * 10));
        });
        let bytes = world.encoded();
        let World { dedup, means } = world;
        let with_runs = dedup.slices.iter().filter(|slice| slice.has_runs()).count();
        assert!(with_runs > 2, "{with_runs}");
        let current = usize::from(dedup.slices.last().unwrap().has_runs());
        let mut runs = Sealing { runs: means.runs, sealed: Vec::new() };
        let restored = Dedup::restore(&bytes, &mut runs, &means.budget).unwrap();
        assert_eq!(runs.sealed.len(), with_runs - current);
        assert_eq!(restored.slices.len(), dedup.slices.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Goal: wherever a history is cut by captures and restores, verdicts are those of a dedup that ran through.
        #[test]
        fn restored_state_goes_on_alike(ops in prop::collection::vec(op(), 1..80), recent_ids_max in 1_usize..40) {
            let (mut through, mut restarted) = (World::new(recent_ids_max), World::new(recent_ids_max));
            let mut now = Timestamp(0);
            for op in ops {
                match op {
                    Op::Block { ids, after_us } => {
                        now.0 += after_us;
                        prop_assert_eq!(through.apply(&ids, now), restarted.apply(&ids, now));
                    }
                    Op::Window { window_us } => {
                        through.dedup.configure(key(), window_us, now);
                        restarted.dedup.configure(key(), window_us, now);
                    }
                    Op::Restart => {
                        let bytes = restarted.encoded();
                        let named: Vec<_> = restarted.dedup.capture(restarted.means.runs.as_ref()).runs().collect();
                        let World { dedup, means } = &mut restarted;
                        *dedup = Dedup::restore(&bytes, means.runs.as_mut(), &means.budget).expect("what was encoded");
                        let restored: Vec<_> = dedup.capture(means.runs.as_ref()).runs().collect();
                        prop_assert_eq!(restored, named);
                        prop_assert_eq!(dedup.bytes(), means.budget.used());
                    }
                }
            }
        }

        /// Goal: bytes that are cut off, longer or changed are an error or another state, and never a panic.
        #[test]
        fn damage_is_survived(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..12), 1..20), at: u16, flip in 1_u8..) {
            let mut world = World::new(20);
            blocks.iter().zip(0..).for_each(|(ids, n)| {
                world.apply(ids, Timestamp(n * 10));
            });
            let mut bytes = world.encoded();
            let World { means, .. } = &mut world;
            let mut restore = |bytes: &[u8]| Dedup::restore(bytes, means.runs.as_mut(), &means.budget).map(|_| ()).err();
            let at = usize::from(at) % bytes.len();
            prop_assert!(matches!(restore(&bytes[..at]), Some(RestoreError::Malformed(_))));
            bytes.push(0);
            prop_assert!(matches!(restore(&bytes), Some(RestoreError::Malformed(_))));
            bytes.pop();
            bytes[at] ^= flip;
            restore(&bytes);
            bytes[0] = 9;
            prop_assert!(matches!(restore(&bytes), Some(RestoreError::Version)));
        }
    }
}
