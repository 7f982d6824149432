//! A node that keeps results beside one that keeps none, of the same records.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use codec::{BlockHeader, BlockKind, BodyBuilder, ControlRecord, EventRef};
use engine::{Limits, MemoryBudget};
use proto::hot_tier::{HotTier, PartitionScan, PartitionWriter, ScanRequest};
use query::{Answer, Finishing, QueryLimits, ScanStats};
use types::{
    ColumnDef, ColumnKind, ErrorCode, Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey,
    TableName, TableSettings, TenantId, Timestamp,
};

use super::*;
use crate::{
    node::{Node, Partition},
    pool::ScanPool,
    scan::{Asked, Prepare, Stop},
    writer::NodeWriter,
};

const PARTITIONS: u32 = 2;

/// A time, a user and a value.
type Row = (i64, u64, f64);

/// Numbers that a seed names (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }
}

fn table(tenant: u64, generation: u32) -> Table {
    let column = |name: &str, kind| ColumnDef { name: name.into(), kind };
    let columns = vec![
        column("region", ColumnKind::Dimension),
        column("user", ColumnKind::Dimension),
        column("value", ColumnKind::Metric),
    ];
    Table {
        key: TableKey { tenant: TenantId(tenant), table: TableId(1), generation: Generation(generation) },
        name: TableName::new("shop", "events"),
        partitions: (0..PARTITIONS).map(PartitionId).collect(),
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::from_parts(SchemaVersion(1), columns),
        settings: TableSettings::default(),
    }
}

/// A node and its writers. Slots, segments and dictionaries change every few rows.
struct World {
    writers: Vec<NodeWriter>,
    node: Node,
}

impl World {
    fn new(cache_bytes: u64) -> Self {
        let limits = Limits {
            segment_rows_first: 2,
            segment_rows_max: 64,
            open_slots_max: 3,
            slot_width_us: 200,
            slots_opened_max: 6,
            slot_rows_min: 4,
            straggler_rows_max: 5,
            dictionary_entries_max: 40,
            ..Limits::default()
        };
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let mut writers = Vec::new();
        let partitions = (0..PARTITIONS).map(PartitionId).map(|id| {
            let (engine, reader) = engine::partition(id, Offset::ZERO, limits, Arc::clone(&budget));
            let mut writer = NodeWriter::new(engine);
            PartitionWriter::recovered(&mut writer);
            let (recovered, applied, work) = (writer.recovered(), writer.applied(), writer.work());
            let partition = Partition { recovered, applied, reader, work };
            writers.push(writer);
            (id, partition)
        });
        let partitions = partitions.collect();
        let pool = ScanPool::start(2).unwrap();
        let node = Node::new(PARTITIONS, budget, pool, KeptResults::new(cache_bytes), 1);
        node.open(partitions);
        Self { writers, node }
    }

    fn ingest(&mut self, partition: usize, table: &Table, rows: &[Row]) {
        let mut builder = BodyBuilder::default();
        for (index, &(time, user, value)) in rows.iter().enumerate() {
            let (region, user) = (format!("r{}", user % 5), format!("u{user}"));
            let event = EventRef {
                namespace: "shop",
                table: "events",
                event_time: Some(time),
                event_id: None,
                dimensions: &[("region", &region), ("user", &user)],
                metrics: &[("value", value)],
            };
            builder.push(&event, Timestamp(0), index as u32).unwrap();
        }
        let body = builder.finish(false).unwrap();
        let header = body.header(table.key, SchemaVersion(1), PartitionId(partition as u32), None);
        self.apply(partition, &header, &body.bytes);
    }

    /// A change of a table, in all partitions.
    fn control(&mut self, record: &ControlRecord) {
        let mut builder = BodyBuilder::default();
        let event =
            EventRef { namespace: "n", table: "t", event_time: None, event_id: None, dimensions: &[], metrics: &[] };
        builder.push(&event, Timestamp(0), 0).unwrap();
        let body = builder.finish(false).unwrap();
        for partition in 0..self.writers.len() {
            let header = body.header(record.key(), SchemaVersion(1), PartitionId(partition as u32), None);
            let header = BlockHeader { kind: BlockKind::Control, rows: 0, ..header };
            self.apply(partition, &header, &record.encode());
        }
    }

    fn apply(&mut self, partition: usize, header: &BlockHeader, body: &[u8]) {
        let writer = &mut self.writers[partition];
        writer.apply(writer.next_offset(), Timestamp(0), header, body).unwrap();
        writer.housekeep();
    }

