//! Everything that makes answers cheaper, all of it crossed: rollups, kept results of tasks, kept whole results and threads,
//! against each other and against the plainest possible answers.

mod support;

use std::time::Duration;

use codec::{BodyBuilder, EventRef};
use engine::Limits;
use futures_util::future::join_all;
use questions::{
    Answered, Random, Row, Tables, Traffic, check, question_of_rollup, random_query, random_rollup, random_row,
};
use serde_json::{Value, json};
use support::{PARTITIONS, Setup, World, table_of};
use types::{ColumnDef, ColumnKind, Interval, Rollup, Table, TableSettings, Timestamp};

const SEEDS: u64 = 24;
const STEPS: usize = 110;
const SPAN_US: i64 = 3_000;
const TRAFFIC: Traffic = Traffic { rows: 500, span_us: SPAN_US, in_order: true, users: 60 };

/// Sizes so small that slots, segments and dictionaries, and with them tasks, change every few rows.
fn tiny() -> Limits {
    Limits {
        segment_rows_first: 2,
        segment_rows_max: 64,
        open_slots_max: 3,
        idle_rows: 60,
        slot_width_us: 200,
        slots_opened_max: 6,
        slot_rows_min: 4,
        straggler_rows_max: 5,
        dictionary_entries_max: 40,
        ..Limits::default()
    }
}

/// A server's world, and whether its table has the rollups that are declared.
struct Server {
    world: World,
    rollups: bool,
}

/// Servers of the same records: without and with rollups, and of each one that keeps results and one that keeps none.
struct Servers {
    by_rows: Server,
    by_rows_kept: Server,
    by_rollups: Server,
    by_rollups_kept: Server,
}

impl Servers {
    async fn start(random: &mut Random) -> Self {
        // Where whole results are kept, those of tasks have less to do.
        let (tasks, results) = random.pick(&[(true, true), (true, true), (true, false), (false, true)]);
        let mut start = async |rollups: bool, kept: bool| {
            let setup = Setup {
                cache_ttl: if kept && results { Duration::from_secs(3_600) } else { Duration::ZERO },
                // Plenty, or so little that some are pushed out.
                task_cache_bytes: if kept && tasks { random.pick(&[96 << 10, 4 << 20]) } else { 0 },
                scan_threads: 1 + random.below(8) as u32,
                limits: tiny(),
                table: table(),
                ..Setup::of_events(1 << 30)
            };
            Server { world: World::start_with(setup).await, rollups }
        };
        Self {
            by_rows: start(false, false).await,
            by_rows_kept: start(false, true).await,
            by_rollups: start(true, false).await,
            by_rollups_kept: start(true, true).await,
        }
    }

    fn each(&mut self) -> [&mut Server; 4] {
        [&mut self.by_rows, &mut self.by_rows_kept, &mut self.by_rollups, &mut self.by_rollups_kept]
    }

    async fn ingest(&mut self, partition: u32, events: &[(u64, Row)]) {
        for server in self.each() {
            server.world.send_block(partition, block(events)).await;
        }
    }

    async fn configure(&mut self, settings: &TableSettings) {
        for server in self.each() {
            let rollups = if server.rollups { settings.rollups.clone() } else { Vec::new() };
            server.world.configure(TableSettings { rollups, ..settings.clone() }).await;
        }
    }
}

fn table() -> Table {
    let column = |kind| move |name: &str| ColumnDef { name: name.into(), kind };
    let dimensions = questions::dimensions(false).into_iter().map(column(ColumnKind::Dimension));
    table_of(1, dimensions.chain(questions::METRICS.map(column(ColumnKind::Metric))).collect())
}

fn block(events: &[(u64, Row)]) -> BodyBuilder {
    let mut builder = BodyBuilder::default();
    for ((number, row), index) in events.iter().zip(0..) {
        let id = format!("event {number}");
        let dimensions: Vec<_> = row.dimensions.iter().map(|(&name, value)| (name, value.as_str())).collect();
        let metrics: Vec<_> = row.metrics.iter().map(|(&name, &value)| (name, value)).collect();
        let event = EventRef {
            namespace: "shop",
            table: "events",
            event_time: Some(row.time),
            event_id: Some(id.as_bytes()),
            dimensions: &dimensions,
            metrics: &metrics,
        };
        builder.push(&event, Timestamp(0), index).unwrap();
    }
    builder
}

/// An answer, or why there is none.
type Reply = (u16, Value);

/// What two servers must agree on: all but when they were asked and what it took.
fn told((status, reply): &Reply) -> Reply {
    let mut reply = reply.clone();
    if let Some(receipt) = reply["receipt"].as_object_mut() {
        assert!(receipt.remove("as_of_us").is_some() && receipt.remove("freshness_us").is_some());
    }
    if let Some(answer) = reply.as_object_mut() {
        answer.remove("stats");
    }
    (*status, reply)
}

