//! Exact dedup against a plain map of identities.
#![cfg(not(loom))]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use codec::{BatchIdentity, BlockHeader, BodyBuilder, BodyView, EventRef};
use engine::{
    ApplyError, FrozenIds, HeapRuns, IdRuns, Limits, MemoryBudget, PinnedRun, Reader, RunFault, RunId, RunSet,
    SetUsage, Writer, partition_with_runs,
};
use proptest::prelude::*;
use types::{
    Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
    TenantId, Timestamp,
};

const PARTITION: PartitionId = PartitionId(0);

/// An event; `n` numbers all of a history.
#[derive(Debug, Clone)]
struct Event {
    id: Option<u8>,
    key: Option<u8>,
    value: u8,
    time: Option<i64>,
    n: u64,
}

#[derive(Debug, Clone)]
enum Op {
    Block { table: u64, batch: Option<(u8, u8)>, events: Vec<Event>, after_us: i64 },
    Window { table: u64, window_us: i64 },
    Drop { table: u64 },
    Housekeep,
}

fn event() -> impl Strategy<Value = Event> {
    // Few ids, so that most are repeated, and many, so that some are not.
    let id = prop_oneof![4 => (0_u8..12).prop_map(Some), 2 => any::<u8>().prop_map(Some), 1 => Just(None)];
    let time = prop_oneof![9 => (0_i64..3).prop_map(Some), 1 => Just(None)];
    (id, prop::option::of(0_u8..3), 0_u8..2, time).prop_map(|(id, key, value, time)| Event {
        id,
        key,
        value,
        time,
        n: 0,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let batch = prop::option::weighted(0.3, (0_u8..2, 0_u8..4));
    let after_us = prop_oneof![3 => Just(0_i64), 3 => 0_i64..20, 1 => 0_i64..400];
    let block = (0_u64..2, batch, prop::collection::vec(event(), 1..12), after_us)
        .prop_map(|(table, batch, events, after_us)| Op::Block { table, batch, events, after_us });
    prop_oneof![
        24 => block,
        1 => (0_u64..2, 1_i64..200).prop_map(|(table, window_us)| Op::Window { table, window_us }),
        1 => (0_u64..2).prop_map(|table| Op::Drop { table }),
        2 => Just(Op::Housekeep),
    ]
}

/// Operations with their events numbered.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..60).prop_map(|mut ops| {
        let blocks =
            ops.iter_mut().filter_map(|op| if let Op::Block { events, .. } = op { Some(events) } else { None });
        blocks.flatten().zip(0..).for_each(|(event, n)| event.n = n);
        ops
    })
}

/// Who an event is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    Event { key: Option<u8>, id: u8 },
    Batch { producer: u8, sequence: u8, index: usize },
}

/// What its content is: value, whether it has a key and which, time where it counts.
type Content = (u8, Option<u8>, Option<i64>);

/// Table 1 has a `partition_by`, table 0 has none.
fn identity(table: u64, batch: Option<(u8, u8)>, index: usize, event: &Event) -> Option<Identity> {
    match (event.id, batch) {
        (Some(id), _) => Some(Identity::Event { key: event.key.filter(|_| table == 1), id }),
        (None, Some((producer, sequence))) => Some(Identity::Batch { producer, sequence, index }),
        (None, None) => None,
    }
}

/// The oracle of one table: when each identity is forgotten, and the content that came first.
#[derive(Debug, Default, Clone)]
struct Model {
    seen: BTreeMap<Identity, (i64, Content)>,
    stored: Vec<u64>,
    duplicate: u64,
    conflict: u64,
}

