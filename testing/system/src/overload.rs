//! Three times the load that the server can take: it refuses the rest, goes on taking what it can, stays within its memory,
//! and is its old self soon after.
//!
//! 1. Server and generator have processors of their own where there are two, in every phase, so that the one's work is not the
//!    other's loss.
//! 2. Goodput is what was acked and is counted, over the time from the first sending until all of it was: an ack that ran
//!    ahead of the application is paid for.
//! 3. Peak and overload take turns, and each overload is held against the peaks before and after it, so that neither a machine
//!    nor a state that drifts decides.

use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::{
    Failure,
    http::Http,
    ledger::at_rest,
    load::Load,
    say,
    server::{Memory, Server, ServerArgs, Site},
};

/// Least goodput at three times the load, as a share of the peak.
const GOODPUT: f64 = 0.9;
/// Normal again within this.
const NORMAL_WITHIN: Duration = Duration::from_secs(30);
/// The budget of the server's memory, GiB, and what it may have in use, bytes: queues, requests under way and what the
/// allocator keeps come on top. Pages of mapped files do not count: the system takes them back when it needs them.
const MEMORY_GB: u64 = 2;
const MEMORY_BYTES_MAX: u64 = (MEMORY_GB + 1) << 30;
const APPLIED_WITHIN: Duration = Duration::from_secs(120);
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// How long answers are timed before the overload, s.
const CALM_SECONDS: &str = "10";
/// So many answers in a row decide whether all is normal.
const ANSWERS: usize = 10;
/// Answers are normal that take no longer than twice what they took before, and this.
const SLACK: Duration = Duration::from_millis(20);

/// `overload`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// How long each phase is, s.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(5..=600))]
    seconds: u32,
    /// How often the server is overloaded.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Way in, as `truenow bench` names it.
    #[arg(long, value_name = "MODE", default_value = "columns")]
    mode: String,
    /// The server.
    #[command(flatten)]
    server: ServerArgs,
}

/// Leads the proof.
///
/// # Errors
/// The server does not keep up what it promises under overload, or nothing could be measured.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let mut site = Site::new(&args.server)?;
    site.set("GATEWAY_RATE_LIMIT", "1000000000");
    site.set("TRUENOW_GATEWAY_TENANT_RATE_LIMIT", "1000000000");
    site.set("HOT_TIER_MEMORY_GB", &MEMORY_GB.to_string());
    let generator = split_processors(&mut site);
    let mut overload = Overload { site, generator, http: Http::new(), failures: Vec::new() };
    let led = overload.lead(args).await;
    led.inspect_err(|_| say(&format!("kept {}", overload.site.keep().display())))
}

/// Gives the server one half of the processors; what the generator has to be run by to have the other.
fn split_processors(site: &mut Site) -> Vec<String> {
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let can = std::process::Command::new("taskset").arg("--version").output().is_ok_and(|ran| ran.status.success());
    if all < 2 || !can {
        say("processors shared by server and generator: figures are those of both together");
        return Vec::new();
    }
    let taskset = |from: usize, to: usize| vec!["taskset".to_owned(), "-c".to_owned(), format!("{from}-{to}")];
    site.wrap(&taskset(0, all / 2 - 1));
    say(&format!("processors {} for the server, {} for the generator", all / 2, all - all / 2));
    taskset(all / 2, all - 1)
}

struct Overload {
    site: Site,
    generator: Vec<String>,
    http: Http,
    failures: Vec<String>,
}

/// What a phase showed.
struct Phase {
    report: Value,
    /// Events per second, acked and counted.
    goodput: f64,
    /// From the first sending until all that was acked was counted.
    seconds: f64,
    /// Most memory in use, bytes.
    memory: Memory,
    /// When the last ack had come.
    ended: Instant,
}

