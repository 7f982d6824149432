//! This gateway's shares of the budgets that all gateways of a cluster have together (docs/decisions/0021).
//!
//! 1. No request waits for the store but one of a tenant that this gateway has not met lately, and that for a second at most.
//! 2. Where the store is away, the last shares stay: nobody can be given more meanwhile.
//! 3. A renewal names all budgets that this gateway uses, so it takes the longer the more tenants there are. It is made the more seldom
//!    the longer it takes ([`Pace`]), so that renewals never fill the store's time, however many tenants and gateways there are.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use admission::{Budget, Demand, Limiter, Monotonic, Rate, Share};
use metadata::{ALL_TENANTS, Coordination, MetadataError, Want};
use service::Health;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{sleep, timeout},
};
use types::TenantId;

use crate::clock::Clock;

/// How often shares follow what is asked of this gateway, where the store is quick.
const RENEWED_EVERY: Duration = Duration::from_millis(300);
/// The least time between two renewals, where tenants are met that have no share.
const RENEWED_AT_MOST_EVERY: Duration = Duration::from_millis(50);
/// Between two renewals lies so many times as much time as the last one took.
const WAIT_PER_RENEWAL: u32 = 9;
/// The longest time between two renewals that is aimed at.
const RENEWED_AT_LEAST_EVERY: Duration = Duration::from_secs(10);
/// How long a share is good without renewal, at least.
const SHARE_TTL: Duration = Duration::from_secs(3);
/// How many renewals in a row may fail before a share runs out.
const RENEWALS_MISSED_MAX: u32 = 3;
/// How long a request waits for the first share of its tenant.
const FIRST_SHARE_WITHIN: Duration = Duration::from_secs(1);
/// Requests that may wait so at a time.
const WAITING_MAX: usize = 1_024;
/// Events of a new share that have to be there, if its burst has as many, before its first request goes on: the request's size is
/// not known yet, and one that is larger than what is there would be refused.
const FIRST_EVENTS: u64 = 1_000;
/// How long after the share came they are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Under this name the health tells that the store is away.
const SHARED_LIMITS: &str = "shared limits";

/// Where gateways agree on shares.
pub struct SharedLimits {
    /// The store.
    pub store: Arc<dyn Coordination>,
    /// This gateway: unique among those that live, and the same over its restarts, so that it finds its shares again.
    pub gateway: String,
}

/// The shares of this gateway.
pub(crate) struct Shares {
    wanted: Notify,
    /// Counts renewals.
    renewals: watch::Sender<u64>,
    waiting: Semaphore,
}

impl Default for Shares {
    fn default() -> Self {
        Self { wanted: Notify::new(), renewals: watch::Sender::new(0), waiting: Semaphore::new(WAITING_MAX) }
    }
}

impl Shares {
    /// Waits until this gateway has a share of a tenant's budget and of that of all, and the first events of them have come. Gives
    /// up after a second, or where too many wait: then the limiter refuses the request.
    pub(crate) async fn met(&self, limiter: &Limiter, tenant: TenantId, clock: &dyn Clock) {
        let has = |budget| limiter.share(budget) > Share::NONE;
        if has(Budget::Tenant(tenant)) && has(Budget::Global) {
            return;
        }
        let Ok(_place) = self.waiting.try_acquire() else { return };
        limiter.ask(tenant);
        let mut renewals = self.renewals.subscribe();
        self.wanted.notify_one();
        let share = async {
            while !(has(Budget::Tenant(tenant)) && has(Budget::Global)) && renewals.changed().await.is_ok() {}
            while !has_first_events(limiter, tenant, Monotonic::from_elapsed(clock.monotonic())) {
                sleep(LOOK_AGAIN).await;
            }
        };
        let _ = timeout(FIRST_SHARE_WITHIN, share).await;
    }

    /// Renews the shares for as long as the gateway runs.
    pub(crate) async fn follow(&self, limits: SharedLimits, limiter: &Limiter, clock: &dyn Clock, health: Health) {
        let (mut demand, mut held) = (Demand::default(), BTreeSet::new());
        let (mut last, mut pace) = (clock.monotonic(), Pace::after(Duration::ZERO));
        loop {
            let now = clock.monotonic();
            let wants = demand.observe(limiter, now.saturating_sub(last));
            last = now;
            let began = Instant::now();
            let renewed = renew(&limits, &wants, pace.ttl).await;
            pace = Pace::after(began.elapsed());
            match renewed {
                Ok(shares) => {
                    health.recover(SHARED_LIMITS);
                    held = take_up(limiter, &held, &shares, Monotonic::from_elapsed(clock.monotonic()));
                    self.renewals.send_modify(|count| *count += 1);
                }
                Err(error) => {
                    metrics::counter!("truenow_gateway_share_renewals_failed_total").increment(1);
                    health.degrade(SHARED_LIMITS, format!("limits go by the last shares of them: {error}"));
                }
            }
            // A burst of new tenants shares renewals.
            sleep(pace.wait_min).await;
            tokio::select! {
                () = sleep(pace.wait.saturating_sub(pace.wait_min)) => {}
                () = self.wanted.notified() => {}
            }
        }
    }
}

