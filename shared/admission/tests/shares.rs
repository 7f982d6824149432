//! Several limiters within the same limits, by shares.

use std::{collections::BTreeMap, time::Duration};

use admission::{BURST_MAX, Budget, Cost, Decision, Demand, Limiter, LimiterConfig, Monotonic, RATE_MAX, Rate, Share};
use proptest::prelude::*;
use types::TenantId;

const SECOND: u64 = 1_000_000_000;
const TENANT: TenantId = TenantId(7);
const LIMITERS: usize = 3;
const COST_MOST: u64 = 7;

#[derive(Debug, Clone)]
enum Step {
    Admit { limiter: usize, cost: u64, after: u64 },
    Share { limiter: usize, want: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let after = prop_oneof![4 => Just(0), 4 => 1_u64..SECOND / 1_000, 1 => 1_u64..SECOND];
    prop_oneof![
        12 => (0..LIMITERS, 1..=COST_MOST, after)
            .prop_map(|(limiter, cost, after)| Step::Admit { limiter, cost, after }),
        1 => (0..LIMITERS, 0_u64..=1_000_000).prop_map(|(limiter, want)| Step::Share { limiter, want }),
    ]
}

fn limiters(tenant: Rate) -> Vec<Limiter> {
    let global = Rate::new(RATE_MAX, BURST_MAX).unwrap();
    let limiters: Vec<_> = (0..LIMITERS).map(|n| Limiter::shared(LimiterConfig { global, tenant }, n as u64)).collect();
    for limiter in &limiters {
        limiter.set_share(Budget::Global, Share::WHOLE, true, Monotonic::default());
    }
    limiters
}

proptest! {
    /// Goal: however the shares of a budget change hands, as long as they never exceed the whole, all limiters together admit no
    /// more than rate times time, one burst, and what a single request may be larger than its limiter's part of it.
    #[test]
    fn shares_admit_no_more_than_the_whole(
        rate in prop::sample::select(vec![10_u64, 1_000, 100_000]),
        burst in 1_u64..300,
        history in prop::collection::vec(step(), 1..600),
    ) {
        let limiters = limiters(Rate::new(rate, burst).unwrap());
        let mut shares = [0_u64; LIMITERS];
        let (mut now, mut admitted) = (0, 0);
        for step in history {
            match step {
                Step::Share { limiter, want } => {
                    let others = shares.iter().sum::<u64>() - shares[limiter];
                    shares[limiter] = want.min(1_000_000 - others);
                    let share = Share::of_millionths(shares[limiter]);
                    limiters[limiter].set_share(Budget::Tenant(TENANT), share, false, Monotonic::from_nanos(now));
                }
                Step::Admit { limiter, cost, after } => {
                    now += after;
                    let decision = limiters[limiter].admit(TENANT, Cost::new(cost).unwrap(), Monotonic::from_nanos(now));
                    if decision == Decision::Admitted {
                        prop_assert!(shares[limiter] > 0);
                        admitted += cost;
                    }
                }
            }
            let brought = u128::from(rate) * u128::from(now) / u128::from(SECOND);
            let bound = brought + u128::from(burst + LIMITERS as u64 * COST_MOST);
            prop_assert!(u128::from(admitted) <= bound, "{admitted} admitted, {bound} at most");
        }
    }

    /// Goal: a share that falls and rises again brings nothing: what was held before is at most scaled down.
    #[test]
    fn a_share_that_comes_back_brings_nothing(
        first in 1_u64..=1_000_000,
        second in 1_u64..=1_000_000,
        used in 0_u64..1_000,
    ) {
        let limiter = &limiters(Rate::new(1_000, 1_000).unwrap())[0];
        let now = Monotonic::from_nanos(5 * SECOND);
        let (budget, share) = (Budget::Tenant(TENANT), Share::of_millionths);
        limiter.set_share(budget, share(first), true, now);
        prop_assert_eq!(limiter.remaining(TENANT, now).tenant, first * 1_000 / 1_000_000);
        for _ in 0..used {
            let _ = limiter.admit(TENANT, Cost::new(1).unwrap(), now);
        }
        let before = limiter.remaining(TENANT, now).tenant;
        limiter.set_share(budget, share(second), false, now);
        let between = limiter.remaining(TENANT, now).tenant;
        prop_assert!(between <= before && between <= second * 1_000 / 1_000_000);
        limiter.set_share(budget, share(first), false, now);
        prop_assert!(limiter.remaining(TENANT, now).tenant <= between);
    }
}

/// What a store does with wants: proportional parts, as far as others have given theirs up.
#[derive(Default)]
struct Store {
    rows: BTreeMap<(Budget, usize), (u64, u64)>,
}

impl Store {
    fn renew(&mut self, process: usize, wants: &[(Budget, u64)]) -> Vec<(Budget, u64)> {
        self.rows.retain(|(_, of), _| *of != process);
        let mut shares = Vec::new();
        for &(budget, want) in wants {
            let others = self.rows.range((budget, 0)..=(budget, usize::MAX));
            let (wanted, given) = others.fold((0, 0), |(w, g), (_, row)| (w + row.0, g + row.1));
            shares.push((budget, (want * 1_000_000 / (want + wanted)).min(1_000_000 - given)));
        }
        self.rows
            .extend(shares.iter().zip(wants).map(|((budget, share), (_, want))| ((*budget, process), (*want, *share))));
        shares
    }
}

/// Events admitted in 30 s by two limiters that are asked for `asked` events a millisecond each, with renewals every 300 ms.
fn admitted_in_30_s(tenant: Rate, asked: [u64; 2]) -> u64 {
    let limiters = &limiters(tenant)[..2];
    let (mut store, mut demands) = (Store::default(), [Demand::default(), Demand::default()]);
    let mut admitted = 0;
    for millisecond in 0..30_000_u64 {
        let now = Monotonic::from_nanos(millisecond * 1_000_000);
        for (process, limiter) in limiters.iter().enumerate() {
            if millisecond % 300 == 150 * process as u64 + 1 {
                for (budget, share) in
                    store.renew(process, &demands[process].observe(limiter, Duration::from_millis(300)))
                {
                    if budget == Budget::Tenant(TENANT) {
                        limiter.set_share(budget, Share::of_millionths(share), false, now);
                    }
                }
            }
            for _ in 0..asked[process] / 50 {
                admitted += 50 * u64::from(limiter.admit(TENANT, Cost::new(50).unwrap(), now) == Decision::Admitted);
            }
        }
    }
    admitted
}

/// Goal: two processes of which one gets 95 % of a load of four times the limit admit the limit, within 1 % and a burst, from their
/// first moment on; so they do when the load is even.
#[test]
fn a_skewed_load_gets_the_whole_rate() {
    let rate = Rate::new(100_000, 100_000).unwrap();
    for asked in [[380_u64, 20], [200, 200], [1_000, 50]] {
        let admitted = admitted_in_30_s(rate, asked.map(|events| events.next_multiple_of(50)));
        let whole = 30 * rate.per_second();
        assert!(
            (whole - whole / 100..=whole + whole / 100 + rate.burst()).contains(&admitted),
            "{asked:?}: {admitted}"
        );
    }
}

/// Goal: a budget that nobody uses is named no more, after its silence; the global one always is, by its least part.
#[test]
fn silence_frees_a_budget() {
    let rate = Rate::new(10_000, 10).unwrap();
    let limiter = Limiter::shared(LimiterConfig { global: rate, tenant: rate }, 1);
    let mut demand = Demand::default();
    limiter.ask(TENANT);
    let wants: BTreeMap<_, _> = demand.observe(&limiter, Duration::from_secs(1)).into_iter().collect();
    assert_eq!(wants, BTreeMap::from([(Budget::Global, 10), (Budget::Tenant(TENANT), 10)]));
    for _ in 0..29 {
        demand.observe(&limiter, Duration::from_secs(1));
    }
    assert!(demand.names(Budget::Tenant(TENANT)));
    demand.observe(&limiter, Duration::from_secs(1));
    assert!(!demand.names(Budget::Tenant(TENANT)) && demand.names(Budget::Global));
}