impl Model {
    fn apply(&mut self, table: u64, batch: Option<(u8, u8)>, events: &[Event], now: i64, window_us: i64) {
        let slice_us = (window_us + 2) / 3;
        let forget_at = (now.div_euclid(slice_us) + 4) * slice_us;
        let given = events.iter().any(|event| event.time.is_none());
        for (index, event) in events.iter().enumerate() {
            let content = (event.value, event.key, event.time.filter(|_| !given));
            let identity = identity(table, batch, index, event);
            let first = identity.as_ref().and_then(|id| self.seen.get(id)).filter(|(forget_at, _)| now < *forget_at);
            let Some((_, first)) = first else {
                self.stored.push(event.n);
                self.seen.extend(identity.map(|identity| (identity, (forget_at, content))));
                continue;
            };
            self.duplicate += 1;
            self.conflict += u64::from(first.2.is_some() == content.2.is_some() && *first != content);
        }
    }
}

/// Runs that fail: the first read after it was asked for.
struct Flaky {
    inner: HeapRuns,
    next_read_fails: Arc<AtomicBool>,
}

const FAULT: RunFault = RunFault::Io(std::io::ErrorKind::Interrupted);

impl IdRuns for Flaky {
    fn new_set(&mut self) -> RunSet {
        self.inner.new_set()
    }

    fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
        assert!(!ids.is_empty() && sorted(&ids).is_sorted_by(|a, b| a < b));
        self.inner.add(set, ids);
    }

    fn seal(&mut self, set: RunSet) {
        self.inner.seal(set);
    }

    fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        assert!(suspects.is_sorted() && suspects.len() == found.len() && !suspects.is_empty());
        if self.next_read_fails.swap(false, Relaxed) {
            return Err(FAULT);
        }
        self.inner.confirm(set, suspects, found)
    }

    fn drop_set(&mut self, set: RunSet) {
        self.inner.drop_set(set);
    }

    fn usage(&mut self, set: RunSet) -> SetUsage {
        self.inner.usage(set)
    }

    fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
        self.inner.pin(set)
    }

    fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
        self.inner.restore_set(runs)
    }

    fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
        self.inner.scan(set, each)
    }
}

struct World {
    writer: Writer,
    reader: Reader,
    generations: [u32; 2],
    windows: [i64; 2],
    clock: i64,
    wide_ids: bool,
    reads_fail: bool,
    next_read_fails: Arc<AtomicBool>,
}

impl World {
    fn new(limits: Limits, reads_fail: bool, wide_ids: bool, budget: &Arc<MemoryBudget>) -> Self {
        let next_read_fails = Arc::new(AtomicBool::new(false));
        let runs = Box::new(Flaky { inner: HeapRuns::default(), next_read_fails: Arc::clone(&next_read_fails) });
        let (writer, reader) = partition_with_runs(PARTITION, Offset::ZERO, limits, Arc::clone(budget), runs);
        let (generations, windows, clock) = ([0; 2], [90; 2], 1_000_000);
        let mut world = Self { writer, reader, generations, windows, clock, wide_ids, reads_fail, next_read_fails };
        (0..2).for_each(|table| world.begin_life(table));
        world
    }

    fn key(&self, table: u64) -> TableKey {
        let generation = Generation(self.generations[table as usize]);
        TableKey { tenant: TenantId(1), table: TableId(table), generation }
    }

    fn begin_life(&mut self, table: u64) {
        self.generations[table as usize] += 1;
        self.windows[table as usize] = 90;
        self.configure(table);
    }

    fn configure(&mut self, table: u64) {
        let settings = TableSettings { dedup_window_us: self.windows[table as usize], ..TableSettings::default() };
        let described = Table {
            key: self.key(table),
            name: TableName::new("n", "t"),
            partitions: vec![PARTITION],
            partition_by: (table == 1).then(|| "key".to_owned()),
            partition_seed: 0,
            identity_seed: 77,
            schema: Schema::default(),
            settings,
        };
        self.writer.configure(self.writer.next_offset(), Timestamp(self.clock), &described).expect("in order");
    }

