//! How often each number stands in each group: codes of a dictionary, or bins of a histogram.
//!
//! 1. A matrix with a line per group where that is small enough, else a list of the pairs that occur. Which of the two it
//!    is changes no count, and a matrix becomes a list where it grows too large.
//! 2. Number 0 is "absent" and is not counted. Column `c` of a matrix, from 1 on, is number `base + c`.

use engine::Codes;
use kernels::{Groups, Rows};
use sketch::ROWS_MAX;

use crate::{
    codes::by_width,
    counted::Counted,
    wire::{Reader, WireError, Writer, read_pairs, write_pairs},
};

/// Counts in a matrix, at most: 16 MiB.
const MATRIX_MAX: usize = 1 << 22;
/// And at most this many per row of the task that fills it, since they are cleared before and read after: as much work as to put
/// a row in order.
const MATRIX_PER_ROW: usize = 16;
/// Pairs that wait to be put in order, at least.
const PENDING_MIN: usize = 1 << 14;

/// Counts by group and number.
#[derive(Debug, Clone)]
pub(crate) enum PairCounts {
    Matrix(Matrix),
    List(PairList),
}

/// A line of counts per group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matrix {
    base: u32,
    /// Columns per line, that of "absent" included; 0 as long as nothing was counted.
    width: usize,
    counts: Vec<u32>,
    /// No count can be greater than this.
    total: u64,
}

/// Pairs (group in the high half of the key, number in the low one) with their counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct PairList {
    /// Ascending by key up to `settled`, each key once; the rest in any order.
    counted: Vec<(u64, u64)>,
    settled: usize,
    /// Keys that count once each.
    keys: Vec<u64>,
}

impl Default for PairCounts {
    fn default() -> Self {
        Self::List(PairList::default())
    }
}

impl PairCounts {
    /// For the codes 0 to `codes - 1` of `groups` groups, where so many are known, in a task of `rows` rows.
    pub(crate) fn of_codes(groups: Option<usize>, codes: usize, rows: usize) -> Self {
        match groups.and_then(|groups| groups.checked_mul(codes)) {
            Some(counts) if fits(counts, rows) => {
                Self::Matrix(Matrix { base: 0, width: codes, counts: vec![0; counts], total: 0 })
            }
            _ => Self::default(),
        }
    }

    /// Counts the codes of rows.
    pub(crate) fn add_codes(
        &mut self,
        of: Groups<'_>,
        rows: Rows<'_>,
        codes: Codes<'_>,
        range: std::ops::Range<usize>,
    ) {
        match self {
            Self::Matrix(Matrix { width, counts, total, .. }) => {
                *total += rows.len() as u64;
                by_width!(codes, range, |codes| kernels::count_pairs(of, rows, codes, *width, counts));
            }
            Self::List(list) => {
                by_width!(codes, range, |codes| kernels::list_pairs(of, rows, codes, &mut list.keys));
                list.settle_when_long();
            }
        }
    }

    /// Counts numbers, of which those that are not 0 lie in `least..=greatest`; `groups` is how many there can be, where
    /// that is known, in a task of `rows` rows.
    pub(crate) fn add_numbers(
        &mut self,
        of: Groups<'_>,
        numbers: &[u32],
        (least, greatest): (u32, u32),
        groups: Option<usize>,
        rows: usize,
    ) {
        if least > greatest {
            return;
        }
        self.cover(least, greatest, groups, rows);
        match self {
            Self::Matrix(matrix) => {
                matrix.total += numbers.len() as u64;
                kernels::count_numbers(of, numbers, matrix.base, matrix.width, &mut matrix.counts);
            }
            Self::List(list) => {
                kernels::list_pairs(of, Rows::All(numbers.len()), numbers, &mut list.keys);
                list.settle_when_long();
            }
        }
    }

    /// Counts a number in a group so many times.
    pub(crate) fn add(&mut self, group: u32, number: u32, count: u64) {
        let list = self.make_list();
        list.counted.push((pair(group, number), count));
        list.settle_when_long();
    }

    /// One more than the greatest group that may have a count.
    pub(crate) fn groups(&self) -> u32 {
        match self {
            Self::Matrix(matrix) => matrix.lines().count() as u32,
            Self::List(list) => {
                let keys = list.counted.iter().map(|(key, _)| key).chain(&list.keys);
                keys.max().map_or(0, |key| (key >> 32) as u32 + 1)
            }
        }
    }

