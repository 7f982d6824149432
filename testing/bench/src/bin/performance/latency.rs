//! How long acks and freshness take, by load.

use bench::{
    Failure,
    report::{Chart, Goal, Kind, Part, Series, Table, rate, short},
};

use crate::context::{Context, Driven};

/// Shares of the peak that are offered.
const SHARES: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];
/// The share at which goals are held.
const HELD_AT: f64 = 0.5;
const SECONDS: u64 = 20;
/// Options of all runs: batches of 1,000, as a client makes them that does not wait for long.
const OPTIONS: &str = "--mode columns --ids --connections 4 --batch 1000";

/// Ack and freshness by offered load.
///
/// # Errors
/// A server or the generator fails.
pub(crate) async fn run(context: &Context) -> Result<Part, Failure> {
    let seconds = context.seconds(SECONDS);
    let peak = context.drive_anew(&[], &format!("{OPTIONS} --window 12 --seconds {seconds}")).await?.rate();
    let columns = [
        "of the peak",
        "offered, events/s",
        "acked, events/s",
        "ack p50, ms",
        "p95",
        "p99",
        "fresh p50, ms",
        "p95",
        "p99",
    ];
    let mut table = Table::new("", &columns);
    let mut goals = Vec::new();
    let mut lines: Vec<Series> = Vec::new();
    for share in SHARES {
        let offered = peak * share;
        let options = format!("{OPTIONS} --window 64 --open-loop --rate {offered:.0} --seconds {seconds}");
        let driven = context.drive_anew(&[], &options).await?;
        let of = |of: &str| ["p50", "p95", "p99"].map(|quantile| driven.ms(of, quantile));
        let figures = [of("ack_us"), of("ack_to_answer_us")].concat();
        let mut cells = vec![format!("{:.0} %", share * 100.0), rate(offered), rate(driven.rate())];
        cells.extend(figures.iter().map(|ms| short(*ms)));
        table.rows.push(cells);
        for (nth, name) in ["ack p50", "ack p95", "ack p99", "fresh p50", "fresh p95", "fresh p99"].iter().enumerate() {
            if lines.len() == nth {
                lines.push(Series { name: (*name).to_owned(), points: Vec::new() });
            }
            lines[nth].points.push((offered / 1e6, figures[nth]));
        }
        if (share - HELD_AT).abs() < f64::EPSILON {
            goals = held(&driven);
        }
    }
    let chart = Chart {
        name: "latency".to_owned(),
        title: "Ack and freshness by load".to_owned(),
        kind: Kind::Lines,
        x: "million events/s offered".to_owned(),
        y: "ms".to_owned(),
        labels: Vec::new(),
        series: lines,
    };
    Ok(Part {
        title: "Ack and freshness by load".to_owned(),
        method: format!(
            "Open loop: each batch of 1,000 has a due time, fixed before the clock starts, and its latency counts from then, so \
             that a stall is charged with all that it kept waiting. The peak is that of a closed loop right before ({} events/s). \
             Fresh: ten times a second an event is sent, and when its ack is there a query with its token is asked; the time from \
             the ack to the answer that counts the event, the query's own time included.",
            rate(peak)
        ),
        goals,
        tables: vec![table],
        charts: vec![chart],
        ..Part::default()
    })
}

/// What was aimed at, at half of the peak.
fn held(driven: &Driven) -> Vec<Goal> {
    let goal = |what: &str, of: &str, quantile: &str, below: f64| {
        let found = driven.ms(of, quantile);
        Goal {
            what: format!("{what}, {quantile} at half of the peak"),
            wanted: format!("under {} ms", short(below)),
            found: format!("{} ms", short(found)),
            met: found < below,
        }
    };
    vec![
        goal("from ack to queryable", "ack_to_answer_us", "p50", 5.0),
        goal("from ack to queryable", "ack_to_answer_us", "p99", 20.0),
        goal("ack", "ack_us", "p99", 25.0),
    ]
}
