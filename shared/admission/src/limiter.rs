//! The limiter: the decision on one request by the global bucket and its tenant's.

use std::time::Duration;

use crossbeam_utils::CachePadded;
use types::TenantId;

use crate::{
    bucket::{Bucket, Take},
    cost::Cost,
    rate::Rate,
    share::Share,
    tenants::{Swept, Tenants},
    ticks::{Monotonic, duration_of},
};

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimiterConfig {
    /// All tenants together.
    pub global: Rate,
    /// Each tenant.
    pub tenant: Rate,
}

/// Which limit refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// That of all tenants together.
    Global,
    /// That of the tenant.
    Tenant,
}

/// The decision on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Both buckets gave.
    Admitted,
    /// Neither did.
    Refused {
        /// Which limit refused; where both would, the tenant's, for that one the caller can do something about.
        scope: Scope,
        /// When the request would pass if nothing else came.
        retry_after: Duration,
    },
}

/// What a process has a share of, where several work within the same limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Budget {
    /// That of all tenants together.
    Global,
    /// That of one tenant.
    Tenant(TenantId),
}

/// What may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Events of all tenants together.
    pub global: u64,
    /// Events of the tenant.
    pub tenant: u64,
}

/// Rate limits of one process.
///
/// A request larger than a burst is admitted when the bucket is full, and leaves it in debt: it passes now, and what
/// comes after it waits until the rate has paid for it. Over any time, what is admitted is at most rate · time + burst
/// (or one such request in the burst's place).
///
/// Where several processes work within the same limits ([`Limiter::shared`]), each admits within its [`Share`] of rate and burst.
/// As long as the shares of a budget never exceed the whole, what all admit is within the same bound, where each process may admit
/// one larger request.
pub struct Limiter {
    config: LimiterConfig,
    shared: bool,
    global: CachePadded<Bucket>,
    tenants: Tenants,
}

impl Limiter {
    /// A limiter whose buckets are full. `key`: random, drawn anew by each process.
    #[must_use]
    pub fn new(config: LimiterConfig, key: u64) -> Self {
        Self::with(config, key, Share::WHOLE)
    }

    /// A limiter of one of several processes with the same limits: it admits nothing of a budget before it has a share of it.
    #[must_use]
    pub fn shared(config: LimiterConfig, key: u64) -> Self {
        Self::with(config, key, Share::NONE)
    }

    fn with(config: LimiterConfig, key: u64, share: Share) -> Self {
        let (global, tenants) = (CachePadded::new(Bucket::new(share)), Tenants::new(key, share));
        Self { config, shared: share != Share::WHOLE, global, tenants }
    }

    /// The limits.
    #[must_use]
    pub fn config(&self) -> LimiterConfig {
        self.config
    }

    /// Decides on a request of `tenant` that costs `cost` at `now`.
    ///
    /// All or nothing: both buckets are asked first and changed only if both would give. Between the two, another
    /// request may empty the global one; then the tenant's share is given back, unless another request of the same
    /// tenant came in these nanoseconds as well, when it stays taken. So the error is on the strict side, never above
    /// the rate, and only while the global limit refuses anyway.
    pub fn admit(&self, tenant: TenantId, cost: Cost, now: Monotonic) -> Decision {
        let now = now.ticks();
        let LimiterConfig { global, tenant: own } = self.config;
        if self.shared {
            self.global.ask(cost);
            self.tenants.with(tenant, |bucket| bucket.ask(cost));
        }
        let global_wait = self.global.wait(global, cost, now);
        if global_wait > 0 {
            let own_wait = self.tenants.wait(tenant, own, cost, now);
            return if own_wait > 0 { refused(Scope::Tenant, own_wait) } else { refused(Scope::Global, global_wait) };
        }
        let confirm = || match self.global.take(global, cost, now) {
            Take::Taken(_) => Ok(()),
            Take::Wait { ticks } => Err(refused(Scope::Global, ticks)),
            Take::Swept => unreachable!("the global bucket is in no map and never swept"),
        };
        let refuse = |ticks| refused(Scope::Tenant, ticks);
        match self.tenants.take(tenant, (own, cost, now), refuse, confirm) {
            Ok(()) => Decision::Admitted,
            Err(refusal) => refusal,
        }
    }

    /// What could come at once at `now`.
    #[must_use]
    pub fn remaining(&self, tenant: TenantId, now: Monotonic) -> Remaining {
        let now = now.ticks();
        Remaining {
            global: self.global.remaining(self.config.global, now),
            tenant: self.tenants.remaining(tenant, self.config.tenant, now),
        }
    }

    /// What this process has of a budget.
    #[must_use]
    pub fn share(&self, budget: Budget) -> Share {
        match budget {
            Budget::Global => self.global.share(),
            Budget::Tenant(tenant) => self.tenants.share(tenant),
        }
    }

    /// Sets what this process has of a budget, at `now`. A share that falls takes the same part of the tokens with it. One that
    /// grows brings none for the time before, unless `full`: nobody has used the budget for as long as its burst takes to come.
    /// To be called from one thread at a time.
    pub fn set_share(&self, budget: Budget, share: Share, full: bool, now: Monotonic) {
        let (LimiterConfig { global, tenant: own }, now) = (self.config, now.ticks());
        match budget {
            Budget::Global => self.global.set_share(share, full, global, now),
            Budget::Tenant(tenant) => self.tenants.with(tenant, |bucket| bucket.set_share(share, full, own, now)),
        }
    }

    /// Notes that a tenant asks for something that is refused before anything is known of it.
    pub fn ask(&self, tenant: TenantId) {
        if self.shared {
            self.global.ask_as_before();
            self.tenants.with(tenant, Bucket::ask_as_before);
        }
    }

    /// Shows the events that were asked for since the last call, admitted or not, by budget: those of a shared limiter that it
    /// knows.
    pub fn take_asked(&self, mut show: impl FnMut(Budget, u64)) {
        show(Budget::Global, self.global.take_asked());
        self.tenants.each(|tenant, bucket| show(Budget::Tenant(tenant), bucket.take_asked()));
    }

    /// Forgets idle tenants in one of the [`crate::SHARDS`] shards, the next one at each call: to be called from a
    /// timer, so that no request pays for it.
    pub fn sweep(&self, now: Monotonic) -> Swept {
        self.tenants.sweep(now.ticks())
    }

    /// Tenants that have a bucket.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.tenants.len()
    }
}

fn refused(scope: Scope, ticks: u64) -> Decision {
    Decision::Refused { scope, retry_after: duration_of(ticks) }
}