    fn block(&self, table: u64, batch: Option<(u8, u8)>, events: &[Event]) -> (BlockHeader, Vec<u8>) {
        let mut builder = BodyBuilder::default();
        for (index, event) in events.iter().enumerate() {
            let id = event.id.map(|id| if self.wide_ids { format!("{id:016}") } else { format!("id {id}") });
            let key = event.key.map(|key| format!("key {key}"));
            let dimensions: Vec<_> = key.iter().map(|key| ("key", key.as_str())).collect();
            let pushed = EventRef {
                namespace: "n",
                table: "t",
                event_time: event.time,
                event_id: id.as_deref().map(str::as_bytes),
                dimensions: &dimensions,
                metrics: &[("value", f64::from(event.value))],
            };
            builder.push(&pushed, Timestamp(1_000 + event.n as i64), index as u32).expect("a small block");
        }
        let body = builder.finish(batch.is_some()).expect("not empty");
        let batch = batch.map(|(p, s)| BatchIdentity { producer: u128::from(p), sequence: u64::from(s) });
        (body.header(self.key(table), SchemaVersion(1), PARTITION, batch), body.bytes.to_vec())
    }

    /// Runs an operation; returns rows stored and duplicates.
    fn run(&mut self, op: &Op) -> Result<(u64, u64), TestCaseError> {
        let now = Timestamp(self.clock);
        match op {
            Op::Block { table, batch, events, after_us } => {
                self.clock += after_us;
                let (header, body) = self.block(*table, *batch, events);
                let (view, offset) = (BodyView::parse(&body).expect("a good body"), self.writer.next_offset());
                self.next_read_fails.store(self.reads_fail, Relaxed);
                let mut applied = self.writer.apply(offset, Timestamp(self.clock), &header, &view);
                if matches!(applied, Err(ApplyError::Ids(FAULT))) {
                    prop_assert_eq!(self.writer.next_offset(), offset, "the record is still the next one");
                    applied = self.writer.apply(offset, Timestamp(self.clock), &header, &view);
                }
                let applied = applied.map_err(|error| TestCaseError::fail(error.to_string()))?;
                return Ok((applied.stored, applied.duplicate));
            }
            Op::Window { table, window_us } => {
                self.windows[*table as usize] = *window_us;
                self.configure(*table);
            }
            Op::Drop { table } => {
                let key = self.key(*table);
                self.writer.drop_table(self.writer.next_offset(), now, key).expect("in order");
                self.begin_life(*table);
            }
            Op::Housekeep => self.writer.housekeep(),
        }
        Ok((0, 0))
    }

    /// By table: what was counted. The rows themselves are those that the model stored.
    fn counted(&self, table: u64, model: &Model) -> Result<(), TestCaseError> {
        let status = self.reader.table_status(self.key(table)).expect("it was configured");
        prop_assert_eq!(status.live, model.stored.len() as u64);
        prop_assert_eq!((status.evicted, status.duplicate, status.conflict), (0, model.duplicate, model.conflict));
        Ok(())
    }
}