    /// Makes a matrix wide enough for numbers, or a list of it.
    fn cover(&mut self, least: u32, greatest: u32, groups: Option<usize>, rows: usize) {
        if let Self::List(list) = self
            && list.is_empty()
            && groups.is_some()
        {
            *self = Self::Matrix(Matrix::default());
        }
        let Self::Matrix(matrix) = self else { return };
        let Some(groups) = groups else {
            self.make_list();
            return;
        };
        if matrix.width > 0 && matrix.base < least && greatest < matrix.base + matrix.width as u32 {
            return;
        }
        let (first, last) = matrix.numbers().map_or((least, greatest), |(a, b)| (a.min(least), b.max(greatest)));
        // Room on both sides, so that a matrix is not laid out anew for each further number.
        let room = (last - first) / 8 + 4;
        let (base, last) = ((first - 1).saturating_sub(room), last.saturating_add(room));
        let width = (last - base) as usize + 1;
        if groups.checked_mul(width).is_some_and(|counts| fits(counts, rows)) {
            matrix.lay_out(base, width, groups);
        } else {
            self.make_list();
        }
    }

    /// Adds the counts of each group `g` of `other` to group `map[g]` here; groups beyond the map or that map to
    /// `u32::MAX` have none.
    pub(crate) fn absorb(&mut self, other: &Self, map: &[u32]) {
        let groups = map.iter().filter(|&&at| at != u32::MAX).max().map_or(0, |&at| at as usize + 1);
        match other {
            Self::Matrix(from) => {
                if let Self::List(list) = self
                    && list.is_empty()
                {
                    *self = Self::Matrix(Matrix::default());
                }
                if let Self::Matrix(into) = self
                    && into.absorb(from, map, groups)
                {
                    return;
                }
                let list = self.make_list();
                from.each(|group, number, count| list.push(map, group, number, count));
                list.settle_when_long();
            }
            Self::List(from) => {
                if from.is_empty() {
                    return;
                }
                let list = self.make_list();
                for &(key, count) in &from.counted {
                    list.push(map, (key >> 32) as u32, key as u32, count);
                }
                for &key in &from.keys {
                    list.push(map, (key >> 32) as u32, key as u32, 1);
                }
                list.settle_when_long();
            }
        }
    }

    /// Calls `take` for each group that has any count, ascending, with its numbers, ascending, and their counts.
    pub(crate) fn by_group(&mut self, mut take: impl FnMut(u32, &[(u32, u64)])) {
        let mut of_group = Vec::new();
        match self {
            Self::Matrix(matrix) => {
                for (group, line) in matrix.lines().enumerate() {
                    of_group.clear();
                    let counts = line.iter().enumerate().skip(1).filter(|&(_, &count)| count > 0);
                    of_group.extend(counts.map(|(column, &count)| (matrix.base + column as u32, u64::from(count))));
                    if !of_group.is_empty() {
                        take(group as u32, &of_group);
                    }
                }
            }
            Self::List(list) => {
                list.settle();
                for run in list.counted.chunk_by(|a, b| a.0 >> 32 == b.0 >> 32) {
                    of_group.clear();
                    of_group.extend(run.iter().map(|&(key, count)| (key as u32, count)));
                    take((run[0].0 >> 32) as u32, &of_group);
                }
            }
        }
    }

    /// The same for who looks for the greatest counts alone.
    pub(crate) fn counted_by_group(&mut self, mut take: impl FnMut(u32, Counted<'_>)) {
        match self {
            Self::Matrix(matrix) => {
                for (group, line) in matrix.lines().enumerate() {
                    let counted = Counted::of_line(matrix.base + 1, &line[1..]);
                    if !counted.is_empty() {
                        take(group as u32, counted);
                    }
                }
            }
            Self::List(_) => self.by_group(|group, counted| take(group, Counted::List(counted))),
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Matrix(matrix) => size_of_val(&*matrix.counts),
            Self::List(list) => size_of_val(&*list.counted) + size_of_val(&*list.keys),
        }
    }

    /// Writes all counts.
    pub(crate) fn write(&mut self, out: &mut Writer) {
        let mut counted = Vec::new();
        self.by_group(|group, of_group| {
            counted.extend(of_group.iter().map(|&(number, count)| (pair(group, number), count)));
        });
        write_pairs(out, counted.iter().map(|&(key, _)| key));
        out.column(counted.iter().map(|&(_, count)| count));
    }

    /// The counts of groups below `groups` and numbers up to `last` that [`PairCounts::write`] wrote.
    pub(crate) fn read(from: &mut Reader<'_>, groups: usize, last: u32) -> Result<Self, WireError> {
        let keys = read_pairs(from, groups, last as usize + 1)?;
        let counts = from.column(keys.len(), ROWS_MAX, |count| count)?;
        let total = counts.iter().try_fold(0_u64, |total, count| total.checked_add(*count));
        if counts.contains(&0) || total.is_none_or(|total| total > ROWS_MAX) {
            return Err(WireError::Invalid("a number was counted too often, or never"));
        }
        let counted: Vec<_> = keys.into_iter().zip(counts).collect();
        Ok(Self::List(PairList { settled: counted.len(), counted, keys: Vec::new() }))
    }

    fn make_list(&mut self) -> &mut PairList {
        if let Self::Matrix(matrix) = self {
            let mut list = PairList::default();
            matrix.each(|group, number, count| list.counted.push((pair(group, number), count)));
            list.settled = list.counted.len();
            *self = Self::List(list);
        }
        let Self::List(list) = self else { unreachable!("it was made a list") };
        list
    }
}

impl Matrix {
    fn lines(&self) -> impl Iterator<Item = &[u32]> {
        self.counts.chunks_exact(self.width.max(1))
    }

