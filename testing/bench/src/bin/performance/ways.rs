//! The ways in, side by side.

use bench::{
    Failure,
    report::{Chart, Goal, Kind, Part, Series, Table, rate, short},
};

use crate::{
    context::{Context, Driven},
    unary,
};

const SECONDS: u64 = 10;

/// A way in: its name, the generator's options, and what it is to reach in events per second.
struct Way {
    name: &'static str,
    options: &'static str,
    wanted: f64,
}

const WAYS: [Way; 4] = [
    Way {
        name: "columns, 10,000",
        options: "--mode columns --ids --connections 2 --batch 10000 --window 6",
        wanted: 5e6,
    },
    Way { name: "rows, 1,000", options: "--mode rows --ids --connections 2 --batch 1000 --window 8", wanted: 1.5e6 },
    Way { name: "NDJSON, 1,000", options: "--mode ndjson --ids --connections 2 --batch 1000 --window 4", wanted: 1e6 },
    Way {
        name: "rows, unary, 100",
        options: "--mode unary --ids --connections 2 --batch 100 --window 32",
        wanted: 0.0,
    },
];

/// All ways in, and calls of one event beside calls of nothing.
///
/// # Errors
/// A server or the generator fails.
pub(crate) async fn run(context: &Context) -> Result<Part, Failure> {
    let columns =
        ["way in", "events/s", "MB/s", "server, ns/event", "generator, ns/event", "ack p50, ms", "ack p99, ms"];
    let mut table = Table::new("Batches, each acked as synced, events with 16-byte ids:", &columns);
    let (mut goals, mut bars) = (Vec::new(), Vec::new());
    for (place, way) in WAYS.iter().enumerate() {
        let options = format!("{} --seconds {}", way.options, context.seconds(SECONDS));
        let driven = context.drive_anew(&[], &options).await?;
        table.rows.push(row(way.name, &driven));
        bars.push((place as f64, driven.rate() / 1e6));
        if way.wanted > 0.0 {
            goals.push(Goal {
                what: format!("{} events a batch, synced, generator included", way.name),
                wanted: format!("{} events/s", rate(way.wanted)),
                found: format!("{} events/s", rate(driven.rate())),
                met: driven.rate() >= way.wanted,
            });
        }
    }
    let calls = unary::run(context).await?;
    goals.push(calls.goal());
    let chart = Chart {
        name: "ways".to_owned(),
        title: "Ingest throughput by way in".to_owned(),
        kind: Kind::BarsLogY,
        x: "form and events per batch".to_owned(),
        y: "million events/s".to_owned(),
        labels: WAYS.map(|way| way.name.to_owned()).to_vec(),
        series: vec![Series { name: "synced, generator on the same cores".to_owned(), points: bars }],
    };
    Ok(Part {
        title: "Ways in".to_owned(),
        method: "Closed loop on two connections; bodies are encoded before the clock starts, times and ids are stamped in as \
                 they go. Rows are a gRPC stream of protocol buffers, NDJSON is HTTP/1.1. A server of its own for each."
            .to_owned(),
        goals,
        tables: vec![table, calls.table()],
        charts: vec![chart],
        ..Part::default()
    })
}

fn row(name: &str, driven: &Driven) -> Vec<String> {
    vec![
        name.to_owned(),
        rate(driven.rate()),
        short(driven.number("bytes_per_s") / 1e6),
        short(driven.number("server_ns_per_event")),
        short(driven.client_ns()),
        short(driven.ms("ack_us", "p50")),
        short(driven.ms("ack_us", "p99")),
    ]
}
