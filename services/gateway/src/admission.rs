//! Admission before work: how full the way into the log is, how far behind its application, the memory that is left, and
//! rates per tenant and over all.
//!
//! 1. Nothing is read, inflated or decoded for a request that is not admitted, so that refusing costs next to nothing.
//! 2. Every refusal says when to come back: for a rate, when it has room again; else spread, so that those who were refused
//!    together do not come back together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use admission::{
    Cost, Decision, Limiter, Monotonic, Rate, Scope,
    overload::{LagLimits, Standing, spread},
};
use event_log::Load;
use metrics::Gauge;
use proto::{
    hot_tier::{MemoryState, NodeMemory},
    progress::ApplyLag,
};
use serde_json::json;
use types::{ApiError, ErrorCode, TenantId};

/// Above this share of the log's queue nothing new is taken, percent.
const QUEUE_FULL_PERCENT: u64 = 90;
/// When to come back at the earliest where the server has too much to do.
pub(crate) const RETRY_AFTER_LEAST: Duration = Duration::from_secs(1);

/// Who may send how much, and whether anybody may now.
pub(crate) struct Admission {
    pub(crate) limiter: Limiter,
    pub(crate) lag: Arc<dyn ApplyLag>,
    pub(crate) lag_limits: LagLimits,
    pub(crate) memory: Arc<dyn NodeMemory>,
    /// Spreads the times to come back. Relaxed: it orders nothing.
    pub(crate) refusals: AtomicU64,
    /// What waits in the log's queue, as the last request found it.
    pub(crate) queued: Gauge,
}

impl Admission {
    /// Whether a tenant's requests are taken at all now. Takes nothing.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: the log's queue is too full, its application too far behind, memory short, or a rate used up.
    pub(crate) fn open(&self, tenant: TenantId, load: &Load, now: Duration) -> Result<(), ApiError> {
        self.queued.set(load.queued_bytes as f64);
        if u128::from(load.queued_bytes) * 100 > u128::from(load.queued_bytes_max) * u128::from(QUEUE_FULL_PERCENT) {
            return Err(self.overloaded("log_queue", "the event log's queue is full, try again later"));
        }
        let lag = self.lag.lag();
        if self.lag_limits.judge(lag.bytes, lag.age) == Standing::Refused {
            return Err(self.overloaded("apply_lag", &format!("{}, try again later", describe_lag(lag))));
        }
        self.check_memory()?;
        let remaining = self.limiter.remaining(tenant, Monotonic::from_elapsed(now));
        let scope = match (remaining.tenant, remaining.global) {
            (0, _) => Scope::Tenant,
            (_, 0) => Scope::Global,
            _ => return Ok(()),
        };
        self.limiter.ask(tenant);
        Err(over_rate(scope, Duration::ZERO))
    }

    fn check_memory(&self) -> Result<(), ApiError> {
        match self.memory.memory() {
            MemoryState::Room => Ok(()),
            MemoryState::IdsFull => Err(self.overloaded(
                "dedup_window_us",
                "the identities of the events in the dedup windows take all memory that they may; a shorter dedup_window_us of \
                 the busiest tables, or more memory, makes room; try again later",
            )),
            MemoryState::Full => Err(self.overloaded("memory", "memory is short, try again later")),
        }
    }

    /// What is worth a warning though events are still taken, or no more; `None`: all is well.
    pub(crate) fn warning(&self) -> Option<String> {
        let lag = self.lag.lag();
        match self.lag_limits.judge(lag.bytes, lag.age) {
            Standing::Well => self.check_memory().err().map(|error| error.message),
            Standing::Degraded => Some(describe_lag(lag)),
            Standing::Refused => Some(format!("{}: events are refused", describe_lag(lag))),
        }
    }

    /// Takes `events` of what a tenant may send, all or nothing; the rejected ones cost as much as the others.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` with the time after which they would pass.
    pub(crate) fn admit(&self, tenant: TenantId, events: u64, now: Duration) -> Result<(), ApiError> {
        if events == 0 {
            return Ok(());
        }
        let cost = Cost::new(events).map_err(|error| ApiError::new(ErrorCode::TooLarge, error.to_string()))?;
        match self.limiter.admit(tenant, cost, Monotonic::from_elapsed(now)) {
            Decision::Admitted => Ok(()),
            Decision::Refused { scope, retry_after } => Err(over_rate(scope, retry_after)),
        }
    }

    /// The tenant's rates and what is left of them.
    pub(crate) fn limits_of(&self, tenant: TenantId, now: Duration) -> serde_json::Value {
        let remaining = self.limiter.remaining(tenant, Monotonic::from_elapsed(now));
        let shown = |rate: Rate, remaining: u64| json!({"events_per_second": rate.per_second(), "burst": rate.burst(), "remaining": remaining});
        let config = self.limiter.config();
        json!({"global": shown(config.global, remaining.global), "tenant": shown(config.tenant, remaining.tenant)})
    }

    /// A refusal for all, because of `field`.
    pub(crate) fn overloaded(&self, field: &'static str, message: &str) -> ApiError {
        metrics::counter!("truenow_ingest_limited_total", "limit" => field).increment(1);
        let after = spread(RETRY_AFTER_LEAST, self.refusals.fetch_add(1, Relaxed));
        ApiError::new(ErrorCode::ResourceExhausted, message).with_field(field).with_retry_after(after)
    }
}

fn describe_lag(lag: proto::progress::Lag) -> String {
    let (seconds, mib) = (lag.age.as_secs_f64(), lag.bytes >> 20);
    format!("what came in is {seconds:.1} s and {mib} MiB ahead of what is applied")
}

fn over_rate(scope: Scope, retry_after: Duration) -> ApiError {
    let (field, name) = match scope {
        Scope::Global => ("rate_limit", "all tenants together send"),
        Scope::Tenant => ("tenant_rate_limit", "this tenant sends"),
    };
    metrics::counter!("truenow_ingest_limited_total", "limit" => field).increment(1);
    ApiError::new(ErrorCode::ResourceExhausted, format!("{name} more events than the rate limit, try again later"))
        .with_field(field)
        .with_retry_after(retry_after)
}