/// A question over all times, of which a rollup may know more than rows do.
fn whole() -> Value {
    let aggregates = json!([{"fn": "count"}, {"fn": "sum", "metric": "value"}, {"fn": "min", "metric": "latency"}]);
    json!({"namespace": "shop", "table": "events", "start_time": -5_000, "end_time": 2 * SPAN_US, "group_by": ["region"],
        "aggregates": aggregates, "limit": 1_000_000})
}

/// How often what was met.
#[derive(Debug, Default)]
struct Met {
    duplicates: usize,
    stragglers: usize,
    /// Answers of rollups alone, rows having left, that stragglers changed.
    revised: usize,
    incomplete: usize,
    by_rollups: usize,
    /// Answers of rollups where rows have left.
    without_rows: usize,
    /// Kept whole results, of rows and of rollups.
    whole: [usize; 2],
    /// Answers with kept results of tasks.
    of_tasks: usize,
}

/// One history of a table.
struct History {
    seed: u64,
    random: Random,
    servers: Servers,
    /// All events that ever came; each counts once.
    rows: Vec<Row>,
    /// What was sent, to which partition.
    sent: Vec<(u32, Vec<(u64, Row)>)>,
    settings: TableSettings,
    /// A rollup that is declared from the beginning to the end, and keeps all.
    lasting: Option<Rollup>,
    /// Which are asked again and again, as by a dashboard.
    questions: Vec<Value>,
    met: Met,
}

