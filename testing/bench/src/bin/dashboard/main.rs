//! What kept results save while events come: the questions of a dashboard, asked again and again by several clients, of a
//! server that keeps nothing, one that keeps results of tasks, and one that keeps whole results as well.
//!
//! 1. Each server gets the same rows of the last hour first, and is left to come to rest.
//! 2. Then events of now come at a steady rate, alone at first: what that takes is no question's.
//! 3. Then each client asks all panels once a second. Wall time is that of the client; CPU time is that of all threads of the
//!    server, less what ingest alone took.

mod load;
mod panels;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use bench::{Connection, Failure, Server, ServerArgs, line};
use clap::Parser;
use panels::{Panel, Seen};
use tokio::{sync::Barrier, task::JoinSet};

/// What kept results save a dashboard under ingest.
#[derive(Debug, Parser)]
#[command(name = "dashboard", max_term_width = 110)]
struct Cli {
    /// Rows of the last hour that are there before anything is asked.
    #[arg(long, value_name = "N", default_value_t = 8_000_000)]
    rows: u64,
    /// Events a second that come meanwhile.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    rate: u64,
    /// Clients, each of which asks all panels once a second.
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients: usize,
    /// How long they ask each server, seconds.
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    #[command(flatten)]
    server: ServerArgs,
}

/// Between two looks of a client.
const REFRESH: Duration = Duration::from_secs(1);
/// How long events come before anybody asks.
const ALONE: Duration = Duration::from_secs(10);

/// What a server keeps, by its settings.
const KEPT: [(&str, &[(&str, &str)]); 3] = [
    ("nothing", &[]),
    ("tasks", &[("TRUENOW_HOT_TIER_CACHE_BYTES", "67108864")]),
    ("tasks and whole results", &[("TRUENOW_HOT_TIER_CACHE_BYTES", "67108864"), ("QUERY_CACHE_TTL", "60")]),
];

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives a loop of events");
    match runtime.block_on(run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            line(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<(), Failure> {
    line("| kept | panel | asked | median, ms | p90, ms | whole results | segments |");
    line(&format!("|{}", "---|".repeat(7)));
    let mut totals = Vec::new();
    for (name, settings) in KEPT {
        let mut args = cli.server.clone();
        args.add(settings);
        let (seen, cpu) = ask(cli, &args).await?;
        for panel in Panel::ALL {
            line(&format!("| {name} | {}", seen.row(panel)));
        }
        totals.push(format!("{name}: {:.1} ms of CPU time a question", cpu.as_secs_f64() * 1e3 / seen.asked() as f64));
    }
    totals.iter().for_each(|total| line(total));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line(&format!("load of the machine at the end: {}", load.trim()));
    Ok(())
}

/// What clients saw of one server, and the CPU time that their questions took.
async fn ask(cli: &Cli, args: &ServerArgs) -> Result<(Seen, Duration), Failure> {
    let mut server = Server::start(args)?;
    server.healthy().await?;
    let begin = load::fill(&server, cli.rows).await?;
    server.at_rest().await?;
    let ingest = tokio::spawn(load::go_on(server.address(9088), cli.rate, ALONE + Duration::from_secs(cli.seconds)));
    let (before, since) = (server.cpu()?, Instant::now());
    tokio::time::sleep(ALONE).await;
    let alone = (server.cpu()? - before).as_secs_f64() / since.elapsed().as_secs_f64();

    let (before, since) = (server.cpu()?, Instant::now());
    let barrier = Arc::new(Barrier::new(cli.clients));
    let mut clients = JoinSet::new();
    for _ in 0..cli.clients {
        let (address, barrier, rounds) = (server.address(8081), Arc::clone(&barrier), cli.seconds);
        clients.spawn(client(address, begin, barrier, rounds));
    }
    let mut seen = Seen::default();
    while let Some(of_client) = clients.join_next().await {
        seen.add(of_client??);
    }
    let of_ingest = Duration::from_secs_f64(alone * since.elapsed().as_secs_f64());
    let cpu = (server.cpu()? - before).saturating_sub(of_ingest);
    ingest.await??;
    server.stop().await?;
    Ok((seen, cpu))
}

/// One client's looks at the dashboard. All begin each together, so that the same is asked at once.
async fn client(address: String, begin: i64, barrier: Arc<Barrier>, rounds: u64) -> Result<Seen, Failure> {
    let mut connection = Connection::open(&address).await?;
    let mut seen = Seen::default();
    let mut ticks = tokio::time::interval(REFRESH);
    for _ in 0..rounds {
        ticks.tick().await;
        barrier.wait().await;
        for panel in Panel::ALL {
            let question = panel.question(begin, load::now());
            let asked = Instant::now();
            let answer = connection.post("/v1/query", &question).await?;
            seen.note(panel, asked.elapsed(), &serde_json::from_slice(&answer)?);
        }
    }
    Ok(seen)
}
