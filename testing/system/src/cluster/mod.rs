//! A cluster of real processes over a real Kafka, PostgreSQL and Redis, to which one bad thing after another is done, under ingest
//! by every way in with retries, while questions are asked.
//!
//! 1. The clients and the oracle are those of the proof of one server, over several gateways and query APIs of which each request
//!    takes any.
//! 2. Each scenario does its harm and measures what it promises; then everything is brought back, and checked exactly: every
//!    acked event counts once, ledgers balance, and replicas hold the same.

mod absences;
mod deaths;
mod engines;
mod links;
mod members;
mod stage;
mod view;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use clap::ValueEnum;

use self::{
    engines::{Engines, let_enter},
    members::{Kind, Members},
    stage::Stage,
};
use crate::{
    Failure,
    http::Http,
    random::Random,
    say,
    server::ServerArgs,
    traffic::{Addresses, Conduct, Scene, Traffic},
};

/// Far more than a batch takes, though an engine is away for a while.
const DEDUP_WINDOW: Duration = Duration::from_secs(600);
/// The client library may wait so long for a gateway and for Kafka.
const RETRIED_FOR: Duration = Duration::from_secs(180);
/// A replica that lags may answer what has no token.
const AGREED_WITHIN: Duration = Duration::from_secs(30);
/// Before the first scenario.
const WARM_UP: Duration = Duration::from_secs(3);

/// `cluster`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// What is done to the cluster, in this order [default: everything].
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// A small file system of its own for Kafka's log, which `full-log` fills; scripts/test_cluster.sh mounts one.
    #[arg(long, value_name = "DIR")]
    log_disk: Option<PathBuf>,
    /// Chooses what happens when [default: the time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The processes.
    #[command(flatten)]
    server: ServerArgs,
}

/// What can be done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// kill -9 of one of three nodes.
    Node,
    /// kill -9 of each process that is no node, in turn.
    Services,
    /// A node stands still for 30 s and goes on.
    Zombie,
    /// A gateway stands still for 20 s and goes on.
    Gateway,
    /// Kafka stands still for 20 s.
    Kafka,
    /// PostgreSQL is stopped for 20 s.
    Postgres,
    /// Redis stands still for 20 s.
    Redis,
    /// 200 ms more on every way, then lost connections.
    Delay,
    /// A node is cut off from all others.
    Cut,
    /// A node, then a gateway, is cut off from Kafka, PostgreSQL and Redis.
    CutEngines,
    /// The disk of Kafka's log is full.
    FullLog,
    /// Every process is restarted in order.
    Rolling,
    /// kill -9 of half of four nodes.
    Half,
}

