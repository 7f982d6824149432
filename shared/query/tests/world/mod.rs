//! Random tables in real partitions, and the plainest possible answers about them.
#![allow(dead_code, reason = "each test uses some of it")]

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use codec::{BodyBuilder, BodyView, EventRef};
use engine::{Limits, MemoryBudget, Reader, Writer, partition};
use proptest::{prop_assert_eq, test_runner::TestCaseError};
use query::{Answer, Cancel, Finishing, Partial, Plan, QueryLimits, Source, Task, TaskPartial};
use questions::{Answered, Traffic};
pub(crate) use questions::{Random, Row};
use serde_json::Value;
use types::{
    ApiError, ColumnDef, ColumnKind, Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey,
    TableName, TableSettings, TenantId, Timestamp,
};

pub(crate) const PARTITIONS: u32 = 3;

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
        idle_rows: 20,
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
    let &Shape { rows, span_us, in_order, users, .. } = shape;
    questions::random_row(random, &Traffic { rows, span_us, in_order, users }, at)
}

/// Whether what the engine answers is the model's answer; of a limit of one row also, that it keeps the first.
pub(crate) fn check(world: &World, query: &Value) -> Result<(), TestCaseError> {
    let answer =
        world.answer(&query.to_string()).map_err(|error| TestCaseError::fail(format!("{error} for {query}")))?;
    let rows: Vec<Value> = serde_json::from_str(&answer.rows).expect("rows are JSON");
    let columns: Vec<Value> = serde_json::from_str(&answer.columns).expect("columns are JSON");
    prop_assert_eq!(rows.len(), answer.row_count);
    let answered = Answered { rows: &rows, columns: &columns, truncated: answer.truncated };
    questions::check(&world.rows, query, answered).map_err(TestCaseError::fail)?;
    if query["limit"] == 1 && answer.truncated {
        let mut all = query.clone();
        all.as_object_mut().unwrap().remove("limit");
        let all: Vec<Value> = serde_json::from_str(&world.answer(&all.to_string()).unwrap().rows).unwrap();
        prop_assert_eq!(&all[0], &rows[0]);
    }
    Ok(())
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

    /// How many segments of the first table are sealed, and how many are open.
    pub(crate) fn sealed_segments(&self) -> (usize, usize) {
        let snapshots = self.readers.iter().filter_map(|reader| reader.snapshot(self.tables[0].key));
        let sealed: Vec<bool> =
            snapshots.flat_map(|s| s.segments().iter().map(engine::SegmentView::sealed).collect::<Vec<_>>()).collect();
        let count = sealed.iter().filter(|sealed| **sealed).count();
        (count, sealed.len() - count)
    }

    /// Applies those of `rows` that are of `table`.
    pub(crate) fn apply(&mut self, partition: usize, table: usize, rows: &[Row]) {
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
    conclude_by(plan, scan, |_, partial| partial)
}

/// The same where the result of each partition is what `travel` makes of it, which is told the plan.
pub(crate) fn conclude_by(
    plan: &Plan,
    scan: impl Fn(&Plan) -> Result<Vec<TaskPartial>, ApiError>,
    travel: impl Fn(&Plan, Partial) -> Partial,
) -> Result<Answer, ApiError> {
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let merged = |plan: &Plan| {
        let mut by_partition: BTreeMap<PartitionId, Vec<TaskPartial>> = BTreeMap::new();
        for result in scan(plan)? {
            by_partition.entry(result.partition()).or_default().push(result);
        }
        let partials = by_partition.into_iter().map(|(partition, tasks)| {
            query::merge(plan, partition, tasks, &cancel).map(|partial| travel(plan, partial))
        });
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
