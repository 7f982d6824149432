//! Prints what `docs/scale.md` takes from simulations.

use clap::Parser;
use simulator::scale::{
    fan_out::{self, CONTENDED, FanOut, QUIET},
    placement::{Change, Cluster},
};

/// Simulates placement in a large cluster, and the waits of queries that ask many nodes.
#[derive(Debug, Parser)]
struct Arguments {
    /// Nodes of the hot tier.
    #[arg(long, default_value_t = 1_000)]
    nodes: u64,
    /// Partitions of the log.
    #[arg(long, default_value_t = 100_000)]
    partitions: u32,
    /// Zones.
    #[arg(long, default_value_t = 3)]
    zones: u64,
    /// Bytes of a replica, GB.
    #[arg(long, default_value_t = 2.0)]
    replica_gb: f64,
    /// Queries of each row of waits.
    #[arg(long, default_value_t = 20_000)]
    queries: usize,
}

fn main() {
    let Arguments { nodes, partitions, zones, replica_gb, queries } = Arguments::parse();
    let cluster = Cluster { nodes, zones, partitions, replicas: 2 };
    say(&format!("{cluster:?}"));
    say("| change | planning, ms | replicas lost | copied | copied, TB | without a replica | busiest / mean |");
    say("|---|---|---|---|---|---|---|");
    let placed = cluster.placed();
    for change in [Change::First, Change::NodeLost, Change::ZoneLost, Change::NodeJoins] {
        let outcome = cluster.change(&placed, change);
        let moved_tb = outcome.replicas_moved as f64 * replica_gb / 1e3;
        say(&format!(
            "| {change:?} | {:.0} | {} | {} | {moved_tb:.2} | {} | {:.3} |",
            outcome.planning_ms, outcome.replicas_lost, outcome.replicas_moved, outcome.partitions_away, outcome.peak
        ));
    }
    say("\n| nodes asked | times | p50, ms: plain, hedged | p99 | p99.9 | second requests |");
    say("|---|---|---|---|---|---|");
    for (name, times) in [("quiet", QUIET), ("contended", CONTENDED)] {
        for nodes in [1, 10, 100, 1_000] {
            let asked = FanOut { nodes, queries, times, hedged: false };
            let (plain, hedged) = (fan_out::run(&asked, 7), fan_out::run(&FanOut { hedged: true, ..asked }, 7));
            let ms = |plain: f64, hedged: f64| format!("{:.2}, {:.2}", plain / 1e3, hedged / 1e3);
            say(&format!(
                "| {nodes} | {name} | {} | {} | {} | {:.2} % |",
                ms(plain.p50_us, hedged.p50_us),
                ms(plain.p99_us, hedged.p99_us),
                ms(plain.p999_us, hedged.p999_us),
                hedged.second_share * 100.0
            ));
        }
    }
}

#[expect(clippy::print_stdout, reason = "what a program of tests has to say")]
fn say(text: &str) {
    println!("{text}");
}