impl Scenario {
    async fn play(self, stage: &mut Stage) -> Result<String, Failure> {
        match self {
            Self::Node => deaths::node(stage).await,
            Self::Services => deaths::services(stage).await,
            Self::Zombie => absences::zombie(stage).await,
            Self::Gateway => absences::gateway(stage).await,
            Self::Kafka => absences::kafka(stage).await,
            Self::Postgres => absences::postgres(stage).await,
            Self::Redis => absences::redis(stage).await,
            Self::Delay => absences::delay(stage).await,
            Self::Cut => absences::cut(stage).await,
            Self::CutEngines => absences::cut_engines(stage).await,
            Self::FullLog => absences::full_log(stage).await,
            Self::Rolling => deaths::rolling(stage).await,
            Self::Half => deaths::half(stage).await,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Plays the scenarios.
///
/// # Errors
/// Something is not as promised, or the proof could not be led.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = args.seed.unwrap_or(now.as_nanos() as u64 % 1_000_000_007);
    let scenarios = if args.scenario.is_empty() { Scenario::value_variants() } else { &args.scenario[..] };
    say(&format!("seed {seed}, {} scenarios", scenarios.len()));
    let mut name = tempfile::Builder::new();
    name.prefix("truenow-cluster-");
    let mut home = match &args.server.dir {
        Some(dir) => name.tempdir_in(dir)?,
        None => name.tempdir()?,
    };
    let_enter(home.path())?;
    let led = lead(args, home.path(), Random::new(seed), now.as_micros() as i64, scenarios).await;
    led.inspect_err(|_| {
        home.disable_cleanup(true);
        say(&format!("kept {}", home.path().display()));
    })
}

async fn lead(args: &Args, home: &Path, random: Random, now_us: i64, scenarios: &[Scenario]) -> Result<(), Failure> {
    let mut stage = build(args, home, random, now_us).await?;
    let (mut passed, mut skipped) = (0, 0);
    for scenario in scenarios {
        if *scenario == Scenario::FullLog && args.log_disk.is_none() {
            skipped += 1;
            say("SKIPPED full-log: Kafka's log has no disk of its own that can be filled (--log-disk)");
            continue;
        }
        let (before, began) = (stage.traffic.tally(), Instant::now());
        let figures = scenario.play(&mut stage).await;
        let settled = match figures {
            Ok(figures) => stage.settle().await.map(|_| figures),
            Err(why) => Err(why),
        };
        let figures = settled.map_err(|why| {
            say(&format!("{passed} passed, 1 failed"));
            format!("{}: {why}", scenario.name())
        })?;
        let after = stage.traffic.tally();
        passed += 1;
        say(&format!(
            "{:<9} {figures}; in {:.0?} {} events acked, {} questions answered, {} refused, then all right",
            scenario.name(),
            began.elapsed(),
            after.acked - before.acked,
            after.answered - before.answered,
            after.refused - before.refused,
        ));
    }
    let totals = stage.traffic.end().await.map_err(|wrong| format!("at the end: {wrong}"))?;
    let tally = stage.traffic.tally();
    say(&format!(
        "in all    {} events acked, {} live and {} duplicates in the ledgers; {} sendings repeated, {} batches sent again after \
         their ack, {} sent twice at once; {} questions answered, {} with tokens",
        tally.acked,
        totals.live,
        totals.duplicate,
        tally.retried,
        tally.repeated,
        tally.twins,
        tally.answered,
        tally.with_tokens
    ));
    say(&format!("{passed} passed, 0 failed, {skipped} skipped"));
    Ok(())
}

/// Starts engines, processes and clients.
async fn build(args: &Args, home: &Path, mut random: Random, now_us: i64) -> Result<Stage, Failure> {
    let began = Instant::now();
    let http = Http::new();
    let engines = Engines::start(home.join("engines"), args.log_disk.clone())?;
    let engines_took = began.elapsed();
    let mut members = Members::new(&args.server, home, &engines)?;
    // The others wait for the control plane by themselves.
    members.start_all(&http).await?;
    view::placed(&members, &http, &[]).await?;
    say(&format!(
        "started   engines in {engines_took:.1?}, {} processes in {:.1?}",
        members.all.len(),
        began.elapsed() - engines_took
    ));
    let urls = |kind: Kind, path: &str| -> Vec<String> {
        let of_kind = members.of(|of| of == kind);
        of_kind.into_iter().map(|at| format!("{}{path}", members.all[at].http())).collect()
    };
    let gateways = members.of(|kind| kind == Kind::Gateway).into_iter();
    let addresses = Addresses {
        events: urls(Kind::Gateway, "/v1/events"),
        gateway_grpc: gateways.map(|at| format!("http://{}", members.all[at].grpc())).collect(),
        query: urls(Kind::QueryApi, "/v1/query"),
        ledger: format!("{}/v1/ledger", members.url(Kind::Watermark)),
    };
    let conduct =
        Conduct { dedup_window: DEDUP_WINDOW, retried_for: RETRIED_FOR, gives_up: false, agreed_within: AGREED_WITHIN };
    let scene = Arc::new(Scene::new(addresses, now_us - 86_400_000_000, conduct, random.next()));
    let (control_plane, window_us) = (members.url(Kind::ControlPlane), DEDUP_WINDOW.as_micros() as u64);
    let traffic = Traffic::start(scene, http.clone(), random.fork(), &control_plane, window_us).await?;
    let stage = Stage { members, engines, traffic, http, random, probes: 0 };
    stage.go_on(WARM_UP).await?;
    Ok(stage)
}
