//! kill -9 of the real server again and again, under ingest by every way in with retries, while questions are asked.
//!
//! 1. Clients send until they have an ack, the same identity each time, across as many deaths of the server as it takes; they
//!    also send again what was acked, and send one batch on two connections at once.
//! 2. While all goes on, every complete answer counts at least what its tokens, or the acks before the server's last start,
//!    cover, and nothing that was never sent.
//! 3. In each round all clients pause once; then every answer and every ledger must be exactly the oracle's.

mod asking;
mod checks;
mod damage;
mod event;
mod oracle;
mod question;
mod requests;
mod scene;
mod writers;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use hyper::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use self::{
    damage::Checkpoints,
    event::{Lane, NAMESPACE, Table},
    scene::{Addresses, Scene},
};
use crate::{
    Failure,
    http::Http,
    random::Random,
    say,
    server::{Server, ServerArgs, Site},
};

/// Tasks that ask questions.
const ASKERS: usize = 2;
/// From when the server runs until it is killed, ms.
const KILLED_AFTER_MS: std::ops::Range<u64> = 50..3_000;
/// Percent of lives that are ended while the server starts.
const KILLED_EARLY: u64 = 20;
/// Clients have this long to settle what they have under way.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
/// What tables are created with: several windows in a long run, and far more than a retry takes.
const DEDUP_WINDOW: Duration = Duration::from_secs(120);
/// A window that ends before any retry across a restart.
const PLANTED_WINDOW_US: u64 = 1;

/// `crash`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// How often the server is killed.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Chooses what happens when; the same seed gives the same schedule, though not the same timing [default: the time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Proves the proof: plants a fault that it has to find, and fails if it does not.
    #[arg(long, value_enum, value_name = "FAULT")]
    plant: Option<Fault>,
    /// While the server is dead, damages the newest checkpoint of a partition now and then.
    #[arg(long)]
    damage_checkpoints: bool,
    /// The server.
    #[command(flatten)]
    server: ServerArgs,
}

/// Faults that must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fault {
    /// The server forgets identities before clients send again: events count twice.
    ShortWindow,
}

/// Runs the rounds.
///
/// # Errors
/// Something is not as promised, or the proof could not be led.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = args.seed.unwrap_or(now.as_nanos() as u64 % 1_000_000_007);
    say(&format!("seed {seed}, {} rounds", args.rounds));
    let mut site = Site::new(&args.server)?;
    let addresses = Addresses {
        events: format!("{}/v1/events", site.url(8088)),
        gateway_grpc: site.url(9088),
        query: format!("{}/v1/query", site.url(8081)),
        ledger: format!("{}/v1/ledger", site.url(8084)),
    };
    let origin = now.as_micros() as i64 - 86_400_000_000;
    let scene = Arc::new(Scene::new(addresses, origin, DEDUP_WINDOW, seed));
    let mut run = Run {
        scene,
        http: Http::new(),
        random: Random::new(seed),
        restarts: Vec::new(),
        killed_early: 0,
        checkpoints: Checkpoints::new(site.data().join("checkpoints")),
        damages: args.damage_checkpoints,
    };
    let led = run.rounds(&site, args).await;
    let found = match led {
        Ok(totals) => run.report(args, totals),
        Err(failure) => Err(failure),
    };
    match (found, args.plant) {
        (found, None) => found.inspect_err(|_| say(&format!("kept {}", site.keep().display()))),
        (Err(failure), Some(Fault::ShortWindow)) if failure.to_string().contains("lies not between") => {
            say(&format!("found what was planted: {failure}"));
            Ok(())
        }
        (Err(failure), Some(_)) => Err(failure),
        (Ok(()), Some(fault)) => Err(format!("the planted fault {fault:?} was not found").into()),
    }
}

struct Run {
    scene: Arc<Scene>,
    http: Http,
    random: Random,
    restarts: Vec<Duration>,
    killed_early: u32,
    checkpoints: Checkpoints,
    damages: bool,
}

