//! The form of a partition's result. What kind of state each cell has is the plan's to say, which both sides know.

use sketch::ROWS_MAX;
use types::PartitionId;

use super::{
    Reader, WireError, Writer,
    plan_parts::{read_buckets, read_values, write_buckets, write_values},
    read_version,
};
use crate::{
    cells::Cell,
    digests::Digests,
    distinct::Distinct,
    groups::Groups,
    partial::{Partial, ScanStats},
    plan::Plan,
    quantiles::Quantiles,
    selection::Narrowed,
    state::State,
    top::Top,
};

/// The version of the form. A reader knows all versions up to its own.
const VERSION: u8 = 1;

impl Partial {
    /// The result for whoever merges it in another process.
    #[must_use]
    pub fn into_bytes(self, plan: &Plan) -> Vec<u8> {
        // Each field by name, so that a new one cannot be forgotten here.
        let Self { partition, values, groups: Groups { buckets, keys, rows, mut states }, floor, stats } = self;
        let mut out = Writer::default();
        out.tag(VERSION);
        out.number(partition.0.into());
        write_stats(&mut out, stats);
        out.option(floor, Writer::number);
        out.number(rows.len() as u64);
        if plan.interval.is_some() {
            write_buckets(&mut out, &buckets);
        }
        for (values, keys) in values.iter().zip(&keys) {
            write_values(&mut out, values);
            out.column(keys.iter().map(|&number| number.into()));
        }
        out.column(rows.iter().copied());
        states.iter_mut().for_each(|state| write_state(&mut out, state));
        out.into_bytes()
    }

    /// The result of the plan that [`Partial::into_bytes`] wrote.
    ///
    /// # Errors
    /// No result of the plan is written like this, or a later version wrote it and used what this one does not know.
    pub fn from_bytes(plan: &Plan, bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new(bytes);
        read_version(&mut from, VERSION)?;
        let partition = PartitionId(from.u32()?);
        let stats = read_stats(&mut from)?;
        let floor = from.option(|from| from.number_upto(ROWS_MAX))?;
        let count = from.length()?;
        if count > plan.groups_max.max(1) {
            return Err(WireError::Invalid("there are more groups than the plan allows"));
        }
        let buckets = match plan.interval {
            Some(_) => read_buckets(&mut from, count)?,
            None => vec![0; count],
        };
        let (mut values, mut keys) = (Vec::new(), Vec::new());
        for _ in &plan.groups {
            let of_column = read_values(&mut from)?;
            keys.push(from.column_below(count, of_column.numbers())?);
            values.push(of_column);
        }
        let rows = from.column(count, ROWS_MAX, |rows| rows)?;
        let states =
            (0..plan.cells.len()).map(|at| read_state(&mut from, plan, at, count)).collect::<Result<_, _>>()?;
        from.finish()?;
        Ok(Self { partition, values, groups: Groups { buckets, keys, rows, states }, floor, stats })
    }
}

fn write_stats(out: &mut Writer, stats: ScanStats) {
    let ScanStats { rows_scanned, segments_scanned, segments_skipped, segments_cached, rollup_buckets } = stats;
    for count in [rows_scanned, segments_scanned, segments_skipped, segments_cached, rollup_buckets] {
        out.number(count);
    }
}

fn read_stats(from: &mut Reader<'_>) -> Result<ScanStats, WireError> {
    let mut count = || from.number_upto(ROWS_MAX);
    Ok(ScanStats {
        rows_scanned: count()?,
        segments_scanned: count()?,
        segments_skipped: count()?,
        segments_cached: count()?,
        rollup_buckets: count()?,
    })
}

fn write_state(out: &mut Writer, state: &mut State) {
    match state {
        State::Count(counts) => out.column(counts.iter().copied()),
        State::Sum { sums, counts } => {
            out.floats(sums.iter().copied());
            out.column(counts.iter().copied());
        }
        State::Min(values) | State::Max(values) => out.floats(values.iter().copied()),
        State::Moments { counts, means, deviations } => {
            out.column(counts.iter().copied());
            out.floats(means.iter().copied());
            out.floats(deviations.iter().copied());
        }
        State::Distinct(distinct) => distinct.write(out),
        State::Top(top) => top.write(out),
        State::Quantiles(quantiles) => quantiles.write(out),
        State::Digests(digests) => digests.write(out),
        State::Narrowed(narrowed) => narrowed.write(out),
        State::Sets(_) | State::Counts(_) => unreachable!("the result of a partition has strings"),
    }
}

