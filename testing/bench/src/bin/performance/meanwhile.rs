//! Queries while events come at half of the peak.

use std::time::{Duration, Instant};

use bench::{
    Connection, Failure, Server,
    report::{Chart, Goal, Kind, Part, Series, Table, rate, short},
};
use hdrhistogram::Histogram;
use serde_json::json;

use crate::{
    context::Context,
    fill::{self, SECOND_US, TABLE, now},
    questions,
};

const ROWS: u64 = 20_000_000;
const SECONDS: u64 = 40;
/// The newest rows and those that are compared with them, s: as many rows in each, as they came at one pace.
const WINDOW_US: i64 = 5 * SECOND_US;
/// So long before the newest the older rows lie.
const BEFORE_US: i64 = 10 * SECOND_US;
const WARM_UP: Duration = Duration::from_secs(1);

/// Latencies of a question, µs.
type Latencies = Histogram<u64>;

pub(crate) fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds and digits are allowed")
}

/// What was found of each question.
struct Asked {
    names: Vec<String>,
    latencies: Vec<Latencies>,
}

impl Asked {
    fn ms(&self, question: usize, quantile: f64) -> f64 {
        self.latencies[question].value_at_quantile(quantile) as f64 / 1e3
    }
}

/// The ten questions, quiet and under load.
///
/// # Errors
/// A server or the generator fails.
pub(crate) async fn run(context: &Context) -> Result<Part, Failure> {
    let seconds = context.seconds(SECONDS);
    let options = "--mode columns --ids --connections 2 --batch 1000 --window 4";
    let peak = context.drive_anew(&[], &format!("{options} --seconds {}", context.seconds(10))).await?.rate();
    let server = context.start(&[]).await?;
    let rows = context.rows(ROWS);
    let begin = fill::fill(&server, rows).await?;
    server.at_rest().await?;
    let quiet = ask(&server, begin, false, seconds).await?;
    let half = peak / 2.0;
    let generator = format!(
        "--mode columns --connections 2 --batch 1000 --window 64 --open-loop --rate {half:.0} --table {TABLE} --seconds {}",
        seconds + 1
    );
    let asking = async {
        tokio::time::sleep(WARM_UP).await;
        ask(&server, begin, true, seconds).await
    };
    let (driven, busy) = tokio::join!(context.drive(&server, &generator), asking);
    let (driven, busy) = (driven?, busy?);
    server.stop().await?;
    for (at, name) in busy.names.iter().enumerate() {
        let of = |asked: &Asked| {
            let of = asked.latencies.get(at)?;
            Some(json!({"p50_us": of.value_at_quantile(0.5), "p95_us": of.value_at_quantile(0.95), "count": of.len()}))
        };
        context.keep(&json!({"question": name, "quiet": of(&quiet), "busy": of(&busy)}))?;
    }
    Ok(part(rows, half, driven.rate(), &quiet, &busy))
}

/// Asks one question after the other for so long; with `newest` also of the rows that come.
async fn ask(server: &Server, begin: i64, newest: bool, seconds: u64) -> Result<Asked, Failure> {
    let fixed = questions::ten(begin);
    let mut names: Vec<String> = fixed.iter().map(|(name, _)| (*name).to_owned()).collect();
    if newest {
        names.extend(["newest 5 s".to_owned(), "older 5 s".to_owned()]);
    }
    let mut asked = Asked { latencies: names.iter().map(|_| latencies()).collect(), names };
    let mut connection = Connection::open(&server.address(8081)).await?;
    let (began, time) = (Instant::now(), Duration::from_secs(seconds));
    let begun_us = now();
    while began.elapsed() < time {
        for (place, (_, question)) in fixed.iter().enumerate() {
            take(&mut connection, question, &mut asked.latencies[place]).await?;
        }
        // Both windows must lie in the time in which events came at this pace.
        let now = now();
        if newest && now - BEFORE_US - WINDOW_US > begun_us {
            let windows = [now, now - BEFORE_US].map(|to| questions::window(to - WINDOW_US, to));
            for (nth, question) in windows.iter().enumerate() {
                take(&mut connection, question, &mut asked.latencies[fixed.len() + nth]).await?;
            }
        }
    }
    Ok(asked)
}

