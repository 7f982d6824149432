//! Hierarchical rate limits over a passed-in time: one global bucket, and one per tenant. And the limits of a lag
//! ([`overload`]), the pace of work ([`Pace`]), and whether somebody who fails is asked at all ([`Breaker`]).
//!
//! 1. A request is admitted by both buckets or takes from neither; the tenant's share is never more than its rate and
//!    burst, whatever the number of threads.
//! 2. Nothing here waits: a bucket is one word that changes by compare-and-swap, a map of tenants has no lock.
//! 3. Time is monotonic and an argument. A time that lies before one already seen gives nothing.
//! 4. A tenant that has not sent for as long as its bucket takes to fill costs nothing: [`Limiter::sweep`] forgets it,
//!    which changes no decision, for a bucket that is not there is a full one.
//! 5. Several processes with the same limits each have a [`Share`] of every budget: there is no exchange on the way of a request.
//! 6. Tenants are spread by a key of this process, so that nobody can choose ids that meet in one shard.

mod breaker;
mod bucket;
mod cost;
mod demand;
mod limiter;
pub mod overload;
mod pace;
mod rate;
mod share;
mod tenants;
mod ticks;

pub use breaker::{Breaker, BreakerConfig, BreakerState, Permit};
pub use cost::{COST_MAX, Cost, CostError};
pub use demand::Demand;
pub use limiter::{Budget, Decision, Limiter, LimiterConfig, Remaining, Scope};
pub use pace::Pace;
pub use rate::{BURST_MAX, RATE_MAX, Rate, RateError};
pub use share::Share;
pub use tenants::{SHARDS, Swept};
pub use ticks::Monotonic;
