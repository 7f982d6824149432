//! Random tables in real partitions, and the plainest possible answers about them.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod asking;
pub(crate) mod model;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use codec::{BodyBuilder, BodyView, EventRef};
use engine::{Limits, MemoryBudget, Reader, Writer, partition};
use query::{Answer, Cancel, Finishing, Plan, QueryLimits, Source, Task, TaskPartial};
use types::{
    ApiError, ColumnDef, ColumnKind, Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey,
    TableName, TableSettings, TenantId, Timestamp,
};

pub(crate) const PARTITIONS: u32 = 3;

/// An event: its table (0 or 1), time and columns.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) table: usize,
    pub(crate) time: i64,
    pub(crate) dimensions: BTreeMap<&'static str, String>,
    pub(crate) metrics: BTreeMap<&'static str, f64>,
}

/// Random numbers that a seed names (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// What a world is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) limits: Limits,
    /// Event times are 0 to this, nearly in order or not.
    pub(crate) span_us: i64,
    pub(crate) in_order: bool,
    /// Values of the largest dimension.
    pub(crate) users: usize,
}

pub(crate) struct World {
    pub(crate) rows: Vec<Row>,
    pub(crate) tables: Vec<Arc<Table>>,
    pub(crate) readers: Vec<Reader>,
    /// With which queries are read.
    pub(crate) limits: QueryLimits,
    /// The log's time of the records to come.
    pub(crate) append_time: Timestamp,
    writers: Vec<Writer>,
}

/// Sizes so small that slots, segments and dictionaries change every few rows.
pub(crate) fn tiny() -> Limits {
    Limits {
        segment_rows_first: 2,
        segment_rows_max: 64,
        open_slots_max: 3,
        slot_width_us: 200,
        slots_opened_max: 6,
        slot_rows_min: 4,
        straggler_rows_max: 5,
        dictionary_entries_max: 40,
        hash_seed: 3,
        ..Limits::default()
    }
}

pub(crate) fn random_row(random: &mut Random, shape: &Shape, at: usize) -> Row {
    let time = if shape.in_order {
        let jitter = random.below(20) as i64;
        (at as i64 * shape.span_us / shape.rows as i64 + jitter).min(shape.span_us)
    } else {
        random.below(shape.span_us as usize + 1) as i64
    };
    let mut dimensions = BTreeMap::new();
    if random.chance(90) {
        dimensions.insert("region", format!("r{}", random.below(8)));
    }
    if random.chance(80) {
        dimensions.insert("user", format!("u{}", random.below(shape.users)));
    }
    if random.chance(30) {
        dimensions.insert("flag", random.pick(&["true", "false", "42", "", "é\"\\\n"]).to_owned());
    }
    let table = usize::from(random.chance(30));
    let mut metrics = BTreeMap::new();
    if random.chance(85) {
        let scale = random.pick(&[1e-3, 1.0, 1e3, 1e9]);
        metrics.insert("value", (random.below(2_000_001) as f64 - 1e6) * scale);
    }
    if random.chance(50) {
        metrics.insert("latency", random.below(50) as f64);
    }
    // A column that only one of the tables has, and only since some time.
    if table == 1 && at > shape.rows / 2 && random.chance(50) {
        dimensions.insert("late", format!("l{}", random.below(3)));
    }
    Row { table, time, dimensions, metrics }
}

impl World {
    pub(crate) fn new(seed: u64, shape: Shape) -> Self {
        let mut random = Random(seed);
        let tables = (0..2).map(|at| Arc::new(table(at))).collect();
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (writers, readers) = (0..PARTITIONS)
            .map(|id| partition(PartitionId(id), Offset::ZERO, shape.limits, Arc::clone(&budget)))
            .unzip();
        let (limits, append_time) = (QueryLimits::default(), Timestamp(0));
        let mut world = Self { rows: Vec::new(), tables, readers, limits, append_time, writers };
        let rows: Vec<Row> = (0..shape.rows).map(|at| random_row(&mut random, &shape, at)).collect();
        world.ingest(&mut random, &rows);
        world.rows = rows;
        world
    }

    /// Takes rows in, in blocks of random size, into random partitions.
    pub(crate) fn ingest(&mut self, random: &mut Random, rows: &[Row]) {
        let mut rest = rows;
        while !rest.is_empty() {
            let (block, more) = rest.split_at(rest.len().min(1 + random.below(200)));
            for table in 0..2 {
                let partition = random.below(PARTITIONS as usize);
                self.apply(partition, table, block);
            }
            rest = more;
        }
    }

    /// The tables keep only so much event time from now on, and what is older leaves.
    pub(crate) fn keep_only(&mut self, hot_window_us: Option<i64>) {
        self.configure(&TableSettings { hot_window_us, ..TableSettings::default() });
        self.housekeep();
    }

