//! Random rows and random questions about them, and the plainest possible answers: what engines and servers are held against.
//!
//! Rows are of two tables, `shop.events` and `shop.more`, which share their columns but for one. Whoever holds something against
//! the model fills real tables with them.

mod asking;
mod check;
pub mod model;
mod random;
mod rollups;
mod rows;

pub use asking::{METRICS, Tables, dimensions, random_filter, random_query};
pub use check::{Answered, check};
pub use random::Random;
pub use rollups::{question_of_rollup, random_rollup};
pub use rows::{Row, Traffic, random_row};
