//! Query tree, planning, execution on segments, partial results and their merge.

/// A plan.
#[derive(Debug)]
pub struct Plan;

/// A partial result.
#[derive(Debug)]
pub struct Partial;