    /// The first and the last number that it has columns for, if any.
    fn numbers(&self) -> Option<(u32, u32)> {
        (self.width > 1).then(|| (self.base + 1, self.base + self.width as u32 - 1))
    }

    fn each(&self, mut take: impl FnMut(u32, u32, u64)) {
        for (group, line) in self.lines().enumerate() {
            for (column, &count) in line.iter().enumerate().skip(1) {
                if count > 0 {
                    take(group as u32, self.base + column as u32, u64::from(count));
                }
            }
        }
    }

    /// Changes its columns and groups, none of which may get lost.
    fn lay_out(&mut self, base: u32, width: usize, groups: usize) {
        if base == self.base && width == self.width {
            return self.counts.resize(groups * width, 0);
        }
        let mut counts = vec![0; groups * width];
        let shift = (self.base - base.min(self.base)) as usize;
        for (into, from) in counts.chunks_exact_mut(width).zip(self.lines()) {
            into[1 + shift..shift + from.len()].copy_from_slice(&from[1..]);
        }
        (self.base, self.width, self.counts) = (base, width, counts);
    }

    /// `false`: it would become too large, and nothing happened.
    fn absorb(&mut self, from: &Self, map: &[u32], groups: usize) -> bool {
        let Some((first, last)) = from.numbers() else { return true };
        let (first, last) = self.numbers().map_or((first, last), |(a, b)| (a.min(first), b.max(last)));
        let width = (last - first) as usize + 2;
        let lines = groups.max(self.counts.len() / self.width.max(1));
        let total = self.total + from.total;
        if lines.checked_mul(width).is_none_or(|counts| counts > MATRIX_MAX) || total > u64::from(u32::MAX) {
            return false;
        }
        if self.width == 0 {
            self.base = first - 1;
        }
        self.lay_out(first - 1, width, lines);
        self.total = total;
        let shift = (from.base - self.base) as usize;
        for (line, &at) in from.lines().zip(map) {
            if at == u32::MAX {
                continue;
            }
            let into = &mut self.counts[at as usize * width..][..width][1 + shift..];
            into.iter_mut().zip(&line[1..]).for_each(|(into, from)| *into += from);
        }
        true
    }
}

impl PairList {
    fn is_empty(&self) -> bool {
        self.counted.is_empty() && self.keys.is_empty()
    }

    fn push(&mut self, map: &[u32], group: u32, number: u32, count: u64) {
        match map.get(group as usize) {
            None | Some(&u32::MAX) => {}
            Some(&at) => self.counted.push((pair(at, number), count)),
        }
    }

    fn settle_when_long(&mut self) {
        let pending = self.counted.len() - self.settled + self.keys.len();
        if pending >= self.settled.max(PENDING_MIN) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if !self.keys.is_empty() {
            self.keys.sort_unstable();
            let runs = self.keys.chunk_by(|a, b| a == b);
            self.counted.extend(runs.map(|run| (run[0], run.len() as u64)));
            self.keys.clear();
        }
        if self.settled < self.counted.len() {
            // A stable sort takes what is in order already as it is.
            self.counted.sort_by_key(|&(key, _)| key);
            self.counted.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 += if same { next.1 } else { 0 };
                same
            });
            self.settled = self.counted.len();
        }
    }
}

/// A group and a number as one key that orders by both.
pub(crate) fn pair(group: u32, number: u32) -> u64 {
    u64::from(group) << 32 | u64::from(number)
}

/// Whether a matrix of so many counts is worth its memory in a task of `rows` rows.
fn fits(counts: usize, rows: usize) -> bool {
    counts <= rows.saturating_mul(MATRIX_PER_ROW).clamp(1 << 12, MATRIX_MAX)
}
