//! Partitions to which nothing comes: their time goes on all the same, where something hangs on it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use codec::{BodyBuilder, EventRef};
use engine::{Limits, MemoryBudget, Reader};
use event_log::{Append, EmbeddedConfig, EmbeddedLog, EventLog, faults::MemoryFiles};
use hot_tier::NodeWriter;
use service::{Health, Shutdown};
use stream_ingester::{
    PartitionProgress, ticks,
    worker::{Means, Step, Worker},
};
use types::{
    Generation, Offset, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp,
    limits::DEDUP_WINDOW_US_DEFAULT,
};

const PARTITION: PartitionId = PartitionId(0);
const START: Timestamp = Timestamp(1_000_000_000_000_000);
const SECOND: i64 = 1_000_000;
const ROWS: u64 = 1_000;

/// A log, the partition that reads it, and the time of both.
struct World {
    now: Arc<Mutex<Timestamp>>,
    log: Arc<EmbeddedLog>,
    budget: Arc<MemoryBudget>,
    progress: Arc<PartitionProgress>,
    reader: Reader,
    worker: Worker,
    appended: u64,
}

impl World {
    fn new(memory_bytes: u64) -> Self {
        let now = Arc::new(Mutex::new(START));
        let clock = Arc::clone(&now);
        let config = EmbeddedConfig::new("/log", 1);
        let log = EmbeddedLog::open(config, Arc::new(MemoryFiles::new(1)), Arc::new(move || *clock.lock().unwrap()));
        let log = Arc::new(log.unwrap());
        let budget = Arc::new(MemoryBudget::new(memory_bytes));
        let (engine, reader) = engine::partition(PARTITION, Offset::ZERO, Limits::default(), Arc::clone(&budget));
        let progress = Arc::new(PartitionProgress::of(log.as_ref(), PARTITION));
        let means = Means {
            log: log.clone(),
            progress: Arc::clone(&progress),
            health: Health::starting("test", "0"),
            stop: Shutdown::new(),
        };
        let worker = Worker::new(means, Box::new(NodeWriter::new(engine)), 1_000);
        Self { now, log, budget, progress, reader, worker, appended: 0 }
    }

    /// Appends a block of rows, each with an id of its own or all without, and applies it. Their times are `ahead` µs apart.
    async fn events(&mut self, ids: bool, ahead: i64) {
        let mut builder = BodyBuilder::default();
        let now = *self.now.lock().unwrap();
        for n in 0..ROWS {
            let id = (self.appended * ROWS + n).to_le_bytes();
            let event = EventRef {
                namespace: "n",
                table: "t",
                event_time: Some(now.0 + ahead * (n % 8) as i64),
                event_id: ids.then_some(id.as_slice()),
                dimensions: &[],
                metrics: &[("m", 1.0)],
            };
            builder.push(&event, now, 0).unwrap();
        }
        self.appended += 1;
        let body = builder.finish(false).unwrap();
        let key = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
        let header = body.header(key, SchemaVersion(1), PARTITION, None);
        self.log.append(vec![Append { header, body: body.bytes }]).await.unwrap();
        self.apply();
    }

    fn apply(&mut self) {
        while matches!(self.worker.step(Duration::ZERO), Step::Worked) {}
        assert_eq!(self.worker.next_offset(), self.log.bounds(PARTITION).end);
    }

    /// Looks whether ticks are due after `micros` more; how many were.
    async fn pass(&mut self, micros: i64) -> u64 {
        let (now, before) = {
            let mut now = self.now.lock().unwrap();
            *now = now.saturating_add(micros);
            (*now, self.log.bounds(PARTITION).end)
        };
        ticks::round(self.log.as_ref(), &[Arc::clone(&self.progress)], now).await;
        self.apply();
        self.log.bounds(PARTITION).end.0 - before.0
    }
}

/// Goal: identities that fill their share of memory, so that all events are refused, are forgotten once their window is over
/// although nothing else comes; not before it is over; and a partition at rest is then left alone.
#[tokio::test]
async fn full_identities_do_not_refuse_for_ever() {
    let mut world = World::new(32 << 20);
    while !world.budget.ids_over_share() {
        world.events(true, 0).await;
        assert!(world.appended < 1_000, "identities never fill their share");
    }
    let mut ticks = 0;
    for _ in 0..DEDUP_WINDOW_US_DEFAULT / (10 * SECOND) {
        ticks += world.pass(10 * SECOND).await;
        assert!(world.budget.ids_over_share(), "the window is never cut short");
    }
    for _ in 0..DEDUP_WINDOW_US_DEFAULT / (10 * SECOND) {
        ticks += world.pass(10 * SECOND).await;
    }
    assert!(!world.budget.ids_over_share(), "nothing else came, and events are let in again");
    assert_eq!(world.budget.identities(), 0);
    assert!((1..=4).contains(&ticks), "{ticks} ticks: one for each slice of identities");
    assert_eq!(world.pass(1_000 * SECOND).await, 0, "nothing is due any more");
    assert_eq!(world.reader.status().passed_over, 0);
}

/// Goal: rows that fill memory and lie in a slot whose time was not over when they came leave once it is.
#[tokio::test]
async fn full_memory_does_not_refuse_for_ever() {
    let mut world = World::new(1 << 20);
    while !world.budget.is_exhausted() {
        world.events(false, 300 * SECOND).await;
        assert!(world.appended < 1_000, "memory is never full");
    }
    assert_eq!(world.pass(0).await, 0, "nothing can leave yet");
    let (mut steps, mut ticks) = (0, 0);
    while world.budget.is_exhausted() {
        ticks += world.pass(SECOND).await;
        steps += 1;
        assert!(steps < 4_000, "for ever");
    }
    assert!((1..=8).contains(&ticks), "{ticks} ticks");
}