/// Limits under which almost everything is spilled, and others.
fn limits(recent_ids_max: usize) -> Limits {
    Limits { segment_rows_first: 2, segment_rows_max: 8, open_slots_max: 3, recent_ids_max, ..Limits::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Goal: whatever is sent again, when, in which form and order: a row is a duplicate if and only if the map says so,
    /// with any limits of memory, with runs that fail now and then, and again in a replay.
    #[test]
    fn verdicts_match_a_map(ops in ops(), recent_ids_max in 1_usize..40, reads_fail: bool, wide_ids: bool) {
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let mut worlds = [
            World::new(limits(recent_ids_max), reads_fail, wide_ids, &budget),
            World::new(limits(1), false, wide_ids, &budget),
            World::new(limits(1_000_000), false, wide_ids, &budget),
        ];
        let mut models = [Model::default(), Model::default()];
        for op in &ops {
            let before = models.clone();
            match op {
                Op::Block { table, batch, events, after_us } => {
                    let (now, window_us) = (worlds[0].clock + after_us, worlds[0].windows[*table as usize]);
                    models[*table as usize].apply(*table, *batch, events, now, window_us);
                }
                Op::Drop { table } => models[*table as usize] = Model::default(),
                Op::Window { .. } | Op::Housekeep => {}
            }
            for world in &mut worlds {
                let (stored, duplicate) = world.run(op)?;
                if let Op::Block { table, .. } = op {
                    let (model, before) = (&models[*table as usize], &before[*table as usize]);
                    prop_assert_eq!(stored as usize, model.stored.len() - before.stored.len());
                    prop_assert_eq!(duplicate, model.duplicate - before.duplicate);
                }
                (0..2).try_for_each(|table| world.counted(table, &models[table as usize]))?;
            }
        }
        drop(worlds);
        prop_assert_eq!((budget.used(), budget.retired()), (0, 0), "all memory was accounted for");
    }
}

/// Runs that count what filters suspected.
struct Counted {
    inner: HeapRuns,
    suspects: Arc<AtomicU64>,
}

impl IdRuns for Counted {
    fn new_set(&mut self) -> RunSet {
        self.inner.new_set()
    }

    fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
        self.inner.add(set, ids);
    }

    fn seal(&mut self, set: RunSet) {
        self.inner.seal(set);
    }

    fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        self.suspects.fetch_add(suspects.len() as u64, Relaxed);
        self.inner.confirm(set, suspects, found)
    }

    fn drop_set(&mut self, set: RunSet) {
        self.inner.drop_set(set);
    }

    fn usage(&mut self, set: RunSet) -> SetUsage {
        self.inner.usage(set)
    }

    fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
        self.inner.pin(set)
    }

    fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
        self.inner.restore_set(runs)
    }

    fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
        self.inner.scan(set, each)
    }
}

/// A block of 1,000 events with ids from `first` on.
fn block_of_ids(first: u64) -> (BlockHeader, Vec<u8>) {
    let mut builder = BodyBuilder::default();
    for n in first..first + 1_000 {
        let event = EventRef {
            namespace: "n",
            table: "t",
            event_time: Some(1),
            event_id: Some(&u128::from(n).to_be_bytes()),
            dimensions: &[],
            metrics: &[],
        };
        builder.push(&event, Timestamp(0), 0).expect("a small block");
    }
    let key = TableKey { tenant: TenantId(1), table: TableId(0), generation: Generation(1) };
    let body = builder.finish(false).expect("not empty");
    (body.header(key, SchemaVersion(1), PARTITION, None), body.bytes.to_vec())
}

/// Goal: filters suspect some of many distinct ids, and not one of these is dropped; sent again, every one is found.
#[test]
fn suspicion_convicts_nobody() {
    const BLOCKS: u64 = 500;
    let suspects = Arc::<AtomicU64>::default();
    let runs = Box::new(Counted { inner: HeapRuns::default(), suspects: Arc::clone(&suspects) });
    let budget = Arc::new(MemoryBudget::new(u64::MAX));
    let limits = Limits { recent_ids_max: 20_000, ..Limits::default() };
    let (mut writer, reader) = partition_with_runs(PARTITION, Offset::ZERO, limits, budget, runs);
    for again in [false, true] {
        for number in 0..BLOCKS {
            let (header, body) = block_of_ids(number * 1_000);
            let view = BodyView::parse_trusted(&body).expect("a good body");
            let applied = writer.apply(writer.next_offset(), Timestamp(0), &header, &view).expect("in order");
            assert_eq!((applied.stored, applied.duplicate), if again { (0, 1_000) } else { (1_000, 0) });
        }
        if !again {
            let suspected = suspects.load(Relaxed);
            assert!((1..10_000).contains(&suspected), "{suspected} looks into runs");
        }
    }
    let status = reader.table_status(block_of_ids(0).0.key).expect("it has events");
    assert_eq!((status.live, status.duplicate, status.conflict), (BLOCKS * 1_000, BLOCKS * 1_000, 0));
}

/// The ids in the order in which they are written.
fn sorted(ids: &FrozenIds) -> Vec<u128> {
    let mut sorted = Vec::with_capacity(ids.len());
    let Ok(()) = ids.each_sorted(|id, _| {
        sorted.push(id);
        Ok::<_, std::convert::Infallible>(())
    });
    sorted
}
