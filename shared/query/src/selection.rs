//! Exact percentiles of more values than travel: a selection in rounds.
//!
//! 1. The first scan counts values in bins. For each percentile of each group the bin with its rank is known then: a range of
//!    values, the rank within it, and how many values it holds.
//! 2. Another scan of the same rows looks into these ranges alone. If they hold few values it brings them, and that is the
//!    end; else it counts them in 2^16 finer bins, and the range becomes one of those. A first bin has at most 2^46 doubles,
//!    so there are at most four scans.
//! 3. Ranges are of [`kernels::ordered_bits`]. All is counted by whole numbers, so a percentile is the same whatever the
//!    number of rounds.

use kernels::{from_ordered_bits, ordered_bits};
use sketch::nearest_rank;
use types::ApiError;

use crate::{
    allowance::Allowance,
    bins,
    cancel::Cancel,
    groups::Groups,
    pair_counts::PairCounts,
    plan::{Plan, Value},
    sorting::sort_by,
    state::State,
    values::Values,
    wire::{Reader, WireError, Writer, read_listed, write_listed},
};

/// Bits by which a round of counting narrows a range.
const ROUND_BITS: u32 = 16;

/// A percentile of a group that is looked for.
#[derive(Debug, Clone, Copy)]
struct Target {
    group: u32,
    output: usize,
    range: Range,
    /// Its rank among the values of the range, and how many these are.
    rank: u64,
    count: u64,
}

/// What a target takes: itself, its place in a round, and its range there.
const TARGET_BYTES: usize = size_of::<Target>() + size_of::<usize>() + size_of::<(u32, Range)>();

/// Values from `low` to `high`, by their ordered bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl Range {
    /// The number of a value's bin among those into which a round divides the range, at least 1; `None` for a value that is
    /// not in it.
    #[inline(always)]
    pub(crate) fn number_of(self, bits: u64) -> Option<u32> {
        (self.low <= bits && bits <= self.high).then(|| ((bits - self.low) >> self.shift()) as u32 + 1)
    }

    /// The range of a bin.
    fn part(self, number: u32) -> Self {
        let low = self.low + (u64::from(number - 1) << self.shift());
        Self { low, high: (low + ((1 << self.shift()) - 1)).min(self.high) }
    }

    /// Bins into which a round divides the range.
    fn bins(self) -> u32 {
        ((self.high - self.low) >> self.shift()) as u32 + 1
    }

    fn shift(self) -> u32 {
        (u64::BITS - (self.high - self.low).leading_zeros()).saturating_sub(ROUND_BITS)
    }
}

/// What one more scan looks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Round {
    /// The strings of the group columns.
    pub(crate) values: Vec<Values>,
    /// Keys of the groups that are looked into, ascending by bucket, then numbers.
    pub(crate) buckets: Vec<i64>,
    pub(crate) keys: Vec<Vec<u32>>,
    /// Per cell of the round's plan: group (its place above) and range, ascending by group.
    pub(crate) ranges: Vec<Vec<(u32, Range)>>,
    /// Whether values are brought; else they are counted.
    pub(crate) brings: bool,
}

/// What a round found of one cell, by the place of its ranges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Narrowed {
    pub(crate) counts: PairCounts,
    pub(crate) values: Vec<(u32, f64)>,
}

impl Narrowed {
    pub(crate) fn absorb(&mut self, other: &Self) {
        // Ranges keep their places, whatever groups there are.
        let places = other.counts.groups();
        self.counts.absorb(&other.counts, &(0..places).collect::<Vec<_>>());
        self.values.extend_from_slice(&other.values);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.counts.bytes() + size_of_val(&*self.values)
    }

    /// Writes all that was found.
    pub(crate) fn write(&mut self, out: &mut Writer) {
        let Self { counts, values } = self;
        counts.write(out);
        write_listed(out, values);
    }