impl Overload {
    async fn lead(&mut self, args: &Args) -> Result<(), Failure> {
        let mut server = self.site.start()?;
        server.healthy(&self.http).await?;
        let seconds = args.seconds.to_string();
        let closed = |seconds: &str| words(&args.mode, &["--connections", "4", "--window", "8"], seconds);
        let open = |rate: f64, seconds: &str| {
            let rate = format!("{rate:.0}");
            words(&args.mode, &["--open-loop", "--connections", "16", "--window", "256", "--rate", &rate], seconds)
        };
        self.phase(&server, &closed("5")).await?;
        let mut peaks = vec![self.peak(&server, &closed(&seconds)).await?];
        let half = peaks[0] * 0.5;
        let calm = self.calm(&open(half, CALM_SECONDS)).await?;
        let mut overloads = Vec::new();
        for _ in 0..args.rounds {
            let three = self.phase(&server, &open(peaks[peaks.len() - 1] * 3.0, &seconds)).await?;
            show("3 x peak", &three);
            self.check_memory(&three);
            self.check_normal(three.ended, &open(half, "60"), calm).await?;
            overloads.push(three.goodput);
            peaks.push(self.peak(&server, &closed(&seconds)).await?);
        }
        self.check_goodput(&peaks, &overloads);
        server.stop().await?;
        if self.failures.is_empty() {
            say("1 passed, 0 failed");
            return Ok(());
        }
        Err(self.failures.join("; ").into())
    }

    /// Events per second that the server takes of senders who wait for their acks.
    async fn peak(&mut self, server: &Server, arguments: &[String]) -> Result<f64, Failure> {
        let peak = self.phase(server, arguments).await?;
        show("peak", &peak);
        self.check_memory(&peak);
        Ok(peak.goodput)
    }

    fn check_memory(&mut self, phase: &Phase) {
        if phase.memory.own > MEMORY_BYTES_MAX {
            self.failures.push(format!("{} bytes of memory were in use", phase.memory.own));
        }
    }

    async fn check_normal(&mut self, ended: Instant, load: &[String], calm: Duration) -> Result<(), Failure> {
        let after = self.normal_after(ended, load, calm).await?;
        say(&format!(
            "normal    {after:.1?} after the overload, which is {calm:.1?} from a write to its answer at half the peak"
        ));
        if after > NORMAL_WITHIN {
            self.failures.push(format!("normal again only {after:?} after the overload"));
        }
        Ok(())
    }

    /// Holds every overload against the mean of the peaks beside it, and the mean of these shares against the promise.
    fn check_goodput(&mut self, peaks: &[f64], overloads: &[f64]) {
        let beside = peaks.windows(2).map(|pair| f64::midpoint(pair[0], pair[1]));
        let shares: Vec<f64> = overloads.iter().zip(beside).map(|(goodput, peak)| goodput / peak).collect();
        let share = shares.iter().sum::<f64>() / shares.len() as f64;
        say(&format!("goodput   {share:.3} of the peak at 3 times its load: {shares:.3?}"));
        if share < GOODPUT {
            self.failures.push(format!("goodput at 3 x the peak is {share:.3} of it"));
        }
    }

    async fn phase(&self, server: &Server, arguments: &[String]) -> Result<Phase, Failure> {
        let load = Load::start(&self.site, &self.generator, arguments)?;
        let mut report = Box::pin(load.report());
        let mut memory = Memory::default();
        let report = loop {
            let now = server.memory()?;
            memory = Memory { own: memory.own.max(now.own), files: memory.files.max(now.files) };
            tokio::select! {
                report = &mut report => break report?,
                () = tokio::time::sleep(SAMPLE_EVERY) => {}
            }
        };
        let ended = Instant::now();
        let began = report["began_us"].as_i64().ok_or("the report does not say when it began")?;
        let table = format!("bench/{}", report["table"].as_str().ok_or("the report names no table")?);
        let (ledger, _) = at_rest(&self.site, &self.http, &table, APPLIED_WITHIN).await?;
        let seconds = (now_us()? - began) as f64 / 1e6;
        let events = report["events"].as_u64().ok_or("the report has no events")?;
        // Probes of the generator are the only others who write to the table.
        let probes = ["probe_misses", "probe_failures"].map(|name| report[name].as_u64().unwrap_or_default());
        let most =
            events + probes.iter().sum::<u64>() + report["ack_to_answer_us"]["count"].as_u64().unwrap_or_default();
        if !(events..=most).contains(&ledger.acked) || ledger.live + ledger.evicted + ledger.duplicate != ledger.acked {
            return Err(format!("{events} to {most} events were acked, and the ledger says {ledger:?}").into());
        }
        Ok(Phase { goodput: events as f64 / seconds, seconds, report, memory, ended })
    }