/// When the next renewal is made, and for how long it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    /// Until the next one.
    wait: Duration,
    /// Until the next one, where tenants are met that have no share.
    wait_min: Duration,
    /// How long shares are good.
    ttl: Duration,
}

impl Pace {
    /// After a renewal that took so long.
    fn after(took: Duration) -> Self {
        let wait = (took * WAIT_PER_RENEWAL).clamp(RENEWED_EVERY, RENEWED_AT_LEAST_EVERY);
        let ttl = ((wait + took) * (RENEWALS_MISSED_MAX + 1)).max(SHARE_TTL);
        Self { wait, wait_min: took.clamp(RENEWED_AT_MOST_EVERY, wait), ttl }
    }
}

/// Whether [`FIRST_EVENTS`] of both budgets, or as many as this gateway's parts of the bursts have, may come at once.
fn has_first_events(limiter: &Limiter, tenant: TenantId, now: Monotonic) -> bool {
    let (config, remaining) = (limiter.config(), limiter.remaining(tenant, now));
    let wanted = |rate: Rate, budget| {
        let burst = u128::from(rate.burst()) * u128::from(limiter.share(budget).millionths())
            / u128::from(Share::WHOLE.millionths());
        u64::try_from(burst).unwrap_or(FIRST_EVENTS).clamp(1, FIRST_EVENTS)
    };
    remaining.tenant >= wanted(config.tenant, Budget::Tenant(tenant))
        && remaining.global >= wanted(config.global, Budget::Global)
}

/// Asks the store for shares, in no more time than they are good for.
async fn renew(
    limits: &SharedLimits,
    wants: &[(Budget, u64)],
    ttl: Duration,
) -> Result<Vec<(Budget, Share)>, MetadataError> {
    let wants: Vec<_> = wants.iter().map(|&(budget, rate)| Want { tenant: key_of(budget), rate }).collect();
    let renewed = timeout(ttl, limits.store.renew_shares(&limits.gateway, &wants, ttl)).await;
    let shares = renewed.map_err(|_| MetadataError::TimedOut(ttl))??;
    Ok(shares.iter().map(|share| (budget_of(share.tenant), Share::of_millionths(share.of_whole))).collect())
}

/// Sets the shares, and takes away those of `held` that are no longer among them. Gives those that are held now.
fn take_up(limiter: &Limiter, held: &BTreeSet<Budget>, shares: &[(Budget, Share)], now: Monotonic) -> BTreeSet<Budget> {
    let now_held: BTreeSet<_> = shares.iter().map(|(budget, _)| *budget).collect();
    for budget in held.difference(&now_held) {
        limiter.set_share(*budget, Share::NONE, false, now);
    }
    for (budget, share) in shares {
        // All of it at once says that no other gateway has had a share for as long as shares are good.
        let first = limiter.share(*budget) == Share::NONE && *share == Share::WHOLE;
        limiter.set_share(*budget, *share, first && burst_comes_within(limiter, *budget, SHARE_TTL), now);
    }
    metrics::gauge!("truenow_gateway_budgets_shared").set(now_held.len() as f64);
    now_held
}

fn burst_comes_within(limiter: &Limiter, budget: Budget, time: Duration) -> bool {
    let config = limiter.config();
    let rate = match budget {
        Budget::Global => config.global,
        Budget::Tenant(_) => config.tenant,
    };
    u128::from(rate.burst()) * 1_000 <= u128::from(rate.per_second()) * time.as_millis()
}

fn key_of(budget: Budget) -> TenantId {
    match budget {
        Budget::Global => ALL_TENANTS,
        Budget::Tenant(tenant) => tenant,
    }
}

fn budget_of(key: TenantId) -> Budget {
    if key == ALL_TENANTS { Budget::Global } else { Budget::Tenant(key) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: however long a renewal takes, this gateway asks for a tenth of the store's time at most, or makes one renewal in ten
        /// seconds; with new tenants all the time, for half of it; and its shares outlive three that fail. A quick store is asked as
        /// often as shares are to follow.
        #[test]
        fn renewals_leave_the_store_its_time(took_us in 0..60_000_000_u64) {
            let took = Duration::from_micros(took_us);
            let Pace { wait, wait_min, ttl } = Pace::after(took);
            prop_assert!(took * 10 <= wait + took || wait == RENEWED_AT_LEAST_EVERY);
            prop_assert!(took <= wait_min || wait_min == RENEWED_AT_LEAST_EVERY);
            prop_assert!(RENEWED_AT_MOST_EVERY <= wait_min && wait_min <= wait && RENEWED_EVERY <= wait);
            prop_assert!(ttl > 3 * (wait + took) && ttl >= SHARE_TTL);
            if took < Duration::from_millis(30) {
                prop_assert_eq!((wait, wait_min, ttl), (RENEWED_EVERY, RENEWED_AT_MOST_EVERY, SHARE_TTL));
            }
        }
    }
}
