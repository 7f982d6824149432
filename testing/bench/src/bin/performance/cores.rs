//! From one core to all.

use std::time::{Duration, Instant};

use bench::{
    Connection, Failure, Server,
    report::{Chart, Kind, Part, Series, Table, rate, short},
    workload::Random,
};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{context::Context, fill, machine, questions};

const ROWS: u64 = 10_000_000;
const SECONDS: u64 = 10;
/// Connections per core that ask.
const ASKING: usize = 4;

/// Ingest and queries by cores.
///
/// # Errors
/// A server or the generator fails.
pub(crate) async fn run(context: &Context) -> Result<Part, Failure> {
    let all = machine::cores();
    let mut counts: Vec<usize> = (0..).map(|power| 1 << power).take_while(|&cores| cores < all).collect();
    counts.push(all);
    let columns = ["cores", "columns, events/s", "per core, of one", "random questions/s", "per core, of one"];
    let mut table = Table::new("", &columns);
    let mut lines = [Vec::new(), Vec::new()];
    for &cores in &counts {
        let mut limited = context.clone();
        limited.server.limit_cores(cores);
        let options = format!(
            "--mode columns --ids --connections {} --threads {} --batch 1000 --window 4 --seconds {}",
            cores.max(2),
            cores.div_ceil(4),
            context.seconds(SECONDS)
        );
        let events = limited.drive_anew(&[], &options).await?.rate();
        let asked = asked(&limited, cores).await?;
        context.keep(&serde_json::json!({"cores": cores, "events_per_s": events, "questions_per_s": asked}))?;
        lines[0].push((cores as f64, events / 1e6));
        lines[1].push((cores as f64, asked));
        let per_core = |line: &[(f64, f64)], found: f64| format!("{:.0} %", 100.0 * found / (line[0].1 * cores as f64));
        table.rows.push(vec![
            cores.to_string(),
            rate(events),
            per_core(&lines[0], events / 1e6),
            short(asked),
            per_core(&lines[1], asked),
        ]);
    }
    let [ingest, queries] = lines;
    let chart = |name: &str, title: &str, y: &str, points| Chart {
        name: name.to_owned(),
        title: title.to_owned(),
        kind: Kind::Lines,
        x: "cores, generator included".to_owned(),
        y: y.to_owned(),
        labels: Vec::new(),
        series: vec![Series { name: title.to_owned(), points }],
    };
    Ok(Part {
        title: "From one core to all".to_owned(),
        method: "Server and generator of columns are bound to the first cores together (taskset), as many as the row says, batches \
                 of 1,000; then as many clients ask random questions (those of the thousand clients) as fast as answers come. The \
                 clients that ask are light and run on any core."
            .to_owned(),
        tables: vec![table],
        charts: vec![
            chart("cores-ingest", "Ingest by cores", "million events/s", ingest),
            chart("cores-queries", "Random questions by cores", "questions/s", queries),
        ],
        ..Part::default()
    })
}

/// Random questions answered per second.
async fn asked(context: &Context, cores: usize) -> Result<f64, Failure> {
    let server = context.start(&[]).await?;
    let begin = fill::fill(&server, context.rows(ROWS)).await?;
    server.at_rest().await?;
    let time = Duration::from_secs(context.seconds(SECONDS));
    let found = ask(&server, begin, cores * ASKING, time).await?;
    server.stop().await?;
    Ok(found)
}

async fn ask(server: &Server, begin: i64, clients: usize, time: Duration) -> Result<f64, Failure> {
    let end = Instant::now() + time;
    let mut asking = JoinSet::new();
    for client in 0..clients {
        let address = server.address(8081);
        asking.spawn(async move {
            let (mut random, mut answers) = (Random(client as u64), 0_u64);
            let mut connection = Connection::open(&address).await?;
            while Instant::now() < end {
                let question: Value = questions::random(&mut random, begin).1;
                connection.post("/v1/query", &question).await?;
                answers += 1;
            }
            Ok::<_, Failure>(answers)
        });
    }
    let mut answers = 0;
    while let Some(of_client) = asking.join_next().await {
        answers += of_client??;
    }
    Ok(answers as f64 / time.as_secs_f64())
}
