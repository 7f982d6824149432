//! How fast events of one tenant may create tables: a bucket per tenant that fills over a passed-in time.

use std::{collections::BTreeMap, time::Duration};

use types::TenantId;

const MINUTE: Duration = Duration::from_secs(60);

/// Buckets of a minute's worth of tables. Tenants whose bucket is full are forgotten.
pub(crate) struct CreationRate {
    per_minute: u32,
    /// When each tenant's bucket will be full again, as time since the start of the process.
    full_at: BTreeMap<TenantId, Duration>,
}

impl CreationRate {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, full_at: BTreeMap::new() }
    }

    /// Takes one table from the tenant's bucket.
    ///
    /// # Errors
    /// The bucket is empty; it holds one again after this time.
    pub(crate) fn take(&mut self, tenant: TenantId, now: Duration) -> Result<(), Duration> {
        let Some(one) = MINUTE.checked_div(self.per_minute) else {
            return Err(MINUTE);
        };
        self.full_at.retain(|_, full_at| *full_at > now);
        let full_at = self.full_at.get(&tenant).copied().unwrap_or(now) + one;
        if full_at > now + MINUTE {
            return Err(full_at - now - MINUTE);
        }
        self.full_at.insert(tenant, full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a minute's worth passes at once, then one per interval; tenants do not share; a clock that stands gives nothing.
    #[test]
    fn a_tenant_creates_at_its_rate() {
        let mut rate = CreationRate::new(60);
        let start = Duration::from_secs(5);
        let taken = (0..100).filter(|_| rate.take(TenantId(1), start).is_ok()).count();
        assert_eq!(taken, 60);
        assert_eq!(rate.take(TenantId(1), start), Err(Duration::from_secs(1)));
        assert_eq!(rate.take(TenantId(2), start), Ok(()));
        assert_eq!(rate.take(TenantId(1), start + Duration::from_secs(1)), Ok(()));
        assert!(rate.take(TenantId(1), start + Duration::from_secs(1)).is_err());
        assert_eq!(CreationRate::new(0).take(TenantId(1), start), Err(MINUTE));
    }

    /// Goal: idle tenants take no memory.
    #[test]
    fn idle_tenants_are_forgotten() {
        let mut rate = CreationRate::new(60);
        for tenant in 0..1_000 {
            rate.take(TenantId(tenant), Duration::ZERO).unwrap();
        }
        rate.take(TenantId(0), Duration::from_secs(10)).unwrap();
        assert_eq!(rate.full_at.len(), 1);
    }
}
