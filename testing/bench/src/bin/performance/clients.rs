//! A thousand clients, each with a connection of its own, in an open loop.
//!
//! 1. Capacity first: some connections ask random questions as fast as answers come.
//! 2. Then the thousand: all questions and their due times are made before the clock starts (a Poisson process, each question
//!    at a random client). Latency counts from the due time, so that a stall is charged with all that it kept waiting, also
//!    where the client itself still waits for its last answer.
//! 3. Then the same pace and clients with equal questions, which the server may answer together.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bench::{
    Connection, Failure, Server,
    report::{Chart, Goal, Kind, Part, Series, Table, rate, short},
    workload::Random,
};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    context::Context,
    fill,
    meanwhile::latencies,
    questions::{self, SHAPES},
};

const ROWS: u64 = 20_000_000;
const CLIENTS: usize = 1_000;
/// Connections that measure the capacity.
const CLOSED: usize = 32;
/// The share of the capacity that the thousand ask for.
const SHARE: f64 = 0.6;
const SECONDS: u64 = 40;
const P95_WANTED_MS: f64 = 300.0;

/// What clients found.
struct Found {
    by_shape: Vec<Histogram<u64>>,
    all: Histogram<u64>,
    /// Mean latency of each client that asked anything, ms.
    means: Vec<f64>,
    errors: u64,
    first_error: Option<String>,
}

impl Found {
    fn new() -> Self {
        Self {
            by_shape: SHAPES.iter().map(|_| latencies()).collect(),
            all: latencies(),
            means: Vec::new(),
            errors: 0,
            first_error: None,
        }
    }

    fn note(&mut self, shape: usize, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.by_shape[shape].saturating_record(us);
        self.all.saturating_record(us);
    }

