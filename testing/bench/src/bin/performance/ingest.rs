//! Throughput of columns by the size of batches and by the number of partitions.

use bench::{
    Failure,
    report::{Chart, Goal, Kind, Part, Series, Table, rate, short},
};

use crate::context::{Context, Driven};

/// Events per batch, with how many batches are under way on each of two connections: small ones need many.
const BATCHES: [(u32, u32); 5] = [(1, 128), (10, 64), (100, 16), (1_000, 24), (10_000, 6)];
const PARTITIONS: [u32; 5] = [1, 2, 4, 8, 16];
/// A point of a graph takes so long, s.
const SECONDS: u64 = 10;
/// What columns are to reach, events per second.
const COLUMNS_WANTED: f64 = 5e6;

const HOW: &str = "Columns over gRPC, events with 16-byte ids, five dimensions and three metrics, acked as synced to disk and \
    deduplicated; two connections, closed loop, batches encoded before the clock starts and stamped with times and ids as they \
    go. A server of its own for each point.";

/// A table of points and its graph.
struct Points {
    table: Table,
    points: Vec<(f64, f64)>,
}

impl Points {
    fn new(first: &str) -> Self {
        let columns = [first, "events/s", "server, ns/event", "generator, ns/event", "ack p50, ms", "ack p99, ms"];
        Self { table: Table::new("", &columns), points: Vec::new() }
    }

    fn add(&mut self, at: u32, driven: &Driven) {
        let cells = [
            rate(driven.rate()),
            short(driven.number("server_ns_per_event")),
            short(driven.client_ns()),
            short(driven.ms("ack_us", "p50")),
            short(driven.ms("ack_us", "p99")),
        ];
        self.table.rows.push([vec![at.to_string()], cells.to_vec()].concat());
        self.points.push((f64::from(at), driven.rate() / 1e6));
    }

    fn part(self, name: &str, title: &str, x: &str) -> Part {
        let chart = Chart {
            name: name.to_owned(),
            title: title.to_owned(),
            kind: Kind::LinesLogX,
            x: x.to_owned(),
            y: "million events/s".to_owned(),
            labels: Vec::new(),
            series: vec![Series { name: "columns over gRPC, synced, deduplicated".to_owned(), points: self.points }],
        };
        Part {
            title: title.to_owned(),
            method: HOW.to_owned(),
            tables: vec![self.table],
            charts: vec![chart],
            ..Part::default()
        }
    }
}

/// Throughput by events per batch.
///
/// # Errors
/// A server or the generator fails.
pub(crate) async fn batches(context: &Context) -> Result<Part, Failure> {
    let mut points = Points::new("events per batch");
    let mut best = 0.0_f64;
    for (batch, window) in BATCHES {
        let options = format!(
            "--mode columns --ids --connections 2 --batch {batch} --window {window} --seconds {}",
            context.seconds(SECONDS)
        );
        let driven = context.drive_anew(&[], &options).await?;
        best = best.max(driven.rate());
        points.add(batch, &driven);
    }
    let mut part = points.part("batches", "Ingest throughput by size of batches", "events per batch");
    part.goals.push(Goal {
        what: "columns over gRPC, synced, deduplicated, with the generator on the same cores".to_owned(),
        wanted: format!("{} events/s", rate(COLUMNS_WANTED)),
        found: format!("{} events/s", rate(best)),
        met: best >= COLUMNS_WANTED,
    });
    Ok(part)
}

/// Throughput by partitions of the log.
///
/// # Errors
/// As [`batches`].
pub(crate) async fn partitions(context: &Context) -> Result<Part, Failure> {
    let mut points = Points::new("partitions");
    for partitions in PARTITIONS {
        let options = format!(
            "--mode columns --ids --connections 2 --batch 10000 --window 6 --seconds {}",
            context.seconds(SECONDS)
        );
        let driven = context.drive_anew(&[("TRUENOW_PARTITIONS", &partitions.to_string())], &options).await?;
        points.add(partitions, &driven);
    }
    Ok(points.part("partitions", "Ingest throughput by partitions", "partitions of the log"))
}
