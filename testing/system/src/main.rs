//! Proofs against the real server, from outside: each starts a server of its own, does it harm, and holds what it answers
//! against an oracle in memory.

mod cluster;
mod crash;
mod disk_full;
mod duplicates;
mod http;
mod ledger;
mod load;
mod overload;
mod random;
mod server;
mod tokens;
mod traffic;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// Why a proof could not be led, or what disproves it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Proofs against the real server.
#[derive(Debug, Parser)]
#[command(name = "system", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    proof: Proof,
}

/// The proofs.
#[derive(Debug, Subcommand)]
enum Proof {
    /// kill -9 again and again under ingest with retries: nothing acked is lost, nothing counts twice.
    Crash(crash::Args),
    /// Processes of a cluster die, stand still and are cut off, and its engines too, under ingest and questions.
    Cluster(cluster::Args),
    /// Write, then ask with the token of the ack, under full ingest: no answer misses its event.
    Tokens(tokens::Args),
    /// Three times the load that the server can take: goodput, memory, and how soon all is normal again.
    Overload(overload::Args),
    /// Streams of duplicates, near and far: they are found, and are fast.
    Duplicates(duplicates::Args),
    /// A full disk: refused with 503, nothing acked lost, and all well as soon as there is room.
    DiskFull(disk_full::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("the system gives a thread");
    let led = runtime.block_on(async {
        match &cli.proof {
            Proof::Crash(args) => crash::run(args).await,
            Proof::Cluster(args) => cluster::run(args).await,
            Proof::Tokens(args) => tokens::run(args).await,
            Proof::Overload(args) => overload::run(args).await,
            Proof::Duplicates(args) => duplicates::run(args).await,
            Proof::DiskFull(args) => disk_full::run(args).await,
        }
    });
    match led {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("FAILED {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line of the report. A closed stdout is nobody's loss.
pub(crate) fn say(line: &str) {
    let _closed = writeln!(io::stdout(), "{line}");
}