    fn fail(&mut self, error: &Failure) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    fn add(&mut self, other: Self) {
        for (all, more) in self.by_shape.iter_mut().zip(&other.by_shape) {
            all.add(more).expect("both have the same bounds");
        }
        self.all.add(&other.all).expect("both have the same bounds");
        if !other.all.is_empty() {
            self.means.push(other.all.mean() / 1e3);
        }
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn cells(&self) -> Vec<String> {
        let ms = |quantile| short(self.all.value_at_quantile(quantile) as f64 / 1e3);
        vec![self.all.len().to_string(), self.errors.to_string(), ms(0.5), ms(0.95), ms(0.99), ms(1.0)]
    }

    fn json(&self, name: &str) -> Value {
        let at = |quantile| self.all.value_at_quantile(quantile);
        json!({"run": name, "answers": self.all.len(), "errors": self.errors, "p50_us": at(0.5), "p95_us": at(0.95),
            "p99_us": at(0.99), "max_us": self.all.max()})
    }
}

/// The thousand clients.
///
/// # Errors
/// The server fails.
pub(crate) async fn run(context: &Context) -> Result<Part, Failure> {
    let server = context.start(&[]).await?;
    let rows = context.rows(ROWS);
    let begin = fill::fill(&server, rows).await?;
    server.at_rest().await?;
    let time = Duration::from_secs(context.seconds(SECONDS));
    let (capacity, closed) = capacity(&server, begin, time / 2).await?;
    let offered = capacity * SHARE;
    let mut draw = Random(2);
    let random = open(&server, offered, time, || questions::random(&mut draw, begin)).await?;
    // Ten questions, so that a hundred clients have each.
    let mut draw = Random(3);
    let few: Vec<_> = (0..10).map(|_| questions::random(&mut draw, begin)).collect();
    let shared_before = fill::metric(&server, "truenow_query_shared_total").await?;
    let equal = open(&server, offered, time, || few[draw.below(few.len() as u64) as usize].clone()).await?;
    let shared = fill::metric(&server, "truenow_query_shared_total").await? - shared_before;
    server.stop().await?;
    for (name, found) in [("closed", &closed), ("random", &random), ("equal", &equal)] {
        context.keep(&found.json(name))?;
    }
    Ok(part(rows, capacity, &closed, &random, (&equal, shared)))
}

/// How many random questions a second are answered, asked as fast as answers come.
async fn capacity(server: &Server, begin: i64, time: Duration) -> Result<(f64, Found), Failure> {
    let end = Instant::now() + time;
    let mut clients = JoinSet::new();
    for client in 0..CLOSED {
        let address = server.address(8081);
        clients.spawn(async move {
            let (mut found, mut random) = (Found::new(), Random(1_000 + client as u64));
            let mut connection = Connection::open(&address).await?;
            while Instant::now() < end {
                let (shape, question) = questions::random(&mut random, begin);
                let began = Instant::now();
                match connection.post("/v1/query", &question).await {
                    Ok(_answer) => found.note(shape, began.elapsed()),
                    Err(error) => found.fail(&error),
                }
            }
            Ok::<_, Failure>(found)
        });
    }
    let mut all = Found::new();
    while let Some(found) = clients.join_next().await {
        all.add(found??);
    }
    Ok((all.all.len() as f64 / time.as_secs_f64(), all))
}

/// A question that is due.
type Due = (Instant, usize, Value);

/// What a client has still to ask.
#[derive(Default)]
struct Inbox {
    due: Mutex<VecDeque<Due>>,
    more: Notify,
}

/// Asks so many questions a second of a thousand connections, whatever becomes of those before.
async fn open(
    server: &Server,
    per_second: f64,
    time: Duration,
    mut question: impl FnMut() -> (usize, Value),
) -> Result<Found, Failure> {
    let (mut random, mut after, mut asks) = (Random(4), 0.0, Vec::new());
    loop {
        after -= (1.0 - random.unit()).ln() / per_second;
        if after >= time.as_secs_f64() {
            break;
        }
        let (shape, question) = question();
        asks.push((Duration::from_secs_f64(after), random.below(CLIENTS as u64) as usize, shape, question));
    }
    let left = Arc::new(AtomicU64::new(asks.len() as u64));
    let inboxes: Vec<Arc<Inbox>> = (0..CLIENTS).map(|_| Arc::default()).collect();
    let mut clients = JoinSet::new();
    for inbox in &inboxes {
        let connection = Connection::open(&server.address(8081)).await?;
        clients.spawn(client(connection, server.address(8081), Arc::clone(inbox), Arc::clone(&left)));
    }
    let begin = Instant::now();
    for (after, client, shape, question) in asks {
        let due = begin + after;
        tokio::time::sleep_until(due.into()).await;
        inboxes[client].due.lock().expect("no holder of this lock panics").push_back((due, shape, question));
        inboxes[client].more.notify_one();
    }
    // Relaxed: it only has to become 0 at some time.
    while left.load(Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    inboxes.iter().for_each(|inbox| inbox.more.notify_one());
    let mut all = Found::new();
    while let Some(found) = clients.join_next().await {
        all.add(found?);
    }
    Ok(all)
}

/// Asks what is due, in order, until nothing is left of all.
async fn client(mut connection: Connection, address: String, inbox: Arc<Inbox>, left: Arc<AtomicU64>) -> Found {
    let mut found = Found::new();
    loop {
        let next = inbox.due.lock().expect("no holder of this lock panics").pop_front();
        let Some((due, shape, question)) = next else {
            // Relaxed: as above.
            if left.load(Relaxed) == 0 {
                return found;
            }
            inbox.more.notified().await;
            continue;
        };
        match ask(&mut connection, &address, &question).await {
            Ok(()) => found.note(shape, due.elapsed()),
            Err(error) => found.fail(&error),
        }
        left.fetch_sub(1, Relaxed);
    }
}

/// Asks over the connection, or over a new one where the server has closed it meanwhile, as any client of HTTP does.
async fn ask(connection: &mut Connection, address: &str, question: &Value) -> Result<(), Failure> {
    if !connection.is_open() {
        *connection = Connection::open(address).await?;
    }
    connection.post("/v1/query", question).await.map(drop)
}

fn part(rows: u64, capacity: f64, closed: &Found, random: &Found, (equal, shared): (&Found, f64)) -> Part {
    let columns = ["run", "questions/s", "answers", "errors", "p50, ms", "p95, ms", "p99, ms", "max, ms"];
    let mut table = Table::new("", &columns);
    let offered = capacity * SHARE;
    let share = format!("{:.0} %", SHARE * 100.0);
    for (name, pace, found) in [
        (format!("{CLOSED} connections, closed loop: the capacity"), capacity, closed),
        (format!("{CLIENTS} clients at {share}, random questions"), offered, random),
        (format!("{CLIENTS} clients, as many questions, ten different ones"), offered, equal),
    ] {
        table.rows.push([vec![name, rate(pace)], found.cells()].concat());
    }
    let (shapes, chart) = by_shape(random);
    let p95 = random.all.value_at_quantile(0.95) as f64 / 1e3;
    let goal = Goal {
        what: format!("{CLIENTS} clients, open loop at {share} of the capacity, random questions"),
        wanted: format!("p95 under {P95_WANTED_MS} ms, no error"),
        found: format!("{} ms, {} errors", short(p95), random.errors),
        met: p95 < P95_WANTED_MS && random.errors == 0,
    };
    let mut notes = Vec::new();
    for found in [closed, random, equal] {
        notes.extend(found.first_error.iter().map(|error| format!("an answer was refused: {error}")));
    }
    let mut means = random.means.clone();
    means.sort_unstable_by(f64::total_cmp);
    let of = |share: f64| means.get((means.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    Part {
        title: "A thousand clients".to_owned(),
        method: format!(
            "{rows} rows of ten minutes are resident. Each client has a connection of its own over HTTP; questions are drawn at \
             random from nine shapes, with random values, metrics and ranges of a second to all, and no cache. Due times are those \
             of a Poisson process, and latency counts from them. Of the thousand, the mean latency was {} ms for the client in the \
             middle and {} ms for the one at the 99th of a hundred. Of the equal questions, {shared:.0} were answered with the \
             computation of another.",
            short(of(0.5)),
            short(of(0.99)),
        ),
        goals: vec![goal],
        tables: vec![table, shapes],
        charts: vec![chart],
        notes,
        ..Part::default()
    }
}

/// Random questions by their shape.
fn by_shape(random: &Found) -> (Table, Chart) {
    let mut shapes = Table::new(
        "Random questions of the thousand by their shape:",
        &["shape", "answers", "p50, ms", "p95, ms", "p99, ms", "max, ms"],
    );
    let mut merged: Vec<(&str, Histogram<u64>)> = Vec::new();
    for (name, histogram) in SHAPES.iter().zip(&random.by_shape) {
        match merged.iter_mut().find(|(known, _)| known == name) {
            Some((_, all)) => all.add(histogram).expect("both have the same bounds"),
            None => merged.push((name, histogram.clone())),
        }
    }
    let mut bars = [Vec::new(), Vec::new()];
    for (at, (name, histogram)) in merged.iter().enumerate() {
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let figures = [0.5, 0.95, 0.99, 1.0].map(ms);
        let cells = vec![(*name).to_owned(), histogram.len().to_string()];
        shapes.rows.push([cells, figures.map(short).to_vec()].concat());
        bars[0].push((at as f64, figures[0]));
        bars[1].push((at as f64, figures[1]));
    }
    let [p50, p95] = bars;
    let chart = Chart {
        name: "clients".to_owned(),
        title: format!("{CLIENTS} clients: latency by shape of question"),
        kind: Kind::BarsLogY,
        x: String::new(),
        y: "ms from the due time".to_owned(),
        labels: (1..=merged.len()).map(|nth| nth.to_string()).collect(),
        series: vec![Series { name: "p50".to_owned(), points: p50 }, Series { name: "p95".to_owned(), points: p95 }],
    };
    (shapes, chart)
}