    async fn scan(&self, plan: &Plan) -> Vec<PartitionScan> {
        let request = ScanRequest {
            plan: Arc::new(plan.clone()),
            partitions: (0..PARTITIONS).map(PartitionId).collect(),
            after: Vec::new(),
            at: Vec::new(),
            known: Vec::new(),
            deadline: Instant::now() + Duration::from_secs(60),
        };
        self.node.scan(request).await.unwrap().scans
    }

    /// The answer, and what it covers of each partition.
    async fn answer(&self, table: &Table, json: &str) -> (Answer, Vec<(Offset, Vec<Option<Timestamp>>)>) {
        let query = query::parse(json.as_bytes(), &QueryLimits::default()).unwrap();
        let plan = query::plan(&query, &[Arc::new(table.clone())]).unwrap();
        let left = AtomicBool::new(false);
        let cancel = Cancel::new(&left, &|| false);
        let scans = self.scan(&plan).await;
        let covered = scans.iter().map(|scan| (scan.next_offset, scan.lacks_before.clone())).collect();
        let partials =
            |scans: Vec<PartitionScan>| scans.into_iter().map(|scan| scan.partial.expect("nothing is known")).collect();
        let mut finishing = Finishing::new(&plan, partials(scans), &cancel).unwrap();
        while let Some(round) = finishing.next_round(&plan, &cancel).unwrap() {
            let more = partials(self.scan(&round).await);
            assert!(finishing.absorb(&round, more, &cancel).unwrap(), "all rows are there still");
        }
        (finishing.answer(&plan, &cancel).unwrap(), covered)
    }

    async fn stats(&self, table: &Table, json: &str) -> ScanStats {
        self.answer(table, json).await.0.stats
    }
}

fn query(start: i64, end: i64, rest: &str) -> String {
    format!(r#"{{"namespace":"shop","table":"events","start_time":{start},"end_time":{end},{rest}}}"#)
}

const QUERIES: [&str; 6] = [
    r#""aggregates":[{"fn":"count"},{"fn":"sum","metric":"value"},{"fn":"stddev","metric":"value"}]"#,
    r#""aggregates":[{"fn":"avg","metric":"value"}],"group_by":["region"],"interval_us":100"#,
    r#""aggregates":[{"fn":"sum","metric":"value"}],"group_by":["user"],"filters":{"region":{"ne":"r3"}},"limit":9"#,
    r#""aggregates":[{"fn":"p50","metric":"value","method":"tdigest"},{"fn":"p99","metric":"value"}]"#,
    r#""aggregates":[{"fn":"p90","metric":"value","method":"exact"}],"group_by":["region"]"#,
    r#""aggregates":[{"fn":"distinct","dimension":"user"},{"fn":"top","dimension":"user","k":7}]"#,
];

/// Goal: while rows come, late ones too, segments are sealed, old rows leave, and results are kept or pushed out for want of
/// room, a node that keeps results gives the bytes, and covers the offsets, of one that keeps none; and what is kept serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_results_change_no_byte() {
    let (mut served, mut evicted) = (0, 0);
    for seed in 0..6 {
        let mut random = Random(seed);
        let (mut keeping, mut plain) = (World::new([1 << 20, 48 << 10][seed as usize % 2]), World::new(0));
        let table = table(1, 1);
        let mut at = 0;
        for _ in 0..200 {
            if random.below(100) < 40 {
                let rows_max = [3, 60][random.below(2) as usize];
                let rows: Vec<Row> = (0..1 + random.below(rows_max))
                    .map(|_| {
                        at += random.below(8) as i64;
                        let late = if random.below(20) == 0 { random.below(1_000) as i64 } else { 0 };
                        ((at - late).max(0), random.below(90), random.below(1_000_000) as f64 * 1e-3)
                    })
                    .collect();
                let partition = random.below(PARTITIONS.into()) as usize;
                [&mut keeping, &mut plain].into_iter().for_each(|world| world.ingest(partition, &table, &rows));
            }
            if random.below(100) < 4 {
                let settings =
                    TableSettings { hot_window_us: Some(500 + random.below(3_000) as i64), ..table.settings.clone() };
                let changed = Arc::new(Table { settings, ..table.clone() });
                [&mut keeping, &mut plain]
                    .into_iter()
                    .for_each(|world| world.control(&ControlRecord::TableConfigured(changed.clone())));
            }
            let (start, end) = [(0, 100_000), (150, 2_900), (400, 900)][random.below(3) as usize];
            let json = query(start, end, QUERIES[(seed + random.below(3)) as usize % QUERIES.len()]);
            let (expected, covers) = plain.answer(&table, &json).await;
            let (answer, covered) = keeping.answer(&table, &json).await;
            assert_eq!((&answer.rows, &answer.columns), (&expected.rows, &expected.columns), "seed {seed}: {json}");
            assert_eq!((answer.truncated, &covered), (expected.truncated, &covers));
            assert_eq!(expected.stats.segments_cached, 0);
            let (stats, all) = (answer.stats, expected.stats);
            assert_eq!(stats.segments_scanned + stats.segments_cached, all.segments_scanned, "seed {seed}: {json}");
            served += u64::from(stats.segments_cached > 0);
            evicted += u64::from(covers.iter().any(|(_, before)| before.iter().any(Option::is_some)));
        }
    }
    assert!(served > 100 && evicted > 100, "{served} {evicted}");
}

