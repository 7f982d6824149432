//! A block made ready for a table: its columns matched with the table's, its codes translated into the table's.

use codec::{BodyView, Codes};
use types::Offset;

use crate::dedup::Verdict;

/// Where a column of the table finds its values in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nowhere.
    Absent,
    /// The block's dimension of this number.
    Codes(usize),
    /// The block's metric of this number.
    Values(usize),
}

/// A block whose codes are the table's.
pub(crate) struct Block<'a> {
    pub(crate) offset: Offset,
    pub(crate) body: &'a BodyView<'a>,
    pub(crate) times: &'a [i64],
    /// By dimension of the block.
    pub(crate) codes: &'a [Vec<u32>],
    /// By column of the table.
    pub(crate) sources: &'a [Source],
    /// By row, where there are duplicates among them: these are left out.
    pub(crate) verdicts: Option<&'a [Verdict]>,
}

impl Block<'_> {
    /// How many of these rows are to be stored.
    pub(crate) fn kept_in(&self, rows: std::ops::Range<usize>) -> usize {
        let new = |verdicts: &[Verdict]| verdicts.iter().filter(|verdict| **verdict == Verdict::New).count();
        self.verdicts.map_or(rows.len(), |verdicts| new(&verdicts[rows]))
    }

    /// Whether a row is one to store.
    pub(crate) fn is_kept(&self, row: usize) -> bool {
        self.verdicts.is_none_or(|verdicts| verdicts[row] == Verdict::New)
    }
}

/// Translates codes of a block; `table[code]` is what takes a code's place. `false`: a code is beyond the table.
#[must_use]
pub(crate) fn translate(codes: Codes<'_>, table: &[u32], into: &mut Vec<u32>) -> bool {
    into.clear();
    let mut good = true;
    codes.for_each(|code| {
        let known = table.get(code as usize).copied();
        good &= known.is_some();
        into.push(known.unwrap_or(0));
    });
    good
}