async fn take(connection: &mut Connection, question: &serde_json::Value, into: &mut Latencies) -> Result<(), Failure> {
    let began = Instant::now();
    connection.post("/v1/query", question).await?;
    into.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1));
    Ok(())
}

fn part(rows: u64, offered: f64, acked: f64, quiet: &Asked, busy: &Asked) -> Part {
    let columns = [
        "question",
        "quiet p50, ms",
        "quiet p95, ms",
        "under ingest p50, ms",
        "under ingest p95, ms",
        "p95, times quiet",
    ];
    let mut table = Table::new("", &columns);
    let (mut worst, mut bars) = ((0.0, ""), [Vec::new(), Vec::new()]);
    for (at, name) in quiet.names.iter().enumerate() {
        let times = busy.ms(at, 0.95) / quiet.ms(at, 0.95);
        if times > worst.0 {
            worst = (times, name.as_str());
        }
        let figures = [quiet.ms(at, 0.5), quiet.ms(at, 0.95), busy.ms(at, 0.5), busy.ms(at, 0.95), times];
        table.rows.push([vec![name.clone()], figures.map(short).to_vec()].concat());
        bars[0].push((at as f64, quiet.ms(at, 0.95)));
        bars[1].push((at as f64, busy.ms(at, 0.95)));
    }
    let mut goals = vec![Goal {
        what: "p95 of Q1 to Q10 at half of the peak, times the quiet one, the worst".to_owned(),
        wanted: "at most 2".to_owned(),
        found: format!("{} ({})", short(worst.0), worst.1),
        met: worst.0 <= 2.0,
    }];
    let mut windows = Table::new("Rows that come, by their age:", &["rows", "asked", "p50, ms", "p95, ms"]);
    let came = quiet.names.len()..busy.names.len();
    for at in came.filter(|at| !busy.latencies[*at].is_empty()) {
        let asked = busy.latencies[at].len().to_string();
        windows.rows.push(vec![busy.names[at].clone(), asked, short(busy.ms(at, 0.5)), short(busy.ms(at, 0.95))]);
    }
    let (newest, older) = (quiet.names.len(), quiet.names.len() + 1);
    if busy.latencies[newest].is_empty() {
        "Rows that come, by their age: LEFT OUT, the run was too short.".clone_into(&mut windows.title);
    } else {
        goals.push(Goal {
            what: "median over the newest rows, beside as many older ones".to_owned(),
            wanted: "not slower".to_owned(),
            found: format!("{} and {} ms", short(busy.ms(newest, 0.5)), short(busy.ms(older, 0.5))),
            // Medians of one run differ by as much between two equal questions.
            met: busy.ms(newest, 0.5) <= busy.ms(older, 0.5) * 1.1,
        });
    }
    let [quiet, busy] = bars;
    let chart = Chart {
        name: "meanwhile".to_owned(),
        title: "p95 of queries, quiet and while events come".to_owned(),
        kind: Kind::BarsLogY,
        x: String::new(),
        y: "ms".to_owned(),
        labels: table.rows.iter().map(|row| row[0].clone()).collect(),
        series: vec![
            Series { name: "quiet".to_owned(), points: quiet },
            Series { name: "at half of the peak of ingest".to_owned(), points: busy },
        ],
    };
    Part {
        title: "Queries while events come".to_owned(),
        method: format!(
            "{rows} rows of ten minutes are resident; one client asks the ten questions over them in turn, over HTTP, without \
             any cache. Then the same while columns come into the same table in an open loop at half of the peak, which was \
             measured right before ({} events/s offered, {} acked); generator and client on the same cores.",
            rate(offered),
            rate(acked)
        ),
        goals,
        tables: vec![table, windows],
        charts: vec![chart],
        ..Part::default()
    }
}
