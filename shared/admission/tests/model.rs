//! The limiter against a plain model of token buckets, and its bounds where no model can follow.

use std::{
    collections::BTreeMap,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use admission::{
    BURST_MAX, COST_MAX, Cost, Decision, Limiter, LimiterConfig, Monotonic, RATE_MAX, Rate, SHARDS, Scope,
};
use proptest::prelude::*;
use types::TenantId;

const SECOND: u64 = 1_000_000_000;

/// Tokens in units of 1 / (10^9) event, so that a nanosecond brings exactly `rate` of them; negative: debt.
#[derive(Clone)]
struct Model {
    rate: i128,
    burst: i128,
    level: i128,
    seen: u64,
}

impl Model {
    fn new(rate: Rate) -> Self {
        let burst = i128::from(rate.burst()) * i128::from(SECOND);
        Self { rate: rate.per_second().into(), burst, level: burst, seen: 0 }
    }

    fn advance(&mut self, now: u64) {
        self.level = (self.level + i128::from(now - self.seen) * self.rate).min(self.burst);
        self.seen = now;
    }

    /// Nanoseconds until `cost` would be admitted; 0: now.
    fn wait(&self, cost: Cost) -> u64 {
        let needed = (i128::from(cost.events()) * i128::from(SECOND)).min(self.burst) - self.level;
        u64::try_from((needed.max(0) + self.rate - 1) / self.rate).unwrap()
    }

    fn take(&mut self, cost: Cost) {
        self.level -= i128::from(cost.events()) * i128::from(SECOND);
    }

    fn remaining(&self) -> u64 {
        u64::try_from(self.level.max(0) / i128::from(SECOND)).unwrap()
    }
}

/// Rates whose price of one event is a whole number of ticks, so that model and limiter agree to the nanosecond.
fn rate() -> impl Strategy<Value = Rate> {
    let rates = prop::sample::select(vec![1_u64, 4, 10, 64, 1_000, 1_000_000, 16_000_000, 16_000_000_000]);
    (rates, 1_u64..200).prop_map(|(rate, burst)| Rate::new(rate, burst).unwrap())
}

#[derive(Debug, Clone)]
enum Step {
    Admit { tenant: u64, cost: u64, after: u64 },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let after = prop_oneof![Just(0), 1_u64..100, 1_u64..SECOND, 1_u64..100 * SECOND];
    prop_oneof![
        8 => (0_u64..3, 1_u64..250, after).prop_map(|(tenant, cost, after)| Step::Admit { tenant, cost, after }),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    /// Goal: any history gets the decisions, waits and remainders of two plain token buckets, all or nothing, whatever
    /// is swept between.
    #[test]
    fn decisions_match_the_model(
        (global, own) in (rate(), rate()),
        key: u64,
        history in prop::collection::vec(step(), 1..200),
    ) {
        let limiter = Limiter::new(LimiterConfig { global, tenant: own }, key);
        let mut all = Model::new(global);
        let mut tenants = BTreeMap::<u64, Model>::new();
        let mut now = 0;
        for step in history {
            let Step::Admit { tenant, cost, after } = step else {
                for _ in 0..SHARDS {
                    let _ = limiter.sweep(Monotonic::from_nanos(now));
                }
                continue;
            };
            now += after;
            let one = tenants.entry(tenant).or_insert_with(|| Model::new(own));
            one.advance(now);
            all.advance(now);
            let (tenant, time) = (TenantId(tenant), Monotonic::from_nanos(now));
            let remaining = limiter.remaining(tenant, time);
            prop_assert_eq!((remaining.global, remaining.tenant), (all.remaining(), one.remaining()));

            let cost = Cost::new(cost).unwrap();
            let refused = |scope, wait| Decision::Refused { scope, retry_after: Duration::from_nanos(wait) };
            let expected = match (one.wait(cost), all.wait(cost)) {
                (0, 0) => Decision::Admitted,
                (0, wait) => refused(Scope::Global, wait),
                (wait, _) => refused(Scope::Tenant, wait),
            };
            if expected == Decision::Admitted {
                one.take(cost);
                all.take(cost);
            }
            prop_assert_eq!(limiter.admit(tenant, cost, time), expected);
        }
    }

    /// Goal: at any rate, and whatever the clock does, no more is admitted than the rate brings until the latest time,
    /// and the burst or the one larger request.
    #[test]
    fn no_clock_fills_a_bucket(
        // Such that a few hundred requests ask for more than the rate brings: else the bound says nothing.
        (rate, nanos) in prop_oneof![
            (1_u64..2_000, Just(SECOND)),
            (1_u64 << 30..1 << 37, Just(100_u64)),
            (RATE_MAX / 2..=RATE_MAX, Just(2_u64)),
        ],
        burst in 1_u64..1_000,
        requests in prop::collection::vec((0_u64..1 << 32, 1_u64..8), 1..3_000),
    ) {
        let rate = Rate::new(rate, burst).unwrap();
        let wide = Rate::new(RATE_MAX, BURST_MAX).unwrap();
        let limiter = Limiter::new(LimiterConfig { global: wide, tenant: rate }, 7);
        let (mut admitted, mut latest, mut largest) = (0_u128, 0, burst);
        for (moment, cost) in requests {
            let now = moment % nanos;
            latest = latest.max(now);
            largest = largest.max(cost);
            if limiter.admit(TenantId(1), Cost::new(cost).unwrap(), Monotonic::from_nanos(now)) == Decision::Admitted {
                admitted += u128::from(cost);
            }
            let brought = u128::from(rate.per_second()) * u128::from(latest) / u128::from(SECOND);
            prop_assert!(admitted <= brought + u128::from(largest), "{admitted} > {brought} + {largest}");
        }
    }
}

/// Goal: threads that race for buckets which are swept under them get at most the rate and the burst, together and each
/// tenant, and nearly all of it where they ask for more.
#[test]
fn threads_share_what_there_is() {
    const THREADS: u64 = 4;
    const TENANTS: u64 = 3;
    const REQUESTS: u64 = 50_000;
    let global = Rate::new(1_000_000, 100).unwrap();
    let own = Rate::new(400_000, 50).unwrap();
    let limiter = Limiter::new(LimiterConfig { global, tenant: own }, 42);
    let clock = AtomicU64::new(0);
    let admitted: [AtomicU64; TENANTS as usize] = Default::default();
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (limiter, clock, admitted) = (&limiter, &clock, &admitted);
            scope.spawn(move || {
                for request in 0..REQUESTS {
                    // 500 ns a request of 2 on average: four times the rate.
                    let now = Monotonic::from_nanos(clock.fetch_add(500, Relaxed));
                    let tenant = (request + seed) % TENANTS;
                    let cost = 1 + (request * 7 + seed) % 3;
                    if limiter.admit(TenantId(tenant), Cost::new(cost).unwrap(), now) == Decision::Admitted {
                        admitted[tenant as usize].fetch_add(cost, Relaxed);
                    }
                    if request % 64 == 0 {
                        let _ = limiter.sweep(now);
                    }
                }
            });
        }
    });
    let nanos = clock.load(Relaxed);
    let brought = |rate: Rate| rate.per_second() * nanos / SECOND;
    let each: Vec<u64> = admitted.iter().map(|admitted| admitted.load(Relaxed)).collect();
    let total: u64 = each.iter().sum();
    assert!(total <= brought(global) + global.burst(), "{total} of {}", brought(global));
    assert!(each.iter().all(|one| *one <= brought(own) + own.burst()), "{each:?}");
    assert!(total * 100 >= brought(global) * 90, "{total} of {}", brought(global));
}