/// The states of so many groups of the cell of that index.
fn read_state(from: &mut Reader<'_>, plan: &Plan, cell: usize, groups: usize) -> Result<State, WireError> {
    if let Some(round) = &plan.round {
        return Ok(State::Narrowed(Narrowed::read(from, &round.ranges[cell])?));
    }
    let count = |rows| rows;
    Ok(match &plan.cells[cell] {
        Cell::PresentDimension(_) | Cell::PresentMetric(_) | Cell::Frequency { .. } => {
            State::Count(from.column(groups, ROWS_MAX, count)?)
        }
        Cell::Sum(_) => State::Sum { sums: from.floats(groups)?, counts: from.column(groups, ROWS_MAX, count)? },
        Cell::Min(_) => State::Min(from.floats(groups)?),
        Cell::Max(_) => State::Max(from.floats(groups)?),
        Cell::Moments(_) => State::Moments {
            counts: from.column(groups, ROWS_MAX, count)?,
            means: from.floats(groups)?,
            deviations: from.floats(groups)?,
        },
        Cell::Distinct(_) => State::Distinct(Distinct::read(from, groups)?),
        Cell::Top { .. } => State::Top(Top::read(from, groups)?),
        Cell::Quantiles { method, .. } => State::Quantiles(Quantiles::read(from, *method, groups)?),
        Cell::Digest(_) => State::Digests(Digests::read(from, groups)?),
    })
}

/// Groups with numbers of strings, as keys.
pub(crate) fn write_pairs(out: &mut Writer, pairs: impl ExactSizeIterator<Item = u64> + Clone) {
    out.number(pairs.len() as u64);
    out.column(pairs.clone().map(|key| key >> 32));
    out.column(pairs.map(|key| u64::from(key as u32)));
}

/// Groups below `groups` with numbers from 1 and below `numbers`: keys that ascend, each once.
pub(crate) fn read_pairs(from: &mut Reader<'_>, groups: usize, numbers: usize) -> Result<Vec<u64>, WireError> {
    let length = from.length()?;
    let mut pairs = from.column(length, (groups as u64).saturating_sub(1), |group| group << 32)?;
    let numbers = from.column_below(length, numbers)?;
    if groups == 0 && length > 0 || numbers.contains(&0) {
        return Err(WireError::Invalid("a number of a group has no meaning"));
    }
    pairs.iter_mut().zip(numbers).for_each(|(pair, number)| *pair |= u64::from(number));
    let ascend = pairs.is_sorted_by(|a, b| a < b);
    if ascend { Ok(pairs) } else { Err(WireError::Invalid("pairs do not ascend")) }
}

/// Groups with values, in their order.
pub(crate) fn write_listed(out: &mut Writer, values: &[(u32, f64)]) {
    out.number(values.len() as u64);
    out.column(values.iter().map(|&(group, _)| group.into()));
    out.floats(values.iter().map(|&(_, value)| value));
}

/// Groups below `groups` with finite values, in their order.
pub(crate) fn read_listed(from: &mut Reader<'_>, groups: usize) -> Result<Vec<(u32, f64)>, WireError> {
    let length = from.length()?;
    let of_groups = from.column_below(length, groups)?;
    Ok(of_groups.into_iter().zip(from.finite(length)?).collect())
}

/// Sketches by group, ascending.
pub(crate) fn write_sketches(out: &mut Writer, sketches: impl ExactSizeIterator<Item = (u32, Vec<u8>)>) {
    out.number(sketches.len() as u64);
    for (group, bytes) in sketches {
        out.number(group.into());
        out.blob(&bytes);
    }
}

/// Sketches of groups below `groups`, ascending, each group once.
pub(crate) fn read_sketches<S>(
    from: &mut Reader<'_>,
    groups: usize,
    read: impl Fn(&[u8]) -> Result<S, sketch::DecodeError>,
) -> Result<impl Iterator<Item = (u32, S)>, WireError> {
    let length = from.length()?;
    if length > groups {
        return Err(WireError::Invalid("there are more sketches than groups"));
    }
    let mut sketches: Vec<(u32, S)> = Vec::new();
    for _ in 0..length {
        let group = from.place(groups)? as u32;
        if sketches.last().is_some_and(|(last, _)| *last >= group) {
            return Err(WireError::Invalid("the groups of sketches do not ascend"));
        }
        let sketch = read(from.blob()?).map_err(|error| match error {
            sketch::DecodeError::Version(version) => {
                WireError::Unknown { what: "a sketch of version", number: version.into() }
            }
            _ => WireError::Invalid("a sketch is not what was asked for"),
        })?;
        sketches.push((group, sketch));
    }
    Ok(sketches.into_iter())
}