    /// Gives all tables these settings from now on.
    pub(crate) fn configure(&mut self, settings: &TableSettings) {
        for writer in &mut self.writers {
            for table in &self.tables {
                let table = Table { settings: settings.clone(), ..Table::clone(table) };
                writer.configure(writer.next_offset(), self.append_time, &table).expect("in order");
            }
        }
    }

    /// Lets what is over leave, and rollups take more rows.
    pub(crate) fn housekeep(&mut self) {
        self.writers.iter_mut().for_each(Writer::housekeep);
    }

    /// The time before which rows that an answer needs have left.
    pub(crate) fn lacks_before(&self, plan: &Plan) -> Option<Timestamp> {
        self.tasks(plan).iter().filter_map(|task| task.lacks_before(plan)).max()
    }

    /// Applies those of `rows` that are of `table`.
    fn apply(&mut self, partition: usize, table: usize, rows: &[Row]) {
        let mut builder = BodyBuilder::default();
        for (index, row) in rows.iter().filter(|row| row.table == table).enumerate() {
            let dimensions: Vec<_> = row.dimensions.iter().map(|(&name, value)| (name, value.as_str())).collect();
            let metrics: Vec<_> = row.metrics.iter().map(|(&name, &value)| (name, value)).collect();
            let event = EventRef {
                namespace: "shop",
                table: "events",
                event_time: Some(row.time),
                event_id: None,
                dimensions: &dimensions,
                metrics: &metrics,
            };
            builder.push(&event, Timestamp(0), index as u32).expect("a small block");
        }
        let Some(body) = builder.finish(false) else { return };
        let key = self.tables[table].key;
        let header = body.header(key, SchemaVersion(1), PartitionId(partition as u32), None);
        let view = BodyView::parse(&body.bytes).expect("a good body");
        let writer = &mut self.writers[partition];
        writer.apply(writer.next_offset(), self.append_time, &header, &view).expect("a good block");
    }

    pub(crate) fn plan(&self, json: &str) -> Result<Plan, ApiError> {
        let query = query::parse(json.as_bytes(), &self.limits)?;
        let tables: Vec<_> = query
            .tables
            .iter()
            .map(|name| Arc::clone(self.tables.iter().find(|table| table.name == *name).expect("a known table")))
            .collect();
        query::plan(&query, &tables)
    }

    pub(crate) fn tasks(&self, plan: &Plan) -> Vec<Task> {
        let mut sources = Vec::new();
        for reader in &self.readers {
            for (table, planned) in plan.tables().iter().enumerate() {
                if let Some(snapshot) = reader.snapshot(planned.key) {
                    sources.push(Source { table, partition: reader.partition(), snapshot });
                }
            }
        }
        query::tasks(plan, sources)
    }

    /// The whole way of a query, on this thread.
    pub(crate) fn answer(&self, json: &str) -> Result<Answer, ApiError> {
        let plan = self.plan(json)?;
        let left = AtomicBool::new(false);
        let cancel = Cancel::new(&left, &|| false);
        conclude(&plan, |plan| self.tasks(plan).iter().map(|task| query::run(plan, task, &cancel)).collect())
    }
}

/// The answer of a plan, where `scan` runs the tasks of a plan and has their results in any order.
pub(crate) fn conclude(
    plan: &Plan,
    scan: impl Fn(&Plan) -> Result<Vec<TaskPartial>, ApiError>,
) -> Result<Answer, ApiError> {
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let merged = |plan: &Plan| {
        let mut by_partition: BTreeMap<PartitionId, Vec<TaskPartial>> = BTreeMap::new();
        for result in scan(plan)? {
            by_partition.entry(result.partition()).or_default().push(result);
        }
        let partials = by_partition.into_iter().map(|(partition, tasks)| query::merge(plan, partition, tasks, &cancel));
        partials.collect::<Result<Vec<_>, _>>()
    };
    let mut finishing = Finishing::new(plan, merged(plan)?, &cancel)?;
    while let Some(round) = finishing.next_round(plan, &cancel)? {
        assert!(finishing.absorb(&round, merged(&round)?, &cancel)?, "all rows are there still");
    }
    finishing.answer(plan, &cancel)
}

fn table(at: u64) -> Table {
    let dimension = |name: &str| ColumnDef { name: name.into(), kind: ColumnKind::Dimension };
    let metric = |name: &str| ColumnDef { name: name.into(), kind: ColumnKind::Metric };
    let mut columns =
        vec![dimension("region"), dimension("user"), dimension("flag"), metric("value"), metric("latency")];
    columns.extend((at == 1).then(|| dimension("late")));
    // Known to the control plane, though no event has had it.
    columns.push(metric("unseen"));
    Table {
        key: TableKey { tenant: TenantId(1), table: TableId(at + 1), generation: Generation(1) },
        name: TableName::new("shop", if at == 0 { "events" } else { "more" }),
        partitions: (0..PARTITIONS).map(PartitionId).collect(),
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::from_parts(SchemaVersion(1), columns),
        settings: TableSettings::default(),
    }
}