impl History {
    async fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let servers = Servers::start(&mut random).await;
        let hot_window_us = random.pick(&[None, Some(400), Some(700), Some(1_000)]);
        let (settings, met) = (TableSettings { hot_window_us, ..TableSettings::default() }, Met::default());
        let lasting = random.chance(70).then(|| Rollup {
            interval: Interval::from_micros(100).unwrap(),
            group_by: vec!["region".to_owned()],
            distinct: Vec::new(),
            percentiles: Vec::new(),
            top: Vec::new(),
            keep_us: Some(1 << 50),
        });
        let (rows, sent, questions) = (Vec::new(), Vec::new(), Vec::new());
        let mut history = Self { seed, random, servers, rows, sent, settings, lasting, questions, met };
        history.ingest().await;
        history.declare().await;
        history
    }

    async fn step(&mut self) {
        match self.random.below(100) {
            0..24 => self.ingest().await,
            24..30 => self.straggle().await,
            30..35 => self.send_again().await,
            35..37 => self.declare().await,
            37..40 => {
                self.settings.hot_window_us = Some(200 + self.random.below(1_000) as i64);
                self.servers.configure(&self.settings).await;
            }
            _ => {
                let question = self.random.pick(&self.questions);
                drop(self.ask(&question).await);
            }
        }
    }

    /// Events come, nearly in order.
    async fn ingest(&mut self) {
        let count = 1 + self.random.pick(&[2, 40]).min(self.random.below(60));
        let events = (0..count).map(|at| self.event(self.rows.len() + at, false)).collect();
        self.send(events).await;
    }

    /// A few events come late, perhaps when the rows of their time have left; what was known of them is asked before and after.
    async fn straggle(&mut self) {
        let question = if self.random.chance(50) { whole() } else { self.random.pick(&self.questions) };
        let before = self.ask(&question).await;
        let count = 1 + self.random.below(3);
        let events: Vec<_> = (0..count).map(|at| self.event(self.rows.len() + at, true)).collect();
        self.met.stragglers += events.len();
        self.send(events).await;
        let after = self.ask(&question).await;
        self.met.revised += usize::from(before.zip(after).is_some_and(|(before, after)| before != after));
    }

    /// The event of this number, new or late.
    fn event(&mut self, number: usize, late: bool) -> (u64, Row) {
        let mut row = Row { table: 0, ..random_row(&mut self.random, &TRAFFIC, number) };
        row.dimensions.remove("late");
        if late {
            let latest = row.time as usize / self.random.pick(&[1, 2]);
            row.time = self.random.below(latest + 1) as i64;
        }
        (number as u64, row)
    }

    async fn send(&mut self, events: Vec<(u64, Row)>) {
        self.rows.extend(events.iter().map(|(_, row)| row.clone()));
        let partition = self.random.below(PARTITIONS as usize) as u32;
        self.servers.ingest(partition, &events).await;
        self.sent.push((partition, events));
    }

    /// Some of what came before comes again, among new events.
    async fn send_again(&mut self) {
        let (partition, mut events) = self.random.pick(&self.sent);
        self.random.shuffle(&mut events);
        events.truncate(1 + self.random.below(events.len()));
        self.met.duplicates += events.len();
        self.servers.ingest(partition, &events).await;
    }

    /// Rollups are declared, dropped or changed; and questions are thought of that they may answer.
    async fn declare(&mut self) {
        let keep_us = self.random.pick(&[None, Some(1 << 50), Some(1 << 50)]);
        let count = self.random.pick(&[0, 1, 2, 2, 3]);
        let mut rollups: Vec<Rollup> = (0..count).map(|_| random_rollup(&mut self.random, keep_us)).collect();
        if self.random.chance(75) {
            rollups.extend(
                self.settings.rollups.iter().filter(|old| Some(*old) != self.lasting.as_ref()).take(2).cloned(),
            );
        }
        for Rollup { group_by, distinct, top, .. } in &mut rollups {
            // The table has no such column.
            [group_by, distinct, top].into_iter().for_each(|names| names.retain(|name| name != "late"));
        }
        rollups.extend(self.lasting.clone());
        self.settings.rollups = rollups;
        self.servers.configure(&self.settings).await;
        let (random, rows, rollups) = (&mut self.random, &self.rows, &self.settings.rollups);
        let question = |_| match rollups.is_empty() || random.chance(20) {
            true => random_query(random, rows, SPAN_US, Tables::First),
            false => question_of_rollup(random, rows, SPAN_US, Tables::First, rollups),
        };
        self.questions = (0..5).map(question).collect();
    }

    /// Asks all servers. Gives the rows that rollups answer where rows have left.
    async fn ask(&mut self, question: &Value) -> Option<Value> {
        let body = question.to_string();
        let Servers { by_rows, by_rows_kept, by_rollups, by_rollups_kept } = &self.servers;
        let mut complete: Vec<Option<Value>> = Vec::new();
        for (at, (plain, kept)) in [(by_rows, by_rows_kept), (by_rollups, by_rollups_kept)].into_iter().enumerate() {
            let expected = plain.world.post("/v1/query", body.clone()).await;
            let clients = self.random.pick(&[1, 1, 1, 4]);
            let replies = (0..clients).map(|_| kept.world.post("/v1/query", body.clone()));
            for reply in join_all(replies).await {
                assert_eq!(told(&reply), told(&expected), "seed {}: {body}", self.seed);
                self.met.whole[at] += usize::from(reply.1["stats"]["cached"] == true);
                self.met.of_tasks += usize::from(reply.1["stats"]["segments_cached"].as_u64() > Some(0));
            }
            let (status, mut answer) = expected;
            if status == 200 {
                self.hold(question, &answer);
                self.met.by_rollups += usize::from(answer["stats"]["rollup_buckets"].as_u64() > Some(0));
            } else {
                assert_eq!(
                    (status, &answer["error"]["code"]),
                    (400, &json!("OUT_OF_RANGE")),
                    "seed {}: {answer} for {body}",
                    self.seed
                );
                self.met.incomplete += 1;
            }
            complete.push((status == 200).then(|| answer["rows"].take()));
        }
        let (by_rollups, by_rows) = (complete.pop()?, complete.pop()?);
        assert!(by_rows.is_none() || by_rollups.is_some(), "seed {}: a rollup takes no answer away: {body}", self.seed);
        let alone = by_rollups.filter(|_| by_rows.is_none());
        self.met.without_rows += usize::from(alone.is_some());
        alone
    }

    /// Holds a complete answer against all events that ever came.
    fn hold(&self, question: &Value, answer: &Value) {
        let list = |name: &str| answer[name].as_array().unwrap().as_slice();
        let truncated = answer["receipt"]["truncated"] == true;
        let answered = Answered { rows: list("rows"), columns: list("columns"), truncated };
        check(&self.rows, question, answered).unwrap_or_else(|wrong| panic!("seed {}: {wrong}", self.seed));
    }
}

/// Goal: whatever rollups are declared, at first or later, and dropped, whatever results are kept, of tasks and whole, and on
/// however many threads: while events come, late ones and duplicates too, and old ones leave, each complete answer is the
/// model's over all events that ever came. A server that keeps results says what one says that keeps none, to the byte. A
/// rollup only adds answers where rows have left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_saves_work_changes_an_answer() {
    let mut met = Vec::new();
    for seed in 0..SEEDS {
        let mut history = History::new(seed).await;
        for _ in 0..STEPS {
            history.step().await;
        }
        met.push(history.met);
    }
    let sum = |of: fn(&Met) -> usize| met.iter().map(of).sum::<usize>();
    assert!(sum(|met| met.duplicates) > 100 && sum(|met| met.stragglers) > 100, "{met:#?}");
    assert!(sum(|met| met.incomplete) > 20 && sum(|met| met.by_rollups) > 100, "{met:#?}");
    assert!(sum(|met| met.without_rows) > 40 && sum(|met| met.revised) > 3 && sum(|met| met.of_tasks) > 50, "{met:#?}");
    assert!(sum(|met| met.whole[0]) > 50 && sum(|met| met.whole[1]) > 50, "{met:#?}");
}
