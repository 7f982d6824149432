//! Clusters larger than any test machine, in numbers: what a loss moves, and how long a query waits for the slowest of many nodes.
//!
//! Nothing here runs the product's processes. Placement is the product's own function; waits are drawn from times that were
//! measured on one node.

pub mod fan_out;
pub mod placement;