/// Goal: while time stands still, racing threads get the burst to the event: no two ever take the same share.
#[test]
fn threads_share_a_burst_to_the_event() {
    const BURST: u64 = 1_000_000;
    const THREADS: usize = 4;
    let rate = Rate::new(1_000, BURST).unwrap();
    let wide = Rate::new(RATE_MAX, BURST_MAX).unwrap();
    for (global, own) in [(rate, wide), (wide, rate)] {
        let limiter = Limiter::new(LimiterConfig { global, tenant: own }, 1);
        let (one, together) = (Cost::new(1).unwrap(), Barrier::new(THREADS));
        let is_admitted = || limiter.admit(TenantId(1), one, Monotonic::default()) == Decision::Admitted;
        let take_all = || {
            together.wait();
            (0..BURST).filter(|_| is_admitted()).count()
        };
        let admitted: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted as u64, BURST);
    }
}

/// Goal: no number of events turns into a refund or a free pass.
#[test]
fn costs_are_bounded() {
    for bad in [0, u64::from(COST_MAX) + 1, u64::from(u32::MAX), u64::MAX] {
        assert!(Cost::new(bad).is_err(), "{bad}");
    }
    // The largest cost at the smallest rate and the end of time: the sums still hold.
    let slow = Rate::new(1, 1).unwrap();
    let limiter = Limiter::new(LimiterConfig { global: slow, tenant: slow }, 0);
    let (most, end) = (Cost::new(COST_MAX.into()).unwrap(), Monotonic::from_nanos(u64::MAX));
    assert_eq!(limiter.admit(TenantId(1), most, end), Decision::Admitted);
    assert!(matches!(limiter.admit(TenantId(1), most, end), Decision::Refused { .. }));
    assert_eq!(limiter.remaining(TenantId(1), end).tenant, 0);
}

/// Goal: idle tenants leave, busy ones stay, and nobody can tell from the decisions.
#[test]
fn idle_tenants_are_forgotten() {
    let rate = Rate::new(10, 10).unwrap();
    let wide = Rate::new(RATE_MAX, BURST_MAX).unwrap();
    let limiter = Limiter::new(LimiterConfig { global: wide, tenant: rate }, 3);
    for tenant in 0..1_000 {
        assert_eq!(limiter.admit(TenantId(tenant), Cost::new(5).unwrap(), Monotonic::default()), Decision::Admitted);
    }
    let sweep = |now| (0..SHARDS).map(|_| limiter.sweep(Monotonic::from_nanos(now)).evicted).sum::<usize>();
    assert_eq!(sweep(SECOND / 2 - 1), 0);
    assert_eq!(limiter.tenants(), 1_000);
    let now = SECOND / 2;
    assert_eq!(limiter.admit(TenantId(7), Cost::new(1).unwrap(), Monotonic::from_nanos(now)), Decision::Admitted);
    assert_eq!(sweep(now), 999);
    assert_eq!(limiter.tenants(), 1);
    assert_eq!(limiter.remaining(TenantId(8), Monotonic::from_nanos(now)).tenant, 10);
}
