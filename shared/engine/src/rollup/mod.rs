//! Rollups: rows by time bucket and group, kept beside the rows and, where the table says so, longer than they.
//!
//! 1. A rollup of resident rows lies beside their segments: parts of the first rows of each. The rows that no part has yet
//!    are looked at as rows. Parts are made by housekeeping; as their sums do not depend on how rows were split (see
//!    [`sum`]), neither does any answer.
//! 2. When a segment leaves, what the rollup has of it goes into the rollup's history, in the same publication. So a
//!    snapshot sees each row once: in a segment or in the history.
//! 3. A row whose slot has left goes into the history at once, with its record. Readers of the offset before that record
//!    use the version of the history before it, which stands beside the new one until the next record changes it.
//! 4. A part names no code: it outlives segments and dictionaries.

mod builder;
mod folds;
mod history;
mod page;
mod part;
mod state;
mod sum;

pub use part::{DISTINCT_EXACT_MAX, DistinctCell, RollupPart};
pub use sum::MetricCell;

pub(crate) use builder::{PartBuilder, Resolved};
pub(crate) use folds::{Folded, Folds, fold};
pub(crate) use history::History;
pub(crate) use part::{GroupColumns, Shape, Strings};
pub(crate) use state::{RollupState, RollupView, Version};
pub(crate) use sum::Sum;