    /// What [`Narrowed::write`] wrote of what these ranges hold.
    pub(crate) fn read(from: &mut Reader<'_>, ranges: &[(u32, Range)]) -> Result<Self, WireError> {
        let mut counts = PairCounts::read(from, ranges.len(), 1 << ROUND_BITS)?;
        let mut within = true;
        counts.by_group(|place, counted| {
            let last = counted.last().map_or(0, |&(number, _)| number);
            within &= last <= ranges[place as usize].1.bins();
        });
        let values = read_listed(from, ranges.len())?;
        if within { Ok(Self { counts, values }) } else { Err(WireError::Invalid("a bin lies behind its range")) }
    }
}

/// All percentiles that are selected, by cell.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    cells: Vec<(usize, Vec<Target>)>,
    /// Per cell of the round under way: which of its targets the places of the ranges are.
    places: Vec<Vec<usize>>,
}

impl Selection {
    /// The targets of all outputs whose cells ask for a selection.
    ///
    /// # Errors
    /// Those of the allowance.
    pub(crate) fn new(plan: &Plan, groups: &mut Groups, allowance: &mut Allowance<'_>) -> Result<Self, ApiError> {
        let (mut cells, count) = (Vec::new(), groups.len());
        for (at, state) in groups.states.iter_mut().enumerate() {
            let State::Quantiles(quantiles) = state else { continue };
            let Some(bins) = quantiles.bins_to_select_from() else { continue };
            let outputs = plan.outputs.iter().enumerate().filter_map(|(output, of)| match of.value {
                Value::Percentile { cell, q } if cell == at => Some((output, q)),
                _ => None,
            });
            let outputs: Vec<_> = outputs.collect();
            allowance.take(count * outputs.len(), TARGET_BYTES)?;
            let (mut targets, mut stopped) = (Vec::new(), Ok(()));
            bins.by_group(|group, counted| {
                if stopped.is_ok() {
                    stopped = allowance.step(0);
                }
                if stopped.is_err() {
                    return;
                }
                let count = counted.iter().map(|&(_, count)| count).sum();
                targets.extend(outputs.iter().map(|&(output, q)| {
                    let rank = nearest_rank(q, count).expect("a group that was counted has values");
                    let (number, rank, count) = find(counted, rank);
                    let (low, high) = bins::ends_of(number);
                    let range = Range { low: ordered_bits(low), high: ordered_bits(high) };
                    Target { group, output, range, rank, count }
                }));
            });
            stopped?;
            cells.push((at, targets));
        }
        Ok(Self { cells, places: Vec::new() })
    }

    /// Memory that it takes, and its round while there is one.
    pub(crate) fn bytes(&self) -> usize {
        self.cells.iter().map(|(_, targets)| targets.len() * TARGET_BYTES).sum()
    }

