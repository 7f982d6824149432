//! What a tenant costs in memory. Alone in its process, so that nothing else moves the figure.

use admission::{BURST_MAX, Cost, Decision, Limiter, LimiterConfig, Monotonic, RATE_MAX, Rate};
use types::TenantId;

const TENANTS: u64 = 1_000_000;
/// Most bytes that a tenant may take, the map's spare room included.
const TENANT_BYTES_MAX: u64 = 128;

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux tells its processes their size");
    let resident: u64 = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    resident * 4_096
}

/// Goal: a million tenants fit into little memory.
#[test]
fn a_million_tenants_fit() {
    let rate = Rate::new(1, 10).unwrap();
    let wide = Rate::new(RATE_MAX, BURST_MAX).unwrap();
    let limiter = Limiter::new(LimiterConfig { global: wide, tenant: rate }, 9);
    let before = resident_bytes();
    for tenant in 0..TENANTS {
        let now = Monotonic::from_nanos(tenant);
        assert_eq!(limiter.admit(TenantId(tenant), Cost::new(1).unwrap(), now), Decision::Admitted);
    }
    assert_eq!(limiter.tenants() as u64, TENANTS);
    let each = (resident_bytes() - before) / TENANTS;
    assert!((16..=TENANT_BYTES_MAX).contains(&each), "{each} bytes a tenant");
}
