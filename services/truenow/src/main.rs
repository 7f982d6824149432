//! TrueNow: every service in one process, and the command line.
//!
//! Rules of the command line:
//! 1. The exit code is 0 only when all went well: 1 when something failed, 2 when the command line itself is wrong.
//! 2. An error says what is wrong and, where it can be known, what would be right; it goes to stderr.
//! 3. Answers go to stdout, everything about how it went to stderr, so that answers can be piped.

mod addresses;
mod args;
mod ask;
mod bench;
mod failure;
mod http;
mod ingest;
mod metrics_text;
mod outcome;
mod replay;
mod serve;
mod table_text;
mod tail;
mod verify;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match args::Cli::parse().command {
        args::Command::Serve(serve) => serve::run(serve),
        args::Command::Ingest(ingest) => outcome::exit_code(ingest::run(&ingest)),
        args::Command::Query(query) => outcome::exit_code(ask::run(&query)),
        args::Command::Tail(tail) => outcome::exit_code(tail::run(&tail)),
        args::Command::Verify(verify) => outcome::exit_code(verify::run(&verify)),
        args::Command::Replay(replay) => outcome::exit_code(replay::run(&replay)),
        args::Command::Bench(bench) => outcome::exit_code(bench::run(&bench)),
    }
}
