//! Approximate answers about many items in little memory. Items come hashed; what is hashed, and with which secret, is
//! the caller's matter. Everything here is a function of its arguments.

mod cuckoo;
mod prefetch;

pub use cuckoo::{CuckooFilter, Full, LOAD_PERCENT_MAX, Look};
pub use prefetch::prefetch;
