//! Vectorised filter, group and aggregate loops over one chunk of rows.
//!
//! 1. A chunk has at most [`CHUNK_ROWS`] rows. Filters narrow a [`Selection`] of them; aggregates take the rows that it holds.
//! 2. A metric's absent value is NaN, and NaN is nothing else. A dimension's absent value is code 0.
//! 3. A result depends on rows, their places and the selection alone: every path (dense or sparse, wide or narrow, with or
//!    without vector instructions) adds the same numbers in the same order. Sums start at +0.0 and never become -0.0, so a
//!    row that is left out and a row that adds +0.0 are the same.
//! 4. Loops are branch-free and of fixed width, so that the compiler vectorises them for the machine they run on; which
//!    instructions there are is asked at run time ([`dispatch`]).
//! 5. Hints about memory that is touched in no order ([`prefetch`], [`LargeTable`]) change speed and nothing else.

mod aggregate;
mod code;
mod decimal;
mod dispatch;
mod few;
mod filter;
mod fold;
mod group;
mod large_table;
mod leaders;
mod marked;
mod offsets;
mod pairs;
mod prefetch;
mod selection;
mod values;

pub use aggregate::{LANES, MomentsLanes, SumLanes, count_codes, count_equal, count_present, greatest, least};
pub use code::Code;
pub use decimal::{EXPONENTS, Integers, Scale, decimals, digits, exponent_of, integers, selected_decimals};
pub use few::{FewRows, count_few, few_max, greatest_few, key_range, keys_by_time, least_few, sum_few};
pub use filter::{and_any_of, and_listed, and_metric, and_none_of, and_range, and_times};
pub use group::{
    GroupMoments, Key, Rows, SlotSums, add_lanes, append_absent, append_bucket, append_codes, count_rows,
    count_slots_codes, count_slots_equal, count_slots_present, greatest_slots, least_slots, moments_slots,
};
pub use large_table::{LargeTable, Plain};
pub use leaders::{BLOCK_COUNTS, Count, block_maxima, count_nonzero};
pub use marked::list_marked_items;
pub use offsets::{add_base, and_between, keys_by_offset, subtract_base};
pub use pairs::{
    Groups, count_numbers, count_pairs, each_present, from_ordered_bits, list_marked, list_pairs, list_values,
    mark_pairs, number_by_high_bits, number_values, ordered_bits,
};
pub use prefetch::{prefetch, prefetch_all, prefetch_listed};
pub use selection::{CHUNK_ROWS, Selection};
pub use values::Values;