    /// The plan of the next round, over the rows of `plan`; `None` where all values are found.
    ///
    /// # Errors
    /// `CANCELLED`, `DEADLINE_EXCEEDED`.
    pub(crate) fn next_round(
        &mut self,
        plan: &Plan,
        values: &[Values],
        groups: &Groups,
        cancel: &Cancel<'_>,
    ) -> Result<Option<Plan>, ApiError> {
        let open = |target: &&Target| target.range.low < target.range.high;
        let targets = || self.cells.iter().flat_map(|(_, targets)| targets).filter(open);
        let brought: u64 = targets().map(|target| target.count).sum();
        let mut asked: Vec<u32> = targets().map(|target| target.group).collect();
        let key = |group: u32| {
            let group = group as usize;
            std::iter::once(groups.buckets[group]).chain(groups.keys.iter().map(move |keys| keys[group].into()))
        };
        asked.sort_unstable();
        asked.dedup();
        sort_by(&mut asked, cancel, |&a, &b| key(a).cmp(key(b)))?;
        if asked.is_empty() {
            return Ok(None);
        }
        let mut place_of = vec![u32::MAX; groups.len()];
        asked.iter().enumerate().for_each(|(place, &group)| place_of[group as usize] = place as u32);
        let (mut cells, mut ranges) = (Vec::new(), Vec::new());
        self.places.clear();
        for (cell, targets) in &self.cells {
            cancel.check()?;
            let mut places: Vec<usize> = (0..targets.len()).filter(|&at| open(&&targets[at])).collect();
            places.sort_by_key(|&at| place_of[targets[at].group as usize]);
            let range = |&at: &usize| (place_of[targets[at].group as usize], targets[at].range);
            ranges.push(places.iter().map(range).collect());
            self.places.push(places);
            cells.push(plan.cells[*cell].clone());
        }
        let round = Round {
            values: values.to_vec(),
            buckets: asked.iter().map(|&group| groups.buckets[group as usize]).collect(),
            keys: groups.keys.iter().map(|of| asked.iter().map(|&group| of[group as usize]).collect()).collect(),
            ranges,
            brings: brought <= plan.values.values_max,
        };
        Ok(Some(Plan { cells, outputs: Vec::new(), order: Vec::new(), round: Some(round.into()), ..plan.clone() }))
    }

    /// Narrows the ranges by what the round found, per cell; `false`: not all of the values were there any more.
    ///
    /// # Errors
    /// Those of the allowance.
    pub(crate) fn narrow(
        &mut self,
        round: &Round,
        found: Vec<Narrowed>,
        allowance: &mut Allowance<'_>,
    ) -> Result<bool, ApiError> {
        let (mut all, mut stopped) = (true, Ok(()));
        for (((_, targets), places), mut found) in self.cells.iter_mut().zip(&self.places).zip(found) {
            let mut narrowed = 0;
            if round.brings {
                let mut by_place = vec![Vec::new(); places.len()];
                found.values.drain(..).for_each(|(place, value)| by_place[place as usize].push(value));
                for (values, &place) in by_place.iter_mut().zip(places).filter(|(values, _)| !values.is_empty()) {
                    allowance.step(0)?;
                    let target = &mut targets[place];
                    all &= values.len() as u64 == target.count;
                    let rank = (target.rank as usize).min(values.len() - 1);
                    let bits = ordered_bits(*values.select_nth_unstable_by(rank, f64::total_cmp).1);
                    target.range = Range { low: bits, high: bits };
                    narrowed += 1;
                }
            } else {
                found.counts.by_group(|place, counted| {
                    if stopped.is_ok() {
                        stopped = allowance.step(0);
                    }
                    let target = &mut targets[places[place as usize]];
                    all &= counted.iter().map(|&(_, count)| count).sum::<u64>() == target.count;
                    if all && stopped.is_ok() {
                        let (number, rank, count) = find(counted, target.rank);
                        *target = Target { range: target.range.part(number), rank, count, ..*target };
                        narrowed += 1;
                    }
                });
            }
            std::mem::replace(&mut stopped, Ok(()))?;
            all &= narrowed == places.len();
        }
        Ok(all)
    }

    /// The values found of an output, in each of `groups` groups, NaN where there is none; `None` for one that was not
    /// selected.
    pub(crate) fn of_output(&self, output: usize, cell: Option<usize>, groups: usize) -> Option<Vec<f64>> {
        let (_, targets) = self.cells.iter().find(|(at, _)| Some(*at) == cell)?;
        let mut values = vec![f64::NAN; groups];
        for target in targets.iter().filter(|target| target.output == output) {
            values[target.group as usize] = from_ordered_bits(target.range.low);
        }
        Some(values)
    }
}

/// The number whose count holds a rank, the rank within it, and its count.
fn find(counted: &[(u32, u64)], mut rank: u64) -> (u32, u64, u64) {
    for &(number, count) in counted {
        if rank < count {
            return (number, rank, count);
        }
        rank -= count;
    }
    unreachable!("a rank is below the count")
}
