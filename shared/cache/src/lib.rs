//! What queries found, kept for the next ones. A cache may forget at any time and never makes anything true: keys name all that
//! a value depends on.

mod bounded;

pub use bounded::{Bounded, describe};