/// Goal: a result is kept when it is asked for the second time and serves the third; none serves where as many rows came
/// since, of another tenant's table of the same name, number and life, or of the table made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_and_lives_are_apart() {
    let mut world = World::new(1 << 20);
    let json = query(0, 1_000, r#""aggregates":[{"fn":"sum","metric":"value"}]"#);
    let rows = |value: f64| (0..50).map(|time| (time, 1, value)).collect::<Vec<Row>>();
    for (tenant, generation) in [(1, 1), (2, 1), (1, 2)] {
        let table = table(tenant, generation);
        if generation == 2 {
            let former = TableKey { generation: Generation(1), ..table.key };
            world.control(&ControlRecord::TableDropped(former));
        }
        world.control(&ControlRecord::TableConfigured(Arc::new(table.clone())));
        let value = (tenant * 10 + u64::from(generation)) as f64;
        (0..2).for_each(|partition| world.ingest(partition, &table, &rows(value)));
        for seen in 0..3 {
            let (answer, _) = world.answer(&table, &json).await;
            let sum = format!("{:?}", value * 100.0);
            assert!(answer.rows.contains(&sum), "{sum}: {}", answer.rows);
            assert_eq!((answer.row_count, answer.stats.rows_scanned), (1, if seen < 2 { 100 } else { 0 }));
        }
    }
}

/// Goal: a result that takes more than it spares is not kept, and neither is anything where the cache is off; what is small is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_worth_it_is_kept() {
    let table = table(1, 1);
    let rows: Vec<Row> = (0..4_000).map(|at| (at as i64 % 200, at, 1.0)).collect();
    let sum = r#""aggregates":[{"fn":"sum","metric":"value"}]"#;
    let (small, wide) =
        (query(0, 1_000, sum), query(0, 1_000, &format!(r#"{sum},"interval_us":1,"group_by":["user"]"#)));
    for (cache_bytes, json, kept) in [(64 << 20, &small, true), (64 << 20, &wide, false), (0, &small, false)] {
        let mut world = World::new(cache_bytes);
        world.ingest(0, &table, &rows);
        for _ in 0..2 {
            assert_eq!(world.stats(&table, json).await.rows_scanned, 4_000);
        }
        assert_eq!(world.stats(&table, json).await.rows_scanned == 0, kept, "{cache_bytes} {json}");
    }
}

/// Goal: a scan whose client has left before a thread came to it, or whose time is up by then, takes no snapshot: also where
/// there would be nothing to scan.
#[tokio::test]
async fn nothing_is_prepared_for_nobody() {
    let table = table(1, 1);
    let json = query(0, 1_000, QUERIES[0]);
    let plan =
        query::plan(&query::parse(json.as_bytes(), &QueryLimits::default()).unwrap(), &[Arc::new(table)]).unwrap();
    let pool = ScanPool::start(1).unwrap();
    let (_writer, reader) =
        engine::partition(PartitionId(0), Offset::ZERO, Limits::default(), Arc::new(MemoryBudget::new(u64::MAX)));
    let in_time = Instant::now() + Duration::from_secs(3_600);
    for (left, deadline, error) in [
        (false, in_time, None),
        (true, in_time, Some(ErrorCode::Cancelled)),
        (false, Instant::now(), Some(ErrorCode::DeadlineExceeded)),
    ] {
        let stop = Arc::new(Stop::at(deadline));
        if left {
            stop.leave();
        }
        let readers = vec![(reader.clone(), None)];
        let asked = Asked { plan: Arc::new(plan.clone()), readers, known: Vec::new(), each: None };
        let kept = Arc::new(KeptResults::new(0));
        let outcome = Prepare::submit(pool.queue(), asked, 1, kept, stop).await.unwrap();
        assert_eq!(outcome.err().map(|error| error.code), error);
    }
}
