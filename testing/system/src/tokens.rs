//! Write, then ask with the token of the ack, again and again while the server takes all the columns it can: the answer
//! counts the event every time. What the token costs is measured against the same question without one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use hdrhistogram::Histogram;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    Failure,
    http::Http,
    load::{Load, accepted},
    say,
    server::{ServerArgs, Site},
};

/// One pair in so many asks without the token first, to show what the token is for.
const HASTY_EVERY: u32 = 8;
/// Longest time that is told apart, µs.
const LONGEST_US: u64 = 600_000_000;
const PAUSE: Duration = Duration::from_millis(20);

/// `tokens`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Pairs of a write and a question.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Pairs under way at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    at_once: u32,
    /// The server.
    #[command(flatten)]
    server: ServerArgs,
}

/// What all pairs share.
struct Pairs {
    events: String,
    query: String,
    begun: AtomicU32,
    wanted: u32,
    /// Answers that presented the token and lack the event.
    misses: AtomicU64,
    /// Requests refused for now and sent again.
    refused: AtomicU64,
    hasty: AtomicU64,
    /// Questions asked without the token that came too early.
    too_early: AtomicU64,
}

/// Times of one kind of request, µs.
struct Times {
    with_token: Histogram<u64>,
    without: Histogram<u64>,
}

/// Runs the pairs.
///
/// # Errors
/// A token was not honoured, or the proof could not be led.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let mut site = Site::new(&args.server)?;
    let led = lead(args, &mut site).await;
    led.inspect_err(|_| say(&format!("kept {}", site.keep().display())))
}

async fn lead(args: &Args, site: &mut Site) -> Result<(), Failure> {
    site.set("GATEWAY_RATE_LIMIT", "1000000000");
    site.set("TRUENOW_GATEWAY_TENANT_RATE_LIMIT", "1000000000");
    // What the load leaves behind is nobody's business here.
    site.set("HOT_TIER_MEMORY_GB", "2");
    let mut server = site.start()?;
    let http = Http::new();
    server.healthy(&http).await?;
    let load = Load::start(site, &[], &["--mode", "columns", "--seconds", "3600"])?;
    while accepted(site, &http).await? == 0 {
        tokio::time::sleep(PAUSE).await;
    }
    let pairs = Arc::new(Pairs {
        events: format!("{}/v1/events", site.url(8088)),
        query: format!("{}/v1/query", site.url(8081)),
        begun: AtomicU32::new(0),
        wanted: args.pairs,
        misses: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        hasty: AtomicU64::new(0),
        too_early: AtomicU64::new(0),
    });
    let (began, before) = (Instant::now(), accepted(site, &http).await?);
    let mut tasks = JoinSet::new();
    for _ in 0..args.at_once {
        tasks.spawn(worker(Arc::clone(&pairs)));
    }
    let mut times = Times::new();
    while let Some(measured) = tasks.join_next().await {
        times.add(&measured??);
    }
    let rate = (accepted(site, &http).await? - before) as f64 / began.elapsed().as_secs_f64();
    drop(load);
    server.stop().await?;
    report(args, &pairs, &times, rate)
}

fn report(args: &Args, pairs: &Pairs, times: &Times, rate: f64) -> Result<(), Failure> {
    let at = |histogram: &Histogram<u64>, q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
    let spread = |of: &Histogram<u64>| format!("p50 {:.2} ms, p99 {:.2} ms", at(of, 0.5), at(of, 0.99));
    let added = |q: f64| at(&times.with_token, q) - at(&times.without, q);
    let misses = pairs.misses.load(Relaxed);
    say(&format!(
        "pairs     {} under {rate:.0} columnar events/s, {} at a time: {misses} misses, {} requests refused for now",
        args.pairs,
        args.at_once,
        pairs.refused.load(Relaxed),
    ));
    say(&format!("with      {} from the ack to the answer that counts the event", spread(&times.with_token)));
    say(&format!("without   {} for the same question right after", spread(&times.without)));
    say(&format!("added     p50 {:.2} ms, p99 {:.2} ms", added(0.5), added(0.99)));
    let (hasty, too_early) = (pairs.hasty.load(Relaxed), pairs.too_early.load(Relaxed));
    say(&format!("teeth     {too_early} of {hasty} questions right after the ack without the token came too early"));
    if misses > 0 {
        return Err(format!("{misses} answers that presented a token lack its event").into());
    }
    if rate < 1.0 {
        return Err("there was no load".into());
    }
    say("1 passed, 0 failed");
    Ok(())
}

async fn worker(pairs: Arc<Pairs>) -> Result<Times, Failure> {
    let http = Http::new();
    let mut times = Times::new();
    loop {
        // Relaxed: the number only has to be unique.
        let number = pairs.begun.fetch_add(1, Relaxed);
        if number >= pairs.wanted {
            return Ok(times);
        }
        pairs.pair(&http, number, &mut times).await?;
    }
}

impl Pairs {
    async fn pair(&self, http: &Http, number: u32, times: &mut Times) -> Result<(), Failure> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros() as i64;
        let name = format!("pair-{number}");
        let event = json!({
            "namespace": "tokens", "table": "pairs", "event_time": now, "event_id": name,
            "dimensions": {"pair": name},
        });
        let (_, reply) = self.exchange(http, &self.events, &event).await?;
        let token = reply["token"].as_str().ok_or_else(|| format!("an ack without a token: {reply}"))?;
        let mut question = json!({
            "namespace": "tokens", "table": "pairs", "start_time": now, "end_time": now + 1, "filters": {"pair": name},
            "aggregate": "count",
        });
        if number.is_multiple_of(HASTY_EVERY) {
            let (_, reply) = self.exchange(http, &self.query, &question).await?;
            self.hasty.fetch_add(1, Relaxed);
            self.too_early.fetch_add(u64::from(count(&reply)? == 0), Relaxed);
        }
        question["after"] = json!(token);
        let (took, reply) = self.exchange(http, &self.query, &question).await?;
        if count(&reply)? != 1 {
            self.misses.fetch_add(1, Relaxed);
        }
        if !number.is_multiple_of(HASTY_EVERY) {
            times.with_token.saturating_record(took.as_micros() as u64);
        }
        question["after"] = Value::Null;
        let (took, reply) = self.exchange(http, &self.query, &question).await?;
        times.without.saturating_record(took.as_micros() as u64);
        match count(&reply)? {
            1 => Ok(()),
            other => Err(format!("an event that was counted is counted {other} times right after").into()),
        }
    }

    /// Sends until it is taken; how long that took, refusals included.
    async fn exchange(&self, http: &Http, url: &str, body: &Value) -> Result<(Duration, Value), Failure> {
        let began = Instant::now();
        loop {
            let reply = http.post(url, body).await.ok_or("the server does not answer")?;
            match reply.status {
                StatusCode::OK => return Ok((began.elapsed(), reply.json())),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                    self.refused.fetch_add(1, Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
                _ => return Err(reply.text().into()),
            }
        }
    }
}

impl Times {
    fn new() -> Self {
        let empty = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds and digits are allowed");
        Self { with_token: empty.clone(), without: empty }
    }

    fn add(&mut self, other: &Self) {
        self.with_token.add(&other.with_token).expect("both have the same bounds");
        self.without.add(&other.without).expect("both have the same bounds");
    }
}

fn count(reply: &Value) -> Result<u64, Failure> {
    reply["rows"][0]["count"].as_u64().ok_or_else(|| format!("an answer without a count: {reply}").into())
}
