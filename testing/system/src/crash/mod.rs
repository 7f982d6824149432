//! kill -9 of the real server again and again, under ingest by every way in with retries, while questions are asked.
//!
//! In each round all clients pause once, and everything is checked exactly.

mod damage;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use self::damage::Checkpoints;
use crate::{
    Failure,
    http::Http,
    random::Random,
    say,
    server::{Server, ServerArgs, Site},
    traffic::{Addresses, Conduct, Scene, Tally, Totals, Traffic},
};

/// From when the server runs until it is killed, ms.
const KILLED_AFTER_MS: std::ops::Range<u64> = 50..3_000;
/// Percent of lives that are ended while the server starts.
const KILLED_EARLY: u64 = 20;
/// What tables are created with: several windows in a long run, and far more than a retry takes.
const DEDUP_WINDOW: Duration = Duration::from_secs(120);
/// The client library may wait so long for the server.
const RETRIED_FOR: Duration = Duration::from_secs(60);
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
        events: vec![format!("{}/v1/events", site.url(8088))],
        gateway_grpc: vec![site.url(9088)],
        query: vec![format!("{}/v1/query", site.url(8081))],
        ledger: format!("{}/v1/ledger", site.url(8084)),
    };
    let origin = now.as_micros() as i64 - 86_400_000_000;
    let conduct =
        Conduct { dedup_window: DEDUP_WINDOW, retried_for: RETRIED_FOR, gives_up: true, agreed_within: Duration::ZERO };
    let scene = Arc::new(Scene::new(addresses, origin, conduct, seed));
    let mut run = Run {
        scene,
        http: Http::new(),
        random: Random::new(seed),
        tally: None,
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
    /// What happened, once all is over.
    tally: Option<Tally>,
    restarts: Vec<Duration>,
    killed_early: u32,
    checkpoints: Checkpoints,
    damages: bool,
}

impl Run {
    async fn rounds(&mut self, site: &Site, args: &Args) -> Result<Totals, Failure> {
        let mut server = site.start()?;
        server.healthy(&self.http).await?;
        let window_us = if args.plant.is_some() { PLANTED_WINDOW_US } else { DEDUP_WINDOW.as_micros() as u64 };
        let (scene, random) = (Arc::clone(&self.scene), self.random.fork());
        let mut traffic = Traffic::start(scene, self.http.clone(), random, &site.url(8001), window_us).await?;
        for round in 1..=args.rounds {
            let pause = Duration::from_millis(self.random.within(KILLED_AFTER_MS));
            tokio::time::sleep(pause).await;
            server = self.restart(site, server).await?;
            traffic.check(std::future::ready(Ok(()))).await.map_err(|wrong| format!("round {round}: {wrong}"))?;
        }
        let totals = traffic.end().await.map_err(|wrong| format!("at the end: {wrong}"))?;
        self.tally = Some(traffic.tally());
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

    fn report(&mut self, args: &Args, totals: Totals) -> Result<(), Failure> {
        let tally = self.tally.ok_or("the rounds did not come to their end")?;
        self.restarts.sort_unstable();
        let median = self.restarts[self.restarts.len() / 2];
        let longest = self.restarts[self.restarts.len() - 1];
        say(&format!(
            "events    {} acked, {} live and {} duplicates in the ledgers",
            tally.acked, totals.live, totals.duplicate
        ));
        say(&format!(
            "batches   {} sendings repeated until acked, {} given up, {} sent again after their ack, {} sent twice at once",
            tally.retried, tally.given_up, tally.repeated, tally.twins
        ));
        say(&format!(
            "questions {} answered in full ({} with tokens), {} in part where that was asked for, {} refused or cut off by a death",
            tally.answered,
            tally.with_tokens,
            tally.partial,
            tally.refused + tally.early
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
        if tally.answered < rounds || tally.retried == 0 || totals.duplicate == 0 {
            return Err("too little happened for a proof".into());
        }
        say("1 passed, 0 failed");
        Ok(())
    }
}
