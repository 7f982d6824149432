//! Runs seeds, and says which fail.

use std::{
    ops::Range,
    panic::catch_unwind,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use clap::Parser;
use simulator::{Plant, Report, run};

/// Failures that are told in full; after that many the run of seeds ends.
const FAILURES_MAX: usize = 5;

/// Runs the write path under a virtual clock and seeded faults. The last line is "N passed, M failed".
#[derive(Debug, Parser)]
struct Arguments {
    /// The one seed to run.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// The seeds to run, the last one excluded, as A..B.
    #[arg(long, value_parser = range, default_value = "0..500")]
    seeds: Range<u64>,
    /// A bug that is to be found.
    #[arg(long)]
    plant: Option<Plant>,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("two numbers are wanted, as 0..500")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    Ok(number(from)?..number(to)?)
}

/// What the threads have come to.
#[derive(Default)]
struct Found {
    total: Report,
    passed: u64,
    failures: Vec<String>,
}

fn main() -> ExitCode {
    let Arguments { seed, seeds, plant } = Arguments::parse();
    let seeds = seed.map_or(seeds, |seed| seed..seed + 1);
    let (next, found) = (AtomicU64::new(seeds.start), Mutex::new(Found::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| run_some(&next, seeds.end, plant, &found));
        }
    });
    let Found { total, passed, failures } = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.iter().for_each(|failure| say(failure));
    say(&format!("{total:#?}"));
    say(&format!("{passed} passed, {} failed", failures.len()));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_some(next: &AtomicU64, end: u64, plant: Option<Plant>, found: &Mutex<Found>) {
    loop {
        // Relaxed: each seed is given out once, and nothing else hangs on the order.
        let seed = next.fetch_add(1, Relaxed);
        let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
        if seed >= end || lock().failures.len() >= FAILURES_MAX {
            return;
        }
        let outcome = catch_unwind(|| run(seed, plant));
        let mut found = lock();
        match outcome {
            Ok(Ok(report)) => {
                found.total += report;
                found.passed += 1;
            }
            Ok(Err(failure)) => found.failures.push(failure.to_string()),
            Err(_) => {
                found.failures.push(format!("seed {seed} panicked\nagain: cargo run -p simulator -- --seed {seed}"));
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "what a program of tests has to say")]
fn say(text: &str) {
    println!("{text}");
}
