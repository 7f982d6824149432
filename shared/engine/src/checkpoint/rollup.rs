//! What a rollup keeps of rows that have left, as bytes: each part is a piece of its own, which never changes.

use sketch::{HeavyHitters, Hll, QuantileSketch};
use types::{Interval, Offset, Rollup, Timestamp};

use super::{Put, RestoreError, Take};
use crate::{
    MemoryBudget,
    columns::ColumnIndex,
    rollup::{DistinctCell, GroupColumns, MetricCell, RollupPart, Shape, Strings, Sum},
    sync::Arc,
};

/// A rollup of a table, but for its parts.
#[derive(Debug)]
pub(crate) struct RollupState {
    pub(crate) rollup: Rollup,
    pub(crate) from: Offset,
    pub(crate) covered_from: Timestamp,
    pub(crate) revised: u64,
    /// The pieces of its parts.
    pub(crate) parts: Vec<u32>,
}

impl RollupState {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let Rollup { interval, group_by, distinct, percentiles, top, keep_us } = &self.rollup;
        out.i64(interval.micros());
        for names in [group_by, distinct, percentiles, top] {
            out.list(names.iter(), |out, name| out.bytes(name.as_bytes()));
        }
        out.optional(*keep_us, Put::i64);
        out.u64(self.from.0);
        out.time(self.covered_from);
        out.u64(self.revised);
        out.list(self.parts.iter(), |out, piece| out.u32(*piece));
    }

    pub(crate) fn decode(take: &mut Take<'_>) -> Result<Self, RestoreError> {
        let interval = Interval::from_micros(take.i64()?).ok_or(RestoreError::Malformed("a rollup has no interval"))?;
        let names = |take: &mut Take<'_>| take.list(|take| take.str().map(str::to_owned));
        let (group_by, distinct) = (names(take)?, names(take)?);
        let (percentiles, top) = (names(take)?, names(take)?);
        let rollup = Rollup { interval, group_by, distinct, percentiles, top, keep_us: take.optional(Take::i64)? };
        Ok(Self {
            rollup,
            from: Offset(take.u64()?),
            covered_from: take.time()?,
            revised: take.u64()?,
            parts: take.list(Take::u32)?,
        })
    }
}

/// Appends a part.
pub(crate) fn encode_part(part: &RollupPart, out: &mut Vec<u8>) {
    let GroupColumns { buckets, keys, rows, metrics, distinct, quantiles, tops } = &part.groups;
    out.list(part.strings.iter(), |out, Strings { text, ends }| {
        out.bytes(text.as_bytes());
        out.list(ends.iter(), |out, end| out.u32(*end));
    });
    out.list(buckets.iter(), |out, bucket| out.i64(*bucket));
    keys.iter().for_each(|column| out.list(column.iter(), |out, number| out.u32(*number)));
    out.list(rows.iter(), |out, rows| out.u64(*rows));
    out.list(metrics.iter(), |out, (column, cells)| {
        out.u32(column.0);
        out.list(cells.iter(), |out, cell| {
            let MetricCell { count, sum, squares, min, max } = cell;
            out.u64(*count);
            [sum.high, sum.low, squares.high, squares.low, *min, *max].into_iter().for_each(|value| out.f64(value));
        });
    });
    for cells in distinct {
        out.list(cells.iter(), |out, cell| match cell {
            DistinctCell::Hashes(hashes) => {
                out.bool(false);
                out.list(hashes.iter(), |out, hash| out.u64(*hash));
            }
            DistinctCell::Sketch(sketch) => {
                out.bool(true);
                out.bytes(&sketch.to_bytes());
            }
        });
    }
    quantiles.iter().for_each(|cells| out.list(cells.iter(), |out, cell| out.bytes(&cell.to_bytes())));
    tops.iter().for_each(|cells| out.list(cells.iter(), |out, cell| out.bytes(&cell.to_bytes())));
}

const SKETCH: RestoreError = RestoreError::Malformed("a sketch is damaged");

/// What [`encode_part`] wrote of a rollup with these columns, in a table of so many.
pub(crate) fn decode_part(
    bytes: &[u8],
    rollup: &Rollup,
    columns: usize,
    budget: &Arc<MemoryBudget>,
) -> Result<RollupPart, RestoreError> {
    let mut take = Take::new(bytes);
    let shape = Shape::of(rollup);
    let strings = take.list(|take| {
        let (text, ends) = (take.str()?.to_owned(), take.list(Take::u32)?);
        let cuts = ends.iter().all(|end| text.is_char_boundary(*end as usize));
        let whole = ends.is_sorted() && cuts && ends.last().map_or(0, |end| *end as usize) == text.len();
        if whole { Ok(Strings { text, ends }) } else { Err(RestoreError::Malformed("strings of a rollup are cut")) }
    })?;
    let mut groups = GroupColumns::new(shape);
    groups.buckets = take.list(Take::i64)?;
    for column in &mut groups.keys {
        *column = take.list(Take::u32)?;
    }
    groups.rows = take.list(Take::u64)?;
    groups.metrics = take.list(|take| Ok((ColumnIndex(take.u32()?), take.list(metric_cell)?)))?;
    for cells in &mut groups.distinct {
        *cells = take.list(distinct_cell)?;
    }
    for cells in &mut groups.quantiles {
        *cells = take.list(|take| QuantileSketch::from_bytes(take.bytes()?).map_err(|_| SKETCH))?;
    }
    for cells in &mut groups.tops {
        *cells = take.list(|take| HeavyHitters::from_bytes(take.bytes()?).map_err(|_| SKETCH))?;
    }
    take.end()?;
    let known = |(column, numbers): (&Vec<u32>, &Strings)| column.iter().all(|n| *n as usize <= numbers.ends.len());
    let holds_together = groups.len() > 0
        && groups.is_even()
        && groups.buckets.is_sorted()
        && groups.metrics.is_sorted_by(|(a, _), (b, _)| a < b)
        && groups.metrics.iter().all(|(column, _)| column.index() < columns)
        && strings.len() == shape.keys
        && groups.keys.iter().zip(&strings).all(known);
    if !holds_together {
        return Err(RestoreError::Malformed("a part of a rollup contradicts itself"));
    }
    let part = RollupPart::new(strings, groups, Some(budget));
    if part.is_each_once() { Ok(part) } else { Err(RestoreError::Malformed("a group comes twice")) }
}

fn metric_cell(take: &mut Take<'_>) -> Result<MetricCell, RestoreError> {
    Ok(MetricCell {
        count: take.u64()?,
        sum: Sum { high: take.f64()?, low: take.f64()? },
        squares: Sum { high: take.f64()?, low: take.f64()? },
        min: take.f64()?,
        max: take.f64()?,
    })
}

fn distinct_cell(take: &mut Take<'_>) -> Result<DistinctCell, RestoreError> {
    if take.bool()? {
        return Hll::from_bytes(take.bytes()?).map(|sketch| DistinctCell::Sketch(Box::new(sketch))).map_err(|_| SKETCH);
    }
    let hashes = take.list(Take::u64)?;
    if hashes.is_sorted_by(|a, b| a < b) && hashes.len() <= crate::DISTINCT_EXACT_MAX {
        Ok(DistinctCell::Hashes(hashes))
    } else {
        Err(RestoreError::Malformed("hashes of a rollup are out of order"))
    }
}