    /// The median time from a write to the answer that counts it under a load, until the load ends.
    async fn calm(&self, arguments: &[String]) -> Result<Duration, Failure> {
        let mut load = Load::start(&self.site, &self.generator, arguments)?;
        let mut took = Vec::new();
        while load.runs()? {
            took.push(self.answered().await?);
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
        took.sort_unstable();
        took.get(took.len() / 2).copied().ok_or_else(|| "no answer came while the load ran".into())
    }

    /// How long after the overload ended answers under half the load take again what they took before.
    async fn normal_after(&self, ended: Instant, arguments: &[String], calm: Duration) -> Result<Duration, Failure> {
        let mut load = Load::start(&self.site, &self.generator, arguments)?;
        let mut slow = ANSWERS;
        let mut normal_since = Instant::now();
        while load.runs()? {
            let at = Instant::now();
            if self.answered().await? <= calm * 2 + SLACK {
                slow = slow.saturating_sub(1);
            } else {
                slow = ANSWERS;
                normal_since = Instant::now();
            }
            if slow == 0 {
                return Ok(normal_since - ended);
            }
            tokio::time::sleep_until((at + SAMPLE_EVERY).into()).await;
        }
        Err("answers were not normal as long as the load after the overload ran".into())
    }

    /// Writes an event, and asks with its token until it is counted; how long that takes, refusals included.
    async fn answered(&self) -> Result<Duration, Failure> {
        let now = now_us()?;
        let event = json!({"namespace": "overload", "table": "answers", "event_time": now, "dimensions": {"a": "b"}});
        let began = Instant::now();
        let ack = self.insist(8088, "events", &event).await?;
        let question = json!({
            "namespace": "overload", "table": "answers", "start_time": now, "end_time": now + 1, "aggregate": "count",
            "after": ack["token"],
        });
        let answer = self.insist(8081, "query", &question).await?;
        match answer["rows"][0]["count"].as_u64() {
            Some(1) => Ok(began.elapsed()),
            _ => Err(format!("a token was not honoured: {answer}").into()),
        }
    }

    async fn insist(&self, port: u16, what: &str, body: &Value) -> Result<Value, Failure> {
        loop {
            let reply = self.http.post(&format!("{}/v1/{what}", self.site.url(port)), body).await;
            let reply = reply.ok_or("the server does not answer")?;
            match reply.status {
                StatusCode::OK => return Ok(reply.json()),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                    tokio::time::sleep(SAMPLE_EVERY).await;
                }
                _ => return Err(reply.text().into()),
            }
        }
    }
}

/// The arguments of a load.
fn words(mode: &str, how: &[&str], seconds: &str) -> Vec<String> {
    ["--mode", mode, "--seconds", seconds].iter().chain(how).map(|&word| word.to_owned()).collect()
}

/// Time since 1970, µs.
fn now_us() -> Result<i64, Failure> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros())?)
}

fn show(name: &str, phase: &Phase) {
    let of = |field: &str| phase.report[field].as_f64().unwrap_or_default();
    let ack = |q: &str| phase.report["ack_us"][q].as_f64().unwrap_or_default() / 1e3;
    say(&format!(
        "{name:<9} {:.0} events/s acked and counted, {:.0} offered; ack p50 {:.1} ms, p99 {:.1} ms; {} batches refused, {} \
         unsent; {:.2} GB in use, {:.2} GB of files mapped; server {:.2} cores, generator {:.2}",
        phase.goodput,
        phase.report["rate"].as_f64().unwrap_or(phase.goodput),
        ack("p50"),
        ack("p99"),
        of("refusals"),
        of("unsent"),
        phase.memory.own as f64 / 1e9,
        phase.memory.files as f64 / 1e9,
        of("server_cpu_s") / phase.seconds,
        of("client_cpu_s") / phase.seconds,
    ));
}