impl Run {
    async fn rounds(&mut self, site: &Site, args: &Args) -> Result<checks::Totals, Failure> {
        let mut server = site.start()?;
        server.healthy(&self.http).await?;
        let window_us = if args.plant.is_some() { PLANTED_WINDOW_US } else { DEDUP_WINDOW.as_micros() as u64 };
        self.create_tables(site, window_us).await?;
        let mut tasks = JoinSet::new();
        for lane in Lane::ALL {
            let (scene, random) = (Arc::clone(&self.scene), self.random.fork());
            match lane {
                Lane::Columns | Lane::Rows => tasks.spawn(writers::run(scene, lane, random)),
                Lane::Lines | Lane::Idempotent | Lane::Unary => tasks.spawn(requests::run(scene, lane, random)),
            };
        }
        for _ in 0..ASKERS {
            tasks.spawn(asking::run(Arc::clone(&self.scene), self.random.fork()));
        }
        let mut checked = checks::unsent(&self.scene);
        for round in 1..=args.rounds {
            let pause = Duration::from_millis(self.random.within(KILLED_AFTER_MS));
            tokio::time::sleep(pause).await;
            server = self.restart(site, server).await?;
            self.check(checked, false).await.map_err(|wrong| format!("round {round}: {wrong}"))?;
            checked = checks::unsent(&self.scene);
        }
        // Relaxed: tasks look at it now and then.
        self.scene.over.store(true, Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        let totals = self.check(checked, true).await.map_err(|wrong| format!("at the end: {wrong}"))?;
        server.stop().await?;
        self.check_log(&site.errors_logged()?)?;
        Ok(totals)
    }

    /// A server that is only killed has nothing to complain about; one whose checkpoints are damaged has to.
    fn check_log(&self, errors: &[String]) -> Result<(), Failure> {
        let named =
            |line: &str| line.contains("a checkpoint is no good") || line.contains("a checkpoint cannot be used");
        let expected = |line: &&String| self.damages && named(line);
        match errors.iter().find(|line| !expected(line)) {
            Some(first) => Err(format!("the server logged an error: {first}").into()),
            None if self.checkpoints.count > 0 && errors.is_empty() => Err("damage was not noticed".into()),
            None => Ok(()),
        }
    }

    /// Kills the server and starts it again; now and then it is killed once more before it has started.
    async fn restart(&mut self, site: &Site, mut server: Server) -> Result<Server, Failure> {
        loop {
            server.kill()?;
            self.scene.died();
            if self.damages {
                self.checkpoints.damage_newest(&mut self.random, &site.log())?;
            }
            server = site.start()?;
            if !self.random.chance(KILLED_EARLY) {
                break;
            }
            self.killed_early += 1;
            tokio::time::sleep(Duration::from_millis(self.random.within(5..300))).await;
        }
        self.restarts.push(server.healthy(&self.http).await?);
        self.checkpoints.check_used(&site.log())?;
        Ok(server)
    }

    /// Lets everything settle, and checks it exactly; of the tables that clients created the newest, or every one.
    async fn check(&mut self, since: [u64; Lane::ALL.len()], every_table: bool) -> Result<checks::Totals, Failure> {
        // Relaxed: clients look at it before each batch.
        self.scene.hush.store(true, Relaxed);
        let began = Instant::now();
        let quiet = tokio::time::timeout(SETTLED_WITHIN, self.scene.gate.write()).await;
        let quiet = quiet.map_err(|_elapsed| format!("clients had no ack within {:?}", began.elapsed()))?;
        self.scene.hush.store(false, Relaxed);
        if let Some(first) = self.scene.violations().into_iter().next() {
            return Err(first.into());
        }
        let totals = checks::all(&self.scene, &self.http, since, every_table, &mut self.random).await?;
        drop(quiet);
        Ok(totals)
    }

    async fn create_tables(&self, site: &Site, dedup_window_us: u64) -> Result<(), Failure> {
        for (table, key) in [(Table::Keyed, Some("user")), (Table::Plain, None)] {
            let body = json!({
                "namespace": NAMESPACE, "table": table.name(), "partition_by": key,
                "dimensions": ["lane", "region", "user"], "metrics": ["n", "size"], "dedup_window_us": dedup_window_us,
            });
            let reply = self.http.post(&format!("{}/v1/tables", site.url(8001)), &body).await;
            let reply = reply.ok_or("no answer to the creation of a table")?;
            if reply.status != StatusCode::CREATED {
                return Err(reply.text().into());
            }
        }
        Ok(())
    }

    fn report(&mut self, args: &Args, totals: checks::Totals) -> Result<(), Failure> {
        let counts = &self.scene.counts;
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
        self.restarts.sort_unstable();
        let median = self.restarts[self.restarts.len() / 2];
        let longest = self.restarts[self.restarts.len() - 1];
        say(&format!(
            "events    {} acked, {} live and {} duplicates in the ledgers",
            self.scene.oracle().certain().len(),
            totals.live,
            totals.duplicate
        ));
        say(&format!(
            "batches   {} sendings repeated until acked, {} given up, {} sent again after their ack, {} sent twice at once",
            of(&counts.retried),
            of(&counts.given_up),
            of(&counts.repeated),
            of(&counts.twins)
        ));
        say(&format!(
            "questions {} answered in full ({} with tokens), {} in part where that was asked for, {} refused or cut off by a death",
            of(&counts.answered),
            of(&counts.with_tokens),
            of(&counts.partial),
            of(&counts.refused)
        ));
        say(&format!(
            "deaths    {} by kill -9, {} of them while it started; healthy again after {median:?} in the median, {longest:?} at most",
            args.rounds + self.killed_early,
            self.killed_early
        ));
        if self.damages {
            let Checkpoints { count, .. } = self.checkpoints;
            say(&format!(
                "damage    to {count} checkpoints, each the newest of its partition; the one before was used"
            ));
            if count == 0 {
                return Err("there was no checkpoint to damage".into());
            }
        }
        let rounds = u64::from(args.rounds);
        // A run in which nothing was at stake proves nothing.
        if of(&counts.answered) < rounds || of(&counts.retried) == 0 || totals.duplicate == 0 {
            return Err("too little happened for a proof".into());
        }
        say("1 passed, 0 failed");
        Ok(())
    }
}
