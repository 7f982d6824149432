//! Query tree, planning, execution on segments, partial results and their merge.
//!
//! 1. [`parse`] reads the JSON of a query; [`plan()`] resolves it against its tables: a [`Plan`] is plain data.
//! 2. [`tasks`] cuts the snapshots of some partitions into [`Task`]s; [`run`] does one of them, on any thread;
//!    [`merge`] makes the [`Partial`] of one partition from its tasks' results; [`Finishing`] makes the [`Answer`] from the
//!    partitions' partials. Nothing here starts a thread, reads a clock or waits.
//! 3. An answer is the same to the byte for one plan and one state of the partitions, whatever ran where:
//!    - a task is a run of whole segments in canonical order, cut by its rows and their places in the log; a segment takes part
//!      if and only if one of its rows lies in the plan's range, so nothing that readers race on moves a boundary;
//!    - within a task rows are taken in order, and float sums have lanes that are fixed by a row's place in its segment;
//!    - tasks merge in canonical order within a table, tables by their place in the plan, partitions ascending.

mod accumulator;
mod allowance;
mod answer;
mod ast;
mod bins;
mod cancel;
mod cells;
mod checksum;
mod code_filter;
mod codes;
mod counted;
mod cover;
mod cuts;
mod digests;
mod distinct;
mod events;
mod explain;
mod finish;
mod fold;
mod grouper;
mod groups;
mod json;
mod keyed;
mod laid_out;
mod leading;
mod merging;
mod narrow;
mod order;
mod pair_counts;
mod pair_sets;
mod parse;
mod parse_aggregate;
mod parse_filter;
mod partial;
mod plan;
mod planner;
mod predicate;
mod quantiles;
mod reuse;
mod run;
mod segment_columns;
mod segment_filter;
mod selection;
mod sorting;
mod source;
mod state;
mod task;
mod top;
mod values;
mod wire;

pub use answer::Answer;
pub use ast::{
    Aggregate, Comparison, Condition, Filter, Function, Method, OrderBy, Over, Query, QueryLimits, Scalar, ValueLimits,
};
pub use cancel::Cancel;
pub use checksum::{Checksum, RowsChecksum};
pub use events::{EventPlace, FoundEvents, RawEvent, first_events, select_events};
pub use explain::{
    OutputMethod, RollupExplanation, ScanCost, SegmentCount, SegmentExplanation, Skip, SourceExplanation, explain,
    methods,
};
pub use finish::Finishing;
pub use merging::{PartitionMerge, merge};
pub use parse::parse;
pub use partial::{Partial, PartialsMerge, ScanStats, TaskPartial};
pub use plan::{Plan, PlannedTable};
pub use planner::plan;
pub use reuse::{KeptTask, TaskKey, version};
pub use run::run;
pub use source::Source;
pub use task::{Task, tasks};
pub use wire::{BYTES_PER_BYTE, WireError};
