//! What duplicates cost: a stream of nothing but duplicates against one of new events, and one with a fifth of them, repeating
//! what came just before and what came first. A rate counts until everything is applied.

use std::time::Duration;

use serde_json::Value;

use crate::{
    Failure,
    http::Http,
    ledger::{Ledger, at_rest},
    load::Load,
    say,
    server::{ServerArgs, Site},
};

/// Events of a batch.
const BATCH: u64 = 1_000;
/// Batches that `truenow bench` prepares: as near as repetitions can be.
const POOL: u64 = 400;
const APPLIED_WITHIN: Duration = Duration::from_secs(120);
/// Least rates as shares of that of new events.
const ALL_DUPLICATES: f64 = 0.5;
const FIFTH_DUPLICATES: f64 = 0.8;

/// `duplicates`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Millions of new events before anything is measured.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    millions: u32,
    /// How long each stream is measured, s.
    #[arg(long, value_name = "S", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// The server.
    #[command(flatten)]
    server: ServerArgs,
}

/// Measures.
///
/// # Errors
/// Duplicates are too slow or count, or nothing could be measured.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let mut site = Site::new(&args.server)?;
    site.set("GATEWAY_RATE_LIMIT", "1000000000");
    site.set("TRUENOW_GATEWAY_TENANT_RATE_LIMIT", "1000000000");
    let mut streams = Streams { site, http: Http::new(), next: 0, known: 0, slow: Vec::new() };
    let led = streams.lead(args).await;
    led.inspect_err(|_| say(&format!("kept {}", streams.site.keep().display())))
}

struct Streams {
    site: Site,
    http: Http,
    /// The number of the next batch.
    next: u64,
    /// Duplicates that the ledger has already.
    known: u64,
    slow: Vec<String>,
}

impl Streams {
    async fn lead(&mut self, args: &Args) -> Result<(), Failure> {
        let mut server = self.site.start()?;
        server.healthy(&self.http).await?;
        while self.next * BATCH < u64::from(args.millions) * 1_000_000 {
            self.stream(5, 0, POOL).await?;
        }
        let (normal, _) = self.stream(args.seconds, 0, POOL).await?;
        say(&format!("new       {normal:.0} events/s, after {} million", args.millions));
        for (percent, least) in [(100, ALL_DUPLICATES), (20, FIFTH_DUPLICATES)] {
            for (name, back) in [("near", POOL), ("far", self.next / POOL * POOL)] {
                let (rate, duplicates) = self.stream(args.seconds, percent, back).await?;
                let share = rate / normal;
                say(&format!(
                    "{percent:>3} % {name:<4} {rate:.0} events/s, {share:.2} of new ones, {:.0} % found to be duplicates",
                    duplicates * 100.0
                ));
                if (duplicates * 100.0 - f64::from(percent)).abs() > 1.0 {
                    return Err(format!("{percent} % were duplicates, {:.1} % were found", duplicates * 100.0).into());
                }
                if share < least {
                    self.slow.push(format!("{percent} % {name} runs at {share:.2} of new events, {least} wanted"));
                }
            }
        }
        server.stop().await?;
        if self.slow.is_empty() {
            say("1 passed, 0 failed");
            return Ok(());
        }
        Err(self.slow.join("; ").into())
    }

    /// Sends for some time; events per second until all are applied, and the share of duplicates that the ledger found.
    async fn stream(&mut self, seconds: u32, percent: u8, back: u64) -> Result<(f64, f64), Failure> {
        let (seconds, first) = (seconds.to_string(), self.next.to_string());
        let (percent_text, back) = (percent.to_string(), back.to_string());
        let arguments = [
            "--ids",
            "--table",
            "duplicates",
            "--seconds",
            &seconds,
            "--first",
            &first,
            "--duplicates",
            &percent_text,
            "--back",
            &back,
        ];
        let report = Load::start(&self.site, &[], &arguments)?.report().await?;
        let (ledger, drained) = at_rest(&self.site, &self.http, "bench/duplicates", APPLIED_WITHIN).await?;
        let events = number(&report, "events")?;
        let rate = events / (number(&report, "seconds")? + drained.as_secs_f64());
        // Repetitions leave no new events behind for later streams to repeat.
        if percent < 100 {
            self.next = number(&report, "batches")? as u64;
        }
        Ok((rate, self.new_duplicates(&ledger)? / events))
    }

    fn new_duplicates(&mut self, ledger: &Ledger) -> Result<f64, Failure> {
        if ledger.conflict > 0 {
            return Err(format!("repetitions to the byte are taken for others: {ledger:?}").into());
        }
        let news = ledger.duplicate - self.known;
        self.known = ledger.duplicate;
        Ok(news as f64)
    }
}

fn number(report: &Value, name: &str) -> Result<f64, Failure> {
    report[name].as_f64().ok_or_else(|| format!("the report has no {name}: {report}").into())
}
