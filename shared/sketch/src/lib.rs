//! Approximate answers about many values in little memory. Everything here is a function of its arguments.
//!
//! | sketch | answers | bound |
//! |---|---|---|
//! | [`Hll`] | how many distinct items | relative, at 4 standard errors |
//! | [`QuantileSketch`] | the value of a rank | relative, guaranteed |
//! | [`TDigest`] | the value of a rank, finest at both ends | none |
//! | [`CountMin`] | how often one item came | absolute, at a confidence |
//! | [`HeavyHitters`] | which items came most often | absolute, guaranteed |
//! | [`CuckooFilter`] | whether an item may have come | (confirmed elsewhere) |
//!
//! 1. [`Hll`], [`QuantileSketch`] and [`CountMin`] are functions of the multiset that they took, however it was split,
//!    ordered and merged: equal multisets give equal sketches and equal bytes. [`HeavyHitters`] and [`TDigest`] depend on
//!    the order of the calls too: callers keep to one canonical order.
//! 2. Items come hashed by [`hash_str`] where the sketch asks for hashes, so that replicas and nodes agree.
//! 3. Bytes are `kind, version, body`. A decoder trusts no length: it allocates for what its input can fill, or for the
//!    fixed size of a sketch, and refuses what no encoder writes.

mod bound;
mod bytes;
mod count_min;
mod cuckoo;
mod hash;
mod heavy_hitters;
mod hll;
mod quantile;
mod rank;
mod tdigest;

pub use bound::{Bound, BoundKind};
pub use bytes::{DecodeError, ROWS_MAX};
pub use count_min::CountMin;
pub use cuckoo::{CuckooFilter, Full, LOAD_PERCENT_MAX, Look};
pub use hash::{HASH_SEED, hash_str};
pub use heavy_hitters::{HeavyHitters, Hitter};
pub use hll::{Coupon, Hll, Raises};
pub use quantile::{Bin, QuantileSketch};
pub use rank::nearest_rank;
pub use tdigest::TDigest;
