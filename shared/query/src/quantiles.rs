//! What percentiles of a metric come from, by group: all values where they are few, else counts of bins.
//!
//! 1. A partition keeps values if it has at most so many rows in the plan's range as the method allows, whatever the filters
//!    leave of them: that number depends on the plan and on the offset alone. So does what an answer is made of, since the
//!    end of a query goes by the rows of all partitions together: values become bins there, but bins never become values.
//! 2. Both are functions of the multiset of values, so no order has to be kept.
//! 3. Sketches of rollups have the same bins. Where one had to join some (its values lie more than 264 powers of two apart),
//!    each counts in the bin of its middle, and the bound says how far off that can be.

use kernels::{CHUNK_ROWS, Groups, Rows};
use sketch::{Bound, QuantileSketch, nearest_rank};

use crate::{
    bins,
    cells::QuantileMethod,
    pair_counts::PairCounts,
    wire::{Reader, WireError, Writer, read_listed, write_listed},
};

/// Values or bins by group.
#[derive(Debug, Clone)]
pub(crate) struct Quantiles {
    method: QuantileMethod,
    /// Rows of the partitions in it that lie in the plan's range.
    rows: u64,
    /// Group and value, in any order unless `sorted`.
    values: Vec<(u32, f64)>,
    sorted: bool,
    bins: PairCounts,
    /// The relative error of the widest bins that were counted as others.
    widest: f64,
}

impl Quantiles {
    pub(crate) fn new(method: QuantileMethod) -> Self {
        Self { method, rows: 0, values: Vec::new(), sorted: false, bins: PairCounts::default(), widest: 0.0 }
    }

    /// The bins, where what is asked is exact and only a selection from them can be.
    pub(crate) fn bins_to_select_from(&mut self) -> Option<&mut PairCounts> {
        if !matches!(self.method, QuantileMethod::Exact { rows_max } if self.rows > rows_max) {
            return None;
        }
        self.fill_bins();
        Some(&mut self.bins)
    }

    pub(crate) fn method(&self) -> QuantileMethod {
        self.method
    }

    /// Says how many rows the whole partition has in the plan's range.
    pub(crate) fn of_partition(&mut self, rows: u64) {
        self.rows = rows;
    }

    /// Adds what each group `g` of `other` has to group `map[g]` here; a group that maps to `u32::MAX` has nothing.
    pub(crate) fn absorb(&mut self, other: &Self, map: &[u32]) {
        self.rows = self.rows.saturating_add(other.rows);
        self.widest = self.widest.max(other.widest);
        self.sorted = false;
        let moved = other.values.iter().map(|&(group, value)| (map[group as usize], value));
        self.values.extend(moved.filter(|&(group, _)| group != u32::MAX));
        self.bins.absorb(&other.bins, map);
    }

    /// The value of rank `q` in each of `groups` groups, NaN where there is none, and how far off the worst of them can be;
    /// `None` where all are exact.
    pub(crate) fn quantiles(&mut self, groups: usize, q: f64) -> (Vec<f64>, Option<Bound>) {
        let mut answers = vec![f64::NAN; groups];
        if self.rows <= self.method.rows_max() {
            self.sort();
            for run in self.values.chunk_by(|a, b| a.0 == b.0) {
                let rank = nearest_rank(q, run.len() as u64).expect("a run is not empty");
                answers[run[0].0 as usize] = run[rank as usize].1;
            }
            return (answers, None);
        }
        self.fill_bins();
        self.bins.by_group(|group, counted| {
            let count = counted.iter().map(|&(_, count)| count).sum();
            let mut left = nearest_rank(q, count).expect("a group that was counted has values");
            let at = counted.iter().position(|&(_, count)| {
                let found = left < count;
                left = left.saturating_sub(count);
                found
            });
            answers[group as usize] = bins::value_of(counted[at.expect("a rank is below the count")].0);
        });
        let bound = bins::bound();
        let off = if self.widest > 0.0 { (1.0 + self.widest) * (1.0 + bound.value) - 1.0 } else { bound.value };
        (answers, Some(Bound { value: off, ..bound }))
    }

    /// Adds what a rollup has of a group.
    pub(crate) fn add_sketch(&mut self, group: u32, sketch: &QuantileSketch) {
        let off = sketch.bound().value;
        if off > bins::bound().value {
            self.widest = self.widest.max(off);
        }
        for (low, high, count) in sketch.bins() {
            self.bins.add(group, bins::number_between(low, high), count);
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.values) + self.bins.bytes()
    }

    /// Writes all that it has; the method is the plan's.
    pub(crate) fn write(&mut self, out: &mut Writer) {
        let Self { method: _, rows, values, sorted: _, bins, widest } = self;
        out.number(*rows);
        out.float(*widest);
        write_listed(out, values);
        bins.write(out);
    }

    /// What [`Quantiles::write`] wrote of so many groups.
    pub(crate) fn read(from: &mut Reader<'_>, method: QuantileMethod, groups: usize) -> Result<Self, WireError> {
        // So many that sums of them are held at the end, where only bins can answer.
        let (rows, widest) = (from.number()?, from.float()?);
        if !(widest.is_finite() && widest >= 0.0) {
            return Err(WireError::Invalid("a bound is no number"));
        }
        let values = read_listed(from, groups)?;
        let bins = PairCounts::read(from, groups, bins::LAST)?;
        Ok(Self { method, rows, values, sorted: false, bins, widest })
    }

    fn fill_bins(&mut self) {
        for (group, value) in self.values.drain(..) {
            self.bins.add(group, bins::number_of(value), 1);
        }
    }

    fn sort(&mut self) {
        if !self.sorted {
            self.values.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            self.sorted = true;
        }
    }
}

/// What a task makes of its rows.
#[derive(Debug)]
pub(crate) struct QuantileScan {
    quantiles: Quantiles,
    /// Whether values are kept.
    keeps: bool,
    /// How many groups there are, where that is known, and rows of the task.
    groups: Option<usize>,
    rows: usize,
    numbers: Box<[u32; CHUNK_ROWS]>,
}

impl QuantileScan {
    /// For a task of `rows` rows in a partition that has `partition_rows` in the plan's range.
    pub(crate) fn new(method: QuantileMethod, groups: Option<usize>, rows: usize, partition_rows: u64) -> Self {
        let keeps = partition_rows <= method.rows_max();
        Self { quantiles: Quantiles::new(method), keeps, groups, rows, numbers: Box::new([0; CHUNK_ROWS]) }
    }

    /// Takes the present values of rows of a chunk.
    pub(crate) fn add(&mut self, of: Groups<'_>, rows: Rows<'_>, values: &[f64]) {
        if self.keeps {
            return kernels::list_values(of, rows, values, &mut self.quantiles.values);
        }
        let numbers = &mut self.numbers[..rows.len()];
        let normal = match rows {
            Rows::All(count) => bins::numbers_of_normal(&values[..count], numbers),
            Rows::Listed(_) => None,
        };
        let ends = normal.unwrap_or_else(|| kernels::number_values(rows, values, numbers, bins::number_of));
        self.quantiles.bins.add_numbers(of, numbers, ends, self.groups, self.rows);
    }

    pub(crate) fn quantiles(&self) -> &Quantiles {
        &self.quantiles
    }

    pub(crate) fn into_quantiles(self) -> Quantiles {
        self.quantiles
    }
}
