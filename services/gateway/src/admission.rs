//! Admission before work: rates per tenant and over all, and how full the way into the log is.

use std::time::Duration;

use admission::{Cost, Decision, Limiter, Monotonic, Rate, Scope};
use event_log::Load;
use serde_json::json;
use types::{ApiError, ErrorCode, TenantId};

use crate::ingest::queue_full;

/// Above this share of the log's queue nothing new is taken, percent.
const QUEUE_FULL_PERCENT: u64 = 90;
/// When to come back where the log's queue is too full.
const QUEUE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Who may send how much.
pub(crate) struct Admission {
    pub(crate) limiter: Limiter,
}

impl Admission {
    /// Whether a tenant's requests are taken at all now. Takes nothing.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: a rate is used up, or the log's queue is too full.
    pub(crate) fn open(&self, tenant: TenantId, load: &Load, now: Duration) -> Result<(), ApiError> {
        metrics::gauge!("truenow_log_queue_bytes").set(load.queued_bytes as f64);
        if u128::from(load.queued_bytes) * 100 > u128::from(load.queued_bytes_max) * u128::from(QUEUE_FULL_PERCENT) {
            return Err(queue_full(QUEUE_RETRY_AFTER));
        }
        let remaining = self.limiter.remaining(tenant, Monotonic::from_elapsed(now));
        match (remaining.tenant, remaining.global) {
            (0, _) => Err(over_rate(Scope::Tenant, Duration::ZERO)),
            (_, 0) => Err(over_rate(Scope::Global, Duration::ZERO)),
            _ => Ok(()),
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
