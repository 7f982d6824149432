//! How long a query takes that waits for all of many nodes, with and without second requests.
//!
//! The rules are those of the query API (`services/query-api/src/load.rs` and `fleet.rs`): a request that takes longer than the 95th
//! percentile of its node's last times, and than 2 ms, is made once more at another replica, one in 20 at most; the first answer
//! counts.

use std::mem;

use crate::random::Random;

/// Requests of which a node's percentile comes, and how many there must be at least.
const WINDOW: usize = 512;
const TIMES_MIN: usize = 32;
const HEDGE_QUANTILE: f64 = 0.95;
const HEDGE_AFTER_MIN_US: f64 = 2_000.0;
const REQUESTS_PER_HEDGE: i64 = 20;
const HEDGES_SAVED_MAX: i64 = 10;

/// Times of one node's answers: shares of all, ascending, and the time in µs that so many are below. Between two of them the
/// logarithm of the time is a straight line.
#[derive(Debug, Clone, Copy)]
pub struct Times(&'static [(f64, f64)]);

/// A sum by 8 groups over 2 M kept events, as HTTP, one at a time, on two cores of an EPYC with nothing else to do: 16,013
/// answers.
pub const QUIET: Times = Times(&[
    (0.0, 194.0),
    (0.1, 262.0),
    (0.25, 293.0),
    (0.5, 338.0),
    (0.75, 427.0),
    (0.9, 637.0),
    (0.95, 916.0),
    (0.98, 1_424.0),
    (0.99, 1_787.0),
    (0.995, 2_623.0),
    (0.999, 4_888.0),
    (0.9999, 6_118.0),
    (1.0, 6_342.0),
]);

/// The same beside compilers that keep a load of 13 on these cores: 8,120 answers.
pub const CONTENDED: Times = Times(&[
    (0.0, 263.0),
    (0.1, 332.0),
    (0.25, 353.0),
    (0.5, 369.0),
    (0.75, 392.0),
    (0.9, 434.0),
    (0.95, 708.0),
    (0.98, 2_845.0),
    (0.99, 4_369.0),
    (0.995, 8_222.0),
    (0.999, 20_600.0),
    (1.0, 53_090.0),
]);

impl Times {
    /// The time that this share of all answers takes at most, µs.
    fn at(self, share: f64) -> f64 {
        let Self(points) = self;
        let next = points.partition_point(|(of, _)| *of <= share).clamp(1, points.len() - 1);
        let ((from, low), (to, high)) = (points[next - 1], points[next]);
        let way = ((share - from) / (to - from)).clamp(0.0, 1.0);
        low * (high / low).powf(way)
    }
}

/// A cluster under queries.
#[derive(Debug, Clone, Copy)]
pub struct FanOut {
    /// Nodes that each query asks; each has a replica elsewhere.
    pub nodes: usize,
    /// Queries, one after the other.
    pub queries: usize,
    /// How long nodes take.
    pub times: Times,
    /// Whether slow requests are made once more.
    pub hedged: bool,
}

/// What queries took.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    /// Percentiles, µs.
    pub p50_us: f64,
    /// 99 of 100 take no longer.
    pub p99_us: f64,
    /// 999 of 1,000 take no longer.
    pub p999_us: f64,
    /// Second requests, as a share of the first ones.
    pub second_share: f64,
}

/// What the query API knows of a node's times.
#[derive(Default)]
struct Seen {
    now: Vec<f64>,
    /// The percentile of the window before.
    before: Option<f64>,
}

impl Seen {
    fn hedge_after(&mut self) -> Option<f64> {
        let us = match self.before {
            Some(before) => before,
            None if self.now.len() < TIMES_MIN => return None,
            None => quantile(&mut self.now, HEDGE_QUANTILE),
        };
        Some(us.max(HEDGE_AFTER_MIN_US))
    }

    fn record(&mut self, us: f64) {
        self.now.push(us);
        if self.now.len() == WINDOW {
            self.before = Some(quantile(&mut mem::take(&mut self.now), HEDGE_QUANTILE));
        }
    }
}

/// Asks `fan_out.queries` times.
#[must_use]
pub fn run(fan_out: &FanOut, seed: u64) -> Tail {
    let mut random = Random::new(seed, 0xFA);
    let mut draw = || fan_out.times.at(random.below(1 << 53) as f64 / (1_u64 << 53) as f64);
    let mut seen: Vec<Seen> = (0..fan_out.nodes).map(|_| Seen::default()).collect();
    let (mut saved, mut second_requests) = (0_i64, 0_u64);
    let mut waits: Vec<f64> = (0..fan_out.queries)
        .map(|_| {
            let mut longest = 0.0_f64;
            for node in &mut seen {
                saved = (saved + 1).min(REQUESTS_PER_HEDGE * HEDGES_SAVED_MAX);
                let first = draw();
                let after = node.hedge_after().filter(|after| fan_out.hedged && first > *after);
                let took = match after {
                    Some(after) if saved >= REQUESTS_PER_HEDGE => {
                        saved -= REQUESTS_PER_HEDGE;
                        second_requests += 1;
                        first.min(after + draw())
                    }
                    _ => first,
                };
                // Of a request that was dropped it is known that it took at least so long.
                node.record(took);
                longest = longest.max(took);
            }
            longest
        })
        .collect();
    Tail {
        p50_us: quantile(&mut waits, 0.5),
        p99_us: quantile(&mut waits, 0.99),
        p999_us: quantile(&mut waits, 0.999),
        second_share: second_requests as f64 / (fan_out.queries * fan_out.nodes) as f64,
    }
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    let at = ((values.len() as f64 * q) as usize).min(values.len() - 1);
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: times are those that were measured where they were, and rise in between.
    #[test]
    fn times_go_through_their_points() {
        for times in [QUIET, CONTENDED] {
            for &(share, us) in times.0 {
                assert!((times.at(share) - us).abs() < 1e-6 * us, "{share}");
            }
            let drawn: Vec<f64> = (0..=1_000).map(|at| times.at(f64::from(at) / 1_000.0)).collect();
            assert!(drawn.is_sorted());
        }
    }

    /// Goal: a query of many nodes waits for the tail of one, and second requests, few as they are, take most of that away.
    #[test]
    fn second_requests_cut_the_tail() {
        let asked = FanOut { nodes: 100, queries: 3_000, times: CONTENDED, hedged: false };
        let one = run(&FanOut { nodes: 1, ..asked }, 1);
        let (plain, hedged) = (run(&asked, 1), run(&FanOut { hedged: true, ..asked }, 1));
        assert!(plain.p50_us > 10.0 * one.p50_us, "{plain:?} {one:?}");
        assert!(hedged.p99_us < plain.p99_us / 2.0, "{hedged:?} {plain:?}");
        assert!(plain.second_share == 0.0 && (0.001..=0.05).contains(&hedged.second_share), "{hedged:?}");
    }
}
