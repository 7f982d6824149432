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

use types::{Interval, Timestamp};

use super::{
    identity::{IdentityKey, NONE},
    judge::Dedup,
    memory_run::{Arrivals, MemoryRun},
    runs::{IdRuns, PinnedRun, RunFault, RunId},
    slice::Slice,
    window::{SliceTimes, Window},
};
use crate::{MemoryBudget, sync::Arc};

const VERSION: u8 = 1;
/// Bytes of a slice without runs and ids.
const SLICE_BYTES_MIN: usize = 8 * 2 + 4 + 8;
const RECENT_BYTES: usize = size_of::<u128>() + size_of::<u32>();

/// Why a dedup cannot be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Not what an encoding gave.
    #[error("what was remembered of identities is damaged")]
    Damaged,
    /// Of a version that is not known here.
    #[error("what was remembered of identities is of version {0}")]
    Version(u8),
    /// Its runs are not there, or damaged.
    #[error(transparent)]
    Runs(#[from] RunFault),
}

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
    pub(super) recent: Arrivals,
}

impl DedupCapture {
    /// The runs that the encoding names. They stay while this lives; whoever keeps the encoding makes them durable and
    /// keeps them.
    pub(crate) fn runs(&self) -> impl Iterator<Item = RunId> {
        self.slices.iter().flat_map(|slice| slice.runs.iter().map(|pinned| pinned.run))
    }

    /// Appends the encoding.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend(self.key.seed.to_le_bytes());
        out.push(u8::from(self.key.partition_by.is_some()));
        if let Some(name) = &self.key.partition_by {
            out.extend((name.len() as u32).to_le_bytes());
            out.extend(name.as_bytes());
        }
        out.extend(self.window.slice_us().to_le_bytes());
        out.extend((self.slices.len() as u32).to_le_bytes());
        for slice in &self.slices {
            out.extend(slice.times.until.0.to_le_bytes());
            out.extend(slice.times.forget_at.0.to_le_bytes());
            out.extend((slice.runs.len() as u32).to_le_bytes());
            slice.runs.iter().for_each(|pinned| out.extend(pinned.run.0.to_le_bytes()));
            out.extend((slice.recent.len() as u64).to_le_bytes());
            out.reserve(slice.recent.len() * RECENT_BYTES);
            for (id, content) in slice.recent.iter() {
                out.extend(id.to_le_bytes());
                out.extend(content.to_le_bytes());
            }
        }
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
        let mut bytes = Bytes(bytes);
        match bytes.u8()? {
            VERSION => {}
            version => return Err(RestoreError::Version(version)),
        }
        let mut dedup = Self::new();
        dedup.key.seed = bytes.u64()?;
        dedup.key.partition_by = match bytes.u8()? {
            0 => None,
            1 => {
                let length = bytes.u32()? as usize;
                let name = std::str::from_utf8(bytes.take(length)?).map_err(|_| RestoreError::Damaged)?;
                Some(name.to_owned())
            }
            _ => return Err(RestoreError::Damaged),
        };
        let width = Interval::from_micros(bytes.i64()?).ok_or(RestoreError::Damaged)?;
        dedup.window = Window::of_slices(width);
        let slices = bytes.count_u32(SLICE_BYTES_MIN)?;
        for _ in 0..slices {
            let (times, named, recent) = bytes.slice()?;
            let mut slice = Slice::new(times, dedup.slices.last());
            if dedup.slices.last().is_some_and(|before| before.times.until > times.until) {
                return Err(RestoreError::Damaged);
            }
            slice.recent = recent;
            if !named.is_empty() {
                slice.restore_runs(&named, runs)?;
            }
            dedup.slices.push(slice);
        }
        if !bytes.0.is_empty() {
            return Err(RestoreError::Damaged);
        }
        // As they were before: only the last one may still grow.
        let older = dedup.slices.split_last().map_or(&[][..], |(_, older)| older);
        older.iter().for_each(|slice| slice.seal(runs));
        dedup.account(budget);
        Ok(dedup)
    }
}

/// Bytes that are left to read. Trusts no length: nothing is reserved that the bytes do not hold.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RestoreError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RestoreError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(RestoreError::Damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, RestoreError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, RestoreError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, RestoreError> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, RestoreError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A number of items of at least so many bytes each, all of which are still to come.
    fn count_u32(&mut self, item_bytes: usize) -> Result<usize, RestoreError> {
        let count = u64::from(self.u32()?);
        self.fits(count, item_bytes)
    }

    fn count_u64(&mut self, item_bytes: usize) -> Result<usize, RestoreError> {
        let count = self.u64()?;
        self.fits(count, item_bytes)
    }

    fn fits(&self, count: u64, item_bytes: usize) -> Result<usize, RestoreError> {
        let count = usize::try_from(count).map_err(|_| RestoreError::Damaged)?;
        let bytes = count.checked_mul(item_bytes).ok_or(RestoreError::Damaged)?;
        if bytes <= self.0.len() { Ok(count) } else { Err(RestoreError::Damaged) }
    }

    /// A slice's times, its runs, and its newest ids.
    fn slice(&mut self) -> Result<(SliceTimes, Vec<RunId>, MemoryRun), RestoreError> {
        let times = SliceTimes { until: Timestamp(self.i64()?), forget_at: Timestamp(self.i64()?) };
        let runs = self.count_u32(size_of::<u64>())?;
        let runs: Vec<RunId> = (0..runs).map(|_| self.u64().map(RunId)).collect::<Result<_, _>>()?;
        let count = self.count_u64(RECENT_BYTES)?;
        let mut recent = MemoryRun::default();
        recent.reserve(count);
        for _ in 0..count {
            let (id, content) = (self.array().map(u128::from_le_bytes)?, self.u32()?);
            if id == NONE || recent.find_or_insert(id, content).is_some() {
                return Err(RestoreError::Damaged);
            }
        }
        if times.until > times.forget_at {
            return Err(RestoreError::Damaged);
        }
        Ok((times, runs, recent))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use codec::{BlockHeader, BodyBuilder, BodyView, EventRef};
    use proptest::prelude::*;
    use types::{Generation, PartitionId, SchemaVersion, TableId, TableKey, TenantId};

    use super::*;
    use crate::{
        Limits,
        dedup::{DedupScratch, FrozenIds, HeapRuns, RunSet, SetUsage, judge::Counts},
        pool::Pool,
        table::{Means, Scratch},
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
            let means = Means {
                limits: Limits { recent_ids_max, ..Limits::default() },
                pool: Pool::new(Arc::clone(&budget)),
                budget,
                scratch: Scratch::default(),
                runs: Box::new(HeapRuns::default()),
                dedup: DedupScratch::default(),
            };
            Self { dedup, means }
        }

        fn apply(&mut self, ids: &[u8], now: Timestamp) -> Counts {
            let (header, body) = block(ids);
            let body = BodyView::parse(&body).expect("a good body");
            self.dedup.judge(now, &header, &body, &mut self.means).expect("runs on the heap do not fail");
            self.dedup.remember(&self.means.budget, &mut self.means.dedup)
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
            prop_assert_eq!(restore(&bytes[..at]), Some(RestoreError::Damaged));
            bytes.push(0);
            prop_assert_eq!(restore(&bytes), Some(RestoreError::Damaged));
            bytes.pop();
            bytes[at] ^= flip;
            restore(&bytes);
            bytes[0] = 9;
            prop_assert_eq!(restore(&bytes), Some(RestoreError::Version(9)));
        }
    }
}
